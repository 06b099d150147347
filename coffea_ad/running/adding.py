"""Results of chunks are added up only if they can be: one that cannot is a failure with its file and the name of what differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from numbers import Number
from typing import Any

import hist
import numpy as np
from coffea.processor import accumulate

from coffea_ad.event_lists import TopEvents
from coffea_ad.running.chunks import unprocessed

__all__ = ["added", "not_addable"]


def added(results: Iterable[Any], total: Any = None) -> Any:
    """Add results of chunks to a total; one that does not go with it counts as failed, whatever it holds.

    Parameters
    ----------
    results : iterable of dict
        As of `chunks`, or sets of opened files, which always go.
    total : dict, optional
        Changed in place.
    """
    for result in results:
        addend = result
        if isinstance(total, Mapping) and isinstance(result, Mapping) and total.get("out") and result.get("out"):
            problem = not_addable(total["out"], result["out"])
            if problem:
                addend = _failed(result, problem)
        total = accumulate([addend], total)
    return total


def not_addable(one: Any, two: Any, place: str = "") -> str:
    """Say which part of two nested results cannot be added, and why; empty if all can.

    >>> not_addable({"qcd": {"n": 1, "mass": np.zeros(3)}}, {"qcd": {"n": 2, "mass": np.zeros(4)}})
    'qcd: mass has the shapes (3,) and (4,)'
    >>> not_addable({"n": 1}, {"n": 2, "more": 3})
    ''
    """
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        parts = (not_addable(one[k], two[k], f"{place}: {k}" if place else str(k)) for k in one if k in two)
        return next(filter(None, parts), "")
    if isinstance(one, hist.BaseHist) and isinstance(two, hist.BaseHist):
        return _histograms(one, two, place)
    if isinstance(one, TopEvents) and isinstance(two, TopEvents):
        problem = one.unlike(two)
        return f"list of events {place}: {problem}" if problem else ""
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return "" if one.shape == two.shape else f"{place} has the shapes {one.shape} and {two.shape}"
    for kind in (Mapping, hist.BaseHist, TopEvents, Number, str, AbstractSet, list):
        if isinstance(one, kind) != isinstance(two, kind) and not _adds(one, two):
            return f"{place} is {type(one).__name__} and {type(two).__name__}"
    return ""


def _histograms(one: hist.BaseHist, two: hist.BaseHist, place: str) -> str:
    if one.axes == two.axes and one.storage_type is two.storage_type:
        return ""
    try:  # without their contents; categories may grow
        _ = _empty(one) + _empty(two)
    except Exception as error:  # noqa: BLE001  of boost-histogram
        why = " ".join(str(error).split()) or type(error).__name__
        return f"histogram {place} has other axes or another storage ({why}; edges must be the same in all chunks, categories may grow)"
    return ""


def _empty(histogram: hist.BaseHist) -> Any:
    return hist.Hist(*histogram.axes, storage=histogram.storage_type())


def _adds(one: Any, two: Any) -> bool:
    try:
        _ = one + two
    except Exception:  # noqa: BLE001  of any type
        return False
    return True


def _failed(result: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """Return the result of chunks without what they hold."""
    out: dict[str, Any] = {"processed": set(), "failed": set(result.get("failed", ()))}
    for item in result["processed"]:
        cause = f"{item.filename}: its result cannot be added to that of the first chunks: {problem}"
        out["failed"] |= unprocessed(item, "NotAddable", cause)["failed"]
    return out
