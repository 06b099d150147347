"""How far the scores of a smaller form of a model are from the model's own, and how far they may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadModel
from coffea_ad.scoring.calibration import calibrate, logp
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["LARGEST_CHANGE", "LARGEST_SHIFT", "LEAST_CORRELATION", "fidelity", "half_width", "refuse_unfaithful"]

LEAST_CORRELATION = 0.97
"""Of the ranks of background rows."""
LARGEST_SHIFT = 0.25
"""Of the scores, in half-widths of their 68 % interval."""
LARGEST_CHANGE = 0.3
"""Of `ad_logp`, for 99 % of background rows: a factor of two in the background efficiency."""


def half_width(score: npt.ArrayLike) -> float:
    """Return half of the interval that has 68 % of the scores, without 16 % on either side.

    >>> half_width(np.arange(101.0))
    34.0
    """
    low, high = np.quantile(np.asarray(score, np.float64), (0.16, 0.84))
    return float(high - low) / 2


def fidelity(before: Float32s, after: Float32s, weight: Float64s, folds: Ints | None = None) -> dict[str, float]:
    """Compare two scores of the same background rows; of a cross-trained model the worst fold counts.

    Ranks tell how much the order changes, in the bulk of the background; the change of `ad_logp` = −log₁₀ of the background
    efficiency, each by a calibration of its own, how much it does in the tail, where regions are. The shift is the median change of
    a score in half-widths of the 68 % interval of scores: that of a file whose calibration is not its own any more.

    Parameters
    ----------
    before, after : (n,)
    weight : (n,)
        Of the rows.
    folds : (n,), optional
        Which member scored each row.

    Returns
    -------
    dict
        "rank_correlation" (Spearman), "shift", "change_of_ad_logp_99" (its 99 % quantile), "largest_change_of_ad_logp", and
        "rows_without_score": how many have lost theirs.

    Examples
    --------
    >>> score = np.linspace(0, 1, 1000).astype(np.float32)
    >>> measured = fidelity(score, score + 0.34, np.ones(1000))
    >>> round(measured["rank_correlation"], 3), round(measured["shift"], 3)
    (1.0, 1.0)
    """
    groups = [np.ones(len(before), bool)] if folds is None else [folds == f for f in np.unique(folds)]
    each = [_of_one(before[rows], after[rows], weight[rows]) for rows in groups]
    worst = {name: max(one[name] for one in each) for name in each[0]}
    lost = int((np.isfinite(before) & ~np.isfinite(after)).sum())
    return {**worst, "rank_correlation": min(one["rank_correlation"] for one in each), "rows_without_score": lost}


def _of_one(before: Float32s, after: Float32s, weight: Float64s) -> dict[str, float]:
    from scipy.stats import spearmanr

    both = np.isfinite(before) & np.isfinite(after)
    old, new, w = before[both].astype(np.float64), after[both].astype(np.float64), weight[both]
    width = half_width(old)
    if len(old) < 2 or not width > 0 or not np.ptp(new) > 0:  # all the same: no order is left
        return dict.fromkeys(("shift", "change_of_ad_logp_99", "largest_change_of_ad_logp"), float("inf")) | {
            "rank_correlation": 0.0
        }
    change = np.abs(logp(calibrate(old, w, ""), old) - logp(calibrate(new, w, ""), new))
    return {
        "rank_correlation": float(spearmanr(old, new).statistic),
        "shift": float(abs(np.median(new - old)) / width),
        "change_of_ad_logp_99": float(np.quantile(change, 0.99)),
        "largest_change_of_ad_logp": float(change.max()),
    }


def refuse_unfaithful(measured: dict[str, Any], name: str, what: str) -> None:
    """Refuse a form of a model whose scores are others.

    Parameters
    ----------
    measured : dict
        What `fidelity` returned.
    name, what : str
        The model and its form, for the message.

    Raises
    ------
    BadModel
        The ranks of the background are correlated by less than 0.97, scores are shifted by more than 0.25 half-widths of their 68 %
        interval, `ad_logp` of more than 1 % of the rows changes by more than 0.3, or a row has lost its score.
    """
    correlation, shift, change = (measured[k] for k in ("rank_correlation", "shift", "change_of_ad_logp_99"))
    reasons = [
        (
            correlation < LEAST_CORRELATION,
            f"the correlation of ranks is {correlation:.4f}, below {LEAST_CORRELATION:g}",
        ),
        (shift > LARGEST_SHIFT, f"scores are shifted by {shift:.2g} half-widths, more than {LARGEST_SHIFT:g}"),
        (
            change > LARGEST_CHANGE,
            f"ad_logp of 1 % of the rows changes by {change:.2g} or more, over {LARGEST_CHANGE:g}",
        ),
        (measured["rows_without_score"] > 0, f"{measured['rows_without_score']} rows have lost their score"),
    ]
    wrong = [reason for refused, reason in reasons if refused]
    if wrong:
        raise BadModel(
            f"{name}: nothing is written, since {what} scores the background differently: {'; '.join(wrong)}"
        )
