"""What it costs to look for repeated events: the same run with `ignore`, `note` and `drop`, and the sorting of many hashes.

python benchmarks/duplicates.py [--events 200000] [--hashes 20000000]

Ratios within one run count; times depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import uproot
from coffea import processor

import coffea_ad as ad
from coffea_ad.running import duplicates
from coffea_ad.splits import event_hash


class Mean(processor.ProcessorABC):
    """Little work for an event, so that the cost shows."""

    def process(self, events):
        met = events.PuppiMET["pt"].to_numpy()
        return {events.metadata["dataset"]: {"n": len(met), "met": float(met.sum())}}

    def postprocess(self, accumulator):
        return accumulator


def write(path, n, rng):
    columns = {
        "run": np.full(n, 362_000, np.uint32), "luminosityBlock": rng.integers(1, 1000, n).astype(np.uint32),
        "event": rng.integers(0, 2**40, n).astype(np.uint64), "PuppiMET_pt": rng.exponential(50, n).astype(np.float32),
        "PuppiMET_phi": rng.uniform(-3, 3, n).astype(np.float32),
    }  # fmt: skip
    columns["event"][-n // 100 :] = columns["event"][: n // 100]
    columns["luminosityBlock"][-n // 100 :] = columns["luminosityBlock"][: n // 100]
    with uproot.recreate(path) as file:
        file.mktree("Events", {k: v.dtype for k, v in columns.items()}).extend(columns)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--hashes", type=int, default=20_000_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.root"
        write(path, args.events, np.random.default_rng(1))
        fileset = {"data": {"files": {str(path): "Events"}, "metadata": {"is_mc": False}}}
        seconds = {mode: [] for mode in ("ignore", "note", "drop")}
        for _ in range(3):
            for mode, times in seconds.items():
                started = time.process_time()
                report = ad.run(
                    fileset, Mean(), executor="iterative", chunksize=50_000, duplicates=mode, progress=False
                )
                times.append(time.process_time() - started)
        for mode, times in seconds.items():
            print(f"{mode}: {min(times):.2f} s of processor time, {min(times) / min(seconds['ignore']):.2f} × ignore")
        print(report.notes[-1])
    size = 100_000
    chunks = [("data", "x", size * i) for i in range(args.hashes // size)]
    ids = {c: event_hash("duplicates", 1, 1, np.arange(c[2], c[2] + size)) for c in chunks}
    started = time.process_time()
    found = duplicates.find(ids, chunks, {"data"})
    used = time.process_time() - started
    print(
        f"{args.hashes} hashes: {used:.1f} s, {used / args.hashes * 1e9:.0f} ns each, {8e-9 * args.hashes:.2f} GB; {found.counts}"
    )


if __name__ == "__main__":
    main()
