"""Repeated events in a run: whether they are looked for, left out of data by a first pass, and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from coffea.processor.executor import WorkItem

from coffea_ad.errors import ConfigError
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nanoaod.reading import BranchFilter
from coffea_ad.running.checkpoints import Checkpoints, digest_of
from coffea_ad.running.chunks import REPEATED, SafeProcessor
from coffea_ad.running.duplicates import LIMIT, Duplicates, Identify, find, sentences
from coffea_ad.running.options import RunOptions
from coffea_ad.running.processing import process, runner_on
from coffea_ad.running.runner import OpenFileRunner, runner_class
from coffea_ad.splits import lack_numbers

__all__ = ["looks_for_repeated", "repeated_events", "without_repeated"]


def looks_for_repeated(options: RunOptions, n_events: int, notes: list[str]) -> bool:
    """Say whether repeated events are looked for; with many events not unasked."""
    if options.duplicates == "note" and n_events > LIMIT:
        notes.append(
            f"not looked for repeated events: {n_events} are more than {LIMIT:g}, and each takes 8 bytes of memory here; "
            "--duplicates drop looks for them in data"
        )
        return False
    if options.duplicates != "ignore" and not issubclass(runner_class(), OpenFileRunner):
        notes.append("not looked for repeated events: this coffea has another work function than the known one")
        return False
    return options.duplicates != "ignore"


def without_repeated(
    pool: Any, options: RunOptions, chunks: list[WorkItem], data: set[str], key: Mapping[str, Any], checkpoints: str | None
) -> list[WorkItem]:  # fmt: skip
    """Read the ids of all data first, and return the chunks with the entries that each has to leave out.

    Parameters
    ----------
    pool : executor
    options : RunOptions
    chunks : list of WorkItem
        In the order of the fileset: the first of several equal events stays.
    data : set of str
        Datasets of data.
    key : dict
        Of the run.
    checkpoints : str or None
        Folder of the run's checkpoints.

    Raises
    ------
    ConfigError
        Events of a file cannot be told apart.
    """
    key_of_ids = {"duplicates": 1, "package": key["package"], "versions": key["versions"]}  # not processor and models
    store = None if checkpoints is None else Checkpoints(checkpoints, digest_of(key_of_ids))
    runner = runner_on(pool, options, store, [], limit_chunks=None)
    first_pass = SafeProcessor(Identify(), BranchFilter(frozenset(EVENT_ID)), options.retries, identify=True)
    done = process(runner, [c for c in chunks if c.dataset in data], first_pass)
    for (_, path, _), ids in sorted(done.get("ids", {}).items()):
        if lack_numbers(ids):
            raise ConfigError(
                f"{path}: {len(ids)} events have the same run, luminosityBlock and event, and --duplicates drop would leave out "
                "all but one; run without it"
            )
    entries = find(done.get("ids", {}), [_place(c) for c in chunks], data).entries
    out = []
    for chunk in chunks:
        all_of_file = entries.get((chunk.dataset, chunk.filename), ())
        inside = [e for e in all_of_file if chunk.entrystart <= e < chunk.entrystop]
        out.append(replace(chunk, usermeta={**(chunk.usermeta or {}), REPEATED: inside}) if inside else chunk)
    return out


def repeated_events(
    done: dict[str, Any], chunks: Sequence[WorkItem], data: set[str], notes: list[str]
) -> dict[str, Any]:
    """Compare the ids of all events, say which are there twice, and return what the report has of them.

    Parameters
    ----------
    done : dict
        The run's accumulator; its ids are taken out, since they are large.
    chunks : sequence of WorkItem
    data : set of str
        Datasets of data.
    notes : list of str
        Takes the sentences.
    """
    repeated = find(done.pop("ids", {}), [_place(c) for c in chunks], data)
    notes += _sentences(repeated, chunks, data)
    read = sum(file["events"] for of_dataset in done.get("files", {}).values() for file in of_dataset.values())
    if read > repeated.looked_at:
        unread = read - repeated.looked_at
        notes.append(f"repeated events: the ids could not be read of {unread} events, which were not compared")
    return repeated.to_dict()


def _place(chunk: WorkItem) -> tuple[str, str, int]:
    return chunk.dataset, chunk.filename, chunk.entrystart


def _sentences(repeated: Duplicates, chunks: Sequence[WorkItem], data: set[str]) -> list[str]:
    """Say which events are there twice, and whether all repeated ones of data were left out."""
    dropped: set[tuple[str, str, int]] = set()
    for c in chunks:
        dropped.update((c.dataset, c.filename, e) for e in (c.usermeta or {}).get(REPEATED, ()))
    notes = sentences(repeated, dropped=bool(dropped), data=data)
    remaining = sum((d, p, e) not in dropped for (d, p), entries in repeated.entries.items() for e in entries)
    if dropped and remaining:
        notes.append(f"{remaining} repeated events were not left out: their files could not be read in the first pass")
    return notes
