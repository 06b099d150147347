"""The plan by which a job is carried out: check, open files, process chunks, count what came of it."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from coffea.processor.executor import WorkItem
from rich.console import Console

from coffea_ad import files
from coffea_ad.corrections import differing_jets, placeholders
from coffea_ad.corrections.files import LumiMask
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError, ProcessorFailed
from coffea_ad.luminosity.account import certify
from coffea_ad.luminosity.recorded import Luminosities
from coffea_ad.luminosity.tables import SectionTable
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nanoaod.reading import Wanted
from coffea_ad.nanoaod.schema import NanoAODSchema
from coffea_ad.running import executors
from coffea_ad.running.accounting import described_regions, described_variations, per_dataset
from coffea_ad.running.checkpoints import Checkpoints, digest_of, home_of, run_key
from coffea_ad.running.chunks import REPEATED, Guarded, own_lines
from coffea_ad.running.clusters.config import ClusterConfig
from coffea_ad.running.clusters.connect import connect, describe
from coffea_ad.running.collected import check_storable, needs_normalisation, without_hidden
from coffea_ad.running.duplicates import LIMIT, Duplicates, Identify, Mode, find, sentences
from coffea_ad.running.inputs import inputs_seen
from coffea_ad.running.job import Job
from coffea_ad.running.preflight import check_files, check_workers, first_events, versions
from coffea_ad.running.reports import RunReport, measured
from coffea_ad.running.runner import OpenFileRunner, runner_class
from coffea_ad.running.sources import Sources, local_modules, noting_imports
from coffea_ad.running.steps import chunks_in_steps
from coffea_ad.running.weighing import skimmed_signs, sum_of_weights, weighed
from coffea_ad.selection import certified_by, not_applied
from coffea_ad.splits import lack_numbers
from coffea_ad.weights import cross_section, era_of, is_simulation, takes_sign

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
            # a dask client, or a cluster of another package, which gives one
            client = contextlib.nullcontext(cluster) if hasattr(cluster, "submit") else cluster.get_client()
            with client as connected:
                yield executors.DaskExecutor(client=connected, retries=0)
            return
        with connect(cluster) as client:
            yield executors.DaskExecutor(client=client, retries=0)  # what may pass is tried again by a chunk itself
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
    _refuse_skimmed_signs(fileset, facts)
    for (dataset, _), told in ((key, f.get("told", {})) for key, f in facts.items()):
        for name in ("campaign", "sqrt_s"):
            if name in told:
                fileset[dataset]["metadata"].setdefault(name, told[name])
    for dataset, entry in fileset.items():  # what the check before the run could not tell
        if "is_mc" not in entry["metadata"] and "isMC" not in entry["metadata"]:
            weighted = [f["has_weights"] for (d, _), f in facts.items() if d == dataset and f.get("numentries")]
            if weighted:
                entry["metadata"]["is_mc"] = all(weighted)
    cut = {"chunksize": runner.chunksize, "limit_chunks": runner.maxchunks}
    chunks = chunks_in_steps(chunks, fileset, facts, notes=notes, **cut)
    # facts are not the processor's business: its metadata are those of the fileset
    return [replace(c, usermeta=dict(fileset[c.dataset]["metadata"])) for c in chunks], facts


def _refuse_skimmed_signs(fileset: Fileset, facts: Mapping[tuple[str, str], dict[str, Any]]) -> None:
    for (dataset, path), found in facts.items():
        metadata = fileset[dataset]["metadata"]
        events, generated = found.get("numentries"), found.get("generated")
        if is_simulation(metadata) is False or not takes_sign(dataset, metadata) or events is None or generated is None:
            continue
        if generated > events:
            raise ConfigError(skimmed_signs(dataset, path, {"events": events, "generated": generated}))


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


def _simulated(metadata: Mapping[str, Any]) -> bool:
    return is_simulation(metadata) is not False


def _groups(datasets: Mapping[str, Any]) -> dict[str, list[tuple[str, float]]]:
    """Sort datasets into data and simulation; a simulated one weighs its cross-section over its number of events."""
    groups: dict[str, list[tuple[str, float]]] = {"data": [], "simulation": []}
    for name, d in datasets.items():
        metadata = d["metadata"]
        if _simulated(metadata):
            known = {"xsec", "cross_section"} & set(metadata)
            xsec = cross_section(name, metadata) if known else 1.0
            groups["simulation"].append((name, xsec / max(d["events"], 1)))
        else:
            groups["data"].append((name, 1.0))
    return groups


_LEFT_OUT = " of the events trained the model and are left out: what is normalised is at"


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
    timeout : float
        s, for an answer of a server.
    duplicates : "note", "drop" or "ignore"
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
    timeout: float = files.PATIENCE
    duplicates: Mode = "note"

    def key(self, output: str | Path | None) -> dict[str, Any]:
        """Return all that the result of a chunk depends on."""
        job = self.job
        writes = None if job.fills_histograms or output is None else files.absolute(output)
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
        lumi: Luminosities,
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
        files.limit_waiting(self.timeout)
        for dataset, entry in fileset.items() if job.eras else ():
            job.instance.of(entry["metadata"], dataset)  # refuses an era that the configuration does not have
        # what is missing still must not keep the rest from being done
        tolerant = self.allow_missing or facts is not None
        # without a look at what the processor returns, it is taken to fill histograms that are normalised
        normalise = output is not None and job.fills_histograms and not self.preflight
        first, like = self._first_files(fileset, notes, tolerant=tolerant)
        self._say_first(fileset, notes)
        wanted, outputs = self._rehearse(fileset, first, notes, tolerant=tolerant)
        outputs.update({name: outputs[one] for name, one in like.items() if one in outputs and name not in outputs})
        if output is not None and self.preflight:
            normalise = _normalises(fileset, outputs)
        if self.preflight:
            lumi.check({d: e["metadata"] for d, e in fileset.items()}, normalise=normalise)
        key = self.key(output)
        store = None if self.checkpoints is None else Checkpoints(self.checkpoints, digest_of(key))
        if store is None and self.progress:
            sentence = "no checkpoints: if this run is interrupted, it cannot be resumed"
            Console(stderr=True, markup=False, emoji=False).print(sentence, soft_wrap=True)
        started = time.monotonic()
        with _executor(self.executor, self.workers, self.cluster) as pool:
            pool.status = self.progress
            if self.executor == "dask":
                if self.progress:
                    Console(stderr=True, markup=False, emoji=False).print(
                        f"dask: {describe(pool.client)}", soft_wrap=True, highlight=False
                    )
                written = None if job.fills_histograms or output is None else files.absolute(output)
                check_workers(pool.client, [t.scorer.data for t in job.taggers], store, notes, output=written)
            runner = self._runner(pool, store, notes, chunksize=chunksize, limit_chunks=limit_chunks)
            chunks, found = _open(runner, _without(fileset, given), self.retries, notes)
            chunks, found = [*given, *chunks], {**(facts or {}), **found}
            if not self.preflight:
                for dataset, entry in fileset.items():
                    if normalise and _simulated(entry["metadata"]):
                        cross_section(dataset, entry["metadata"])
                lumi.check({d: e["metadata"] for d, e in fileset.items()}, normalise=normalise)
            chunks = _in_order(chunks, fileset)
            data = {dataset for dataset, entry in fileset.items() if not _simulated(entry["metadata"])}
            identify = self._identifies(sum(map(len, chunks)), notes)
            if identify and hasattr(pool, "rounds"):
                pool.rounds = 1  # ids are 8 bytes an event: what workers merge would be large
            if lumi.table is not None:
                _refuse_without_sections(found, lumi.table)
            opened = time.monotonic()
            if self.duplicates == "drop":
                chunks = self._without_repeated(pool, chunks, data, key, chunksize=chunksize)
            home = home_of(job.instance, job.module)
            sources = None if home is None else Sources(local_modules(home))
            guarded = Guarded(job.instance, wanted, self.retries, identify=identify, sources=sources)
            done = _process(runner, chunks, guarded)
            if guarded.problem:
                notes.append(guarded.problem)
            finished = time.monotonic()
            throughput = {**measured(done, finished - opened, pool.cores()), "opening_seconds": opened - started}
        repeated = find(done.pop("ids", {}), [_place(c) for c in chunks], data) if identify else None
        if repeated is not None:
            notes += _repeated(repeated, chunks, data)
            unread = (
                sum(f["events"] for files in done.get("files", {}).values() for f in files.values())
                - repeated.looked_at
            )
            if unread > 0:
                notes.append(f"repeated events: the ids could not be read of {unread} events, which were not compared")
        datasets = self._datasets(fileset, found, chunks, done, notes)
        number = self.at_luminosity(datasets, lumi, notes)
        cards = {t.scorer.digest: (t.name, t.card) for t in job.taggers}
        inputs, moved = inputs_seen(cards, done, _groups(datasets))
        outputs, withheld = without_hidden(done["out"], datasets)
        return RunReport(
            outputs=outputs,
            datasets=datasets,
            config=job.resolved,
            versions=versions(),
            models=job.described(),
            processor=job.name,
            executor=self.executor,
            lumi=number,
            seconds=finished - started,
            throughput=throughput,
            inputs=inputs,
            placeholders=self._placeholders(),
            regions=described_regions(datasets, [(t.name, t.card) for t in job.taggers]),
            variations=described_variations(done["out"], datasets, self._placeholders()),
            duplicates={"mode": self.duplicates, **({} if repeated is None else repeated.to_dict())},
            key=key,
            notes=[*notes, *_noticed(done, datasets), *withheld, *moved],
        )

    def _identifies(self, n_events: int, notes: list[str]) -> bool:
        """Say whether repeated events are looked for; with many events not unasked."""
        if self.duplicates == "note" and n_events > LIMIT:
            notes.append(
                f"not looked for repeated events: {n_events} are more than {LIMIT:g}, and each takes 8 bytes of memory here; "
                "--duplicates drop looks for them in data"
            )
            return False
        if self.duplicates != "ignore" and not issubclass(runner_class(), OpenFileRunner):
            notes.append("not looked for repeated events: this coffea has another work function than the known one")
            return False
        return self.duplicates != "ignore"

    def _without_repeated(
        self, pool: Any, chunks: list[WorkItem], data: set[str], key: Mapping[str, Any], *, chunksize: int
    ) -> list[WorkItem]:
        """Read the ids of all data first, and return the chunks with the entries that each has to leave out."""
        own = {"duplicates": 1, "package": key["package"], "versions": key["versions"]}  # not of processor and models
        store = None if self.checkpoints is None else Checkpoints(self.checkpoints, digest_of(own))
        runner = self._runner(pool, store, [], chunksize=chunksize, limit_chunks=None)
        first = Guarded(Identify(), Wanted(frozenset(EVENT_ID)), self.retries, identify=True)
        done = _process(runner, [c for c in chunks if c.dataset in data], first)
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
            here = [e for e in all_of_file if chunk.entrystart <= e < chunk.entrystop]
            out.append(replace(chunk, usermeta={**(chunk.usermeta or {}), REPEATED: here}) if here else chunk)
        return out

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
            xrootdtimeout=math.ceil(self.timeout),
        )

    def _datasets(
        self, fileset: Fileset, found: Any, chunks: list[WorkItem], done: Any, notes: list[str]
    ) -> dict[str, dict[str, Any]]:
        datasets = per_dataset(fileset, found, chunks, done)
        # a processor may keep a part of the events by their hash, of simulation or, with the luminosity, of data too
        kept = float(getattr(self.job.instance, "fraction", 1.0))
        for name, entry in datasets.items():
            mc = _simulated(entry["metadata"])
            entry["sumw"] = sum_of_weights(name, entry, mc=mc, kept=kept, notes=notes)
            if mc:
                notes += weighed(name, entry)
        return datasets

    def at_luminosity(self, datasets: dict[str, dict[str, Any]], lumi: Luminosities, notes: list[str]) -> float | None:
        """Say at which luminosity every dataset is, and return the one of all, if there is one."""
        for part in _alike(datasets, by_era=bool(self.job.eras)):
            golden = certified_by(self.job.config_of(next(iter(part.values()))["metadata"]))
            certify(part, LumiMask(golden) if golden else None)
        number, said = lumi.settle(datasets)
        notes += said
        seen = float(getattr(self.job.instance, "luminosity_fraction", 1.0))
        if seen < 1:
            notes[:] = [n for n in notes if _LEFT_OUT not in n]  # of a part of this run
            for value in (
                sorted({entry["lumi"] for entry in datasets.values()} - {None}) if number is None else [number]
            ):
                notes.append(f"{1 - seen:.3g}{_LEFT_OUT} {seen * value:g} of {value:g} fb⁻¹")
        for entry in datasets.values():
            entry["lumi"] = None if entry["lumi"] is None else seen * entry["lumi"]
        return number

    def _placeholders(self) -> list[str]:
        return list(dict.fromkeys(name for config in self.job.configs for name in placeholders(config)))

    def _say_first(self, fileset: Fileset, notes: list[str]) -> None:
        """Say in the first lines which configuration this is, and what of a search it does not apply."""
        job = self.job
        data = not all(_simulated(entry["metadata"]) for entry in fileset.values())
        lacking = list(dict.fromkeys(what for config in job.configs for what in not_applied(config, data=data)))
        if lacking:
            notes.append(f"not applied, since the configuration asks for none: {', '.join(lacking)}")
        for config in job.configs:
            notes += [n for n in differing_jets(config, {t.name: t.card for t in job.taggers}) if n not in notes]
        if self._placeholders() and any(_simulated(entry["metadata"]) for entry in fileset.values()):
            notes.append(
                f"{' and '.join(self._placeholders())} are placeholders, a shift of {job.config.jet_scale:.2g} that nobody has "
                "measured: give corrections.jec for systematic uncertainties, or jet_scale=0"
            )
        if self.progress and job.module is not None:
            console = Console(stderr=True, markup=False, emoji=False)
            source = "the defaults in its code" if job.source is None else str(job.source)
            console.print(f"{job.name}: configuration {source}", soft_wrap=True, highlight=False, markup=False)
            if lacking:
                console.print(f"not applied: {', '.join(lacking)}", soft_wrap=True, highlight=False, markup=False)

    def _first_files(
        self, fileset: Fileset, notes: list[str], *, tolerant: bool
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return a file of a dataset of each kind, and which dataset each is like; without the check before the run none."""
        if not self.preflight:
            return {}, {}
        first: dict[str, str] = {}
        like: dict[str, str] = {}
        for part in _alike(fileset, by_era=bool(self.job.eras)):
            name = next(iter(part))
            needs = self.job.needs(name, part[name]["metadata"])
            some = check_files(part, needs, notes, tolerant=tolerant, retries=self.retries)
            first, like = first | some[0], like | some[1]
        return first, like

    def _rehearse(
        self, fileset: Fileset, first: Mapping[str, str], notes: list[str], *, tolerant: bool
    ) -> tuple[Wanted | None, dict[Any, Any]]:
        """Return the branches to open, and what the processor makes of the first events."""
        job, outputs = self.job, {}  # type: ignore[var-annotated]
        if self.preflight:
            with noting_imports(home_of(job.instance, job.module)), job.rehearsal() as processor:
                wanted = first_events(fileset, first, processor, notes, tolerant=tolerant, outputs=outputs)
            return wanted, outputs
        if not hasattr(job.instance, "reads"):
            return None, outputs
        needs = job.instance.reads()
        return Wanted(frozenset(b for ways in needs.values() for way in ways for b in way)), outputs


def _alike(datasets: Mapping[str, Any], *, by_era: bool) -> list[dict[str, Any]]:
    """Part datasets by their era, if that makes a difference."""
    parts: dict[str, dict[str, Any]] = {}
    for name, entry in datasets.items():
        parts.setdefault(era_of(entry["metadata"]) if by_era else "", {})[name] = entry
    return list(parts.values())


def _normalises(fileset: Fileset, outputs: Mapping[Any, Any]) -> bool:
    """Say whether something will be normalised, and refuse what could not be kept or normalised after the work.

    Raises
    ------
    ConfigError
    """
    check_storable(outputs, fileset)
    wanted = needs_normalisation(outputs, fileset)
    for dataset in wanted:
        metadata = fileset[dataset]["metadata"]
        if _simulated(metadata):
            cross_section(dataset, metadata)
            if "sumw" not in outputs.get(dataset, {}):
                raise ConfigError(
                    f"dataset {dataset}: the processor returns histograms over region and variation, which are brought to a "
                    "luminosity, and no sumw, the sum of genWeight before any cut, to do it with: return "
                    "**coffea_ad.weights.weight_sums(…) beside them"
                )
    return bool(wanted)


def _refuse_without_sections(facts: Mapping[tuple[str, str], Mapping[str, Any]], table: SectionTable) -> None:
    for (dataset, path), found in facts.items():
        if "sections" in found and found["sections"] is None:
            raise ConfigError(
                f"{path}: it lists no LuminosityBlocks, so that {table.file} cannot tell the luminosity of {dataset}; give it "
                "in fb⁻¹"
            )


def _place(chunk: WorkItem) -> tuple[str, str, int]:
    return chunk.dataset, chunk.filename, chunk.entrystart


def _in_order(chunks: list[WorkItem], fileset: Fileset) -> list[WorkItem]:
    """Return chunks in the order of the fileset, whichever file was opened first."""
    place = {(d, p): i for i, (d, p) in enumerate((d, p) for d, entry in fileset.items() for p in entry["files"])}
    return sorted(chunks, key=lambda c: (place[c.dataset, c.filename], c.entrystart))


def _repeated(repeated: Duplicates, chunks: list[WorkItem], data: set[str]) -> list[str]:
    """Say which events are there twice, and whether all repeated ones of data were left out."""
    dropped: set[tuple[str, str, int]] = set()
    for c in chunks:
        dropped.update((c.dataset, c.filename, e) for e in (c.usermeta or {}).get(REPEATED, ()))
    notes = sentences(repeated, dropped=bool(dropped), data=data)
    remaining = sum((d, p, e) not in dropped for (d, p), entries in repeated.entries.items() for e in entries)
    if dropped and remaining:
        notes.append(f"{remaining} repeated events were not left out: their files could not be read in the first pass")
    return notes


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
    for name, said in sorted(done.get("conventions", {}).items()):
        for sentence in sorted(said):
            decided.setdefault(sentence, []).append(name)
    notes += [f"{sentence}: {', '.join(names)}" for sentence, names in decided.items()]
    hidden = [name for name, entry in datasets.items() if entry.get("blinded")]
    if hidden:
        notes.append(
            f"{', '.join(hidden)}: blinded, so events in the tightest region are in no histogram and no count, the cutflow has "
            "its first and last line only, and what the models read is not compared with their training"
        )
    for name, entry in datasets.items():
        if entry.get("undefined"):
            where = ", ".join(f"{branch} {n}" for branch, n in sorted(entry.get("undefined_in", {}).items()))
            notes.append(
                f"{name}: {entry['undefined']} events or values with NaN or infinite numbers are in no histogram or row"
                + (f" ({where})" if where else "")
            )
        kinds: dict[str, list[str]] = {}
        for path, file in entry["files"].items():
            if file["layout"] is not None:
                kinds.setdefault(file["layout"], []).append(path)
        if len(kinds) > 1:
            listed = "; ".join(f"{len(p)} like {p[0]}" for p in kinds.values())
            notes.append(f"{name}: its files have {len(kinds)} different sets of branches: {listed}")
    return notes
