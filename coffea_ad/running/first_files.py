"""One file of every dataset before a run: its branches, without parsing thousands of them again and again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from coffea_ad.errors import BadFile, MissingBranch
from coffea_ad.nanoaod.columns import EVENT_ID, missing_branches
from coffea_ad.nanoaod.conventions import told_by
from coffea_ad.nanoaod.reading import OPEN_FILES, attempts, reason, simulation_record

__all__ = ["FirstFile", "first_files", "has_branches", "streamed"]

_AT_ONCE = 8  # files that are opened at the same time: waiting for servers is what takes long
_LONGEST = 254  # bytes of a name whose length is one byte


@dataclass(frozen=True)
class FirstFile:
    """A file of a dataset, its branches in the order of the file, and what it tells of its simulation."""

    path: str
    names: tuple[str, ...]
    told: Mapping[str, Any] = field(default_factory=dict)


def streamed(file: Any, tree: str) -> bytes:
    """Return a TTree as it is in the file, decompressed and not parsed; empty for anything else."""
    key = file.key(tree)
    if key.fClassName != "TTree":
        return b""
    chunk, cursor = key.get_uncompressed_chunk_cursor()
    return bytes(chunk.raw_data[cursor.index - chunk.start :])


def _name(name: str) -> bytes:
    text = name.encode()
    return bytes([len(text)]) + text if len(text) <= _LONGEST else text


def has_branches(stream: bytes, names: Iterable[str], others: Iterable[str] = ()) -> bool:
    """Say whether a TTree has all branches of a list, in its order, and none of some others.

    Names stand in the stream with their lengths before them, in the order of the branches, so one pass finds them
    all, where parsing thousands of branches takes seconds (benchmarks/preflight.py).

    Parameters
    ----------
    stream : bytes
        As `streamed` returns it.
    names, others : iterable of str
    """
    place = 0
    for name in names:
        place = stream.find(_name(name), place)
        if place < 0:
            return False
        place += len(name)
    return not any(_name(name) in stream for name in others)


class _Known:
    """Lists of branches that have been met; what is asked for and not in a list must not be in a file that is like it."""

    def __init__(self, asked: Iterable[str]) -> None:
        self.asked, self.lists = set(asked), list[tuple[str, ...]]()

    def add(self, names: tuple[str, ...]) -> None:
        if names not in self.lists:
            self.lists.append(names)

    def like(self, stream: bytes) -> tuple[str, ...] | None:
        for names in list(self.lists):
            if stream and has_branches(stream, names, self.asked.difference(names)):
                return names
        return None


def _glance(path: str, tree: str, known: _Known, retries: int) -> FirstFile | None:
    """Return a file whose branches are those of a known one; None if they have to be looked at, or it cannot be read."""
    for _ in attempts(path, retries):
        try:
            opened = OPEN_FILES.get(path)
            names = known.like(streamed(opened.file, tree))
            return None if names is None else FirstFile(path, names, told_by(simulation_record(opened.file)))
        except Exception:  # noqa: BLE001, S112  it is opened once more, and then its error is told
            continue
        finally:
            OPEN_FILES.drop(path)
    return None


def _look(path: str, tree: str, retries: int) -> tuple[FirstFile, bool]:
    """Parse a file, and say whether it has events."""
    for left in attempts(path, retries):
        try:
            opened = OPEN_FILES.get(path)
            events, names = opened.tree(tree)
            told = told_by(simulation_record(opened.file))
            return FirstFile(path, tuple(names), told), events.num_entries > 0
        except Exception as error:  # noqa: BLE001  codecs and sources raise what they like
            OPEN_FILES.drop(path)
            if not left:
                raise BadFile(reason(path, error)) from None
    raise AssertionError


def first_good(paths: Mapping[str, str], needs: Mapping[str, Any], *, tolerant: bool, retries: int) -> FirstFile | None:
    """Return the first file with events and all branches that are needed; the run itself finds out about the others.

    Raises
    ------
    BadFile, MissingBranch
        Unless `tolerant`.
    """
    for path, tree in paths.items():
        try:
            first, has_events = _look(path, tree, retries)
        except BadFile:
            if not tolerant:
                raise
            continue
        if not has_events:
            continue
        needed = [b for ways in needs.values() for way in ways for b in way]
        lacking = _lacking(first, needs) or OPEN_FILES.get(path).uncounted(tree, needed)
        if not lacking:
            return first
        if not tolerant:
            raise MissingBranch(f"{path}: {lacking}")
    return None


def _lacking(first: FirstFile, needs: Mapping[str, Any]) -> str:
    return missing_branches({"every event": (EVENT_ID,), **needs}, set(first.names))


def first_files(
    fileset: Mapping[str, Mapping[str, Any]], needs: Mapping[str, Any], *, tolerant: bool, retries: int
) -> dict[str, FirstFile]:
    """Return a file of every dataset that has one with events, in the order of the fileset.

    A file with the same branches as an earlier one is not parsed, and may have no events.

    Parameters
    ----------
    fileset : {dataset: {"files": {path: tree}, …}}
    needs : {what: alternatives}
        Branches, as `missing_branches` takes them; the event ids are needed in any case.
    tolerant : bool
        Look for a good file behind bad ones.
    retries : int
        How often a remote file is tried again.

    Raises
    ------
    BadFile, MissingBranch
    """
    known = _Known({*EVENT_ID, "genWeight", *(b for ways in needs.values() for way in ways for b in way)})
    out: dict[str, FirstFile] = {}

    def look(dataset: str) -> None:
        first = first_good(fileset[dataset]["files"], needs, tolerant=tolerant, retries=retries)
        if first is not None:
            known.add(first.names)
            out[dataset] = first

    datasets = [name for name, entry in fileset.items() if entry["files"]]
    if datasets:
        look(datasets[0])
    for dataset, glanced in _glances(datasets[1:], fileset, known, retries):
        path, tree = next(iter(fileset[dataset]["files"].items()))
        first = glanced or _glance(path, tree, known, 0)  # another list of branches may be known by now
        if first is None:
            look(dataset)
        elif not (lacking := _lacking(first, needs)):
            out[dataset] = first
        elif tolerant:
            look(dataset)
        else:
            raise MissingBranch(f"{path}: {lacking}")
    return {name: out[name] for name in fileset if name in out}


def _glances(
    datasets: Sequence[str], fileset: Mapping[str, Mapping[str, Any]], known: _Known, retries: int
) -> Iterator[tuple[str, FirstFile | None]]:
    """Open the first files of datasets, some at a time."""
    waiting = iter(datasets)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while batch := list(islice(waiting, _AT_ONCE)):
            firsts = [next(iter(fileset[name]["files"].items())) for name in batch]
            yield from zip(batch, pool.map(lambda f: _glance(f[0], f[1], known, retries), firsts), strict=True)
