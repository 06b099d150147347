"""Figures of a whole run: score against mass, efficiency of regions against an observable, cutflow, inputs against the training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.plotting.canvas import canvas
from coffea_ad.plotting.samples import processes, samples
from coffea_ad.plotting.stacks import drawable
from coffea_ad.plotting.styles import Style
from coffea_ad.results.results import Results
from coffea_ad.typing import Bools, Float64s
from coffea_ad.weights import kind_of, process_of

__all__ = [
    "cutflow",
    "cutflows",
    "divisible",
    "efficiencies",
    "efficiency_against",
    "inputs",
    "planes",
    "score_against",
]

_SHADES = 1e-4  # of the fullest bin, where the colours end
_RELATIVE = 0.5  # efficiencies with a larger relative error say nothing
_FEW = 4.0  # effective events of a bin, below which an efficiency of 0 or 1 would be one event without an error


def planes(results: Results) -> list[str]:
    """Return the histograms of an observable against the score of a model, such as mt-ad_logp_min, that have an entry."""
    names = {n: None for named in results.in_regions.values() for n, h in named.items() if _is_plane(n, h)}
    return [name for name in names if _parts(results, name, Style())]


def _is_plane(name: str, histogram: Any) -> bool:
    axes = [axis for axis in histogram.axes.name if axis not in ("cell", "region", "variation")]
    return len(axes) == 2 and name == "-".join(axes) and "_logp" in axes[1]


def _parts(results: Results, plane: str, style: Style) -> dict[str, Any]:
    parts = samples(results, plane, "inclusive", style).nominal()
    return {style.label(name): h for name, h in parts.items() if np.any(np.asarray(h.values()) > 0)}


def score_against(results: Results, plane: str, path: str | Path, *, style: Style | None = None) -> None:
    """Draw a score against an observable, side by side for background, every signal, and data, with where the regions begin.

    Of a model of jets the score is that of the less anomalous one: above a line both jets are tagged. Thresholds that follow a
    spectator are curves, where the observable is that spectator.

    Parameters
    ----------
    results : Results
    plane : str
        One of `planes`.
    path : path
    style : Style, optional

    Raises
    ------
    UnknownName
        There is no such histogram with an entry.
    """
    from matplotlib.colors import LogNorm

    style = style or Style()
    if plane not in planes(results):
        raise UnknownName.of("histogram of a score against an observable", plane, planes(results))
    groups = _parts(results, plane, style)
    formats = [f for f in style.formats if f != Path(path).suffix[1:]]
    with canvas(path, 1, len(groups), (4.6, 4.4), formats=formats) as axes:
        for i, (ax, (label, h)) in enumerate(zip(axes[0], groups.items(), strict=True)):
            x, y = (axis.edges for axis in h.axes)
            density = np.asarray(h.values(), np.float64) / np.diff(x)[:, None] / np.diff(y)[None]
            shown = np.ma.masked_less_equal(density.T / density.max(), 0)
            mesh = ax.pcolormesh(x, y, shown, norm=LogNorm(_SHADES, 1), cmap="viridis", rasterized=True)
            filled = np.flatnonzero(np.asarray(h.values()).sum(axis=1) > 0)
            ax.set(xlim=(x[filled[0]], x[filled[-1] + 1]), ylim=(y[0], y[-1]))
            _draw_regions(ax, results, plane, name_them=i == len(groups) - 1)
            ax.set_title(label, loc="left")
            ax.set_xlabel(h.axes[0].label)
        axes[0, 0].set_ylabel(h.axes[1].label + (", less anomalous jet" if plane.endswith("_min") else ""))
        axes[0, 0].figure.colorbar(mesh, ax=axes[0, -1], label="events per area, fullest bin = 1")


def _draw_regions(ax: Any, results: Results, plane: str, *, name_them: bool) -> None:
    observable, score = plane.split("-", 1)
    drawn = set()
    for region in results.report.get("regions", {}).values():
        name, thresholds = region.get("region"), region.get("thresholds") or ()
        follows = region.get("spectator")
        if (
            not len(thresholds)
            or name in drawn
            or not score.startswith(f"{region.get('tagger')}_logp")
            or follows not in (None, observable)
        ):
            continue
        drawn.add(name)
        low, high = ax.get_xlim()
        edges = [low, *(e for e in region.get("edges") or () if low < e < high), high]
        first = int(np.searchsorted(region.get("edges") or (), low, side="right"))
        steps = thresholds[first : first + len(edges) - 1]
        ax.stairs(steps, edges, baseline=None, color="crimson", linewidth=1.4)
        if name_them:
            ax.text(
                1.0,
                steps[-1],
                f" {name}",
                color="crimson",
                va="center",
                fontsize=10,
                transform=ax.get_yaxis_transform(),
            )


def divisible(results: Results) -> list[str]:
    """Return the observables, other than scores, of which regions may keep more in one place than in another."""
    parts = {
        name: of for name, of in drawable(results).items() if "inclusive" in of and len(of) > 1 and "_logp" not in name
    }
    some = [name for name in parts if _kind(results, samples(results, name, "inclusive", Style()).nominal())]
    return [
        name for name in some if any(_known(eps, error).any() for _, eps, error in efficiencies(results, name).values())
    ]


def _known(eps: Float64s, error: Float64s) -> Bools:
    """Return which bins of an efficiency say anything."""
    return (eps > 0) & (error < _RELATIVE * eps)


def _kind(results: Results, parts: Mapping[str, Any]) -> str:
    """Return of what efficiencies of regions are measured; of nothing where data are all there is, and some of them are hidden."""
    hidden = any(entry.get("hidden_cells") for entry in results.report["datasets"].values())
    return next((kind for kind in ("background", "data") if kind in parts and not (kind == "data" and hidden)), "")


def efficiencies(
    results: Results, observable: str, *, style: Style | None = None
) -> dict[str, tuple[Float64s, Float64s, Float64s]]:
    """Return the part of the simulated background (of data, without any) that is in each region, in bins of an observable.

    Parameters
    ----------
    results : Results
    observable : str
    style : Style, optional

    Returns
    -------
    {region: (edges, efficiency, error)}
        (bins + 1,), (bins,), (bins,); NaN where fewer than four effective events are. The error is that of a part of weighted events:
        √((1 − ε)² Σ_in w² + ε² Σ_out w²) / Σw.

    Raises
    ------
    ConfigError
        There is neither a simulated background nor data, or data alone, of which events are hidden.
    """
    kind, whole = _sample(results, observable, "inclusive", style or Style())
    total, squares = (np.asarray(part, np.float64) for part in (whole.values(), whole.variances()))
    enough = (total > 0) & (total**2 >= _FEW * squares)
    out = {}
    # of each further model all of its events are a region too
    everything = {name for name, about in results.report.get("regions", {}).items() if "region" not in about}
    for region in drawable(results)[observable]:
        if region == "inclusive" or region in everything:
            continue
        part = samples(results, observable, region, style or Style()).nominal().get(kind)
        if part is None:
            continue
        inside, inside2 = (np.asarray(each, np.float64) for each in (part.values(), part.variances()))
        with np.errstate(invalid="ignore", divide="ignore"):
            eps = np.where(enough, inside / total, np.nan)
            error = np.sqrt(np.maximum((1 - eps) ** 2 * inside2 + eps**2 * (squares - inside2), 0)) / total
        out[region] = (np.asarray(whole.axes[0].edges), eps, np.where(enough, error, np.nan))
    return out


def _sample(results: Results, observable: str, region: str, style: Style) -> tuple[str, Any]:
    parts = samples(results, observable, region, style).nominal()
    kind = _kind(results, parts)
    if not kind:
        why = "the data are blinded" if "data" in parts else "there are no data"
        raise ConfigError(f"{observable}: there is no simulated background in {region}, and {why}")
    return kind, parts[kind]


def efficiency_against(results: Results, observable: str, path: str | Path, *, style: Style | None = None) -> None:
    """Draw which part of the background is in each region against an observable: flat where regions do not sculpt it.

    Parameters
    ----------
    results : Results
    observable : str
    path : path
    style : Style, optional
    """
    import matplotlib as mpl

    style = style or Style()
    shown = efficiencies(results, observable, style=style)
    formats = [f for f in style.formats if f != Path(path).suffix[1:]]
    with canvas(path, size=(7.4, 4.6), formats=formats) as axes:
        ax = axes[0, 0]
        lowest = 1.0
        for i, (region, (edges, eps, error)) in enumerate(shown.items()):
            known = _known(eps, error)
            if not known.any():
                continue
            lowest = min(lowest, float(np.min(eps[known])))
            x = 0.5 * (edges[1:] + edges[:-1])[known] + 0.04 * (i - len(shown) / 2) * np.diff(edges)[known]
            color = mpl.color_sequences["petroff10"][i % 10]
            marker = "osD^vPX*"[i % 8]
            ax.errorbar(x, eps[known], error[known], fmt=marker, ms=4.5, lw=1.2, color=color, label=region)
        ax.set(yscale="log", ylim=(0.5 * lowest, 2))
        ax.set_xlabel(_axis(results, observable).label)
        kind, _ = _sample(results, observable, "inclusive", style)
        ax.set_ylabel(f"part of the {kind} in the region")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def _axis(results: Results, observable: str) -> Any:
    return next(
        h.axes[observable] for named in results.in_regions.values() for n, h in named.items() if n == observable
    )


def cutflow(results: Results, path: str | Path, *, style: Style | None = None) -> None:
    """Draw which part of the weight of every process passes the cuts, one after another.

    Parameters
    ----------
    results : Results
    path : path
    style : Style, optional

    Raises
    ------
    ConfigError
        The processor has counted no cuts.
    """
    style = style or Style()
    flows = cutflows(results, style)
    if not flows:
        raise ConfigError("there is no cutflow to draw: the processor has counted no cuts")
    colors = style.colors_of(processes(results, style))
    steps = _in_order(list(flow) for flow in flows.values())
    formats = [f for f in style.formats if f != Path(path).suffix[1:]]
    with canvas(path, size=(7.4, 4.6), formats=formats) as axes:
        ax = axes[0, 0]
        lowest = 1.0
        for i, (process, passing) in enumerate(flows.items()):
            share = np.array(list(passing.values())) / next(iter(passing.values()))
            share = np.where(share > 0, share, np.nan)
            lowest = min(lowest, float(np.nanmin(share)))
            look = {"color": colors.get(process, "black"), "marker": "osD^vPX*"[i % 8], "ms": 5, "lw": 1.5}
            ax.plot([steps.index(step) for step in passing], share, label=style.label(process), **look)
        ax.set(**({"yscale": "log", "ylim": (0.5 * lowest, 2)} if lowest < 0.1 else {"ylim": (0, 1.1)}))
        ax.set_xticks(range(len(steps)), steps, rotation=30, ha="right")
        ax.minorticks_off()
        ax.set_ylabel("part of the weight that passes")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def cutflows(results: Results, style: Style) -> dict[str, dict[str, float]]:
    """Return {process: {step: weight}}: datasets of a process are added as they are normalised, at the steps that all of them have."""
    flows: dict[str, list[dict[str, float]]] = {}
    for name, entry in results.report["datasets"].items():
        flow = entry.get("cutflow") or {}
        if not _is_cutflow(flow) or name in results.not_normalisable:
            continue
        data = kind_of(entry["metadata"]) == "data"
        process = "data" if data else style.group(process_of(name, entry["metadata"]))
        scale = 1.0 if data else results.norm(name)
        counted = {step: scale * of["events" if data else "weight"] for step, of in flow.items()}
        flows.setdefault(process, []).append(counted)
    out = {}
    for process, several in flows.items():
        common = [step for step in several[0] if all(step in flow for flow in several)]
        out[process] = {step: sum(flow[step] for flow in several) for step in common}
    return {process: of for process, of in out.items() if of and next(iter(of.values())) > 0}


def _is_cutflow(flow: Any) -> bool:
    """Say whether steps have events and weights, as `coffea_ad.selection.cutflow` counts them."""
    steps = flow.values() if isinstance(flow, Mapping) else ()
    return bool(steps) and all(isinstance(step, Mapping) and {"events", "weight"} <= step.keys() for step in steps)


def _in_order(lists: Iterable[Sequence[str]]) -> list[str]:
    """Return the steps of all cutflows; those of blinded data are the first and the last of others.

    >>> _in_order([["all", "dphi"], ["all", "trigger", "dphi"]])
    ['all', 'trigger', 'dphi']
    """
    out: list[str] = []
    for steps in lists:
        place = 0
        for step in steps:
            if step in out:
                place = out.index(step) + 1
            else:
                out.insert(place, step)
                place += 1
    return out


def inputs(
    drifts: Mapping[str, Mapping[str, float]], path: str | Path, *, most: int = 30, formats: Sequence[str] = ()
) -> None:
    """Draw how far the inputs of a model are from the rows of its training, for simulation and for data.

    Bars are max |F_run − F_card| over the quantiles of the card.

    Parameters
    ----------
    drifts : {"simulation" or "data": {column: distance}}
        `results.report["inputs"][tagger]["drift"]`.
    path : path
    most : int
        So many inputs, those that are farthest.
    formats : sequence of str

    Raises
    ------
    ConfigError
        There are no quantiles to compare with.
    """
    import matplotlib as mpl

    known = {kind: of for kind, of in drifts.items() if of}
    if not known:
        raise ConfigError("there is nothing to compare the inputs with: the card of this model has no quantiles")
    largest = {c: max(of.get(c, 0.0) for of in known.values()) for each in known.values() for c in each}
    columns = sorted(largest, key=lambda c: -largest[c])[:most]
    with canvas(path, size=(7.0, 1.4 + 0.3 * len(columns)), formats=formats) as axes:
        ax = axes[0, 0]
        for i, (kind, of) in enumerate(known.items()):
            rows = [j for j, c in enumerate(columns) if c in of]
            place = np.array(rows) + 0.8 * ((i + 0.5) / len(known) - 0.5)
            color = mpl.color_sequences["petroff10"][i]
            ax.barh(place, [of[columns[j]] for j in rows], 0.75 / len(known), color=color, label=kind)
        ax.set_yticks(range(len(columns)), [c.rpartition(".")[2] for c in columns])
        ax.set(ylim=(len(columns) - 0.5, -0.5), xlim=(0, None))
        ax.minorticks_off()
        ax.set_xlabel("largest difference of the distributions from the training")
        ax.legend(loc="lower right")
