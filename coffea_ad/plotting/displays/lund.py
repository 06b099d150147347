"""The primary Lund plane of one jet."""

from __future__ import annotations

from typing import Any

import numpy as np

from coffea_ad.plotting.displays.jet_view import name_of
from coffea_ad.plotting.displays.jets import JetContent
from coffea_ad.plotting.displays.labels import outlined

__all__ = ["draw_lund"]

_LARGEST, _NAMED = 300.0, 5


def draw_lund(ax: Any, content: JetContent) -> None:
    """Draw the splittings along the harder branch of Cambridge/Aachen, with an area in proportion to z and numbered from the widest on.

    Straight lines are those of equal z = kT / (pT Δ); none lies above z = 1/2.

    References
    ----------
    F. Dreyer, G. Salam, G. Soyez, "The Lund jet plane", arXiv:1807.04758
    """
    plane = content.splittings
    plane = plane[np.isfinite(plane).all(axis=1)]
    x, y, z = plane.T
    left = min(float(np.log(1 / content.jet.kind.radius)), *(x.min(initial=np.inf),)) - 0.2
    right, low = max(5.0, x.max(initial=0) + 0.4), min(-3.0, y.min(initial=0) - 0.4)
    high = float(np.log(content.jet.pt / 2) - left) + 0.3
    ax.plot(x, y, color="0.6", linewidth=0.8, zorder=1)
    ax.scatter(x, y, s=np.maximum(2 * _LARGEST * z, 8), color="#3f90da", edgecolors="black", linewidths=0.6, zorder=3)
    hardest = np.argsort(-y)[:_NAMED]
    for i in hardest:
        ax.annotate(str(i + 1), (x[i], y[i]), xytext=(0, 5 + np.sqrt(2 * _LARGEST * z[i]) / 2), textcoords="offset points", ha="center",
                    va="bottom", fontsize=11, path_effects=outlined(), zorder=4)  # fmt: skip
    edges = np.array([left, right])
    for fraction, line in ((0.5, "-"), (0.1, "--"), (0.01, ":")):
        ax.plot(edges, np.log(fraction * content.jet.pt) - edges, color="black", linestyle=line, linewidth=1.1, zorder=2,
                label=f"$z = {fraction:g}$")  # fmt: skip
    ax.axhline(0, color="0.75", linewidth=0.8, zorder=0)
    ax.set(xlim=(left, right), ylim=(low, high), xlabel=r"$\ln(1/\Delta)$", ylabel=r"$\ln(k_T\,/\,\mathrm{GeV})$")
    ax.set_title(name_of(content), loc="left")
