"""LHC Olympics features as two benchmarks of weak supervision: the arrays, the splits and the figures of merit.

Rows are (m_JJ, m_J1, Δm_J, τ21 of J1, τ21 of J2), masses in TeV, of 3.3 < m_JJ < 3.7 TeV; labels are 1 for Z' → XY and 0 for QCD.
`iad` is an idealised search: data with some signal against pure background of another sample. `inner` has sidebands: a signal
region 3.4–3.6 TeV between 3.3–3.4 and 3.6–3.7. Whatever is drawn depends on the seed alone; test rows are the same for all.

Data: HEPML-AnomalyDetection/CATHODE, `separated_data/`, in ../shared/data/lhco_cathode_features (its README says more); not part of
the repository.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from coffea_ad.evaluation import significance_improvement
from coffea_ad.evaluation.metrics import signal_efficiency
from coffea_ad.features.spec import ColumnSpec, FeatureSpec
from coffea_ad.skims.skim import Skim

FOLDER = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "lhco_cathode_features"
COLUMNS = ("mjj", "mj1", "dmj", "tau21_1", "tau21_2")
INPUTS = COLUMNS[1:]
"""What a classifier may look at: all but the resonant mass."""
WINDOW = (3.4, 3.6)
"""The signal region of `inner`, TeV."""
LEAST = 25
"""Passing background rows at which a working point counts: ε_B is known to 20 %."""


class Rows(NamedTuple):
    """Features and true labels.

    Attributes
    ----------
    x : (n, 5) float32
    label : (n,) int64
        1: signal. Not for training.
    """

    x: np.ndarray
    label: np.ndarray

    def select(self, mask):
        return Rows(self.x[mask], self.label[mask])

    @property
    def mass(self):
        return self.x[:, 0]


class Iad(NamedTuple):
    """Data with signal, a template of its background without, and test rows."""

    data: Rows
    template: Rows
    test: Rows


class Inner(NamedTuple):
    """Data in the signal region and in the sidebands, test rows in the signal region, and its true background (closure only)."""

    signal_region: Rows
    sidebands: Rows
    test: Rows
    background: Rows


class Merit(NamedTuple):
    """Figures of merit on test rows: SIC at ε_B of 10⁻² and 10⁻³, the largest SIC and its ε_B, AUC."""

    at_1e2: float
    at_1e3: float
    largest: float
    eps_b: float
    auc: float


def available():
    """Say whether the files are there."""
    return (FOLDER / "innerdata_train.npy").is_file()


MISSING = f"the LHC Olympics features are not in {FOLDER}; nothing is measured"


@cache
def sample(name):
    """Return the rows of one file: train, val, test, extrasig_train or extrasig_val."""
    table = np.load(FOLDER / f"innerdata_{name}.npy")
    return Rows(table[:, :5].astype(np.float32), table[:, 5].astype(np.int64))


def background(name):
    """Return the QCD rows of a file."""
    rows = sample(name)
    return rows.select(rows.label == 0)


def together(*parts):
    return Rows(np.concatenate([p.x for p in parts]), np.concatenate([p.label for p in parts]))


def signal(n, seed):
    """Draw n signal rows, without replacement, none of which is a test row."""
    pool = sample("extrasig_train")
    rng = np.random.default_rng([seed, n])
    return pool.select(rng.choice(len(pool.x), n, replace=False))


def test_rows():
    """Return the 40 000 background and 47 264 signal rows of all tests."""
    return together(sample("test"), sample("extrasig_val"))


def iad(n_signal, seed, *, noise=0):
    """Return the idealised benchmark: 59 605 background + n signal rows against 59 631 others of background.

    Parameters
    ----------
    n_signal : int
    seed : int
        Of the signal rows and the noise.
    noise : int
        Columns of standard normal noise that are added to the right.
    """
    split = Iad(together(background("train"), signal(n_signal, seed)), background("val"), test_rows())
    rng = np.random.default_rng([seed, 99])
    return Iad(*(with_noise(rows, noise, rng) for rows in split)) if noise else split


def with_noise(rows, columns, rng):
    extra = rng.normal(size=(len(rows.x), columns)).astype(np.float32)
    return Rows(np.concatenate([rows.x, extra], axis=1), rows.label)


def inner(n_signal, seed):
    """Return the benchmark with sidebands; 800 signal rows in all are about 549 in the signal region (0.93 %).

    Parameters
    ----------
    n_signal : int
        In the signal region and the sidebands together.
    seed : int
        Of the signal rows.
    """
    data = together(background("train"), background("val"), signal(n_signal, seed))
    inside = in_window(data.mass)
    test = test_rows()
    region = data.select(inside)
    return Inner(region, data.select(~inside), test.select(in_window(test.mass)), region.select(region.label == 0))


def in_window(mass):
    """Say which rows are in the signal region of `inner`."""
    return (mass >= WINDOW[0]) & (mass < WINDOW[1])


def skim(rows, *, name, seed, first=0):
    """Return rows as a skim, split at random; without the true labels.

    Parameters
    ----------
    rows : Rows
    name : str
        Of the dataset.
    seed : int
        Of the split: half train, a quarter validation, a quarter test.
    first : int
        Number of the first event, so that joined skims have no event twice.
    """
    n = len(rows.x)
    columns = [*COLUMNS, *(f"noise{i}" for i in range(rows.x.shape[1] - len(COLUMNS)))]
    ids = {
        "run": np.ones(n, np.uint32),
        "luminosityBlock": np.ones(n, np.uint32),
        "event": np.arange(first, first + n, dtype=np.uint64),
    }
    spec = FeatureSpec(name="lhco", version=1, columns=tuple(ColumnSpec(name=c) for c in columns))
    split = np.random.default_rng([seed, first]).choice(["train", "validation", "test"], n, p=[0.5, 0.25, 0.25])
    provenance = {"files": {}, "rows": {name: n}, "flavours": [], "selection": {}, "n_effective": float(n)}
    return Skim(rows.x, np.ones(n), np.full(n, name), split, ids, (spec,), provenance)


def labelled(data, template, *, seed):
    """Return data (label 1) and a template of its background (label 0) as one skim to train a classifier on."""
    both = skim(data, name="data", seed=seed).joined(skim(template, name="template", seed=seed, first=len(data.x)))
    return both.labelled(both.dataset == "data")


def merit(score, label):
    """Return the figures of merit of test scores; NaN where fewer than `LEAST` background rows pass."""
    bg, sig = score[label == 0], score[label == 1]
    efficiencies = np.array([1e-2, 1e-3])
    at = signal_efficiency(bg, sig, efficiencies, n_effective_min=LEAST) / np.sqrt(efficiencies)
    largest, eps_b = significance_improvement(bg, sig, n_effective_min=LEAST)
    return Merit(float(at[0]), float(at[1]), largest, eps_b, area(bg, sig))


def area(bg, sig):
    """Return the area under the ROC curve; half of ties."""
    ordered = np.sort(bg)
    below = np.searchsorted(ordered, sig, "left") + np.searchsorted(ordered, sig, "right")
    return float(below.mean() / (2 * len(bg)))
