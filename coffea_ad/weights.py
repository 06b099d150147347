"""Weights, normalisation, data or MC."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, ConfigError, MissingBranch, NotNormalisable
from coffea_ad.nanoaod.columns import where
from coffea_ad.splits import event_hash, event_normal, event_uniform, fold_of, split_of, splitmix64
from coffea_ad.typing import Float64s

__all__ = [
    "cross_section",
    "era_of",
    "event_branch",
    "event_hash",
    "event_normal",
    "event_uniform",
    "fold_of",
    "generator_weight",
    "has_branch",
    "has_cross_section",
    "is_mc",
    "is_signal",
    "is_simulation",
    "kind_of",
    "n_effective",
    "normalisation",
    "process_of",
    "split_of",
    "splitmix64",
    "takes_sign",
    "weight_sums",
]


_SIMULATION = ("is_mc", "isMC")
_CROSS_SECTION = ("xsec", "cross_section")
_SIGNAL = ("is_signal", "isSignal", "signal")
_PERIOD = re.compile(r"(?i)(run)?(20\d\d)?[a-i](-?v\d)?")


def has_branch(events: Any, branch: str) -> bool:
    """Say whether a branch is there, in the way that the schema groups branches by what stands before the first "_"."""
    name, _, field = branch.partition("_")
    fields = ak.fields(events)
    return branch in fields or (name in fields and field in events.layout[name].fields)


def event_branch(events: Any, branch: str) -> Any:
    """Return a branch by its name in the file, one value or one list per event.

    Parameters
    ----------
    events : NanoEvents
    branch : str
        Such as "Pileup_nTrueInt", "PSWeight" or "FatJet_pt".

    Raises
    ------
    MissingBranch
    """
    if not has_branch(events, branch):
        raise MissingBranch(f"{where(events)}there is no branch {branch}")
    if branch in ak.fields(events):
        return events[branch]
    name, _, field = branch.partition("_")
    return events[name, field]  # not by way of a four-vector, which wants all of its fields


def is_mc(events: Any) -> bool:
    """Say whether events are simulated: by `is_mc` or `isMC` in the metadata, else by the presence of genWeight."""
    said = is_simulation(getattr(events, "metadata", None) or {})
    return "genWeight" in ak.fields(events) if said is None else said


def is_simulation(metadata: Mapping[str, Any]) -> bool | None:
    """Say what the metadata of a dataset says, under `is_mc` or `isMC`; None if it says nothing.

    >>> is_simulation({"isMC": False}), is_simulation({"year": "2018"})
    (False, None)
    """
    for key in _SIMULATION:
        if key in metadata:
            return bool(metadata[key])
    return None


def is_signal(metadata: Mapping[str, Any]) -> bool:
    """Say whether the metadata of a dataset mark it as a signal: `is_signal`, `isSignal` or `signal`, or `kind: signal`.

    >>> is_signal({"is_signal": True}), is_signal({"kind": "signal"}), is_signal({"xsec": 1.0})
    (True, True, False)
    """
    return any(metadata.get(key) is True for key in _SIGNAL) or metadata.get("kind") == "signal"


def kind_of(metadata: Mapping[str, Any]) -> str:
    """Return what a dataset is by its metadata: "data", "signal" or "background".

    >>> kind_of({"is_mc": False}), kind_of({"kind": "signal"}), kind_of({"xsec": 1.0})
    ('data', 'signal', 'background')
    """
    if is_simulation(metadata) is False:
        return "data"
    return "signal" if is_signal(metadata) else "background"


def process_of(dataset: str, metadata: Mapping[str, Any]) -> str:
    """Return the process of a dataset, under which it is drawn and added: `process` in its metadata, else its name.

    >>> process_of("tt_2022", {"process": "tt"}), process_of("tt_2022", {})
    ('tt', 'tt_2022')
    """
    return str(metadata.get("process", dataset))


def era_of(metadata: Mapping[str, Any]) -> str:
    """Return the era of a dataset, whose data and simulation belong together; empty if its metadata name none.

    It is `era`, with the `year` before it, or `year` alone where `era` names a period of data taking, which simulation has not.

    >>> era_of({"era": "2022EE"}), era_of({"year": 2022, "era": "preEE"}), era_of({"year": 2018, "era": "B"}), era_of({})
    ('2022EE', '2022preEE', '2018', '')
    """
    era, year = (str(metadata.get(key) or "") for key in ("era", "year"))
    if _PERIOD.fullmatch(era) and year:
        return year
    return era if year in era else year + era


def has_cross_section(metadata: Mapping[str, Any]) -> bool:
    """Say whether metadata give a cross-section, under `xsec` or `cross_section`."""
    return any(key in metadata for key in _CROSS_SECTION)


def takes_sign(dataset: str, metadata: Mapping[str, Any]) -> bool:
    """Say whether events of a dataset weigh sign(genWeight): `generator_weight` in its metadata is "sign", not "stored".

    Raises
    ------
    ConfigError
        It is something else.

    Examples
    --------
    >>> takes_sign("dy", {"generator_weight": "sign"}), takes_sign("dy", {"xsec": 1.0})
    (True, False)
    """
    asked = metadata.get("generator_weight", "stored")
    if asked not in ("stored", "sign"):
        raise ConfigError(f"dataset {dataset}: generator_weight is {asked!r}, but must be stored or sign")
    return bool(asked == "sign")


def generator_weight(events: Any) -> Float64s:
    """Return genWeight of simulated events and 1 for data, (n,) float64.

    Where the metadata have `generator_weight: sign`, it is its sign: −1, 0 or 1. A few events with large weights then do not
    carry the sum, as is asked for with some generators whose weights differ in size without a physical reason.

    Raises
    ------
    BadFile
        A weight is not finite.
    ConfigError
        `generator_weight` is neither stored nor sign.
    """
    if is_mc(events) and "genWeight" in ak.fields(events):
        weight = np.asarray(ak.to_numpy(events["genWeight"]), np.float64)
        undefined = int((~np.isfinite(weight)).sum())
        if undefined:
            raise BadFile(f"{where(events)}genWeight of {undefined} events is not a finite number")
        metadata = getattr(events, "metadata", None) or {}
        return np.sign(weight) if takes_sign(str(metadata.get("dataset", "")), metadata) else weight
    return np.ones(len(events))


def weight_sums(weight: npt.ArrayLike) -> dict[str, float]:
    """Return Σw, Σ|w| and Σw² of a chunk before any cut, as a processor returns them for each dataset.

    Σw normalises; the other two say how many events carry it. All three add up over chunks.

    Parameters
    ----------
    weight : (n,)

    Returns
    -------
    dict
        `sumw`, `sumw_abs`, `sumw2`.

    Examples
    --------
    >>> weight_sums([1, 1, -1])
    {'sumw': 1.0, 'sumw_abs': 3.0, 'sumw2': 3.0}
    """
    w = np.asarray(weight, np.float64)
    return {"sumw": float(w.sum()), "sumw_abs": float(np.abs(w).sum()), "sumw2": float(np.square(w).sum())}


def n_effective(weight: npt.ArrayLike) -> float:
    """Return (Σw)² / Σw², the number of unweighted events with the same relative error.

    >>> n_effective([1, 1, 1, 1]), round(n_effective([1, 0.1]), 3)
    (4.0, 1.198)
    """
    w = np.asarray(weight, np.float64)
    square = float(np.sum(w * w))
    return float(np.sum(w)) ** 2 / square if square > 0 else 0.0


def cross_section(dataset: str, metadata: Mapping[str, Any]) -> float:
    """Return a dataset's cross-section in pb, from `xsec` or `cross_section`.

    Raises
    ------
    ConfigError
        The metadata has neither.
    """
    for key in _CROSS_SECTION:
        if key in metadata:
            try:
                value = float(metadata[key])
            except (TypeError, ValueError):
                value = -1.0
            if not 0 < value < float("inf"):
                raise ConfigError(f"dataset {dataset}: {key} is {metadata[key]!r}, but must be a positive number of pb")
            return value
    raise ConfigError(f"dataset {dataset}: the metadata gives no xsec (pb), which simulated events need")


def normalisation(dataset: str, metadata: Mapping[str, Any], sumw: float, lumi: float) -> float:
    """Return the factor that brings raw sums of genWeight to a luminosity: xsec · lumi / sumw, or 1 for data.

    Parameters
    ----------
    dataset, metadata : str, mapping
        The dataset's name and metadata from the fileset, with `is_mc`.
    sumw : float
        Sum of genWeight, or of its signs, of all events that were processed, before any cut.
    lumi : float
        Integrated luminosity, fb⁻¹.

    Examples
    --------
    >>> normalisation("tt", {"is_mc": True, "xsec": 2.0}, sumw=100.0, lumi=3.0)
    60.0

    Raises
    ------
    NotNormalisable
        The weights of the dataset sum to 0.
    ConfigError
        The metadata gives no cross-section.
    """
    if is_simulation(metadata) is False:
        return 1.0
    if sumw == 0 or not math.isfinite(sumw):
        raise NotNormalisable(f"dataset {dataset}: its weights sum to {sumw:g}, so it cannot be normalised")
    return cross_section(dataset, metadata) * 1000.0 * lumi / sumw
