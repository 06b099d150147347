"""The events of a list with all of their branches, from the files where they are, as one small file in NanoAOD layout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

import awkward as ak
import numpy as np
import uproot

from coffea_ad.errors import BadFile, ConfigError
from coffea_ad.event_lists.opened import open_file
from coffea_ad.event_lists.top import TopEvents
from coffea_ad.nanoaod.reading import reason
from coffea_ad.typing import Ints

__all__ = ["entry_ranges", "write_originals"]

_NEAR = 500  # entries that lie nearer than this are read together


def write_originals(top: TopEvents, file: BinaryIO) -> list[str]:
    """Write the events of a list, best first, as a tree `Events`.

    Parameters
    ----------
    top : TopEvents
    file : binary file
        That can be written, searched and read.

    Returns
    -------
    list of str
        Branches that were left out: not all files have them, or a NanoAOD file cannot hold them.

    Raises
    ------
    BadFile
        A file cannot be opened any more, or is not the one that was read.
    ConfigError
        The list has no events.
    """
    if not len(top):
        raise ConfigError("there is no event to write: the list is empty")
    parts, places = [], []
    where = [*zip(top["file"], top["tree"], strict=True)]
    for path, tree in dict.fromkeys(where):
        rows = np.array([i for i, pair in enumerate(where) if pair == (path, tree)])
        parts.append(_read(path, tree, top["uuid"][rows[0]], top["entry"][rows]))
        places.append(rows)
    order = np.argsort(np.concatenate(places))
    shared = [n for n in parts[0] if all(n in part for part in parts[1:])]
    out: dict[str, Any] = {}
    for name in shared:
        columns = [part[name] for part in parts]
        if len({(c.ndim, str(ak.type(c).content)) for c in columns}) == 1:
            out[name] = ak.concatenate(columns)[order]
    tables, odd = _collections(out)
    with uproot.recreate(file, compression=uproot.ZSTD(5)) as target:
        types = {name: v.dtype if isinstance(v, np.ndarray) else ak.type(v).content for name, v in tables.items()}
        target.mktree("Events", types).extend(tables)
    everything = dict.fromkeys(n for part in parts for n in part)
    return [n for n in everything if n not in out or n in odd]


def _read(path: str, tree: str, uuid: str, entries: Ints) -> dict[str, ak.Array]:
    """Return all branches of some entries of a file, in their order."""
    source = open_file(path, tree, uuid).tree(tree)[0]
    try:
        blocks = [source.arrays(entry_start=a, entry_stop=b) for a, b in entry_ranges(entries)]
    except Exception as error:  # codecs and sources raise what they like
        raise BadFile(reason(path, error)) from error
    read = np.concatenate([np.arange(a, b) for a, b in entry_ranges(entries)])
    rows = np.searchsorted(read, entries)
    out: dict[str, ak.Array] = {}
    for name in blocks[0].fields:
        out |= _branches(name, ak.concatenate([block[name] for block in blocks])[rows])
    return out


def _branches(name: str, column: ak.Array) -> dict[str, ak.Array]:
    """Return a column as branches: of a record, as RNTuples have them, each part, and the number of its objects.

    >>> {n: c.to_list() for n, c in _branches("Jet", ak.Array([[{"pt": 5.0}], []])).items()}
    {'Jet_pt': [[5.0], []], 'nJet': [1, 0]}
    """
    if not column.fields:
        return {name: column}
    parts = {f"{name}_{field}": column[field] for field in column.fields}
    return parts | ({f"n{name}": ak.num(column, axis=1)} if column.ndim == 2 else {})


def entry_ranges(entries: Ints) -> Iterable[tuple[int, int]]:
    """Return begin and end of what is read together.

    >>> entry_ranges(np.array([7, 3, 9000]))
    [(3, 8), (9000, 9001)]
    """
    ordered = np.unique(entries)
    pieces = np.split(ordered, np.flatnonzero(np.diff(ordered) > _NEAR) + 1)
    return [(int(piece[0]), int(piece[-1]) + 1) for piece in pieces]


def _collections(columns: dict[str, ak.Array]) -> tuple[dict[str, Any], list[str]]:
    """Return branches as numbers and as collections with a counter of their own, and those that are neither."""
    counters = {n[1:] for n in columns if n.startswith("n")}
    tables: dict[str, Any] = {}
    parts: dict[str, dict[str, ak.Array]] = {}
    odd = []
    for name, column in columns.items():
        pieces = name.split("_")
        collection = next((c for i in range(len(pieces), 0, -1) if (c := "_".join(pieces[:i])) in counters), None)
        if column.ndim == 1 and not _is_text(column):
            tables[name] = ak.to_numpy(column)
        elif column.ndim == 2 and collection == name and not _is_text(column):
            tables[name] = column
        elif column.ndim == 2 and collection is not None and not _is_text(column):
            parts.setdefault(collection, {})[name[len(collection) + 1 :]] = column
        else:
            odd.append(name)
    for collection, fields in parts.items():
        tables[collection] = ak.zip(fields)
    written = {*parts, *(n for n, v in tables.items() if not isinstance(v, np.ndarray))}
    return {n: v for n, v in tables.items() if n[1:] not in written or n[0] != "n"}, odd


def _is_text(column: ak.Array) -> bool:
    return "string" in str(ak.type(column))
