"""Regions whose background a template tells: events counted against what it leads one to expect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from coffea_ad.errors import CoffeaADError
from coffea_ad.evaluation.counting import count_significance, p_value_of
from coffea_ad.results.results import Results
from coffea_ad.search.abcd_planes import hidden_cells

__all__ = ["TemplateCount", "count_templates", "regions_with_templates"]


class TemplateCount(NamedTuple):
    """Events of a region, and what its template leads one to expect.

    Attributes
    ----------
    region, spectator : str
    low, high : float
        Of the window in the spectator.
    events, expected, error : float
        The error is that of the template and of its check in the sidebands.
    significance, p_value : float
        Of this count alone.
    """

    region: str
    spectator: str
    low: float
    high: float
    events: float
    expected: float
    error: float
    significance: float
    p_value: float


def regions_with_templates(results: Results) -> set[str]:
    """Return the regions of models that have windows: no function describes a spectrum that ends where they do."""
    out = set()
    for model in results.report.get("models", ()):
        if model.get("expectations"):
            out |= {*model["expectations"], model["inclusive"]}
    return out


def count_templates(results: Results, era: str | None = None) -> tuple[list[TemplateCount], list[str]]:
    """Count the data in each region that has a template's expectation.

    Parameters
    ----------
    results : Results
        Of a processor that fills the expectation, `dijet_resonance`: the histogram `mjj_expected` beside `mjj`.
    era : str, optional

    Returns
    -------
    counts : list of TemplateCount
    notes : list of str
        Regions that are hidden, or that cannot be counted, with the reason.
    """
    out, notes, hidden = list[TemplateCount](), list[str](), hidden_cells(results)
    for model in results.report.get("models", ()):
        for region, told in (model.get("expectations") or {}).items():
            spectator = str(told["spectator"])
            if results.regions.get(region, frozenset()) & hidden:
                notes.append(
                    f"region {region}: some of its events are hidden, and it is not counted against its template"
                )
                continue
            try:
                events, expected = (_total(results, what, region, era) for what in (spectator, f"{spectator}_expected"))
            except CoffeaADError as error:
                notes.append(f"region {region}: it is not counted against its template ({error})")
                continue
            out.append(_counted(region, spectator, told, events, expected))
    return out, notes


def _total(results: Results, observable: str, region: str, era: str | None) -> float:
    return float(np.asarray(results.data(observable, region, era=era).values(flow=True)).sum())


def _counted(region: str, spectator: str, told: Mapping[str, Any], events: float, expected: float) -> TemplateCount:
    error = expected * float(told["relative_error"])
    z = count_significance(events, expected, error)
    return TemplateCount(
        region, spectator, float(told["low"]), float(told["high"]), events, expected, error, z, p_value_of(z)
    )
