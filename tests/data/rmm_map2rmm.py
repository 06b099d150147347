"""Freeze rapidity-mass matrices of the authors' C++ for toy events.

    python tests/data/rmm_map2rmm.py --reference ADFilter

writes rmm_map2rmm.json with 25 events and, per event, the cells of T5N10 (51 × 51, √s = 13 TeV) that are not 0: before
and after the cells below the diagonal are multiplied by 0.15. benchmarks/rmm_root.py says how to get the reference.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "benchmarks"))
from rmm_root import Events, provenance, reference, toy_events, weighted

JET, BJET, MUON, ELECTRON, PHOTON = range(5)
# name: (objects as (kind, pT, η, φ, mass), MET, its φ)
EDGES = {
    "empty": ([], 0, 0),
    "only MET": ([], 87.5, 2.1),
    "only one jet": ([(JET, 112.25, -1.3, 0.4, 14.5)], 0, 0),
    "only one photon with MET": ([(PHOTON, 64.5, 0.7, -2.2, 0)], 41.5, 1.9),
    # the reference takes the first ten of each kind as they come
    "thirteen light jets": (
        [(JET, 210.5 - 14 * i, 0.35 * (i - 6), 0.9 * i - 3.1, 9.5 + 0.5 * i) for i in range(13)]
        + [(BJET, 75.25, 0.2, 1.1, 8.0)],
        55.5,
        -0.6,
    ),
    "identical momenta": (
        [(JET, 95.5, 0.8, 1.2, 11.0)] * 2
        + [(BJET, 95.5, 0.8, 1.2, 11.0), (MUON, 45.25, -0.9, 2.5, 0.1056583745)]
        + [(ELECTRON, 45.25, -0.9, 2.5, 0.00051099895)] * 2,
        62.0,
        0.3,
    ),
    "identical massless momenta": ([(PHOTON, 71.3, 1.37, -0.77, 0)] * 2 + [(PHOTON, 71.3, -1.37, 2.3, 0)], 0, 0),
    "azimuth of plus and minus pi": (
        [(JET, 130.0, 0.5, np.pi, 17.0), (JET, 121.0, -0.5, -np.pi, 12.0), (MUON, 52.0, 0.1, np.pi, 0.1056583745)],
        70.0,
        -np.pi,
    ),
    # m_T² is 0 up to rounding, of either sign
    "photons along MET": ([(PHOTON, 83.7 - 7.9 * i, 1.1 - 0.6 * i, 0.83, 0) for i in range(5)], 66.1, 0.83),
    # the heavier jet has the smaller pT and the larger E_T, so that their imbalance is negative
    "order of pT not of E_T": ([(JET, 101.0, 0.2, 0.5, 5.5), (JET, 99.0, -0.1, -2.4, 35.0)], 33.25, 1.0),
    "forward": ([(JET, 61.0, 4.6, 0.5, 7.0), (JET, 58.0, -4.7, -2.4, 6.0), (ELECTRON, 35.0, 2.4, 1.0, 0)], 44.0, 3.0),
}


def edge_events():
    objects = np.array([o for event, _, _ in EDGES.values() for o in event], float)
    counts = [len(event) for event, _, _ in EDGES.values()]
    met = np.array([(met, phi) for _, met, phi in EDGES.values()], float)
    return Events(np.r_[0, np.cumsum(counts)], objects[:, 0].astype(np.int8), *objects[:, 1:].T, *met.T)


def joined(a, b):
    offsets = np.r_[a.offsets, a.offsets[-1] + b.offsets[1:]]
    return Events(offsets, *(np.concatenate(pair) for pair in zip(a[1:], b[1:], strict=True)))


def short(values):
    """Shortest decimals that give the same single-precision numbers."""
    return [float(str(value)) for value in values]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--reference", required=True, type=Path, help="checkout of github.com/chekanov/ADFilter")
    parser.add_argument("--commit", help="of the reference, if it is a copy without history")
    args = parser.parse_args()
    ordinary = toy_events(25 - len(EDGES), seed=3)
    events = joined(edge_events(), ordinary)
    before, _ = reference(events, args.reference, passes=1)
    after = weighted(before)
    cells = []
    for i in range(len(before)):
        row, col = np.nonzero(before[i])
        values = {"before": short(before[i][row, col]), "after": short(after[i][row, col])}
        cells.append({"row": row.tolist(), "col": col.tolist(), **values})
    made_with = provenance(args.reference)
    if args.commit:
        made_with["commit"] = args.commit
    frozen = {
        "made_with": made_with,
        "energy": 13000.0,
        "names": [*EDGES, *("toy" for _ in ordinary.met)],
        "events": {name: column.tolist() for name, column in events._asdict().items()},
        "cells": cells,
    }
    (HERE / "rmm_map2rmm.json").write_text(json.dumps(frozen, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
