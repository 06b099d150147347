"""Spectra as the field draws them: stacked backgrounds with their uncertainty, signals over them, data and their ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.errors import UnknownName
from coffea_ad.plotting.canvas import canvas
from coffea_ad.plotting.samples import nominal, processes, samples
from coffea_ad.plotting.styles import Style
from coffea_ad.plotting.thresholds import draw_thresholds, thresholds_of
from coffea_ad.results.results import Results
from coffea_ad.results.sums import add_variations, sum_of, uncertainty
from coffea_ad.typing import Float64s
from coffea_ad.weights import era_of, kind_of

__all__ = ["drawable", "stack"]

_RATIO = 5.0  # a ratio is drawn so far at most
_LINES = ("--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))


def drawable(results: Results) -> dict[str, list[str]]:
    """Return the observables that `stack` draws, and those of their regions that have an entry, {observable: regions}."""
    left_out = results.not_normalisable
    out: dict[str, list[str]] = {}
    for dataset, observables in results.in_regions.items():
        for observable, histogram in observables.items():
            if dataset not in left_out and histogram.ndim == 3 and "nominal" in histogram.axes["variation"]:
                known = out.setdefault(observable, [])
                known += [r for r in _filled(histogram) if r not in known]
    return out


def _filled(histogram: Any) -> list[str]:
    """Return the regions of a histogram over region, variation and an observable that have an entry."""
    content = histogram[{"variation": "nominal"}].project("region", histogram.axes[-1].name).values(flow=True)
    entries = np.any(np.asarray(content)[: len(histogram.axes["region"])], axis=1)
    return [region for region, any_entry in zip(histogram.axes["region"], entries, strict=True) if any_entry]


@dataclass(frozen=True)
class _Spectra:
    """What a figure shows, by process and in the order in which it is drawn."""

    background: dict[str, Any]
    band: tuple[Float64s, Float64s] | None
    signals: dict[str, Any]
    data: dict[str, Any]
    drawn: list[str]


def _spectra(results: Results, observable: str, region: str, signals: Sequence[str] | None, style: Style) -> _Spectra:
    parts = samples(results, observable, region, style, signals)
    band = uncertainty(add_variations(list(parts.background.values()))) if parts.background else None
    background = {p: nominal(h) for p, h in parts.background.items()}
    order = sorted(
        background, key=lambda p: (style.order.index(p) if p in style.order else -1, background[p].sum().value)
    )
    lines = {p: nominal(h) for p, h in parts.signals.items()}
    return _Spectra({p: background[p] for p in order}, band, lines, parts.data, parts.datasets)


def stack(
    results: Results, observable: str, region: str, path: str | Path, *, signals: Sequence[str] | None = None, style: Style | None = None
) -> None:  # fmt: skip
    """Draw the stacked backgrounds, each signal over them, and the sum of all data, of one region, at the run's luminosity.

    The band is the uncertainty of the background, by statistics and all variations. With data and background there is their ratio below. A process has the same
    colour in all figures of the results. Datasets without the observable or the region are left out, and those that cannot be
    normalised, which the title names.

    Parameters
    ----------
    results : Results
    observable, region : str
    path : path
        Further formats of the style stand beside it.
    signals : sequence of str, optional
        Datasets; by default those whose metadata mark them as signals.
    style : Style, optional

    Raises
    ------
    UnknownName
        Nothing is left, or there is no such signal.
    """
    style, datasets, known = style or Style(), results.report["datasets"], drawable(results)
    if observable not in known:
        raise UnknownName.of("observable", observable, known)
    if region not in known[observable]:
        raise UnknownName.of("region with entries", region, known[observable])
    for signal in signals or ():
        if signal not in datasets:
            raise UnknownName.of("dataset", signal, datasets)
    shown = _spectra(results, observable, region, signals, style)
    with_ratio = bool(shown.data and shown.background)
    rows, size = (2, (6.4, 3.0)) if with_ratio else (1, (6.4, 4.8))
    formats = [f for f in style.formats if f != Path(path).suffix[1:]]
    with canvas(path, rows, 1, size, formats=formats, heights=(3, 1) if with_ratio else None) as axes:
        _draw(axes[0, 0], shown, style, style.colors_of(processes(results, style)))
        ax, lowest = axes[0, 0], axes[rows - 1, 0]
        axis = next(iter([*shown.background.values(), *shown.signals.values(), *shown.data.values()])).axes[0]
        if with_ratio:
            _draw_ratio(lowest, shown)
            ax.set_xlabel("")
        lowest.set(xlim=_filled_range(shown, axis))
        draw_thresholds(ax, thresholds_of(results, observable), top=0.6)
        lowest.set_xlabel(axis.label)
        ax.set_ylabel(_events_per(axis))
        missing = [d for d in results.not_normalisable if d in results.in_regions]
        left = " ".join(filter(None, (style.experiment, style.status)))
        ax.set_title(", ".join(filter(None, (left, f"without {', '.join(missing)}" if missing else ""))), loc="left")
        ax.set_title(", ".join(filter(None, (region, _luminosity(results, shown.drawn)))), loc="right")
        ax.legend(ncols=2, loc="upper right")


def _draw(ax: Any, shown: _Spectra, style: Style, colors: Mapping[str, Any]) -> None:
    import mplhep

    top = 0.0
    if shown.background:
        names = list(shown.background)
        mplhep.histplot(
            list(shown.background.values()), stack=True, histtype="fill", flow="none", label=[style.label(p) for p in names], ax=ax,
            color=[colors[p] for p in names],
        )  # fmt: skip
        total = sum_of(list(shown.background.values()))
        top = max(top, _draw_band(ax, total, shown.band))
    for i, (process, line) in enumerate(shown.signals.items()):
        factor = _factor(line, top) if style.signal_scale == "auto" else style.signal_scale
        text = style.label(process) + (f" × {factor:g}" if factor != 1 else "")
        look = {"color": "black", "linestyle": _LINES[i % len(_LINES)]}
        mplhep.histplot(line * factor, histtype="step", label=text, ax=ax, yerr=False, flow="none", **look)
        top = max(top, factor * float(np.max(line.values())))
    if shown.data:
        label = style.label(next(iter(shown.data)) if len(shown.data) == 1 else "data")
        total = sum_of(list(shown.data.values()))
        top = max(top, _draw_points(ax, total, label))
    if top > 0:
        ax.set(
            **({"yscale": "log", "ylim": (_lowest(shown, top), top * 30)} if style.log else {"ylim": (0, top * 1.6)})
        )


def _draw_points(ax: Any, total: Any, label: str) -> float:
    """Draw data with the interval of a Poisson number, where there are any; return how high they reach."""
    import mplhep
    from hist.intervals import poisson_interval

    values, variances = (np.asarray(part, np.float64) for part in (total.values(), total.variances()))
    low, high = np.nan_to_num(poisson_interval(values, variances))
    shown = np.where(
        values > 0, values, np.nan
    )  # an interval of no events would be a line through a logarithmic figure
    look = {"color": "black", "flow": "none", "markersize": 8}
    mplhep.histplot(
        shown, total.axes[0].edges, yerr=[values - low, high - values], histtype="errorbar", label=label, ax=ax, **look
    )
    return float(np.max(high[values > 0], initial=0.0))


def _lowest(shown: _Spectra, top: float) -> float:
    """Return where a logarithmic axis begins: a little below the smallest sum of backgrounds, and within five decades."""
    total = np.asarray(sum_of(list(shown.background.values())).values()) if shown.background else np.zeros(0)
    events = [np.asarray(h.values()) for h in shown.data.values()]
    smallest = min([float(np.min(part[part > 0])) for part in (total, *events) if np.any(part > 0)], default=0.0)
    return max(0.3 * smallest, 1e-5 * top)


def _draw_band(ax: Any, total: Any, band: tuple[Float64s, Float64s] | None) -> float:
    """Draw the uncertainty of the background; return how high it reaches."""
    values, edges = np.asarray(total.values()), total.axes[0].edges
    down, up = band or (0.0, 0.0)
    ax.stairs(values + up, edges, baseline=np.maximum(values - down, 0), fill=True, facecolor="none", edgecolor="0.3",
              hatch="////", linewidth=0, label="uncertainty")  # fmt: skip
    return float(np.max(values + up))


def _draw_ratio(ax: Any, shown: _Spectra) -> None:
    """Draw data over background, with the uncertainty of the background about 1; bins without background have none."""
    background = sum_of(list(shown.background.values()))
    data = sum_of(list(shown.data.values()))
    centre, edges = np.asarray(background.values(), np.float64), background.axes[0].edges
    has = centre > 0
    safe = np.where(has, centre, 1.0)
    down, up = shown.band or (np.zeros_like(centre), np.zeros_like(centre))
    band = [np.where(has, 1 + sign * part / safe, np.nan) for sign, part in ((-1, down), (1, up))]
    ax.stairs(band[1], edges, baseline=band[0], fill=True, color="0.8", linewidth=0)
    ratio = np.where(has, np.asarray(data.values()) / safe, np.nan)
    error = np.where(has, np.sqrt(np.asarray(data.variances())) / safe, np.nan)
    x = 0.5 * (edges[1:] + edges[:-1])
    filled = has & (np.asarray(data.values()) > 0)
    ax.errorbar(x[filled], ratio[filled], error[filled], fmt="o", ms=4, color="black")
    ax.axhline(1.0, color="black", lw=0.8)
    ax.set(ylim=(0, float(np.clip(1.15 * np.max(ratio[filled], initial=0.0), 2, _RATIO))))
    ax.set_ylabel("data / bkg.")


def _filled_range(shown: _Spectra, axis: Any) -> tuple[float, float]:
    """Return the edges between which anything is drawn."""
    spectra = [*shown.background.values(), *shown.signals.values(), *shown.data.values()]
    filled = np.flatnonzero(np.any([np.asarray(h.values()) != 0 for h in spectra], axis=0))
    first, last = (filled[0], filled[-1]) if len(filled) else (0, len(axis) - 1)
    return float(axis.edges[first]), float(axis.edges[last + 1])


def _factor(line: Any, top: float) -> float:
    """Return the power of ten that brings a signal nearest to a tenth of the background's height, and at least to 1."""
    height = float(np.max(line.values()))
    return float(10 ** max(0, round(np.log10(0.1 * top / height)))) if height > 0 and top > 0 else 1.0


def _events_per(axis: Any) -> str:
    """Return what the vertical axis shows: events per bin, or per so many units where all bins are alike."""
    widths = np.diff(axis.edges)
    if not np.allclose(widths, widths[0]):
        return "events per bin"
    unit = axis.label.rpartition("[")[2].rstrip("]") if axis.label.endswith("]") else ""
    return f"events / {widths[0]:.4g} {unit}".rstrip()


def _luminosity(results: Results, drawn: Sequence[str]) -> str:
    """Say the luminosity of what is drawn; runs that were merged may have several."""
    datasets = results.report["datasets"]
    values = {datasets[d].get("lumi", results.report["lumi"]) for d in drawn} - {None}
    if not values:
        return ""
    eras = {era_of(datasets[d]["metadata"]) for d in drawn if kind_of(datasets[d]["metadata"]) != "data"}
    each = f" for each of {len(eras)} eras" if len(eras) > 1 == len(values) else ""
    return ", ".join(f"{value:.4g}" for value in sorted(values)) + " fb$^{-1}$" + each
