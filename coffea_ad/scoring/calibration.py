"""Score → calibrated `ad_logp`: how much of a background is at least this anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.specs import Calibration
from coffea_ad.typing import Float32s, Ints
from coffea_ad.weights import n_effective

__all__ = ["calibrate", "calibrate_folds", "calibrate_members", "card_logp", "logp"]


_STEP = 0.01  # spacing of the calibration table in ad_logp


def calibrate(score: npt.ArrayLike, weight: npt.ArrayLike, derived_from: str) -> Calibration:
    """Tabulate −log10 of the background efficiency against the score.

    ε(s) = Σ_{s_i ≥ s} w_i / Σ w_i, made monotone where weights are negative, and bounded by 1/(N_eff + 1).

    Parameters
    ----------
    score, weight : (n,)
        Background objects; rows without a finite score are left out.
    derived_from : str
        What the background is, for the card.

    Raises
    ------
    ConfigError
        Fewer than two different scores, or no positive sum of weights.

    Examples
    --------
    >>> table = calibrate(np.arange(1000.0), np.ones(1000), "toy")
    >>> logp(table, np.array([0.0, 900.0, 990.0, 5000.0])).round(2)
    array([0., 1., 2., 3.], dtype=float32)
    """
    s, w = np.asarray(score, np.float64), np.asarray(weight, np.float64)
    keep = np.isfinite(s)
    s, w = s[keep], w[keep]
    total = w.sum()
    values = np.unique(s)
    if len(values) < 2 or not total > 0:
        if len(values) > 1:
            why = f"their weights sum to {total:g}"
        else:
            why = f"all scores are {values[0]:g}" if len(values) else "no score is finite"
        raise ConfigError(f"no calibration can be made of {derived_from or 'these rows'}, since {why}")
    position = np.searchsorted(values, s)
    above = np.cumsum(np.bincount(position, w)[::-1])[::-1] / total  # ε(s) of "at least s"
    above = np.minimum(np.maximum.accumulate(above[::-1])[::-1], 1.0)
    n_eff = n_effective(w)
    ceiling = np.log10(n_eff + 1)
    rising = np.minimum(-np.log10(np.maximum(above, 1e-300)), ceiling)
    grid = np.arange(0.0, rising[-1], _STEP)
    inner = np.interp(grid, rising, values)
    table_score = np.r_[values[0], inner[1:], values[-1], np.nextafter(values[-1], np.inf)]
    table_logp = np.r_[0.0, grid[1:], rising[-1], ceiling]
    order = np.argsort(table_score, kind="stable")
    return Calibration(
        score=tuple(table_score[order].tolist()),
        logp=tuple(np.maximum.accumulate(table_logp[order]).tolist()),
        n_effective=n_eff,
        derived_from=derived_from,
    )


def logp(calibration: Calibration | None, score: npt.NDArray[Any]) -> Float32s:
    """Return `ad_logp` = −log10 of the background efficiency at a score, float32; NaN without score or calibration."""
    if calibration is None:
        return np.full(len(score), np.nan, np.float32)
    values = np.interp(np.asarray(score, np.float64), calibration.score, calibration.logp)
    return np.where(np.isfinite(score), values, np.nan).astype(np.float32)


def calibrate_folds(
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    derived_from: str,
    folds: Ints | None = None,
    k: int = 1,
) -> tuple[Calibration, ...]:
    """Tabulate one calibration, or one for each member of a cross-training, from the rows of its fold.

    Parameters
    ----------
    score, weight : (n,)
        Background objects.
    derived_from : str
    folds : (n,) int64, optional
        Which member scored each row.
    k : int
        Number of members.

    Raises
    ------
    ConfigError
        The rows, or those of a fold, make no calibration.
    """
    if folds is None:
        return (calibrate(score, weight, derived_from),)
    s, w = np.asarray(score), np.asarray(weight)
    return tuple(calibrate(s[folds == f], w[folds == f], f"{derived_from}, fold {f}") for f in range(k))


def calibrate_members(
    card: ModelCard,
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    derived_from: str,
    members: Ints | None = None,
) -> tuple[Calibration, ...]:
    """Tabulate one calibration for every member of a model, from the rows that it scores.

    Parameters
    ----------
    card : ModelCard
        Says what the members are.
    score, weight : (n,)
        Background objects.
    derived_from : str
    members : (n,) int64, optional
        Which member scores each row (`members.member_of`); needed if there are several.

    Raises
    ------
    ConfigError
        The rows, or those of a member, make no calibration.
    """
    if members is None or card.members == 1:
        return (calibrate(score, weight, derived_from),)
    s, w = np.asarray(score), np.asarray(weight)
    return tuple(
        calibrate(s[members == i], w[members == i], f"{derived_from}, {name}")
        for i, name in enumerate(card.member_names())
    )


def card_logp(card: ModelCard, score: npt.NDArray[Any], members: Ints | None = None) -> Float32s:
    """Return `ad_logp` by the calibrations of a card, (n,) float32: of every row by that of its member, if each has one.

    Parameters
    ----------
    card : ModelCard
    score : (n,)
    members : (n,) int64, optional
        Which member scores each row, such as the fold of its event (`weights.fold_of`) or `members.member_of`; needed
        where every member has a calibration of its own. A row of none, −1, gets NaN.

    Raises
    ------
    CardMismatch
        The members are needed and not given.
    """
    member = "fold" if card.windows is None else "member"
    return _logp(card.calibrations, score, members, card.name, member)


def _logp(
    calibrations: Sequence[Calibration],
    score: npt.NDArray[Any],
    members: Ints | None,
    name: str = "card",
    member: str = "fold",
) -> Float32s:
    if len(calibrations) < 2:
        return logp(calibrations[0] if calibrations else None, score)
    if members is None or len(members) != len(score):
        raise CardMismatch(f"{name}: every {member} has a calibration of its own; give the {member} of every row")
    out = np.full(len(score), np.nan, np.float32)
    for i, calibration in enumerate(calibrations):
        out[members == i] = logp(calibration, np.asarray(score)[members == i])
    return out
