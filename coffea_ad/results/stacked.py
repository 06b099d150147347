"""One histogram over datasets, regions and variations, of those of each dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import hist
import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.results.sums import with_variations

__all__ = ["over_datasets"]


class _Filled(Protocol):
    """What is asked of results."""

    @property
    def report(self) -> dict[str, Any]: ...
    @property
    def histograms(self) -> Mapping[str, Mapping[str, hist.Hist]]: ...
    def regions_of(self, dataset: str) -> Mapping[str, frozenset[str]]: ...
    def scaled(self, dataset: str, observable: str) -> hist.Hist: ...


def over_datasets(results: _Filled, observable: str) -> hist.Hist:
    """Return a histogram of all datasets that have it, at luminosity, over `dataset` and its own axes.

    Parameters
    ----------
    results : Results
    observable : str

    Raises
    ------
    UnknownName
        There is no such histogram.
    NotNormalisable, ConfigError
        A dataset cannot be brought to luminosity; axes of datasets differ.
    """
    datasets = list(results.report["datasets"])
    common = [of[observable] for group, of in results.histograms.items() if group not in datasets and observable in of]
    having = [d for d in datasets if observable in results.histograms.get(d, {})]
    if not having and not common:
        raise UnknownName.of("histogram", str(observable), {name for of in results.histograms.values() for name in of})
    if not having and "dataset" not in common[0].axes.name:
        return common[0]
    having = having or [d for d in datasets if d in common[0].axes["dataset"]]
    return _joined(observable, {d: _without_hidden(results, d, results.scaled(d, observable)) for d in having})


def _without_hidden(results: _Filled, dataset: str, histogram: hist.Hist) -> hist.Hist:
    """Put NaN where a region is hidden in the dataset: 0 would be a count."""
    hidden = set(results.report["datasets"][dataset].get("hidden_cells", ()))
    if not hidden or "region" not in histogram.axes.name:
        return histogram
    cells = results.regions_of(dataset)
    for region in histogram.axes["region"]:
        if cells.get(region) and cells[region] <= hidden:
            _fill(histogram, "region", region, np.nan)
    return histogram


def _fill(histogram: hist.Hist, axis: str, category: str, value: float) -> None:
    content = np.moveaxis(np.asarray(histogram.view(flow=True)), histogram.axes.name.index(axis), 0)
    part = content[list(histogram.axes[axis]).index(category)]
    for name in part.dtype.names or (...,):
        part[name] = value


def _joined(observable: str, parts: Mapping[str, hist.Hist]) -> hist.Hist:
    first = next(iter(parts.values()))
    names = {
        axis: list(dict.fromkeys(c for h in parts.values() if axis in h.axes.name for c in h.axes[axis]))
        for axis in ("variation", "region")
        if all(axis in h.axes.name for h in parts.values())
    }
    weighted = all(h.storage_type is hist.storage.Weight for h in parts.values())
    axes = [
        hist.axis.StrCategory(names[a.name], name=a.name, label=a.label) if a.name in names else a for a in first.axes
    ]
    out = hist.Hist(
        hist.axis.StrCategory(list(parts), name="dataset", label="dataset"), *axes,
        storage=hist.storage.Weight() if weighted else hist.storage.Double(),
    )  # fmt: skip
    view = out.view(flow=True)
    for i, (dataset, histogram) in enumerate(parts.items()):
        like = _with_categories(histogram, names)
        if list(like.axes) != list(out.axes)[1:]:
            raise ConfigError(
                f"histogram {observable}: the axes of {dataset} are not those of {next(iter(parts))}; take one with scaled"
            )
        content = like.view(flow=True)
        view[i] = content if weighted or content.dtype.names is None else content["value"]
    return out


def _with_categories(histogram: hist.Hist, names: Mapping[str, list[str]]) -> hist.Hist:
    """Return a histogram with these variations, nominal where it has none, and these regions, NaN where it has none."""
    if "variation" in names and "nominal" in histogram.axes["variation"]:
        histogram = with_variations(histogram, {v: v for v in names["variation"]})
    if "region" not in names:
        return histogram
    known = list(histogram.axes["region"])
    axes = [
        hist.axis.StrCategory(names["region"], name=a.name, label=a.label) if a.name == "region" else a
        for a in histogram.axes
    ]
    out = hist.Hist(*axes, storage=histogram.storage_type())
    place = histogram.axes.name.index("region")
    content, view = (np.moveaxis(np.asarray(h.view(flow=True)), place, 0) for h in (histogram, out))
    for i, region in enumerate(names["region"]):
        if region in known:
            view[i] = content[known.index(region)]
        else:
            _fill(out, "region", region, np.nan)
    return out
