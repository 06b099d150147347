"""Which objects of an event count: cuts, slots, and the branches that they need."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from coffea_ad.features.base import NonNegative, Options
from coffea_ad.nanoaod.campaigns import ENERGY_BRANCH, TAGGERS, WorkingPoint
from coffea_ad.nanoaod.conventions import b_tag

__all__ = [
    "COLLECTIONS",
    "COMPARE",
    "KINDS",
    "AllObjectOptions",
    "Cuts",
    "ObjectOptions",
    "fields_read",
    "kinds_used",
    "object_branches",
    "object_ways",
    "parsed_cut",
    "tagger_of",
]


KINDS = ("jet", "bjet", "muon", "electron", "photon")
"""Kinds of objects, in the order of the slots."""
_CUT = re.compile(r"(\w+?)(?:(>=|<=|==|>|<)(-?\d+\.?\d*(?:e-?\d+)?))?")
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


def parsed_cut(cut: str) -> tuple[str, str | None, float]:
    """Return branch, comparison and number of a cut: `mediumId`, or `pt>=30`."""
    match = _CUT.fullmatch(cut)
    if match is None:
        raise ValueError(f"{cut!r} is not a cut; write a branch that must be true, or such as 'cutBased>=3'")
    return match[1], match[2], float(match[3] or 0)


def _checked(cuts: tuple[str, ...]) -> tuple[str, ...]:
    for cut in cuts:
        parsed_cut(cut)
    return cuts


Cuts = Annotated[tuple[str, ...], AfterValidator(_checked)]
"""Branches of a collection that must be true, or a comparison such as `cutBased>=3`."""
_Eta = Annotated[float, Field(strict=True, ge=0, le=10)]
_NO_CUT = {"pt_min": 0.0, "eta_max": 10.0, "cuts": (), "cleaning": 0.0, "met_min": 0.0}  # what lets every object pass


class ObjectOptions(Options):
    """Which jets, muons and electrons count; all of it stands in the card. A cut that is null is none.

    Attributes
    ----------
    jet_pt_min, jet_eta_max, muon_…, electron_… : float, GeV
    jet_cuts, muon_cuts, electron_cuts : tuple of str
        Branches that must be true, or such as `cutBased>=3`.
    cleaning : float
        Photons within this ΔR of a selected lepton, then jets within it of a selected lepton or photon, are removed.
    met, met_min : str, float, GeV
        Missing momentum below the minimum counts as none.
    """

    jet_pt_min: NonNegative = 30.0
    jet_eta_max: _Eta = 2.4
    jet_cuts: Cuts = ()
    muon_pt_min: NonNegative = 30.0
    muon_eta_max: _Eta = 2.4
    muon_cuts: Cuts = ("mediumId", "pfRelIso04_all<0.15")
    electron_pt_min: NonNegative = 30.0
    electron_eta_max: _Eta = 2.4
    electron_cuts: Cuts = ("mvaIso_WP90",)
    cleaning: NonNegative = 0.4
    met: Literal["PuppiMET", "PFMET", "MET"] = "PuppiMET"
    met_min: NonNegative = 30.0

    @field_validator("*", mode="before")
    @classmethod
    def _off(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None:
            return value
        name = str(info.field_name)
        return next((off for end, off in _NO_CUT.items() if name.endswith(end)), value)

    def cuts(self, collection: str) -> list[tuple[str, str | None, float]]:
        """Return the parsed cuts on a collection: branch, comparison or None, number."""
        return [parsed_cut(cut) for cut in getattr(self, f"{collection.lower()}_cuts")]


class AllObjectOptions(ObjectOptions):
    """Photons and b jets as well.

    Attributes
    ----------
    photon_pt_min, photon_eta_max, photon_cuts
        As for the others.
    btag, btag_min : str, float, optional
        Branch of the b tagger, and the number above which a jet is a b jet. By default both are those of the events'
        campaign, by `coffea_ad.nanoaod.campaigns`.
    btag_point : "loose", "medium" or "tight"
        The campaign's working point, where there is no `btag_min`.
    """

    photon_pt_min: NonNegative = 30.0
    photon_eta_max: _Eta = 2.4
    photon_cuts: Cuts = ("mvaID_WP90",)
    btag: str | None = None
    btag_min: NonNegative | None = None
    btag_point: WorkingPoint = "medium"

    @model_validator(mode="after")
    def _number_of_a_tagger(self) -> AllObjectOptions:
        if self.btag_min is not None and self.btag is None:
            raise ValueError("btag_min belongs to one tagger: name its branch with btag")
        return self


COLLECTIONS = {"Muon": "muon", "Electron": "electron", "Photon": "photon", "Jet": "jet"}


def kinds_used(slots: tuple[int, ...]) -> dict[str, int]:
    """Return the collections that are read at all: {name: number}, with the light and the b jets as one."""
    of_kind = dict(zip(KINDS, slots, strict=True))
    of_kind["jet"] += of_kind.pop("bjet")
    return {name: of_kind[kind] for name, kind in COLLECTIONS.items() if of_kind[kind] > 0}


def fields_read(collection: str, options: ObjectOptions, tagger: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the fields of a collection that are read."""
    more = ("mass", *tagger) if collection == "Jet" else ()
    cut = (field for field, _, _ in options.cuts(collection))
    return tuple(dict.fromkeys(("pt", "eta", "phi", *more, *cut)))


def tagger_of(events: Any, options: ObjectOptions, slots: tuple[int, ...]) -> dict[str, float]:
    """Return the branch of the b tagger and its working point for these events, if there are slots for b jets."""
    if slots[1] == 0 or not isinstance(options, AllObjectOptions):
        return {}
    tagger = b_tag(events, options.btag, options.btag_min, options.btag_point)
    return {tagger.branch: tagger.threshold}


def object_branches(options: ObjectOptions, slots: tuple[int, ...]) -> tuple[str, ...]:
    """Return the branches that `select_objects` reads of every file, all but the b tagger that depends on the campaign."""
    asked = (options.btag,) if slots[1] > 0 and isinstance(options, AllObjectOptions) and options.btag else ()
    objects = [f"{name}_{field}" for name in kinds_used(slots) for field in fields_read(name, options, asked)]
    return (*objects, f"{options.met}_pt", f"{options.met}_phi")


def object_ways(
    options: ObjectOptions, slots: tuple[int, ...], *, more: Iterable[str] = (), energy: bool = False
) -> tuple[tuple[str, ...], ...]:
    """Return the alternatives of branches of which `select_objects` needs one.

    Parameters
    ----------
    options, slots
        As for `select_objects`.
    more : iterable of str
        Further branches, which are needed in any case.
    energy : bool
        The centre-of-mass energy is asked of the file as well.

    Examples
    --------
    >>> [way[-1] for way in object_ways(AllObjectOptions(), (1, 1, 0, 0, 0))][:3]
    ['Jet_btagUParTAK4B', 'Jet_btagDeepFlavB', 'Jet_btagPNetB']
    """
    base = tuple(dict.fromkeys((*object_branches(options, slots), *more)))
    by_campaign = slots[1] > 0 and isinstance(options, AllObjectOptions) and options.btag_min is None
    ways = [base]
    if by_campaign and isinstance(options, AllObjectOptions) and options.btag is None:
        ways = [(*base, f"Jet_{tagger}") for tagger in TAGGERS]
    # a file of our own simulation tells what it is; others do without
    told = [(*way, ENERGY_BRANCH) for way in ways[:1]] if by_campaign or energy else []
    return (*ways, *told)
