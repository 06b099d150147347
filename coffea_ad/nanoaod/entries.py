"""Where events stand in the tree of their file: `events.entry`, whatever was masked, sliced or sorted since."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
from coffea.nanoevents.methods import nanoaod
from coffea.nanoevents.util import concat, key_to_tuple

from coffea_ad.errors import MissingIndex

__all__ = ["CHUNK", "POSITION", "Source", "chunk_mark", "entries_of", "position_form", "source", "with_entries"]

POSITION = "chunkIdx"
"""The field of events that holds their position in the chunk."""
CHUNK = "chunk"
"""The parameter of events that is lost where events of two chunks are joined: records keep what they have in common."""

_OPEN = "open the file with schemaclass=coffea_ad.NanoAODSchema"


@dataclass(frozen=True)
class Source:
    """The tree that events were read from.

    Attributes
    ----------
    file : str
        As it was opened.
    uuid : str
        Of the file: what tells that a file is still the same.
    tree : str
    start : int
        Entry of the first event of the chunk.
    """

    file: str
    uuid: str
    tree: str
    start: int


def chunk_mark() -> str:
    """Return what tells one chunk from all others."""
    return uuid.uuid4().hex


def position_form(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form of the positions of events in their chunk, given that of a branch with one number per event."""
    return {
        "class": "NumpyArray",
        "primitive": "int64",
        "itemsize": 8,
        "format": "l",
        "parameters": {"__doc__": "position of the event in the chunk"},
        "form_key": concat(run["form_key"], "!eventindex"),
    }


def source(events: Any) -> Source:
    """Return the file and tree that events come from, and where their chunk begins.

    Parameters
    ----------
    events : NanoEvents
        Opened with `coffea_ad.NanoAODSchema`, and masked, sliced or sorted at will; or one event of them.

    Returns
    -------
    Source

    Raises
    ------
    MissingIndex
        Events of several chunks were joined, or the file was opened with another schema.
    """
    parameter = getattr(events.layout, "array", events.layout).purelist_parameter
    metadata = parameter("metadata") or {}
    factory = events.attrs.get("@events_factory")
    marked = None if factory is None else factory._schema.form["parameters"].get(CHUNK)  # noqa: SLF001
    if marked is not None and marked == parameter(CHUNK):
        file_uuid, tree, entries = key_to_tuple(factory._partition_key)  # noqa: SLF001
        names = getattr(factory._mapping._fileopener, "_uuid_pfnmap", {})  # noqa: SLF001
        file = metadata.get("filename") or str(names.get(file_uuid) or "")
        return Source(file, file_uuid, _without_cycle(tree), int(entries.partition("-")[0]))
    if {"filename", "entrystart"} <= set(metadata):  # of a run, also where the events were pickled
        tree = _without_cycle(str(metadata.get("treename", "Events")))
        return Source(str(metadata["filename"]), str(metadata.get("fileuuid", "")), tree, int(metadata["entrystart"]))
    raise MissingIndex(
        f"these events do not say which entries of which file they are: {_OPEN}, and take the entries before events of "
        "several chunks are joined"
    )


def _without_cycle(tree: str) -> str:
    return tree.partition(";")[0].lstrip("/")


def entries_of(events: Any) -> Any:
    """Return the number of each event in the tree of its file, from 0: (n_events,) int64, or int of one event.

    Raises
    ------
    MissingIndex
        As `source`, or the file was opened with another schema.
    """
    if POSITION not in ak.fields(events):
        if isinstance(events, ak.Array) and len(events) == 0:
            return ak.Array(np.zeros(0, np.int64))
        raise MissingIndex(
            f"these events have no {POSITION}, their position in the chunk: {_OPEN}, and keep this field"
        )
    return events[POSITION] + source(events).start


class _Entry:
    """What events have beside what coffea gives them."""

    @property
    def entry(self) -> Any:
        """Number of the event in the tree of its file, as `entries_of`."""
        return entries_of(self)


_EVENT: Any = nanoaod.behavior["NanoEvents"]
_EVENTS: Any = nanoaod.behavior["*", "NanoEvents"]


class NanoEvent(_Entry, _EVENT):
    """One event, with its entry."""


class NanoEventsArray(_Entry, _EVENTS):
    """Events, with their entries."""


def with_entries(behavior: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return coffea's behavior of NanoAOD, in which events have entries."""
    return {**behavior, "NanoEvents": NanoEvent, ("*", "NanoEvents"): NanoEventsArray}
