"""How fast the chain is: ratios within one run on one core.

    make bench

Each line is the median of repeated passes, with minimum and maximum, in process time. How fast features are by themselves
is measured in features.py.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

import awkward as ak
import numpy as np
from coffea.nanoevents import NanoEventsFactory
from rich.console import Console
from rich.table import Table

import coffea_ad as ad

DATA = Path(__file__).parent.parent / "tests" / "data"
REPEATS = 7


def timed(function):
    """Process time of repeated calls, s: (minimum, median, maximum)."""
    function()  # compile, open, warm up
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return np.quantile(times, [0, 0.5, 1])


def main():
    rows = []

    def add(name, times, per, unit="jet"):
        rows.append((name, unit, *(1e6 * times / per)))
        return times[1] / per

    scorer = ad.OnnxScorer(DATA / "wnae.onnx")
    golden = scorer.card.golden.rows(scorer.card.inputs[0])
    x = np.tile(golden, (50_000 // len(golden), 1))
    small = ad.OnnxScorer(DATA / "wnae.onnx", batch=1024)
    whole = ad.OnnxScorer(DATA / "wnae.onnx", batch=len(x))
    single = ad.OnnxScorer(DATA / "wnae.onnx", batch=1)
    score = add("WNAE score, batches of 1024", timed(lambda: small(x)), len(x))
    one_batch = add("WNAE score, one batch of 50 000", timed(lambda: whole(x)), len(x))
    one_by_one = add("WNAE score, one by one", timed(lambda: single(x[:2000])), 2000)

    tagger = ad.Tagger(DATA / "wnae.onnx")

    def tag():
        events = NanoEventsFactory.from_root(f"{DATA}/svj_v15.root:Events", schemaclass=ad.NanoAODSchema).events()
        return ak.to_numpy(ak.num(tagger(events))).sum()

    add("open, read, features, score: a file of 150 events", timed(tag), 150, "event")

    table = Table("what", "per", "min", "median", "max", title="µs")
    for name, unit, *times in rows:
        table.add_row(name, unit, *(f"{t:.2f}" for t in times))
    console = Console()
    console.print(table)
    console.print(
        f"one by one / batches of 1024: {one_by_one / score:.0f}; one batch / batches of 1024: {one_batch / score:.2f}"
    )
    versions = ", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("numba", "numpy", "onnxruntime", "awkward"))
    console.print(f"{platform.machine()}, Python {platform.python_version()}, {versions}")


if __name__ == "__main__":
    main()
