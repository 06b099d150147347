"""The objects of an event that event-level features are made of: selected, cleaned, by kind and falling pT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.features.clustering import are_finite, wrap
from coffea_ad.features.jit import kernel
from coffea_ad.features.object_options import (
    COLLECTIONS,
    COMPARE,
    KINDS,
    ObjectOptions,
    fields_read,
    kinds_used,
    tagger_of,
)
from coffea_ad.nanoaod.columns import as_mask, event_columns, flat_columns
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Bools, Float64s, Ints

__all__ = ["SelectedObjects", "select_objects"]


_MUON_MASS, _ELECTRON_MASS = 0.1056583745, 0.00051099895


@dataclass(frozen=True)
class SelectedObjects:
    """Objects of n events: event i owns rows offsets[i] … offsets[i+1], by kind and then by falling pT.

    Attributes
    ----------
    offsets : (n + 1,) int64
    kind, rank : (n_objects,) int64
        Position in `KINDS`, and place among its kind.
    pt, eta, phi, mass : (n_objects,) float64, GeV and radians
    met, met_phi : (n,) float64
    valid : (n,) bool
        Whether all numbers of the event's objects are finite.
    """

    offsets: Ints
    kind: Ints
    rank: Ints
    pt: Float64s
    eta: Float64s
    phi: Float64s
    mass: Float64s
    met: Float64s
    met_phi: Float64s
    valid: Bools

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.offsets) - 1

    @cached_property
    def event(self) -> Ints:
        """Event of every object, (n_objects,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def p4(self) -> Float64s:
        """Px, py, pz, E of every object, (4, n_objects), GeV."""
        with np.errstate(invalid="ignore", over="ignore"):  # events with infinite numbers are undefined
            px, py, pz = self.pt * np.cos(self.phi), self.pt * np.sin(self.phi), self.pt * np.sinh(self.eta)
            return np.stack([px, py, pz, np.sqrt(px**2 + py**2 + pz**2 + self.mass**2)])

    def n(self, *kinds: str) -> Ints:
        """Return how many objects of some kinds every event has, (n,)."""
        return np.bincount(self.event[self._rows(kinds)], minlength=len(self))

    @property
    def ht(self) -> Float64s:
        """Scalar sum of the pT of light jets and b jets, (n,), GeV."""
        rows = self._rows(("jet", "bjet"))
        return np.asarray(np.bincount(self.event[rows], self.pt[rows], minlength=len(self)), np.float64)

    def leading_pt(self, *kinds: str) -> Float64s:
        """Return the highest pT among objects of some kinds, (n,), GeV; 0 without one."""
        place = self._place(kinds, 0)
        out = np.zeros(len(self))
        out[place >= 0] = self.pt[place[place >= 0]]
        return out

    def pair_mass(self, first: str | tuple[str, ...], second: str | tuple[str, ...]) -> Float64s:
        """Return the mass of two leading objects, m² = (E₁ + E₂)² − |p₁ + p₂|², (n,), GeV; NaN without such a pair.

        Parameters
        ----------
        first, second : str or tuple of str
            Their kinds. If they are the same, the two objects of highest pT; several kinds count as one.
        """
        kinds = [(k,) if isinstance(k, str) else tuple(k) for k in (first, second)]
        one, two = self._place(kinds[0], 0), self._place(kinds[1], int(kinds[0] == kinds[1]))
        both = (one >= 0) & (two >= 0)
        out = np.full(len(self), np.nan)
        with np.errstate(invalid="ignore", over="ignore"):
            px, py, pz, e = self.p4[:, one[both]] + self.p4[:, two[both]]
            out[both] = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0.0))
        return out

    @cached_property
    def _sorted(self) -> dict[tuple[str, ...], Ints]:
        return {}

    def _rows(self, kinds: tuple[str, ...]) -> Ints:
        """Return the objects of some kinds, by event and falling pT."""
        if kinds not in self._sorted:
            rows = np.flatnonzero(np.isin(self.kind, [KINDS.index(kind) for kind in kinds]))
            if len(kinds) > 1:  # those of one kind are sorted already
                rows = rows[np.lexsort((-self.pt[rows], self.event[rows]))]
            self._sorted[kinds] = rows
        return self._sorted[kinds]

    def _place(self, kinds: tuple[str, ...], k: int) -> Ints:
        """Return which object of every event is its k-th of some kinds, −1 where there are fewer."""
        rows, number = self._rows(kinds), self.n(*kinds)
        out = np.full(len(self), -1, np.int64)
        out[number > k] = rows[(np.cumsum(number) - number + k)[number > k]]
        return out


@kernel
def _select(
    offsets: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    keep: Bools,
    is_b: Bools,
    slots: Ints,
    cleaning: float,
) -> tuple[Ints, Ints, Ints, Bools]:
    """Choose the objects of each event; `offsets` has a row each for muons, electrons, photons and jets.

    Returns offsets, kind and index of what was chosen, and which events have finite numbers only.
    """
    n_events = offsets.shape[1] - 1
    out = np.empty(n_events + 1, np.int64)
    kind, index = np.empty(len(pt), np.int64), np.empty(len(pt), np.int64)
    valid = np.ones(n_events, np.bool_)
    most = 1
    for i in range(n_events):
        total = 0
        for c in range(4):
            total += offsets[c, i + 1] - offsets[c, i]
        most = max(most, total)
    selected, selected_kind = np.empty(most, np.int64), np.empty(most, np.int64)
    filled = 0
    out[0] = 0
    for i in range(n_events):
        n, n_leptons = 0, 0
        for c in range(4):
            others = n_leptons if c == 2 else n  # photons are kept apart from leptons, jets from all
            for k in range(offsets[c, i], offsets[c, i + 1]):
                if not are_finite(pt[k], eta[k], phi[k], mass[k], 0.0):
                    valid[i] = False
                if not keep[k]:
                    continue
                overlap = False
                if c >= 2:
                    for o in range(others):
                        deta, dphi = eta[k] - eta[selected[o]], wrap(phi[k] - phi[selected[o]])
                        overlap |= deta * deta + dphi * dphi < cleaning * cleaning
                if overlap:
                    continue
                selected[n], selected_kind[n] = k, c + 2 if c < 3 else (1 if is_b[k] else 0)
                n += 1
            if c < 2:
                n_leptons = n
        for t in range(5):
            first = filled
            for m in range(n):
                if selected_kind[m] != t:
                    continue
                at = filled
                while at > first and pt[index[at - 1]] < pt[selected[m]]:
                    index[at] = index[at - 1]
                    at -= 1
                index[at] = selected[m]
                filled += 1
            filled = min(filled, first + slots[t])
            kind[first:filled] = t
        out[i + 1] = filled
    return out, kind[:filled], index[:filled], valid


def _good(columns: dict[str, npt.NDArray[Any]], options: ObjectOptions, name: str) -> tuple[Bools, Bools]:
    """Return which objects pass all cuts, and which pass those on pT and η."""
    kind = name.lower()
    kinematics: Bools = (columns["pt"] > getattr(options, f"{kind}_pt_min")) & (
        np.abs(columns["eta"]) < getattr(options, f"{kind}_eta_max")
    )
    good = kinematics.copy()
    for field, compare, number in options.cuts(name):
        good &= as_mask(columns[field]) if compare is None else COMPARE[compare](columns[field], number)
    return good, kinematics


def select_objects(objects: Objects, options: ObjectOptions, slots: tuple[int, ...]) -> SelectedObjects:
    """Select the objects of events.

    Parameters
    ----------
    objects : Objects
        The events, at level "event".
    options : ObjectOptions
    slots : (light jets, b jets, muons, electrons, photons)
        How many of each at most. A collection without a slot is not read; without slots for b jets they are light jets.

    Raises
    ------
    MissingBranch, BadFile
    ConfigError
        The b jets are those of the campaign, and it is not known.
    """
    events, n = objects.array, len(objects)
    used = kinds_used(slots)
    tagger = tagger_of(events, options, slots)
    offsets = np.zeros((len(COLLECTIONS), n + 1), np.int64)
    parts: dict[str, list[npt.NDArray[Any]]] = {k: [] for k in ("pt", "eta", "phi", "mass", "keep", "is_b")}
    first = 0
    for c, name in enumerate(COLLECTIONS):
        if name in used:
            starts, columns = flat_columns(events, name, fields_read(name, options, tagger))
            offsets[c] = first + starts
            first += int(starts[-1])
            size = len(columns["pt"])
            known = {"Muon": _MUON_MASS, "Electron": _ELECTRON_MASS}.get(name, 0.0)
            columns.setdefault("mass", np.full(size, known))
            tagged = np.zeros(size, bool)
            for branch, threshold in tagger.items() if name == "Jet" else ():
                tagged = columns[branch] > threshold
            good, kinematics = _good(columns, options, name)
            judged = [f for f, compare, _ in options.cuts(name) if compare] + (list(tagger) if name == "Jet" else [])
            for field in judged:  # an object that would count, if only its number were one, makes its event undefined
                columns["mass"] = np.where(kinematics & ~np.isfinite(columns[field]), np.nan, columns["mass"])
            for k in ("pt", "eta", "phi", "mass"):
                parts[k].append(columns[k].astype(np.float64))
            parts["keep"].append(good)
            parts["is_b"].append(tagged)
        else:
            offsets[c] = first
    flat = {
        k: np.concatenate(v) if v else np.zeros(0, bool if k in ("keep", "is_b") else float) for k, v in parts.items()
    }
    starts, kind, index, valid = _select(
        offsets, flat["pt"], flat["eta"], flat["phi"], flat["mass"], flat["keep"], flat["is_b"],
        np.array(slots, np.int64), float(options.cleaning),
    )  # fmt: skip
    met, met_phi = (a.astype(np.float64) for a in event_columns(events, options.met, ("pt", "phi")).values())
    valid &= np.isfinite(met) & np.isfinite(met_phi)
    met = np.where(met >= options.met_min, met, 0.0)
    rank = np.arange(len(kind)) - np.maximum.accumulate(_run_starts(starts, kind))
    pt, eta, phi, mass = (flat[k][index] for k in ("pt", "eta", "phi", "mass"))
    return SelectedObjects(starts, kind, rank, pt, eta, phi, mass, met, met_phi, valid)


def _run_starts(offsets: Ints, kind: Ints) -> Ints:
    """Return for each object where the objects of its event and kind begin, or 0 if it is not the first of them."""
    if len(kind) == 0:
        return np.zeros(0, np.int64)
    begins = np.r_[True, kind[1:] != kind[:-1]]
    begins[offsets[:-1][np.diff(offsets) > 0]] = True
    return np.asarray(np.where(begins, np.arange(len(kind)), 0))
