"""Histograms of anomaly regions: booking, filling, blinding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hist
import numpy as np
import numpy.typing as npt

from coffea_ad.card import ModelCard, RegionSpec

__all__ = ["blinded", "book", "fill", "logp_axis"]


def logp_axis(card: ModelCard, name: str = "ad_logp", bins_per_decade: int = 10) -> hist.axis.Regular:
    """Return the axis of `ad_logp`; it closes above the largest possible value, so nothing sits in overflow.

    Parameters
    ----------
    card : ModelCard
    name : str
    bins_per_decade : int
    """
    top = max((c.max_logp for c in card.calibrations), default=1.0)
    bins = int(np.floor(top * bins_per_decade)) + 1
    return hist.axis.Regular(bins, 0, bins / bins_per_decade, name=name, label=r"$-\log_{10}$ background efficiency")


def book(axis: Any, regions: Sequence[str], variations: Sequence[str]) -> hist.Hist:
    """Return an empty weighted histogram over region, variation and one observable."""
    return hist.Hist(
        hist.axis.StrCategory(list(regions), name="region", label="region"),
        hist.axis.StrCategory(list(variations), name="variation", label="variation"),
        axis,
        storage=hist.storage.Weight(),
    )


def fill(
    histogram: hist.Hist,
    masks: Mapping[str, npt.NDArray[np.bool_]],
    variation: str,
    values: npt.NDArray[Any],
    weight: npt.NDArray[Any],
) -> int:
    """Fill one observable in all regions.

    Parameters
    ----------
    histogram : Hist
        As booked.
    masks : {region: (n_events,) bool}
    variation : str
    values : (n_events,) or (n_events, objects)
        One or more entries per event; NaN lands in no bin.
    weight : (n_events,)

    Returns
    -------
    int
        The number of undefined values that were left out.
    """
    axis = histogram.axes[-1].name
    table = np.asarray(values)
    table = table[:, None] if table.ndim == 1 else table
    weights = np.broadcast_to(weight[:, None], table.shape)
    finite = np.isfinite(table)
    for region, mask in masks.items():
        chosen = finite & mask[:, None]
        histogram.fill(region=region, variation=variation, weight=weights[chosen], **{axis: table[chosen]})
    return int((~finite).sum())


def blinded(grades: npt.NDArray[Any], regions: Sequence[RegionSpec]) -> npt.NDArray[np.bool_]:
    """Return which events of data must not be looked at: those with a jet in the tightest region.

    They are taken out of every histogram, the inclusive ones too: otherwise a subtraction would show them.

    Parameters
    ----------
    grades : (n_events, jets) integer
        `ad_region` of the jets, −1 if unscored.
    regions : sequence of RegionSpec

    Returns
    -------
    (n_events,) bool
    """
    if not regions:
        return np.zeros(len(grades), bool)
    return np.asarray(np.any(grades >= len(regions), axis=1))
