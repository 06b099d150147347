"""An event in η and φ: jets as circles of their radius, constituents as points with an area in proportion to pT."""

from __future__ import annotations

from typing import Any

import numpy as np

from coffea_ad.kinematics import delta_phi
from coffea_ad.plotting.displays.contents import Content, EventObject
from coffea_ad.plotting.displays.labels import Labels, around
from coffea_ad.plotting.displays.marks import JETS, LARGE, LEPTONS, MISSING, draw_particles, number, text_of

__all__ = ["draw_eta_phi", "images_of", "reach_of"]

_ETA, _FAR = 3.2, 5.2  # the least and the largest range that is shown


def images_of(phi: float, radius: float) -> list[float]:
    """Return at which φ a circle has to be drawn so that all of it is seen between −π and π.

    >>> images_of(0.0, 0.8), [round(phi, 3) for phi in images_of(3.0, 0.8)]
    ([0.0], [3.0, -3.283])
    """
    inside = float(delta_phi(phi, 0.0))
    turns = [
        0.0,
        *([-2 * np.pi] if inside + radius > np.pi else []),
        *([2 * np.pi] if inside - radius < -np.pi else []),
    ]
    return [inside + turn for turn in turns]


def reach_of(content: Content) -> float:
    """Return up to which |η| an event is shown: as far as it has something."""
    reach = [_ETA, *(abs(o.eta) + o.kind.radius + 0.1 for o in content.objects), *np.abs(content.particles.eta)]
    return float(min(max(reach), _FAR))


def draw_eta_phi(ax: Any, content: Content) -> None:
    """Draw jets, constituents, leptons, photons and missing momentum; φ is periodic."""
    particles, missing, eta = content.particles, content.missing, reach_of(content)
    labels = Labels(ax, eta, np.pi, inches=6.1)
    if len(particles):
        draw_particles(ax, particles.eta, delta_phi(particles.phi, 0.0), particles, float(particles.pt.max()))
    if missing is not None:
        phi = float(delta_phi(missing.phi, 0.0))
        ax.axhline(phi, color=MISSING.color, linestyle=MISSING.line, linewidth=MISSING.width, zorder=1)
        places = [
            (x, phi + away, -np.sign(x), np.sign(away)) for x in (0.04 - eta, eta - 0.04) for away in (0.03, -0.03)
        ]
        labels.put(f"MET {number(missing.pt)}", places, color=MISSING.color, size=14)
    for lepton in content.of(*LEPTONS):
        labels.avoid(lepton.eta, float(delta_phi(lepton.phi, 0.0)), 0.1)
    for lepton in content.of(*LEPTONS):
        mark, phi = LEPTONS[lepton.kind.collection], float(delta_phi(lepton.phi, 0.0))
        for image in images_of(phi, 0.12):
            ax.plot(lepton.eta, image, mark.marker, color=mark.color, **LARGE, zorder=5)
        labels.put(text_of(lepton), around(lepton.eta, phi, 0.12), size=13)
    for jet in content.of("FatJet", "Jet"):
        _draw_circles(ax, jet)
        places = around(jet.eta, float(delta_phi(jet.phi, 0.0)), jet.kind.radius)
        labels.put(
            text_of(jet),
            places,
            color=JETS[jet.kind.collection].color,
            size=15 if jet.kind.collection == "FatJet" else 12,
        )
    ax.set(xlim=(-eta, eta), ylim=(-np.pi, np.pi), xlabel=r"$\eta$", ylabel=r"$\phi$", aspect="equal")
    ax.set_yticks([-np.pi, -np.pi / 2, 0, np.pi / 2, np.pi], [r"$-\pi$", r"$-\pi/2$", "0", r"$\pi/2$", r"$\pi$"])


def _draw_circles(ax: Any, jet: EventObject) -> None:
    from matplotlib.patches import Circle

    mark, radius = JETS[jet.kind.collection], jet.kind.radius
    for phi in images_of(jet.phi, radius):
        circle = Circle(
            (jet.eta, phi), radius, fill=False, edgecolor=mark.color, linestyle=mark.line, linewidth=mark.width
        )
        ax.add_patch(circle).set_zorder(3)
