"""Score → calibrated `ad_logp` → anomaly regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.card import Calibration, RegionSpec
from coffea_ad.errors import ConfigError
from coffea_ad.weights import n_effective

__all__ = [
    "MIN_EFFECTIVE",
    "assign",
    "binned_threshold",
    "calibrate",
    "efficiency",
    "event_regions",
    "logp",
    "nested_regions",
    "region_label",
    "region_names",
    "working_points",
]

MIN_EFFECTIVE = 10.0
"""A region resting on fewer effective background objects is not written."""

_STEP = 0.01  # spacing of the calibration table in ad_logp
_NAMES = {1e-1: "loose", 1e-2: "medium", 1e-3: "tight"}

Floats = npt.NDArray[np.float64]


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
    if len(values) < 2 or total <= 0:
        raise ConfigError("a calibration needs at least two different background scores and a positive sum of weights")
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


def logp(calibration: Calibration | None, score: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return `ad_logp` = −log10 of the background efficiency at a score, float32; NaN without score or calibration."""
    if calibration is None:
        return np.full(len(score), np.nan, np.float32)
    values = np.interp(np.asarray(score, np.float64), calibration.score, calibration.logp)
    return np.where(np.isfinite(score), values, np.nan).astype(np.float32)


def efficiency(values: npt.NDArray[Any], weight: npt.ArrayLike, threshold: float) -> tuple[float, float, float]:
    """Return the weighted fraction at or above a threshold, its error, and the effective number that passes.

    σ² = [(1−ε)² Σ_pass w² + ε² Σ_fail w²] / (Σ w)², the binomial variance of weighted events.
    """
    w = np.asarray(weight, np.float64)
    passed = np.asarray(values) >= threshold
    total = w.sum()
    if total <= 0:
        return 0.0, 0.0, 0.0
    eps = float(w[passed].sum() / total)
    variance = (1 - eps) ** 2 * np.sum(w[passed] ** 2) + eps**2 * np.sum(w[~passed] ** 2)
    return eps, float(np.sqrt(variance) / total), n_effective(w[passed])


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
    keep = np.isfinite(np.asarray(score, np.float64))
    values = logp(calibration, np.asarray(score)[keep])
    w = np.asarray(weight, np.float64)[keep]
    out = []
    for eps in sorted(efficiencies, reverse=True):
        if not 0 < eps < 1:
            raise ConfigError(f"a background efficiency is {eps:g}, but must lie between 0 and 1")
        threshold = float(np.float32(-np.log10(eps)))
        achieved, error, passing = efficiency(values, w, threshold)
        if passing < MIN_EFFECTIVE or abs(achieved - eps) > 3 * error:
            continue  # too few, or tied scores that no threshold can divide at this efficiency
        out.append(
            RegionSpec(
                name=region_label(eps),
                efficiency=eps,
                thresholds=(threshold,),
                error=error / (eps * np.log(10)),
                n_effective=passing,
                derived_from=calibration.derived_from,
            )
        )
    return tuple(out)


def binned_threshold(edges: Floats, values: Floats, variances: Floats, eps: float) -> tuple[float, float, float]:
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
    n_eff = values[inside].sum() ** 2 / square if square > 0 else 0.0
    error = np.sqrt(square) / values.sum() / (eps * np.log(10))
    return threshold, float(error), float(n_eff)


def region_label(eps: float) -> str:
    """Return the name of the region of a background efficiency.

    >>> region_label(0.01), region_label(0.02)
    ('medium', 'eff0.02')
    """
    return _NAMES.get(eps, f"eff{eps:g}")


def assign(
    values: npt.NDArray[Any], regions: Sequence[RegionSpec], bystanders: Mapping[str, npt.NDArray[Any]] | None = None
) -> npt.NDArray[np.int8]:
    """Return `ad_region`: the number of thresholds passed, −1 where `ad_logp` or a bystander is undefined.

    >>> from coffea_ad.card import RegionSpec
    >>> wp = RegionSpec(name="a", efficiency=0.1, thresholds=(1.0,), error=0, n_effective=99, derived_from="toy")
    >>> assign(np.array([0.5, 1.0, np.nan]), [wp])
    array([ 0,  1, -1], dtype=int8)
    """
    passed = np.zeros(len(values), np.int8)
    nested = np.ones(len(values), bool)
    defined = np.isfinite(values)
    for region in regions:
        thresholds = np.asarray(region.thresholds)
        if region.bystander is None:
            cut = np.full(len(values), thresholds[0])
        else:
            bystander = (bystanders or {})[region.bystander]
            cut = thresholds[np.digitize(bystander, region.edges)]
            defined &= np.isfinite(bystander)
        nested &= np.asarray(values) >= cut
        passed += nested
    return np.where(defined, passed, -1).astype(np.int8)


def region_names(regions: Sequence[RegionSpec]) -> list[str]:
    """Return the event regions of a jet-level model: inclusive, and per working point by number of tagged jets.

    >>> region_names([])
    ['inclusive']
    """
    return ["inclusive", *(f"{r.name}_{n}tag" for r in regions for n in range(3))]


def event_regions(leading: Any, regions: Sequence[RegionSpec]) -> tuple[dict[str, npt.NDArray[np.bool_]], Any]:
    """Sort events by how many of their two leading jets are tagged.

    Parameters
    ----------
    leading : (n_events, 2) ak.Array of int8
        `ad_region` of the two leading jets, −1 for a jet without a score; None counts as −1.
    regions : sequence of RegionSpec
        The card's, loose → tight.

    Returns
    -------
    masks : {region: (n_events,) bool}
        Exclusive in the number of tags; an event with an unscored leading jet is in none.
    unscored : (n_events,) bool
    """
    grades = np.asarray(ak.to_numpy(ak.fill_none(leading, -1)), np.int64).reshape(-1, 2)
    unscored = np.any(grades < 0, axis=1)
    masks = {"inclusive": ~unscored}
    for level, region in enumerate(regions, start=1):
        tags = (grades >= level).sum(axis=1)
        for n in range(3):
            masks[f"{region.name}_{n}tag"] = ~unscored & (tags == n)
    return masks, unscored


def nested_regions(
    grades: Any, regions: Sequence[RegionSpec]
) -> tuple[dict[str, npt.NDArray[np.bool_]], npt.NDArray[np.bool_]]:
    """Sort events by a model of whole events: each is in `inclusive` and in every region whose threshold it passes.

    Parameters
    ----------
    grades : (n_events,) ak.Array of int8
        `ad_region` of the events, −1 without a score; None counts as −1.
    regions : sequence of RegionSpec
        The card's, loose → tight.

    Returns
    -------
    masks : {region: (n_events,) bool}
        Nested; an unscored event is in none.
    unscored : (n_events,) bool

    Examples
    --------
    >>> from coffea_ad.card import RegionSpec
    >>> wp = RegionSpec(name="1pb", efficiency=0.1, thresholds=(1.0,), error=0, n_effective=99, derived_from="toy")
    >>> nested_regions(ak.Array([0, 1, -1]), [wp])[0]
    {'inclusive': array([ True,  True, False]), '1pb': array([False,  True, False])}
    """
    passed = np.asarray(ak.to_numpy(ak.fill_none(grades, -1)), np.int64)
    masks = {"inclusive": passed >= 0}
    masks |= {region.name: passed >= level for level, region in enumerate(regions, start=1)}
    return masks, passed < 0
