"""Luminosity sections: which a file holds, and what is common to sets of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.files.names import as_name

__all__ = ["Golden", "golden", "golden_files", "listed", "number_of_sections", "sections_in", "union", "without"]


Golden = dict[str, list[list[int]]]
"""{run: [[first, last], …]}, both ends included."""
Pairs = npt.NDArray[np.uint32]


def golden(pairs: npt.ArrayLike) -> Golden:
    """Return (n, 2) runs and sections as a golden JSON.

    >>> golden([[7, 2], [7, 1], [7, 2], [7, 5], [3, 1]])
    {'3': [[1, 1]], '7': [[1, 2], [5, 5]]}
    """
    table = np.unique(np.asarray(pairs, np.int64).reshape(-1, 2), axis=0)
    out: Golden = {}
    for run in np.unique(table[:, 0]):
        blocks = table[table[:, 0] == run, 1]
        for part in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
            out.setdefault(str(run), []).append([int(part[0]), int(part[-1])])
    return out


def listed(sections: Mapping[str, Iterable[Iterable[int]]]) -> Pairs:
    """Return the (n, 2) runs and sections of a golden JSON.

    >>> listed({"7": [[1, 2], [5, 5]]}).tolist()
    [[7, 1], [7, 2], [7, 5]]
    """
    parts = [
        np.column_stack([np.full(last - first + 1, int(run)), np.arange(first, last + 1)])
        for run, ranges in sections.items() for first, last in ranges
    ]  # fmt: skip
    return np.concatenate([np.zeros((0, 2), np.int64), *parts]).astype(np.uint32)


def union(several: Iterable[Golden]) -> Golden:
    """Return the sections that are in any of several.

    >>> union([{"7": [[1, 2]]}, {"7": [[2, 3]]}])
    {'7': [[1, 3]]}
    """
    return golden(np.concatenate([np.zeros((0, 2), np.uint32), *map(listed, several)]))


def number_of_sections(sections: Mapping[str, Iterable[Iterable[int]]]) -> int:
    """Return how many sections a golden JSON names.

    >>> number_of_sections({"7": [[1, 2], [5, 5]]})
    3
    """
    return sum(last - first + 1 for ranges in sections.values() for first, last in ranges)


def sections_in(file: Any) -> Golden | None:
    """Return the sections that a ROOT file lists in `LuminosityBlocks`, or None if it has no such list.

    One that is there and cannot be read is an error, as that of any other part of the file: it may come from the network.
    """
    try:
        columns = [file["LuminosityBlocks"][name] for name in ("run", "luminosityBlock")]
    except KeyError:
        return None
    return golden(np.column_stack([column.array(library="np") for column in columns]))


def without(sections: Golden, others: Golden) -> Golden:
    """Return the sections that are not among others."""
    one, two = (listed(s).astype(np.uint64) @ np.array([2**32, 1], np.uint64) for s in (sections, others))
    return golden(listed(sections)[~np.isin(one, two)])


def golden_files(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Return {file name: content} of the golden JSON of every dataset of data.

    >>> golden_files({"met": {"sections": {"7": [[1, 2]]}}, "tt": {}})
    {'met.json': b'{"7": [[1, 2]]}'}
    """
    return {
        f"{as_name(name)}.json": json.dumps(entry["sections"]).encode()
        for name, entry in datasets.items()
        if entry.get("sections")
    }
