"""Acceptance × efficiency of a new signal in the regions of a model, from its NanoAOD, and what this says of its cross-section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import files
from coffea_ad.errors import BadFile, ConfigError
from coffea_ad.filesets.inspection import inspect_files
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.running.runs import run
from coffea_ad.scoring.card import ModelCard, read_card
from coffea_ad.search.unique import NOTHING, PER_PB, UniqueEfficiency, unique_efficiencies
from coffea_ad.search.visible import SignalLimit, limit_of, read_limits

__all__ = [
    "Acceptance",
    "RegionAcceptance",
    "acceptance",
    "counting_observable",
    "default_processor",
    "region_acceptances",
]

SIGNAL = "signal"
"""The dataset that the files of a signal make."""
_NO_CUTS = ("unblind", "top_events", "splits", "training_fraction", "training_salt", "corrections", "jet_scale")


@dataclass(frozen=True)
class RegionAcceptance:
    """Part of a signal that is in a region.

    Attributes
    ----------
    value, error : float
        Sum of weights in the region over that of all events, and its binomial error with weights; where nothing passes, what is
        excluded at 68 %.
    n_effective : float
        Of the events in the region.
    variations : {variation: float}
        The same value where something is varied, such as jet energies.
    unique : {observable: UniqueEfficiency}
        What no cut on the observable takes at the same background rate.
    background_efficiency : float, optional
        Of the selected background, where it was given.
    """

    value: float
    error: float
    n_effective: float
    variations: Mapping[str, float] = field(default_factory=dict)
    unique: Mapping[str, UniqueEfficiency] = field(default_factory=dict)
    background_efficiency: float | None = None

    @property
    def least_unique(self) -> UniqueEfficiency | None:
        """The cut that leaves least of the signal to the region alone."""
        return min(self.unique.values(), key=lambda u: u.value, default=None)


@dataclass(frozen=True)
class Acceptance:
    """What a signal has in the regions of a model.

    Attributes
    ----------
    model, processor : str
    files : {path: events}
    counted_by : str
        The observable whose histogram has each selected event once.
    events, sumw : int, float
        Processed; before any cut.
    regions : {region: RegionAcceptance}
    cutflow : {step: {"events", "weight"}}
    limits : {region: SignalLimit}
        Cross-sections, where a search was given.
    notes : list of str
    """

    model: str
    processor: str
    files: dict[str, int]
    counted_by: str
    events: int
    sumw: float
    regions: dict[str, RegionAcceptance]
    cutflow: dict[str, Any]
    limits: dict[str, SignalLimit]
    notes: list[str]

    @property
    def best_region(self) -> str | None:
        """The region with the lowest expected limit on the cross-section; None without a limit."""
        expected = {name: limit.expected for name, limit in self.limits.items() if limit.expected is not None}
        return min(expected, key=lambda name: expected[name]) if expected else None


def acceptance(
    model: str | Path,
    signal: Sequence[str],
    output: str | Path,
    *,
    processor: str | None = None,
    config: str | Path | None = None,
    overrides: Sequence[str] = (),
    background: str | Path | None = None,
    search: str | Path | None = None,
    tree: str = "Events",
    **how: Any,
) -> Acceptance:
    """Run a search's processor over a signal, and count what is in its regions.

    Parameters
    ----------
    model : path
        With regions.
    signal : sequence of path
        NanoAOD of one signal, with genWeight.
    output : path
        The run's results go to `results/` in it.
    processor : str, optional
        A name or a file; by default the one that is made for the model: `default_processor`.
    config, overrides
        Of the processor, as in the search.
    background : path, optional
        Results of the same processor and the same model, for the unique efficiencies.
    search : path, optional
        Folder with `limits.json`: visible cross-sections excluded in each region.
    tree : str
    how
        More of `coffea_ad.run`, such as `executor`.

    Raises
    ------
    BadFile
        A file is not there, not NanoAOD, or empty; or there is no such folder.
    ConfigError
        There are no weights, or the model is of another level than the processor; background or limits do not belong to the model.
    """
    card = read_card(_bytes(model), str(model))
    limits = None if search is None else read_limits(search)
    others = None if background is None else load_results(background)
    events, filtered = _checked(signal, tree)
    name = processor or default_processor(card)
    fileset = {
        SIGNAL: {"files": dict.fromkeys(events, tree), "metadata": {"is_mc": True, "xsec": 1.0, "kind": "signal"}}
    }
    folder = files.join(output, "results")
    report = run(fileset, name, model=model, config=config, overrides=overrides, output=folder, lumi=1.0,
                 **{"executor": "iterative", "force": True, **how})  # fmt: skip
    results = load_results(folder)
    counted_by = counting_observable(results, SIGNAL)
    regions = region_acceptances(results, SIGNAL, counted_by)
    if others is not None:
        _refuse_other_background(results, others, str(background))
        regions = unique_efficiencies(results, others, SIGNAL, counted_by, regions)
    entry = results.report["datasets"][SIGNAL]
    return Acceptance(
        str(model), name, events, counted_by, entry["events"], entry["sumw"], regions, entry.get("cutflow", {}),
        {} if limits is None else limit_of(regions, limits, str(search)), [*filtered, *report.notes],
    )  # fmt: skip


def _bytes(model: str | Path) -> bytes:
    try:
        return files.read(model)
    except OSError as error:
        raise BadFile(f"{model}: cannot be read ({error.strerror or error})") from None


def default_processor(card: ModelCard) -> str:
    """Return the shipped processor that a model is made for: `event_anomaly` for whole events, if none is for its feature."""
    if card.level == "jet":
        return "semivisible_jets"
    names = {feature.name for spec in card.inputs for feature in spec.features}
    if names == {"dijet"}:
        return "dijet_resonance"
    return "rmm_two_body" if any(name.startswith("rmm") for name in names) else "event_anomaly"


def _checked(signal: Sequence[str], tree: str) -> tuple[dict[str, int], list[str]]:
    """Return the number of events of each file, and what to note where events were left out before.

    Raises
    ------
    BadFile, ConfigError
    """
    if not signal:
        raise ConfigError("acceptance needs a file of the signal")
    inspected = inspect_files({SIGNAL: {"files": dict.fromkeys(map(str, signal), tree)}})[SIGNAL]
    for path, seen in inspected.items():
        if seen.problems:
            hint = "; this is not NanoAOD" if "tree" in seen.problems[0] or "branch" in seen.problems[0] else ""
            raise BadFile(f"{path}: {seen.problems[0]}{hint}")
        if "genWeight" not in seen.branches:
            raise ConfigError(
                f"{path}: there is no branch genWeight; the acceptance of a signal is a ratio of sums of its weights"
            )
    if not sum(seen.events for seen in inspected.values()):
        raise BadFile(f"{', '.join(inspected)}: there are no events in it")
    notes = [
        f"{path}: {seen.events} of {seen.generated} generated events are in the file; its acceptance is that of those that are"
        for path, seen in inspected.items()
        if seen.generated is not None and seen.generated > seen.events
    ]
    return {path: seen.events for path, seen in inspected.items()}, notes


def counting_observable(results: Results, dataset: str) -> str:
    """Return an observable whose histogram holds each selected event once.

    Raises
    ------
    ConfigError
        There is none, so that events cannot be counted.
    """
    cutflow = results.report["datasets"][dataset].get("cutflow") or {}
    selected = float(list(cutflow.values())[-1]["weight"]) if cutflow else 0.0
    for name, histogram in results.histograms.get(dataset, {}).items():
        if "cell" not in histogram.axes.name or len(histogram.axes) != 3:
            continue
        total = histogram[{"variation": "nominal"}].sum(flow=True)
        if abs(total.value - selected) <= 1e-9 * max(abs(selected), total.variance**0.5):
            return str(name)
    raise ConfigError(
        f"{results.report['processor']} fills no histogram over the cells of a model that has each selected event of {dataset} once, so "
        "that its regions cannot be counted"
    )


def region_acceptances(results: Results, dataset: str, counted_by: str) -> dict[str, RegionAcceptance]:
    """Return acceptance × efficiency of every region of a dataset of 1 pb.

    σ² = [(1−ε)² Σ_pass w² + ε² Σ_fail w²] / (Σ w)², as for all efficiencies of weighted events.

    Parameters
    ----------
    results : Results
        Of a run at 1 fb⁻¹.
    dataset, counted_by : str
        Observable of `counting_observable`.
    """
    sums = results.report["outputs"][dataset]
    all_squares = float(sums["sumw2"]) / float(sums["sumw"]) ** 2
    histogram = results.scaled(dataset, counted_by)
    out = {}
    for region in histogram.axes["region"]:
        totals = {
            name: histogram[{"region": region, "variation": name}].sum(flow=True)
            for name in histogram.axes["variation"]
        }
        value, square = totals["nominal"].value / PER_PB, totals["nominal"].variance / PER_PB**2
        error = float(np.sqrt(max((1 - 2 * value) * square + value**2 * all_squares, 0.0)))
        out[region] = RegionAcceptance(
            value=float(value),
            error=error if square > 0 else NOTHING * all_squares,
            n_effective=float(value**2 / square) if square > 0 else 0.0,
            variations={name: float(t.value / PER_PB) for name, t in totals.items() if name != "nominal"},
        )
    return out


def _refuse_other_background(results: Results, background: Results, name: str) -> None:
    """Raise where results of the background are of another processor, model or regions.

    Raises
    ------
    ConfigError
    """
    if background.report.get("processor") != results.report["processor"]:
        raise ConfigError(
            f"{name}: these results are of {background.report.get('processor')}, and the signal's of {results.report['processor']}"
        )
    network = [[(m["network"], m["calibration"]) for m in r.report["models"]] for r in (results, background)]
    if network[0] != network[1]:
        raise ConfigError(f"{name}: these results were made with another model")
    for key, value in results.report["config"].items():
        if key not in _NO_CUTS and background.report["config"].get(key) != value:
            raise ConfigError(
                f"{name}: {key} is {background.report['config'].get(key)} there and {value} for the signal; select both alike"
            )
    for region, about in results.report["regions"].items():
        other = background.report["regions"].get(region, {})
        if any(other.get(key) != about.get(key) for key in ("cells", "thresholds", "edges", "spectator")):
            raise ConfigError(f"{name}: region {region} has other thresholds there than in the model")
