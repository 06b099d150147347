"""What opening the files of a fileset shows: their size, tree, events, branches, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uproot
from uproot.reading import ReadOnlyFile

from coffea_ad.errors import ConfigError
from coffea_ad.files.systems import require_filesystem
from coffea_ad.nanoaod.candidates import usual_name
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nanoaod.constituents import CONSTITUENT_TABLES
from coffea_ad.nanoaod.reading import runs_total, simulation_record
from coffea_ad.nanoaod.records import branch_names
from coffea_ad.progress import progress

__all__ = ["InspectedFile", "inspect_files"]

_HEADER = 403  # bytes that uproot asks for first; no ROOT file is shorter


@dataclass(frozen=True)
class InspectedFile:
    """What opening one file showed.

    `size` is None where a server gives none, `generated` is genEventCount of all of `Runs` where it is there, `simulated` is
    what a file of `coffea-ad simulate` says of how it was made, and `problems` are the causes, one sentence each, why the
    file cannot be used.
    """

    events: int = 0
    size: int | None = None
    uuid: str = ""
    branches: frozenset[str] = frozenset()
    layout: str = ""
    generated: int | None = None
    simulated: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def inspect_files(fileset: Mapping[str, Mapping[str, Any]], *, workers: int = 8) -> dict[str, dict[str, InspectedFile]]:
    """Open every file, several at a time, behind a progress bar: {dataset: {path: what was found}}.

    Raises
    ------
    ConfigError
        Files are on a storage that nothing installed can read; said once, not for each of them.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}, but must be positive")
    files = [(dataset, path, tree) for dataset, entry in fileset.items() for path, tree in entry["files"].items()]
    first_of = {path.partition("://")[0]: path for _, path, _ in reversed(files) if "://" in path}
    for address in first_of.values():
        try:
            require_filesystem(address)
        except ConfigError as error:
            raise ConfigError(f"{error}; without validation addresses are taken as they are") from None
    done: dict[tuple[str, str], InspectedFile] = {}
    known: dict[frozenset[str], frozenset[str]] = {}  # thousands of files share a few sets of thousands of branches
    pool = ThreadPoolExecutor(workers)
    try:
        with progress("checking files", len(files)) as advance:
            futures = {pool.submit(_inspect, path, tree, known): (dataset, path) for dataset, path, tree in files}
            for future in as_completed(futures):
                done[futures[future]] = future.result()
                advance()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # an interrupt does not wait for the files that are left
    return {dataset: {path: done[dataset, path] for path in entry["files"]} for dataset, entry in fileset.items()}


def _inspect(path: str, tree: str, known: dict[frozenset[str], frozenset[str]]) -> InspectedFile:
    problems: list[str] = []
    seen: dict[str, Any] = {}
    try:
        local = None if "://" in path else _no_file(Path(path))
        if local:
            return InspectedFile(problems=(local,))
        with ReadOnlyFile(path) as file:
            size = file.source.num_bytes
            seen |= {"size": size, "uuid": "" if file.uuid.int == 0 else str(file.uuid)}
            if size is not None and size < file.fEND:
                problems.append(f"the file is cut: {size} of {file.fEND} bytes are there")
            directory = file.root_directory
            events = directory[tree]
            if not hasattr(events, "num_entries"):
                problems.append(f"{tree!r} is no tree, but {events.classname}")
                return InspectedFile(**seen, problems=tuple(problems))
            branches = frozenset(_branches(events))
            seen |= {"events": int(events.num_entries), "layout": _layout(branches)}
            seen["branches"] = known.setdefault(branches, branches)
            lost = [] if size is None else _beyond(events, size)
            if lost:
                what = f"{len(lost)} of {len(branches)} branches end behind the last byte, {lost[0]} for one"
                problems = [f"{problems[0]}, and {what}" if problems else what]
            elif problems and isinstance(events, uproot.TTree):
                problems[0] += "; the events are complete"
            lacking = [name for name in EVENT_ID if name not in branches]
            if lacking:
                problems.append(f"there is no branch {' and no '.join(lacking)}, by which events are told apart")
            generated = runs_total(directory, "genEventCount", tree)
            seen["generated"] = None if generated is None else int(generated)
            seen["simulated"] = simulation_record(directory)
    except uproot.exceptions.KeyInFileError:
        problems = problems or [f"there is no tree {tree!r}"]  # of a cut file the cut says more
    except Exception as error:  # noqa: BLE001  a damaged file makes uproot raise anything, and must not hide the others
        problems = problems or [_reason(error)]
    return InspectedFile(**seen, problems=tuple(problems))


def _no_file(path: Path) -> str:
    """Say why there is nothing to open, or return an empty string."""
    if not path.exists():
        logical = str(path).startswith("/store/")
        hint = "; before a logical name of CMS put a redirector, as in root://host//store/…" if logical else ""
        return f"there is no such file{hint}"
    if path.is_dir():
        return "this is a folder"
    size = path.stat().st_size
    if size == 0:
        return "the file is empty (0 bytes)"
    return f"this is not a ROOT file ({size} bytes)" if size < _HEADER else ""


def _reason(error: Exception) -> str:
    text = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
    return "this is not a ROOT file" if "not a ROOT file" in text else f"cannot be read ({text[:160]})"


def _branches(events: Any) -> Iterable[str]:
    """Return the branches of a tree; fields of an RNTuple's records by their names in NanoAOD."""
    if isinstance(events, uproot.behaviors.RNTuple.HasFields):
        return branch_names(events.typenames()).values()
    return list(events.keys())


def _layout(stored: frozenset[str]) -> str:
    branches = {usual_name(branch) for branch in stored}
    for table in CONSTITUENT_TABLES:
        if any(branches.issuperset(table.branches(collection)) for collection in ("FatJet", "Jet")):
            return table.flavour
    return "without constituents"


def _beyond(events: Any, size: int) -> list[str]:
    """Name the branches that have a basket behind the end of the file, which uproot opens without an error."""
    if not isinstance(events, uproot.TTree):
        return []
    out = []
    for name, branch in events.iteritems():
        n = branch.member("fWriteBasket")  # further places are empty
        seek, length = (np.asarray(branch.member(f"fBasket{m}")[:n], np.int64) for m in ("Seek", "Bytes"))
        if np.max(seek + length, initial=0) > size:
            out.append(name)
    return out
