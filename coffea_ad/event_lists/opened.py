"""Single events, opened out of the files where they are: by their entry, by their ids, or as a list names them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.event_lists.top import TopEvents
from coffea_ad.nanoaod.columns import EVENT_ID, event_text
from coffea_ad.nanoaod.conventions import told_by
from coffea_ad.nanoaod.reading import (
    OPEN_FILES,
    BranchFilter,
    Open,
    Unreadable,
    build_events,
    reason,
    simulation_record,
)
from coffea_ad.nanoaod.schema import NanoAODSchema

__all__ = [
    "Place",
    "events_between",
    "listed_places",
    "number_of_events",
    "open_event",
    "open_file",
    "parsed_id",
    "places_of",
]

_AROUND = 100  # events before and after: what PFNano's weights mean is told by more jets than those of one event

EventId = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """Where an event stands: its entry in a tree of a file, and the file's UUID, where it is known and has to be the same."""

    file: str
    entry: int
    tree: str = "Events"
    uuid: str = ""


def parsed_id(text: str) -> EventId:
    """Return run, luminosity section and event number of `run:lumi:event`.

    Raises
    ------
    ConfigError
        It is something else.

    Examples
    --------
    >>> parsed_id("1:13:1207")
    (1, 13, 1207)
    """
    parts = text.split(":")
    if len(parts) != len(EVENT_ID) or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"{text!r} is no event; write run:lumi:event, three numbers such as 1:13:1207")
    run, lumi, event = map(int, parts)
    return run, lumi, event


def listed_places(top: TopEvents) -> list[Place]:
    """Return where the events of a list are, best first."""
    return [Place(top["file"][i], int(top["entry"][i]), top["tree"][i], top["uuid"][i]) for i in range(len(top))]


def places_of(paths: Sequence[str], event: EventId, tree: str = "Events") -> list[Place]:
    """Return where an event is in some files; simulated samples may have several with the same numbers.

    Raises
    ------
    BadFile
        A file cannot be read.
    ConfigError
        No file has it.
    """
    places, ranges = [], []
    for path in paths:
        columns = _ids(path, tree)
        same = np.logical_and.reduce([columns[name] == number for name, number in zip(EVENT_ID, event, strict=True)])
        places += [Place(path, int(entry), tree) for entry in np.flatnonzero(same)]
        runs = np.unique(columns["run"])
        ranges.append(f"{path} has {len(same)} events" + (f" of runs {runs[0]} to {runs[-1]}" if len(runs) else ""))
    if not places:
        raise ConfigError(f"there is no event {event_text(event)}: {'; '.join(ranges)}")
    return places


def number_of_events(path: str, tree: str = "Events") -> int:
    """Return how many events a file has.

    Raises
    ------
    BadFile
    """
    opened = open_file(path, tree)
    return int(opened.tree(tree)[0].num_entries)


def open_event(place: Place, metadata: Mapping[str, Any] | None = None) -> Any:
    """Open one event with all of its branches, which are read when they are used.

    Parameters
    ----------
    place : Place
    metadata : mapping, optional
        Of the dataset, for numbers that depend on its campaign; a file of `coffea-ad simulate` tells them itself.

    Returns
    -------
    (1,) NanoEvents

    Raises
    ------
    BadFile
        The file cannot be read, or is not the one that was meant.
    ConfigError
        The file has no such entry.

    Examples
    --------
    >>> event = open_event(Place(str(svj_file), 7))
    >>> event.entry.to_list(), len(event.FatJet)
    ([7], 1)
    """
    number = int(open_file(place.file, place.tree, place.uuid).tree(place.tree)[0].num_entries)
    if not 0 <= place.entry < number:
        raise ConfigError(f"{place.file} has {number} events: there is no entry {place.entry}")
    start, stop = max(place.entry - _AROUND, 0), min(place.entry + _AROUND, number)
    row = place.entry - start
    return events_between(place, start, stop, metadata)[row : row + 1]


def events_between(
    place: Place, start: int, stop: int, metadata: Mapping[str, Any] | None = None, *, branches: Iterable[str] | None = None
) -> Any:  # fmt: skip
    """Open some entries of a file.

    Parameters
    ----------
    place : Place
        Of any event in the file.
    start, stop : int
    metadata : mapping, optional
        As of `open_event`.
    branches : iterable of str, optional
        That are wanted, with what belongs to them; all by default.

    Returns
    -------
    (stop − start,) NanoEvents

    Raises
    ------
    BadFile
        As of `open_event`.
    """
    opened = open_file(place.file, place.tree, place.uuid)
    chunk = {
        **told_by(simulation_record(opened.file)), **(metadata or {}), "filename": place.file, "treename": place.tree,
        "fileuuid": str(opened.file.file.uuid), "entrystart": start, "entrystop": stop,
    }  # fmt: skip
    wanted = None if branches is None else BranchFilter(frozenset(branches)).of(opened.tree(place.tree)[1])
    try:
        return build_events(opened, chunk, NanoAODSchema, wanted)[0]
    except Unreadable as error:
        raise BadFile(error.args[1]) from error


def _ids(path: str, tree: str) -> dict[str, Any]:
    opened = open_file(path, tree)
    source, names = opened.tree(tree)
    if lacking := [name for name in EVENT_ID if name not in names]:
        raise MissingBranch(f"{path}: branches are missing: {', '.join(lacking)}, by which an event is told")
    try:
        return {name: source[name].array(library="np") for name in EVENT_ID}
    except Exception as error:
        raise BadFile(reason(path, error)) from error


def open_file(path: str, tree: str = "Events", uuid: str = "") -> Open:
    """Open a file, which has to have a tree, and the UUID that a list of events has of it, if it has any.

    Raises
    ------
    BadFile
    """
    try:
        opened = OPEN_FILES.get(path)
        opened.tree(tree)
    except Exception as error:  # codecs and sources raise what they like
        OPEN_FILES.drop(path)
        raise BadFile(reason(path, error)) from error
    if uuid and str(opened.file.file.uuid) != uuid:
        raise BadFile(f"{path}: this is not the file that the results were made of: its UUID is another one")
    return opened
