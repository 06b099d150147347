"""Events that are there twice: in one dataset, or in several.

Of data, an event is known by run, luminosity section and event number. Simulated samples number their events alike, and so their
missing transverse momentum, to the last bit, has to be the same as well.

Every chunk sends a 64-bit hash of each of its events, 8 bytes an event. The client
sorts them, a part of the range at a time, so that it needs little more than the hashes themselves: 0.8 GB for 10⁸ events. Two
different events have one hash with a probability of n² / 2⁶⁵: 0.0003 for n = 10⁸.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import awkward as ak
import numpy as np

from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.splits import U64, event_hash
from coffea_ad.typing import Ints

__all__ = ["LIMIT", "Duplicates", "Identify", "Mode", "find", "hashes", "of_content", "sentences"]

Mode = Literal["note", "drop", "ignore"]
Chunk = tuple[str, str, int]
"""Dataset, file and first entry of a chunk."""
LIMIT = 2 * 10**8
"""Up to so many events are looked at unasked."""
_PART = 2**24  # events that are sorted at once
_CONTENT = ("PuppiMET", "MET", "PFMET", "GenMET")


def hashes(events: Any) -> U64:
    """Return the hash of every event's ids, (n_events,) uint64."""
    ids = (ak.to_numpy(events[k]) for k in EVENT_ID)
    return event_hash("duplicates", *ids)


def of_content(ids: U64, tree: Any, names: Sequence[str], dataset: str, start: int, stop: int) -> U64:
    """Return the hash of simulated events by their ids and their missing transverse momentum, (n_events,) uint64.

    A file that has none is compared within its dataset only.

    Parameters
    ----------
    ids : (n_events,) uint64
        `hashes` of the events.
    tree : uproot tree or RNTuple
    names : sequence of str
        Its branches.
    dataset : str
    start, stop : int
        Entries of the events.
    """
    met = next((name for name in _CONTENT if {f"{name}_pt", f"{name}_phi"}.issubset(names)), None)
    if met is None:
        return event_hash(f"duplicates of {dataset}", ids, 0, 0)
    values = (tree[f"{met}_{c}"].array(entry_start=start, entry_stop=stop, library="np") for c in ("pt", "phi"))
    return event_hash("duplicates", ids, *(np.asarray(v).astype(np.float32).view(np.uint32) for v in values))


class Identify:
    """The processor of the first pass of `drop`: it fills nothing, since the hashes are taken by the chunk itself."""

    def process(self, events: Any) -> dict[str, Any]:  # noqa: ARG002
        """Return nothing."""
        return {}


@dataclass
class Duplicates:
    """What was found.

    Attributes
    ----------
    looked_at : int
        Number of events.
    counts : {(dataset of the first, dataset of the repeated event): number}
    examples : {(dataset, dataset): (first, repeated)}
        One of each kind: dataset, file and entry of the event.
    entries : {(dataset, file): list of int}
        Entries of the repeated events of data, all but the first of each.
    """

    looked_at: int = 0
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    examples: dict[tuple[str, str], tuple[Chunk, Chunk]] = field(default_factory=dict)
    entries: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return what stands in the report."""
        return {
            "looked_at": self.looked_at,
            "counts": [{"first": one, "again": two, "events": n} for (one, two), n in sorted(self.counts.items())],
            "examples": [[list(one), list(two)] for one, two in self.examples.values()],
        }


def find(ids: Mapping[Chunk, U64], order: Sequence[Chunk], data: set[str]) -> Duplicates:
    """Find repeated events: among all datasets of data together, and among all simulated ones.

    The first of several is the one that comes first in `order`, so nothing depends on which chunk was ready first.

    Parameters
    ----------
    ids : {chunk: hashes of its events}
    order : sequence of chunks
        As the fileset has them; chunks without hashes do not matter.
    data : set of str
        Datasets of data.

    Examples
    --------
    >>> one, two = np.array([7, 8], np.uint64), np.array([8, 9], np.uint64)
    >>> repeated = find({("a", "x", 0): one, ("b", "y", 0): two}, [("a", "x", 0), ("b", "y", 0)], {"a", "b"})
    >>> repeated.counts, repeated.entries
    ({('a', 'b'): 1}, {('b', 'y'): [0]})
    """
    groups: dict[bool, list[Chunk]] = {}
    for chunk in order:
        if chunk in ids:
            groups.setdefault(chunk[0] in data, []).append(chunk)
    out = Duplicates(looked_at=sum(len(array) for array in ids.values()))
    for of_data, chunks in groups.items():
        _add(out, [ids[chunk] for chunk in chunks], chunks, with_entries=of_data)
    out.entries = {place: sorted(entries) for place, entries in out.entries.items()}
    return out


def _add(out: Duplicates, arrays: list[U64], chunks: list[Chunk], *, with_entries: bool) -> None:
    bits = max(math.ceil(math.log2(max(sum(map(len, arrays)), 1) / _PART)), 0)
    for part in range(2**bits):
        first, again = _pairs(arrays, part, bits)
        if not len(again):
            continue
        names = sorted({chunk[0] for chunk in chunks})
        place = np.array([names.index(chunk[0]) for chunk in chunks])
        pairs, numbers = np.unique(np.stack([place[first[:, 0]], place[again[:, 0]]]), axis=1, return_counts=True)
        for (one, two), n in zip(pairs.T, numbers, strict=True):
            key = (names[one], names[two])
            out.counts[key] = out.counts.get(key, 0) + int(n)
        for one, two in pairs.T:
            if (names[one], names[two]) not in out.examples:
                those = np.flatnonzero((place[first[:, 0]] == one) & (place[again[:, 0]] == two))
                which = those[np.lexsort((again[those, 1], again[those, 0]))[0]]
                out.examples[names[one], names[two]] = (_entry(chunks, *first[which]), _entry(chunks, *again[which]))
        if with_entries:
            for number in np.unique(again[:, 0]):
                dataset, path, start = chunks[number]
                entries = start + again[again[:, 0] == number, 1]
                out.entries.setdefault((dataset, path), []).extend(entries.tolist())


def _entry(chunks: list[Chunk], number: int, row: int) -> Chunk:
    dataset, path, start = chunks[number]
    return dataset, path, int(start + row)


def _pairs(arrays: list[U64], part: int, bits: int) -> tuple[Ints, Ints]:
    """Return, for each repeated hash of a part of the range, where it stands first and where again: (n, 2), chunk and row."""
    if bits:
        shift = np.uint64(64 - bits)
        rows = [np.flatnonzero((array >> shift) == part) for array in arrays]
        values = np.concatenate([array[row] for array, row in zip(arrays, rows, strict=True)])
    else:
        rows = [np.arange(len(array)) for array in arrays]
        values = np.concatenate(arrays)
    chunk = np.repeat(np.arange(len(arrays)), [len(row) for row in rows])
    order = np.argsort(values, kind="stable")  # equal ones stay in the order of chunks and entries
    values = values[order]
    same = np.r_[False, values[1:] == values[:-1]][: len(values)]
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(values))))[same]
    row = np.concatenate(rows)
    return tuple(np.stack([chunk[i], row[i]], axis=1).astype(np.int64) for i in (order[first], order[same]))  # type: ignore[return-value]


def sentences(repeated: Duplicates, *, dropped: bool, data: set[str]) -> list[str]:
    """Say what was found, by pairs of datasets, with an example each."""
    out = []
    for (one, two), n in sorted(repeated.counts.items()):
        (_, path, entry), (_, other, place) = repeated.examples[one, two]
        example = f", such as entry {entry} of {path} and entry {place} of {other}"
        inside = f"{one}: {n} events are there twice" if one == two else f"{two}: {n} events are in {one} as well"
        if two in data:
            same, left = "", "; they were left out" if dropped else "; --duplicates drop leaves them out"
        else:
            same, left = ", missing pT", "; those of simulation are counted only, since sums of weights count them too"
        out.append(f"{inside} (run, luminosity section, event{same}){example}{left}")
    return out
