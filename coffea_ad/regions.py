"""`ad_logp` → anomaly regions: of objects, and of the events that hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.calibration import (
    MIN_EFFECTIVE,
    binned_threshold,
    calibrate,
    calibrate_folds,
    card_logp,
    derive,
    efficiency,
    logp,
    n_effective_passing,
    region_label,
    working_points,
)
from coffea_ad.card import RegionSpec

__all__ = [
    "MIN_EFFECTIVE",
    "assign",
    "binned_threshold",
    "calibrate",
    "calibrate_folds",
    "card_logp",
    "derive",
    "efficiency",
    "event_regions",
    "logp",
    "n_effective_passing",
    "nested_regions",
    "region_label",
    "region_names",
    "working_points",
]


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
