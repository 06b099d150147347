"""Diagnostics of a method: does its template close, does its score sculpt, do two scores select the same events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.metrics import auc
from coffea_ad.nn.classifiers.bagged import BaggedTrees
from coffea_ad.resonant.classifiers import labelled
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float64s

__all__ = ["closure", "flatness", "overlap"]


def closure(
    data: Skim, template: Skim, inputs: Sequence[str], *, members: int = 5, seed: int = 1
) -> tuple[float, float]:
    """Return how well a classifier tells data from a template, as an AUC on rows that it has not seen, with its error.

    0.5 if the template is right and there is no signal; a fraction w of signal makes at most (1 + w)/2.

    Parameters
    ----------
    data, template : Skim
    inputs : sequence of str
        Columns that the classifier sees.
    members, seed : int

    Raises
    ------
    ConfigError
        There are fewer than 50 rows in a half of either.
    """
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(len(s.weight)) < len(s.weight) // 2 for s in (data, template)]
    if min(int(h.sum()) for h in halves) < 50:
        raise ConfigError(
            f"a closure test needs 100 rows of data and template, not {len(data.weight)} and {len(template.weight)}"
        )
    ones, zeros = (_undivided(s.select(h), rng) for s, h in zip((data, template), halves, strict=True))
    trees = BaggedTrees.of(labelled(ones, zeros), inputs=tuple(inputs), members=members, seed=seed)
    scores = [trees.scores(s.select(~h).x) for s, h in zip((data, template), halves, strict=True)]
    weights = [s.select(~h).weight for s, h in zip((data, template), halves, strict=True)]
    result = auc(scores[1], scores[0], weights[1], weights[0], seed=seed)
    return result.value, result.error


def _undivided(rows: Skim, rng: np.random.Generator) -> Skim:
    """Return rows that all train or validate, whatever they did before."""
    split = np.where(rng.random(len(rows.weight)) < 0.75, "train", "validation")
    return replace(rows, split=split)


def flatness(
    score: npt.ArrayLike, mass: npt.ArrayLike, weight: Float64s, edges: Sequence[float], efficiency: float
) -> tuple[Float64s, Float64s, float]:
    """Return the efficiency of a cut in bins of the mass, with errors, and χ² per bin of its being the same in all.

    Parameters
    ----------
    score, mass, weight : (n,)
        Of background.
    edges : sequence of float
        Of the bins.
    efficiency : float
        Of the cut over all bins.

    Returns
    -------
    (bins,), (bins,), float
    """
    s, m, w = np.asarray(score, np.float64), np.asarray(mass, np.float64), np.asarray(weight, np.float64)
    inside = (m >= edges[0]) & (m < edges[-1]) & np.isfinite(s)
    s, m, w = s[inside], m[inside], w[inside]
    order = np.argsort(-s, kind="stable")
    passed = np.zeros(len(s), bool)
    passed[order[: np.searchsorted(np.cumsum(w[order]), efficiency * w.sum())]] = True
    place, n = np.digitize(m, edges) - 1, len(edges) - 1
    total, some = np.bincount(place, w, n), np.bincount(place, w * passed, n)
    value = some / np.maximum(total, 1e-300)
    mean = some.sum() / total.sum()
    error = np.sqrt(np.bincount(place, w**2, n) * mean * (1 - mean)) / np.maximum(total, 1e-300)
    return value, error, float((((value - mean) / np.maximum(error, 1e-300)) ** 2).sum() / max(n - 1, 1))


def overlap(
    scores: Mapping[str, npt.ArrayLike], efficiency: float, weight: Float64s | None = None
) -> dict[str, dict[str, float]]:
    """Return which part of the events that one score selects another selects too, each at the same efficiency.

    Parameters
    ----------
    scores : {name: (n,)}
        Of the same events; those without a score are not selected.
    efficiency : float
        Of every cut.
    weight : (n,), optional

    Returns
    -------
    {name: {other: share}}
        Two scores without anything in common share `efficiency` of their events.

    Examples
    --------
    >>> s = np.arange(100.0)
    >>> overlap({"a": s, "b": -s}, 0.1)
    {'a': {'a': 1.0, 'b': 0.0}, 'b': {'a': 0.0, 'b': 1.0}}
    """
    selected = {}
    for name, values in scores.items():
        s = np.nan_to_num(np.asarray(values, np.float64), nan=-np.inf)
        w = np.ones(len(s)) if weight is None else weight
        order = np.argsort(-s, kind="stable")
        mask = np.zeros(len(s), bool)
        mask[order[: max(1, int(np.searchsorted(np.cumsum(w[order]), efficiency * w.sum() * (1 - 1e-12))) + 1)]] = True
        selected[name] = mask & np.isfinite(s)
    w = np.ones(len(next(iter(selected.values())))) if weight is None else weight
    return {
        a: {b: float((w * (one & two)).sum() / max((w * one).sum(), 1e-300)) for b, two in selected.items()}
        for a, one in selected.items()
    }
