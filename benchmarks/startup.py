"""What compilation costs: the time to the first result in a new process, with an empty cache and with a filled one.

    python benchmarks/startup.py

Each line is a new Python process that computes one feature of a file of tests/data. "Several at once" starts as many
processes as there are cores on one empty cache, as the workers of a dask cluster do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

import coffea_ad as ad

FILE = Path(__file__).parent.parent / "tests" / "data" / "ttbar_v15.root"
CODE = """
import sys, time
start = time.perf_counter()
from coffea.nanoevents import NanoEventsFactory
import coffea_ad as ad
events = NanoEventsFactory.from_root(sys.argv[2] + ":Events", schemaclass=ad.NanoAODSchema).events()
if sys.argv[1] != "none":
    ready = time.perf_counter()
    ad.features.compute(sys.argv[1], events)
    print(time.perf_counter() - ready)
else:
    print(time.perf_counter() - start)
"""


def start(feature, cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, feature, str(FILE)], env=environment, stdout=subprocess.PIPE, text=True
    )


def seconds(process):
    return float(process.communicate()[0])


def main():
    table = Table("feature", "first process", "second", "several at once, slowest", "their whole time", title="seconds")
    with tempfile.TemporaryDirectory() as cache:
        table.add_row("import coffea and coffea_ad, open a file", f"{seconds(start('none', cache)):.2f}", "", "", "")
    for feature in ad.features.FEATURES:
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as shared:
            cold, warm = seconds(start(feature, cache)), seconds(start(feature, cache))
            begin = time.perf_counter()
            many = [start(feature, shared) for _ in range(os.cpu_count() or 1)]
            slowest = max(seconds(process) for process in many)
            table.add_row(feature, f"{cold:.2f}", f"{warm:.2f}", f"{slowest:.2f}", f"{time.perf_counter() - begin:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
