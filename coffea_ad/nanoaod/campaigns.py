"""Data-taking campaigns: which b tagger with which working points, and the centre-of-mass energy.

A file's campaign decides. It is told by the file itself, if `coffea-ad simulate` made it, or by the metadata of its
dataset: `campaign`, `das_name`, or `year` and `era`. Where none of them tells it, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from coffea_ad.errors import ConfigError

__all__ = [
    "CAMPAIGNS",
    "ENERGY_BRANCH",
    "SIMULATION",
    "TAGGERS",
    "WORKING_POINTS",
    "Campaign",
    "WorkingPoint",
    "campaign_of",
    "energy_in",
    "named_campaign",
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
