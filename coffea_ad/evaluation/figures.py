"""Figures of merit of one score: AUC with its error, signal efficiencies, significance improvement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coffea_ad.evaluation.curves import MIN_EFFECTIVE, Ranking, resamplings

__all__ = ["AUC", "auc", "roc_curve", "signal_efficiency", "significance_improvement"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class AUC:
    """Area under the ROC curve and its bootstrap standard deviation."""

    value: float
    error: float


def roc_curve(background: Floats, signal: Floats, w_background: Floats, w_signal: Floats) -> tuple[Floats, Floats]:
    """Return (ε_B, ε_S) for all thresholds, of weighted scores."""
    from sklearn.metrics import roc_curve as sklearn_roc

    label = np.r_[np.zeros(len(background)), np.ones(len(signal))]
    fpr, tpr, _ = sklearn_roc(label, np.r_[background, signal], sample_weight=np.r_[w_background, w_signal])
    return np.asarray(fpr), np.asarray(tpr)


def auc(
    background: npt.ArrayLike,
    signal: npt.ArrayLike,
    w_background: npt.ArrayLike | None = None,
    w_signal: npt.ArrayLike | None = None,
    *,
    n_bootstrap: int = 50,
    seed: int = 1,
) -> AUC:
    """Area under the ROC curve of a score, higher = more like signal.

    Parameters
    ----------
    background, signal : (n,)
        Scores; undefined ones are left out.
    w_background, w_signal : (n,), optional
        Weights; rows with negative ones, or with zero, are left out.
    n_bootstrap : int
        Resamplings with replacement, for the error.
    seed : int

    Returns
    -------
    AUC

    Raises
    ------
    ConfigError
        One of the samples is empty.

    Examples
    --------
    >>> auc([0.0, 1.0, 2.0], [3.0, 4.0, 5.0]).value
    1.0
    """
    ranking, wb, ws = _cleaned(background, signal, w_background, w_signal)
    value = ranking.curve(wb, ws, errors=False).auc()
    if n_bootstrap < 2:
        return AUC(value, float("nan"))
    values = [
        ranking.curve(wb * b, ws * s, errors=False).auc()
        for b, s in zip(*resamplings((len(wb), len(ws)), n_bootstrap, seed), strict=True)
    ]
    return AUC(value, float(np.std(values, ddof=1)))


def _cleaned(
    background: npt.ArrayLike, signal: npt.ArrayLike, w_background: npt.ArrayLike | None, w_signal: npt.ArrayLike | None
) -> tuple[Ranking, Floats, Floats]:
    samples = []
    for score, weight in ((background, w_background), (signal, w_signal)):
        x = np.asarray(score, np.float64)
        w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
        keep = np.isfinite(x) & (w > 0)
        samples.append((x[keep], w[keep]))
    (b, wb), (s, ws) = samples
    return Ranking.of(b, s), wb, ws


def signal_efficiency(
    background: npt.ArrayLike,
    signal: npt.ArrayLike,
    efficiencies: npt.ArrayLike,
    w_background: npt.ArrayLike | None = None,
    w_signal: npt.ArrayLike | None = None,
    *,
    n_effective_min: float = MIN_EFFECTIVE,
) -> Floats:
    """Return ε_S at background efficiencies; NaN where too few effective background objects pass.

    Parameters
    ----------
    background, signal : (n,)
        Scores.
    efficiencies : (m,)
        ε_B.
    w_background, w_signal : (n,), optional
        Weights; rows with negative ones, or with zero, are left out.
    n_effective_min : float
        The smallest effective number of passing background rows (`Curve.n_effective`).

    Returns
    -------
    (m,)

    Examples
    --------
    >>> signal_efficiency(np.arange(1000), np.arange(500, 1500), [0.1, 0.001])
    array([0.6, nan])
    """
    ranking, wb, ws = _cleaned(background, signal, w_background, w_signal)
    eps_s, n_effective = ranking.curve(wb, ws).at(efficiencies)
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
        Weights; rows with negative ones, or with zero, are left out.
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
    >>> round(maximum, 6), eps_b  # ten background objects and 91 % of the signal pass
    (9.1, 0.01)
    """
    ranking, wb, ws = _cleaned(background, signal, w_background, w_signal)
    curve = ranking.curve(wb, ws)
    sic = np.where(curve.n_effective >= n_effective_min * (1 - 1e-9), curve.significance_improvement(), -1.0)
    best = int(np.argmax(sic))
    if sic[best] < 0:
        return float("nan"), float("nan")
    return float(sic[best]), float(curve.eps_b[best])
