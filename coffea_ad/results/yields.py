"""What the regions of results hold at luminosity, by process, with errors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.results.results import Results
from coffea_ad.results.sums import add_variations, uncertainty
from coffea_ad.tables import Listing
from coffea_ad.weights import era_of, kind_of

__all__ = ["yields"]

_LARGE = 5  # digits, from which on a power of ten stands behind
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def yields(results: Results) -> tuple[list[Listing], list[str]]:
    """Return the events of each region at luminosity: of each process, of all background with its uncertainty, and of data.

    They are counted in the observable that most datasets have, with what lies outside its bins. Errors of a process are those
    of its statistics, n ± √Σw²; those of the background have all variations in quadrature as well. Eras whose sums do not belong together
    stand in a table each.

    Parameters
    ----------
    results : Results

    Returns
    -------
    tables : list of Listing
    notes : list of str
        What is not in them, and why.
    """
    left_out = results.not_normalisable
    notes = [f"not in this table: {sentence}" for name, sentence in left_out.items() if name in results.in_regions]
    datasets = {name: e for name, e in results.report["datasets"].items() if name not in left_out}
    usable = replace(results, report={**results.report, "datasets": datasets})
    observable = _observable(usable)
    if observable is None:
        return [], notes
    try:
        return [_table(usable, observable, None)], notes
    except ConfigError as error:
        notes.append(str(error))
    tables = []
    for era in dict.fromkeys(era_of(entry["metadata"]) for entry in datasets.values()):
        try:
            tables.append(_table(usable, observable, era))
        except ConfigError as error:
            notes.append(str(error))
    return tables, list(dict.fromkeys(notes))


def _observable(results: Results) -> str | None:
    """Return the observable over regions that most datasets have; expectations of templates are none."""
    named = [o for of in results.in_regions.values() for o in of if not o.endswith("_expected")]
    return max(dict.fromkeys(named), key=named.count, default=None)


def _table(results: Results, observable: str, era: str | None) -> Listing:
    kinds = {kind_of(entry["metadata"]) for entry in results.report["datasets"].values()}
    regions = dict.fromkeys(
        r for of in results.in_regions.values() if observable in of for r in of[observable].axes["region"]
    )
    cells: dict[str, dict[str, str]] = {region: {} for region in regions}
    for region, cell in cells.items():
        with suppress(UnknownName):  # of datasets that have other regions: "–"
            if "background" in kinds:
                background = results.background(observable, region, era=era)
                cell |= {process: _counted(h) for process, h in background.items()}
                cell["all background"] = _with_variations(add_variations(list(background.values())))
        with suppress(UnknownName):
            if "signal" in kinds:
                signals = results.signals(observable, region, era=era)
                cell |= {f"{process} (signal)": _counted(h) for process, h in signals.items()}
        with suppress(UnknownName):
            if "data" in kinds:
                cell["data"] = _data(results, observable, region, era)
    columns = list(dict.fromkeys(name for cell in cells.values() for name in cell))
    lumi = results.luminosity(era)
    title = "events" + (f" at {lumi:.4g} fb⁻¹" if lumi is not None else "") + (f", era {era}" if era else "")
    rows = tuple((region, *(cell.get(name, "–") for name in columns)) for region, cell in cells.items())
    return Listing(title, ("region", *columns), rows)


def _total(histogram: Any) -> Any:
    """Return the nominal sum of a histogram over variation and an observable, with what lies outside its bins."""
    return histogram[{"variation": "nominal"}].sum(flow=True)


def _counted(histogram: Any) -> str:
    total = _total(histogram)
    return _with_errors(float(total.value), [float(np.sqrt(total.variance))])


def _with_variations(background: Any) -> str:
    down, up = (float(part) for part in uncertainty(background, total=True))
    return _with_errors(float(_total(background).value), [up] if f"{down:.1e}" == f"{up:.1e}" else [up, down])


def _with_errors(value: float, errors: Sequence[float]) -> str:
    """Write a number with its error, or with those above and below it, to two digits of the larger one."""
    largest = max(errors)
    if largest == 0 or not np.isfinite(largest):
        return f"{value:.4g} ± {largest:.2g}"
    power = int(np.floor(np.log10(max(abs(value), largest))))
    power = power if power >= _LARGE or power <= -_LARGE else 0
    digits = 1 - int(np.floor(np.log10(largest))) + power
    number, *several = (f"{round(v / 10**power, digits):.{max(digits, 0)}f}" for v in (value, *errors))
    text = f"{number} ± {several[0]}" if len(several) == 1 else f"{number} +{several[0]} −{several[1]}"
    return f"({text})·10{str(power).translate(_RAISED)}" if power else text


def _data(results: Results, observable: str, region: str, era: str | None) -> str:
    try:
        return f"{float(results.data(observable, region, era=era).sum(flow=True).value):.10g}"
    except ConfigError as error:
        if "hidden" in str(error):
            return "hidden"
        raise
