"""Check before a run of many datasets: seconds for full NanoAOD v15 files, against parsing every file.

    python benchmarks/preflight.py FILE.root [--datasets 100] [--repeats 3]

FILE is a NanoAOD file with all branches, which is copied once for each dataset. Both are measured in alternation in one
process: the check as it is, and the same with every file parsed.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from coffea_ad.nanoaod.reading import OPEN_FILES
from coffea_ad.running import first_files
from coffea_ad.running.preflight import check_files


def seconds(paths: list[str], *, parse: bool) -> float:
    fileset = {f"d{i}": {"files": {path: "Events"}, "metadata": {"is_mc": True}} for i, path in enumerate(paths)}
    OPEN_FILES.close()
    like = first_files._Known.like
    if parse:
        first_files._Known.like = lambda *_: None
    started = time.perf_counter()
    try:
        check_files(fileset, {"jets": (("FatJet_pt", "FatJet_eta"),)}, [], tolerant=False)
    finally:
        first_files._Known.like = like
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--datasets", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(shutil.copy(args.file, Path(folder) / f"{i}.root")) for i in range(args.datasets)]
        few = max(args.datasets // 10, 1)
        rows = [
            (seconds(paths, parse=False), seconds(paths[:few], parse=True) / few * len(paths))
            for _ in range(args.repeats)
        ]
    ours, parsed = np.array(rows).T
    ratio = parsed / ours
    print(f"{args.datasets} datasets of {args.file.stat().st_size / 1e6:.1f} MB files")
    print(f"check before the run: {np.median(ours):.1f} s ({ours.min():.1f} to {ours.max():.1f})")
    print(f"with every file parsed: {np.median(parsed):.0f} s (from {few} of them), {np.median(ratio):.0f} times as long "
          f"({ratio.min():.0f} to {ratio.max():.0f})")  # fmt: skip


if __name__ == "__main__":
    main()
