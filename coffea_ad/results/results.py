"""Results: raw histograms over cells, regions as sums of them, and the report of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import awkward as ak
import hist
import numpy as np

from coffea_ad import files
from coffea_ad.errors import ConfigError, NotNormalisable, UnknownName
from coffea_ad.event_lists import TopEvents
from coffea_ad.event_lists.table import table_of
from coffea_ad.results.listing import datasets_table
from coffea_ad.results.stacked import over_datasets
from coffea_ad.results.sums import add_data, add_processes, luminosity_of
from coffea_ad.scoring.regions import Definitions, add_cells
from coffea_ad.tables import html_of
from coffea_ad.weights import is_simulation, normalisation

__all__ = ["ALL", "Results", "over_regions"]


ALL = "all"
"""The group of histograms that are of no single dataset."""


def over_regions(histogram: hist.Hist) -> bool:
    """Say whether a histogram is over cells (or regions), variation and observables: the form that is brought to luminosity."""
    names = set(histogram.axes.name)
    return "variation" in names and bool(names & {"cell", "region"})


@dataclass(frozen=True, repr=False)
class Results:
    """What a run has filled.

    Attributes
    ----------
    histograms : {dataset: {name: Hist}}
        Raw: of a search, sums of weights over cell, variation and the observables. What a processor has filled for all
        datasets together stands under "all".
    report : dict
        The content of `report.json`.
    event_lists : {dataset: {name: TopEvents}}
        The most anomalous events, where the processor has listed them.
    named : {region: frozenset of str}
        Regions that were defined after the run.
    """

    histograms: dict[str, dict[str, hist.Hist]]
    report: dict[str, Any]
    event_lists: dict[str, dict[str, TopEvents]] = field(default_factory=dict)
    named: Definitions = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return one line: which datasets, and how many histograms."""
        names = list(self.report.get("datasets", {}))
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        n = sum(len(named) for named in self.histograms.values())
        return f"<Results of {self.report.get('processor', 'a processor')}: {n} histograms of {len(names)} datasets ({listed})>"

    def regions_of(self, dataset: str) -> Definitions:
        """Return the regions of a dataset as sets of cells: those of its run, and those that were defined later."""
        stored = self._entry(dataset).get("regions", {})
        return {name: frozenset(cells) for name, cells in stored.items()} | self.named

    @property
    def regions(self) -> Definitions:
        """The regions as sets of cells, where all datasets have them alike.

        >>> results = Results({}, {"datasets": {"tt": {"regions": {"loose": ["1", "2"], "tight": ["2"]}}}})
        >>> sorted(results.regions["loose"] - results.regions["tight"])
        ['1']
        """
        out: Definitions = {}
        differing = set()
        for dataset in self.report["datasets"]:
            for name, cells in self.regions_of(dataset).items():
                if out.setdefault(name, cells) != cells:
                    differing.add(name)
        return {name: cells for name, cells in out.items() if name not in differing}

    def with_regions(self, definitions: Mapping[str, Iterable[str]]) -> Results:
        """Return the results with more regions, made of the cells that were filled.

        Parameters
        ----------
        definitions : {region: cells}
            Sets of `regions` can be joined (`|`), cut (`&`) and subtracted (`-`).

        Raises
        ------
        ConfigError
            A name is taken, or cannot be that of a file.
        UnknownName
            There is no such cell.
        """
        cells = {c for named in self.histograms.values() for h in named.values() for c in _cells(h)}
        new = {name: frozenset(of) for name, of in definitions.items()}
        for name, of in new.items():
            if name in self.regions or not files.is_name(name):
                raise ConfigError(
                    f"region {name}: "
                    + ("there is one of this name" if name in self.regions else "letters, digits and _ . + - only")
                )
            for cell in of:
                if cell not in cells:
                    raise UnknownName(f"region {name}: there is no cell {cell}; there are {', '.join(sorted(cells))}")
        return replace(self, named={**self.named, **new})

    @cached_property
    def in_regions(self) -> dict[str, dict[str, hist.Hist]]:
        """The raw histograms over region, variation and observables, {dataset: {observable: Hist}}; regions are sums of cells."""
        datasets = self.report["datasets"]
        fits = {d: {o: h for o, h in n.items() if over_regions(h)} for d, n in self.histograms.items() if d in datasets}
        return {d: {o: self._summed(d, h) for o, h in named.items()} for d, named in fits.items() if named}

    def _summed(self, dataset: str, histogram: hist.Hist) -> hist.Hist:
        if "cell" not in histogram.axes.name:
            return histogram  # a processor's own regions, or a folder of before there were cells
        cells = set(_cells(histogram))
        fitting = {name: of for name, of in self.regions_of(dataset).items() if of <= cells}
        return add_cells(histogram, fitting)

    def region(self, name: str) -> dict[str, dict[str, hist.Hist]]:
        """Return the raw histograms of one region over variation and observables, {dataset: {observable: Hist}}.

        Raises
        ------
        UnknownName
            No dataset has such a region; the message says the nearest name.
        """
        selected = {
            d: {o: h[{"region": name}] for o, h in named.items() if name in h.axes["region"]}
            for d, named in self.in_regions.items()
        }
        selected = {d: named for d, named in selected.items() if named}
        if not selected:
            known = {r for named in self.in_regions.values() for h in named.values() for r in h.axes["region"]}
            raise UnknownName.of("region", name, sorted(known))
        return selected

    @property
    def observables(self) -> list[str]:
        """Names of all histograms."""
        return list(dict.fromkeys(name for named in self.histograms.values() for name in named))

    def __iter__(self) -> Iterator[str]:
        return iter(self.observables)

    def __getitem__(self, observable: str) -> hist.Hist:
        """Return a histogram of all datasets, each at the luminosity of its run, over `dataset` and its own axes.

        Those of a search are over dataset, region, variation and the observable. A dataset without a variation has its nominal content there, so
        that sums over datasets are right; a region that is hidden in a dataset, or that it has not, is NaN. What a processor
        has filled for all datasets together, without an axis `dataset`, is returned as it is.

        Parameters
        ----------
        observable : str

        Raises
        ------
        UnknownName
            There is no such histogram.
        NotNormalisable, ConfigError
            As for `norm`; axes of datasets differ.
        """
        return over_datasets(self, observable)

    def _ipython_key_completions_(self) -> list[str]:
        return self.observables

    def _repr_html_(self) -> str:
        names = ", ".join(self.observables) or "none"
        regions = ", ".join(self.regions) or "none"
        return html_of(
            repr(self)[1:-1], [datasets_table(self.report["datasets"])], [f"histograms: {names}", f"regions: {regions}"]
        )

    def _entry(self, dataset: str) -> dict[str, Any]:
        if dataset not in list(self.report["datasets"]):  # a list: what is no text has no hash perhaps
            raise UnknownName.of("dataset", str(dataset), self.report["datasets"])
        entry: dict[str, Any] = self.report["datasets"][dataset]
        return entry

    @property
    def not_normalisable(self) -> dict[str, str]:
        """Why, for each dataset that has no factor to a luminosity."""
        reasons = {}
        for dataset in self.report["datasets"]:
            try:
                self.norm(dataset)
            except (ConfigError, NotNormalisable) as error:
                reasons[dataset] = str(error)
        return reasons

    def norm(self, dataset: str) -> float:
        """Return the factor from raw sums to the luminosity of the dataset's run.

        Raises
        ------
        UnknownName
            There is no such dataset.
        NotNormalisable, ConfigError
            Its weights sum to 0 or were not collected; there is no cross-section or luminosity.
        """
        entry = self._entry(dataset)
        if entry.get("events") == 0:
            return 0.0  # nothing to scale
        lumi = entry.get("lumi", self.report["lumi"])
        mc = is_simulation(entry["metadata"]) is not False
        if mc and lumi is None:
            raise ConfigError(f"dataset {dataset}: its run was given no luminosity; run it with --lumi")
        if mc and not (entry.get("weighted", True) and entry.get("sumw") is not None):
            raise NotNormalisable(
                f"dataset {dataset}: its processor returned no sumw, the sum of weights, to normalise with"
            )
        return normalisation(dataset, entry["metadata"], entry.get("sumw", 0.0), lumi)

    def scaled(self, dataset: str, observable: str, region: str | None = None) -> hist.Hist:
        """Return a histogram of a dataset at its run's luminosity.

        Of a histogram of all datasets with an axis `dataset`, this is the dataset's part. Variations that are of shape only
        have the cross-section of the nominal.

        Parameters
        ----------
        dataset, observable : str
        region : str, optional
            One region; without, all of them, over an axis `region`.

        Raises
        ------
        UnknownName
            There is no such dataset, histogram or region; the message says the nearest name.
        NotNormalisable, ConfigError
            As for `norm`.
        """
        norm = self.norm(dataset)
        named, common = self.histograms.get(dataset, {}), self.histograms.get(ALL, {})
        if observable in named:
            histogram = self.in_regions.get(dataset, {}).get(observable)
            if histogram is None:
                if region is not None:
                    raise ConfigError(f"histogram {observable} of {dataset} is not over regions")
                return named[observable] * norm
            histogram = self._same_cross_section(dataset, histogram * norm)
            if region is None:
                return histogram
            if region not in histogram.axes["region"]:
                raise UnknownName.of(f"region of {dataset}", region, list(histogram.axes["region"]))
            return histogram[{"region": region}]
        if observable in common and "dataset" in common[observable].axes.name:
            if dataset in common[observable].axes["dataset"]:
                return common[observable][{"dataset": dataset}] * norm
            raise UnknownName(f"histogram {observable}: its axis dataset has no {dataset}")
        raise UnknownName.of(f"histogram of {dataset}", observable, named)

    def data(self, observable: str, region: str = "inclusive", *, era: str | None = None) -> hist.Hist:
        """Return all data of a region added, over the observable.

        Parameters
        ----------
        observable, region : str
        era : str, optional
            One only; without, all eras are added.

        Raises
        ------
        UnknownName
            There is no such region.
        ConfigError
            There are no data; the region is hidden in them; in an era data and simulation do not belong together.
        """
        return add_data(self, observable, region, era)

    def background(self, observable: str, region: str = "inclusive", *, era: str | None = None) -> dict[str, hist.Hist]:
        """Return the simulated background by process at its luminosity, {process: Hist} over variation and observable.

        Datasets of one `process` are added, as are eras. A dataset without a variation counts with its nominal content in it,
        and variations that are uncorrelated between eras become one of each era.

        Raises
        ------
        UnknownName, ConfigError
            As for `data`.
        NotNormalisable
            The weights of a dataset sum to 0.
        """
        return add_processes(self, "background", observable, region, era)

    def signals(self, observable: str, region: str = "inclusive", *, era: str | None = None) -> dict[str, hist.Hist]:
        """Return the simulated signals by process, as `background` does."""
        return add_processes(self, "signal", observable, region, era)

    def luminosity(self, era: str | None = None) -> float | None:
        """Return the luminosity, fb⁻¹: the sum over eras, or that of one; None if it is not known."""
        return luminosity_of(self, era)

    def events(self, dataset: str, name: str | None = None) -> ak.Array:
        """Return the most anomalous events of a dataset, best first: a record with file, entry, ids, scores and observables.

        Parameters
        ----------
        dataset : str
            Or "all", where the processor has one list for all.
        name : str, optional
            One of its lists; all by default, one after the other. The field `list` tells them apart, and what a list does not
            say of its events is NaN.

        Raises
        ------
        UnknownName
            There is no list of that dataset, or none of that name.
        """
        if dataset not in self.event_lists:
            raise UnknownName.of("dataset with a list of events", dataset, self.event_lists)
        lists = self.event_lists[dataset]
        if name is not None and name not in lists:
            raise UnknownName.of(f"list of events of {dataset}", name, lists)
        return table_of({n: top for n, top in lists.items() if name in (None, n)})

    def _same_cross_section(self, dataset: str, histogram: hist.Hist) -> hist.Hist:
        """Scale the variations that are of shape only: sums of weights before any cut tell what they do to the cross-section."""
        sums = self._entry(dataset).get("sumw_variations") or {}
        told = self.report.get("variations", {})
        place = histogram.axes.name.index("variation")
        for i, name in enumerate(histogram.axes["variation"]):
            if told.get(name, {}).get("shape_only") and sums.get(name):
                content = np.moveaxis(np.asarray(histogram.view(flow=True)), place, 0)[i]
                factor = sums["nominal"] / sums[name]
                for part, power in (("value", 1), ("variance", 2)) if content.dtype.names else ((..., 1),):
                    content[part] *= factor**power
        return histogram


def _cells(histogram: hist.Hist) -> list[str]:
    return list(histogram.axes["cell"]) if "cell" in histogram.axes.name else []
