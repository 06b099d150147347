"""Whether the sums of weights of a run can normalise it: files that are cut, signs, and weights that cancel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from coffea_ad.errors import ConfigError
from coffea_ad.running.accounting import total_of
from coffea_ad.running.chunks import SUMS
from coffea_ad.weights import takes_sign

__all__ = ["skimmed_signs", "sum_of_weights", "weighed"]


_FEW = 0.01  # of the events
_LEAST = 10.0  # events
_CANCELLED = 1e-12  # |Σw| / Σ|w| that is nothing but rounding


def weighed(dataset: str, entry: dict[str, Any]) -> list[str]:
    """Look at the weights of a simulated dataset, and say what is wrong with them.

    If they cancel, its sum of weights becomes exactly 0, so that nothing can be normalised by what is only rounding. Otherwise
    it is said if few events carry the sum, or most of it cancels.

    Parameters
    ----------
    dataset, entry : str, dict
        As `per_dataset` makes them, with `sumw`.
    """
    files = list(entry["files"].values())
    sumw, absolute, square = (total_of(files, k) for k in SUMS)
    n = entry["events"]
    if n == 0 or sumw is None or absolute is None or square is None:
        return []
    if abs(entry["sumw"]) <= _CANCELLED * absolute:
        entry["sumw"] = 0.0
        return [f"{dataset}: the weights of its {n} events sum to 0; nothing of it can be normalised"]
    if not math.isfinite(square) or square == 0:
        return []
    carrying, effective = absolute**2 / square, sumw**2 / square
    if carrying < _FEW * n or (carrying < _LEAST and n > 2 * _LEAST):
        return [f"{dataset}: few events carry its sum of weights: {n} events are worth {carrying:.3g} of equal weight"]
    if effective < _FEW * n:
        return [f"{dataset}: most of its weights cancel: {n} events are worth {effective:.3g} without negative weights"]
    return []


def _unlike_runs(file: Mapping[str, Any], fraction: float, *, signs: bool = False) -> str | None:
    """Compare a simulated file with its `Runs`: None if they agree, "" if it was skimmed before, else what is wrong.

    `Runs` have no sums of signs: there only the numbers of events can be compared.
    """
    generated, events, runs = file["generated"], file["events"], file["runs_sumw"]
    if events is None or (generated is None and runs is None):
        return None
    if generated is not None and generated < events:
        return f"holds {events} events, but its Runs count {generated:g} generated ones only, as after a merge that lost some"
    if generated == events:
        return None
    if signs:
        return "has Runs that count no events: whether it was skimmed before is not known" if generated is None else ""
    if runs is None or not math.isfinite(runs):
        return "was skimmed before and has no genEventSumw that is a number"
    if generated is not None:
        return ""
    if file["processed"] < events or events == 0 or "sumw2" not in file:
        return None if events else ""
    # no number of events: only the sums can tell, up to rounding and to what a part by hash leaves to chance
    sumw = file["sumw"] / fraction
    allowed = (
        1e-4 * max(abs(runs), file.get("sumw_abs", 0.0)) + 6 * math.sqrt((1 - fraction) * file["sumw2"]) / fraction
    )
    if abs(runs - sumw) <= allowed:
        return None
    if runs < sumw and file.get("sumw_abs") == file["sumw"]:
        return f"has weights that sum to {sumw:g}, but its Runs say {runs:g} only, as after a merge that lost some"
    return ""


def skimmed_signs(dataset: str, path: str, file: Mapping[str, Any]) -> str:
    """Say that a file cannot be normalised by signs, given its numbers of `events` and `generated` ones."""
    return (
        f"dataset {dataset}: {path} was skimmed before ({file['events']:g} of {file['generated']:g} events), and its Runs have "
        "no sum of signs to normalise with; take generator_weight: stored, or the file before that skim"
    )


def sum_of_weights(
    dataset: str, entry: Mapping[str, Any], *, mc: bool, fraction: float, notes: list[str]
) -> float:  # fmt: skip
    """Return the sum of weights that normalises what was processed of a dataset.

    It is collected with the histograms, chunk by chunk. A file that was skimmed before holds fewer events than `Runs` has
    counted: its share is the sum in `Runs`, times the part of its events that was processed.

    Parameters
    ----------
    dataset, entry : str, dict
        As `per_dataset` makes them.
    mc : bool
    fraction : float
        The part of all events that the processor keeps by their hash.
    notes : list of str
        Takes a sentence if there are skimmed files.
    """
    total, skimmed, partly = 0.0, 0, 0
    signs = takes_sign(dataset, entry["metadata"])
    for path, file in entry["files"].items():
        problem = _unlike_runs(file, fraction, signs=signs) if mc else ""
        if not mc or problem is None:
            total += file["sumw"]
        elif problem:
            notes.append(f"{dataset}: {path} {problem}; it counts by its own events")
            total += file["sumw"]
        elif signs:
            raise ConfigError(skimmed_signs(dataset, path, file))
        else:
            skimmed += 1
            partly += 0 < file["processed"] < file["events"]
            # of one that was skimmed to nothing, all was processed
            part = file["processed"] / file["events"] if file["events"] else 1.0
            total += fraction * file["runs_sumw"] * part
    if skimmed:
        part = f"; {partly} of them in part, by the part of their events" if partly else ""
        notes.append(f"{dataset}: {skimmed} files were skimmed before; their sum of weights is taken from Runs{part}")
    return total
