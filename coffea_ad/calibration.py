"""Score → calibrated `ad_logp`, and thresholds on it: how much of a background is at least this anomalous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.card import Calibration, ModelCard, RegionSpec
from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.typing import Float32s, Float64s, Ints
from coffea_ad.weights import n_effective

__all__ = [
    "MIN_EFFECTIVE",
    "binned_threshold",
    "calibrate",
    "calibrate_folds",
    "calibrate_members",
    "card_logp",
    "derive",
    "efficiency",
    "logp",
    "n_effective_passing",
    "region_label",
    "tied",
    "too_few",
    "working_points",
]

MIN_EFFECTIVE = 10.0
"""A region resting on fewer effective background objects is not written."""

_STEP = 0.01  # spacing of the calibration table in ad_logp
_NAMES = {1e-1: "loose", 1e-2: "medium", 1e-3: "tight"}


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


def n_effective_passing(weight: npt.ArrayLike, passed: npt.ArrayLike) -> float:
    """Return the effective number of background objects on which an efficiency rests.

    min[(Σ_pass w)² / Σ_pass w², ε N_eff] with ε = Σ_pass w / Σ w and N_eff of all: light objects that pass do not say how
    many heavy ones could have.

    Parameters
    ----------
    weight : (n,)
        Event weights, signed.
    passed : (n,) bool

    Examples
    --------
    >>> weight = np.r_[np.full(1000, 0.01), np.full(10, 1.0)]
    >>> passed = np.arange(1010) < 1000  # 1000 light objects, half of the sum of weights
    >>> round(n_effective_passing(weight, passed), 1)
    19.8
    """
    w, some = np.asarray(weight, np.float64), np.asarray(passed, bool)
    total = float(w.sum())
    if total <= 0:
        return 0.0
    eps = max(float(w[some].sum()) / total, 0.0)
    return min(n_effective(w[some]), eps * n_effective(w))


def efficiency(values: npt.NDArray[Any], weight: npt.ArrayLike, threshold: float) -> tuple[float, float, float]:
    """Return the weighted fraction at or above a threshold, its error, and the effective number it rests on.

    σ² = [(1−ε)² Σ_pass w² + ε² Σ_fail w²] / (Σ w)², the binomial variance of weighted events.
    """
    w = np.asarray(weight, np.float64)
    passed = np.asarray(values) >= threshold
    total = w.sum()
    if total <= 0:
        return 0.0, 0.0, 0.0
    eps = float(w[passed].sum() / total)
    variance = (1 - eps) ** 2 * np.sum(w[passed] ** 2) + eps**2 * np.sum(w[~passed] ** 2)
    return eps, float(np.sqrt(variance) / total), n_effective_passing(w, passed)


def working_points(
    calibration: Calibration,
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
) -> tuple[RegionSpec, ...]:
    """Make nested regions of given background efficiencies, as far as the statistics carry them.

    Parameters
    ----------
    calibration : Calibration
        Gives `ad_logp`; the thresholds are on it.
    score, weight : (n,)
        The background objects.
    efficiencies : sequence of float
        Nominal efficiencies; 0.1, 0.01 and 0.001 are called loose, medium and tight.

    Returns
    -------
    tuple of RegionSpec, loose → tight
        Without those that rest on fewer than `MIN_EFFECTIVE` effective objects, or that ties put off their efficiency.
    """
    return derive((calibration,), score, weight, efficiencies)[0]


def derive(
    calibrations: Sequence[Calibration],
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
    folds: Ints | None = None,
) -> tuple[tuple[RegionSpec, ...], tuple[str, ...]]:
    """Make nested regions as `working_points` does, and say of those that are not written why.

    Parameters
    ----------
    calibrations : sequence of Calibration
        One, or one for each fold; then every fold has to carry a region by itself.
    score, weight : (n,)
        The background objects.
    efficiencies : sequence of float
    folds : (n,) int64, optional
        Of the rows, where every fold has a calibration.

    Returns
    -------
    regions : tuple of RegionSpec, loose → tight
    left_out : tuple of str
        A sentence for each efficiency without a region.

    Raises
    ------
    ConfigError
        An efficiency does not lie between 0 and 1.
    """
    s, w = np.asarray(score, np.float64), np.asarray(weight, np.float64)
    keep = np.isfinite(s)
    values, w = _logp(calibrations, s[keep], None if folds is None else folds[keep]), w[keep]
    parts = {"": np.ones(len(w), bool)}
    if folds is not None and len(calibrations) > 1:
        parts |= {f" in fold {f}": folds[keep] == f for f in range(len(calibrations))}
    written, left_out = [], []
    for eps in sorted(efficiencies, reverse=True):
        if not 0 < eps < 1:
            raise ConfigError(f"a background efficiency is {eps:g}, but must lie between 0 and 1")
        threshold = float(np.float32(-np.log10(eps)))
        reasons = [_unfit(values[rows], w[rows], eps, threshold, where) for where, rows in parts.items()]
        if any(reasons):
            left_out.append(f"region {region_label(eps)} is not written: {next(filter(None, reasons))}")
            continue
        _, error, passing = efficiency(values, w, threshold)
        written.append(
            RegionSpec(
                name=region_label(eps),
                efficiency=eps,
                thresholds=(threshold,),
                error=error / (eps * np.log(10)),
                n_effective=passing,
                derived_from=calibrations[0].derived_from.removesuffix(", fold 0"),
            )
        )
    return tuple(written), tuple(left_out)


def _unfit(values: npt.NDArray[Any], weight: Float64s, eps: float, threshold: float, where: str) -> str:
    """Say why a threshold makes no region of an efficiency; nothing if it does."""
    achieved, error, passing = efficiency(values, weight, threshold)
    if passing < MIN_EFFECTIVE * (1 - 1e-9):  # sums of equal weights are not exact
        return too_few(passing, n_effective(weight), eps, where)
    if abs(achieved - eps) > 3 * error:
        return tied(achieved, eps, where)
    return ""


def too_few(passing: float, n_all: float, eps: float, where: str = "") -> str:
    """Say that a region of an efficiency would rest on too few objects, and how many are needed.

    >>> too_few(4.2, 4300, 0.001)
    'it would rest on 4.2 effective background objects, 10 are needed; 4300 are there, an efficiency of 0.001 takes about 10000'
    """
    return (
        f"it would rest on {passing:.1f} effective background objects{where}, {MIN_EFFECTIVE:g} are needed; "
        f"{n_all:.0f} are there, an efficiency of {eps:g} takes about {MIN_EFFECTIVE / eps:.0f}"
    )


def tied(achieved: float, eps: float, where: str = "") -> str:
    """Say that tied scores allow no threshold of an efficiency."""
    return f"scores are tied, so that its threshold keeps {achieved:.3g} of the background{where} instead of {eps:g}"


def binned_threshold(edges: Float64s, values: Float64s, variances: Float64s, eps: float) -> tuple[float, float, float]:
    """Find in a histogram of `ad_logp` where a fraction eps of the content lies above.

    Within a bin the logarithm of that fraction is taken to be linear, as it is by the definition of `ad_logp`.

    Parameters
    ----------
    edges : (n + 1,)
    values, variances : (n,)
        Content and the sum of its squared weights.
    eps : float

    Returns
    -------
    threshold, its statistical error, effective number of entries above
        In units of `ad_logp`.

    Examples
    --------
    >>> edges = np.arange(9.0)
    >>> content = 10 ** -edges[:-1] - 10 ** -edges[1:]
    >>> round(binned_threshold(edges, content, content, 0.005)[0], 2)
    2.3
    """
    above = np.maximum.accumulate(np.r_[0.0, np.cumsum(values[::-1])])[::-1] / values.sum()  # also of negative weights
    filled = above > 0
    if eps >= above[filled][-1]:
        threshold = float(np.interp(-np.log(eps), -np.log(above[filled]), edges[filled]))
    else:  # in the last bin, where the content ends
        threshold = float(np.interp(eps, above[::-1], edges[::-1]))
    inside = edges[:-1] >= threshold
    square = variances[inside].sum()
    passing = values[inside].sum()
    n_eff = passing**2 / square if square > 0 else 0.0  # and by the rule of `n_effective_passing`:
    n_eff = min(n_eff, max(passing, 0.0) * values.sum() / variances.sum()) if square > 0 else 0.0
    error = np.sqrt(square) / values.sum() / (eps * np.log(10))
    return threshold, float(error), float(n_eff)


def region_label(eps: float) -> str:
    """Return the name of the region of a background efficiency.

    >>> region_label(0.01), region_label(0.02)
    ('medium', 'eff0.02')
    """
    return _NAMES.get(eps, f"eff{eps:g}")
