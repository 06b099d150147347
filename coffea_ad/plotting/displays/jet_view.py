"""One jet about its axis: constituents, and the subjets that they belong to."""

from __future__ import annotations

from typing import Any

import numpy as np

from coffea_ad.kinematics import delta_phi
from coffea_ad.plotting.displays.jets import JetContent
from coffea_ad.plotting.displays.labels import Labels, around, outlined
from coffea_ad.plotting.displays.marks import draw_particles, number

__all__ = ["draw_jet", "name_of"]

_LINES = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (5, 1, 1, 1)))


def draw_jet(ax: Any, content: JetContent) -> None:
    """Draw constituents with an area in proportion to pT, and a line from each to the axis of its subjet, a cross."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    jet, particles = content.jet, content.particles
    axes = [(part.eta - jet.eta, float(delta_phi(part.phi, jet.phi))) for part in content.subjets]
    reach = jet.kind.radius + 0.1
    if particles is not None and len(particles):
        x, y = particles.eta - jet.eta, delta_phi(particles.phi, jet.phi)
        for k, axis in enumerate(axes):
            lines = [[axis, point] for point in zip(x[content.label == k], y[content.label == k], strict=True)]
            ax.add_collection(
                LineCollection(lines, colors="0.45", linestyles=_LINES[k % len(_LINES)], linewidths=0.8, zorder=1)
            )
        draw_particles(ax, x, y, particles, float(particles.pt.max()))
        reach = max(reach, float(np.max(np.abs([x, y]))) + 0.05)
    ax.add_patch(Circle((0, 0), jet.kind.radius, fill=False, edgecolor="black", linewidth=2.0)).set_zorder(3)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel=r"$\eta-\eta_\mathrm{jet}$",
           ylabel=r"$\phi-\phi_\mathrm{jet}$")  # fmt: skip
    labels = Labels(ax, reach, reach, inches=4.2)
    for eta, phi in axes:
        labels.avoid(eta, phi, 0.05 * reach)
    for k, (part, (eta, phi)) in enumerate(zip(content.subjets, axes, strict=True)):
        ax.plot(eta, phi, "+", color="black", markersize=15, markeredgewidth=2.2, path_effects=outlined(), zorder=4)
        labels.put(f"{k + 1}: {number(part.pt)} GeV", around(eta, phi, 0.07 * reach), size=13)
    ax.set_title(name_of(content), loc="left")


def name_of(content: JetContent) -> str:
    """Return which jet this is, with pT and masses."""
    jet = content.jet
    groomed = content.numbers.get("msoftdrop", np.nan)
    masses = [
        f"$m$ = {number(jet.mass)} GeV",
        *([rf"$m_\mathrm{{SD}}$ = {number(groomed)} GeV"] if np.isfinite(groomed) else []),
    ]
    return "\n".join([f"{jet.kind.name} {content.rank}: $p_T$ = {number(jet.pt)} GeV", ", ".join(masses)])
