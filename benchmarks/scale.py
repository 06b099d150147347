"""A million events through the search for semivisible jets: one worker and two, with and without models, and its memory.

    python benchmarks/scale.py [--events 1000000] [--folder build/scale] [--only workers,models,split,memory]

The events are those of tests/data (NanoAOD v15 layout: 150 semivisible and 200 QCD), each repeated with its phi rotated by
a random angle (seed 1) and, for half of the copies, eta flipped: invariances of all features, so that the kernels do the
same work on different numbers. Where nothing else is said, the cuts are opened: every event with two jets is scored, the most
that scoring can cost.

- workers: the same run on a local dask cluster of one and of two workers. CPU per event must hardly grow.
- models: CPU per event without a model, with ae_stored.onnx and with wnae.onnx, in turn, in one process.
- split: where the CPU time of a run with wnae.onnx goes.
- memory: resident memory of a process after 20 and after 200 chunks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import time
from pathlib import Path

import awkward as ak
import numpy as np
import psutil
import uproot
from rich.console import Console
from rich.table import Table

import coffea_ad as ad

DATA = Path(__file__).parent.parent / "tests" / "data"
LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=20", "lepton_pt_min=1e4"]
PER_FILE = 100_000
console = Console(width=140)


def replicated(source, copies, rng):
    """Yield copies of a file's columns, rotated and flipped, a hundred copies at a time."""
    with uproot.open(source) as file:
        tree = file["Events"]
        names = tree.keys()
        jagged = sorted({b[1:] for b in names if b[0] == "n" and any(k.startswith(b[1:] + "_") for k in names)})
        tables = {n: {k[len(n) + 1 :]: tree[k].array() for k in names if k.startswith(n + "_")} for n in jagged}
        flat = {
            k: tree[k].array(library="np")
            for k in names
            if k[1:] not in jagged and k.split("_")[0] not in jagged
        }  # fmt: skip
    n = len(flat["event"])
    event = 0
    while copies > 0:
        some = min(copies, 100)
        angle, sign = rng.uniform(-np.pi, np.pi, some), rng.choice([-1.0, 1.0], some)

        def turned(field, values, angle=angle, sign=sign):
            if field == "phi":
                return ak.concatenate([(values + a + np.pi) % (2 * np.pi) - np.pi for a in angle])
            if field == "eta":
                return ak.concatenate([values * s for s in sign])
            return ak.concatenate([values] * len(angle))

        columns = {
            t: ak.zip({f: ak.values_astype(turned(f, v), _type(v)) for f, v in fields.items()})
            for t, fields in tables.items()
        }  # fmt: skip
        for k, v in flat.items():
            columns[k] = np.asarray(turned(k.split("_")[-1], ak.Array(v))).astype(v.dtype)
        columns["event"] = np.arange(event, event + n * some).astype(flat["event"].dtype)
        event += n * some
        copies -= some
        yield columns, n * some


def _type(array):
    return ak.type(ak.flatten(array, axis=None)).content.primitive


def make(folder, events):
    """Write files of PER_FILE events; return the fileset."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / f"fileset-{events}.json"
    if record.exists():
        return json.loads(record.read_text())
    rng = np.random.default_rng(1)
    fileset = {}
    for name, share, xsec in (("svj", 150 / 350, 1.0), ("qcd", 200 / 350, 1000.0)):
        source = DATA / f"{name}_v15.root"
        with uproot.open(source) as file:
            own = file["Events"].num_entries
        copies = round(events * share / own)
        files, file, written = {}, None, 0
        for columns, n in replicated(source, copies, rng):
            if file is None or written >= PER_FILE:
                if file is not None:
                    file.close()
                path = folder / f"{name}-{events}-{len(files)}.root"
                files[str(path)] = "Events"
                file = uproot.recreate(path, compression=uproot.ZSTD(1))
                types = {k: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for k, v in columns.items()}
                tree, written = file.mktree("Events", types), 0
            tree.extend(columns)
            written += n
        file.close()
        fileset[name] = {"files": files, "metadata": {"is_mc": True, "xsec": xsec}}
    record.write_text(json.dumps(fileset))
    return fileset


def run(fileset, models=("wnae",), executor="iterative", workers=1, chunksize=100_000, overrides=LOOSE, **kwargs):
    return ad.run(
        fileset, "semivisible_jets", model=[DATA / f"{m}.onnx" for m in models], overrides=overrides, executor=executor,
        workers=workers, chunksize=chunksize, progress=False, preflight=False, **kwargs,
    )  # fmt: skip


def per_event(throughput):
    return 1e6 * throughput["total_cpu_time"] / throughput["total_events"]


def compare_workers(fileset):
    table = Table(
        "workers", "chunks", "wall, s", "CPU, µs per event", "kHz", "kHz per core", title="one worker, two workers"
    )
    rows = {}
    for workers in (1, 2):
        t = run(fileset, executor="dask", workers=workers).throughput
        rows[workers] = t
        table.add_row(
            str(workers), str(t["num_chunks"]), f"{t['elapsed_time_seconds']:.1f}",
            f"{per_event(t):.1f}", f"{t['event_rate_elapsed_khz']:.2f}",
            f"{t['event_rate_core_khz']:.2f}",
        )  # fmt: skip
    console.print(table)
    cpu = per_event(rows[2]) / per_event(rows[1])
    wall = rows[1]["elapsed_time_seconds"] / rows[2]["elapsed_time_seconds"]
    console.print(
        f"two workers against one: CPU per event x{cpu:.3f} (at most 1.08), wall time /{wall:.2f} (at least 1.7)"
    )


def compare_models(fileset, passes=5):
    """In turn, so that a busy machine is so for all."""
    qcd = {"qcd": {**fileset["qcd"], "files": dict(list(fileset["qcd"]["files"].items())[:2])}}
    mixed = {d: {**e, "files": dict(list(e["files"].items())[:1])} for d, e in fileset.items()}
    cases = {"no model": (), "ae_stored.onnx": ("ae_stored",), "wnae.onnx": ("wnae",), "both": ("ae_stored", "wnae")}
    table = Table(
        "sample and cuts", "events with scored jets", "model", "min", "median", "max", "over no model",
        title=f"CPU µs per event, {passes} passes, nominal and two variations of the jets",
    )  # fmt: skip
    samples = {
        "QCD, shipped cuts": (qcd, ()),
        "43 % semivisible jets, shipped cuts": (mixed, ()),
        "43 % semivisible jets, open cuts": (mixed, LOOSE),
    }
    for sample, (files, overrides) in samples.items():
        times = {name: [] for name in cases}
        for _ in range(passes):
            for name, models in cases.items():
                report = run(files, models, overrides=overrides)
                times[name].append(per_event(report.throughput))
        events = sum(d["events"] for d in report.datasets.values())
        passed = sum(d["cutflow"]["dphi"]["events"] for d in report.datasets.values())
        base = np.median(times["no model"])
        for name, values in times.items():
            low, middle, high = np.quantile(values, [0, 0.5, 1])
            more = f"{100 * (middle / base - 1):+.0f} %"
            table.add_row(
                sample, f"{100 * passed / events:.1f} %", name, f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}", more
            )
    console.print(table)


class Clock:
    """CPU time of parts that call each other: each has its own, without what it calls."""

    def __init__(self):
        self.own, self.stack = {}, []

    @contextlib.contextmanager
    def part(self, name):
        now = time.thread_time()
        if self.stack:
            self.own[self.stack[-1]] = self.own.get(self.stack[-1], 0) + now - self.since
        self.stack.append(name)
        self.since = now
        try:
            yield
        finally:
            now = time.thread_time()
            self.own[name] = self.own.get(name, 0) + now - self.since
            self.stack.pop()
            self.since = now

    def wrap(self, owner, attribute, name):
        inner = getattr(owner, attribute)

        def timed(*args, **kwargs):
            with self.part(name):
                return inner(*args, **kwargs)

        setattr(owner, attribute, timed)
        return lambda: setattr(owner, attribute, inner)


def split(fileset):
    from coffea.nanoevents.mapping import UprootSourceMapping

    from coffea_ad.running.chunks import Chunk
    from coffea_ad.scoring.scorer import OnnxScorer

    some = {d: {**e, "files": dict(list(e["files"].items())[:2])} for d, e in fileset.items()}
    run(some, limit_chunks=1)  # compiled
    clock = Clock()
    undo = [
        clock.wrap(Chunk, "result", "rest: selection, histograms"),
        clock.wrap(UprootSourceMapping, "extract_column", "read: decompress, interpret"),
        clock.wrap(ad, "tag", "features, and the rest of the tagger"),
        clock.wrap(OnnxScorer, "_run", "inference"),
    ]
    try:
        t = run(some).throughput
    finally:
        for back in undo:
            back()
    total = sum(clock.own.values())
    table = Table(
        "part", "CPU µs per event", "share", title="where the time of a run with wnae.onnx goes (one process)"
    )
    for name, value in sorted(clock.own.items(), key=lambda kv: -kv[1]):
        table.add_row(name, f"{1e6 * value / t['total_events']:.1f}", f"{100 * value / total:.0f} %")
    console.print(table)


def memory(fileset):
    from coffea_ad.running.chunks import Chunk

    inner, sizes, me = Chunk.result, [], psutil.Process()

    def watched(self):
        out = inner(self)
        sizes.append(me.memory_info().rss / 1e6)
        return out

    Chunk.result = watched
    try:
        run({d: {**e, "files": dict(list(e["files"].items())[:3])} for d, e in fileset.items()}, chunksize=2000)
    finally:
        Chunk.result = inner
    at = {n: sizes[n - 1] for n in (1, 20, 100, 200) if len(sizes) >= n}
    console.print(
        "resident memory after chunks of 2000 events: " + ", ".join(f"{n}: {s:.0f} MB" for n, s in at.items())
    )
    if len(sizes) >= 200:
        console.print(f"after 200 against after 20: {100 * (at[200] / at[20] - 1):+.1f} % (less than +5 %)")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--only", default="models,split,memory,workers")
    args = parser.parse_args()
    fileset = make(args.folder.resolve(), args.events)
    console.print(
        f"{args.events} events, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    )
    parts = {"models": compare_models, "split": split, "memory": memory, "workers": compare_workers}
    for name in args.only.split(","):
        parts[name](fileset)


if __name__ == "__main__":
    main()
