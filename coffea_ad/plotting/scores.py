"""Figures of scores: curves, distributions, spectra in regions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.plotting.canvas import canvas
from coffea_ad.plotting.thresholds import draw_thresholds
from coffea_ad.typing import Bools

__all__ = ["auc_summary", "roc", "score_distribution", "sculpted_spectra", "significance_improvement"]


def roc(
    curves: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any], float]], path: str | Path, *, models: int
) -> None:
    """Draw background rejection against signal efficiency, {label: (ε_B, ε_S, AUC)}; the first `models` are solid."""
    import matplotlib as mpl

    with canvas(path, size=(6.4, 4.8) if len(curves) < 8 else (8.4, 4.8)) as axes:
        ax = axes[0, 0]
        colors = mpl.color_sequences["petroff10"]
        for i, (label, (background, signal, auc)) in enumerate(curves.items()):
            keep = background > 0
            look = {"color": colors[i % len(colors)], "linestyle": "-" if i < models else "--", "linewidth": 1.5}
            ax.plot(signal[keep], 1 / background[keep], label=f"{label} (AUC {auc:.2f})", **look)
        line = np.linspace(0.01, 1, 100)
        ax.plot(line, 1 / line, color="grey", linestyle=":", label="random")
        ax.set(xlim=(0, 1), ylim=(1, 3e3), yscale="log")
        ax.set_xlabel("signal efficiency")
        ax.set_ylabel("background rejection")
        ax.legend(**({} if len(curves) < 8 else {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}))


def score_distribution(
    background: tuple[npt.NDArray[Any], npt.NDArray[Any]], signals: Mapping[str, npt.NDArray[Any]], thresholds: Mapping[str, float],
    path: str | Path, *, xlabel: str, styles: Mapping[str, tuple[Any, Any]] | None = None,
) -> None:  # fmt: skip
    """Draw the distribution of a score for the background, signals over it, and where the regions begin; all have area 1.

    Parameters
    ----------
    background : (score, weight), (n,) each
    signals : {label: score}
    thresholds : {region: threshold on the score}
    path : path
    xlabel : str
    styles : {label: (color, linestyle)}, optional
    """
    score, weight = background
    everything = np.concatenate([score, *signals.values()])
    low, high = np.quantile(everything, (1e-4, 1 - 1e-4))
    edges = np.linspace(low, high, 31)
    with canvas(path, size=(7.6, 4.8)) as axes:
        ax = axes[0, 0]
        content, _ = np.histogram(score, edges, weights=weight / weight.sum())
        ax.stairs(content, edges, fill=True, alpha=0.35, color="grey", label="background")
        for label, values in signals.items():
            color, line = (styles or {}).get(label, (None, "-"))
            share, _ = np.histogram(values, edges, weights=np.full(len(values), 1 / len(values)))
            ax.stairs(share, edges, label=label, linewidth=1.5, color=color, linestyle=line)
        filled = content[content > 0]
        ax.set(yscale="log", xlim=(edges[0], edges[-1]), ylim=(max(filled.min() * 0.5, 1e-6), 3.0))
        draw_thresholds(ax, thresholds, top=0.95)
        ax.set_xlabel(xlabel)
        ax.set_ylabel("fraction of events per bin")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def significance_improvement(
    curves: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any], Bools]],
    path: str | Path,
    *,
    models: int,
) -> None:
    """Draw ε_S/√ε_B against ε_B: solid where enough background passes, dotted where it does not.

    Parameters
    ----------
    curves : {label: (ε_B, ε_S/√ε_B, enough)}
    path : path
    models : int
        The first so many have thick lines.
    """
    import matplotlib as mpl

    with canvas(path, size=(7.6, 4.8)) as axes:
        ax = axes[0, 0]
        colors = mpl.color_sequences["petroff10"]
        top = 1.5
        for i, (label, (background, improvement, enough)) in enumerate(curves.items()):
            look = {"color": colors[i % len(colors)], "linewidth": 2.0 if i < models else 1.0}
            ax.plot(background, np.where(enough, improvement, np.nan), label=label, **look)
            ax.plot(background, np.where(enough, np.nan, improvement), linestyle=":", **look)
            top = max(top, 1.2 * float(np.max(improvement, initial=0.0, where=enough)))
        ax.axhline(1.0, color="grey", linestyle="--", linewidth=1)
        ax.set(xscale="log", xlim=(1e-5, 1), ylim=(0, top))
        ax.set_xlabel("background efficiency")
        ax.set_ylabel("significance improvement")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def auc_summary(aucs: Mapping[str, Mapping[str, tuple[float, float, float, float]]], path: str | Path) -> None:
    """Draw the AUC of every score for every signal: full markers as it is, open ones at equal spectra.

    Parameters
    ----------
    aucs : {signal: {score: (AUC, error, matched AUC, error)}}
    path : path
    """
    import matplotlib as mpl

    scores = list(dict.fromkeys(score for of in aucs.values() for score in of))
    with canvas(path, size=(7.6, 1.6 + 0.34 * len(scores))) as axes:
        ax = axes[0, 0]
        colors = mpl.color_sequences["petroff10"]
        for i, (signal, of) in enumerate(aucs.items()):
            place = np.array([scores.index(score) for score in of]) + 0.5 * ((i + 0.5) / len(aucs) - 0.5)
            values = np.array(list(of.values()))
            color = colors[i % len(colors)]
            for j, face in ((0, color), (2, "white")):
                here = np.isfinite(values[:, j])
                ax.errorbar(
                    values[here, j], place[here], xerr=np.nan_to_num(values[here, j + 1]), fmt="o", markersize=4,
                    color=color, markerfacecolor=face, label=signal if j == 0 else None, linewidth=1,
                )  # fmt: skip
        ax.axvline(0.5, color="grey", linestyle=":", linewidth=1)
        ax.set(xlim=(0, 1.02), ylim=(len(scores) - 0.5, -0.5))
        ax.set_yticks(range(len(scores)), scores)
        ax.minorticks_off()
        ax.set_xlabel("AUC (open: at equal spectra)")
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def sculpted_spectra(
    spectra: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any], Mapping[float, npt.NDArray[Any]]]],
    path: str | Path,
    *,
    xlabel: str,
) -> None:
    """Draw the mass spectrum of background before and after cuts on each score, all of the same area.

    Parameters
    ----------
    spectra : {score: (edges, shares before, {ε_B: shares after})}
    path : path
    xlabel : str
    """
    columns = min(4, len(spectra))
    rows = -(-len(spectra) // columns)
    with canvas(path, rows, columns, (3.6, 3.0)) as axes:
        for ax, (score, (edges, before, after)) in zip(axes.flat, spectra.items(), strict=False):
            width = np.diff(edges)
            ax.stairs(before / width, edges, fill=True, alpha=0.35, color="grey", label="all")
            for (eps, share), color in zip(after.items(), ("tab:blue", "tab:red", "black"), strict=False):
                ax.stairs(share / width, edges, color=color, label=f"{eps:g}", linewidth=1.5)
            ax.set(xlim=(edges[0], edges[-2] + (edges[-2] - edges[0]) / 4), yticks=[])
            ax.set_title(score)
        for ax in axes.flat[len(spectra) :]:
            ax.set_visible(False)
        axes[0, 0].legend(title="passing")
        for ax in axes[-1]:
            ax.set_xlabel(xlabel)
