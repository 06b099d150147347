"""Figures of what inputs add to scores: bars of named inputs, and maps of images and matrices; one panel each event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from coffea_ad.plotting.canvas import canvas
from coffea_ad.typing import Float32s, Float64s

__all__ = ["BARS", "Bars", "Map", "contribution_bars", "contribution_maps"]

BARS = 40
"""The most bars of a panel."""


@dataclass(frozen=True)
class Bars:
    """One event: title, and names, (texts of) values and contributions of its parts, the first on top."""

    title: str
    labels: Sequence[str]
    contributions: Float64s


@dataclass(frozen=True)
class Map:
    """One event: title, and contributions of cells, (rows, columns); NaN where there is no cell."""

    title: str
    cells: Float32s | Float64s


def contribution_bars(
    panels: Sequence[Bars], path: str | Path | BinaryIO, *, xlabel: str, explanation: str = ""
) -> None:
    """Draw the contributions to the scores of events as horizontal bars; negative ones have another colour.

    Parameters
    ----------
    panels : sequence of Bars
    path : path
    xlabel : str
    explanation : str
        Of the labels, in a corner of the first panel.
    """
    import matplotlib as mpl

    colors = mpl.color_sequences["petroff10"]
    most = max(len(panel.labels) for panel in panels)
    across = min(len(panels), 2)
    rows = -(-len(panels) // across)
    with canvas(path, rows, across, (6.0, 1.4 + 0.26 * most)) as axes:
        for ax, panel in zip(axes.ravel(), panels, strict=False):
            place = np.arange(len(panel.labels))
            color = [colors[0] if value >= 0 else colors[1] for value in panel.contributions]
            ax.barh(place, panel.contributions, color=color, height=0.75)
            ax.axvline(0.0, color="black", linewidth=0.8)
            ax.set_yticks(place, panel.labels, fontsize=10)
            ax.set(ylim=(most - 0.4, -0.6), xlabel=xlabel)
            ax.tick_params(axis="y", which="both", length=0)
            ax.tick_params(axis="y", which="minor", left=False, right=False)
            ax.set_title(panel.title, loc="left")
        note = {"ha": "right", "va": "bottom", "fontsize": 9, "color": "dimgrey"}
        axes[0, 0].text(0.97, 0.08, explanation, transform=axes[0, 0].transAxes, **note)
        _blank(axes, len(panels))


def contribution_maps(
    panels: Sequence[Map],
    path: str | Path | BinaryIO,
    *,
    label: str,
    axes_labels: tuple[str, str] = ("", ""),
    ticks: Sequence[str] = (),
    edges: Sequence[int] = (),
) -> None:
    """Draw the contributions to the scores of events as maps.

    Parameters
    ----------
    panels : sequence of Map
    path : path
    label : str
        Of the colours.
    axes_labels : (x, y)
    ticks : sequence of str, optional
        Names of rows and columns of a matrix, whose first row is on top; without them the first row is at the bottom.
    edges : sequence of int
        Before which rows and columns lines are drawn.
    """
    import matplotlib as mpl
    from matplotlib.colors import CenteredNorm, Normalize

    across = min(len(panels), 2)
    rows = -(-len(panels) // across)
    size = (8.4, 7.0) if ticks else (5.6, 4.6)
    with canvas(path, rows, across, size) as axes:
        for ax, panel in zip(axes.ravel(), panels, strict=False):
            signed = bool(np.any(panel.cells < 0))
            norm = CenteredNorm() if signed else Normalize(vmin=0.0)
            colors = mpl.colormaps["RdBu_r" if signed else "viridis"].with_extremes(bad="lightgrey")
            shown = ax.imshow(panel.cells, norm=norm, cmap=colors, origin="upper" if ticks else "lower", aspect="equal")
            ax.figure.colorbar(shown, ax=ax, label=label)
            ax.set(xlabel=axes_labels[0], ylabel=axes_labels[1])
            ax.set_title(panel.title, loc="left")
            _name_cells(ax, ticks, edges, "grey" if signed else "white")
        _blank(axes, len(panels))


def _name_cells(ax: Any, ticks: Sequence[str], edges: Sequence[int], color: str) -> None:
    if not ticks:
        return
    size = 8 if len(ticks) <= 40 else 6
    ax.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=size)
    ax.set_yticks(range(len(ticks)), ticks, fontsize=size)
    ax.tick_params(which="both", length=0)
    ax.minorticks_off()
    for edge in edges:
        for line in (ax.axhline, ax.axvline):
            line(edge - 0.5, color=color, linewidth=0.6)


def _blank(axes: Any, used: int) -> None:
    for ax in axes.ravel()[used:]:
        ax.set_axis_off()
