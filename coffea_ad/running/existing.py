"""What is in a results folder before a run: results of this very run, of another part of a skim, or of something else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coffea_ad.errors import CoffeaADError
from coffea_ad.luminosity.recorded import LuminosityLike
from coffea_ad.outputs import RESULTS, check_folder, existing, skimmed
from coffea_ad.results.folder import load_results
from coffea_ad.running.checkpoints import digest_of
from coffea_ad.running.opening import Fileset
from coffea_ad.running.plan import Plan

__all__ = ["refuse_other_results"]

_ADDED_BY_RUNS = ("is_mc", "campaign", "sqrt_s")
"""What a run adds to the metadata of a dataset, where the fileset does not say it."""


def refuse_other_results(plan: Plan, fileset: Fileset) -> None:
    """Refuse a folder with results, unless they are of this very run, or of other datasets of a skim.

    Raises
    ------
    ConfigError
    """
    options = plan.options
    output = options.output
    if output is None:
        return
    if options.force or not existing(output, RESULTS):
        check_folder(output, RESULTS, force=options.force)
        return
    adds = not plan.job.fills_histograms and bool(skimmed(output)) and not skimmed(output) & set(fileset)
    check_folder(output, RESULTS, force=adds or _is_of_this_run(plan, fileset, options.lumi))


def _is_of_this_run(plan: Plan, fileset: Fileset, lumi: LuminosityLike) -> bool:
    """Say whether the results in the folder are of a run with the same key, files and luminosity."""
    try:
        stored = load_results(plan.options.output or "").report
        datasets = stored["datasets"]
        same = {d: list(e["files"]) for d, e in datasets.items()} == {d: list(e["files"]) for d, e in fileset.items()}
        metadata = all(_says_the_same(datasets[d]["metadata"], e["metadata"]) for d, e in fileset.items())
    except (CoffeaADError, KeyError, TypeError):
        return False
    return (
        same
        and metadata
        and digest_of(stored["key"]) == digest_of(plan.key())
        and lumi in (None, stored["settings"].get("lumi"), stored["lumi"])
    )


def _says_the_same(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Compare metadata in a report, to which a run adds what it finds in the files, with those of a fileset."""
    now = json.loads(json.dumps(dict(asked), default=str))
    return bool(now == {k: v for k, v in stored.items() if k in now or k not in _ADDED_BY_RUNS})
