"""What the displays of one event show, as plain numbers: objects, missing momentum, constituents of jets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, MissingBranch
from coffea_ad.features.object_options import COMPARE, parsed_cut
from coffea_ad.kinematics import delta_phi
from coffea_ad.nanoaod.columns import EVENT_ID, as_mask, event_columns, flat_columns
from coffea_ad.nanoaod.constituents import Constituents
from coffea_ad.nanoaod.entries import source
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.nanoaod.reading import unreadable_column
from coffea_ad.typing import Bools, Float64s

__all__ = ["KINDS", "Content", "EventObject", "Kind", "Missing", "Particles", "content_of", "particles_of", "readable"]


@dataclass(frozen=True)
class Kind:
    """What is drawn of a collection: objects above a pT and with an identification, the first of `cuts` that the file has.

    `radius` is 0 of what has none; `needs_cut`: without any of the cuts, the collection says nothing.
    """

    collection: str
    name: str
    radius: float = 0.0
    pt_min: float = 0.0
    cuts: tuple[str, ...] = ()
    needs_cut: bool = False


KINDS = (
    Kind("FatJet", "AK8 jet", 0.8),
    Kind("Jet", "AK4 jet", 0.4, 30.0),
    Kind("Electron", "electron", 0.0, 10.0, ("mvaIso_WP90", "mvaFall17V2Iso_WP90", "cutBased>=3")),
    Kind("Muon", "muon", 0.0, 10.0, ("mediumId",)),
    Kind("Tau", "tau", 0.0, 20.0, ("idDeepTau2018v2p5VSjet>=5", "idDeepTau2017v2p1VSjet>=16"), needs_cut=True),
    Kind("Photon", "photon", 0.0, 20.0, ("mvaID_WP90", "cutBased>=2")),
)
"""Kinds of objects, in the order in which they are drawn."""
_NEAR = 0.3  # ΔR of what is one and the same
_MISSING = ("PuppiMET", "PFMET", "MET")
_OF_ID = {
    11: "electrons",
    13: "muons",
    22: "photons",
    2: "photons",
}  # 1 and 2: hadrons and photons in the forward calorimeter


@dataclass(frozen=True)
class EventObject:
    """A jet, lepton or photon; GeV and radians. `index` is its place in the collection of the file."""

    kind: Kind
    index: int
    pt: float
    eta: float
    phi: float
    mass: float


@dataclass(frozen=True)
class Missing:
    """Missing transverse momentum, GeV, and the collection that has it."""

    name: str
    pt: float
    phi: float


@dataclass(frozen=True)
class Particles:
    """Constituents of jets; pT in GeV, with PUPPI's weights, and above 0.

    Attributes
    ----------
    pt, eta, phi, mass : (n,) float64
    kind : (n,) str
        Such as "charged hadrons"; without types "charged" and "neutral", and "constituents" where the charge is not stored either.
    """

    pt: Float64s
    eta: Float64s
    phi: Float64s
    mass: Float64s
    kind: npt.NDArray[Any]

    def __len__(self) -> int:
        """Return their number."""
        return len(self.pt)

    def __getitem__(self, rows: Any) -> Particles:
        """Return some of them."""
        return Particles(self.pt[rows], self.eta[rows], self.phi[rows], self.mass[rows], self.kind[rows])


_NOTHING = np.zeros(0)
_NONE = Particles(_NOTHING, _NOTHING, _NOTHING, _NOTHING, np.zeros(0, object))


@dataclass(frozen=True)
class Content:
    """One event, ready to be drawn.

    Attributes
    ----------
    event : (run, luminosity section, event number)
    file, entry : where it is
    dataset : str
        Empty if nothing tells it.
    objects : tuple of EventObject
        By kind and falling pT.
    missing : Missing or None
    particles : Particles
        Of the jets that are drawn, each once.
    with_particles : tuple of str
        The kinds of jets whose constituents the file has, such as "AK8 jet".
    notes : tuple of str
        What the file does not have.
    """

    event: tuple[int, ...]
    file: str
    entry: int
    dataset: str
    objects: tuple[EventObject, ...]
    missing: Missing | None
    particles: Particles
    with_particles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Dataset, or the file's name."""
        return self.dataset or self.file.rpartition("/")[2].removesuffix(".root")

    def of(self, *collections: str) -> list[EventObject]:
        """Return the objects of some collections."""
        return [o for o in self.objects if o.kind.collection in collections]


def content_of(events: Any) -> Content:
    """Read what is drawn of an event.

    Parameters
    ----------
    events : (1,) NanoEvents
        Opened with `coffea_ad.NanoAODSchema`, such as `open_event` returns it.

    Raises
    ------
    BadFile
        A branch cannot be read.

    Examples
    --------
    >>> from coffea_ad.event_lists.opened import Place, open_event
    >>> content = content_of(open_event(Place(str(svj_file), 7)))
    >>> content.event, len(content.of("FatJet"))
    ((11, 1, 8), 1)
    """
    with readable(events):
        notes: list[str] = []
        objects = _cleaned([o for kind in KINDS for o in _objects(events, kind)])
        if not {"FatJet", "Jet"} & set(ak.fields(events)):
            notes.append("no jets in this file")
        missing = _missing(events)
        if missing is None:
            notes.append("no missing momentum in this file")
        particles = _all_particles(events, objects)
        if not particles:
            notes.append("no constituents of jets in this file")
        place, metadata = source(events), getattr(events, "metadata", None) or {}
        event = tuple(int(ak.to_numpy(events[name])[0]) for name in EVENT_ID)
        entry = int(events.entry[0])
    return Content(
        event, place.file, entry, str(metadata.get("dataset", "")), objects, missing, _joined(particles.values()), tuple(particles),
        tuple(notes),
    )  # fmt: skip


@contextmanager
def readable(events: Any) -> Iterator[None]:
    """Turn what coffea raises while it reads a damaged branch into one sentence.

    Raises
    ------
    BadFile
    """
    try:
        yield
    except Exception as error:
        place = source(events)
        damaged = unreadable_column(error, place.file, place.start, int(events.entry[0]) + 1)
        if damaged is None or isinstance(error, BadFile):
            raise
        raise BadFile(str(damaged.args[1])) from error


def _objects(events: Any, kind: Kind) -> list[EventObject]:
    if kind.collection not in ak.fields(events):
        return []
    have = events.layout[kind.collection].fields
    cut = next((c for c in kind.cuts if parsed_cut(c)[0] in have), None)
    if cut is None and kind.needs_cut:
        return []
    names = ["pt", "eta", "phi", *(["mass"] if "mass" in have else []), *([parsed_cut(cut)[0]] if cut else [])]
    _, columns = flat_columns(events, kind.collection, names)
    pt, eta, phi = (columns[name].astype(np.float64) for name in ("pt", "eta", "phi"))
    mass = columns["mass"].astype(np.float64) if "mass" in have else np.zeros(len(pt))
    with np.errstate(invalid="ignore"):
        good = np.isfinite(pt) & np.isfinite(eta) & np.isfinite(phi) & (pt >= kind.pt_min)
        if cut:
            good &= _passes(columns, cut)
    rows = np.flatnonzero(good)
    rows = rows[np.argsort(-pt[rows], kind="stable")]
    return [EventObject(kind, int(i), *(float(column[i]) for column in (pt, eta, phi, mass))) for i in rows]


def _cleaned(objects: list[EventObject]) -> tuple[EventObject, ...]:
    """Leave out photons and taus that are an electron or a muon as well."""
    leptons = [o for o in objects if o.kind.collection in ("Electron", "Muon")]

    def is_lepton(o: EventObject) -> bool:
        return any(np.hypot(o.eta - other.eta, delta_phi(o.phi, other.phi)) < _NEAR for other in leptons)

    return tuple(o for o in objects if o.kind.collection not in ("Photon", "Tau") or not is_lepton(o))


def _passes(columns: dict[str, npt.NDArray[Any]], cut: str) -> Bools:
    field, compare, number = parsed_cut(cut)
    return np.asarray(as_mask(columns[field]) if compare is None else COMPARE[compare](columns[field], number), bool)


def _missing(events: Any) -> Missing | None:
    for name in _MISSING:
        if name in ak.fields(events):
            pt, phi = (float(column[0]) for column in event_columns(events, name, ("pt", "phi")).values())
            if np.isfinite(pt) and np.isfinite(phi):
                return Missing(name, pt, phi)
    return None


def particles_of(constituents: Constituents, rows: Any = slice(None)) -> Particles:
    """Return some constituents with what they are, without those that PUPPI has taken out or whose numbers are not finite."""
    columns = (constituents.pt, constituents.eta, constituents.phi, constituents.mass)
    particles = Particles(*columns, _kinds(constituents))[rows]
    return particles[np.isfinite(particles.pt + particles.eta + particles.phi + particles.mass) & (particles.pt > 0)]


def _kinds(constituents: Constituents) -> npt.NDArray[Any]:
    kinds = np.full(len(constituents.pt), "constituents", object)
    try:
        kinds[:] = np.where(constituents.charge != 0, "charged", "neutral")
        types = np.abs(constituents.field("pdgId"))
    except MissingBranch:
        return kinds
    kinds += " hadrons"
    for number, name in _OF_ID.items():
        kinds[types == number] = name
    return kinds


def _all_particles(events: Any, objects: Iterable[EventObject]) -> dict[str, Particles]:
    """Return the constituents of jets that are drawn, by the kind of these, each where it comes first."""
    parts, seen = {}, dict[str, npt.NDArray[Any]]()
    for kind in KINDS:
        if not kind.radius:
            continue
        try:
            constituents = Objects.of(events, kind.collection).constituents
        except MissingBranch:
            continue
        drawn = [o.index for o in objects if o.kind is kind]
        jet = np.repeat(np.arange(len(constituents.offsets) - 1), np.diff(constituents.offsets))
        rows = np.flatnonzero(np.isin(jet, drawn))
        candidates, first = np.unique(constituents.candidate[rows], return_index=True)
        before = seen.get(constituents.table.candidates, candidates[:0])
        parts[kind.name] = particles_of(constituents, rows[first[~np.isin(candidates, before)]])
        seen[constituents.table.candidates] = np.r_[before, candidates]
    return parts


def _joined(parts: Iterable[Particles]) -> Particles:
    every = [_NONE, *parts]
    return Particles(*(np.concatenate([getattr(part, field.name) for part in every]) for field in fields(Particles)))
