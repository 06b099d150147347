"""Places and toys that tests share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from coffea.nanoevents import NanoEventsFactory

import coffea_ad as ad

HERE = Path(__file__).parent
DATA = HERE / "data"
REAL = HERE.parent.parent / "shared" / "data" / "nanoaod"


def open_events(path, schema=ad.NanoAODSchema, **kwargs):
    return NanoEventsFactory.from_root(f"{path}:Events", schemaclass=schema, **kwargs).events()


def toy_jets(rng, n_jets=20, largest=40):
    """Constituents of toy jets with one to three prongs, flat."""
    counts = rng.integers(1, largest, n_jets)
    jet = np.repeat(np.arange(n_jets), counts)
    n = len(jet)
    prong = rng.integers(0, 3, n)
    center = rng.normal(0, 0.3, (2, n_jets, 3))
    eta = center[0, jet, prong] + rng.normal(0, 0.1, n) + rng.normal(0, 1, n_jets)[jet]
    phi = center[1, jet, prong] + rng.normal(0, 0.1, n) + rng.uniform(-np.pi, np.pi, n_jets)[jet]
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    mass = np.where(rng.random(n) < 0.6, 0.13957, 0.0)
    return np.r_[0, np.cumsum(counts)], rng.exponential(10, n) + 0.5, eta, phi, mass
