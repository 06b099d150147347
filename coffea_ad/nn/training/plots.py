"""Figures of a training: how it went, and data against the chains of an energy model (extra `plot`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.nn.training.history import History
from coffea_ad.plotting import canvas

__all__ = ["chain_health", "data_and_chains", "data_and_chains_2d", "long_run", "training"]


def training(history: History, metrics: Sequence[str], path: str | Path) -> None:
    """Plot metrics of a training against the epoch, with the best epoch marked."""
    with canvas(path) as axes:
        ax = axes[0, 0]
        epochs = [row["epoch"] for row in history]
        for name in metrics:
            ax.plot(epochs, [row[name] for row in history], label=name, linewidth=1.5)
        best = history.epochs[0].number
        ax.axvline(best, color="grey", linestyle=":", label=f"best: epoch {best}")
        ax.set_xlabel("epoch")
        ax.set_ylabel("training and validation metrics")
        ax.set_yscale("log")
        ax.legend()


def data_and_chains(
    z: npt.NDArray[Any], weight: npt.NDArray[Any], chains: npt.NDArray[Any], columns: Sequence[str], path: str | Path
) -> None:
    """Plot each transformed input: data against the chains of an energy model."""
    rows = (len(columns) + 3) // 4
    bins = np.linspace(-4, 4, 33)
    with canvas(path, rows, 4, (3.2, 2.8)) as axes:
        for i, name in enumerate(columns):
            ax = axes[i // 4, i % 4]
            ax.hist(z[:, i], bins, weights=weight, density=True, histtype="stepfilled", alpha=0.4, label="data")
            ax.hist(chains[:, i], bins, density=True, histtype="step", color="black", label="chains")
            ax.set_xlabel(f"{name.rsplit('.', 1)[-1]} (transformed)")
        axes[0, 0].legend()
        for ax in axes.flat[len(columns) :]:
            ax.set_visible(False)


def data_and_chains_2d(
    z: npt.NDArray[Any], weight: npt.NDArray[Any], chains: npt.NDArray[Any], columns: Sequence[str], path: str | Path
) -> None:
    """Plot neighbouring pairs of transformed inputs: data above, chains below, on the same colour scale."""
    from matplotlib.colors import LogNorm

    pairs = [(i, i + 1) for i in range(0, min(len(columns), 8) - 1, 2)]
    with canvas(path, 2, max(len(pairs), 1), (3.2, 2.8)) as axes:
        for k, (i, j) in enumerate(pairs):
            ranges = (np.quantile(z[:, c], [0.001, 0.999]) for c in (i, j))
            bins = [np.linspace(float(low), float(high), 31) for low, high in ranges]
            for row, (points, w) in enumerate(((z, weight), (chains, np.ones(len(chains))))):
                content, _, _ = np.histogram2d(points[:, i], points[:, j], bins, weights=w)
                content = np.ma.masked_less_equal(content.T / w.sum(), 0)
                axes[row, k].pcolormesh(*bins, content, norm=LogNorm(1e-5, 1e-1), cmap="viridis", rasterized=True)
                axes[row, k].set_xlabel(columns[i].rsplit(".", 1)[-1])
                axes[row, k].set_ylabel(columns[j].rsplit(".", 1)[-1])
                axes[row, k].set_title(("data", "chains")[row], loc="left")


def chain_health(history: Sequence[Mapping[str, float]], path: str | Path) -> None:
    """Plot the mean energies of data and of chains, and the acceptance of proposals, against the epoch."""
    epochs = [row["epoch"] for row in history]
    with canvas(path, 1, 2, (5.2, 4.0)) as axes:
        for name, label in (("energy_data", "data"), ("energy_model", "chains")):
            axes[0, 0].plot(epochs, [row[name] for row in history], label=label, linewidth=1.5)
        axes[0, 0].set_ylabel("mean energy")
        axes[0, 0].legend()
        axes[0, 1].plot(epochs, [row["acceptance"] for row in history], linewidth=1.5)
        axes[0, 1].set(ylim=(0, 1.05), ylabel="acceptance")
        for ax in axes[0]:
            ax.set_xlabel("epoch")


def long_run(measured: Mapping[str, Any], path: str | Path) -> None:
    """Plot the excess against the number of further steps at frozen weights, as `nn.long_run` measures it."""
    with canvas(path) as axes:
        ax = axes[0, 0]
        steps = np.array(measured["steps"])
        for name, label in (("buffer", "chains of the training"), ("data", "chains that begin at data")):
            ax.errorbar(
                steps,
                measured[name],
                yerr=measured[f"{name}_error"],
                marker="o",
                markersize=4,
                linewidth=1.5,
                label=label,
            )
        ax.axhline(0, color="grey", linestyle=":", label="two samples of the data")
        ax.set_xscale("symlog", linthresh=10)
        ax.set_xlim(-2, 1.5 * steps.max())
        ax.set_xlabel("further steps at frozen weights")
        ax.set_ylabel("excess of $W_2^2$")
        ax.legend()
