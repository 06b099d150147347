"""What an analysis takes from the campaign of its events: b tags, filters of missing momentum, the centre-of-mass energy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np

from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.nanoaod.campaigns import (
    _ENERGY_KEYS,
    _MET_FILTERS,
    _ULTRA_LEGACY,
    CAMPAIGNS,
    ENERGY_BRANCH,
    SIMULATION,
    WORKING_POINTS,
    WorkingPoint,
    campaign_of,
    energy_in,
)
from coffea_ad.nanoaod.columns import where

__all__ = [
    "BTag",
    "all_met_filters",
    "b_tag",
    "centre_of_mass_energy",
    "conventions",
    "met_filters_of",
    "say",
    "told_by",
]

_said: ContextVar[set[str] | None] = ContextVar("coffea_ad_conventions", default=None)


@dataclass(frozen=True)
class BTag:
    """A b tagger, the working point above which a jet is a b jet, and where it is from."""

    branch: str
    threshold: float
    source: str


def b_tag(events: Any, branch: str | None, threshold: float | None, point: WorkingPoint) -> BTag:
    """Return the b tagger and working point for events: those that are asked for, else those of the events' campaign.

    Parameters
    ----------
    events : ak.Array
        With the metadata of their dataset.
    branch, threshold : str, float or None
        What is asked for.
    point : "loose", "medium" or "tight"

    Raises
    ------
    ConfigError
        The campaign is not known, or has no working points for the tagger.
    MissingBranch
        The file has none of the campaign's taggers.
    """
    name = _campaign(events)
    if branch is not None and threshold is not None:
        usual = CAMPAIGNS[name].taggers.get(branch) if name else None
        if usual is not None and threshold not in usual:
            say(f"b jets by {branch} > {threshold:g} as asked for; {point} of {name} is {_number(usual, point):g}")
        return BTag(branch, threshold, "asked for")
    if name is None:
        raise ConfigError(
            f"{where(events)}the campaign, which decides on the working point of b tagging, is not known: give campaign, or year "
            f"and era, in the metadata of the dataset ({', '.join(CAMPAIGNS)}), or the options btag and btag_min"
        )
    taggers = CAMPAIGNS[name].taggers
    if branch is not None and branch not in taggers:
        raise ConfigError(
            f"{where(events)}no working points of {branch} are known for {name}, only of {', '.join(taggers)}: give btag_min"
        )
    have = events.layout["Jet"].fields if "Jet" in ak.fields(events) else ()
    wanted = [branch] if branch is not None else list(taggers)
    present = next((t for t in wanted if t in have), None)
    if present is None:
        missing = " or ".join(f"Jet_{t}" for t in wanted)
        raise MissingBranch(f"{where(events)}branches are missing: {missing}, the b taggers of {name}")
    number = _number(taggers[present], point)
    say(f"b jets by {present} > {number:g} ({point} of {name})")
    return BTag(present, number, name)


def met_filters_of(events: Any) -> tuple[str, ...]:
    """Return the MET filters of the events' campaign; those that all campaigns have, where it is not known.

    Files from before the ultra-legacy processing have no Flag_BadPFMuonDzFilter: where their campaign is not known, it is left
    out, and the run says so.

    References
    ----------
    CMS, "Performance of missing transverse momentum reconstruction in proton-proton collisions at √s = 13 TeV using the CMS
    detector", arXiv:1903.06078; JetMET group of CMS, "MET filter recommendations" for Run 2 (ultra-legacy) and Run 3.
    """
    name = _campaign(events)
    if name is None:
        flags = set(ak.fields(events["Flag"])) if "Flag" in ak.fields(events) else set()
        if _ULTRA_LEGACY.removeprefix("Flag_") in flags or not flags:
            say("MET filters that all campaigns have, since that of the dataset is not known")
            return _MET_FILTERS
        say(
            f"MET filters that all campaigns have, since that of the dataset is not known, but for {_ULTRA_LEGACY}, which is not "
            "there before ultra-legacy"
        )
        return tuple(f for f in _MET_FILTERS if f != _ULTRA_LEGACY)
    say(f"MET filters of {name}")
    return CAMPAIGNS[name].met_filters


def all_met_filters() -> tuple[str, ...]:
    """Return the MET filters of any campaign."""
    return tuple(dict.fromkeys(f for campaign in CAMPAIGNS.values() for f in campaign.met_filters))


def told_by(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a dataset that a file of `coffea-ad simulate` tells of itself.

    Parameters
    ----------
    record : mapping
        What stands in the file under `simulation`; empty for a file of others, which tells nothing.

    Returns
    -------
    dict
        `campaign`, `sqrt_s` (GeV), `signal`, and, of what is no signal, `xsec` (pb): the generator's cross-section of a
        resonance of forced width is not meaningful.
    """
    if not record:
        return {}
    # older files have neither of the two
    signal = bool(record.get("signal", str(record.get("process", "")).startswith("svj")))
    beams = [line.partition("=")[2] for line in record.get("settings", ()) if line.startswith("Beams:eCM")]
    energy = record.get("sqrt_s", beams[-1] if beams else None)
    return {
        "campaign": SIMULATION,
        **({} if energy is None else {"sqrt_s": float(energy)}),
        **({"signal": True} if signal else {}),
        **({"xsec": float(record["cross_section"])} if not signal and "cross_section" in record else {}),
    }


def _number(points: tuple[float, float, float], point: str) -> float:
    return points[WORKING_POINTS.index(point)]


def centre_of_mass_energy(events: Any, asked: float | None) -> float:
    """Return the centre-of-mass energy of events, GeV: the one that is asked for, else that of their dataset.

    Parameters
    ----------
    events : ak.Array
        With the metadata of their dataset.
    asked : float or None

    Raises
    ------
    ConfigError
        Neither the metadata nor the file tells it.
    """
    metadata = _metadata(events)
    known = energy_in(metadata, str(metadata.get("dataset", "")))
    if asked is not None:
        if known is not None and known != asked:
            say(f"√s = {asked:g} GeV as asked for; that of the dataset is {known:g} GeV")
        return asked
    if not any(
        key in metadata for key in _ENERGY_KEYS
    ):  # a file that tells it knows better than the year of its dataset
        known = _stored_energy(events) or known
    if known is None:
        raise ConfigError(
            f"{where(events)}the centre-of-mass energy is not known: give sqrt_s (GeV), campaign or year in the metadata of the "
            "dataset, or the option sqrt_s"
        )
    say(f"√s = {known:g} GeV")
    return known


def _metadata(events: Any) -> Mapping[str, Any]:
    return getattr(events, "metadata", None) or {}


def _campaign(events: Any) -> str | None:
    metadata = _metadata(events)
    # a file that says itself what it is knows better than the year of its dataset
    says_itself = metadata.get("campaign") is None and _has_energy(events)
    return SIMULATION if says_itself else campaign_of(metadata)


def _has_energy(events: Any) -> bool:
    collection, _, field = ENERGY_BRANCH.partition("_")
    return collection in ak.fields(events) and field in events.layout[collection].fields


def _stored_energy(events: Any) -> float | None:
    if len(events) == 0 or not _has_energy(events):
        return None
    collection, _, field = ENERGY_BRANCH.partition("_")
    values = np.unique(ak.to_numpy(events[collection, field]))
    if len(values) > 1:
        raise BadFile(f"{where(events)}events of several centre-of-mass energies were put into one file: {values}")
    return float(values[0])


@contextmanager
def conventions(said: set[str]) -> Iterator[None]:
    """Collect, until the end of the block, one sentence for each number that a campaign has decided on.

    Parameters
    ----------
    said : set of str
        Takes the sentences.

    Examples
    --------
    >>> sentences = set()
    >>> with conventions(sentences):
    ...     energy = centre_of_mass_energy(ak.Array([]), 13600.0)
    >>> energy, sentences
    (13600.0, set())
    """
    token = _said.set(said)
    try:
        yield
    finally:
        _said.reset(token)


def say(sentence: str) -> None:
    """Tell the report of a run, once for each dataset, what was decided by the events' campaign or file."""
    said = _said.get()
    if said is not None:
        said.add(sentence)
