"""Visible cross-sections that counting excludes in each region of results, for signals of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import files
from coffea_ad.errors import CoffeaADError, ConfigError
from coffea_ad.results.results import Results
from coffea_ad.search.abcd_planes import hidden_cells
from coffea_ad.search.acceptance import counting_observable
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.counting import counting_limit
from coffea_ad.search.reading import SpectraRead
from coffea_ad.search.visible import LIMITS
from coffea_ad.weights import era_of, kind_of

__all__ = ["visible_limits", "write_visible"]


def write_visible(read: SpectraRead, config: SearchConfig, folder: str | Path) -> list[str]:
    """Write `limits.json`, where there are limits, and return what is to be said of them."""
    path = files.join(folder, LIMITS)
    limits, notes = visible_limits(read, config)
    if limits:
        files.write(path, json.dumps(limits, indent=1, allow_nan=False).encode() + b"\n")
    elif files.exists(path):
        files.remove(path)  # of what is overwritten
    return notes


def visible_limits(read: SpectraRead, config: SearchConfig) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the visible cross-section, pb, that is excluded at 95 % CLs in each region.

    The background is the simulated one at the luminosity, with the error of its statistics and `limits.background_error` of it, in squares.

    Parameters
    ----------
    read : SpectraRead
    config : SearchConfig

    Returns
    -------
    limits : {region: {"observed", "expected", "bands", "events", "background", "background_error", "lumi"}}
        Observed and events are None where there are no data, or they are hidden.
    notes : list of str
    """
    results = read.results
    if results is None:
        return {}, []
    of = {name: e for name, e in results.report["datasets"].items() if config.era in (None, era_of(e["metadata"]))}
    simulated = [name for name, e in of.items() if kind_of(e["metadata"]) == "background"]
    if not simulated:
        return {}, []
    lumi = results.luminosity(config.era)
    if not lumi:
        return {}, ["visible cross-sections need the luminosity; run with --lumi"]
    observable, notes = _counted_by(results, simulated, read)
    out: dict[str, dict[str, Any]] = {}
    for region in config.regions or results.regions:
        try:
            out[region] = _limit(results, observable, region, lumi, read, config)
        except (CoffeaADError, ArithmeticError) as error:
            notes.append(f"region {region} has no visible cross-section ({error})")
    if out:
        notes.append(
            f"visible cross-sections take {config.limits.background_error:.0%} of the simulated background as its error beside statistics"
        )
    return out, notes


def _counted_by(results: Results, simulated: list[str], read: SpectraRead) -> tuple[str, list[str]]:
    """Return an observable that has each event once."""
    try:
        return counting_observable(results, simulated[0]), []
    except ConfigError:
        name = read.spectra[0].observable
        return name, [f"events of regions are those in {name}: which observable has each event once is not known"]


def _limit(
    results: Results, observable: str, region: str, lumi: float, read: SpectraRead, config: SearchConfig
) -> dict[str, Any]:
    parts = [
        h[{"variation": "nominal"}].sum(flow=True)
        for h in results.background(observable, region, era=config.era).values()
    ]
    background, variance = float(sum(p.value for p in parts)), float(sum(p.variance for p in parts))
    if background < 0:
        raise ConfigError(f"the sum of weights of the simulated background is {background:.3g}")
    error = float(np.hypot(np.sqrt(variance), config.limits.background_error * background))
    events = _events(results, observable, region, config) if read.source == "data" else None
    observed, expected = counting_limit(
        background if events is None else events, background, error, signal_error=config.limits.lumi_error
    )
    per_pb = 1000 * lumi
    return {
        "observed": None if events is None else observed / per_pb, "expected": expected[2] / per_pb, "bands": [e / per_pb for e in expected],
        "events": events, "background": background, "background_error": error, "lumi": lumi,
    }  # fmt: skip


def _events(results: Results, observable: str, region: str, config: SearchConfig) -> float | None:
    if results.regions.get(region, frozenset()) & hidden_cells(results):
        return None  # the others alone would exclude too much
    total: Any = results.data(observable, region, era=config.era).sum(flow=True)
    return float(getattr(total, "value", total))
