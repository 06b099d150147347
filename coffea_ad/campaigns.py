"""Data-taking campaigns: which b tagger with which working points, and the centre-of-mass energy.

A file's campaign decides. It is told by the file itself, if `coffea-ad simulate` made it, or by the metadata of its
dataset: `campaign`, `das_name`, or `year` and `era`. Where none of them tells it, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

import awkward as ak
import numpy as np

from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.nanoaod import where

__all__ = [
    "CAMPAIGNS",
    "ENERGY_BRANCH",
    "SIMULATION",
    "TAGGERS",
    "WORKING_POINTS",
    "BTag",
    "Campaign",
    "WorkingPoint",
    "all_met_filters",
    "b_tag",
    "campaign_of",
    "centre_of_mass_energy",
    "conventions",
    "energy_in",
    "met_filters_of",
    "named_campaign",
    "say",
    "told_by",
]

WorkingPoint = Literal["loose", "medium", "tight"]
WORKING_POINTS: tuple[str, ...] = get_args(WorkingPoint)
"""Names of working points: of light jets, about 10, 1 and 0.1 % pass."""

SIMULATION = "simulation"
"""The campaign of files that `coffea-ad simulate` made."""
ENERGY_BRANCH = "simulation_sqrt_s"
"""Branch by which such a file tells what it is, and its centre-of-mass energy, GeV."""


@dataclass(frozen=True)
class Campaign:
    """What differs from campaign to campaign.

    Attributes
    ----------
    sqrt_s : float or None, GeV
    taggers : {branch of Jet: (loose, medium, tight)}
        The preferred one first.
    met_filters : tuple of str
        What CMS asks of data and simulation.
    """

    sqrt_s: float | None
    taggers: Mapping[str, tuple[float, float, float]]
    met_filters: tuple[str, ...]


_MET_FILTERS = (
    "Flag_goodVertices", "Flag_globalSuperTightHalo2016Filter", "Flag_EcalDeadCellTriggerPrimitiveFilter",
    "Flag_BadPFMuonFilter", "Flag_BadPFMuonDzFilter", "Flag_eeBadScFilter",
)  # fmt: skip
"""What all campaigns have."""
_ULTRA_LEGACY = "Flag_BadPFMuonDzFilter"
_MET_2016 = (*_MET_FILTERS, "Flag_HBHENoiseFilter", "Flag_HBHENoiseIsoFilter")
_MET_2017 = (*_MET_2016, "Flag_ecalBadCalibFilter")
_MET_RUN3 = (*_MET_FILTERS, "Flag_ecalBadCalibFilter", "Flag_hfNoisyHitsFilter")


def _run3(deep_jet: tuple[float, float, float], particle_net: tuple[float, float, float]) -> Campaign:
    return Campaign(13600.0, {"btagPNetB": particle_net, "btagDeepFlavB": deep_jet}, _MET_RUN3)


# The discriminant of `coffea_ad.simulation.objects.b_tag_score`, under the name that the layout has for it. Measured with
# it: b efficiency 91, 77 and 61 %, light mistag 10, 1 and 0.1 % (tests/test_campaigns.py).
_SIMULATED = (0.0791, 0.2789, 0.5374)

# CMS, https://btv-wiki.docs.cern.ch/ScaleFactors/: UL2016preVFP … UL2018, Run3Summer22 … Run3Summer24. Of taggers that have
# no numbers there for a campaign, none are given here.
CAMPAIGNS: dict[str, Campaign] = {
    SIMULATION: Campaign(None, {"btagUParTAK4B": _SIMULATED, "btagDeepFlavB": _SIMULATED}, _MET_FILTERS),
    "2016preVFP": Campaign(13000.0, {"btagDeepFlavB": (0.0508, 0.2598, 0.6502)}, _MET_2016),
    "2016postVFP": Campaign(13000.0, {"btagDeepFlavB": (0.0480, 0.2489, 0.6377)}, _MET_2016),
    "2017": Campaign(13000.0, {"btagDeepFlavB": (0.0532, 0.3040, 0.7476)}, _MET_2017),
    "2018": Campaign(13000.0, {"btagDeepFlavB": (0.0490, 0.2783, 0.7100)}, _MET_2017),
    "2022": _run3((0.0583, 0.3086, 0.7183), (0.0470, 0.2450, 0.6734)),
    "2022EE": _run3((0.0614, 0.3196, 0.7300), (0.0499, 0.2605, 0.6915)),
    "2023": _run3((0.0479, 0.2431, 0.6553), (0.0358, 0.1917, 0.6172)),
    "2023BPix": _run3((0.0480, 0.2435, 0.6563), (0.0359, 0.1919, 0.6133)),
    "2024": Campaign(13600.0, {"btagUParTAK4B": (0.0246, 0.1272, 0.4648)}, _MET_RUN3),
}
"""Campaigns by name. "2022" and "2023" are the first parts of their years."""

TAGGERS: tuple[str, ...] = tuple(dict.fromkeys(t for c in CAMPAIGNS.values() for t in c.taggers))
"""Branches of Jet, one of which is needed where the campaign decides on the tagger."""

_ENERGY_KEYS = ("sqrt_s", "ecm", "eCM")
_ENERGIES = {"2010": 7000.0, "2011": 7000.0, "2012": 8000.0} | {
    str(year): 13000.0 if year < 2020 else 13600.0 for year in (*range(2015, 2019), *range(2022, 2027))
}

# In lower case and without separators; the first that matches. Part of a year is told by an era or by what it is called.
_NAMES = (
    ("2016preVFP", r"ul16\w*apv|2016(pre|apv|hipm|[b-e])|run2016\w*hipm"),
    ("2016postVFP", r"ul16|2016(post|nonapv|[gh])|run2016f"),
    ("2017", r"ul17|2017"),
    ("2018", r"ul18|2018"),
    ("2022EE", r"summer22ee|2022(post|[e-g])"),
    ("2022", r"summer22|2022(pre|[b-d])"),
    ("2023BPix", r"summer23bpix|2023(bpix|post|d)"),
    ("2023", r"summer23|2023(pre|c)"),
    ("2024", r"summer24|2024"),
)  # fmt: skip
_EARLIER = re.compile(r"summer16|fall17|autumn18|(?:run2016|run2017|run2018)(?!\w*ul201[678])")


def named_campaign(text: str) -> str | None:
    """Return the campaign that a text speaks of, or None.

    >>> [named_campaign(t) for t in ("Run3Summer22EENanoAODv12-130X_mcRun3_2022_realistic_postEE_v6-v2", "2016_PreVFP")]
    ['2022EE', '2016preVFP']
    >>> named_campaign("RunIIAutumn18NanoAODv7-Nano02Apr2020_102X_upgrade2018_realistic_v21-v1") is None
    True
    """
    if text in CAMPAIGNS:
        return text
    compact = re.sub(r"[\W_]+", "", text).lower()
    if _EARLIER.search(compact):  # before the legacy processing there were other numbers
        return None
    return next((name for name, pattern in _NAMES if re.search(pattern, compact)), None)


def campaign_of(metadata: Mapping[str, Any]) -> str | None:
    """Return the campaign that the metadata of a dataset tell, or None.

    Parameters
    ----------
    metadata : mapping
        The first of these that is there decides: `campaign` (a name in `CAMPAIGNS`, or what a campaign is called in the name
        of a dataset), `das_name`, or `year` with `era`. 2016, 2022 and 2023 have two campaigns each.

    Examples
    --------
    >>> campaign_of({"year": 2018}), campaign_of({"year": 2022, "era": "F"}), campaign_of({"year": 2022})
    ('2018', '2022EE', None)
    """
    if metadata.get("campaign") is not None:
        return named_campaign(str(metadata["campaign"]))
    if metadata.get("das_name") is not None:
        return named_campaign(str(metadata["das_name"]).split("/")[-2])
    if metadata.get("year") is None:
        return None
    era = re.sub(r"(?i)run|20\d\d", "", str(metadata.get("era") or ""))
    year = f"{metadata['year']}{era}"
    return None if year in ("2016", "2022", "2023") else named_campaign(year)


def energy_in(metadata: Mapping[str, Any], dataset: str = "") -> float | None:
    """Return the centre-of-mass energy that the metadata of a dataset tell, GeV, or None.

    Parameters
    ----------
    metadata : mapping
        `sqrt_s` (or `ecm`), else the campaign, else the `year`.
    dataset : str
        For the message.

    Raises
    ------
    ConfigError
        The number cannot be GeV.

    Examples
    --------
    >>> energy_in({"sqrt_s": 13600}), energy_in({"year": 2012}), energy_in({"das_name": "/X/RunIISummer20UL18/NANOAODSIM"})
    (13600.0, 8000.0, 13000.0)
    """
    for key in _ENERGY_KEYS:
        if key in metadata:
            value = metadata[key]
            number = float(value) if isinstance(value, (int, float, np.number)) and not isinstance(value, bool) else 0.0
            if not 100 <= number <= 1e6:
                raise ConfigError(f"dataset {dataset}: {key} is {value!r}, but must be a number of GeV such as 13600")
            return number
    name = campaign_of(metadata)
    if name is not None and CAMPAIGNS[name].sqrt_s is not None:
        return CAMPAIGNS[name].sqrt_s
    return _ENERGIES.get(str(metadata.get("year", ""))[:4])


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
        resonance of forced width means nothing.
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
    own = metadata.get("campaign") is None and _has_energy(events)
    return SIMULATION if own else campaign_of(metadata)


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


_said: ContextVar[set[str] | None] = ContextVar("coffea_ad_conventions", default=None)


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
