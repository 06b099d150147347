"""Which events train, validate and test: a hash of the event's numbers, the same for every file, feature and model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile
from coffea_ad.nanoaod.columns import EVENT_ID, where
from coffea_ad.typing import Float64s, Ints

__all__ = [
    "SPLIT",
    "U64",
    "event_hash",
    "event_normal",
    "event_uniform",
    "fold_of",
    "lack_numbers",
    "numbers",
    "split_of",
    "splitmix64",
]


SPLIT = {"train": 0.5, "validation": 0.25, "test": 0.25}
"""How training divides events: by a hash of their ids with the salt "train"."""
_ONE_EVENT = 10  # events that can be one and the same only by mistake
U64 = npt.NDArray[np.uint64]
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
    ids = tuple(np.asarray(ak.to_numpy(events[name])) for name in EVENT_ID)
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
