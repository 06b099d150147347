"""The dry run: the processor works on the first events of every kind of dataset, before anything is sent out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from coffea_ad.errors import BadFile, CoffeaADError, MissingBranch, ProcessorFailed, listed
from coffea_ad.nanoaod.candidates import BESIDE, usual_name
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nanoaod.reading import (
    OPEN_FILES,
    BranchFilter,
    Unreadable,
    build_events,
    layout,
    uncounted_in,
    unreadable_column,
)
from coffea_ad.nanoaod.schema import NanoAODSchema
from coffea_ad.running.checkpoints import home_of
from coffea_ad.running.chunks import checked, own_lines
from coffea_ad.running.eras import divide_by_era
from coffea_ad.running.job import Job
from coffea_ad.running.opening import Fileset
from coffea_ad.running.preflight import check_files
from coffea_ad.running.sources import noting_imports

__all__ = ["FirstFiles", "declared_branches", "dry_run", "first_events", "first_files_of"]

_FIRST = 100  # events


class FirstFiles(NamedTuple):
    """A file of a dataset of each kind, and which of these datasets each dataset is like."""

    paths: dict[str, str]
    like: dict[str, str]


def first_files_of(job: Job, fileset: Fileset, notes: list[str], *, tolerant: bool, retries: int) -> FirstFiles:
    """Check one file of every dataset against what the processor declares.

    Parameters
    ----------
    job : Job
    fileset, notes, tolerant, retries
        As `check_files` takes them.

    Raises
    ------
    BadFile, MissingBranch
    """
    paths: dict[str, str] = {}
    like: dict[str, str] = {}
    for part in divide_by_era(fileset, eras=bool(job.eras)):
        name = next(iter(part))
        needs = job.needs(name, part[name]["metadata"])
        of_era = FirstFiles(*check_files(part, needs, notes, tolerant=tolerant, retries=retries))
        paths, like = paths | of_era.paths, like | of_era.like
    return FirstFiles(paths, like)


def dry_run(
    job: Job, fileset: Fileset, first: FirstFiles, notes: list[str], *, tolerant: bool
) -> tuple[BranchFilter | None, dict[Any, Any]]:
    """Let a processor that writes to a folder which is removed work on the first events.

    Parameters
    ----------
    job : Job
    fileset, notes, tolerant
        As `first_events` takes them.
    first : FirstFiles

    Returns
    -------
    branches : BranchFilter or None
        Those to open; all if None.
    outputs : {dataset: accumulator}
        Also of those datasets that are like one which was looked at.

    Raises
    ------
    ProcessorFailed, BadFile, MissingBranch
    """
    outputs: dict[Any, Any] = {}
    with noting_imports(home_of(job.instance, job.module)), job.dry_run() as processor:
        branches = first_events(fileset, first.paths, processor, notes, tolerant=tolerant, outputs=outputs)
    outputs |= {name: outputs[one] for name, one in first.like.items() if one in outputs and name not in outputs}
    return branches, outputs


def declared_branches(job: Job) -> BranchFilter | None:
    """Return the branches that a processor declares; None if it declares nothing."""
    if not hasattr(job.instance, "reads"):
        return None
    needs = job.instance.reads()
    return BranchFilter(frozenset(b for ways in needs.values() for way in ways for b in way))


def first_events(
    fileset: Mapping[str, Mapping[str, Any]],
    first: Mapping[str, str],
    processor: Any,
    notes: list[str],
    *,
    tolerant: bool,
    outputs: dict[Any, Any] | None = None,
) -> BranchFilter | None:
    """Let the processor work on the first events of every dataset, and see what it reads.

    Parameters
    ----------
    fileset : {dataset: {"files": {path: tree}, "metadata": {…}}}
    first : {dataset: path}
        As `check_files` returns them.
    processor : ProcessorABC
    notes : list of str
        Takes what was found out.
    tolerant : bool
        Leave out files that cannot be read.
    outputs : dict, optional
        Takes what the processor returned, of one dataset after the other.

    Returns
    -------
    BranchFilter or None
        The branches to open: what the processor's `reads` declares and what it was seen to read, or, if it declares
        nothing, what it was seen to read, for files with the same branches as those that it was seen with.

    Raises
    ------
    ProcessorFailed, BadFile, MissingBranch
    """
    process: Callable[[Any], Any] = getattr(processor, "process", processor)
    read: set[str] = set()
    layouts: set[str] = set()
    for dataset, path in first.items():
        try:
            names, columns, out = _read_by(process, dataset, path, fileset[dataset])
        except Unreadable as error:
            if not tolerant:
                kind = MissingBranch if error.args[0] == "MissingBranch" else BadFile
                raise kind(error.args[1]) from None
            continue  # the run tells
        read |= columns
        if outputs is not None:
            outputs.update(out)
        layouts.add(layout(names))
    if not hasattr(processor, "reads"):
        return BranchFilter(frozenset(read), frozenset(layouts)) if layouts else None
    declared = {b for ways in processor.reads().values() for way in ways for b in way}
    more = sorted(
        branch
        for branch in read - declared - {*EVENT_ID, "genWeight"} - _counters(read)
        if usual_name(branch) not in declared and not branch.endswith(BESIDE)
    )
    if more:
        notes.append(f"the processor reads branches that its reads() does not name: {listed(more, 8, rest='more')}")
    return BranchFilter(frozenset(declared | read))


def _read_by(
    process: Callable[[Any], Any], dataset: str, path: str, entry: Mapping[str, Any]
) -> tuple[list[str], set[str], Mapping[Any, Any]]:
    """Return the branches of a file, what a processor reads of its first events, and what it returns."""
    opened = OPEN_FILES.get(path)
    tree, names = opened.tree(entry["files"][path])
    stop = min(_FIRST, tree.num_entries)
    chunk = {"dataset": dataset, "filename": path, "treename": entry["files"][path], "entrystart": 0, "entrystop": stop}
    metadata = {**chunk, "fileuuid": str(opened.file.file.uuid), **entry["metadata"]}
    events, log = build_events(opened, metadata, NanoAODSchema)
    try:
        out = process(events)
    except (BadFile, MissingBranch) as error:
        raise Unreadable(type(error).__name__, str(error)) from None
    except CoffeaADError:
        raise
    except Exception as error:
        unreadable = unreadable_column(error, path, 0, stop)
        unreadable = unreadable or uncounted_in(error, opened, entry["files"][path], path)
        if unreadable is not None:
            raise unreadable from None
        raise ProcessorFailed(f"{path}, first events: {own_lines(error)}") from error
    checked(out, dataset)
    return names, {opened.branch(entry["files"][path], e.branch) for e in log}, out


def _counters(branches: set[str]) -> set[str]:
    return {"n" + b.split("_")[0] for b in branches}
