"""What a processor returned beside histograms, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import boost_histogram
import numpy as np
from coffea.processor import column_accumulator, value_accumulator

from coffea_ad.event_lists import TopEvents

__all__ = ["COUNTED", "counts", "decode", "encode"]


COUNTED = ("cutflow", "unscored", "undefined", "undefined_in", "rows", "sumw_variations")
"""What processors count beside events and weights, and the report repeats for each dataset."""


def regions_in(output: Any) -> bool:
    """Say whether what a processor returned for a dataset defines regions, as {name: set of cells}."""
    regions = output.get("regions") if isinstance(output, Mapping) else None
    return (
        isinstance(regions, Mapping)
        and bool(regions)
        and all(isinstance(cells, (set, frozenset)) for cells in regions.values())
    )


def counts(output: Any) -> Any:
    """Leave out what the report says elsewhere."""
    if not regions_in(output):
        return output
    return {k: v for k, v in output.items() if k not in ("regions", "hidden_cells", "variations")}


def encode(output: Any) -> Any:
    """Turn what a processor counted into what JSON holds, without histograms and lists of events, which have their own files.

    >>> encode({"files": {"b", "a"}, "n": 3, "x": np.ones(2)})
    {'files': {'set': ['a', 'b']}, 'n': 3, 'x': {'array': [1.0, 1.0]}}
    """
    if isinstance(output, Mapping):
        encoded = {str(k): encode(v) for k, v in output.items() if not _has_a_file(v)}
        return {k: v for k, v in encoded.items() if v is not None}
    if isinstance(output, column_accumulator):
        return {"column": output.value.tolist()}
    if isinstance(output, value_accumulator):
        return encode(output.value)
    if isinstance(output, (set, frozenset)):
        return {"set": [encode(v) for v in sorted(output, key=str)]}
    if isinstance(output, (list, tuple)):
        return {"tuple" if isinstance(output, tuple) else "list": [encode(v) for v in output]}
    if isinstance(output, np.ndarray):
        return {"array": output.tolist()}
    if isinstance(output, (bool, int, float, str)):
        return output
    return output.item() if isinstance(output, np.generic) else None


def _has_a_file(value: Any) -> bool:
    return isinstance(value, (boost_histogram.Histogram, TopEvents)) or (
        isinstance(value, Mapping) and bool(value) and all(_has_a_file(v) for v in value.values())
    )


def decode(stored: Any) -> Any:
    """Turn what `encode` made into accumulators again.

    >>> decode({'files': {'set': ['a', 'b']}, 'n': 3})["n"]
    3
    """
    if isinstance(stored, dict):
        if set(stored) == {"set"}:
            return {decode(v) for v in stored["set"]}
        if set(stored) in ({"tuple"}, {"list"}):
            values = [decode(v) for v in next(iter(stored.values()))]
            return tuple(values) if "tuple" in stored else values
        if set(stored) == {"array"}:
            return np.array(stored["array"])
        if set(stored) == {"column"}:
            return column_accumulator(np.array(stored["column"]))
        return {k: decode(v) for k, v in stored.items()}
    return stored
