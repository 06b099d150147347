"""Jet-level features of few columns: substructure, and the spectators shown next to it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from coffea_ad.errors import UnknownName, unknown_text
from coffea_ad.features.base import Column, Feature, Names, Options, Rows, at_once
from coffea_ad.features.substructure import OBSERVABLES, WNAE_INPUTS, Conventions, parse_angularity, substructure
from coffea_ad.nanoaod.constituents import constituent_branches
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Float32s

__all__ = ["JET_KINEMATICS", "JET_SUBSTRUCTURE"]

Source = Literal["constituents", "stored"]

_LABELS = {
    "sigma1": r"$\sigma_1$",
    "sigma2": r"$\sigma_2$",
    "efp1": r"EFP$_1$",
    "c2": r"$C_2$",
    "ptd": r"$p_T^D$",
    "msoftdrop": r"$m_{SD}$",
    "mass": "$m$",
    **{f"tau{n}": rf"$\tau_{n}$" for n in range(1, 10)},
    **{f"tau{n}{n - 1}": rf"$\tau_{{{n}{n - 1}}}$" for n in range(2, 10)},
}
_UNITS = {"msoftdrop": "GeV", "mass": "GeV", "ptsoftdrop": "GeV", "phisoftdrop": "rad", "charge": "e"}
_STORED = ("tau1", "tau2", "tau3", "tau4", "msoftdrop", "mass")
_STORED_RATIOS = {"tau21": ("tau2", "tau1"), "tau32": ("tau3", "tau2"), "tau43": ("tau4", "tau3")}
_STORABLE = (*_STORED, *_STORED_RATIOS, "n2b1", "n3b1", "lsf3")


class SubstructureOptions(Conventions):
    """Where the numbers come from, which ones, and the conventions of `Conventions` for those that are computed.

    Attributes
    ----------
    source : "constituents" or "stored"
        Computed here, or NanoAOD's own branches: one is never taken for the other.
    observables : tuple of str, optional
        Columns; by default the eight inputs of the semivisible-jet search, or what NanoAOD stores. `+name` adds to these.
    """

    source: Source = "constituents"
    observables: Annotated[Names | None, Field(description=f"of {', '.join(OBSERVABLES)}, lambda_κ_β")] = None

    @field_validator("observables")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> tuple[str, ...] | None:
        if names is None:
            return None
        if any(name.startswith("+") for name in names):
            default = _STORED if info.data.get("source") == "stored" else WNAE_INPUTS
            names = (*default, *(name.removeprefix("+") for name in names))
        known = _STORABLE if info.data.get("source") == "stored" else OBSERVABLES
        for name in names:
            if name.startswith("lambda_") and known is OBSERVABLES:
                try:
                    parse_angularity(name)
                except UnknownName as error:
                    raise ValueError(str(error)) from None
            elif name not in known:
                raise ValueError(unknown_text("observable", name, known))
        if not names or len(set(names)) != len(names):
            raise ValueError("name each observable once")
        return names

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return self.observables or (_STORED if self.source == "stored" else WNAE_INPUTS)


def _substructure_columns(options: SubstructureOptions) -> tuple[Column, ...]:
    return tuple(Column(name, _UNITS.get(name, ""), _LABELS.get(name, name)) for name in options.names)


def _substructure_reads(collection: str, options: SubstructureOptions) -> tuple[tuple[str, ...], ...]:
    if options.source == "stored":
        fields = [f for name in options.names for f in _STORED_RATIOS.get(name, (name,))]
        return (tuple(f"{collection}_{f}" for f in dict.fromkeys(fields)),)
    return constituent_branches(collection, charge="charge" in options.names)


def _stored(objects: Objects, name: str) -> Float32s:
    if name in _STORED_RATIOS:
        over, under = (objects.field(f).astype(np.float32) for f in _STORED_RATIOS[name])
        return np.divide(over, under, out=np.zeros_like(over), where=under > 0)
    values = objects.field(name).astype(np.float32)
    if name == "msoftdrop":
        return np.where(
            values < 0, np.where(np.isfinite(values), np.float32(0), values), values
        )  # −1: nothing was left
    if name in ("n2b1", "n3b1", "lsf3"):
        return np.where(values < 0, np.float32(np.nan), values)  # and −99 where it did not compute
    return values


def _substructure(objects: Objects, options: SubstructureOptions) -> Rows:
    if options.source == "stored":
        table = np.stack([_stored(objects, name) for name in options.names], axis=1)
        return lambda start, stop: table[start:stop]
    c = objects.constituents
    charge = c.charge if "charge" in options.names else None

    def rows(start: int, stop: int) -> Float32s:
        offsets, inside = c.slice(start, stop)
        q = None if charge is None else charge[inside]
        columns = c.pt[inside], c.eta[inside], c.phi[inside], c.mass[inside]
        return substructure(options.names, offsets, *columns, q, options).astype(np.float32)

    return rows


JET_SUBSTRUCTURE = Feature(
    name="jet_substructure",
    version=1,
    level="jet",
    columns=_substructure_columns,
    reads=_substructure_reads,
    rows=_substructure,
    options=SubstructureOptions,
    selects="observables",
    convention=(
        "source=constituents: z = pT / Σ pT of the constituents, angles in (y, φ); sigma1, sigma2 = roots of the eigenvalues of "
        "the pT²-weighted moments in (η, φ) about centroid or axis (moments); lambda_κ_β = Σ z^κ (ΔR/R0)^β from the axis that "
        "angles_from names: lha, width, thrust = β ½, 1, 2 with κ = 1, girth = Σ z ΔR; charge = Σ q (pT/pT_jet)^kappa; "
        "EFP1 = Σ z_i z_j θ_ij over ordered pairs; e2, e3, 1e3, 2e3, 2e4 over unordered tuples with all, the 1 or the 2 smallest "
        "angles to the power beta; C2 = e3/e2², D2 = e3/e2³, M2 = 1e3/e2, N2 = 2e3/e2², N3 = 2e4/(1e3)², ratios 0 where "
        "the denominator is 0; tau_N with the axes named, tau_beta, radius R0; C/A and soft drop with z_cut, softdrop_beta, R0; "
        "n_splittings: primary splittings with kT ≥ kt_min. source=stored: NanoAOD's own tau1…tau4, msoftdrop (JEC-corrected, "
        "negative values as 0), mass."
    ),
    reference="arXiv:1011.2268, arXiv:1305.0007, arXiv:1609.07483, arXiv:1408.3122, arXiv:1712.07124, arXiv:1402.2657",
)


class KinematicsOptions(Options):
    """Where the multiplicity comes from."""

    source: Source = "constituents"


def _kinematics_reads(collection: str, options: KinematicsOptions) -> tuple[tuple[str, ...], ...]:
    jet_branches = tuple(f"{collection}_{name}" for name in ("pt", "eta", "mass"))
    if options.source == "stored":
        return ((*jet_branches, f"{collection}_nConstituents"),)
    return tuple((*jet_branches, *branches) for branches in constituent_branches(collection))


def _kinematics(objects: Objects, options: KinematicsOptions) -> Float32s:
    columns = [objects.field(name).astype(np.float32) for name in ("pt", "eta", "mass")]
    if options.source == "stored":
        columns.append(objects.field("nConstituents").astype(np.float32))
    else:
        c = objects.constituents
        n_before = np.r_[0, np.cumsum(c.pt > 0)]
        number = (n_before[c.offsets[1:]] - n_before[c.offsets[:-1]]).astype(np.float32)
        columns.append(np.where(np.diff(c.offsets) > 0, number, np.float32(np.nan)))
    return np.stack(columns, axis=1)


def _kinematics_columns(_: Any) -> tuple[Column, ...]:
    return (
        Column("pt", "GeV", "$p_T$"),
        Column("eta", "", r"$\eta$"),
        Column("mass", "GeV", "$m$"),
        Column("multiplicity", "", "constituents"),
    )


JET_KINEMATICS = Feature(
    name="jet_kinematics",
    version=1,
    level="jet",
    columns=_kinematics_columns,
    reads=_kinematics_reads,
    rows=at_once(_kinematics),
    options=KinematicsOptions,
    convention=(
        "pt, eta, mass as in NanoAOD; multiplicity = number of constituents with PUPPI-weighted pT > 0 "
        "(source=stored: nConstituents, which wraps above 255)."
    ),
    reference="",
)
