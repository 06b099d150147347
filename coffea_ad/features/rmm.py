"""The rapidity-mass matrix (RMM) of an event: a numba kernel that writes blocks of rows.

Slots: missing momentum, then a block each of light jets, b jets, muons, electrons and photons. In GeV, with s = √s:

    (0, 0)             E_T^miss / s
    (0, i)             m_T(i) / s, m_T² = (E_T + E_T^miss)² − (px + px^miss)² − (py + py^miss)²; 0 without E_T^miss
    (i, 0)             C (cosh y_i − 1)
    (i, i)             E_T / s for the first of its kind, (E_T,i−1 − E_T,i) / (E_T,i−1 + E_T,i) for the others
    (i, j), i < j      m(i, j) / s
    (i, j), i > j      C (cosh((y_i − y_j) / 2) − 1)

An event has a dozen objects and most cells are 0, so that a chunk of events is never dense: blocks stream into the
scorer, and skims store the cells that are not 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from coffea_ad.errors import ConfigError
from coffea_ad.features.base import Column, Feature, Positive, Rows
from coffea_ad.features.jit import kernel, subroutine
from coffea_ad.features.object_options import KINDS, AllObjectOptions, object_ways
from coffea_ad.features.objects import SelectedObjects, select_objects
from coffea_ad.nanoaod.conventions import centre_of_mass_energy
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Bools, Float32s, Float64s, Ints

__all__ = [
    "PRESETS",
    "RMM",
    "SHORT",
    "RMMOptions",
    "Slots",
    "at_energy",
    "cell_names",
    "matrix",
    "rmm_reads",
    "rmm_rows",
    "slot_names",
]

Slots = tuple[int, int, int, int, int]

PRESETS: dict[str, tuple[Slots, bool]] = {"ATLAS": ((10, 10, 5, 5, 5), True), "T5N10": ((10, 10, 10, 10, 10), False)}
"""Slots, and whether the nine masses of leading objects in which bumps are hunted are left out.

"ATLAS": the 1287 inputs of the search, 36 × 36 without m_jj, m_jb, m_bb, m_jμ, m_bμ, m_je, m_be, m_jγ, m_bγ of the
leading objects. "T5N10": five types, ten objects each, 51 × 51.
"""

SHORT = ("j", "b", "mu", "e", "g")
"""Names of the kinds in columns."""
_Count = Annotated[int, Field(strict=True, ge=0, le=50)]


class RMMOptions(AllObjectOptions):
    """Size, units and convention of the matrix, and the objects in it.

    Attributes
    ----------
    preset : "ATLAS" or "T5N10"
    slots : (light jets, b jets, muons, electrons, photons), optional
        Instead of the preset's. 0 leaves a kind out; without slots for b jets they count as light jets.
    drop_masses : bool, optional
        Leave out the masses of pairs of leading objects with a jet or b jet; the preset's choice by default.
    sqrt_s : float, GeV, optional
        Centre-of-mass energy. By default that of the events' dataset, by `coffea_ad.nanoaod.campaigns`.
    C : float
        Weight of the cells of angles.
    convention : "map2rmm" or "seed"
        The authors' code, or its talk, which has y_i − y_j where the code has half of it.
    """

    preset: Literal["ATLAS", "T5N10"] = "ATLAS"
    slots: tuple[_Count, _Count, _Count, _Count, _Count] | None = None
    drop_masses: bool | None = None
    sqrt_s: Positive | None = None
    C: Positive = 0.15
    convention: Literal["map2rmm", "seed"] = "map2rmm"

    @property
    def shape(self) -> Slots:
        """How many slots each kind has."""
        return self.slots or PRESETS[self.preset][0]

    @property
    def without_masses(self) -> bool:
        """Whether the nine masses are left out."""
        return PRESETS[self.preset][1] if self.drop_masses is None else self.drop_masses


# Objects of as many events as fit are prepared together, in one array with a fixed place for each quantity: at distances
# that are known to it, the compiler needs no checks for overlap and makes vectors.
_TILE = 1024
_STRIDE = _TILE + 8
_E, _PX, _PY, _PZ, _ET, _M2, _HL, _GROW, _SHRINK = (k * _STRIDE for k in range(9))


@subroutine
def _prepare(
    start: int, stop: int, pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s, half: bool, ws: Float64s
) -> None:
    """Four-vectors and powers of e^y of the objects start … stop, without a call that the compiler cannot vectorise.

    Sine and cosine of φ/4 and the exponential of η/32 are short series (|φ| ≤ π, |η| ≤ 10: better than 1e-10), doubled up.
    """
    for k in range(stop - start):
        o = start + k
        x = 0.25 * phi[o]
        xx = x * x
        s = x * (1 - xx / 6 * (1 - xx / 20 * (1 - xx / 42 * (1 - xx / 72 * (1 - xx / 110 * (1 - xx / 156))))))
        c = 1 - xx / 2 * (1 - xx / 12 * (1 - xx / 30 * (1 - xx / 56 * (1 - xx / 90 * (1 - xx / 132)))))
        s, c = 2 * s * c, 1 - 2 * s * s
        s, c = 2 * s * c, 1 - 2 * s * s
        t = eta[o] / 32
        up = 1 + t * (
            1 + t / 2 * (1 + t / 3 * (1 + t / 4 * (1 + t / 5 * (1 + t / 6 * (1 + t / 7 * (1 + t / 8 * (1 + t / 9)))))))
        )
        up *= up
        up *= up
        up *= up
        up *= up
        up *= up
        m2 = mass[o] * mass[o]
        pz = 0.5 * pt[o] * (up - 1.0 / up)
        p2 = pt[o] * pt[o] + pz * pz
        e = math.sqrt(p2 + m2)
        rise = (e + abs(pz)) / math.sqrt(pt[o] * pt[o] + m2)  # exp |y|
        root = math.sqrt(rise) if half else rise
        ws[_E + k] = e
        ws[_PX + k] = pt[o] * c
        ws[_PY + k] = pt[o] * s
        ws[_PZ + k] = pz
        ws[_ET + k] = e * pt[o] / math.sqrt(p2)
        ws[_M2 + k] = m2
        ws[_HL + k] = 0.5 * (rise + 1.0 / rise) - 1.0
        ws[_GROW + k] = root if pz > 0.0 else 1.0 / root
        ws[_SHRINK + k] = 1.0 / root if pz > 0.0 else root


@subroutine
def _pair(
    ws: Float64s, j: int, e: float, px: float, py: float, pz: float, m2: float, grow: float, shrink: float
) -> tuple[float, float]:
    """Mass of object j and another, and cosh of their (half) rapidity difference, less 1."""
    product = ws[_E + j] * e - ws[_PX + j] * px - ws[_PY + j] * py - ws[_PZ + j] * pz
    angle = ws[_GROW + j] * shrink + ws[_SHRINK + j] * grow - 1.0
    return math.sqrt(max(0.0, m2 + ws[_M2 + j] + 2.0 * product)), angle


@subroutine
def _put(row: Float32s, column: int, value: float) -> None:
    if column >= 0:
        row[np.uint32(column)] = np.float32(value)


@kernel
def _fill(
    offsets: Ints,
    kind: Ints,
    rank: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    met: Float64s,
    met_phi: Float64s,
    valid: Bools,
    first_slot: Ints,
    place: npt.NDArray[np.int32],
    scale: float,
    angle_scale: float,
    half: bool,
    out: Float32s,
) -> None:
    """Write a row per event; place[i, j] is the column of a cell, −1 for a mass that is left out."""
    n_events = len(offsets) - 1
    ws, slot = np.empty(9 * _STRIDE), np.empty(_TILE, np.uint64)
    last = 0
    while last < n_events:
        first = last
        base = offsets[first]
        while last < n_events and offsets[last + 1] - base <= _TILE:
            last += 1
        _prepare(base, offsets[last], pt, eta, phi, mass, half, ws)
        for i in range(first, last):
            row = out[i]
            if not valid[i]:
                row[:] = np.nan
                continue
            row[:] = 0.0
            begin, end = offsets[i] - base, offsets[i + 1] - base
            missing = met[i]
            for k in range(begin, end):
                slot[k] = np.uint64(first_slot[kind[base + k]] + rank[base + k])
            if missing > 0.0:
                _put(row, place[0, 0], missing * scale)
                met_x, met_y = missing * math.cos(met_phi[i]), missing * math.sin(met_phi[i])
                for k in range(begin, end):
                    x, y, z = ws[_ET + k] + missing, ws[_PX + k] + met_x, ws[_PY + k] + met_y
                    transverse = math.sqrt(max(0.0, x * x - y * y - z * z))
                    _put(row, place[0, slot[k]], transverse * scale)
            for k in range(begin, end):
                s, et, e, px, py, pz = slot[k], ws[_ET + k], ws[_E + k], ws[_PX + k], ws[_PY + k], ws[_PZ + k]
                grow, shrink, m2 = 0.5 * ws[_GROW + k], 0.5 * ws[_SHRINK + k], ws[_M2 + k]
                _put(row, place[s, 0], angle_scale * ws[_HL + k])
                before = ws[_ET + k - 1]
                diagonal = et * scale if rank[base + k] == 0 else (before - et) / (before + et)
                _put(row, place[s, s], diagonal)
                for j in range(begin, k):
                    pair, angle = _pair(ws, j, e, px, py, pz, m2, grow, shrink)
                    upper = place[slot[j], s]
                    row[np.uint32(place[s, slot[j]])] = np.float32(angle_scale * angle)
                    if upper >= 0:
                        row[np.uint32(upper)] = np.float32(pair * scale)


@lru_cache(maxsize=32)
def _layout(slots: Slots, without_masses: bool) -> tuple[Ints, npt.NDArray[np.int32], tuple[str, ...]]:
    """Return the first slot of each kind, the column of each cell, and the names of the columns."""
    first = np.r_[1, 1 + np.cumsum(slots)]
    labels = slot_names(RMMOptions(slots=slots))
    size = len(labels)
    keep = np.ones((size, size), bool)
    if without_masses:
        leading = [int(first[k]) for k in range(len(KINDS)) if slots[k] > 0]
        jets = [int(first[k]) for k in (0, 1) if slots[k] > 0]
        for i in jets:
            for j in leading:
                keep[(i, j) if i < j else (j, i)] = j == i  # the diagonal holds E_T
        for k in (0, 1):
            if slots[k] > 1:
                keep[first[k], first[k] + 1] = False
    place = np.where(keep, np.cumsum(keep).reshape(keep.shape) - 1, -1)
    names = tuple(_cell(labels, i, j, slots) for i in range(size) for j in range(size) if keep[i, j])
    return first[:-1].astype(np.int64), place.astype(np.int32), names


def _cell(labels: Sequence[str], i: int, j: int, slots: Slots) -> str:
    a, b = labels[i], labels[j]
    if i == j:
        leading = i == 0 or i in np.r_[1, 1 + np.cumsum(slots)]
        return "met" if i == 0 else f"et({a})" if leading else f"det({a})"
    if i == 0:
        return f"mt({b})"
    if j == 0:
        return f"hl({a})"
    return f"m({a},{b})" if i < j else f"h({a},{b})"


def cell_names(options: RMMOptions) -> tuple[str, ...]:
    """Return the names of the columns.

    >>> cell_names(RMMOptions(slots=(1, 0, 1, 0, 0), drop_masses=False))
    ('met', 'mt(j1)', 'mt(mu1)', 'hl(j1)', 'et(j1)', 'm(j1,mu1)', 'hl(mu1)', 'h(mu1,j1)', 'et(mu1)')
    >>> len(cell_names(RMMOptions())), len(cell_names(RMMOptions(preset="T5N10")))
    (1287, 2601)
    """
    return _layout(options.shape, options.without_masses)[2]


def slot_names(options: RMMOptions) -> tuple[str, ...]:
    """Return the names of the rows, which are those of the columns.

    >>> slot_names(RMMOptions(slots=(2, 0, 1, 0, 0)))
    ('met', 'j1', 'j2', 'mu1')
    """
    slots = zip(SHORT, options.shape, strict=True)
    return ("met", *(f"{short}{k + 1}" for short, n in slots for k in range(n)))


def matrix(values: Float32s, options: RMMOptions, absent: float = 0.0) -> Float32s:
    """Return rows as matrices, (n, size, size); cells that are left out are `absent`."""
    place = _layout(options.shape, options.without_masses)[1]
    out = np.full((len(values), *place.shape), absent, np.float32)
    out[:, place >= 0] = values
    return out


def rmm_rows(events: SelectedObjects, start: int, stop: int, options: RMMOptions) -> Float32s:
    """Compute the rapidity-mass matrices of events start … stop.

    Parameters
    ----------
    events : SelectedObjects
    start, stop : int
    options : RMMOptions
        With a number for `sqrt_s`.

    Returns
    -------
    (stop − start, columns) float32
        NaN for an event with a number that is not finite.

    References
    ----------
    S. Chekanov, "Imaging particle collision data for event classification using machine learning", arXiv:1805.11650;
    ATLAS, "Search for new phenomena in two-body invariant mass distributions using unsupervised machine learning for
    anomaly detection", arXiv:2307.01612.
    """
    first, place, names = _layout(options.shape, options.without_masses)
    offsets = events.offsets[start : stop + 1]
    if np.diff(offsets).max(initial=0) > _TILE:
        raise ValueError(f"rmm: an event has more than {_TILE} objects")
    if options.sqrt_s is None:
        raise ConfigError("rmm: the matrix of selected objects needs a number for sqrt_s (GeV)")
    out = np.empty((stop - start, len(names)), np.float32)
    _fill(
        offsets, events.kind, events.rank, events.pt, events.eta, events.phi, events.mass, events.met[start:stop],
        events.met_phi[start:stop], events.valid[start:stop], first, place, 1.0 / options.sqrt_s, float(options.C),
        options.convention == "map2rmm", out,
    )  # fmt: skip
    return out


def _columns(options: RMMOptions) -> tuple[Column, ...]:
    return tuple(Column(name) for name in cell_names(options))


def rmm_reads(_: str, options: RMMOptions) -> tuple[tuple[str, ...], ...]:
    """Return the branches that the matrix needs."""
    return object_ways(options, options.shape, energy=options.sqrt_s is None)


def at_energy(objects: Objects, options: RMMOptions) -> RMMOptions:
    """Return the options with the centre-of-mass energy of these events.

    Raises
    ------
    ConfigError
        It is not known.
    """
    return options.model_copy(update={"sqrt_s": centre_of_mass_energy(objects.array, options.sqrt_s)})


def _rows(objects: Objects, options: RMMOptions) -> Rows:
    events = select_objects(objects, options, options.shape)
    options = at_energy(objects, options)
    return lambda start, stop: rmm_rows(events, start, stop, options)


RMM = Feature(
    name="rmm",
    version=1,
    level="event",
    columns=_columns,
    reads=rmm_reads,
    rows=_rows,
    options=RMMOptions,
    sparse=True,
    convention=(
        "slots: missing momentum, light jets, b jets, muons, electrons, photons, by falling pT; first row E_T^miss/√s and "
        "m_T/√s, first column C(cosh y − 1), diagonal E_T/√s of the first of a kind and else the asymmetry of E_T, above "
        "it masses/√s, below it C(cosh(Δy/2) − 1) (convention=seed: C(cosh Δy − 1)), y true rapidity; empty slots are 0; "
        "jets within `cleaning` of a selected lepton or photon are removed."
    ),
    reference="arXiv:1805.11650, arXiv:2307.01612",
)
