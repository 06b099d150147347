"""Encoders of sets in onnxruntime: jets per second of CPU time, with one thread, as they come and without empty slots.

    python benchmarks/encoders.py [--repeats 5] [--jets 4096] [--skim SKIM]

Untrained weights: what a score costs does not depend on them. Jets are those of a skim with `jet_constituents`, or made ones with 35 of 50
slots occupied. All are measured in alternation in one process; printed are medians over the repeats, their range, and how far scores
are from torch's and from those of other batches. Bar: 2000 jets a second at the size of `darkclr`, with the same scores.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import onnxruntime as ort
import torch
from rich.console import Console
from rich.table import Table

from coffea_ad import nn
from coffea_ad.nn.self_supervised.encoder import PRESETS
from coffea_ad.scoring.batches import batches
from coffea_ad.skims.reading import load_skim

BATCH = 1024


def jets(n):
    rng = np.random.default_rng(1)
    filled = np.arange(50) < rng.poisson(35, n).clip(1, 50)[:, None]
    pt = -np.sort(-rng.exponential(10, (n, 50)) * filled, axis=1)
    return np.stack([pt, *(rng.normal(0, 0.3, (2, n, 50)) * filled)], axis=2).astype(np.float32)


def encoder(preset):
    torch.manual_seed(1)
    return nn.CLR(nn.SetEncoder(50, nn.Tokens(["pt", "deta", "dphi"], scale="log"), **PRESETS[preset])).eval()


def scored(session, x, slots_vary):
    """Thousands of jets a second of CPU time, and the scores."""
    out, start = np.empty(len(x), np.float32), time.process_time()
    for places, part in batches({"features": x}, BATCH, slots_vary=slots_vary):
        out[places] = session.run(None, dict(part))[0].reshape(-1)
    return len(x) / (time.process_time() - start), out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--jets", type=int, default=4096)
    parser.add_argument("--skim")
    args = parser.parse_args()
    torch.set_num_threads(1)
    x = jets(args.jets)
    if args.skim:
        x = np.asarray(load_skim(args.skim, "jet_constituents", weights="none").x[: args.jets])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    sides, rates, gaps = {}, {}, {}
    for preset in PRESETS:
        model = encoder(preset)
        session = ort.InferenceSession(model.graph(["score"]), options, providers=["CPUExecutionProvider"])
        for how in ("as they come", "without empty slots"):
            sides[preset, how] = (session, how != "as they come", model.scores(x[:512]))
    for _ in range(args.repeats):
        for key, (session, vary, expected) in sides.items():
            rate, scores = scored(session, x, vary)
            rates.setdefault(key, []).append(rate)
            gaps[key] = float(np.max(np.abs(scores[:512] - expected) / (1 + np.abs(expected))))
    shown = Table("encoder", "batches", "jets / CPU s", "range", "largest difference to torch")
    for (preset, how), values in rates.items():
        span = f"{min(values):.0f} to {max(values):.0f}"
        shown.add_row(preset, how, f"{np.median(values):.0f}", span, f"{gaps[preset, how]:.1e}")
    console = Console(width=110)
    console.print(f"{len(x)} jets with {(x[:, :, 0] > 0).sum(axis=1).mean():.1f} of {x.shape[1]} slots occupied")
    console.print(shown)


if __name__ == "__main__":
    main()
