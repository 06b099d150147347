"""Histograms and lists of events among what a processor has returned, wherever they stand in it, and under which names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import boost_histogram
import hist

from coffea_ad.errors import ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.results.histogram_files import from_bytes, to_bytes
from coffea_ad.results.results import ALL, over_regions
from coffea_ad.running.encoding import encode, regions_in

__all__ = ["check_storable", "event_lists_of", "histograms_of", "needs_normalisation", "unstorable", "without_hidden"]

Path = tuple[str, ...]


def _leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield path, value


def histograms_of(outputs: Mapping[Any, Any], datasets: Mapping[str, Any]) -> dict[str, dict[str, hist.Hist]]:
    """Return the histograms of an accumulator by dataset and name.

    What stands under a dataset's name is of that dataset, under the keys that lead to it, joined by "/"; a first key
    `histograms` is left out. All others are of the group "all".

    Parameters
    ----------
    outputs : mapping
        What `process` returned, merged: {dataset: {…}} or flat, nested at will.
    datasets : mapping
        Its keys are the names of the datasets.

    Returns
    -------
    {dataset or "all": {name: Hist}}

    Examples
    --------
    >>> h = hist.Hist(hist.axis.Regular(2, 0, 1, name="x"))
    >>> out = histograms_of({"tt": {"histograms": {"x": h}, "jets": {"pt": h}}, "mass": h}, {"tt": {}})
    >>> {group: list(named) for group, named in out.items()}
    {'all': ['mass'], 'tt': ['x', 'jets/pt']}
    """
    named = _grouped(outputs, datasets, boost_histogram.Histogram, "histograms")
    return {g: {n: h if isinstance(h, hist.Hist) else hist.Hist(h) for n, h in of.items()} for g, of in named.items()}


def event_lists_of(outputs: Mapping[Any, Any], datasets: Mapping[str, Any]) -> dict[str, dict[str, TopEvents]]:
    """Return the lists of events of an accumulator by dataset and name, as `histograms_of`; a first key `event_lists` is left out.

    Examples
    --------
    >>> event_lists_of({"tt": {"event_lists": {"ad": TopEvents(5)}, "mine": TopEvents(3)}}, {"tt": {}})["tt"]["ad"]
    <TopEvents: 0 of 0 events by no score, at most 5>
    """
    return _grouped(outputs, datasets, TopEvents, "event_lists")


def _grouped(
    outputs: Mapping[Any, Any], datasets: Mapping[str, Any], kind: type, usual: str
) -> dict[str, dict[str, Any]]:
    """Return what is of a kind by dataset and name; the usual place of the kind is no part of the name."""
    out: dict[str, dict[str, Any]] = {}
    for path, value in _leaves(outputs):
        if not isinstance(value, kind):
            continue
        group, name = (path[0], path[1:]) if path[0] in datasets and len(path) > 1 else (ALL, path)
        short = name[1:] if group != ALL and name[0] == usual and len(name) > 1 else name
        label = "/".join(name if "/".join(short) in out.get(group, {}) else short)
        out.setdefault(group, {})[label] = value
    return dict(sorted(out.items()))


def without_hidden(outputs: Mapping[Any, Any], datasets: Mapping[str, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Take lists of events of blinded datasets out: what is missing from the best ones would tell how many are hidden.

    Parameters
    ----------
    outputs : mapping
        What `process` returned, merged.
    datasets : {dataset: {"blinded": bool, …}}

    Returns
    -------
    outputs : dict
        Also without lists of all datasets together, if any is blinded.
    notes : list of str

    Examples
    --------
    >>> without_hidden({"met": {"n": 1, "best": TopEvents(5)}}, {"met": {"blinded": True}})[0]
    {'met': {'n': 1}}
    """
    hidden = {name for name, entry in datasets.items() if entry.get("blinded")}
    shown: dict[Any, Any] = {}
    asked: set[str] = set()
    for key, value in outputs.items():
        of_all = key not in datasets
        if not hidden or not (of_all or key in hidden):
            shown[key] = value
            continue
        if any(isinstance(leaf, TopEvents) or "event_lists" in path for path, leaf in _branches({key: value})):
            asked |= hidden if of_all else {key}
        if not isinstance(value, TopEvents):
            shown[key] = _without_lists(value)
    names = ", ".join(name for name in datasets if name in asked)
    return shown, [f"{names}: blinded, so there is no list of the most anomalous events"] if names else []


def _branches(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield all that stands in nested dictionaries, themselves too."""
    yield path, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _branches(inner, (*path, str(key)))


def _without_lists(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {k: _without_lists(v) for k, v in value.items() if not isinstance(v, TopEvents)}


def unstorable(outputs: Mapping[Any, Any]) -> list[str]:
    """Return the places of what a results folder cannot hold: neither a histogram nor numbers, texts, sets or arrays.

    >>> unstorable({"tt": {"n": 1, "model": object()}})
    ['tt: model']
    """
    lost = []
    for path, value in _leaves(outputs):
        inside = isinstance(value, (list, tuple, set, frozenset)) and any(encode(v) is None for v in value)
        if inside or (encode(value) is None and not isinstance(value, (boost_histogram.Histogram, TopEvents))):
            lost.append(": ".join(filter(None, (path[0], "/".join(path[1:])))))
    return sorted(lost)


def needs_normalisation(outputs: Mapping[Any, Any], datasets: Mapping[str, Any]) -> list[str]:
    """Return the datasets that have histograms over region and variation, which are written at luminosity."""
    named = histograms_of(outputs, datasets)
    return [d for d, content in named.items() if d in datasets and any(over_regions(h) for h in content.values())]


def check_storable(outputs: Mapping[Any, Any], datasets: Mapping[str, Any]) -> None:
    """Write the histograms of the first events and read them again, before a run whose own would be lost.

    Raises
    ------
    ConfigError
        A results folder cannot hold one; the message names it.
    """
    for group, content in histograms_of(outputs, datasets).items():
        for name, histogram in content.items():
            try:
                again = from_bytes(to_bytes({group: {name: histogram}}))[group][name]
                problem = "" if tuple(again.axes) == tuple(histogram.axes) else "its axes would not be the same"
            except (TypeError, ValueError, KeyError, AttributeError) as error:
                problem = str(error)[:150]
            if problem:
                raise ConfigError(f"histogram {name} of {group}: a results folder cannot hold it ({problem})")
            _check_cells(name, histogram, group, outputs.get(group, {}))


def _check_cells(name: str, histogram: hist.Hist, dataset: str, output: Any) -> None:
    if not {"cell", "variation"} <= set(histogram.axes.name):
        return
    if not regions_in(output):
        raise ConfigError(
            f"histogram {name} of {dataset} is over cells, and the processor returns no regions, {{name: set of cells}}, beside "
            "it: coffea_ad.histograms.RegionFiller does both"
        )
    cells = list(histogram.axes["cell"])
    for region, of in output["regions"].items():
        if not of <= set(cells) and of & set(cells):
            raise ConfigError(
                f"region {region} of {dataset}: histogram {name} has no cell {min(map(str, of - set(cells)))}; it has "
                f"{', '.join(map(str, cells))}"
            )
