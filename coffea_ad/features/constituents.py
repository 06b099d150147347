"""The constituents of jets as tensors with fixed numbers of slots: by falling pT, centred, padded with zeros."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from coffea_ad.errors import unknown_text
from coffea_ad.features.base import Column, Feature, Names, Options, Rows
from coffea_ad.features.clustering import are_finite, largest, wrap
from coffea_ad.features.grooming import lund_plane
from coffea_ad.features.jit import contiguous, kernel
from coffea_ad.nanoaod.constituents import constituent_branches
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["COLUMNS", "JET_CONSTITUENTS", "JET_LUND", "constituent_tensor"]

_UNITS = {
    "pt": "GeV", "energy": "GeV", "mass": "GeV", "eta": "", "phi": "rad", "deta": "", "dphi": "rad", "dr": "",
    "log_pt": "", "log_energy": "", "pt_rel": "", "energy_rel": "", "log_pt_rel": "", "log_energy_rel": "",
    "charge": "e", "is_charged_hadron": "", "is_neutral_hadron": "", "is_photon": "", "is_electron": "", "is_muon": "",
    "mask": "",
}  # fmt: skip
COLUMNS = tuple(_UNITS)
"""What a slot can hold. `_rel`: over the sum of the jet's constituents; `mask`: 1 for a constituent, 0 for an empty slot."""

(
    _PT, _ENERGY, _MASS, _ETA, _PHI, _DETA, _DPHI, _DR, _LOG_PT, _LOG_ENERGY, _PT_REL, _ENERGY_REL, _LOG_PT_REL,
    _LOG_ENERGY_REL, _CHARGE, _CHARGED_HADRON, _NEUTRAL_HADRON, _PHOTON, _ELECTRON, _MUON, _MASK,
) = range(len(COLUMNS))  # fmt: skip
_TYPED = frozenset(c for c in COLUMNS if c.startswith("is_"))


@kernel
def _tensor(
    offsets: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    q: Float64s,
    pdg_id: Ints,
    columns: Ints,
    centroid: bool,
    out: Float32s,
) -> None:
    """Fill out[jet, slot, column]."""
    n_slots, n_columns = out.shape[1], out.shape[2]
    order = np.empty(largest(offsets), np.int64)
    for j in range(len(offsets) - 1):
        n, finite = 0, True
        for i in range(offsets[j], offsets[j + 1]):
            if pt[i] <= 0.0:  # PUPPI leaves zeros
                continue
            finite &= are_finite(pt[i], eta[i], phi[i], mass[i], q[i])
            at = n  # by falling pT, equal ones in the order of the file
            while at > 0 and pt[order[at - 1]] < pt[i]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = i
            n += 1
        # empty slots stay 0; a jet that cannot be described is NaN as a whole, never in part
        out[j] = 0.0
        if n == 0 or not finite:
            out[j] = np.nan
            continue
        # sums over all constituents, also those without a slot: the centre must not depend on the number of slots;
        # azimuths are averaged about the leading one, so that a jet across ±π has no centre on the other side
        px = py = pz = total_pt = total_energy = mean_eta = mean_phi = 0.0
        phi0 = phi[order[0]]
        for k in range(n):
            i = order[k]
            z = pt[i] * math.sinh(eta[i])
            total_energy += math.sqrt(pt[i] * pt[i] + z * z + mass[i] * mass[i])
            total_pt += pt[i]
            px += pt[i] * math.cos(phi[i])
            py += pt[i] * math.sin(phi[i])
            pz += z
            mean_eta += pt[i] * eta[i]
            mean_phi += pt[i] * wrap(phi[i] - phi0)
        if centroid:
            eta0, phi0 = mean_eta / total_pt, wrap(phi0 + mean_phi / total_pt)
        else:
            eta0, phi0 = math.asinh(pz / math.sqrt(px * px + py * py)), math.atan2(py, px)
        # only the columns that are asked for: the order is the caller's, so each is looked up by its number
        for k in range(min(n, n_slots)):
            i = order[k]
            deta, dphi = eta[i] - eta0, wrap(phi[i] - phi0)
            z = pt[i] * math.sinh(eta[i])
            energy = math.sqrt(pt[i] * pt[i] + z * z + mass[i] * mass[i])
            kind = abs(pdg_id[i])
            for c in range(n_columns):
                what, value = columns[c], 1.0
                if what == _PT:
                    value = pt[i]
                elif what == _ENERGY:
                    value = energy
                elif what == _MASS:
                    value = mass[i]
                elif what == _ETA:
                    value = eta[i]
                elif what == _PHI:
                    value = phi[i]
                elif what == _DETA:
                    value = deta
                elif what == _DPHI:
                    value = dphi
                elif what == _DR:
                    value = math.sqrt(deta * deta + dphi * dphi)
                elif what == _LOG_PT:
                    value = math.log(pt[i])
                elif what == _LOG_ENERGY:
                    value = math.log(energy)
                elif what == _PT_REL:
                    value = pt[i] / total_pt
                elif what == _ENERGY_REL:
                    value = energy / total_energy
                elif what == _LOG_PT_REL:
                    value = math.log(pt[i] / total_pt)
                elif what == _LOG_ENERGY_REL:
                    value = math.log(energy / total_energy)
                elif what == _CHARGE:
                    value = q[i]
                elif what == _CHARGED_HADRON:
                    value = 1.0 if kind in (211, 321, 2212) else 0.0
                elif what == _NEUTRAL_HADRON:  # 1 and 2: hadronic and electromagnetic energy in the forward calorimeter
                    value = 1.0 if kind in (130, 310, 2112, 1) else 0.0
                elif what == _PHOTON:
                    value = 1.0 if kind in (22, 2) else 0.0
                elif what == _ELECTRON:
                    value = 1.0 if kind == 11 else 0.0
                elif what == _MUON:
                    value = 1.0 if kind == 13 else 0.0
                out[j, k, c] = value


def constituent_tensor(
    columns: tuple[str, ...],
    n_slots: int,
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    charge: npt.ArrayLike | None = None,
    pdg_id: npt.ArrayLike | None = None,
    center: Literal["centroid", "axis"] = "centroid",
) -> Float32s:
    """Return the leading constituents of many jets.

    Δη = η − η_0 and Δφ = φ − φ_0 in (−π, π], from the pT-weighted centroid Σ pT (η, φ) / Σ pT or the axis of the sum.

    Parameters
    ----------
    columns : tuple of str
        Of `COLUMNS`.
    n_slots : int
        Constituents per jet; softer ones are left out of the slots, but not of the centre and the sums.
    offsets : (n_jets + 1,) int64
    pt, eta, phi, mass, charge, pdg_id : (n_constituents,), GeV and radians

    Returns
    -------
    (n_jets, n_slots, len(columns)) float32
        By falling pT; 0 in empty slots, NaN for a jet without constituents or with one that is not finite.

    Examples
    --------
    >>> values = constituent_tensor(("pt", "dphi", "mask"), 3, [0, 2], [1.0, 3.0], [0.0, 0.0], [0.4, 0.0], [0.0, 0.0])
    >>> values[0].round(2).tolist()
    [[3.0, -0.10000000149011612, 1.0], [1.0, 0.30000001192092896, 1.0], [0.0, 0.0, 0.0]]
    """
    p, e, f, m = (contiguous(a, np.float64) for a in (pt, eta, phi, mass))
    size = len(p)
    q = np.zeros(size) if charge is None else contiguous(charge, np.float64)
    kind = np.zeros(size, np.int64) if pdg_id is None else contiguous(pdg_id, np.int64)
    codes = np.array([COLUMNS.index(c) for c in columns], np.int64)
    rows = contiguous(offsets, np.int64)
    out = np.empty((len(rows) - 1, n_slots, len(columns)), np.float32)
    _tensor(rows, p, e, f, m, q, kind, codes, center == "centroid", out)
    return out


class ConstituentOptions(Options):
    """Slots and what they hold.

    Attributes
    ----------
    n : int
        Slots per jet.
    columns : tuple of str
        What a slot holds.
    center : "centroid" or "axis"
        The pT-weighted centroid, or the axis of the sum of the constituents.
    """

    n: Annotated[int, Field(strict=True, ge=1, le=1000)] = 50
    columns: Annotated[Names, Field(description=f"of {', '.join(COLUMNS)}")] = ("pt", "deta", "dphi")
    center: Literal["centroid", "axis"] = "centroid"

    @field_validator("columns")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in COLUMNS:
                raise ValueError(unknown_text("column", name, COLUMNS))
        if not names or len(set(names)) != len(names):
            raise ValueError("name each column once")
        return names


def _columns(options: ConstituentOptions) -> tuple[Column, ...]:
    return tuple(Column(name, _UNITS[name]) for name in options.columns)


def _reads(collection: str, options: ConstituentOptions) -> tuple[tuple[str, ...], ...]:
    return constituent_branches(
        collection, charge="charge" in options.columns, pdg_id=not _TYPED.isdisjoint(options.columns)
    )


def _rows(objects: Objects, options: ConstituentOptions) -> Rows:
    c = objects.constituents
    charge = c.charge if "charge" in options.columns else None
    pdg_id = None if _TYPED.isdisjoint(options.columns) else c.field("pdgId")

    def rows(start: int, stop: int) -> Float32s:
        offsets, inside = c.slice(start, stop)
        return constituent_tensor(
            options.columns, options.n, offsets, c.pt[inside], c.eta[inside], c.phi[inside], c.mass[inside],
            None if charge is None else charge[inside], None if pdg_id is None else pdg_id[inside], options.center,
        )  # fmt: skip

    return rows


JET_CONSTITUENTS = Feature(
    name="jet_constituents",
    version=1,
    level="jet",
    columns=_columns,
    reads=_reads,
    rows=_rows,
    options=ConstituentOptions,
    shape=lambda options: (options.n, len(options.columns)),
    sparse=True,
    convention=(
        "the n constituents of highest PUPPI-weighted pT; deta, dphi from the pT-weighted centroid in (η, φ), Δφ wrapped "
        "(center=axis: from the axis of the sum of the constituents); log: natural, of GeV; _rel: over the sum of all "
        "constituents; charge of NanoAOD v15 from the sign of pdgId; empty slots are 0 and have mask 0."
    ),
    reference="arXiv:2108.04253, arXiv:2312.03067",
)


class LundOptions(Options):
    """How many splittings."""

    n: Annotated[int, Field(strict=True, ge=1, le=1000)] = 12


def _lund_rows(objects: Objects, options: LundOptions) -> Rows:
    c = objects.constituents

    def rows(start: int, stop: int) -> Float32s:
        offsets, inside = c.slice(start, stop)
        counts, plane = lund_plane(offsets, c.pt[inside], c.eta[inside], c.phi[inside], c.mass[inside])
        out = np.zeros((stop - start, options.n, 4), np.float32)
        n_splittings = np.maximum(counts, 0)
        jet = np.repeat(np.arange(stop - start), n_splittings)
        slot = np.arange(len(plane)) - np.repeat(np.cumsum(n_splittings) - n_splittings, n_splittings)
        # Two identical directions have no angle: such a splitting has no place in the plane, and its slot stays empty.
        fits = (slot < options.n) & np.isfinite(plane).all(axis=1)
        out[jet[fits], slot[fits], :3] = plane[fits]
        out[jet[fits], slot[fits], 3] = 1.0
        out[counts < 0] = np.nan
        return out

    return rows


def _lund_columns(_: Any) -> tuple[Column, ...]:
    return (
        Column("ln_inv_delta", "", r"$\ln(1/\Delta)$"),
        Column("ln_kt", "", r"$\ln(k_T/\mathrm{GeV})$"),
        Column("z", "", "$z$"),
        Column("mask"),
    )


JET_LUND = Feature(
    name="jet_lund",
    version=1,
    level="jet",
    columns=_lund_columns,
    reads=lambda collection, _: constituent_branches(collection),
    rows=_lund_rows,
    options=LundOptions,
    shape=lambda options: (options.n, 4),
    sparse=True,
    convention=(
        "primary Lund plane: the first n splittings along the harder branch of C/A; Δ in (y, φ), kT = pT_soft Δ, "
        "z = pT_soft / (pT_hard + pT_soft); empty slots are 0 and have mask 0."
    ),
    reference="arXiv:1807.04758",
)
