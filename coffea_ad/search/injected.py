"""Limits where the efficiency of a signal depends on how much of it is in the data: it is taken at the strength that is tested."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coffea_ad import files
from coffea_ad.errors import BadFile, ConfigError
from coffea_ad.results.results import Results
from coffea_ad.search.counting import counting_limit
from coffea_ad.search.templates import TemplateCount
from coffea_ad.typing import Float64s

__all__ = ["EfficiencyTable", "StrengthLimit", "excluded_strength", "read_tables", "strength_limits"]

_HALVINGS = 60


class EfficiencyTable(NamedTuple):
    """Which part of a signal passes a region, by how many of its events were injected.

    Attributes
    ----------
    strengths : (k,) float64
        Events of the signal in the window, rising.
    efficiencies, errors : (k,) float64
        Of these, with standard deviations.
    """

    strengths: Float64s
    efficiencies: Float64s
    errors: Float64s


class StrengthLimit(NamedTuple):
    """The excluded number of signal events in a window, before the score.

    Attributes
    ----------
    region : str
    observed : float or None
        At 95 % CLs.
    expected : tuple of 5 floats or None
        Without a signal: median, ∓ 1 and 2 standard deviations, rising.
    said : tuple of str
        Why there is none.
    cross_section : float or None
        Observed, σ × A × B in pb, A of the window without the score; None where the luminosity is not known.
    """

    region: str
    observed: float | None
    expected: tuple[float | None, ...]
    said: tuple[str, ...] = ()
    cross_section: float | None = None


def read_tables(path: str | Path) -> dict[str, dict[float, EfficiencyTable]]:
    """Read `injected.json` of the recipe `resonant`, {window: {efficiency of the region: table}}.

    Of each window there are rows of `in_window` (events of the signal there), `efficiency` (of the template, which names the region),
    `signal_efficiency` and its `error`; those without events in the window are left out.

    Raises
    ------
    BadFile
        It cannot be read, or holds something else.
    """
    if not files.exists(path):
        raise BadFile(f"{path}: there is no such file; inject=[…] of the recipe resonant writes it")
    try:
        content = json.loads(files.read(path))
        return {str(window): _tables(rows, f"{path}: window {window}") for window, rows in content.items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise BadFile(
            f"{path}: this must map windows to rows of in_window, efficiency, signal_efficiency, error"
        ) from None


def _tables(rows: Any, where: str) -> dict[float, EfficiencyTable]:
    by_region: dict[float, dict[float, tuple[float, float]]] = {}
    for row in rows:
        n, region, share, error = (float(row[k]) for k in ("in_window", "efficiency", "signal_efficiency", "error"))
        if not (math.isfinite(n) and 0 <= share <= 1 and error >= 0 and n >= 0):
            raise BadFile(f"{where}: {n:g} events with an efficiency of {share:g} ± {error:g} are none of a signal")
        if n > 0:
            by_region.setdefault(region, {})[n] = (share, error)
    return {
        region: EfficiencyTable(np.array(sorted(of)), *np.array([of[n] for n in sorted(of)]).T)
        for region, of in by_region.items()
    }


def excluded_strength(
    table: EfficiencyTable, events: float, background: float, error: float
) -> tuple[float | None, tuple[float | None, ...], tuple[str, ...]]:
    """Return the number N of signal events that is excluded, where N ε(N) is as many as counting excludes.

    ε and its error, which enters the limit, are interpolated between the injected strengths. Where several N have as many events passing, it is the
    largest, beyond which all are excluded. Nothing is extrapolated.

    Parameters
    ----------
    table : EfficiencyTable
    events, background, error : float
        Observed in the region, and expected without a signal, with its standard deviation.

    Returns
    -------
    observed : float or None
    expected : tuple of 5 floats or None
    said : tuple of str
        Why there is none.

    Examples
    --------
    >>> flat = EfficiencyTable(np.array([5.0, 50.0]), np.array([0.5, 0.5]), np.zeros(2))
    >>> round(excluded_strength(flat, 0, 1e-6, 0.0)[0], 1)
    6.0
    """
    n, eps = table.strengths, table.efficiencies
    relative = np.divide(table.errors, eps, out=np.zeros_like(eps), where=eps > 0)
    each = [counting_limit(events, background, error, signal_error=float(r)) for r in relative]
    passing = np.array([[observed, *expected] for observed, expected in each])
    said: dict[str, None] = {}
    out: list[float | None] = []
    for i, excluded in enumerate(passing.T):
        value, why = _solved(n, eps, excluded)
        out.append(value)
        if why:
            said[f"{'observed' if i == 0 else 'expected'}: {why}"] = None
    return out[0], tuple(out[1:]), tuple(said)


def _solved(n: Float64s, eps: Float64s, excluded: Float64s) -> tuple[float | None, str]:
    """Return where N ε(N) becomes as many as are excluded, for good, or why that is nowhere."""
    enough = n * eps >= excluded
    if not enough[-1]:
        return None, (
            f"{n[-1]:g} events of the signal, the most that were injected, are not excluded; inject more, as efficiencies are not extrapolated"
        )
    if enough.all():
        return None, f"{n[0]:g} events of the signal, the fewest that were injected, are excluded; inject fewer"
    last = int(np.flatnonzero(~enough)[-1])
    low, high = float(n[last]), float(n[last + 1])
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        passes = middle * np.interp(middle, n, eps) >= np.interp(middle, n, excluded)
        low, high = (low, middle) if passes else (middle, high)
    return high, ""


def strength_limits(
    results: Results, counts: list[TemplateCount], path: str | Path, lumi: float | None = None
) -> tuple[list[StrengthLimit], list[str]]:
    """Return limits in the regions that are counted against a template, by the table of the region's window and efficiency.

    Parameters
    ----------
    results : Results
    counts : list of TemplateCount
    path : path
        As `read_tables` reads.
    lumi : float, fb⁻¹, optional

    Returns
    -------
    limits : list of StrengthLimit
    notes : list of str
        Regions without a table, and limits that are none.

    Raises
    ------
    BadFile
    """
    tables = read_tables(path)
    known: dict[str, Mapping[str, Any]] = {}
    for model in results.report.get("models", ()):
        known.update(model.get("expectations") or {})
    out, notes = list[StrengthLimit](), list[str]()
    for count in counts:
        efficiency = known[count.region].get("efficiency")
        of_window = tables.get(f"{count.low:g}_{count.high:g}", {})
        table = next((t for e, t in of_window.items() if efficiency is not None and math.isclose(e, efficiency)), None)
        if table is None:
            notes.append(
                f"region {count.region}: {path} has no injected signal for its window and efficiency, and there is no limit"
            )
            continue
        try:
            observed, expected, said = excluded_strength(table, count.events, count.expected, count.error)
        except ConfigError as problem:
            notes.append(f"region {count.region}: no limit ({problem})")
            continue
        pb = None if observed is None or not lumi else observed / (1000 * lumi)
        out.append(StrengthLimit(count.region, observed, expected, said, pb))
        notes += [f"region {count.region}, {sentence}" for sentence in said]
    return out, notes
