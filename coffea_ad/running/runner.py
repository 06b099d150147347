"""coffea's Runner, with another way to open files and another work function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import cloudpickle
import lz4.frame
from coffea import processor as coffea_processor
from coffea.processor.accumulator import set_accumulator
from coffea.processor.executor import FileMeta

from coffea_ad import files
from coffea_ad.luminosity.sections import sections_in
from coffea_ad.nanoaod.conventions import told_by
from coffea_ad.nanoaod.reading import (
    OPEN_FILES,
    SILENT,
    attempts,
    layout,
    reason,
    runs_total,
    simulation_record,
)
from coffea_ad.running.chunks import Chunk
from coffea_ad.weights import is_simulation

__all__ = ["OpenFileRunner", "Runner", "runner_class"]


class FileItem(FileMeta):
    """coffea's file, whose own hash takes names in ASCII only."""

    __slots__ = ()

    def __hash__(self) -> int:
        """Return a hash of any name."""
        return hash((self.dataset, self.filename, self.treename))


class Runner(coffea_processor.Runner):
    """coffea's Runner, with another way to open files and to process a chunk."""

    @staticmethod
    def _normalize_fileset(fileset: Any, treename: Any) -> Iterator[FileItem]:
        for f in coffea_processor.Runner._normalize_fileset(fileset, treename):  # noqa: SLF001
            yield FileItem(f.dataset, f.filename, f.treename, f.metadata, f.preload)

    @staticmethod
    def metadata_fetcher_root(
        xrootdtimeout: int, align_clusters: bool, uproot_options: dict[str, Any], item: FileMeta
    ) -> set_accumulator:
        """Open a file: number of events, branches, `Runs`. One that cannot be read says so in its metadata."""
        path = item.filename
        if "://" in path:
            OPEN_FILES.drop(path, forget=True)  # a worker that has run before may hold what was there then
        options = dict(uproot_options)
        retries = options.pop("retries", 0)  # ours: coffea hands over nothing else
        SILENT.paths.pop(path, None)  # a new run asks anew
        files.limit_waiting(xrootdtimeout)
        for attempt in attempts(path, retries):
            try:
                opened = OPEN_FILES.get(path, timeout=xrootdtimeout, **options)
                tree, names = opened.tree(item.treename)
                facts = {
                    "numentries": tree.num_entries,
                    "uuid": opened.file.file.fUUID,
                    "layout": layout(names),
                    "has_weights": "genWeight" in names,
                    "generated": runs_total(opened.file, "genEventCount", item.treename),
                    "runs_sumw": runs_total(opened.file, "genEventSumw", item.treename),
                    "told": told_by(simulation_record(opened.file)),
                }
                if is_simulation(item.metadata or {}) is False:
                    facts["sections"] = sections_in(opened.file)
                if align_clusters:
                    facts["clusters"] = tree.common_entry_offsets()
                break
            except Exception as error:  # noqa: BLE001  codecs and sources raise what they like
                OPEN_FILES.drop(path)
                facts = {"error": type(error).__name__, "cause": reason(path, error)}
                SILENT.note(path, str(facts["cause"]))
                if not attempt:
                    break
        metadata = {**(item.metadata or {}), **facts}
        return set_accumulator([FileItem(item.dataset, path, item.treename, metadata)])


class OpenFileRunner(Runner):
    """The work of a chunk, with files that stay open and only wanted branches."""

    @staticmethod
    def _work_function(
        format: str,  # noqa: A002, ARG004  coffea's names
        xrootdtimeout: int,
        schema: Any,
        use_dataframes: bool,  # noqa: ARG004
        savemetrics: bool,  # noqa: ARG004
        item: Any,
        processor_instance: Any,
        uproot_options: dict[str, Any],
        iteritems_options: dict[str, Any],  # noqa: ARG004
        checkpointer: Any,
        cache_function: Callable[[], Any],
    ) -> dict[str, Any]:
        if isinstance(processor_instance, str):  # "heavy": both came together
            item, processor_instance = item
        if isinstance(processor_instance, bytes):
            processor_instance = cloudpickle.loads(lz4.frame.decompress(processor_instance))
        files.limit_waiting(xrootdtimeout)
        options = {"timeout": xrootdtimeout, **uproot_options}
        return Chunk(item, processor_instance, schema, options, checkpointer, cache_function).result()


def _signature(runner: Any, name: str) -> list[str]:
    return list(inspect.signature(getattr(runner, name)).parameters)


def runner_class() -> type[Runner]:
    """Return the runner with files that stay open, or coffea's own work function if that is another than the known one."""
    original = coffea_processor.Runner
    name = "_work_function"
    same = hasattr(original, name) and _signature(original, name) == _signature(OpenFileRunner, name)
    return OpenFileRunner if same else Runner
