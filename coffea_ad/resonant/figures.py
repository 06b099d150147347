"""What a search can show of itself without looking at its regions: template and data, closure, flatness, the signal fraction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.plotting import canvas
from coffea_ad.resonant.members import Member
from coffea_ad.resonant.windows import Window, mass_of
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.expectation import Expectation
from coffea_ad.skims.skim import Skim

__all__ = ["draw_window"]

_INPUTS = 6  # of many, the first


def draw_window(window: Window, members: Sequence[Member], data: Skim, card: ModelCard, path: Path) -> None:
    """Draw the template against all data of the signal region, how well it closes, and what it leads to expect.

    No panel shows data by their score.

    Parameters
    ----------
    window : Window
    members : sequence of Member
    data : Skim
        That was searched.
    card : ModelCard
        Of the window, with its regions.
    path : path
    """
    region = data.select(window.in_signal_region(mass_of(data, window.mass)))
    names = [c for c in data.columns if c != window.mass][:_INPUTS]
    learnt = any("w_by_epoch" in m.metrics for m in members)
    panels = len(names) + 2 + learnt
    columns = min(4, panels)
    with canvas(path, -(-panels // columns), columns, size=(4.2, 3.4)) as axes:
        places = iter(axes.ravel())
        for name in names:
            _input(next(places), name, members, region)
        _closure(next(places), members)
        _efficiencies(next(places), card)
        if learnt:
            _fraction(next(places), members)
        for ax in places:
            ax.set_axis_off()


def _input(ax: Any, name: str, members: Sequence[Member], region: Skim) -> None:
    """Draw an input, template and data normalised to the same area."""
    column = region.columns.index(name)
    values = np.asarray(region.x[:][:, column], np.float64)
    template = np.concatenate([m.template[:, column] for m in members]).astype(np.float64)
    weight = np.concatenate([m.template_weight for m in members])
    low, high = (float(v) for v in np.quantile(values, [0.002, 0.998]))
    edges = np.linspace(low, high, 41)
    width, middle = np.diff(edges), (edges[1:] + edges[:-1]) / 2
    counts = np.histogram(values, edges, weights=region.weight)[0]
    error = np.sqrt(np.histogram(values, edges, weights=region.weight**2)[0])
    scale = region.weight.sum() * width
    ax.stairs(
        np.histogram(template, edges, weights=weight)[0] / (weight.sum() * width),
        edges,
        fill=True,
        alpha=0.4,
        label="template",
    )
    ax.errorbar(middle, counts / scale, error / scale, fmt="k.", ms=3, lw=0.8, label="data")
    ax.set_xlabel(name)
    ax.legend()


def _closure(ax: Any, members: Sequence[Member]) -> None:
    """Draw the AUC with which a classifier tells data from the template, in every fold."""
    values = [m.metrics.get("closure_auc", np.nan) for m in members]
    errors = [m.metrics.get("closure_error", 0.0) for m in members]
    ax.errorbar(range(len(members)), values, errors, fmt="o", label="data against template")
    ax.axhline(0.5, color="k", lw=0.8, ls="--")
    explained = [m.metrics["explained_auc"] for m in members if "explained_auc" in m.metrics]
    if explained:
        ax.plot(range(len(explained)), explained, "_", ms=14, color="C3", label="the most that w explains")
    ax.set_xlabel("fold")
    ax.set_ylabel("AUC")
    ax.legend()


def _efficiencies(ax: Any, card: ModelCard) -> None:
    """Draw the part of the template in each region against the mass: a slope makes no bump, a peak would."""
    for region in card.regions:
        e = region.expectation
        if e is not None:
            middle = (np.array(e.edges[1:]) + np.array(e.edges[:-1])) / 2
            ax.errorbar(middle, e.efficiencies, e.errors, fmt="o", ms=3, label=_told(region.name, e))
            ax.axhline(region.efficiency, color="k", lw=0.6, ls="--")
    ax.set_yscale("log")
    ax.set_xlabel("mass of the template")
    ax.set_ylabel("efficiency")
    if card.regions:
        ax.legend()


def _told(name: str, e: Expectation) -> str:
    """Return the name of a region, with how the template does in the sidebands."""
    return name if e.sidebands is None else f"{name}, sidebands {e.sidebands:.2f} ± {e.sidebands_error:.2f}"


def _fraction(ax: Any, members: Sequence[Member]) -> None:
    """Draw the signal fraction that every fold learnt, epoch by epoch."""
    for f, member in enumerate(members):
        ax.plot(member.metrics.get("w_by_epoch", []), label=f"fold {f}")
    ax.set_yscale("log")
    ax.set_xlabel("epoch")
    ax.set_ylabel("w")
    ax.legend(fontsize=7)
