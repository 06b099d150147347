"""The figure of a latent space: background, signals, and the columns that its axes follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.evaluation.latent import Latent
from coffea_ad.plotting import canvas
from coffea_ad.typing import Float64s

__all__ = ["draw_latent"]

_BINS = 32
_COLORS = (0, 1, 2, 4, 5, 6)  # of petroff10: those that stand out from grey
_LINES = ("-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_Edges = tuple[Float64s, Float64s]
_CONTENT = 0.68  # of a process, inside its contour


def _edges(values: Float64s) -> Float64s:
    """Return edges of bins about nearly all values, with room for what smoothing adds."""
    low, high = np.quantile(values, (0.002, 0.998))
    room = 0.1 * (high - low)
    return np.linspace(low - room, high + room, _BINS + 1)


def _content(points: Float64s, weight: Float64s, edges: _Edges) -> Float64s:
    """Return the sum of weights in each bin, (second axis, first axis) as figures want it."""
    return np.asarray(np.histogram2d(points[:, 0], points[:, 1], bins=list(edges), weights=weight)[0].T)


def _level(share: Float64s) -> float:
    """Return the share of a bin at the edge of the densest ones that hold 68 % of what is drawn."""
    falling = np.sort(share.ravel())[::-1]
    return float(falling[np.searchsorted(np.cumsum(falling), _CONTENT * falling.sum())])


def draw_latent(space: Latent, path: str | Path) -> None:
    """Draw the density of the background with the contours of all processes that hold 68 % of their rows, and the mean of every column.

    Parameters
    ----------
    space : Latent
    path : path
    """
    import matplotlib as mpl
    from matplotlib.colors import LogNorm
    from matplotlib.lines import Line2D
    from scipy.ndimage import gaussian_filter

    every = np.concatenate([space.background, *space.signals.values()])
    edges = _edges(every[:, 0]), _edges(every[:, 1])
    middle = [0.5 * (e[1:] + e[:-1]) for e in edges]
    panels = len(space.columns) + 1
    across = min(3, panels)
    looks: dict[str, tuple[Any, Any]] = {"background": ("black", "--")}
    for i, name in enumerate(space.signals):
        looks[name] = mpl.color_sequences["petroff10"][_COLORS[i % len(_COLORS)]], _LINES[i % len(_LINES)]
    with canvas(path, -(-panels // across), across, (4.4, 3.8)) as axes:
        ax, *others = axes.flat
        content = _content(space.background, space.weight, edges)
        shade = LogNorm(content[content > 0].min(), 30 * content.max())  # no darker than lines can be read on
        ax.pcolormesh(*edges, np.ma.masked_less_equal(content, 0), norm=shade, cmap="Greys", rasterized=True)
        processes = {"background": (space.background, space.weight)}
        processes |= {name: (points, np.ones(len(points))) for name, points in space.signals.items()}
        for name, (points, weight) in processes.items():
            share = gaussian_filter(_content(points, weight, edges), 1.2)
            color, line = looks[name]
            ax.contour(*middle, share, levels=[_level(share)], linewidths=1.8, colors=color, linestyles=[line])
        lines = [Line2D([], [], color=color, linestyle=line, label=name) for name, (color, line) in looks.items()]
        ax.set_title(f"lines: {_CONTENT:.0%} of a process inside", loc="left")
        _draw_columns(others, space, edges)
        for panel in axes.flat[:panels]:
            panel.set_xlabel(f"first axis ({space.explained[0]:.0%} of the variance)")
            panel.set_ylabel(f"second axis ({space.explained[1]:.0%})")
        for panel in axes.flat[panels:]:
            panel.set_axis_off()
        place = axes.flat[panels] if panels < axes.size else ax
        place.legend(handles=lines, loc="center" if place is not ax else "best")


def _draw_columns(panels: Sequence[Any], space: Latent, edges: _Edges) -> None:
    """Draw the mean of every column over background rows in each bin."""
    for ax, (name, values) in zip(panels, space.columns.items(), strict=False):
        known = np.isfinite(values)
        points, w = space.background[known], space.weight[known]
        weight, total = (_content(points, each, edges) for each in (w, w * values[known]))
        mean = np.ma.masked_invalid(np.divide(total, weight, out=np.full(weight.shape, np.nan), where=weight > 0))
        low, high = np.quantile(values[known], (0.02, 0.98))
        mesh = ax.pcolormesh(*edges, mean, cmap="viridis", vmin=low, vmax=high, rasterized=True)
        ax.figure.colorbar(mesh, ax=ax, extend="both")
        one, two = space.correlations[name]
        ax.set_title(f"mean {name}; ρ = {one:.2f}, {two:.2f}", loc="left")
