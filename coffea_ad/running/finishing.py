"""The end of a run: what is written, removed and raised."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import hist

from coffea_ad import files
from coffea_ad.errors import IncompleteRun, NotNormalisable, listed
from coffea_ad.outputs import clear_figures
from coffea_ad.results.folder import save_results
from coffea_ad.results.results import Results
from coffea_ad.running.collected import event_lists_of, histograms_of, needs_normalisation, unstorable
from coffea_ad.running.options import RunOptions
from coffea_ad.running.reports import RunReport, missing_files
from coffea_ad.weights import is_simulation

__all__ = ["collected_results", "complete", "remove_checkpoints", "save"]


def collected_results(report: RunReport) -> Results:
    """Return histograms, report and lists of events of a run; what a folder cannot hold is noted, and stays in `outputs`."""
    lost = unstorable(report.outputs)
    if lost:
        report.notes.append(
            f"not written, but in the report object: {listed(lost, 5, rest='more')}; a results folder holds histograms, numbers, "
            "texts, sets and arrays"
        )
    histograms: dict[str, dict[str, hist.Hist]] = histograms_of(report.outputs, report.datasets)
    return Results(histograms, report.to_dict(), event_lists_of(report.outputs, report.datasets))


def save(results: Results, report: RunReport, module: ModuleType | None, output: str | Path) -> None:
    """Write a results folder, and let the recipe finish it.

    Parameters
    ----------
    results : Results
    report : RunReport
        For the recipe's `finish`.
    module : module or None
        The recipe.
    output : path or URL
    """
    save_results(results.histograms, results.report, output, results.event_lists)
    clear_figures(output)  # those of what was there before
    if module is not None and hasattr(module, "finish"):
        module.finish(report, str(output) if files.is_url(output) else Path(output))


def remove_checkpoints(options: RunOptions, folder: str | None, report: RunReport) -> None:
    """Remove the checkpoints that nobody asked for, when all is done."""
    if options.checkpoints is None and folder is not None and report.complete:
        shutil.rmtree(folder, ignore_errors=True)


def complete(report: RunReport, options: RunOptions) -> RunReport:
    """Return the report of a run that has done all, or may miss some.

    Raises
    ------
    IncompleteRun, NotNormalisable
        With the report as `report`.
    """
    if options.allow_missing:
        return report
    if not report.complete:
        lines = missing_files(report.failed)
        more = f" and {len(lines) - 5} more files" if len(lines) > 5 else ""
        error = IncompleteRun(f"{len(report.failed)} files or chunks are missing: {'; '.join(lines[:5])}{more}")
        error.report = report
        raise error
    cancelled = _cancelled(report)
    if cancelled:
        stored = "" if options.output is None else f"; what was filled is in {options.output}, as raw sums"
        problem = NotNormalisable(
            f"dataset {', '.join(cancelled)}: the weights of all events sum to 0, and nothing can be normalised to "
            f"a luminosity{stored}"
        )
        problem.report = report
        raise problem
    return report


def _cancelled(report: RunReport) -> list[str]:
    """Return the simulated datasets that have events, and weights that sum to 0, where the sum would be used."""
    cancelled = []
    normalised = needs_normalisation(report.outputs, report.datasets)
    for name, entry in report.datasets.items():
        out = report.outputs.get(name)
        used = name in normalised or (isinstance(out, Mapping) and "rows" in out)
        mc = is_simulation(entry["metadata"]) is not False
        if used and mc and entry["events"] and entry["weighted"] and entry["sumw"] == 0:
            cancelled.append(name)
    return cancelled
