"""How good is a score: weighted ROC, AUC and signal efficiencies with bootstrap errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError

__all__ = ["AUC", "auc", "match_spectrum", "roc_curve"]

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
        Weights; negative ones are left out.
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
    b, wb = _clean(background, w_background)
    s, ws = _clean(signal, w_signal)
    for name, kept in (("background", b), ("signal", s)):
        if len(kept) == 0:
            raise ConfigError(f"there is no {name} with a score and a positive weight")
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n_bootstrap):
        i, j = rng.integers(0, len(b), len(b)), rng.integers(0, len(s), len(s))
        values.append(_area(b[i], s[j], wb[i], ws[j]))
    return AUC(_area(b, s, wb, ws), float(np.std(values, ddof=1)) if n_bootstrap > 1 else float("nan"))


def _clean(score: npt.ArrayLike, weight: npt.ArrayLike | None) -> tuple[Floats, Floats]:
    x = np.asarray(score, np.float64)
    w = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    keep = np.isfinite(x) & (w > 0)
    return x[keep], w[keep]


def _area(b: Floats, s: Floats, wb: Floats, ws: Floats) -> float:
    from sklearn.metrics import roc_auc_score

    label = np.r_[np.zeros(len(b)), np.ones(len(s))]
    return float(roc_auc_score(label, np.r_[b, s], sample_weight=np.r_[wb / wb.sum(), ws / ws.sum()]))


def match_spectrum(
    background: npt.NDArray[Any], signal: npt.NDArray[Any], w_background: Floats, w_signal: Floats, bins: int = 20
) -> tuple[Floats, Floats]:
    """Return weights of background and signal that give both the signal's spectrum of a bystander such as pT.

    pT alone separates most signals from QCD: a score is worth what it does beyond that. Where there is no background,
    the signal is taken out too.
    """
    edges = np.quantile(signal, np.linspace(0, 1, bins + 1))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    slot = np.digitize(background, edges) - 1
    inside = (slot >= 0) & (slot < bins)
    target = np.histogram(signal, edges, weights=w_signal)[0]
    content = np.bincount(slot[inside], w_background[inside], bins)
    ratio = np.divide(target, content, out=np.zeros(bins), where=content > 0)
    covered = (content > 0)[np.clip(np.digitize(signal, edges) - 1, 0, bins - 1)]
    return np.where(inside, w_background * ratio[np.clip(slot, 0, bins - 1)], 0.0), np.where(covered, w_signal, 0.0)
