"""What lists of the most anomalous events cost: memory of a run of 200 chunks, and CPU time of chunks.

    python benchmarks/lists.py [--only memory,time] [--events 404000] [--folder build/scale] [--passes 5]

The events, the search and its opened cuts are those of benchmarks/scale.py: the leading jets of 84 % of the events are scored,
and each of the six regions has its list beside that of the model.

- memory: peak of resident memory with 1000 events in each list against none, chunks of 2000 events. Every run has a process
  of its own, in turn: one process that does all (iterative), and the client and the larger of two workers (dask).
- time: CPU of chunks of 100 000 events with lists against none, in turn in one process; with a model of stored branches, which costs
  least, and with one of constituents.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scale import LOOSE, Clock, make, per_event, run

from coffea_ad.histograms import RegionFiller
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect

CHUNK = 2000
console = Console(width=140)


def peak():
    """Highest resident memory of this process so far, MB."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def listing(length):
    return [*LOOSE, f"top_events={length}"]


def peaks(executor, fileset, length):
    """Run in this process, and say its peak and that of its largest worker."""
    words = {"models": ("ae_stored",), "chunksize": CHUNK, "overrides": listing(length)}
    if executor == "iterative":
        done, largest = run(fileset, **words), 0.0
    else:
        with connect(ClusterConfig(workers=2)) as client:
            done = run(fileset, executor="dask", cluster=client, **words)
            largest = max(client.run(peak).values())
    listed = {n: len(top) for n, top in done.outputs["qcd"].get("event_lists", {}).items()}
    return {"process": peak(), "worker": largest, "chunks": done.throughput["num_chunks"], "listed": listed}


def in_a_process(executor, length, args):
    words = ["--one", executor, "--length", str(length), "--events", str(args.events), "--folder", str(args.folder)]
    out = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True).stdout
    return json.loads(out.splitlines()[-1])


def spread(values):
    low, middle, high = np.quantile(values, [0, 0.5, 1])
    return f"{middle:.1f} ({low:.1f} to {high:.1f})"


def memory(args):
    table = Table("executor", "chunks", "process", "without lists", "1000 events each", "more, %", title="peak of resident memory, MB")  # fmt: skip
    for executor in ("iterative", "dask"):
        runs = {n: [] for n in (0, 1000)}
        for _ in range(args.passes):
            for length, of in runs.items():
                of.append(in_a_process(executor, length, args))
        for process in ("process",) if executor == "iterative" else ("process", "worker"):
            without, with_lists = ([one[process] for one in runs[n]] for n in (0, 1000))
            more = 100 * (np.array(with_lists) / np.array(without) - 1)
            name = (
                "the only one" if executor == "iterative" else {"process": "client", "worker": "larger worker"}[process]
            )
            table.add_row(executor, str(runs[0][0]["chunks"]), name, spread(without), spread(with_lists), spread(more))
    console.print(table)
    console.print(f"events in the lists of qcd: {runs[1000][0]['listed']}")


def time(args, fileset):
    one = {d: {**e, "files": dict(list(e["files"].items())[:1])} for d, e in fileset.items()}
    table = Table("model", "events in a list", "CPU, µs per event", "more than without, %", "of it making the lists, %", title="chunks of 100 000 events")  # fmt: skip
    clock = Clock()
    undo = clock.wrap(RegionFiller, "rank", "lists")
    for model in ("ae_stored", "wnae"):
        runs = {n: [] for n in (0, 100, 1000)}
        for i in range(args.passes + 1):  # the first warms up
            for length, of in runs.items():
                clock.own.clear()
                throughput = run(one, models=(model,), overrides=listing(length)).throughput
                ranking = clock.own.get("lists", 0.0) / throughput["total_cpu_time"]
                if i:
                    of.append((per_event(throughput), 100 * ranking))
        for length, of in runs.items():
            (cpu, ranking), without = np.array(of).T, np.array(runs[0])[:, 0]
            more = (spread(100 * (cpu / without - 1)), spread(ranking)) if length else ("", "")
            table.add_row(model, str(length), spread(cpu), *more)
    undo()
    console.print(table)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="memory,time")
    parser.add_argument("--events", type=int, default=404_000)
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--one", choices=("iterative", "dask"), help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    fileset = make(args.folder.resolve(), args.events)
    if args.one:
        print(json.dumps(peaks(args.one, fileset, args.length)))
        return
    if "memory" in args.only:
        memory(args)
    if "time" in args.only:
        time(args, fileset)


if __name__ == "__main__":
    main()
