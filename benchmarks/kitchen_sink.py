"""What the dijet's `kitchen_sink` costs for each jet, in process time on one core, part by part.

    OMP_NUM_THREADS=1 python benchmarks/kitchen_sink.py

Jets: those of 45 to 70 constituents of the simulated QCD, tt̄ and semivisible-jet files of tests/data; and toy jets of 55 constituents
in three prongs. The smallest of 15 repetitions and their median.
"""

from __future__ import annotations

import time

import numpy as np
from features import simulated_jets, toy_jets
from rich.console import Console
from rich.table import Table

from coffea_ad.features.energy_flow import GRAPHS, efp
from coffea_ad.features.kitchen_sink import kitchen_sink
from coffea_ad.features.substructure import Conventions, substructure

REPETITIONS = 15
TREES = [name for name, graph in GRAPHS.items() if len({v for e in graph for v in e}) > len(set(graph))]


def cost(function, n_jets):
    """Smallest and median time, µs a jet."""
    function()
    times = []
    for _ in range(REPETITIONS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1e6 * np.min(times) / n_jets, 1e6 * np.median(times) / n_jets


def between(jets, low, high):
    """The jets with so many constituents."""
    offsets, *columns = jets
    counts = np.diff(offsets)
    keep = (counts >= low) & (counts <= high)
    return (np.r_[0, np.cumsum(counts[keep])], *(c[np.repeat(keep, counts)] for c in columns))


def main():
    table = Table(
        "jets", "constituents", "what", "smallest, µs a jet", "median, µs a jet", title="kitchen sink: process time"
    )
    for name, jets in (("simulated", between(simulated_jets(), 45, 70)), ("toys", toy_jets(1000, 55))):
        n = len(jets[0]) - 1
        parts = {
            "all of a jet, OnePass_KT": lambda jets=jets: kitchen_sink(*jets),
            "all of a jet, KT": lambda jets=jets: kitchen_sink(*jets, Conventions(axes="KT")),
            "20 energy flow polynomials": lambda jets=jets: efp(list(GRAPHS), *jets),
            "the 16 trees among them": lambda jets=jets: efp(TREES, *jets),
            "soft drop, multiplicity, pTD": lambda jets=jets: substructure(["msoftdrop", "multiplicity", "ptd"], *jets),
        }
        for what, function in parts.items():
            low, median = cost(function, n)
            table.add_row(f"{n} {name}", f"{jets[0][-1] / n:.1f}", what, f"{low:.1f}", f"{median:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
