"""Scores of `rmm_search.py`: inputs made of the rapidity-mass matrix, models, and what is made of a score and H_T."""

from __future__ import annotations

import dataclasses
import itertools
import time

import numpy as np
import torch

from coffea_ad import nn
from coffea_ad.features.rmm import RMMOptions, cell_names, matrix
from coffea_ad.features.spec import ColumnSpec, FeatureSpec

OPTIONS = RMMOptions(drop_masses=False)
CELLS = cell_names(OPTIONS)
SQRT_S = 13000.0
KINDS = {"j": slice(1, 11), "b": slice(11, 21), "mu": slice(21, 26), "e": slice(26, 31), "g": slice(31, 36)}
LEADING = [f"m({a},{b})" for a, b in (("j1", "j2"), ("b1", "b2"), ("j1", "b1"), ("j1", "e1"), ("b1", "e1"), ("j1", "mu1"),
                                      ("b1", "mu1"), ("j1", "g1"), ("b1", "g1"))]  # fmt: skip


def columns(names):
    return np.array([CELLS.index(name) for name in names])


def transverse(x):
    """Return E_T of every object, GeV, (n, 35): the first of a kind has it, the others their asymmetry with the one before."""
    cells = matrix(x, OPTIONS)
    diagonal, there = np.diagonal(cells, axis1=1, axis2=2)[:, 1:].astype(np.float64), cells[:, 1:, 0] > 0
    et = np.zeros_like(diagonal)
    first = {s.start - 1 for s in KINDS.values()}
    for i in range(et.shape[1]):
        et[:, i] = diagonal[:, i] * SQRT_S if i in first else et[:, i - 1] * (1 - diagonal[:, i]) / (1 + diagonal[:, i])
    return np.where(there, et, 0.0)


def trivial(x, spectators):
    """Return what a search cuts on without a model, GeV."""
    met = x[:, columns(["met"])[0]] * SQRT_S
    return {
        "H_T": spectators["ht"],
        "S_T": transverse(x).sum(axis=1) + met,
        "MET": met,
        "number of jets": spectators["n_jets"].astype(np.float64),
        "leading lepton pT": spectators["leading_lepton_pt"],
        "largest m_jY": x[:, columns(LEADING)].max(axis=1) * SQRT_S,
    }


def _energies():
    """Say which cells are energies over √s."""
    firsts = {f"et({kind}1)" for kind in KINDS}
    return np.array([c == "met" or c.startswith(("mt(", "m(")) or c in firsts for c in CELLS])


def _dense(x, scale, with_leptons, counts):
    """Return numbers that hardly any event lacks: jets and b jets are one kind, and electrons and muons; no m_jY is in them."""
    cells, et = matrix(x, OPTIONS), transverse(x)
    jets, leptons = np.r_[1:21], np.r_[21:31]
    n_jets, n_leptons = (et[:, :20] > 0).sum(axis=1), (et[:, 20:30] > 0).sum(axis=1)

    def log(values, least=0.0):  # of energies in 30 GeV, or in S_T
        return np.log(values * (SQRT_S / 30 if scale is None else SQRT_S / scale) + least)

    least = 1.0 if scale is None else 1e-2  # MET below 30 GeV is none
    names = {"et(jets)": log(et[:, :20].sum(axis=1) / SQRT_S)}
    if with_leptons:
        pairs = n_jets * n_leptons
        names |= {
            "et(lepton1)": log(et[:, 20:30].max(axis=1) / SQRT_S),
            "met": log(cells[:, 0, 0], least),
            "et(leptons)": log(et[:, 20:30].sum(axis=1) / SQRT_S),
            "mt(leptons)": log(cells[:, 0, leptons].sum(axis=1), least),
            "et(jet1)": log(et[:, :20].max(axis=1) / SQRT_S),
            "hl(leptons)": np.sqrt(cells[:, leptons, 0].sum(axis=1) / n_leptons),
            "h(jets,leptons)": np.sqrt(cells[:, leptons][:, :, jets].sum(axis=(1, 2)) / pairs),
        }
    else:
        names |= {
            "met": log(cells[:, 0, 0], least),
            "mt(jets)": log(cells[:, 0, jets].sum(axis=1), least),
            "et(jet1)": log(et[:, :20].max(axis=1) / SQRT_S),
            "mt(jet1)": log(cells[:, 0, [1, 11]].max(axis=1), least),
        }
    counted = {"jets": n_jets}
    if counts:
        counted |= {"b": (et[:, 10:20] > 0).sum(axis=1), "leptons": n_leptons, "photons": (et[:, 30:] > 0).sum(axis=1)}
    rng = np.random.default_rng(len(x))  # whole numbers have no density
    names |= {"hl(jets)": np.sqrt(cells[:, jets, 0].sum(axis=1) / n_jets)}
    names |= {f"n({k})": n + rng.uniform(-0.5, 0.5, len(x)) for k, n in counted.items()}
    return np.column_stack(list(names.values())), list(names)


def inputs(x, kind, occupied, with_leptons):
    """Return rows and names of `cells`, `occupied`, `dense`, `dense and counts`; `over S_T` no scale of the event is left."""
    what, over = kind.removesuffix(" over S_T"), kind.endswith(" over S_T")
    scale = trivial(x, {"ht": 0.0, "n_jets": np.zeros(len(x)), "leading_lepton_pt": 0.0})["S_T"] if over else None
    if what in ("dense", "dense and counts"):
        rows, names = _dense(x, scale, with_leptons, what == "dense and counts")
        return rows.astype(np.float32), names
    kept = ~np.isin(CELLS, LEADING)
    if what == "occupied":
        kept &= occupied
    rows = x[:, kept].copy()
    if over:
        rows[:, _energies()[kept]] *= (SQRT_S / scale)[:, None].astype(np.float32)
    return rows, [name for name, keep in zip(CELLS, kept, strict=True) if keep]


def as_skim(data, rows, names):
    """Return background rows as what `nn.fit` takes."""
    spec = FeatureSpec(name="rmm_inputs", version=1, columns=tuple(ColumnSpec(name=n) for n in names))
    return dataclasses.replace(data, x=rows, features=(spec,))


def _train(epochs, seed, **more):
    return nn.TrainConfig(epochs=epochs, seed=seed, **{"schedule": "cosine", "samples_per_epoch": 20_000, **more})


def _ae(d, names, seed, epochs):
    return nn.AE.rmm(nn.Unchanged(d)), _train(epochs, seed, samples_per_epoch=10_000)


def _vae(d, names, seed, epochs):
    network = nn.VAE(
        d, hidden=(200, 100), latent=20, transform=nn.preprocessing("standard", names), beta=0.1, score="elbo"
    )
    return network, _train(epochs, seed, clip_gradient=1.0)


def _vae_dense(d, names, seed, epochs):
    network = nn.VAE(d, hidden=(32, 32), latent=4, transform=nn.preprocessing("standard", names), score="elbo")
    return network, _train(2 * epochs, seed)


def _pca(d, names, seed, epochs):
    return nn.PCA(d, components=min(20, d // 2), transform=nn.preprocessing("standard", names)), _train(1, seed)


def _mahalanobis(d, names, seed, epochs):
    return nn.PCA(d, components=d, score="mahalanobis", transform=nn.preprocessing("standard", names)), _train(1, seed)


def _svdd(d, names, seed, epochs):
    network = nn.DeepSVDDEnsemble(d, dimensions=(5, 13, 34, 89), transform=nn.preprocessing("standard", names))
    return network, _train(epochs, seed, weight_decay=1e-6)


def _flow(d, names, seed, epochs):
    network = nn.Flow(d, kind="nsf", transforms=3, hidden=(64, 64), transform=nn.preprocessing("standard", names))
    return network, _train(epochs, seed, batch_size=512, clip_gradient=1.0)


class OneSided(nn.Flow):
    """A flow whose score counts energies above what is usual, each given the columns before it: Σ max(u, 0)²."""

    def __init__(self, features, *, energies, **options):
        super().__init__(features, **options)
        self.energies, self.density = tuple(energies), None

    def score(self, x):
        return (self.latent(x)[:, list(self.energies)].clamp_min(0.0) ** 2).sum(dim=1)


def _one_sided(d, names, seed, epochs):
    energies = [i for i, name in enumerate(names) if name.startswith(("et(", "met", "mt("))]
    network = OneSided(
        d, energies=energies, kind="nsf", transforms=1, hidden=(64, 64), transform=nn.preprocessing("standard", names)
    )
    return network, _train(epochs, seed, batch_size=512, clip_gradient=1.0)


def _wnae(d, names, seed, epochs):
    network = nn.WNAE(d, hidden=(32, 32), latent=4, activation="silu", transform=nn.preprocessing("standard", names))
    return network, _train(epochs, seed, samples_per_epoch=8192, average=0.99, clip_gradient=1.0)


MODELS = {
    "AE": ("cells", _ae),
    "AE over S_T": ("cells over S_T", _ae),
    "VAE": ("occupied", _vae),
    "VAE over S_T": ("occupied over S_T", _vae),
    "PCA": ("occupied", _pca),
    "Mahalanobis": ("occupied", _mahalanobis),
    "Deep SVDD": ("occupied", _svdd),
    "Deep SVDD over S_T": ("occupied over S_T", _svdd),
    "VAE, dense": ("dense", _vae_dense),
    "Mahalanobis, dense": ("dense", _mahalanobis),
    "Deep SVDD, dense": ("dense", _svdd),
    "WNAE, dense": ("dense", _wnae),
    "flow, dense": ("dense", _flow),
    "flow, dense over S_T": ("dense over S_T", _flow),
    "flow, dense and counts": ("dense and counts", _flow),
    "one-sided flow, dense": ("dense", _one_sided),
}
"""Inputs and network of every score; the recipe `autoencoder/rmm.yaml` is the first."""


def trained(name, data, rows_of, seed, epochs, folder):
    """Train one model on the background, and return its scores of background and signals, and how long it took, s of CPU."""
    kind, build = MODELS[name]
    rows, names = rows_of[kind]["background"]
    torch.manual_seed(seed)
    start = time.process_time()
    skim = as_skim(data, rows, names)
    model, config = build(rows.shape[1], names, seed, epochs)
    history = nn.fit(model, skim, config, folder)
    model = nn.Ensemble.of_epochs(model, history)
    scores = {dataset: np.asarray(model.scores(x), np.float64) for dataset, (x, _) in rows_of[kind].items()}
    return scores, time.process_time() - start


class Tail:
    """−log₁₀ of the part of the background at least as anomalous; beyond the last thousandths it goes on as an exponential."""

    def __init__(self, values, weight):
        order = np.argsort(values)
        values, weight = values[order], weight[order]
        above = np.cumsum(weight[::-1])[::-1] / weight.sum()
        last = max(np.searchsorted(-above, -(above[0] * 3e-3)) - 1, 1)  # a few thousandths are left
        self.values, first = np.unique(values[: last + 1], return_index=True)
        self.log = -np.log10(above[first])
        start = np.searchsorted(self.log, max(self.log[-1] - 0.7, 0.0))
        rise = self.values[-1] - self.values[min(start, len(self.values) - 2)]
        self.slope = (self.log[-1] - self.log[min(start, len(self.log) - 2)]) / max(rise, 1e-12)

    def __call__(self, values):
        inside = np.interp(values, self.values, self.log)
        return inside + np.maximum(values - self.values[-1], 0.0) * self.slope


class GivenHT:
    """A score in units of its spread at the H_T of the event, which hardly follows H_T any more."""

    def __init__(self, score, ht, weight):
        # bins of as many simulated events, which are more often hard ones than real events are
        edges = np.quantile(ht, np.linspace(0, 1, 1 + int(np.clip(len(ht) // 60, 1, 20))))
        self.centres, self.middle, self.width = [], [], []
        for low, high in itertools.pairwise(edges):
            inside = (ht >= low) & (ht <= high)
            s, w = score[inside], weight[inside]
            by_score = np.argsort(s)
            cumulative = (np.cumsum(w[by_score]) - 0.5 * w[by_score]) / w.sum()
            middle, up = np.interp([0.5, 0.84], cumulative, s[by_score])
            self.centres.append(np.log(np.average(ht[inside], weights=w)))
            self.middle.append(middle)
            self.width.append(max(up - middle, 1e-6 * (abs(middle) + 1)))

    def __call__(self, score, ht):
        at = np.log(np.maximum(ht, 1.0))
        return (score - np.interp(at, self.centres, self.middle)) / np.interp(at, self.centres, self.width)


def combinations(scores, cut, data, calibrating):
    """Return a score given a cut variable, and the product of both p-values: what is rare by it or, at its value, by the score.

    Parameters
    ----------
    scores, cut : {dataset: (n,)}
    data : Skim
        The background.
    calibrating : (n,) bool
        Background rows that rank.
    """
    weight = data.event_weight[calibrating]
    reference, at = scores["background"][calibrating], cut["background"][calibrating]
    given = GivenHT(reference, at, weight)
    each = {k: given(s, cut[k]) for k, s in scores.items()}
    rank, rank_at = Tail(each["background"][calibrating], weight), Tail(at, weight)
    return each, {k: rank(s) + rank_at(cut[k]) for k, s in each.items()}


def mean_rank(first, second, data, calibrating):
    """Return the rank combination of two scores, as the recipe `flow` makes it: −log₁₀ of the mean of both efficiencies."""
    weight = data.event_weight[calibrating]
    ranks = [Tail(s["background"][calibrating], weight) for s in (first, second)]
    return {k: -np.log10(0.5 * (10.0 ** -ranks[0](first[k]) + 10.0 ** -ranks[1](second[k]))) for k in first}


def either(first, second, data, calibrating):
    """Return the rarer of two, by ranks: a cut on it is two cuts of one efficiency, of which an event passes one or both."""
    weight = data.event_weight[calibrating]
    ranks = [Tail(s["background"][calibrating], weight) for s in (first, second)]
    return {k: np.maximum(ranks[0](first[k]), ranks[1](second[k])) for k in first}
