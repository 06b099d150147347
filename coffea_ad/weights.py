"""Weights, normalisation, data or MC, and the event hash that splits samples."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, ConfigError, MissingBranch, NotNormalisable
from coffea_ad.nanoaod import where
from coffea_ad.typing import Float64s, Ints

__all__ = [
    "SPLIT",
    "U64",
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
    "lack_numbers",
    "n_effective",
    "normalisation",
    "numbers",
    "process_of",
    "split_of",
    "splitmix64",
    "takes_sign",
    "weight_sums",
]

SPLIT = {"train": 0.5, "validation": 0.25, "test": 0.25}
"""How training divides events: by a hash of their ids with the salt "train"."""
_ONE_EVENT = 10  # events that can be one and the same only by mistake
_SIMULATION = ("is_mc", "isMC")
_CROSS_SECTION = ("xsec", "cross_section")
_SIGNAL = ("is_signal", "isSignal", "signal")
U64 = npt.NDArray[np.uint64]
_PERIOD = re.compile(r"(?i)(run)?(20\d\d)?[a-i](-?v\d)?")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(state: npt.ArrayLike) -> U64:
    """Return the splitmix64 output for a state: add the golden gamma, then mix.

    Parameters
    ----------
    state : (n,) uint64

    Returns
    -------
    (n,) uint64

    References
    ----------
    G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.

    Examples
    --------
    >>> int(splitmix64(1234567))
    6457827717110365317
    """
    with np.errstate(over="ignore"):
        z = np.asarray(state, np.uint64) + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(z ^ (z >> np.uint64(31)))


def event_uniform(salt: str, run: npt.ArrayLike, luminosity_block: npt.ArrayLike, event: npt.ArrayLike) -> Float64s:
    """Map events to [0, 1) by their ids alone, so that a split is the same in skims, training and runs.

    Parameters
    ----------
    salt : str
        Different salts give independent splits: "folds", "train", "fraction".
    run, luminosity_block, event : (n,) integers

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> event_uniform("train", [1, 1], [1, 1], [1, 2]).round(6)
    array([0.300918, 0.408135])
    """
    return _uniform(_hash(salt, (run, luminosity_block, event)))


def event_normal(
    salt: str, run: npt.ArrayLike, luminosity_block: npt.ArrayLike, event: npt.ArrayLike, index: npt.ArrayLike
) -> Float64s:
    """Draw standard normal numbers for objects by the ids of their events and their places in them (Box and Muller).

    Parameters
    ----------
    salt : str
        Different salts give independent numbers.
    run, luminosity_block, event, index : (n,) integers

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> event_normal("smearing", [1, 1], [1, 1], [1, 1], [0, 1]).round(4)
    array([0.7384, 0.0015])
    """
    h = _hash(salt, (run, luminosity_block, event, index))
    radius = np.sqrt(-2 * np.log1p(-_uniform(h)))
    return np.asarray(radius * np.cos(2 * np.pi * _uniform(splitmix64(h))))


def event_hash(salt: str, run: npt.ArrayLike, luminosity_block: npt.ArrayLike, event: npt.ArrayLike) -> U64:
    """Return a 64-bit hash of events by their ids alone, (n,) uint64.

    >>> [f"{h:x}" for h in event_hash("duplicates", [1, 1], [1, 1], [1, 2]).tolist()]
    ['a525eae744fd800a', '5fbdd6ae699c2199']
    """
    return _hash(salt, (run, luminosity_block, event))


def lack_numbers(*ids: npt.NDArray[Any]) -> bool:
    """Say whether many events have one number, the same ids or hashes: then nothing that goes by it can tell them apart.

    >>> lack_numbers(np.ones(40), np.ones(40)), lack_numbers(np.ones(40), np.arange(40)), lack_numbers(np.ones(3))
    (True, False, False)
    """
    return len(ids[0]) >= _ONE_EVENT and all(bool((one == one[0]).all()) for one in ids)


def numbers(events: Any, purpose: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Return run, luminosity section and number of events, (n_events,) each, by which they can be told apart.

    Parameters
    ----------
    events : NanoEvents
    purpose : str
        What goes by them, for the message.

    Raises
    ------
    BadFile
        All of ten events or more have the same.

    Examples
    --------
    >>> import awkward as ak
    >>> run, block, number = numbers(ak.Array({"run": [1, 1], "luminosityBlock": [1, 1], "event": [7, 8]}), "…")
    >>> number
    array([7, 8])
    """
    ids = tuple(np.asarray(ak.to_numpy(events[name])) for name in ("run", "luminosityBlock", "event"))
    if lack_numbers(*ids):
        raise BadFile(
            f"{where(events)}all {len(ids[0])} events have the same run, luminosityBlock and event, by which {purpose}; give the "
            "events numbers of their own"
        )
    return ids[0], ids[1], ids[2]


def _hash(salt: str, ids: Iterable[npt.ArrayLike]) -> U64:
    h = splitmix64(np.uint64(int.from_bytes(hashlib.sha256(salt.encode()).digest()[:8], "little")))
    with np.errstate(over="ignore"):
        for part in ids:
            h = splitmix64(h + np.asarray(part).astype(np.uint64))
    return h


def _uniform(h: U64) -> Float64s:
    return np.asarray((h >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def fold_of(salt: str, k: int, run: npt.ArrayLike, luminosity_block: npt.ArrayLike, event: npt.ArrayLike) -> Ints:
    """Return the fold of events, ⌊k · event_uniform(salt, …)⌋: by their ids alone, the same in training and in runs.

    Parameters
    ----------
    salt : str
        That of the card; another one is another division.
    k : int
        Number of folds.
    run, luminosity_block, event : (n,) integers

    Returns
    -------
    (n,) int64
        0 … k − 1.

    Examples
    --------
    >>> fold_of("folds", 3, [1, 1, 1, 1], [1, 1, 1, 1], [1, 2, 3, 4])
    array([1, 1, 1, 0])
    """
    return np.floor(k * event_uniform(salt, run, luminosity_block, event)).astype(np.int64)


def split_of(run: npt.ArrayLike, luminosity_block: npt.ArrayLike, event: npt.ArrayLike) -> npt.NDArray[np.str_]:
    """Say for which part of a training events are: "train", "validation" or "test", (n,) str.

    >>> split_of([1, 1, 1], [1, 1, 1], [1, 6, 4]).tolist()
    ['train', 'validation', 'test']
    """
    edges = np.cumsum(list(SPLIT.values()))[:-1]
    return np.array(list(SPLIT), dtype=np.str_)[
        np.digitize(event_uniform("train", run, luminosity_block, event), edges)
    ]


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
