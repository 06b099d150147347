"""`run`: a processor over a fileset, and what comes of it in a results folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from coffea_ad import files, recipes
from coffea_ad.errors import ConfigError
from coffea_ad.filesets import load_fileset
from coffea_ad.luminosity.recorded import Luminosities, LuminosityLike
from coffea_ad.running.duplicates import Mode
from coffea_ad.running.existing import refuse_other_results
from coffea_ad.running.finishing import collected_results, complete, remove_checkpoints, save
from coffea_ad.running.job import Job
from coffea_ad.running.opening import Fileset
from coffea_ad.running.options import Executor, RunOptions
from coffea_ad.running.plan import Plan
from coffea_ad.running.reports import RunReport
from coffea_ad.weights import is_simulation

__all__ = ["run"]


def run(
    fileset: str | Path | Mapping[str, Any],
    processor: Any,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    executor: Executor = "dask",
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: Any = None,
    chunksize: int = 100_000,
    output: str | Path | None = None,
    force: bool = False,
    lumi: float | str | Path | Mapping[str, float] | None = None,
    test: bool = False,
    limit_files: int | None = None,
    limit_chunks: int | None = None,
    allow_missing: bool = False,
    checkpoints: str | None = None,
    preflight: bool = True,
    progress: bool = True,
    retries: int = 2,
    timeout: float = files.PATIENCE,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    duplicates: Mode = "note",
    generator_weight: Literal["stored", "sign"] | None = None,
) -> RunReport:
    """Run a processor over a fileset.

    Parameters
    ----------
    fileset : path or mapping
        As `load_fileset` takes it.
    processor : str, path or ProcessorABC
        A shipped processor by name, a file by path (with `Config` and `Processor`, or with one processor of coffea's kind), or
        an instance.
    model : path or several, optional
        Model files, handed to the processor as taggers.
    config, overrides
        The processor's configuration: a YAML file and `key=value`. By default the file of the recipe's name beside it, such
        as the shipped `semivisible_jets.yaml`; "none" means the defaults in its code. Where a file has no `Config`, the keys
        are the arguments of its processor.
    executor : "iterative", "futures" or "dask"
    workers : int, optional
        Processes of the futures executor or of a dask cluster; 2, if neither this nor a site's settings say it. An own
        cluster listens on the loopback address only.
    scheduler : str, optional
        Address of an existing dask scheduler.
    cluster : str, path, ClusterConfig, distributed.Client or a cluster of dask, optional
        Another cluster than the own one: a kind such as "htcondor", a file of site settings, a client that is connected, or
        what gives one, such as a GatewayCluster.
    chunksize : int
        Events per chunk.
    output : path or fsspec URL, optional
        Results folder, such as `results/` or `root://host//results`.
    force : bool
        Overwrite what another run has left in the results folder. The same run may always go on in its own.
    lumi : float, {era: float} or path, optional
        fb⁻¹, for the normalised histograms; 1 by default. With data there is no default. A table of brilcalc by luminosity
        section (CSV) stands for the luminosity of the certified sections that were processed, in each era. `lumi` in the
        metadata of a dataset goes before.
    test : bool
        One file and one chunk per dataset.
    limit_files, limit_chunks : int, optional
        At most so many files and chunks per dataset.
    allow_missing : bool
        Take an incomplete run for a good one: files and chunks that cannot be read are named in the report, and the
        normalisation stays right, since the sum of weights is collected with the histograms.
    checkpoints : str, optional
        fsspec URL of a folder that client and workers reach: finished chunks are kept there, and a run that was
        interrupted goes on where it was. Models, configuration, code and versions are part of the key. By default, where
        all work is done on this machine, in the results folder until all is done; "none" keeps none.
    preflight : bool
        Let the processor work on the first events of every dataset before anything is sent out.
    progress : bool
        Show bars on standard error.
    retries : int
        How often a remote file is tried again, after growing pauses.
    timeout : float
        s, for an answer of an XRootD server.
    providers : sequence of str
        onnxruntime's execution providers, such as "CUDAExecutionProvider".
    duplicates : "note", "drop" or "ignore"
        Look for events with the same run, luminosity section and number in a dataset, and in all datasets of data together;
        "drop" leaves out all but the first of data, in the order of the fileset, after a first pass over their ids.
    generator_weight : "stored" or "sign", optional
        Of all simulated datasets, whose metadata get this key: their events weigh genWeight, or sign(genWeight) and are
        normalised by the sum of signs. By default, what the metadata of each dataset say, and else stored.

    Returns
    -------
    RunReport

    Raises
    ------
    BadFile, MissingBranch, ConfigError, ProcessorFailed
        Before the run, or because of the processor's own error.
    IncompleteRun
        Files or chunks are missing and `allow_missing` is off. What was processed is in the results folder, and
        `resubmit` does the rest.
    NotNormalisable
        The weights of a dataset sum to 0 and `allow_missing` is off. Its raw histograms are in the results folder.
    """
    keywords = {name: value for name, value in locals().items() if name not in ("fileset", "processor")}
    options = RunOptions.of(**keywords)
    job = Job.of(
        processor, options.model, options.config, options.overrides, options.output, providers=options.providers
    )
    whole = load_fileset(fileset)
    _weigh_by(whole, options.generator_weight)
    entries = _limited(whole, options)
    plan = Plan.of(job, options)
    refuse_other_results(plan, entries)
    report = plan.carry_out(entries, lumi=Luminosities(options.lumi))
    report.notes.extend(_limits(whole, entries, options.lumi))
    settings = {**options.settings(), "plugins": recipes.plugins_loaded(), "recipe": job.module is not None}
    report = replace(report, settings=settings)
    if options.output is not None:
        save(collected_results(report), report, job.module, options.output)
    remove_checkpoints(options, plan.checkpoints, report)
    return complete(report, options)


def _weigh_by(fileset: Fileset, generator_weight: str | None) -> None:
    """Put the generator weight that a run asks for into the metadata of what may be simulation."""
    if generator_weight is None:
        return
    for name, entry in fileset.items():
        metadata = entry["metadata"]
        if is_simulation(metadata) is False:
            continue
        if metadata.setdefault("generator_weight", generator_weight) != generator_weight:
            raise ConfigError(
                f"dataset {name}: generator_weight is {metadata['generator_weight']} in its metadata, but the run asks for "
                f"{generator_weight}; say it in one place"
            )


def _limited(fileset: Fileset, options: RunOptions) -> Fileset:
    """Return the first files of every dataset: each gives at least one chunk."""
    most = min(n for n in (options.limit_files, options.limit_chunks, 10**9) if n is not None)
    return {d: {**e, "files": dict(list(e["files"].items())[:most])} for d, e in fileset.items()}


def _limits(whole: Fileset, entries: Fileset, lumi: LuminosityLike) -> list[str]:
    """Say of which datasets of data only the first files were looked at, while the luminosity is that of all."""
    names = [
        f"{d} ({len(e['files'])} of {len(whole[d]['files'])})" for d, e in entries.items()
        if len(e["files"]) < len(whole[d]["files"]) and is_simulation(e["metadata"]) is False
    ]  # fmt: skip
    if not names or not isinstance(lumi, float):
        return []
    return [f"only the first files of data were processed: {', '.join(names)}; {lumi:g} fb⁻¹ is taken as it was given"]
