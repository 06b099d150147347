"""Files that are read in part: the steps of a fileset, as coffea's preprocessing writes them, made chunks of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from coffea.processor.executor import WorkItem

from coffea_ad.errors import ConfigError

__all__ = ["chunks_in_steps"]


def chunks_in_steps(
    chunks: Sequence[WorkItem],
    fileset: Mapping[str, Mapping[str, Any]],
    facts: Mapping[tuple[str, str], Mapping[str, Any]],
    *,
    chunksize: int,
    limit_chunks: int | None,
    notes: list[str],
) -> list[WorkItem]:
    """Return the chunks of a run: as they are, and only what the steps cover of files that have some.

    Parameters
    ----------
    chunks : sequence of WorkItem
        Of whole files.
    fileset : {dataset: {"files": …, "steps": {path: [[start, stop], …]}}}
        As `load_fileset` gives it; a file without steps is read as a whole.
    facts : {(dataset, path): dict}
        What was found of each file.
    chunksize, limit_chunks : int
    notes : list of str
        Takes a sentence for each dataset that is read in part.

    Raises
    ------
    ConfigError
        Steps go beyond the end of a file.
    """
    out = [c for c in chunks if not fileset[c.dataset].get("steps")]
    for dataset, entry in fileset.items():
        steps = entry.get("steps")
        if not steps:
            continue
        first = {c.filename: c for c in reversed(chunks) if c.dataset == dataset}
        parts: list[WorkItem] = []
        selected = total = 0
        for path in entry["files"]:
            if path not in first:
                continue  # it could not be opened, or lies beyond the limit
            events = int(facts[dataset, path]["numentries"])
            ranges = steps.get(path, [[0, events]])
            if ranges[-1][1] > events:
                raise ConfigError(
                    f"dataset {dataset}: the steps of {path} end at event {ranges[-1][1]}, but it has {events}; it is another file "
                    "than when the fileset was made"
                )
            parts += [replace(first[path], entrystart=a, entrystop=b) for a, b in _cut(ranges, chunksize)]
            selected, total = selected + sum(b - a for a, b in ranges), total + events
        if total:
            notes.append(f"{dataset}: read in part, as its steps say: {selected} of the {total} events in its files")
        out += parts[:limit_chunks]
    return out


def _cut(ranges: Sequence[Sequence[int]], chunksize: int) -> Iterator[tuple[int, int]]:
    """Cut ranges into nearly equal chunks, as coffea cuts files."""
    for start, stop in ranges:
        size = max(math.ceil((stop - start) / max(round((stop - start) / chunksize), 1)), 1)
        yield from ((a, min(a + size, stop)) for a in range(start, stop, size))
        if start == stop:
            yield start, stop
