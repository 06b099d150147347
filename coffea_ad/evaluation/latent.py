"""The space of an encoder in two dimensions: principal axes of its representation, and what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.baselines import column_baselines
from coffea_ad.evaluation.processes import Process
from coffea_ad.evaluation.sculpting import rank_correlation
from coffea_ad.scoring.card import ModelCard
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Encode", "Latent", "girth", "latent", "latent_of"]

Encode = Callable[[Float32s], Float32s]
"""Rows → their representation, (n, *shape) → (n, d)."""


@dataclass(frozen=True)
class Latent:
    """Rows on two principal axes of a representation.

    Attributes
    ----------
    explained : (2,)
        Parts of the variance of background rows.
    correlations : {column: (2,)}
        Spearman's rank correlation of background rows with both axes, for columns that need no encoder.
    background, weight : (n, 2), (n,)
    signals : {name: (m, 2)}
    columns : {name: (n,)}
        Of the background.
    """

    explained: Float64s
    correlations: Mapping[str, Float64s]
    background: Float64s = field(repr=False)
    weight: Float64s = field(repr=False)
    signals: Mapping[str, Float64s] = field(repr=False)
    columns: Mapping[str, Float64s] = field(repr=False)


def latent(
    h: npt.NDArray[Any], weight: npt.NDArray[Any], signals: Mapping[str, npt.NDArray[Any]], columns: Mapping[str, npt.NDArray[Any]]
) -> Latent:  # fmt: skip
    """Find the principal axes of the background, and bring all rows to them.

    With the mean μ and the covariance C = Σ w (h − μ)(h − μ)ᵀ / Σ w of background rows and C a = λ a, coordinates are
    (h − μ) · a for the two largest λ, of which each explains λ / tr C. The largest component of each a is positive.

    Parameters
    ----------
    h : (n, d)
        Of the background.
    weight : (n,)
        Rows with negative weights do not count.
    signals : {name: (m, d)}
    columns : {name: (n,)}
        Of the background; NaN is left out.

    Returns
    -------
    Latent

    Raises
    ------
    ConfigError
        The representation has fewer than two dimensions, or is the same for all rows.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> h = rng.normal(size=(500, 3)) * [1, 5, 2]
    >>> space = latent(h, np.ones(500), {"far": h + 9}, {"second": h[:, 1]})
    >>> space.explained.round(1), space.correlations["second"].round(1)
    (array([0.8, 0.1]), array([1., 0.]))
    """
    w = np.maximum(np.asarray(weight, np.float64), 0.0)
    if h.shape[1] < 2:
        raise ConfigError(f"a representation of {h.shape[1]} dimension has no two axes")
    centre = np.average(h.astype(np.float64), axis=0, weights=w)
    size, axes = np.linalg.eigh(np.cov(h.astype(np.float64), rowvar=False, aweights=w, ddof=0))
    if not size[-1] > 0:
        raise ConfigError("the representation is the same for all rows of the background")
    axes = axes[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    background, *others = ((each - centre) @ axes for each in (h, *signals.values()))
    correlations = {}
    for name, values in columns.items():
        known = np.isfinite(values)
        correlations[name] = np.array([rank_correlation(p, values[known], w[known]) for p in background[known].T])
    explained = np.maximum(size[[-1, -2]], 0.0) / size.sum()
    return Latent(explained, correlations, background, w, dict(zip(signals, others, strict=True)), dict(columns))


def girth(x: npt.NDArray[Any], columns: Sequence[str]) -> Float64s | None:
    """Return Σ pT ΔR / Σ pT of sets, (n, slots, columns), by the columns pt, deta and dphi; None without them.

    >>> girth(np.array([[[3.0, 0.3, 0.4], [1.0, 0.0, 0.1]]]), ["pt", "deta", "dphi"])
    array([0.4])
    """
    if x.ndim != 3 or not {"pt", "deta", "dphi"} <= set(columns):
        return None
    pt, deta, dphi = (np.asarray(x[:, :, list(columns).index(name)], np.float64) for name in ("pt", "deta", "dphi"))
    total = pt.sum(axis=1)
    summed = (pt * np.hypot(deta, dphi)).sum(axis=1)
    return np.asarray(np.divide(summed, total, out=np.full(len(x), np.nan), where=total > 0))


def latent_of(
    encode: Encode, background: Process, signals: Mapping[str, Process], card: ModelCard, splits: Sequence[str]
) -> Latent:
    """Find the axes of an encoder for the rows of an evaluation: some splits of the background, and all of the signals.

    Parameters
    ----------
    encode : callable
        (n, *shape) → (n, d).
    background, signals : Process
    card : ModelCard
        Whose input is encoded.
    splits : sequence of str

    Raises
    ------
    ConfigError
        The model has several inputs, or the encoder takes other rows.
    """
    if len(card.inputs) != 1:
        raise ConfigError(f"{card.name} has several inputs, and an encoder takes one")
    (spec,) = card.inputs
    mask = background.in_splits(*splits)
    x = background.inputs(card, card.name)[spec.name][mask]
    others = {name: p.inputs(card, card.name)[spec.name][p.in_splits()] for name, p in signals.items()}
    spectators = {k: v[mask] for k, v in background.rows.spectators.items()}
    columns = column_baselines(x, (), spectators, level=card.level)
    width = girth(x, [c.rsplit(".", 1)[-1] for c in spec.columns])
    columns |= {} if width is None else {"girth": width}
    encoded = {name: encode(rows) for name, rows in others.items()}
    return latent(encode(x), background.rows.event_weight[mask], encoded, columns)
