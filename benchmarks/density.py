"""Scoring by exported flows: events per second of CPU time through onnxruntime, with one thread and batches of 1000.

    python benchmarks/density.py [--repeats 7] [--rows 50000]

Eight columns behind the logit preprocessing, untrained weights: what a score costs does not depend on them. All are measured in
alternation in one process; printed are the median over the repeats, their range, the ratio to torch's own scores of the same rows,
and how far both are apart. Bars, in thousands of events a second:

    MAF, 5 × (128, 128)            400
    NSF, 3 × (128, 128), 8 bins    120
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort
import torch
from rich.console import Console
from rich.table import Table

from coffea_ad import nn

COLUMNS, BATCH = 8, 1000
FLOWS = {
    "MAF, 5 × (128, 128)": ({"kind": "maf", "transforms": 5}, 400),
    "NSF, 3 × (128, 128)": ({"kind": "nsf", "transforms": 3}, 120),
    "NSF, coupling, 3 × (128, 128)": ({"kind": "nsf", "transforms": 3, "coupling": True}, None),
    "NSF, uniform base, 3 × (128, 128)": ({"kind": "nsf", "transforms": 3, "base": "uniform"}, None),
}


def flow(x, options):
    torch.manual_seed(1)
    transform = nn.Logit(COLUMNS).fit(x, np.ones(len(x)))
    return nn.Flow(COLUMNS, hidden=(128, 128), transform=transform, **options).eval()


def session(model):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.graph(["score"]), options, providers=["CPUExecutionProvider"])


def rate(score, x):
    """Thousands of rows a second of CPU time, and the scores."""
    start = time.process_time()
    scores = np.concatenate([score(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])
    return len(x) / (time.process_time() - start) / 1e3, scores


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rows", type=int, default=50_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = np.random.default_rng(1).normal(size=(arguments.rows, COLUMNS)).astype(np.float32)
    sides = {}
    for name, (options, _) in FLOWS.items():
        model, runtime = flow(x, options), session(flow(x, options))
        sides[name] = (lambda rows, runtime=runtime: runtime.run(None, {"features": rows})[0].reshape(-1), model.scores)
    rates, gaps = {name: [] for name in FLOWS}, {}
    for _ in range(arguments.repeats):
        for name, (graph, eager) in sides.items():
            (fast, one), (slow, two) = rate(graph, x), rate(eager, x)
            rates[name].append((fast, slow))
            gaps[name] = float(np.max(np.abs(one - two) / (1 + np.abs(two))))
    table = Table("flow", "k events / CPU s", "range", "bar", "over bar", "over torch", "largest difference")
    for name, (_, bar) in FLOWS.items():
        fast, slow = np.array(rates[name]).T
        table.add_row(
            name, f"{np.median(fast):.0f}", f"{fast.min():.0f} to {fast.max():.0f}", "" if bar is None else f"{bar}",
            "" if bar is None else f"{np.median(fast) / bar:.2f}", f"{np.median(fast / slow):.2f}", f"{gaps[name]:.1e}",
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
