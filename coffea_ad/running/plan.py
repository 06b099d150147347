"""The plan by which a job is carried out: check, open files, process chunks, count what came of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from coffea.processor.executor import WorkItem

from coffea_ad import files
from coffea_ad.luminosity.recorded import Luminosities
from coffea_ad.nanoaod.reading import BranchFilter
from coffea_ad.running.accounting import described_regions, described_variations
from coffea_ad.running.checkpoints import Checkpoints, digest_of, home_of, run_key
from coffea_ad.running.chunks import SafeProcessor
from coffea_ad.running.clusters.connect import describe
from coffea_ad.running.collected import without_hidden
from coffea_ad.running.dry_run import declared_branches, dry_run, first_files_of
from coffea_ad.running.inputs import inputs_seen
from coffea_ad.running.job import Job
from coffea_ad.running.normalising import at_luminosity, drift_weights, normalises, simulated, summed_up
from coffea_ad.running.notices import announce, notices, placeholders_of, say
from coffea_ad.running.opening import Facts, Fileset, in_order, open_files, refuse_without_sections, without_opened
from coffea_ad.running.options import RunOptions
from coffea_ad.running.preflight import check_workers, package_versions
from coffea_ad.running.processing import executor_on, process, runner_on
from coffea_ad.running.repeated import looks_for_repeated, repeated_events, without_repeated
from coffea_ad.running.reports import RunReport, measured
from coffea_ad.running.sources import Sources, local_modules
from coffea_ad.weights import cross_section

__all__ = ["Plan"]


class _Checked(NamedTuple):
    """What the check before the run says: branches to open (all if None), and whether something will be normalised."""

    branches: BranchFilter | None
    normalise: bool


class _Processed(NamedTuple):
    """What came of the chunks: the accumulator, how fast it was, and whether the events were identified."""

    done: dict[str, Any]
    chunks: list[WorkItem]
    facts: Facts
    identified: bool
    seconds: float
    throughput: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How a job is carried out.

    Attributes
    ----------
    job : Job
    options : RunOptions
    cluster : ClusterConfig, distributed.Client or cluster of dask
    checkpoints : str or None
        Folder where finished chunks are stored.
    """

    job: Job
    options: RunOptions
    cluster: Any
    checkpoints: str | None

    @classmethod
    def of(cls, job: Job, options: RunOptions) -> Plan:
        """Return the plan for a job by the options of a run.

        Raises
        ------
        ConfigError
            The cluster is none.
        """
        cluster = options.resolved_cluster()
        return cls(job, options, cluster, options.checkpoints_on(cluster))

    @property
    def written_to(self) -> str | None:
        """The folder that workers write files into, if the processor writes some."""
        output = self.options.output
        return None if self.job.fills_histograms or output is None else files.absolute(output)

    def key(self) -> dict[str, Any]:
        """Return all that the result of a chunk depends on."""
        job = self.job
        return run_key(
            job.instance,
            job.module,
            models=[t.scorer.digest for t in job.taggers],
            config=job.resolved,
            versions=package_versions(),
            output=self.written_to,
        )

    def carry_out(
        self, fileset: Fileset, *, lumi: Luminosities, opened: Sequence[WorkItem] = (), facts: Facts | None = None
    ) -> RunReport:
        """Check, open, process, and report.

        Parameters
        ----------
        fileset : Fileset
        lumi : Luminosities
        opened : sequence of WorkItem, optional
            Chunks of files that have been opened before.
        facts : {(dataset, path): dict}, optional
            Of those files. What is missing still must then not keep the rest from being done.
        """
        notes: list[str] = []
        files.limit_waiting(self.options.timeout)
        for dataset, entry in fileset.items() if self.job.eras else ():
            self.job.instance.of(entry["metadata"], dataset)  # refuses an era that the configuration does not have
        tolerant = self.options.allow_missing or facts is not None
        checked = self._check(fileset, lumi, notes, tolerant=tolerant)
        key = self.key()
        store = None if self.checkpoints is None else Checkpoints(self.checkpoints, digest_of(key))
        if store is None and self.options.progress:
            say("no checkpoints: if this run is interrupted, it cannot be resumed")
        started = time.monotonic()
        with executor_on(self.cluster, self.options) as pool:
            pool.status = self.options.progress
            if self.options.executor == "dask":
                self._check_workers(pool.client, store, notes)
            runner = runner_on(pool, self.options, store, notes, limit_chunks=self.options.limit_chunks)
            chunks, new_facts = open_files(runner, without_opened(fileset, opened), self.options.retries, notes)
            chunks = in_order([*opened, *chunks], fileset)
            facts = {**(facts or {}), **new_facts}
            self._check_opened(fileset, facts, lumi, normalise=checked.normalise)
            processed = self._process(pool, runner, fileset, chunks, facts, checked.branches, key, notes, started)
        return self._report(fileset, processed, key, lumi, notes)

    def _check(self, fileset: Fileset, lumi: Luminosities, notes: list[str], *, tolerant: bool) -> _Checked:
        """Check files, configuration, processor and luminosity on the first events, if that is asked for."""
        job, options = self.job, self.options
        if not options.preflight:
            announce(job, fileset, notes, progress=options.progress)
            # without a look at what the processor returns, it is taken to fill histograms that are normalised
            return _Checked(declared_branches(job), options.output is not None and job.fills_histograms)
        first = first_files_of(job, fileset, notes, tolerant=tolerant, retries=options.retries)
        announce(job, fileset, notes, progress=options.progress)
        branches, outputs = dry_run(job, fileset, first, notes, tolerant=tolerant)
        normalise = options.output is not None and normalises(fileset, outputs)
        lumi.check({d: e["metadata"] for d, e in fileset.items()}, normalise=normalise)
        return _Checked(branches, normalise)

    def _check_workers(self, client: Any, store: Checkpoints | None, notes: list[str]) -> None:
        if self.options.progress:
            say(f"dask: {describe(client)}")
        check_workers(client, [t.scorer.data for t in self.job.taggers], store, notes, output=self.written_to)

    def _check_opened(self, fileset: Fileset, facts: Facts, lumi: Luminosities, *, normalise: bool) -> None:
        """Check what only the files tell: whether a dataset is simulation, where nothing was looked at before the run."""
        if not self.options.preflight:
            for dataset, entry in fileset.items():
                if normalise and simulated(entry["metadata"]):
                    cross_section(dataset, entry["metadata"])
            lumi.check({d: e["metadata"] for d, e in fileset.items()}, normalise=normalise)
        if lumi.table is not None:
            refuse_without_sections(facts, lumi.table)

    def _process(
        self, pool: Any, runner: Any, fileset: Fileset, chunks: list[WorkItem], facts: Facts, branches: BranchFilter | None,
        key: Mapping[str, Any], notes: list[str], started: float,
    ) -> _Processed:  # fmt: skip
        """Process the chunks of opened files."""
        job, options = self.job, self.options
        identify = looks_for_repeated(options, sum(map(len, chunks)), notes)
        if identify and hasattr(pool, "rounds"):
            pool.rounds = 1  # ids are 8 bytes an event: what workers merge would be large
        opened = time.monotonic()
        if options.duplicates == "drop":
            chunks = without_repeated(pool, options, chunks, _data_in(fileset), key, self.checkpoints)
        home = home_of(job.instance, job.module)
        sources = None if home is None else Sources(local_modules(home))
        processor = SafeProcessor(job.instance, branches, options.retries, identify=identify, sources=sources)
        done = process(runner, chunks, processor)
        if processor.problem:
            notes.append(processor.problem)
        finished = time.monotonic()
        throughput = {**measured(done, finished - opened, pool.cores()), "opening_seconds": opened - started}
        return _Processed(done, chunks, facts, identify, finished - started, throughput)

    def _report(
        self, fileset: Fileset, processed: _Processed, key: dict[str, Any], lumi: Luminosities, notes: list[str]
    ) -> RunReport:
        """Count what was processed, dataset by dataset."""
        job, done = self.job, processed.done
        duplicates: dict[str, Any] = {"mode": self.options.duplicates}
        if processed.identified:
            duplicates |= repeated_events(done, processed.chunks, _data_in(fileset), notes)
        datasets = summed_up(job, fileset, processed.facts, processed.chunks, done, notes)
        number = at_luminosity(job, datasets, lumi, notes)
        cards = {t.scorer.digest: (t.name, t.card) for t in job.taggers}
        inputs, moved = inputs_seen(cards, done, drift_weights(datasets))
        outputs, withheld = without_hidden(done["out"], datasets)
        return RunReport(
            outputs=outputs,
            datasets=datasets,
            config=job.resolved,
            versions=package_versions(),
            models=job.described(),
            processor=job.name,
            executor=self.options.executor,
            lumi=number,
            seconds=processed.seconds,
            throughput=processed.throughput,
            inputs=inputs,
            placeholders=placeholders_of(job),
            regions=described_regions(datasets, [(t.name, t.card) for t in job.taggers]),
            variations=described_variations(done["out"], datasets, placeholders_of(job)),
            duplicates=duplicates,
            key=key,
            notes=[*notes, *notices(done, datasets), *withheld, *moved],
        )


def _data_in(fileset: Fileset) -> set[str]:
    return {dataset for dataset, entry in fileset.items() if not simulated(entry["metadata"])}
