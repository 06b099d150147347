"""Toy dijets: a falling mass, four inputs, and a resonance in the middle."""

from __future__ import annotations

import numpy as np

from coffea_ad.features.spec import feature_spec
from coffea_ad.skims.skim import Skim
from coffea_ad.splits import split_of

MEAN, WIDTH = 3500.0, 60.0


def background(n, seed, drift=0.0):
    """m falls exponentially between 2500 and 5500 GeV; inputs are jet-like, and move by drift · m where asked."""
    rng = np.random.default_rng(seed)
    m = 2500 - 600 * np.log1p(-rng.random(n) * (1 - np.exp(-3000 / 600)))
    mj1, delta = 60 + 60 * rng.gamma(1.5, size=n), 80 * rng.gamma(1.2, size=n)
    tau = np.clip(rng.normal([0.55, 0.5], [0.13, 0.14], (n, 2)), 0.02, 0.98)
    return np.column_stack([m, mj1 + drift * m, delta + drift * m, tau]).astype(np.float32)


def signal(n, seed, drift=0.0):
    """Two-prong jets of 100 and 500 GeV."""
    rng = np.random.default_rng(seed)
    m = rng.normal(MEAN, WIDTH, n)
    columns = [rng.normal(100, 8, n) + drift * m, rng.normal(400, 20, n) + drift * m]
    tau = np.clip(rng.normal([0.2, 0.2], 0.08, (n, 2)), 0.02, 0.98)
    return np.column_stack([m, *columns, tau]).astype(np.float32)


def skim(x, dataset="data", first=0, signals=()):
    """Rows as a skim, with events numbered from `first`."""
    n = len(x)
    ids = {
        "run": np.ones(n, np.uint32),
        "luminosityBlock": np.ones(n, np.uint32),
        "event": np.arange(first, first + n, dtype=np.uint64),
    }
    return Skim(
        x=x, weight=np.ones(n), dataset=np.full(n, dataset), split=split_of(*ids.values()), spectators=ids,
        features=(feature_spec("dijet", {}),),
        provenance={
            "selection": {}, "flavours": ["v15"], "collection": "FatJet", "n_effective": float(n), "files": {},
            "rows": {dataset: n}, "asked": [dataset], "signals": list(signals), "negative_weight_fraction": 0.0,
        },
    )  # fmt: skip


def data(n, n_signal, seed, drift=0.0):
    """Background with a few signal events, in random order."""
    x = np.concatenate([background(n, seed, drift), signal(n_signal, seed + 1, drift)])
    return skim(x[np.random.default_rng(seed).permutation(len(x))])
