"""Falling spectra for the tests of searches."""

from __future__ import annotations

import numpy as np

from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectra, Spectrum

SQRT_S = 13000.0
EDGES = np.arange(1500.0, 6001.0, 100.0)


def falling(total, edges=EDGES):
    """Expected events of a spectrum like that of dijets."""
    m = (edges[1:] + edges[:-1]) / 2
    x = m / SQRT_S
    f = (1 - x) ** 8 / x**5 * np.diff(edges)
    return f / f.sum() * total


def spectrum(total=20_000, seed=1, *, name="mjj", signal=0.0, mass=3000.0, width=0.05, edges=EDGES):
    rng = np.random.default_rng(seed)
    return Spectrum.of_events(name, edges, rng.poisson(falling(total, edges) + signal * gaussian(edges, mass, width)))


def nested(total=20_000, seed=1, *, observable="mjj", parts=(0.89, 0.1, 0.01), signal=0.0):
    """An observable in three nested regions; a signal is in the tightest cell."""
    rng = np.random.default_rng(seed)
    cells = {}
    for i, part in enumerate(parts):
        expected = falling(total * part) + (signal * gaussian(EDGES, 3000.0, 0.05) if i == len(parts) - 1 else 0)
        cells[str(i)] = Spectrum.of_events(observable, EDGES, rng.poisson(expected))
    names = ["inclusive", "loose", "tight"]
    regions = {names[k]: frozenset(str(i) for i in range(k, len(parts))) for k in range(len(parts))}
    return Spectra(observable, cells, regions)
