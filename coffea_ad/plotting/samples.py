"""What a figure of results is of: histograms of one region by process, for backgrounds, signals and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coffea_ad.plotting.styles import Style
from coffea_ad.results.results import Results
from coffea_ad.results.sums import add_variations, by_era, sum_of
from coffea_ad.weights import era_of, is_signal, kind_of, process_of

__all__ = ["Samples", "processes", "samples"]


@dataclass(frozen=True)
class Samples:
    """Histograms of one observable in one region, at the run's luminosity.

    Attributes
    ----------
    background, signals : {process: Hist}
        Over variation and the observable; datasets of a process, and processes of a group, are added.
    data : {dataset: Hist}
        Over the observable.
    datasets : list of str
        What all of it is of.
    """

    background: dict[str, Any]
    signals: dict[str, Any]
    data: dict[str, Any]
    datasets: list[str]

    def nominal(self) -> dict[str, Any]:
        """Return the sum of the background, every signal, and the sum of data, where there are any, over the observable."""
        out = {"background": nominal(add_variations(list(self.background.values())))} if self.background else {}
        out |= {process: nominal(h) for process, h in self.signals.items()}
        return out | ({"data": sum_of(list(self.data.values()))} if self.data else {})


def nominal(histogram: Any) -> Any:
    """Return the part of a histogram without variations."""
    return histogram[{"variation": "nominal"}]


def samples(
    results: Results, observable: str, region: str, style: Style, signals: Sequence[str] | None = None
) -> Samples:
    """Return what is filled of an observable in a region; datasets without it, or without a normalisation, are left out.

    Parameters
    ----------
    results : Results
    observable, region : str
    style : Style
        Its groups of processes.
    signals : sequence of str, optional
        Datasets; by default those whose metadata mark them as signals.
    """
    datasets, left_out = results.report["datasets"], results.not_normalisable
    scaled = {
        d: results.scaled(d, observable, region)
        for d, named in results.in_regions.items()
        if d not in left_out and observable in named and region in named[observable].axes["region"]
    }
    data = {d: nominal(h) for d, h in scaled.items() if kind_of(datasets[d]["metadata"]) == "data"}
    eras, told = {era_of(entry["metadata"]) for entry in datasets.values()}, results.report.get("variations", {})
    marked = [d for d in scaled if is_signal(datasets[d]["metadata"])] if signals is None else signals

    def by_process(names: Sequence[str]) -> dict[str, Any]:
        groups: dict[str, list[Any]] = {}
        for name in names:
            metadata = datasets[name]["metadata"]
            histogram = by_era(scaled[name], era_of(metadata), told) if len(eras) > 1 else scaled[name]
            groups.setdefault(style.group(process_of(name, metadata)), []).append(histogram)
        return {process: add_variations(several) for process, several in groups.items()}

    simulated = [d for d in scaled if d not in data]
    background = by_process([d for d in simulated if d not in marked])
    return Samples(background, by_process([d for d in simulated if d in marked]), data, list(scaled))


def processes(results: Results, style: Style) -> list[str]:
    """Return the processes of all simulated backgrounds and signals of a run, in groups: each has its colour."""
    datasets = results.report["datasets"]
    return [
        style.group(process_of(name, entry["metadata"]))
        for name, entry in datasets.items()
        if kind_of(entry["metadata"]) != "data"
    ]
