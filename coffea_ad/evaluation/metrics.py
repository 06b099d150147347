"""Metrics of one score: AUC with its error, signal efficiencies, significance improvement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.curves import MIN_EFFECTIVE, Curve, Ranking, resamplings
from coffea_ad.typing import Float64s

__all__ = ["AUC", "auc", "roc_curve", "signal_efficiency", "significance_improvement"]


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve and its bootstrap standard deviation."""

    value: float
    error: float


def roc_curve(
    background: Float64s, signal: Float64s, w_background: Float64s, w_signal: Float64s
) -> tuple[Float64s, Float64s]:
    """Return (ε_B, ε_S) for all thresholds from tight to loose, of weighted scores; neither ever falls.

    Parameters
    ----------
    background, signal : (n,)
        Scores; undefined ones are left out.
    w_background, w_signal : (n,)
        Weights; negative ones are subtracted.

    Returns
    -------
    eps_b, eps_s : (points,)
        Corners of the curve, from (0, 0) to (1, 1).

    Examples
    --------
    >>> roc_curve(np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.ones(2), np.ones(2))
    (array([0. , 0. , 0.5, 0.5, 1. , 1. ]), array([0. , 0.5, 0.5, 1. , 1. , 1. ]))
    """
    curve = _curve(background, signal, w_background, w_signal, errors=False)
    before = np.concatenate([[0.0], curve.eps_b[:-1]])
    eps_b = np.stack([before, curve.eps_b], axis=1).ravel()
    eps_s = np.stack([curve.eps_s_above, curve.eps_s], axis=1).ravel()
    return np.concatenate([[0.0], eps_b, [1.0]]), np.concatenate([[0.0], eps_s, [1.0]])


def auc(
    background: npt.ArrayLike,
    signal: npt.ArrayLike,
    w_background: npt.ArrayLike | None = None,
    w_signal: npt.ArrayLike | None = None,
    *,
    n_bootstrap: int = 50,
    seed: int = 1,
    events: Sequence[npt.NDArray[Any] | None] = (None, None),
) -> AUC:
    """Area under the ROC curve of a score, higher = more like signal.

    Parameters
    ----------
    background, signal : (n,)
        Scores; undefined ones are left out.
    w_background, w_signal : (n,), optional
        Weights; negative ones are subtracted.
    n_bootstrap : int
        Resamplings with replacement, for the error.
    seed : int
    events : pair of (n,) integers, optional
        Of background and signal: rows with the same number, such as the jets of an event, are drawn together.

    Returns
    -------
    AUC

    Raises
    ------
    ConfigError
        One of the samples is empty, or its weights do not sum to something positive.

    Examples
    --------
    >>> auc([0.0, 1.0, 2.0], [3.0, 4.0, 5.0]).value
    1.0
    """
    ranking, wb, ws = _ranked(background, signal, w_background, w_signal)
    value = _positive(ranking.curve(wb, ws, errors=False)).auc()
    if n_bootstrap < 2:
        return AUC(value, float("nan"))
    in_b, in_s = resamplings((len(wb), len(ws)), n_bootstrap, seed, events)
    values = [ranking.areas(wb * b[None], ws * s[None])[0] for b, s in zip(in_b, in_s, strict=True)]
    return AUC(value, float(np.nanstd(values, ddof=1)))


def _ranked(
    background: npt.ArrayLike, signal: npt.ArrayLike, w_background: npt.ArrayLike | None, w_signal: npt.ArrayLike | None
) -> tuple[Ranking, Float64s, Float64s]:
    """Sort the rows with a score and a weight; weights keep their places."""
    scores, weights = [], []
    for score, weight in ((background, w_background), (signal, w_signal)):
        x = np.asarray(score, np.float64)
        weights.append(np.ones(len(x)) if weight is None else np.asarray(weight, np.float64))
        scores.append(np.where(weights[-1] != 0, x, np.nan))
    return Ranking.of(*scores), weights[0], weights[1]


def _positive(curve: Curve) -> Curve:
    if not np.isfinite(curve.area):
        raise ConfigError("the weights of the background or of the signal do not sum to something positive")
    return curve


def _curve(
    background: npt.ArrayLike, signal: npt.ArrayLike, w_background: npt.ArrayLike | None,
    w_signal: npt.ArrayLike | None, *, errors: bool = True,
) -> Curve:  # fmt: skip
    ranking, wb, ws = _ranked(background, signal, w_background, w_signal)
    return _positive(ranking.curve(wb, ws, errors=errors))


def signal_efficiency(
    background: npt.ArrayLike,
    signal: npt.ArrayLike,
    efficiencies: npt.ArrayLike,
    w_background: npt.ArrayLike | None = None,
    w_signal: npt.ArrayLike | None = None,
    *,
    n_effective_min: float = MIN_EFFECTIVE,
) -> Float64s:
    """Return ε_S at background efficiencies; NaN where too few effective background objects pass.

    Parameters
    ----------
    background, signal : (n,)
        Scores.
    efficiencies : (m,)
        ε_B.
    w_background, w_signal : (n,), optional
        Weights; negative ones are subtracted.
    n_effective_min : float
        The smallest effective number of passing background rows (`Curve.n_effective`).

    Returns
    -------
    (m,)

    Examples
    --------
    >>> signal_efficiency(np.arange(1000), np.arange(500, 1500), [0.1, 0.01])
    array([0.6, nan])
    """
    eps_s, n_effective = _curve(background, signal, w_background, w_signal).at(efficiencies)
    return np.where(n_effective >= n_effective_min * (1 - 1e-9), eps_s, np.nan)


def significance_improvement(
    background: npt.ArrayLike,
    signal: npt.ArrayLike,
    w_background: npt.ArrayLike | None = None,
    w_signal: npt.ArrayLike | None = None,
    *,
    n_effective_min: float = MIN_EFFECTIVE,
) -> tuple[float, float]:
    """Return the largest ε_S/√ε_B, and the ε_B where it is.

    Only working points that rest on enough effective background objects count: the curve diverges where the last
    background object passes. The largest of many fluctuating numbers is on average too large.

    Parameters
    ----------
    background, signal : (n,)
        Scores.
    w_background, w_signal : (n,), optional
        Weights; negative ones are subtracted.
    n_effective_min : float
        The smallest effective number of passing background rows (`Curve.n_effective`); its inverse root is the relative
        error of ε_B.

    Returns
    -------
    maximum, eps_b : float
        NaN if no working point counts.

    Examples
    --------
    >>> maximum, eps_b = significance_improvement(np.arange(1000), np.arange(900, 1900))
    >>> round(maximum, 3), eps_b  # 25 background objects and 92.5 % of the signal pass
    (5.85, 0.025)
    """
    curve = _curve(background, signal, w_background, w_signal)
    sic = np.where(curve.n_effective >= n_effective_min * (1 - 1e-9), curve.significance_improvement(), -1.0)
    best = int(np.argmax(sic))
    if sic[best] < 0:
        return float("nan"), float("nan")
    return float(sic[best]), float(curve.eps_b[best])
