"""`resubmit`: what a run has not done is processed, and added to its results folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from coffea_ad import files, recipes
from coffea_ad.errors import ConfigError
from coffea_ad.luminosity.recorded import Luminosities
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.running.finishing import collected_results, complete, remove_checkpoints, save
from coffea_ad.running.job import Job
from coffea_ad.running.merging import added, as_report, left_over
from coffea_ad.running.normalising import at_luminosity
from coffea_ad.running.options import Executor, RunOptions
from coffea_ad.running.plan import Plan
from coffea_ad.running.reports import RunReport

__all__ = ["resubmit"]


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
    how = {name: value for name, value in locals().items() if name != "folder"}
    RunOptions.of(**how)  # what is wrong is said before anything is read
    old = load_results(folder)
    stored = old.report
    _refuse_unfit(stored, folder)
    for plugin in stored["settings"].get("plugins", ()):
        recipes.load_plugin(plugin)
    options = RunOptions.of_report(stored, output=folder, **how)
    job = Job.of(
        stored["processor"], options.model, options.config, options.overrides, folder, providers=options.providers
    )
    plan = Plan.of(job, options)
    _same_key(stored["key"], plan.key(), folder)
    files.require_writable(folder, "results")  # as `run` does before its work
    fileset, opened, facts = left_over(stored)
    lumi = Luminosities(options.lumi)
    new = collected_results(plan.carry_out(fileset, lumi=lumi, opened=opened, facts=facts))
    new = Results(new.histograms, {**new.report, "event_lists": {}}, new.event_lists)
    both = added(old, new, resubmission=True)
    report = as_report(both.report, job.fraction)
    report = replace(report, lumi=_at_luminosity(job, report, lumi))
    save(Results(both.histograms, report.to_dict(), both.event_lists), report, job.module, folder)
    remove_checkpoints(options, plan.checkpoints, report)
    return complete(report, options)


def _refuse_unfit(stored: Mapping[str, Any], folder: str | Path) -> None:
    """Refuse a folder in which nothing is missing, or whose run cannot be gone on with."""
    settings = stored["settings"]
    if not any(entry["failed"] for entry in stored["datasets"].values()):
        raise ConfigError(f"{folder}: nothing is missing in it")
    if stored["runs"]:
        raise ConfigError(f"{folder}: several runs were merged into it; resubmit each by itself, and merge again")
    if settings["limit_chunks"] is not None:
        raise ConfigError(
            f"{folder}: this was a run of {settings['limit_chunks']} chunks a dataset; run it anew without limit"
        )
    if settings.get("duplicates") == "drop":
        raise ConfigError(
            f"{folder}: repeated events were left out by what all files hold; run it again with its checkpoints, and only "
            "what is missing is processed"
        )
    if not settings.get("recipe"):
        raise ConfigError(f"{folder}: it was made by a processor object; only runs of a recipe can be resubmitted")


def _at_luminosity(job: Job, report: RunReport, lumi: Luminosities) -> float | None:
    """Say anew which sections were processed, after a resubmission."""
    datasets = report.datasets
    old = [n for d in datasets for n in report.notes if n.startswith(f"{d}: ") and "luminosity sections" in n]
    report.notes[:] = [n for n in report.notes if n not in old and not n.startswith("eras ")]
    return at_luminosity(job, datasets, lumi, report.notes)


def _same_key(then: Mapping[str, Any], now: Mapping[str, Any], folder: str | Path) -> None:
    for part in now:
        if then.get(part) != now[part]:
            one, two = then.get(part), now[part]
            names = sorted(k for k in {*one, *two} if one.get(k) != two.get(k)) if isinstance(one, dict) and isinstance(two, dict) else []  # fmt: skip
            raise ConfigError(
                f"{folder}: {part} {'(' + ', '.join(names) + ') ' if names else ''}changed since; what is missing would not "
                "fit what is there, so run all again"
            )
