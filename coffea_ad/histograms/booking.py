"""Axes and histograms of searches, and how they are filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hist
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.scoring.card import ModelCard
from coffea_ad.typing import Bools, Float64s

__all__ = ["book", "fill", "hidden", "logp_axis", "mass_edges"]


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


def mass_edges(
    low: float, high: float, bins: int, *, resolution: float | None = None, edges: Sequence[float] = ()
) -> Float64s:
    """Return the edges of a mass axis: given ones, ones as wide as the resolution, or of equal width.

    With a relative resolution r, neighbouring edges differ by the factor 1 + r, so that every bin is as wide as r times its
    lower edge; the last one is the first at or above `high`.

    Parameters
    ----------
    low, high : float, GeV
    bins : int
        Of equal width, where neither of the others is given.
    resolution : float, optional
        σ(m)/m.
    edges : sequence of float, GeV
        Rising; the other arguments then do not matter.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> mass_edges(1000, 1300, 3), mass_edges(1000, 1200, 3, resolution=0.1).round()
    (array([1000., 1100., 1200., 1300.]), array([1000., 1100., 1210.]))
    """
    if len(edges):
        explicit = np.asarray(edges, np.float64)
        if len(explicit) < 2 or not np.all(np.diff(explicit) > 0):
            raise ConfigError("mass_edges must be two numbers or more that rise")
        return explicit
    if not low < high:
        raise ConfigError(f"mass_min {low:g} is not below mass_max {high:g}")
    if resolution is None:
        return np.linspace(low, high, bins + 1)
    if low <= 0:
        raise ConfigError("bins as wide as the resolution begin above 0: give mass_min")
    n = int(np.ceil(np.log(high / low) / np.log1p(resolution) - 1e-9))
    return np.asarray(low * (1 + resolution) ** np.arange(n + 1))


def book(axes: Sequence[Any], cells: Sequence[str], variations: Sequence[str]) -> hist.Hist:
    """Return an empty weighted histogram over cell, variation and observables."""
    return hist.Hist(
        hist.axis.StrCategory(list(cells), name="cell", label="cell"),
        hist.axis.StrCategory(list(variations), name="variation", label="variation"),
        *axes,
        storage=hist.storage.Weight(),
    )


def fill(
    histogram: hist.Hist,
    cells: npt.NDArray[np.str_],
    variation: str,
    values: Mapping[str, npt.NDArray[Any]],
    weight: npt.NDArray[Any],
) -> int:
    """Fill observables of events, each into its cell.

    Parameters
    ----------
    histogram : Hist
        As booked.
    cells : (n_events,) str
    variation : str
    values : {observable: (n_events,) or (n_events, objects)}
        One or more entries per event; an entry with NaN lands in no bin.
    weight : (n_events,)

    Returns
    -------
    int
        The number of entries that were left out, since a value is undefined.
    """
    columns = {name: np.asarray(v)[:, None] if np.ndim(v) == 1 else np.asarray(v) for name, v in values.items()}
    *tables, weights, places = np.broadcast_arrays(*columns.values(), weight[:, None], cells[:, None])
    finite = np.logical_and.reduce([np.isfinite(table) for table in tables])
    if finite.any():
        entries = dict(zip(columns, (table[finite] for table in tables), strict=True))
        histogram.fill(cell=places[finite], variation=variation, weight=weights[finite], **entries)
    return int((~finite).sum())


def hidden(grades: npt.NDArray[Any], n_regions: int) -> Bools:
    """Return which events of data must not be looked at: those with a jet in the tightest region.

    They are taken out of every histogram, the inclusive ones too: otherwise a subtraction would show them.

    Parameters
    ----------
    grades : (n_events, jets) integer
        `ad_region` of the jets, −1 if unscored.
    n_regions : int

    Returns
    -------
    (n_events,) bool
    """
    if n_regions == 0:
        return np.zeros(len(grades), bool)
    return np.asarray(np.any(grades >= n_regions, axis=1))
