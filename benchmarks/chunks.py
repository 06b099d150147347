"""What a chunk costs before its first event: coffea's own way against files that stay open with wanted branches only.

    python benchmarks/chunks.py [FILE]

CPU seconds per chunk, amortised over ten chunks of a file, in one process; every pass opens a fresh copy of the file. The
branches are those of the search for semivisible jets with the WNAE. FILE is a full NanoAOD file; without it, the real
v15 file is taken if it is there.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uproot
from coffea.nanoevents import NanoEventsFactory
from rich.console import Console
from rich.table import Table

import coffea_ad as ad
from coffea_ad.nanoaod.reading import OPEN_FILES, BranchFilter, build_events

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data" / "nanoaod" / "nano_tt_v15.root"
PASSES, CHUNKS = 7, 10


def coffea(path, edges, wanted):
    """As coffea's work function: open the file, build all branches, for every chunk."""
    for start, stop in itertools.pairwise(edges):
        with uproot.open({str(path): None}) as file:
            NanoEventsFactory.from_root(
                file, treepath="Events", schemaclass=ad.NanoAODSchema, mode="virtual", entry_start=start, entry_stop=stop,
            ).events()  # fmt: skip


def kept(path, edges, wanted):
    for start, stop in itertools.pairwise(edges):
        opened = OPEN_FILES.get(str(path))
        _, names = opened.tree("Events")
        metadata = {"treename": "Events", "filename": str(path), "entrystart": start, "entrystop": stop}
        build_events(opened, metadata, ad.NanoAODSchema, None if wanted is None else wanted.of(names))


def main():
    source = Path(sys.argv[1]) if len(sys.argv) > 1 else REAL
    console = Console(width=120)
    if not source.is_file():
        console.print(f"skipped: {source} is not there; give a full NanoAOD file")
        return
    with uproot.open(source) as file:
        branches, events = len(file["Events"].keys()), file["Events"].num_entries
    edges = np.linspace(0, events, CHUNKS + 1).astype(int).tolist()
    module = ad.recipes.load("semivisible_jets")
    processor = module.Processor(module.Config(), [ad.Tagger(ROOT / "tests" / "data" / "wnae.onnx")])
    wanted = BranchFilter(frozenset(b for ways in processor.reads().values() for way in ways for b in way))
    ways = {
        "coffea: opened anew, all branches": (coffea, None),
        "kept open, all branches": (kept, None),
        "kept open, wanted branches": (kept, wanted),
    }
    times = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(PASSES + 1):  # the first warms up
            for name, (way, branches_wanted) in ways.items():  # in turn, so that a busy machine is so for all
                path = Path(folder) / "copy.root"
                shutil.copy(source, path)
                begin = time.process_time()
                way(path, edges, branches_wanted)
                if n:
                    times[name].append((time.process_time() - begin) / CHUNKS)
                OPEN_FILES.drop(str(path))
    table = Table("way", "min", "median", "max", "ratio", title=f"CPU s per chunk: {source.name}, {branches} branches")
    first = np.median(times[next(iter(ways))])
    for name, values in times.items():
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        table.add_row(name, f"{low:.3f}", f"{middle:.3f}", f"{high:.3f}", f"{middle / first:.3f}")
    console.print(table)


if __name__ == "__main__":
    main()
