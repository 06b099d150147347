"""What of a signal a region takes, and no simple cut at the same background rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.results.results import Results
from coffea_ad.results.sums import sum_of
from coffea_ad.scoring.working_points import MIN_EFFECTIVE
from coffea_ad.typing import Float64s

if TYPE_CHECKING:
    from coffea_ad.search.acceptance import RegionAcceptance

__all__ = ["NOTHING", "PER_PB", "UniqueEfficiency", "unique_efficiencies", "unique_part"]

NOTHING = 1.15
"""Events that are excluded at 68 % where none passes."""
PER_PB = 1000.0
"""Events of 1 pb at 1 fb⁻¹."""


@dataclass(frozen=True)
class UniqueEfficiency:
    """Part of a signal that is in a region, and not taken by a cut with the same background efficiency.

    Attributes
    ----------
    observable : str
    side : "above" or "below"
        The cut takes this side, of the two the one that takes more of the region's signal.
    cut : float
        In the unit of the observable.
    value, error : float
        Of all events of the signal; the error is binomial.
    cut_acceptance : float
        Part of all events of the signal that the cut takes by itself.
    """

    observable: str
    side: Literal["above", "below"]
    cut: float
    value: float
    error: float
    cut_acceptance: float


def unique_part(
    background: Float64s, target: float, edges: Float64s, region: Float64s, inclusive: Float64s
) -> tuple[float, float, float]:
    """Return where a cut from above keeps a background, and what it takes of a signal in a region and of all of it.

    Within a bin, background and signal are taken in proportion.

    Parameters
    ----------
    background : (bins + 2,)
        With underflow and overflow.
    target : float
        Content that the cut keeps.
    edges : (bins + 1,)
    region, inclusive : (bins + 2,)
        Of the signal.

    Returns
    -------
    cut, taken of region, taken of inclusive

    Examples
    --------
    >>> unique_part(np.array([0, 6, 2, 2, 0.0]), 3.0, np.arange(4.0), np.array([0, 1, 4, 1, 0.0]), np.array([0, 1, 4, 5, 0.0]))
    (1.5, 3.0, 7.0)
    """
    if target <= 0:  # nothing is to be kept
        return float(edges[-1]), 0.0, 0.0
    above = np.maximum.accumulate(np.cumsum(background[::-1]))[::-1]  # weights may be negative
    place = int(np.flatnonzero(above >= target * (1 - 1e-12))[-1]) if above[0] >= target * (1 - 1e-12) else -1
    if place < 0:  # all that has the observable at all is less
        return float("-inf"), float(region.sum()), float(inclusive.sum())
    beyond = above[place + 1] if place + 1 < len(above) else 0.0
    part = (target - beyond) / (above[place] - beyond)
    taken = [float(s[place + 1 :].sum() + part * s[place]) for s in (region, inclusive)]
    ends = np.concatenate([[-np.inf], edges, [np.inf]])
    low, high = ends[place], ends[place + 1]
    cut = high - part * (high - low) if np.isfinite(high - low) else (high if np.isfinite(high) else low)
    return float(cut), taken[0], taken[1]


def unique_efficiencies(
    results: Results, background: Results, dataset: str, counted_by: str, regions: Mapping[str, RegionAcceptance]
) -> dict[str, RegionAcceptance]:
    """Return the regions with what of the signal they take alone.

    Every observable with at most one value for each event is cut on from above and from below. An event without a value, such as the
    mass of two b jets where there are none, passes no cut. Of a region, all that matters is how much background is in it.

    Parameters
    ----------
    results, background : Results
        The signal at 1 pb and 1 fb⁻¹, and simulated background, or data where there is none.
    dataset, counted_by : str
        As for `region_acceptances`.
    regions : {region: RegionAcceptance}

    Raises
    ------
    ConfigError
        There is no background with this observable.
    """
    taggers = {about.get("tagger", "") for about in results.report["regions"].values()}
    names = _observables(results, dataset, counted_by, {f"{t}_logp" for t in taggers})
    whole = _content(background, counted_by, "inclusive")
    out = {}
    for name, acceptance in regions.items():
        inside = _content(background, counted_by, name)
        n_effective = inside[0].sum() ** 2 / inside[1].sum() if inside[0].sum() > 0 else 0.0
        rate = float(inside[0].sum() / whole[0].sum()) if whole[0].sum() > 0 else 0.0
        if name == "inclusive" or n_effective < MIN_EFFECTIVE:
            out[name] = replace(acceptance, background_efficiency=rate)
            continue
        unique = {
            o: _of_observable(results, background, dataset, o, name, float(inside[0].sum()), counted_by) for o in names
        }
        out[name] = replace(
            acceptance, background_efficiency=rate, unique={o: u for o, u in unique.items() if u is not None}
        )
    return out


def _observables(results: Results, dataset: str, counted_by: str, scores: set[str]) -> list[str]:
    """Return the observables with at most one value for each event, without scores and expectations."""
    histograms = results.histograms[dataset]
    selected = histograms[counted_by].sum(flow=True).value
    return [
        name for name, h in histograms.items()
        if "cell" in h.axes.name and len(h.axes) == 3 and name not in scores and not name.endswith("_expected")
        and len(h.axes["variation"]) == len(histograms[counted_by].axes["variation"])
        and h.sum(flow=True).value <= selected * (1 + 1e-9)
    ]  # fmt: skip


def _content(results: Results, observable: str, region: str) -> tuple[Float64s, Float64s]:
    """Return content and sum of squared weights of the background, (bins + 2,)."""
    try:
        total = sum_of([h[{"variation": "nominal"}] for h in results.background(observable, region).values()])
    except ConfigError:
        total = results.data(observable, region)
    return np.asarray(total.values(flow=True)), np.asarray(total.variances(flow=True))


def _of_observable(
    results: Results, background: Results, dataset: str, observable: str, region: str, target: float, counted_by: str
) -> UniqueEfficiency | None:
    """Return the unique efficiency against cuts on one observable; None if the background has none of it."""
    try:
        b = _content(background, observable, "inclusive")[0]
    except ConfigError:
        return None
    whole = results.scaled(dataset, counted_by, region)[{"variation": "nominal"}].sum(flow=True)
    inside, inclusive = (
        results.scaled(dataset, observable, name)[{"variation": "nominal"}] for name in (region, "inclusive")
    )
    s, every = (np.asarray(h.values(flow=True)) / PER_PB for h in (inside, inclusive))
    v = np.asarray(inside.variances(flow=True)) / PER_PB**2
    edges = np.asarray(inside.axes[0].edges, np.float64)
    from_above = unique_part(b, target, edges, s, every)
    from_below = unique_part(b[::-1], target, -edges[::-1], s[::-1], every[::-1])
    side: Literal["above", "below"] = "above" if from_above[1] >= from_below[1] else "below"
    cut, taken, alone = from_above if side == "above" else (-from_below[0], *from_below[1:])
    step = 1 if side == "above" else -1
    squares = whole.variance / PER_PB**2 - unique_part(b[::step], target, step * edges[::step], v[::step], v[::step])[1]
    value = max(float(whole.value / PER_PB) - taken, 0.0)
    if squares <= 1e-9 * whole.variance / PER_PB**2:  # nothing is left: what is excluded at 68 %, as for the acceptance
        sums = results.report["outputs"][dataset]
        squares = (NOTHING * sums["sumw2"] / sums["sumw"] ** 2) ** 2
    return UniqueEfficiency(observable, side, cut, value, float(np.sqrt(max(squares, 0.0))), alone)
