"""The plan by which a job is carried out: check, open files, process chunks, count what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from coffea.processor.executor import WorkItem
from rich.console import Console

from coffea_ad.clusters import ClusterConfig, connect, describe
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError, ProcessorFailed
from coffea_ad.nanoaod import NanoAODSchema
from coffea_ad.reading import Wanted
from coffea_ad.running import executors
from coffea_ad.running.checkpoints import Checkpoints, digest_of, run_key
from coffea_ad.running.chunks import Guarded, OpenFileRunner, own_lines, runner_class
from coffea_ad.running.job import Job
from coffea_ad.running.preflight import check_files, check_workers, first_events, versions
from coffea_ad.running.reports import RunReport, inputs_seen, measured, per_dataset, sum_of_weights
from coffea_ad.running.steps import chunks_in_steps
from coffea_ad.weights import cross_section

__all__ = ["Executor", "Fileset", "Plan"]

Executor = Literal["iterative", "futures", "dask"]
Fileset = dict[str, dict[str, Any]]


@contextmanager
def _executor(kind: Executor, workers: int, cluster: ClusterConfig | Any) -> Iterator[Any]:
    if kind == "iterative":
        yield executors.IterativeExecutor(retries=0)
    elif kind == "futures":
        pool = executors.FuturesExecutor(workers=workers, retries=0)
        try:
            yield pool
        finally:
            pool.close()
    elif kind == "dask":
        if not isinstance(cluster, ClusterConfig):
            yield executors.DaskExecutor(client=cluster)
            return
        with connect(cluster) as client:
            yield executors.DaskExecutor(client=client)
    else:
        raise ConfigError(f"executor is {kind!r}, but must be iterative, futures or dask")


def _open(
    runner: Any, fileset: Fileset, retries: int, notes: list[str]
) -> tuple[list[WorkItem], dict[tuple[str, str], dict[str, Any]]]:
    """Open all files on the workers; return the chunks, and what was found of each file."""
    try:
        chunks = list(runner.preprocess(fileset, uproot_options={"retries": retries}))
    except ValueError as error:
        raise ConfigError(f"the fileset cannot be used: {error}") from None
    facts = {(item.dataset, item.filename): dict(found) for item, found in runner.metadata_cache.items()}
    _refuse_twice(facts)
    for dataset, entry in fileset.items():  # what the check before the run could not tell
        if "is_mc" not in entry["metadata"] and "isMC" not in entry["metadata"]:
            weighted = [f["has_weights"] for (d, _), f in facts.items() if d == dataset and f.get("numentries")]
            if weighted:
                entry["metadata"]["is_mc"] = all(weighted)
    cut = {"chunksize": runner.chunksize, "limit_chunks": runner.maxchunks}
    chunks = chunks_in_steps(chunks, fileset, facts, notes=notes, **cut)
    # facts are not the processor's business: its metadata are those of the fileset
    return [replace(c, usermeta=dict(fileset[c.dataset]["metadata"])) for c in chunks], facts


def _refuse_twice(facts: Mapping[tuple[str, str], dict[str, Any]]) -> None:
    seen: dict[tuple[str, Any], str] = {}
    for (dataset, path), found in facts.items():
        if "uuid" in found and any(found["uuid"]):
            other = seen.setdefault((dataset, found["uuid"]), path)
            if other != path:
                raise ConfigError(f"{dataset}: {other} and {path} are the same file, and its events would count twice")


def _process(runner: Any, chunks: list[WorkItem], guarded: Guarded) -> dict[str, Any]:
    nothing: dict[str, Any] = {"out": {}, "processed": set(), "failed": set()}
    if not chunks:
        return nothing
    try:
        done = runner.run(chunks, guarded)
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


def _groups(datasets: Mapping[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Sort datasets into data and simulation; a simulated one weighs its cross-section over its number of events."""
    groups: dict[str, list[tuple[str, float]]] = {"data": [], "simulation": []}
    for name, d in datasets.items():
        metadata = d["metadata"]
        if metadata.get("is_mc", metadata.get("isMC", True)):
            known = {"xsec", "cross_section"} & set(metadata)
            xsec = cross_section(name, metadata) if known else 1.0
            groups["simulation"].append((name, xsec / max(d["events"], 1)))
        else:
            groups["data"].append((name, 1.0))
    return groups


def _writable(path: Path) -> None:
    """Make the results folder before the run: finding out afterwards would lose the work."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{path}: results cannot be written there ({error.strerror})") from None


class _Never(Exception):
    """What is never raised: coffea drops what it is told to skip, and tells nobody."""


_SKIPPED = (OSError,)  # by coffea's own work function, whose failures come without a cause


@dataclass(frozen=True)
class Plan:
    """How a job is carried out.

    Attributes
    ----------
    job : Job
    executor, workers, cluster
        As `run` takes them; `cluster` is a ClusterConfig or a dask client.
    checkpoints : str or None
    allow_missing, preflight, progress : bool
    retries : int
    """

    job: Job
    executor: Executor
    workers: int
    cluster: Any
    checkpoints: str | None = None
    allow_missing: bool = False
    preflight: bool = True
    progress: bool = True
    retries: int = 2

    def key(self, output: str | Path | None) -> dict[str, Any]:
        """Return all that the result of a chunk depends on."""
        job = self.job
        writes = None if job.fills_histograms or output is None else str(Path(output).resolve())
        digests = [t.scorer.digest for t in job.taggers]
        return run_key(
            job.instance, job.module, models=digests, config=job.resolved, versions=versions(), output=writes
        )  # fmt: skip

    def carry_out(
        self,
        fileset: Fileset,
        *,
        given: Sequence[WorkItem] = (),
        facts: Mapping[tuple[str, str], dict[str, Any]] | None = None,
        chunksize: int,
        limit_chunks: int | None,
        lumi: float,
        output: str | Path | None,
    ) -> RunReport:
        """Check, open, process, and report.

        Parameters
        ----------
        fileset : {dataset: {"files": {path: tree}, "metadata": {…}}}
        given : sequence of WorkItem
            Chunks of files that have been opened before, with the `facts` of those.
        chunksize, limit_chunks, lumi, output
            As `run` takes them.
        """
        job, notes = self.job, []  # type: ignore[var-annotated]
        if output is not None:
            _writable(Path(output))
        normalise = output is not None and job.fills_histograms
        # what is missing still must not keep the rest from being done
        tolerant = self.allow_missing or facts is not None
        first = check_files(fileset, job.needs, notes, tolerant=tolerant, normalise=normalise)
        wanted = self._rehearse(fileset, first, notes, tolerant=tolerant)
        key = self.key(output)
        store = None if self.checkpoints is None else Checkpoints(self.checkpoints, digest_of(key))
        if store is None and self.progress:
            sentence = "no checkpoints: if this run is interrupted, it cannot be resumed"
            Console(stderr=True).print(sentence, soft_wrap=True)
        started = time.monotonic()
        with _executor(self.executor, self.workers, self.cluster) as pool:
            pool.status = self.progress
            if self.executor == "dask":
                if self.progress:
                    Console(stderr=True).print(f"dask: {describe(pool.client)}", soft_wrap=True, highlight=False)
                check_workers(pool.client, [t.scorer.data for t in job.taggers], store, notes)
            runner = self._runner(pool, store, notes, chunksize=chunksize, limit_chunks=limit_chunks)
            chunks, found = _open(runner, _without(fileset, given), self.retries, notes)
            chunks, found = [*given, *chunks], {**(facts or {}), **found}
            opened = time.monotonic()
            guarded = Guarded(job.instance, wanted, self.retries)
            done = _process(runner, chunks, guarded)
            if guarded.problem:
                notes.append(guarded.problem)
            finished = time.monotonic()
            throughput = {**measured(done, finished - opened, pool.cores()), "opening_seconds": opened - started}
        datasets = self._datasets(fileset, found, chunks, done, notes, lumi=lumi)
        cards = {t.scorer.digest: (t.name, t.card) for t in job.taggers}
        inputs, moved = inputs_seen(cards, done, _groups(datasets))
        return RunReport(
            outputs=dict(done["out"]),
            datasets=datasets,
            config=job.resolved,
            versions=versions(),
            models=job.described(),
            processor=job.name,
            executor=self.executor,
            lumi=lumi,
            seconds=finished - started,
            throughput=throughput,
            inputs=inputs,
            key=key,
            notes=[*notes, *_noticed(done, datasets), *moved],
        )

    def _runner(
        self, pool: Any, store: Checkpoints | None, notes: list[str], *, chunksize: int, limit_chunks: int | None
    ) -> Any:
        kind = runner_class()
        plain = not issubclass(kind, OpenFileRunner)
        if plain:
            notes.append("this coffea has another work function than the known one; it is used, and chunks cost more")
        return kind(
            pool,
            schema=NanoAODSchema,
            chunksize=chunksize,
            maxchunks=limit_chunks,
            skipbadfiles=_SKIPPED if plain and self.allow_missing else (_Never,),
            metadata_cache={},  # coffea's own outlives the run, and files change
            checkpointer=store,
        )

    def _datasets(
        self, fileset: Fileset, found: Any, chunks: list[WorkItem], done: Any, notes: list[str], *, lumi: float
    ) -> dict[str, dict[str, Any]]:
        datasets = per_dataset(fileset, found, chunks, done)
        # a processor may keep a part of the events by their hash, of simulation or, with the luminosity, of data too
        kept = float(getattr(self.job.instance, "fraction", 1.0))
        seen = float(getattr(self.job.instance, "luminosity_fraction", 1.0))
        if seen < 1:
            notes.append(
                f"{1 - seen:.3g} of the events trained the model and are left out: what is normalised is at {seen * lumi:g} "
                f"of {lumi:g} fb⁻¹"
            )
        for name, entry in datasets.items():
            mc = bool(entry["metadata"].get("is_mc", entry["metadata"].get("isMC", True)))
            entry["lumi"] = seen * lumi
            entry["sumw"] = sum_of_weights(name, entry, mc=mc, kept=kept, notes=notes)
        return datasets

    def _rehearse(
        self, fileset: Fileset, first: Mapping[str, str], notes: list[str], *, tolerant: bool
    ) -> Wanted | None:
        job = self.job
        if self.preflight:
            with job.rehearsal() as processor:
                return first_events(fileset, first, processor, notes, tolerant=tolerant)
        if not hasattr(job.instance, "reads"):
            return None
        return Wanted(frozenset(b for ways in job.needs.values() for way in ways for b in way))


def _without(fileset: Fileset, given: Sequence[WorkItem]) -> Fileset:
    """Leave out the files whose chunks are given."""
    known = {(c.dataset, c.filename) for c in given}
    return {
        d: {**e, "files": {p: t for p, t in e["files"].items() if (d, p) not in known}} for d, e in fileset.items()
    }  # fmt: skip


def _noticed(done: Mapping[str, Any], datasets: Mapping[str, Any]) -> list[str]:
    notes = []
    if done.get("again"):
        names = ", ".join(sorted(done["undeclared"])[:8]) or min(done["first_error"])
        notes.append(
            f"{done['again']} chunks were processed a second time, with all branches of their files, since neither reads() "
            f"nor the first events had named what they read: {names}"
        )
    if done.get("resumed"):
        notes.append(f"{done['resumed']} of {len(done['processed'])} chunks were there from an earlier run")
    if done.get("unsaved"):
        notes.append(f"chunks could not be kept as checkpoints ({min(done['unsaved'])})")
    decided: dict[str, list[str]] = {}
    for name, sentences in sorted(done.get("conventions", {}).items()):
        for sentence in sorted(sentences):
            decided.setdefault(sentence, []).append(name)
    notes += [f"{sentence}: {', '.join(names)}" for sentence, names in decided.items()]
    for name, entry in datasets.items():
        kinds: dict[str, list[str]] = {}
        for path, file in entry["files"].items():
            if file["layout"] is not None:
                kinds.setdefault(file["layout"], []).append(path)
        if len(kinds) > 1:
            listed = "; ".join(f"{len(p)} like {p[0]}" for p in kinds.values())
            notes.append(f"{name}: its files have {len(kinds)} different sets of branches: {listed}")
    return notes
