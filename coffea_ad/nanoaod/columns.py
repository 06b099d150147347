"""Columns of events and collections, flat; what is missing is named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, MissingBranch
from coffea_ad.nanoaod.candidates import usual_name
from coffea_ad.typing import Ints

__all__ = [
    "EVENT_ID",
    "as_mask",
    "event_columns",
    "event_text",
    "flat",
    "flat_columns",
    "offsets_of",
    "require",
    "where",
]


EVENT_ID = ("run", "luminosityBlock", "event")
"""The branches that name an event."""


def event_text(ids: Iterable[Any]) -> str:
    """Return `run:lumi:event`.

    >>> event_text([1, 13, 1207])
    '1:13:1207'
    """
    return ":".join(str(int(part)) for part in ids)


def where(events: Any) -> str:
    """Return the file behind `events` for messages, or an empty string."""
    metadata = getattr(events, "metadata", None) or {}
    return f"{metadata['filename']}: " if "filename" in metadata else ""


def flat(array: Any) -> npt.NDArray[Any]:
    """Return the numbers of an array without its lists."""
    return np.asarray(ak.to_numpy(ak.flatten(array, axis=None)))


def offsets_of(counts: npt.NDArray[Any]) -> Ints:
    """Return where lists of so many begin and end, (n + 1,)."""
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out


def flat_columns(events: Any, collection: str, names: Iterable[str]) -> tuple[Ints, dict[str, npt.NDArray[Any]]]:
    """Return offsets (n_events + 1,) and flat fields of a collection.

    Raises
    ------
    MissingBranch
        The collection, or a field, is not there.
    BadFile
        Objects or values are None.
    """
    names = require(events, collection, names)
    # field by field: coffea makes no objects of leptons whose charge, say, is not there
    counts = ak.num(events[collection, names[0]], axis=1)
    if ak.any(ak.is_none(counts)):
        raise BadFile(f"{where(events)}{collection} has missing values: drop these events first")
    offsets = offsets_of(ak.to_numpy(counts))
    columns = {name: flat(events[collection, name]) for name in names}
    for name, column in columns.items():
        if len(column) != offsets[-1]:
            raise BadFile(
                f"{where(events)}{collection}_{name} has missing values; drop such objects or fill them first"
            )
    return offsets, columns


def event_columns(events: Any, collection: str, names: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    """Return fields of a record that there is once per event, such as MET.

    Raises
    ------
    MissingBranch, BadFile
        As `flat_columns`.
    """
    names = require(events, collection, names)
    columns = {name: events[collection, name] for name in names}
    for name, column in columns.items():
        if ak.any(ak.is_none(column)):
            raise BadFile(f"{where(events)}{collection}_{name} has missing values: drop these events first")
    return {name: np.asarray(ak.to_numpy(column)) for name, column in columns.items()}


def as_mask(values: Any) -> Any:
    """Return flags as booleans, in whatever numbers a producer has stored them: what is not 0 is true, NaN is false.

    >>> as_mask(np.array([0, 2], np.uint8)), as_mask(ak.Array([[1, 0], []])).to_list()
    (array([False,  True]), [[True, False], []])
    """
    return (values != 0) & (values == values)  # noqa: PLR0124  NaN


def require(events: Any, collection: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of fields of a collection.

    Raises
    ------
    MissingBranch
        Some are not there. coffea would refuse to make four-vectors without all their fields, in words of its own.
    """
    names = tuple(names)
    have = events.layout[collection].fields if collection in ak.fields(events) else ()
    missing = [f"{collection}_{name}" for name in names if name not in have]
    if missing:
        raise MissingBranch(f"{where(events)}branches are missing: {', '.join(missing)}")
    return names


def missing_branches(needs: Mapping[str, tuple[tuple[str, ...], ...]], branches: Iterable[str]) -> str:
    """Say in one sentence what is missing, or return an empty string.

    Parameters
    ----------
    needs : {what: alternatives}
        Each alternative is a set of branches that would do.
    branches : iterable of str
        What the file has.

    Examples
    --------
    >>> missing_branches({"jet pT": (("FatJet_pt",),)}, ["Jet_pt"])
    'jet pT needs FatJet_pt'
    >>> missing_branches({"jet pT": (("FatJet_pt",),)}, ["FatJet_pt"])
    ''
    """
    have = {usual_name(branch) for branch in branches}
    lacking = []
    for what, alternatives in needs.items():
        gaps = [[b for b in alternative if b not in have] for alternative in alternatives]
        if gaps and all(gaps):
            # once each, and none that lacks what another one lacks and more
            least = [g for i, g in enumerate(gaps) if not any(set(o) < set(g) for o in gaps) and g not in gaps[:i]]
            lacking.append(f"{what} needs " + " or ".join(", ".join(gap) for gap in least))
    return "; ".join(lacking)
