"""Histograms of datasets added: all data, and simulation by process; eras must fit each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import hist
import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.luminosity.sections import number_of_sections, union
from coffea_ad.typing import Float64s
from coffea_ad.weights import era_of, kind_of, process_of

__all__ = [
    "add_data",
    "add_processes",
    "add_variations",
    "by_era",
    "check_eras",
    "luminosity_of",
    "sum_of",
    "uncertainty",
    "with_variations",
]

_SAME = 1e-6  # luminosities, relative


class Filled(Protocol):
    """What is asked of results."""

    @property
    def report(self) -> dict[str, Any]: ...
    @property
    def in_regions(self) -> Mapping[str, Mapping[str, hist.Hist]]: ...
    def regions_of(self, dataset: str) -> Mapping[str, frozenset[str]]: ...
    def scaled(self, dataset: str, observable: str, region: str) -> hist.Hist: ...


def add_data(results: Filled, observable: str, region: str, era: str | None) -> hist.Hist:
    """Return the sum of all data, over the observable.

    Raises
    ------
    ConfigError
        There are no data, the region is hidden in them, or eras do not fit.
    """
    names = _datasets(results, "data", observable, era)
    for name in names:
        hidden = set(results.report["datasets"][name].get("hidden_cells", ()))
        cells = results.regions_of(name).get(region, frozenset())
        if cells and cells <= hidden:
            raise ConfigError(f"region {region} is hidden in {name}, which is blinded; run it with --unblind to see it")
    check_eras(results, era)
    return sum_of([results.scaled(name, observable, region)[{"variation": "nominal"}] for name in names])


def add_processes(results: Filled, kind: str, observable: str, region: str, era: str | None) -> dict[str, hist.Hist]:
    """Return the sum of the datasets of each process, over variation and observable, {process: Hist}.

    A variation that a dataset does not have leaves it as it is: its nominal content is added. A variation that is
    uncorrelated between eras becomes one of each era, `jes_2022Up`.

    Parameters
    ----------
    kind : "background" or "signal"

    Raises
    ------
    ConfigError
        There are none, or eras do not fit.
    """
    names = _datasets(results, kind, observable, era)
    check_eras(results, era)
    datasets, told = results.report["datasets"], results.report.get("variations", {})
    eras = {era_of(entry["metadata"]) for entry in datasets.values()}
    groups: dict[str, list[hist.Hist]] = {}
    for name in names:
        metadata = datasets[name]["metadata"]
        histogram = results.scaled(name, observable, region)
        if len(eras) > 1:
            histogram = by_era(histogram, era_of(metadata), told)
        groups.setdefault(process_of(name, metadata), []).append(histogram)
    return {process: add_variations(several) for process, several in groups.items()}


def sum_of(several: Sequence[hist.Hist]) -> hist.Hist:
    """Return the sum of histograms with the same axes.

    Raises
    ------
    ConfigError
    """
    try:
        return sum(several[1:], start=several[0])
    except ValueError as error:
        raise ConfigError(f"these datasets were filled with different axes and cannot be added ({error})") from None


def add_variations(several: Sequence[hist.Hist]) -> hist.Hist:
    """Return the sum of histograms over variation and more, where one that lacks a variation has its nominal content there.

    Examples
    --------
    >>> def toy(names, n):
    ...     h = hist.Hist(hist.axis.StrCategory(names, name="variation"), hist.axis.Regular(1, 0, 1, name="x"))
    ...     return h.fill(variation=names, x=0.5, weight=n)
    >>> total = add_variations([toy(["nominal", "jesUp"], [1, 3]), toy(["nominal"], [10])])
    >>> {v: total[{"variation": v, "x": 0}] for v in total.axes["variation"]}
    {'nominal': 11.0, 'jesUp': 13.0}
    """
    names = list(dict.fromkeys(v for h in several for v in h.axes["variation"]))
    return sum_of([with_variations(h, {v: v for v in names}) for h in several])


def uncertainty(background: hist.Hist, *, total: bool = False) -> tuple[Float64s, Float64s]:
    """Return how far the sum of backgrounds may lie below and above itself, bin by bin.

    Statistics and all variations in quadrature; of the two directions of a source, which may go the same way, each counts where
    it goes.

    Parameters
    ----------
    background : Hist
        Over variation and the observable.
    total : bool
        Of the sum over all bins, with what lies outside of them.

    Returns
    -------
    down, up : (bins,), or () of the total

    Examples
    --------
    >>> names = ["nominal", "jesUp", "jesDown"]
    >>> h = hist.Hist(hist.axis.StrCategory(names, name="variation"), hist.axis.Regular(1, 0, 1, name="x"), storage="weight")
    >>> _ = h.fill(variation=["nominal"] * 16 + ["jesUp"] * 19 + ["jesDown"] * 16, x=0.5)
    >>> [float(part[0]) for part in uncertainty(h)], [float(part) for part in uncertainty(h, total=True)]
    ([4.0, 5.0], [4.0, 5.0])
    """
    names = list(background.axes["variation"])
    place = background.axes.name.index("variation")
    unweighted = background.variances(flow=total) is None
    values, variances = (
        np.moveaxis(np.asarray(of(flow=total), np.float64), place, 0)[: len(names)]
        for of in (background.values, background.values if unweighted else background.variances)
    )
    if total:
        values, variances = (of.sum(axis=tuple(range(1, of.ndim))) for of in (values, variances))
    nominal = names.index("nominal")
    centre, down, up = values[nominal], variances[nominal], variances[nominal]
    for shifted in values:
        shift = shifted - centre
        down, up = down + np.minimum(shift, 0) ** 2, up + np.maximum(shift, 0) ** 2
    return np.sqrt(down), np.sqrt(up)


def with_variations(histogram: hist.Hist, sources: Mapping[str, str]) -> hist.Hist:
    """Return a histogram over other variations, {new: old}; one that is not there is the nominal."""
    place = histogram.axes.name.index("variation")
    known = list(histogram.axes["variation"])
    axes = list(histogram.axes)
    axes[place] = hist.axis.StrCategory(list(sources), name="variation", label="variation")
    out = hist.Hist(*axes, storage=histogram.storage_type())
    content = np.moveaxis(np.asarray(histogram.view(flow=True)), place, 0)
    view = np.moveaxis(np.asarray(out.view(flow=True)), place, 0)
    for i, source in enumerate(sources.values()):
        view[i] = content[known.index(source if source in known else "nominal")]
    return out


def by_era(histogram: hist.Hist, era: str, told: Mapping[str, Mapping[str, Any]]) -> hist.Hist:
    """Return a histogram with names of their own for variations that are uncorrelated between eras, such as `jes_2022Up`."""
    sources = {}
    for name in histogram.axes["variation"]:
        about = told.get(name, {})
        alone = era and about and not about.get("correlated", True)
        sources[f"{about['source']}_{era}{about['direction'].capitalize()}" if alone else name] = name
    return with_variations(histogram, sources)


def _datasets(results: Filled, kind: str, observable: str, era: str | None) -> list[str]:
    datasets = results.report["datasets"]
    of_kind = [
        d for d, entry in datasets.items()
        if kind_of(entry["metadata"]) == kind and era in (None, era_of(entry["metadata"]))
    ]  # fmt: skip
    names = [d for d in of_kind if observable in results.in_regions.get(d, {})]
    if not names:
        of_era = "" if era is None else f" of era {era}"
        have = f" with a histogram {observable} over regions" if of_kind else ""
        raise ConfigError(f"the results hold no {kind}{of_era}{have}")
    for name in names:
        if "nominal" not in results.in_regions[name][observable].axes["variation"]:
            raise ConfigError(f"histogram {observable} of {name} has no variation nominal")
    return names


def check_eras(results: Filled, era: str | None = None) -> None:
    """Refuse sums over eras in which data and simulation do not belong together.

    Raises
    ------
    ConfigError
        Several eras were given one luminosity for all; in an era simulated datasets are at different luminosities, or at another one than the data; or an era has data and no
        simulated background, or the reverse.
    """
    by_era: dict[str, dict[str, dict[str, Any]]] = {}
    one_for_all = results.report["lumi"]
    simulated = {
        era_of(entry["metadata"])
        for entry in results.report["datasets"].values()
        if kind_of(entry["metadata"]) != "data"
    }
    if era is None and len(simulated) > 1 and one_for_all is not None:
        names = sorted(name or "no era" for name in simulated)
        raise ConfigError(
            f"simulation of {', '.join(names)} is at {one_for_all:g} fb⁻¹ each, so that a sum would count it several times: run "
            f"with --lumi {names[0]}=…,{names[1]}=…, or take one with era=…"
        )
    for name, entry in results.report["datasets"].items():
        by_era.setdefault(era_of(entry["metadata"]), {})[name] = entry
    kinds = {e: {kind_of(entry["metadata"]) for entry in entries.values()} for e, entries in by_era.items()}
    together = {"data", "background"}
    compare = any("data" in k for k in kinds.values()) and any("background" in k for k in kinds.values())
    for name, entries in by_era.items():
        if era not in (None, name):
            continue
        label = f"era {name}" if name else "the datasets without an era"
        if compare and len(together & kinds[name]) == 1:
            (present,) = together & kinds[name]
            (lacking,) = together - {present}
            raise ConfigError(f"{label}: {present}, and no {lacking}; add one era with era=…")
        lumi = {
            d: entry.get("lumi", results.report["lumi"]) for d, entry in entries.items()
            if kind_of(entry["metadata"]) != "data" or entry.get("luminosity", {}).get("recorded") is None
        }  # fmt: skip
        known = {d: value for d, value in lumi.items() if value is not None}
        if known and max(known.values()) > min(known.values()) * (1 + _SAME):
            low, high = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
            raise ConfigError(f"{label}: {low} is at {known[low]:g} fb⁻¹ and {high} at {known[high]:g} fb⁻¹")


def luminosity_of(results: Filled, era: str | None = None) -> float | None:
    """Return the luminosity of the results, fb⁻¹: the sum over their eras, or that of one.

    It is what simulation is at, or, without any, what data have; a part that trained the model is not in it.

    Returns
    -------
    float or None
        None if that of an era is not known.
    """
    everything, by_era = results.report["lumi"], dict[str, list[dict[str, Any]]]()
    for entry in results.report["datasets"].values():
        by_era.setdefault(era_of(entry["metadata"]), []).append(entry)
    total = 0.0
    for entries in (of for name, of in by_era.items() if era in (None, name)):
        simulated = [e for e in entries if kind_of(e["metadata"]) != "data"]
        value = _one_luminosity(simulated or entries, everything)
        if value is None:
            return None if len(by_era) > 1 else everything
        total += value
    return total or None


def _one_luminosity(entries: Sequence[Mapping[str, Any]], everything: float | None) -> float | None:
    """Return the luminosity of datasets of one era: what all were given, or what was recorded in their sections together."""
    known = [e.get("lumi", everything) for e in entries]
    if any(value is None for value in known):
        return None
    if all(e.get("luminosity", {}).get("recorded") is None for e in entries):
        return float(max(known))  # `check_eras` sees to it that they are the same
    sections = [e.get("sections") or {} for e in entries]
    together, each = number_of_sections(union(sections)), [number_of_sections(s) for s in sections]
    if together == sum(each):
        return float(sum(known))
    return float(max(known)) if together == max(each) else None
