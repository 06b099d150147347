"""Zones of the rapidity-mass matrix: a few sums over its blocks, for small networks. The choice of zones is our own."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np

from coffea_ad.features.base import Column, Feature, Rows
from coffea_ad.features.jit import kernel
from coffea_ad.features.object_options import KINDS
from coffea_ad.features.objects import select_objects
from coffea_ad.features.rmm import SHORT, RMMOptions, Slots, at_energy, rmm_reads, rmm_rows
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Float32s, Ints

__all__ = ["RMM_ZONES", "ZoneOptions"]

_BLOCK = 256  # events whose matrices are there at a time


class ZoneOptions(RMMOptions):
    """As for the matrix.

    Attributes
    ----------
    norm : "sum" or "frobenius"
        Cells of a zone are added, or added in quadrature.
    """

    preset: Literal["ATLAS", "T5N10"] = "T5N10"
    norm: Literal["sum", "frobenius"] = "sum"


@lru_cache(maxsize=32)
def _zones(slots: Slots) -> tuple[Ints, tuple[str, ...]]:
    """Return the zone of every cell, and their names: 1 + 5 · 3 + 15 + 15 with all five kinds."""
    block = np.r_[0, np.repeat(np.arange(1, len(KINDS) + 1), slots)]
    zone = np.empty((len(block), len(block)), np.int64)
    names: dict[str, int] = {}
    for i, j in np.ndindex(*zone.shape):
        a, b = block[i], block[j]
        low, high = sorted((int(a), int(b)))
        pair = f"{SHORT[low - 1]},{SHORT[high - 1]}" if low else ""
        if i == j:
            name = "met" if i == 0 else f"et({SHORT[a - 1]})"
        elif i == 0:
            name = f"mt({SHORT[b - 1]})"
        elif j == 0:
            name = f"hl({SHORT[a - 1]})"
        else:
            name = f"m({pair})" if i < j else f"h({pair})"
        zone[i, j] = names.setdefault(name, len(names))
    return zone, tuple(names)


def _zone_columns(options: ZoneOptions) -> tuple[Column, ...]:
    return tuple(Column(name) for name in _zones(options.shape)[1])


@kernel
def _add_up(cells: Float32s, zone: Ints, square: bool, out: Float32s) -> None:
    """Add the cells of each zone, in double precision."""
    sums = np.zeros(out.shape[1])
    for i in range(len(cells)):
        sums[:] = 0.0
        for c in range(len(zone)):
            value = cells[i, c]
            if value != 0.0:  # most are, and what is NaN is not
                sums[zone[c]] += value * value if square else value
        for k in range(len(sums)):
            out[i, k] = math.sqrt(sums[k]) if square else sums[k]


def _zone_rows(objects: Objects, options: ZoneOptions) -> Rows:
    events = select_objects(objects, options, options.shape)
    zone, square = _zones(options.shape)[0].ravel(), options.norm == "frobenius"
    whole = at_energy(objects, options).model_copy(update={"drop_masses": False})

    def rows(start: int, stop: int) -> Float32s:
        out = np.empty((stop - start, len(_zones(options.shape)[1])), np.float32)
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            _add_up(rmm_rows(events, first, last, whole), zone, square, out[first - start : last - start])
        out[~events.valid[start:stop]] = np.nan
        return out

    return rows


RMM_ZONES = Feature(
    name="rmm_zones",
    version=1,
    level="event",
    columns=_zone_columns,
    reads=rmm_reads,
    rows=_zone_rows,
    options=ZoneOptions,
    convention=(
        "coffea-ad's own choice of zones, after the idea of RMM-C46: E_T^miss, and sums over the blocks of the "
        "rapidity-mass matrix: per kind m_T, first column and diagonal, per pair of kinds masses and angles; 46 columns "
        "with all five kinds. All masses are in, drop_masses has no effect."
    ),
    reference="idea: arXiv:2602.17563",
)
