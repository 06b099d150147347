"""`ad_logp` → anomaly regions: of objects, and of the events that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import boost_histogram
import hist
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.scoring.calibration import calibrate, calibrate_folds, calibrate_members, card_logp, logp
from coffea_ad.scoring.domains import binned
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.scoring.working_points import (
    MIN_EFFECTIVE,
    binned_threshold,
    derive,
    efficiency,
    n_effective_passing,
    region_label,
    working_points,
)
from coffea_ad.typing import Ints

__all__ = [
    "EVERYTHING",
    "MIN_EFFECTIVE",
    "UNSCORED",
    "Definitions",
    "add_cells",
    "assign",
    "binned_threshold",
    "calibrate",
    "calibrate_folds",
    "calibrate_members",
    "card_logp",
    "cell_names",
    "cells_of",
    "definitions",
    "derive",
    "efficiency",
    "logp",
    "n_effective_passing",
    "region_label",
    "working_points",
]


def assign(
    values: npt.NDArray[Any], regions: Sequence[RegionSpec], spectators: Mapping[str, npt.NDArray[Any]] | None = None
) -> npt.NDArray[np.int8]:
    """Return `ad_region`: the number of thresholds passed, −1 where `ad_logp` or a spectator is undefined.

    >>> from coffea_ad.scoring.specs import RegionSpec
    >>> wp = RegionSpec(name="a", efficiency=0.1, thresholds=(1.0,), error=0, n_effective=99, derived_from="toy")
    >>> assign(np.array([0.5, 1.0, np.nan]), [wp])
    array([ 0,  1, -1], dtype=int8)
    """
    passed = np.zeros(len(values), np.int8)
    nested = np.ones(len(values), bool)
    defined = np.isfinite(values)
    for region in regions:
        thresholds = np.asarray(region.thresholds)
        if region.spectator is None:
            cut = np.full(len(values), thresholds[0])
        else:
            place = binned((spectators or {})[region.spectator], region.edges)
            cut = thresholds[place]
            defined &= place >= 0
        nested &= np.asarray(values) >= cut
        passed += nested
    return np.where(defined, passed, -1).astype(np.int8)


UNSCORED = "unscored"
"""The cell of events without a score: of the event, or of one of their two leading jets."""
EVERYTHING = "all"
"""The only cell where there is no model."""
Definitions = dict[str, frozenset[str]]
"""Regions as sets of cells."""


def cell_names(n_regions: int, *, jets: bool) -> list[str]:
    """Return the exclusive cells of a model: every selected event is in exactly one.

    A cell of a model of jets is named by the grades of the two leading jets, the higher first, where the grade is
    `ad_region`, the number of thresholds passed: (k + 1)(k + 2)/2 cells for k regions. A cell of a model of events is named by
    the event's grade: k + 1. One more holds the events without a score.

    Parameters
    ----------
    n_regions : int
        k, of the card.
    jets : bool
        Two jets of each event are tagged, or the event as a whole.

    Examples
    --------
    >>> cell_names(2, jets=True)
    ['0-0', '1-0', '1-1', '2-0', '2-1', '2-2', 'unscored']
    >>> cell_names(2, jets=False)
    ['0', '1', '2', 'unscored']
    """
    grades = range(n_regions + 1)
    names = [f"{a}-{b}" for a in grades for b in range(a + 1)] if jets else [str(a) for a in grades]
    return [*names, UNSCORED]


def cells_of(grades: npt.NDArray[Any], n_regions: int) -> Ints:
    """Sort events into the cells of a model.

    Parameters
    ----------
    grades : (n_events, 2) or (n_events, 1) integer
        `ad_region` of the two leading jets, or of the event; −1 without a score.
    n_regions : int
        k, of the card.

    Returns
    -------
    (n_events,) int64
        Index into `cell_names`.

    Examples
    --------
    >>> [cell_names(2, jets=True)[i] for i in cells_of(np.array([[0, 2], [1, 1], [2, -1]]), 2)]
    ['2-0', '1-1', 'unscored']
    """
    table = np.asarray(grades, np.int64)
    first, last = table[:, 0], table[:, -1]  # of an event, the same: axes of length 2 are slow to reduce
    high, low, jets = np.maximum(first, last), np.minimum(first, last), table.shape[1] == 2
    index = high * (high + 1) // 2 + low if jets else high
    return np.where(low < 0, len(cell_names(n_regions, jets=jets)) - 1, index)


def definitions(regions: Sequence[RegionSpec], *, jets: bool) -> Definitions:
    """Return the named regions of a model as sets of its cells.

    `inclusive` is every event with a score. With a model of jets there are `{region}_{0,1,2}tag`, exclusive in how many of
    the two leading jets pass the region's threshold; with one of events each region holds what passes its threshold, so that
    they are nested.

    Parameters
    ----------
    regions : sequence of RegionSpec
        The card's, loose → tight.
    jets : bool

    Examples
    --------
    >>> wp = RegionSpec(name="tight", efficiency=0.1, thresholds=(1.0,), error=0, n_effective=99, derived_from="toy")
    >>> {name: sorted(cells) for name, cells in definitions([wp], jets=True).items()}
    {'inclusive': ['0-0', '1-0', '1-1'], 'tight_0tag': ['0-0'], 'tight_1tag': ['1-0'], 'tight_2tag': ['1-1']}
    """
    cells = cell_names(len(regions), jets=jets)[:-1]
    grades = {cell: [int(g) for g in cell.split("-")] for cell in cells}
    out = {"inclusive": frozenset(cells)}
    for level, region in enumerate(regions, start=1):
        tags = {cell: sum(g >= level for g in of) for cell, of in grades.items()}
        if jets:
            out |= {f"{region.name}_{n}tag": frozenset(c for c in cells if tags[c] == n) for n in range(3)}
        else:
            out[region.name] = frozenset(c for c in cells if tags[c])
    return out


def add_cells(histogram: hist.Hist, regions: Mapping[str, Iterable[str]]) -> hist.Hist:
    """Return a histogram over regions, each the sum of its cells.

    content(region) = Σ content(cell), and the same for the sums of squared weights: cells are exclusive.

    Parameters
    ----------
    histogram : Hist
        With an axis `cell`.
    regions : {region: cells}

    Returns
    -------
    Hist
        With an axis `region` in the place of `cell`.

    Raises
    ------
    UnknownName
        A region has a cell that the histogram has not.
    ConfigError
        Its bins hold means, which do not add.
    """
    if histogram.kind != boost_histogram.Kind.COUNT:
        raise ConfigError("regions are sums of cells, and bins that hold means do not add")
    place = histogram.axes.name.index("cell")
    known = list(histogram.axes[place])
    axes = list(histogram.axes)
    axes[place] = hist.axis.StrCategory(list(regions), name="region", label="region")
    out = hist.Hist(*axes, storage=histogram.storage_type())
    content = np.moveaxis(np.asarray(histogram.view(flow=True)), place, 0)
    view = np.moveaxis(np.asarray(out.view(flow=True)), place, 0)
    for i, (region, cells) in enumerate(regions.items()):
        for cell in cells:
            if cell not in known:
                raise UnknownName(f"region {region}: the histogram has no cell {cell}; it has {', '.join(known)}")
        rows = content[[known.index(cell) for cell in sorted(cells)]]
        for field in rows.dtype.names or (...,):
            view[i][field] = rows[field].sum(axis=0)
    return out
