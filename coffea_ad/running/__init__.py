"""Fileset → coffea's Runner → RunReport: `run`, and `resubmit` for what a run has not done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import hist

from coffea_ad import files, recipes
from coffea_ad.errors import CoffeaADError, ConfigError, IncompleteRun, NotNormalisable
from coffea_ad.filesets import load_fileset
from coffea_ad.luminosity.recorded import Given, Luminosities, as_given
from coffea_ad.outputs import RESULTS, check_folder, clear_figures, existing, skimmed
from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.results import Results
from coffea_ad.running.checkpoints import digest_of
from coffea_ad.running.clusters.config import ClusterConfig, load_cluster
from coffea_ad.running.collected import event_lists_of, histograms_of, needs_normalisation, not_kept
from coffea_ad.running.duplicates import Mode
from coffea_ad.running.job import Job
from coffea_ad.running.merging import added, as_report, left_over, merge
from coffea_ad.running.plan import Executor, Fileset, Plan
from coffea_ad.running.reports import RunReport, missing_files
from coffea_ad.weights import is_simulation

__all__ = ["RunReport", "merge", "resubmit", "run"]

NO_CHECKPOINTS = "none"
"""The word for none at all."""
_FOUND_IN_FILES = ("is_mc", "isMC", "campaign", "sqrt_s")
"""What a run adds to the metadata of a dataset, where the fileset does not say it."""


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
    counts = {"chunksize": chunksize, "workers": workers, "limit_files": limit_files, "limit_chunks": limit_chunks}
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}, but must be at least 1")
    if duplicates not in get_args(Mode):
        raise ConfigError(f"duplicates is {duplicates!r}, but must be {', '.join(get_args(Mode))}")
    if retries < 0:
        raise ConfigError(f"retries is {retries}, but must be at least 0")
    _positive_timeout(timeout)
    lumi = as_given(lumi)
    if test:
        limit_files = limit_chunks = 1
    models = [model] if isinstance(model, (str, Path)) else list(model or ())
    job = Job.of(processor, models, config, overrides, output, providers=tuple(providers))
    whole = load_fileset(fileset)
    _weigh_by(whole, generator_weight)
    entries = _limited(whole, limit_files, limit_chunks)
    where = _cluster(executor, cluster, scheduler, workers)
    kept = _checkpoints(checkpoints, where, output)
    plan = Plan(job, executor, workers or 2, where, kept, allow_missing, preflight, progress,
                retries, timeout, duplicates)  # fmt: skip
    if output is not None:
        _refuse_other_results(plan, entries, output, lumi, force=force)
    report = plan.carry_out(
        entries, chunksize=chunksize, limit_chunks=limit_chunks, lumi=Luminosities(lumi), output=output
    )
    asked = {
        "chunksize": chunksize,
        "limit_files": limit_files,
        "limit_chunks": limit_chunks,
        "checkpoints": checkpoints,
        "providers": list(providers),
        "plugins": recipes.plugins_loaded(),
        "duplicates": duplicates,
        "lumi": lumi,
    }
    report.notes.extend(_limits(whole, entries, lumi))
    report = replace(report, settings={**asked, "models": [str(m) for m in models], "overrides": list(overrides),
                                       "config": None if config is None else str(config), "recipe": job.module is not None})  # fmt: skip
    if output is not None:
        _save(report, job.module, output)
    _clear(checkpoints, kept, report)
    return _complete(report, allow_missing=allow_missing, output=output)


def resubmit(
    folder: str | Path,
    *,
    executor: Executor = "dask",
    workers: int | None = None,
    scheduler: str | None = None,
    cluster: Any = None,
    allow_missing: bool = False,
    progress: bool = True,
    retries: int = 2,
    timeout: float = files.PATIENCE,
) -> RunReport:
    """Process what an earlier run has not, and merge it into the results folder.

    Parameters
    ----------
    folder : path or fsspec URL
        Results folder of the earlier run, which says what is missing.
    executor, workers, scheduler, cluster, allow_missing, progress, retries, timeout
        As for `run`.

    Returns
    -------
    RunReport
        Of both runs together.

    Raises
    ------
    ConfigError
        Models, configuration, code or versions are not those of the earlier run, so that the two cannot be added.
    IncompleteRun
        Still not all.

    Notes
    -----
    It runs the recipe that the folder names, and reads the checkpoints that it names: resubmit your own folders only.
    """
    _positive_timeout(timeout)
    old = load_results(folder)
    stored = old.report
    missing = [f for d in stored["datasets"].values() for f in d["failed"]]
    if not missing:
        raise ConfigError(f"{folder}: nothing is missing in it")
    asked = stored["settings"]
    if stored["runs"]:
        raise ConfigError(f"{folder}: several runs were merged into it; resubmit each by itself, and merge again")
    if asked["limit_chunks"] is not None:
        raise ConfigError(
            f"{folder}: this was a run of {asked['limit_chunks']} chunks a dataset; run it anew without limit"
        )
    if asked.get("duplicates") == "drop":
        raise ConfigError(
            f"{folder}: repeated events were left out by what all files hold; run it again with its checkpoints, and only "
            "what is missing is processed"
        )
    if not asked.get("recipe"):
        raise ConfigError(f"{folder}: it was made by a processor object; only runs of a recipe can be resubmitted")
    for plugin in asked.get("plugins", ()):
        recipes.load_plugin(plugin)
    config = asked["config"]
    job = Job.of(
        stored["processor"], asked["models"], config, asked["overrides"], folder, providers=tuple(asked["providers"])
    )
    where = _cluster(executor, cluster, scheduler, workers)
    checkpoints = _checkpoints(asked["checkpoints"], where, folder)
    plan = Plan(job, executor, workers or 2, where, checkpoints, allow_missing,
                progress=progress, retries=retries, timeout=timeout, duplicates=asked.get("duplicates", "ignore"))  # fmt: skip
    _same_key(stored["key"], plan.key(folder), folder)
    files.require_writable(folder, "results")  # as `run` does before its work
    fileset, given, facts = left_over(stored)
    luminosities = Luminosities(as_given(asked.get("lumi", stored["lumi"])))
    report = plan.carry_out(fileset, given=given, facts=facts, chunksize=asked["chunksize"], limit_chunks=None,
                            lumi=luminosities, output=folder)  # fmt: skip
    new = _histograms(report)
    lists = event_lists_of(report.outputs, report.datasets)
    both = added(old, Results(new, {**report.to_dict(), "event_lists": {}}, lists), resubmission=True)
    kept = float(getattr(job.instance, "fraction", 1.0))
    report = as_report(both.report, kept)
    report = replace(report, lumi=_at_luminosity(plan, report, luminosities))
    save_results(both.histograms, report.to_dict(), folder, both.event_lists)
    clear_figures(folder)
    if job.module is not None and hasattr(job.module, "finish"):
        job.module.finish(report, _place(folder))
    _clear(asked["checkpoints"], checkpoints, report)
    return _complete(report, allow_missing=allow_missing, output=folder)


def _refuse_other_results(plan: Plan, fileset: Fileset, output: str | Path, lumi: Given, *, force: bool) -> None:
    """Refuse a folder with results, unless they are of this very run, or of other datasets of a skim."""
    present = existing(output, RESULTS)
    if force or not present:
        check_folder(output, RESULTS, force=force)
        return
    adds = not plan.job.fills_histograms and bool(skimmed(output)) and not skimmed(output) & set(fileset)
    check_folder(output, RESULTS, force=adds or _is_the_same(output, plan.key(output), fileset, lumi))


def _is_the_same(output: str | Path, key: Mapping[str, Any], fileset: Fileset, lumi: Given) -> bool:
    """Say whether the results in a folder are of a run with the same key, files and luminosity."""
    try:
        stored = load_results(output).report
        datasets = stored["datasets"]
        same = {d: list(e["files"]) for d, e in datasets.items()} == {d: list(e["files"]) for d, e in fileset.items()}
        metadata = all(_says_the_same(datasets[d]["metadata"], e["metadata"]) for d, e in fileset.items())
    except (CoffeaADError, KeyError, TypeError):
        return False
    return (
        same
        and metadata
        and digest_of(stored["key"]) == digest_of(key)
        and lumi in (None, stored["settings"].get("lumi"), stored["lumi"])
    )


def _says_the_same(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Compare metadata in a report, to which a run adds what it finds in the files, with those of a fileset."""
    now = json.loads(json.dumps(dict(asked), default=str))
    return bool(now == {k: v for k, v in stored.items() if k in now or k not in _FOUND_IN_FILES})


def _at_luminosity(plan: Plan, report: RunReport, lumi: Luminosities) -> float | None:
    """Say anew which sections were processed, after a resubmission."""
    datasets = report.datasets
    old = [n for d in datasets for n in report.notes if n.startswith(f"{d}: ") and "luminosity sections" in n]
    report.notes[:] = [n for n in report.notes if n not in old and not n.startswith("eras ")]
    return plan.at_luminosity(datasets, lumi, report.notes)


def _limits(whole: Fileset, entries: Fileset, lumi: Given) -> list[str]:
    """Say of which datasets of data only the first files were looked at, while the luminosity is that of all."""
    names = [
        f"{d} ({len(e['files'])} of {len(whole[d]['files'])})" for d, e in entries.items()
        if len(e["files"]) < len(whole[d]["files"]) and is_simulation(e["metadata"]) is False
    ]  # fmt: skip
    if not names or not isinstance(lumi, float):
        return []
    return [f"only the first files of data were processed: {', '.join(names)}; {lumi:g} fb⁻¹ is taken as it was given"]


def _positive_timeout(timeout: float) -> None:
    if not 0 < timeout < float("inf"):
        raise ConfigError(f"timeout is {timeout}, but must be a positive number of seconds")


def _same_key(then: Mapping[str, Any], now: Mapping[str, Any], folder: str | Path) -> None:
    for part in now:
        if then.get(part) != now[part]:
            one, two = then.get(part), now[part]
            names = sorted(k for k in {*one, *two} if one.get(k) != two.get(k)) if isinstance(one, dict) and isinstance(two, dict) else []  # fmt: skip
            raise ConfigError(
                f"{folder}: {part} {'(' + ', '.join(names) + ') ' if names else ''}changed since; what is missing would not "
                "fit what is there, so run all again"
            )


def _weigh_by(fileset: Fileset, generator_weight: str | None) -> None:
    """Put the generator weight that a run asks for into the metadata of what may be simulation."""
    if generator_weight is None:
        return
    if generator_weight not in ("stored", "sign"):
        raise ConfigError(f"generator_weight is {generator_weight!r}, but must be stored or sign")
    for name, entry in fileset.items():
        metadata = entry["metadata"]
        if is_simulation(metadata) is False:
            continue
        if metadata.setdefault("generator_weight", generator_weight) != generator_weight:
            raise ConfigError(
                f"dataset {name}: generator_weight is {metadata['generator_weight']} in its metadata, but the run asks for "
                f"{generator_weight}; say it in one place"
            )


def _limited(fileset: Fileset, limit_files: int | None, limit_chunks: int | None) -> Fileset:
    """Keep the first files: every file gives at least one chunk."""
    most = min(n for n in (limit_files, limit_chunks, 10**9) if n is not None)
    return {d: {**e, "files": dict(list(e["files"].items())[:most])} for d, e in fileset.items()}


def _cluster(executor: Executor, cluster: Any, scheduler: str | None, workers: int | None) -> Any:
    if executor != "dask" and (cluster is not None or scheduler is not None):
        raise ConfigError(f"the {executor} executor works on this machine; a cluster or scheduler needs executor dask")
    if cluster is not None and scheduler is not None:
        raise ConfigError("give either a scheduler's address or a cluster, not both")
    if isinstance(cluster, (str, Path)):
        return load_cluster(cluster, workers=workers)
    if cluster is not None:
        if not isinstance(cluster, ClusterConfig) and not any(
            hasattr(cluster, name) for name in ("submit", "get_client")
        ):
            raise ConfigError(
                f"cluster is {cluster!r}; give a kind, a file of site settings, a ClusterConfig, or a dask client or cluster"
            )
        return cluster
    if scheduler is not None:
        return ClusterConfig(kind="scheduler", address=scheduler)
    return ClusterConfig(workers=workers or 2)


def _checkpoints(asked: str | None, cluster: Any, output: str | Path | None) -> str | None:
    """Return where finished chunks are kept: in the results folder, unless asked otherwise or workers may not reach it."""
    if asked is not None:
        return None if asked == NO_CHECKPOINTS else asked
    here = isinstance(cluster, ClusterConfig) and cluster.kind == "local"
    return str(Path(output) / "checkpoints") if here and output is not None and "://" not in str(output) else None


def _clear(asked: str | None, checkpoints: str | None, report: RunReport) -> None:
    """Remove the checkpoints that nobody asked for, when all is done."""
    if asked is None and checkpoints is not None and report.complete:
        shutil.rmtree(checkpoints, ignore_errors=True)


def _complete(report: RunReport, *, allow_missing: bool, output: str | Path | None) -> RunReport:
    if allow_missing:
        return report
    if not report.complete:
        lines = missing_files(report.failed)
        more = f" and {len(lines) - 5} more files" if len(lines) > 5 else ""
        error = IncompleteRun(f"{len(report.failed)} files or chunks are missing: {'; '.join(lines[:5])}{more}")
        error.report = report
        raise error
    cancelled = _cancelled(report)
    if cancelled:
        kept = "" if output is None else f"; what was filled is in {output}, as raw sums"
        problem = NotNormalisable(
            f"dataset {', '.join(cancelled)}: the weights of all events sum to 0, and nothing can be normalised to "
            f"a luminosity{kept}"
        )
        problem.report = report
        raise problem
    return report


def _cancelled(report: RunReport) -> list[str]:
    """Return the simulated datasets that have events, and weights that sum to 0, where the sum would be used."""
    found = []
    normalised = needs_normalisation(report.outputs, report.datasets)
    for name, entry in report.datasets.items():
        out = report.outputs.get(name)
        used = name in normalised or (isinstance(out, Mapping) and "rows" in out)
        mc = is_simulation(entry["metadata"]) is not False
        if used and mc and entry["events"] and entry["weighted"] and entry["sumw"] == 0:
            found.append(name)
    return found


def _place(folder: str | Path) -> str | Path:
    """Return a local folder as a path, and a URL as it is, for the `finish` of a recipe."""
    return str(folder) if files.is_url(folder) else Path(folder)


def _histograms(report: RunReport) -> dict[str, dict[str, hist.Hist]]:
    """Return the histograms for the results folder; what it cannot hold is noted, and stays in `report.outputs`."""
    lost = not_kept(report.outputs)
    if lost:
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        report.notes.append(
            f"not written, but in the report object: {', '.join(lost[:5])}{more}; a results folder holds histograms, numbers, "
            "texts, sets and arrays"
        )
    return histograms_of(report.outputs, report.datasets)


def _save(report: RunReport, module: ModuleType | None, output: str | Path) -> None:
    found = _histograms(report)
    save_results(found, report.to_dict(), output, event_lists_of(report.outputs, report.datasets))
    clear_figures(output)  # those of what was there before
    if module is not None and hasattr(module, "finish"):
        module.finish(report, _place(output))
