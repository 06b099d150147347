"""Jet-level features: substructure for the semivisible-jet search, and the bystanders shown next to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.features.base import Column, Feature
from coffea_ad.features.substructure import SUBSTRUCTURE_COLUMNS, substructure
from coffea_ad.nanoaod import Objects, constituent_branches, constituents

__all__ = ["JET_KINEMATICS", "JET_SUBSTRUCTURE"]

_LABELS = {
    "sigma1": r"$\sigma_1$",
    "sigma2": r"$\sigma_2$",
    "efp1": r"EFP$_1$",
    "c2": r"$C_2^{\beta=0.5}$",
    "ptd": r"$p_T^D$",
    "msoftdrop": r"$m_{SD}$",
    "mass": "$m$",
    **{f"tau{n}": rf"$\tau_{n}$" for n in range(1, 5)},
}
_UNITS = {"msoftdrop": "GeV", "mass": "GeV"}
_STORED = ("tau1", "tau2", "tau3", "tau4", "msoftdrop", "mass")
_SOURCE = {"source": ("constituents", ("constituents", "stored"))}


def _substructure_columns(options: Mapping[str, Any]) -> tuple[Column, ...]:
    names = _STORED if options["source"] == "stored" else SUBSTRUCTURE_COLUMNS
    return tuple(Column(name, _UNITS.get(name, ""), _LABELS[name]) for name in names)


def _substructure_reads(collection: str, options: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    if options["source"] == "stored":
        return (tuple(f"{collection}_{name}" for name in _STORED),)
    return constituent_branches(collection)


def _substructure(objects: Objects, options: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    if options["source"] == "stored":
        values = np.stack([objects.field(name).astype(np.float32) for name in _STORED], axis=1)
        groomed = _STORED.index("msoftdrop")
        values[:, groomed] = np.maximum(values[:, groomed], 0)  # NanoAOD stores −1 where nothing was left
        return values
    c = constituents(objects)
    table = substructure(c.offsets, c.pt, c.eta, c.phi, c.mass, options["beta"], options["R0"], options["z_cut"], 0.0)
    return table[:, : len(SUBSTRUCTURE_COLUMNS)].astype(np.float32)


JET_SUBSTRUCTURE = Feature(
    name="jet_substructure",
    version=1,
    level="jet",
    columns=_substructure_columns,
    reads=_substructure_reads,
    compute=_substructure,
    options={**_SOURCE, "beta": (0.5, None), "R0": (0.8, None), "z_cut": (0.1, None)},
    convention=(
        "source=constituents: sigma1, sigma2 = roots of the eigenvalues of the pT²-weighted central moments in (η, φ); "
        "z = pT / Σ pT of the constituents; EFP1 = Σ z_i z_j ΔR_ij over ordered pairs in (y, φ); C2 = e3/e2² with "
        "angles to the power beta, 0 if e2 = 0; tau2, tau3 with OnePass_KT axes, β = 1, radius R0; soft drop with "
        "z_cut, β = 0. source=stored: NanoAOD's own tau1…tau4, msoftdrop (JEC-corrected, negative values as 0), mass."
    ),
    reference="arXiv:1011.2268, arXiv:1305.0007, arXiv:1712.07124, arXiv:1402.2657",
)


def _kinematics_reads(collection: str, options: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    own = tuple(f"{collection}_{name}" for name in ("pt", "eta", "mass"))
    if options["source"] == "stored":
        return ((*own, f"{collection}_nConstituents"),)
    return tuple((*own, *branches) for branches in constituent_branches(collection))


def _kinematics(objects: Objects, options: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    columns = [objects.field(name).astype(np.float32) for name in ("pt", "eta", "mass")]
    if options["source"] == "stored":
        columns.append(objects.field("nConstituents").astype(np.float32))
    else:
        c = constituents(objects)
        kept = np.r_[0, np.cumsum(c.pt > 0)]
        number = (kept[c.offsets[1:]] - kept[c.offsets[:-1]]).astype(np.float32)
        columns.append(np.where(np.diff(c.offsets) > 0, number, np.float32(np.nan)))
    return np.stack(columns, axis=1)


JET_KINEMATICS = Feature(
    name="jet_kinematics",
    version=1,
    level="jet",
    columns=lambda _: (
        Column("pt", "GeV", "$p_T$"),
        Column("eta", "", r"$\eta$"),
        Column("mass", "GeV", "$m$"),
        Column("multiplicity", "", "constituents"),
    ),
    reads=_kinematics_reads,
    compute=_kinematics,
    options=_SOURCE,
    convention=(
        "pt, eta, mass as in NanoAOD; multiplicity = number of constituents with PUPPI-weighted pT > 0 "
        "(source=stored: nConstituents, which wraps above 255)."
    ),
    reference="",
)
