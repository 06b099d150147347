"""One chunk on a worker: the processor's result, and a record of what happened."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NamedTuple, NoReturn

import numpy as np
from coffea import processor as coffea_processor
from coffea.processor.executor import WorkItem

from coffea_ad import files
from coffea_ad.errors import BadFile, CoffeaADError, MissingBranch, NotWritten, ProcessorFailed
from coffea_ad.features import Registered
from coffea_ad.nanoaod.columns import EVENT_ID, missing_branches
from coffea_ad.nanoaod.conventions import conventions
from coffea_ad.nanoaod.reading import (
    OPEN_FILES,
    SILENT,
    BranchFilter,
    Open,
    Unreadable,
    attempts,
    build_events,
    reason,
    uncounted_in,
    unreadable_column,
)
from coffea_ad.running.duplicates import hashes, of_content
from coffea_ad.running.eras import needs_of
from coffea_ad.running.sources import Sources
from coffea_ad.scoring.monitoring import monitoring
from coffea_ad.splits import lack_numbers
from coffea_ad.weights import is_simulation

__all__ = [
    "FAILED_TOPIC",
    "REPEATED",
    "SUMS",
    "Chunk",
    "Failure",
    "SafeProcessor",
    "checked",
    "own_lines",
    "unprocessed",
]


FAILED_TOPIC = "coffea-ad-failed"
REPEATED = "repeated_entries"
"""The key of a chunk's metadata that names the entries which are left out, since they are elsewhere as well."""
SUMS = ("sumw", "sumw_abs", "sumw2")
"""What is added up for each file of what `weights.weight_sums` gives."""


class Failure(NamedTuple):
    """What was not processed: a chunk, or a whole file where start and stop are −1."""

    dataset: str
    file: str
    start: int
    stop: int
    uuid: str
    error: str
    cause: str


class SafeProcessor(coffea_processor.ProcessorABC):
    """A processor, the modules it imports, the branches it reads, how often a remote file is tried, whether events are identified."""

    def __init__(
        self,
        processor: Any,
        wanted: BranchFilter | None = None,
        retries: int = 2,
        *,
        identify: bool = False,
        sources: Sources | None = None,
    ) -> None:
        self.sources = sources  # before all: a worker imports from them what it unpickles
        self.features = (
            Registered()
        )  # before the processor, so that a worker knows them before it unpickles the processor
        self.processor, self.wanted, self.retries, self.identify = processor, wanted, retries, identify
        self.problem = ""

    def process(self, events: Any) -> Any:
        """Let the processor process."""
        return getattr(self.processor, "process", self.processor)(events)

    def postprocess(self, accumulator: Any) -> Any:
        """Let the processor postprocess, if it does."""
        postprocess = getattr(self.processor, "postprocess", None)
        if postprocess is None:
            return accumulator
        before = copy.deepcopy(accumulator)
        try:
            return postprocess(accumulator)
        except Exception as error:  # noqa: BLE001  it must not cost what was processed
            self.problem = f"postprocess failed, and the results are those before it: {own_lines(error)}"
            return before


def own_lines(error: BaseException) -> str:
    """Say what a processor raised, and where in code that is not a library's."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "site-packages" not in f.filename]
    lines = "".join(traceback.format_list([f for f in frames if f.filename != __file__][-3:]))
    return f"the processor raised {type(error).__name__}: {error}\n{lines}".rstrip()


def unprocessed(item: WorkItem, error: str, cause: str) -> dict[str, Any]:
    """Return the result of a chunk that was not processed."""
    key = item.fileuuid.hex() if isinstance(item.fileuuid, bytes) else ""
    failure = Failure(item.dataset, item.filename, item.entrystart, item.entrystop, key, error, cause)
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with contextlib.suppress(ValueError):  # not on a worker
            distributed.get_worker().log_event(FAILED_TOPIC, cause)
    return {"processed": set(), "failed": {failure}}


def checked(out: Any, dataset: str) -> dict[str, float]:
    """Return the sums of weights among what a processor has returned, which must be a dictionary.

    Raises
    ------
    ProcessorFailed
    """
    if not isinstance(out, Mapping):
        raise ProcessorFailed(
            f"process returned {type(out).__name__}, but must return a dictionary: dataset → results, or name → result"
        )
    of_dataset = out.get(dataset)
    sums = {k: of_dataset[k] for k in SUMS if k in of_dataset} if isinstance(of_dataset, Mapping) else {}
    for name, value in sums.items():
        if not isinstance(value, Real):
            raise ProcessorFailed(f"process returned {value!r} as {name} of {dataset}, but must return a number")
    return {k: float(v) for k, v in sums.items()}


@dataclass
class Chunk:
    """A chunk to be processed: its item, the processor, and how it is read."""

    item: WorkItem
    safe_processor: SafeProcessor
    schema: Any
    options: dict[str, Any]
    checkpoints: Any
    cache_function: Callable[[], Any]

    def __post_init__(self) -> None:
        item = self.item
        self.metadata = {
            "dataset": item.dataset,
            "filename": item.filename,
            "treename": item.treename,
            "entrystart": item.entrystart,
            "entrystop": item.entrystop,
            "fileuuid": str(uuid.UUID(bytes=item.fileuuid)) if item.fileuuid else "",
            **(item.usermeta or {}),
        }

    def result(self) -> dict[str, Any]:
        """Process the chunk, or take what a checkpoint has of it; what fails is a result as well."""
        if self.checkpoints is not None:
            stored = self.checkpoints.load(self.metadata, self.safe_processor.processor)
            if stored is not None:
                # what it cost then is not what this run costs
                metrics = {"columns": stored.get("metrics", {}).get("columns", set())}
                return {**stored, "metrics": metrics, "resumed": 1}
        path = self.item.filename
        silent = SILENT.cause(path, files.patience())
        if silent:
            return unprocessed(self.item, "NoAnswer", silent)
        failed = Unreadable()
        for _ in attempts(self.item.filename, self.safe_processor.retries):
            try:
                out = self._processed()
                break
            except Unreadable as error:
                failed = error
                OPEN_FILES.drop(self.item.filename)
        else:
            if failed.args[0] != "NotWritten":  # that is another server
                SILENT.note(path, failed.args[1])
            return unprocessed(self.item, *failed.args)
        if self.checkpoints is not None:
            problem = self.checkpoints.save(out, self.metadata, self.safe_processor.processor)
            if problem:
                out["unsaved"] = {problem}
        return out

    def _processed(self) -> dict[str, Any]:
        started, cpu = time.monotonic(), time.thread_time()
        opened, names = self._opened()
        source = opened.file.file.source
        before = source.num_requested_bytes
        wanted = self.safe_processor.wanted.of(names) if self.safe_processor.wanted is not None else None
        again: dict[str, Any] = {}
        said: set[str] = set()
        try:
            out, seen, columns, ids = self._attempt(opened, wanted, said)
        except Unreadable:
            raise
        except Exception as error:  # noqa: BLE001  raised again, or found to be right
            if wanted is None or len(wanted) == len(names):
                self._blame(error)
            try:  # it may miss a branch that it has not declared
                out, seen, columns, ids = self._attempt(opened, None, said)
            except Unreadable:
                raise
            except Exception as really:  # noqa: BLE001  raised again
                self._blame(really)
            again = {
                "again": 1,
                "undeclared": columns - wanted,
                "first_error": {f"{type(error).__name__}: {error}"[:200]},
            }
        dataset, filename = self.item.dataset, self.item.filename
        sums = checked(out, dataset)
        return {
            "out": out,
            "processed": {replace(self.item, usermeta=None, preload=None)},
            "files": {dataset: {filename: {"events": len(self.item), **sums}}},
            "inputs": {dataset: seen},
            **ids,
            "conventions": {dataset: said},
            **again,
            "metrics": {
                "bytesread": source.num_requested_bytes - before,
                "columns": columns,
                "entries": len(self.item),
                "processtime": time.monotonic() - started,
                "cputime": time.thread_time() - cpu,
            },
        }

    def _opened(self) -> tuple[Open, list[str]]:
        path = self.item.filename
        try:
            opened = OPEN_FILES.get(path, **self.options)
            tree, names = opened.tree(self.item.treename)
            changed = opened.file.file.fUUID != self.item.fileuuid or tree.num_entries < self.item.entrystop
        except Exception as error:
            raise Unreadable(type(error).__name__, reason(path, error)) from error
        if changed:
            raise Unreadable("BadFile", f"{path}: it is another file than when the run began; run all again")
        if len(self.item) > 0:
            needs = needs_of(self.safe_processor.processor, self.metadata, self.item.dataset)
            lacking = missing_branches({"every event": (EVENT_ID,), **needs}, names)
            if lacking:
                raise Unreadable("MissingBranch", f"{path}: {lacking}")
            declared = [b for ways in needs.values() for way in ways for b in way]
            lacking = opened.uncounted(self.item.treename, declared)
            if lacking:
                raise Unreadable("BadFile", f"{path}: {lacking}")
            if is_simulation(self.metadata) and "genWeight" not in names:
                raise Unreadable("MissingBranch", f"{path}: there is no genWeight, and its dataset is simulation")
        return opened, names

    def _attempt(
        self, opened: Open, wanted: frozenset[str] | None, said: set[str]
    ) -> tuple[Any, dict[str, Any], set[str], dict[str, Any]]:
        item = self.item
        options = {"preload": item.preload, "buffer_cache": self.cache_function()}
        events, log = build_events(opened, self.metadata, self.schema, wanted, **options)
        ids: dict[str, Any] = {}
        repeated = np.asarray(self.metadata.get(REPEATED, ()), np.int64) - item.entrystart
        remaining = events if not len(repeated) else events[~np.isin(np.arange(len(item)), repeated)]
        with monitoring() as seen, conventions(said):
            try:
                out = self.safe_processor.process(remaining)
            except (BadFile, MissingBranch, NotWritten) as error:
                if wanted is not None and isinstance(error, MissingBranch):
                    raise
                raise Unreadable(type(error).__name__, str(error)) from error
            except Exception as error:
                unreadable = unreadable_column(error, item.filename, item.entrystart, item.entrystop)
                unreadable = unreadable or uncounted_in(error, opened, item.treename, item.filename)
                if unreadable is None:
                    raise
                raise unreadable from error
        columns = {opened.branch(item.treename, entry.branch) for entry in log}
        if self.safe_processor.identify:
            with contextlib.suppress(Exception):  # the events without ids are counted; they are processed all the same
                ids = {"ids": {(item.dataset, item.filename, item.entrystart): self._hashes(events, opened, said)}}
        return out, seen, columns, ids

    def _hashes(self, events: Any, opened: Open, said: set[str]) -> Any:
        item, ids = self.item, hashes(events)
        if lack_numbers(ids):
            said.add(
                "all events of a chunk have the same run, luminosityBlock and event, by which repeated events, folds and smearing "
                "tell them apart"
            )
        if is_simulation(self.metadata) is False:
            return ids
        tree, names = opened.tree(item.treename)
        return of_content(ids, tree, names, item.dataset, item.entrystart, item.entrystop)

    def _blame(self, error: Exception) -> NoReturn:
        if isinstance(error, CoffeaADError):
            raise error
        item = self.item
        where = f"{item.filename}, events {item.entrystart} to {item.entrystop} of {item.dataset}"
        raise ProcessorFailed(f"{where}: {own_lines(error)}") from error
