"""Constituents of jets, from NanoAOD v15 and PFNano."""

from __future__ import annotations

import builtins
import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, MissingBranch, MissingIndex
from coffea_ad.nanoaod import provenance
from coffea_ad.nanoaod.candidates import PUPPI_WEIGHTED, said_weighted, usual_name, weights_missing
from coffea_ad.nanoaod.columns import flat, missing_branches, offsets_of, where
from coffea_ad.typing import Float64s, Ints

if TYPE_CHECKING:
    from coffea_ad.nanoaod.objects import Objects

__all__ = ["CONSTITUENT_TABLES", "ConstituentTables", "Constituents", "constituent_branches", "gather"]


@dataclass(frozen=True)
class ConstituentTables:
    """Where one NanoAOD flavour keeps the constituents of a jet collection.

    `links` has one row per (jet, candidate), with `jetIdx` and `index`; `puppi` is the branch of `candidates` that holds
    the PUPPI weight, or None where NanoAOD has multiplied it to pT and mass and stores none. `charge` is the branch that
    tells the charge: itself, or `pdgId`.
    """

    flavour: str
    links: str
    index: str
    candidates: str
    puppi: str | None
    charge: str

    def fields(self, collection: str, *more: str) -> dict[str, tuple[str, ...]]:
        """Return the fields to read of each table; `more` are further fields of the candidates."""
        puppi = (self.puppi,) if self.puppi else ()
        return {
            self.links.format(collection): ("jetIdx", self.index),
            self.candidates: ("pt", "eta", "phi", "mass", *puppi, *more),
        }

    def branches(self, collection: str, *more: str) -> tuple[str, ...]:
        """Return the branches to read; `more` are further fields of the candidates."""
        return tuple(f"{name}_{f}" for name, fields in self.fields(collection, *more).items() for f in fields)


CONSTITUENT_TABLES = (
    ConstituentTables("NanoAOD v15", "{}PFCand", "pfCandIdx", "PFCand", None, "pdgId"),
    ConstituentTables("PFNano", "{}PFCands", "pFCandsIdx", "PFCands", "puppiWeight", "charge"),
)


def constituent_branches(collection: str, *, charge: bool = False, pdg_id: bool = False) -> tuple[tuple[str, ...], ...]:
    """Return the alternatives: the branches that hold constituents in each flavour, with charge or type if asked for."""
    return tuple(
        table.branches(
            collection, *dict.fromkeys([*([table.charge] if charge else []), *(["pdgId"] if pdg_id else [])])
        )
        for table in CONSTITUENT_TABLES
    )


@dataclass(frozen=True)
class Constituents:
    """PUPPI-weighted constituents of n objects: object i owns rows offsets[i] … offsets[i+1].

    Attributes
    ----------
    offsets : (n + 1,) int64
    pt, eta, phi, mass : (n_constituents,) float64, GeV and radians
    table, source, candidate
        The flavour's tables, the events, and the place of each constituent among all candidates, for further fields.
    """

    offsets: Ints
    pt: Float64s
    eta: Float64s
    phi: Float64s
    mass: Float64s
    table: ConstituentTables
    source: Any
    candidate: Ints

    def slice(self, start: int, stop: int) -> tuple[Ints, builtins.slice]:
        """Return the offsets of the objects start … stop in their own constituents, and where those are."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return self.offsets[start : stop + 1] - first, slice(first, last)

    def field(self, name: str) -> npt.NDArray[Any]:
        """Return one more field of the candidates, (n_constituents,).

        Raises
        ------
        MissingBranch
        """
        candidates = self.source[self.table.candidates]
        if name not in ak.fields(candidates):
            raise MissingBranch(f"{where(self.source)}there is no branch {self.table.candidates}_{name}")
        return flat(candidates[name])[self.candidate]

    @property
    def charge(self) -> Float64s:
        """Electric charge, (n_constituents,); NanoAOD v15 stores the type only, whose sign tells it."""
        values = self.field(self.table.charge)
        if self.table.charge != "pdgId":
            return values.astype(np.float64)
        positive = np.isin(values, (211, 321, 2212, -11, -13))
        negative = np.isin(values, (-211, -321, -2212, 11, 13))
        return positive.astype(np.float64) - negative


def _tables(source: Any, collection: str) -> ConstituentTables:
    stored = {f"{c}_{f}": f for c in ak.fields(source) if "PFCand" in c for f in ak.fields(source[c])}
    have = {usual_name(branch): field for branch, field in stored.items()}
    for table in CONSTITUENT_TABLES:
        if set(table.branches(collection)) <= have.keys():
            index = have[f"{table.links.format(collection)}_{table.index}"]
            weight = "puppiWeight" if f"{table.candidates}_puppiWeight" in have else None
            return dataclasses.replace(table, index=index, puppi=weight)
    raise MissingBranch(
        f"{where(source)}" + missing_branches({f"{collection} constituents": constituent_branches(collection)}, have)
    )


def gather(objects: Objects) -> Constituents:
    """Gather the constituents of objects, from NanoAOD v15 or PFNano.

    Counts come from `jetIdx`, never from `nConstituents`: forward jets have a count but no stored candidates.

    Raises
    ------
    MissingIndex
        The objects are not those of the file, or tables were replaced by others that do not go together.
    MissingBranch
        The file has constituents of neither flavour.
    BadFile
        A link points outside its event.
    """
    objects = objects.proven
    source, collection = objects.source, objects.collection
    table = _tables(source, collection)
    links = source[table.links.format(collection)]
    candidates = source[table.candidates]
    whole = provenance.file_collection(source, collection)
    jets_per_event = np.diff(whole.offsets) if whole is not None else ak.to_numpy(ak.num(source[collection], axis=1))
    stored = provenance.file_collection(source, table.candidates)
    if stored is not None and not provenance.in_file_order(candidates, stored):
        raise MissingIndex(
            f"{table.candidates} was masked, re-sorted or replaced, and the links of the jets would lead to other candidates; "
            "change its fields with ak.with_field, and leave number and order as they are"
        )
    links_per_event = ak.to_numpy(ak.num(links, axis=1))
    candidates_per_event = ak.to_numpy(ak.num(candidates, axis=1))

    local_jet, local_candidate = flat(links["jetIdx"]), flat(links[table.index])
    if np.any((local_jet < 0) | (local_jet >= np.repeat(jets_per_event, links_per_event))) or np.any(
        (local_candidate < 0) | (local_candidate >= np.repeat(candidates_per_event, links_per_event))
    ):
        name = table.links.format(collection)
        if provenance.replaced(source, name, ("jetIdx", table.index)):
            raise MissingIndex(f"{name} was replaced, and now points outside its event")
        raise BadFile(f"{where(source)}{name} points outside its event")
    jet = local_jet + np.repeat(offsets_of(jets_per_event)[:-1], links_per_event)
    candidate = local_candidate + np.repeat(offsets_of(candidates_per_event)[:-1], links_per_event)
    if np.any(np.diff(jet) < 0):
        order = np.argsort(jet, kind="stable")
        jet, candidate = jet[order], candidate[order]

    multiply = table.puppi is not None and _unweighted(source, collection, table, jet, candidate, jets_per_event)
    starts = offsets_of(np.bincount(jet, minlength=int(jets_per_event.sum())))
    counts = np.diff(starts)[objects.index]
    offsets = offsets_of(counts)
    rows = candidate[np.repeat(starts[objects.index] - offsets[:-1], counts) + np.arange(offsets[-1])]
    pt, eta, phi, mass = (flat(candidates[f])[rows].astype(np.float64) for f in ("pt", "eta", "phi", "mass"))
    if multiply:
        weight = flat(candidates[table.puppi])[rows].astype(np.float64)
        pt, mass = pt * weight, mass * weight
    pt[np.isneginf(pt)] = np.nan  # undefined, where a pT of 0 or below means that PUPPI has taken the constituent out
    return Constituents(offsets, pt, eta, phi, mass, table, source, rows)


def _unweighted(
    source: Any, collection: str, table: ConstituentTables, jet: Ints, candidate: Ints, jets_per_event: Ints
) -> bool:
    """Say whether the stored pT of candidates has to be multiplied by their PUPPI weights.

    The metadata of the dataset decide, or else the sums over the jets; where neither of them tells it, PFNano's names do.

    Raises
    ------
    BadFile
        It cannot be told.
    ConfigError
        The metadata say something else than true or false.
    """
    said = said_weighted(getattr(source, "metadata", None) or {})
    if said is not None:
        return not said
    candidates, jets = source[table.candidates], source[collection]
    weight = flat(candidates[str(table.puppi)])[candidate].astype(np.float64)
    if np.all(weight == 1):
        return False
    have = ak.fields(jets)
    # a collection that was masked in place has other jets than the links
    if {"pt", "eta", "rawFactor"} <= set(have) and np.array_equal(ak.to_numpy(ak.num(jets)), jets_per_event):
        pt, eta, phi = (flat(candidates[f])[candidate].astype(np.float64) for f in ("pt", "eta", "phi"))
        jet_pt, jet_eta, raw = (flat(jets[f]).astype(np.float64) for f in ("pt", "eta", "rawFactor"))
        told = weights_missing((pt, eta, phi), weight, jet, jet_pt * (1 - raw), jet_eta)
        if told is not None:
            return told
    if table.candidates == "PFCands":
        return True
    raise BadFile(
        f"{where(source)}it cannot be told from {collection}_pt and {collection}_rawFactor whether {table.candidates}_pt is "
        f"multiplied by {table.candidates}_{table.puppi} already; say {PUPPI_WEIGHTED}: true or false in the metadata of the dataset"
    )
