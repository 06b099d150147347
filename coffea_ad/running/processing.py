"""The pool of workers, coffea's Runner on it, and the processing of chunks."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from coffea.processor.executor import WorkItem

from coffea_ad.errors import BadFile, CoffeaADError, ProcessorFailed
from coffea_ad.nanoaod.schema import NanoAODSchema
from coffea_ad.running.checkpoints import Checkpoints
from coffea_ad.running.chunks import SafeProcessor, own_lines
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect
from coffea_ad.running.executors import DaskExecutor, FuturesExecutor, IterativeExecutor
from coffea_ad.running.options import RunOptions
from coffea_ad.running.runner import OpenFileRunner, runner_class

__all__ = ["executor_on", "process", "runner_on"]


class _Never(Exception):
    """What is never raised: coffea drops what it is told to skip, and tells nobody."""


_SKIPPED = (OSError,)  # by coffea's own work function, whose failures come without a cause


@contextlib.contextmanager
def executor_on(cluster: ClusterConfig | Any, options: RunOptions) -> Iterator[Any]:
    """Yield the executor of a run, connected to its cluster.

    Parameters
    ----------
    cluster : ClusterConfig, distributed.Client or cluster of dask
        For the dask executor.
    options : RunOptions
    """
    kind = options.executor
    if kind == "iterative":
        yield IterativeExecutor(retries=0)
    elif kind == "futures":
        pool = FuturesExecutor(workers=options.processes, retries=0)
        try:
            yield pool
        finally:
            pool.close()
    elif not isinstance(cluster, ClusterConfig):
        # a dask client, or a cluster of another package, which gives one
        client = contextlib.nullcontext(cluster) if hasattr(cluster, "submit") else cluster.get_client()
        with client as connected:
            yield DaskExecutor(client=connected, retries=0)
    else:
        with connect(cluster) as client:
            yield DaskExecutor(client=client, retries=0)  # what may pass is tried again by a chunk itself


def runner_on(
    pool: Any, options: RunOptions, store: Checkpoints | None, notes: list[str], *, limit_chunks: int | None
) -> Any:
    """Return coffea's Runner with our way to open files and to process chunks, on an executor.

    Parameters
    ----------
    pool : executor
    options : RunOptions
    store : Checkpoints or None
    notes : list of str
        Takes a sentence if this coffea has another work function.
    limit_chunks : int or None
        At most so many chunks of a dataset.
    """
    kind = runner_class()
    plain = not issubclass(kind, OpenFileRunner)
    if plain:
        notes.append("this coffea has another work function than the known one; it is used, and chunks cost more")
    return kind(
        pool,
        schema=NanoAODSchema,
        chunksize=options.chunksize,
        maxchunks=limit_chunks,
        skipbadfiles=_SKIPPED if plain and options.allow_missing else (_Never,),
        metadata_cache={},  # coffea's own outlives the run, and files change
        checkpointer=store,
        xrootdtimeout=math.ceil(options.timeout),
    )


def process(runner: Any, chunks: list[WorkItem], processor: SafeProcessor) -> dict[str, Any]:
    """Process chunks, and return the accumulator of all.

    Raises
    ------
    CoffeaADError
        Of the processor, or of coffea's own work function.
    """
    nothing: dict[str, Any] = {"out": {}, "processed": set(), "failed": set()}
    if not chunks:
        return nothing
    try:
        done = runner.run(chunks, processor)
    except CoffeaADError:
        raise
    except Exception as error:
        if isinstance(runner, OpenFileRunner):
            raise
        raise _explained(error) from error
    return {**nothing, **done}


def _explained(error: Exception) -> CoffeaADError:
    """Find the root cause of what coffea's own work function raised."""
    links: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in links:
        links.append(current)
        current = current.__cause__ or current.__context__
    for link in links:
        if isinstance(link, CoffeaADError):
            return link
    if isinstance(links[-1], OSError):
        return BadFile(" ".join(f"{error} {links[-1]}".split())[:300])
    return ProcessorFailed(own_lines(links[-1]))
