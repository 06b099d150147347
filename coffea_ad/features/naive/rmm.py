"""Twins of the object selection and of the rapidity-mass matrix: one event at a time, with four-vectors. For tests only."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coffea_ad.features.object_options import AllObjectOptions, ObjectOptions
from coffea_ad.features.rmm import RMMOptions
from coffea_ad.typing import Float64s

__all__ = ["Event", "Particle", "cells", "rmm", "select", "zones"]


_NAMES = ("j", "b", "mu", "e", "g")  # of the kinds, in the order of the blocks
_MASSES = {"Muon": 0.1056583745, "Electron": 0.00051099895, "Photon": 0.0}
_LEFT_OUT = frozenset(
    {("j1", "j2"), ("j1", "b1"), ("b1", "b2")} | {(jet, other) for jet in ("j1", "b1") for other in ("mu1", "e1", "g1")}
)
_COMPARISONS = {">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt}


class Particle(NamedTuple):
    """An object of an event, in GeV and radians."""

    pt: float
    eta: float
    phi: float
    mass: float

    @property
    def p4(self) -> tuple[float, float, float, float]:
        """E, px, py, pz."""
        pz = self.pt * math.sinh(self.eta)
        energy = math.hypot(self.pt, pz, self.mass)
        return energy, self.pt * math.cos(self.phi), self.pt * math.sin(self.phi), pz

    @property
    def transverse_energy(self) -> float:
        """E sin θ, which is pT for massless objects only."""
        energy, _, _, pz = self.p4
        return energy * math.sin(math.atan2(self.pt, pz))

    @property
    def rapidity(self) -> float:
        """½ log((E + pz) / (E − pz)), in the form in which nothing cancels."""
        energy, _, _, pz = self.p4
        y = math.log((energy + abs(pz)) / math.hypot(self.pt, self.mass))
        return math.copysign(y, pz)


class Event(NamedTuple):
    """What was selected: objects of each kind by falling pT, and missing momentum (0: none)."""

    kinds: Sequence[Sequence[Particle]]
    met: float
    met_phi: float


# ---- which objects


def _passes(row: Mapping[str, Any], cut: str) -> bool:
    for symbol, compare in _COMPARISONS.items():
        if symbol in cut:
            field, number = cut.split(symbol)
            return bool(compare(row[field], float(number)))
    return bool(row[cut])


def _good(rows: Sequence[Mapping[str, Any]], options: ObjectOptions, kind: str) -> list[Mapping[str, Any]]:
    pt_min, eta_max = getattr(options, f"{kind}_pt_min"), getattr(options, f"{kind}_eta_max")
    inside = [row for row in rows if row["pt"] > pt_min and abs(row["eta"]) < eta_max]
    return [row for row in inside if all(_passes(row, cut) for cut in getattr(options, f"{kind}_cuts"))]


def _apart(row: Mapping[str, Any], others: Sequence[Mapping[str, Any]], cleaning: float) -> bool:
    for other in others:
        dphi = math.remainder(row["phi"] - other["phi"], 2 * math.pi)
        if math.hypot(row["eta"] - other["eta"], dphi) < cleaning:
            return False
    return True


def _leading(rows: Sequence[Mapping[str, Any]], slots: int, mass: float | None) -> list[Particle]:
    ordered = sorted(rows, key=lambda row: -row["pt"])[:slots]  # equal pT stay in the order of the file
    return [Particle(row["pt"], row["eta"], row["phi"], row["mass"] if mass is None else mass) for row in ordered]


def select(event: Mapping[str, Any], options: ObjectOptions, slots: Sequence[int]) -> Event | None:
    """Select the objects of one event as `coffea_ad.features.objects.select_objects` does.

    Parameters
    ----------
    event : mapping
        A list of rows (field → number) for every collection, and a single row for missing momentum.
    options : ObjectOptions
    slots : (light jets, b jets, muons, electrons, photons)
        A collection without a slot is as good as absent.

    Returns
    -------
    Event or None
        None for an event with a pT, angle or mass that is not finite.
    """
    light, b, muon, electron, photon = slots
    wanted = {"Muon": muon, "Electron": electron, "Photon": photon, "Jet": light + b}
    collections = {name: list(event[name]) if n > 0 else [] for name, n in wanted.items()}
    met = event[options.met]
    numbers = [met["pt"], met["phi"]]
    for name, rows in collections.items():
        for row in rows:
            numbers += [row[field] for field in ("pt", "eta", "phi", *(["mass"] if name == "Jet" else []))]
    if not all(math.isfinite(number) for number in numbers):
        return None

    muons, electrons = _good(collections["Muon"], options, "muon"), _good(collections["Electron"], options, "electron")
    leptons = muons + electrons
    photons = []
    if collections["Photon"]:
        photons = [
            row for row in _good(collections["Photon"], options, "photon") if _apart(row, leptons, options.cleaning)
        ]
    jets = [
        row for row in _good(collections["Jet"], options, "jet") if _apart(row, leptons + photons, options.cleaning)
    ]
    b_jets = []
    if b > 0 and isinstance(options, AllObjectOptions):
        if options.btag is None or options.btag_min is None:
            raise ValueError("the slow twin takes a tagger and its working point by name and number only")
        b_jets = [row for row in jets if row[options.btag] > options.btag_min]
    light_jets = [row for row in jets if not any(row is other for other in b_jets)]
    kinds = (
        _leading(light_jets, light, None),
        _leading(b_jets, b, None),
        _leading(muons, muon, _MASSES["Muon"]),
        _leading(electrons, electron, _MASSES["Electron"]),
        _leading(photons, photon, _MASSES["Photon"]),
    )
    return Event(kinds, met["pt"] if met["pt"] >= options.met_min else 0.0, met["phi"])


# ---- the matrix


def _labels(slots: Sequence[int]) -> list[str]:
    return ["met"] + [f"{name}{k + 1}" for name, n in zip(_NAMES, slots, strict=True) for k in range(n)]


def _mass(a: Particle, b: Particle) -> float:
    energy, px, py, pz = (x + y for x, y in zip(a.p4, b.p4, strict=True))
    return math.sqrt(max(0.0, energy**2 - px**2 - py**2 - pz**2))


def _transverse_mass(a: Particle, met: float, met_phi: float) -> float:
    _, px, py, _ = a.p4
    x, y = px + met * math.cos(met_phi), py + met * math.sin(met_phi)
    return math.sqrt(max(0.0, (a.transverse_energy + met) ** 2 - x**2 - y**2))


def rmm(event: Event | None, options: RMMOptions) -> Float64s:
    """Compute the whole matrix of an event, (size, size), from its definition; nothing is left out of it."""
    size = len(_labels(options.shape))
    if options.sqrt_s is None:
        raise ValueError("the slow twin takes a number for sqrt_s only")
    if event is None:
        return np.full((size, size), np.nan)
    slot: dict[int, Particle] = {}
    matrix = np.zeros((size, size))
    first = 1
    for objects, n in zip(event.kinds, options.shape, strict=True):
        for k, particle in enumerate(objects):
            slot[first + k] = particle
            et = particle.transverse_energy
            if k == 0:
                matrix[first, first] = et / options.sqrt_s
            else:
                before = objects[k - 1].transverse_energy
                matrix[first + k, first + k] = (before - et) / (before + et)
        first += n
    matrix[0, 0] = event.met / options.sqrt_s
    part = {"map2rmm": 0.5, "seed": 1.0}[options.convention]
    for i, a in slot.items():
        if event.met > 0:
            matrix[0, i] = _transverse_mass(a, event.met, event.met_phi) / options.sqrt_s
        matrix[i, 0] = options.C * (math.cosh(a.rapidity) - 1)
        for j, b in slot.items():
            if i < j:
                matrix[i, j] = _mass(a, b) / options.sqrt_s
            elif i > j:
                matrix[i, j] = options.C * (math.cosh(part * (a.rapidity - b.rapidity)) - 1)
    return matrix


def cells(matrix: Float64s, options: RMMOptions) -> Float64s:
    """Return the cells that are inputs, row by row: all, or all but the masses of leading objects with a jet."""
    leave_out = options.preset == "ATLAS" if options.drop_masses is None else options.drop_masses
    labels = _labels(options.shape)
    values = [
        matrix[i, j]
        for i, a in enumerate(labels)
        for j, b in enumerate(labels)
        if not (leave_out and (a, b) in _LEFT_OUT)
    ]
    return np.array(values)


def zones(event: Event | None, options: RMMOptions, *, square: bool = False) -> dict[str, float]:
    """Return the sums over the blocks of the matrix, or the roots of the sums of squares, by name."""
    matrix = rmm(event, options)
    block, first = {}, 1
    for name, n in zip(_NAMES, options.shape, strict=True):
        if n > 0:
            block[name] = slice(first, first + n)
        first += n

    def total(values: Float64s) -> float:
        return math.sqrt(float(np.sum(values**2))) if square else float(np.sum(values))

    out = {"met": float(matrix[0, 0])}
    for name, rows in block.items():
        out[f"mt({name})"] = total(matrix[0, rows])
        out[f"hl({name})"] = total(matrix[rows, 0])
        out[f"et({name})"] = total(np.diagonal(matrix[rows, rows]))
        for other, columns in block.items():
            if other == name:
                square_block = matrix[rows, rows]
                if len(square_block) > 1:
                    out[f"m({name},{name})"] = total(square_block[np.triu_indices(len(square_block), 1)])
                    out[f"h({name},{name})"] = total(square_block[np.tril_indices(len(square_block), -1)])
            elif columns.start > rows.start:
                out[f"m({name},{other})"] = total(matrix[rows, columns])
                out[f"h({name},{other})"] = total(matrix[columns, rows])
    return out
