"""How a run holds with very many chunks: memory of client, scheduler and workers, and time of the scheduler per chunk.

    python benchmarks/many_chunks.py [CHUNKS] [--coffea N]

Chunks that do no work go through a local cluster of two workers, once with nothing as result and once with histograms of
the size that the search for semivisible jets fills. With --coffea, so many also go through coffea's own executor.

Scheduler and client are one process here: its CPU time per chunk is what limits the rate of chunks, whatever the number
of workers. Memory is read every two seconds from the operating system; "first tenth" and "end" are peaks up to there.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from pathlib import Path

import hist
import numpy as np
import psutil
from coffea.processor import DaskExecutor as CoffeaDaskExecutor
from coffea.processor.executor import WorkItem
from distributed import Client
from rich.console import Console
from rich.table import Table

import coffea_ad as ad
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect
from coffea_ad.running.executors import DaskExecutor

DATA = Path(__file__).parent.parent / "tests" / "data"


def nothing(item):
    return {"out": {}, "processed": {item}, "metrics": {"entries": len(item)}}


_filled = {}


def filled(item):
    """Histograms of the search, filled with 1000 events."""
    if not _filled:
        module = ad.recipes.load(str(DATA.parent.parent / "processors" / "semivisible_jets.py"))
        processor = module.Processor(module.Config(), [ad.Tagger(DATA / "wnae.onnx")])
        rng = np.random.default_rng(1)
        for name, h in processor._book(["nominal", "jet_scaleUp", "jet_scaleDown"]).items():
            axis, regions, variations = h.axes[2], list(h.axes[0]), list(h.axes[1])
            low, high = axis.edges[0], axis.edges[-1]
            kind = int if isinstance(axis, hist.axis.Integer) else float
            for region in regions:
                for variation in variations:
                    h.fill(
                        region=region,
                        variation=variation,
                        weight=1.0,
                        **{axis.name: rng.uniform(low, high, 1000).astype(kind)},
                    )
            _filled[name] = h
    histograms = {name: hist.Hist(h) for name, h in _filled.items()}
    out = {"svj": {"sumw": 1.0, "events": len(item), "histograms": histograms}}
    return {"out": out, "processed": {item}, "metrics": {"entries": len(item)}}


class Memory(threading.Thread):
    """Peaks of resident memory of this process and of its largest child, MB, as the work goes on."""

    def __init__(self):
        super().__init__(daemon=True)
        self.done, self.peaks = threading.Event(), []
        self.me = psutil.Process()

    def run(self):
        while not self.done.wait(2):
            sizes = [self.me.memory_info().rss]
            for child in self.me.children(recursive=True):
                try:
                    sizes.append(child.memory_info().rss)
                except psutil.Error:
                    sizes.append(0)
            self.peaks.append((time.monotonic(), sizes[0] / 1e6, max(sizes[1:], default=0) / 1e6))

    def report(self, start, stop):
        peaks = np.array([p for p in self.peaks if p[0] >= start] or [(start, 0, 0)])
        early = peaks[peaks[:, 0] <= start + (stop - start) / 10]
        early = early if len(early) else peaks[:1]
        return [f"{early[:, i].max():.0f} → {peaks[:, i].max():.0f}" for i in (1, 2)]


def measure(client, kind, function, n):
    items = [
        WorkItem("svj", f"root://somewhere//store/file_{i // 100}.root", "Events", i % 100, i % 100 + 1, bytes(16))
        for i in range(n)
    ]
    executor = kind(client=client, status=False, retries=3)
    memory = Memory()
    memory.start()
    start, cpu = time.monotonic(), time.process_time()
    out, _ = executor(items, function, None)
    stop, cpu = time.monotonic(), time.process_time() - cpu
    memory.done.set()
    assert len(out["processed"]) == n
    if function is filled:
        assert out["out"]["svj"]["sumw"] == n
    return [str(n), f"{1e3 * (stop - start) / n:.2f}", f"{1e3 * cpu / n:.2f}", *memory.report(start, stop)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("chunks", nargs="?", type=int, default=100_000)
    parser.add_argument("--coffea", type=int, default=0)
    args = parser.parse_args()
    import pickle

    import lz4.frame

    size = len(lz4.frame.compress(pickle.dumps(filled(WorkItem("svj", "x", "Events", 0, 1, bytes(16))))))
    table = Table("executor", "result", "chunks", "ms wall", "ms CPU of client and scheduler", "client and scheduler, MB",
                  "largest worker, MB", title=f"per chunk; 2 workers; a histogram result is {size / 1e3:.0f} kB when packed")  # fmt: skip
    runs = [(DaskExecutor, f, args.chunks) for f in (nothing, filled)]
    runs += [(CoffeaDaskExecutor, f, args.coffea) for f in (nothing, filled) if args.coffea]
    for kind, function, n in runs:
        with connect(ClusterConfig(workers=2)) as client:
            assert isinstance(client, Client)
            measure(client, kind, function, 100)  # warm up
            row = measure(client, kind, function, n)
            table.add_row("coffea" if kind is CoffeaDaskExecutor else "coffea_ad", function.__name__, *row)
    Console(width=150).print(table)
    print(f"{os.cpu_count()} cores")


if __name__ == "__main__":
    main()
