"""An event in the plane across the beams: momenta as lengths from the centre, and the flow of constituents around them."""

from __future__ import annotations

from typing import Any

import numpy as np

from coffea_ad.kinematics import delta_phi
from coffea_ad.plotting.displays.contents import Content, EventObject, Missing, Particles
from coffea_ad.plotting.displays.labels import Labels
from coffea_ad.plotting.displays.marks import FLOW, JETS, LARGE, LEPTONS, MISSING, number, text_of
from coffea_ad.typing import Float64s

__all__ = ["draw_transverse", "flow"]

_RIM, _HEIGHT = 1.06, 0.24  # of the largest pT: where the flow begins, and how far it goes
_ALONE = 1.15  # of the largest pT: what is shown where there is no flow
_SECTORS = 72
_SHORT = 0.12  # of the largest pT: jets below it are drawn without their pT


def flow(particles: Particles) -> Float64s:
    """Return the sum of the pT of constituents in sectors of 5° from −π on, (72,), GeV."""
    sector = np.floor((delta_phi(particles.phi, 0.0) + np.pi) / (2 * np.pi / _SECTORS)).astype(np.int64)
    return np.asarray(np.bincount(sector % _SECTORS, particles.pt, _SECTORS), np.float64)


def draw_transverse(ax: Any, content: Content) -> None:
    """Draw jets as wedges as wide as their radius, leptons as lines, missing momentum as an arrow, all of length pT; around them, the flow."""
    missing = content.missing
    largest = max([*(o.pt for o in content.objects), missing.pt if missing else 0.0, 1.0])
    inside = (_RIM if len(content.particles) else _ALONE) * largest  # labels stay off the flow
    reach = inside + (_HEIGHT + 0.04) * largest if len(content.particles) else inside
    labels = Labels(ax, inside, inside, inches=6.0 * inside / reach)
    _draw_rings(ax, largest)
    if len(content.particles):
        _draw_flow(ax, flow(content.particles), largest)
    tips: list[EventObject | Missing] = [*content.of(*LEPTONS), *([missing] if missing else [])]
    for momentum in tips:
        labels.avoid(*_at(momentum.pt, momentum.phi), 0.04 * largest)
    if missing:
        look = {"arrowstyle": "-|>,head_length=0.9,head_width=0.45", "linestyle": (0, (4, 1.5)), "linewidth": MISSING.width + 0.4,
                "shrinkA": 0, "shrinkB": 0, "color": MISSING.color}  # fmt: skip
        ax.annotate("", _at(missing.pt, missing.phi), (0, 0), arrowprops=look, zorder=5)
        places = _near_tip(missing.pt, missing.phi, 0.25, largest)
        labels.put(f"MET {number(missing.pt)}", places, color=MISSING.color, size=14)
    for lepton in content.of(*LEPTONS):
        mark, (x, y) = LEPTONS[lepton.kind.collection], _at(lepton.pt, lepton.phi)
        ax.plot([0, x], [0, y], color=mark.color, linewidth=2.4, zorder=4)
        ax.plot(x, y, mark.marker, color=mark.color, **LARGE, zorder=5)
        labels.put(text_of(lepton), _near_tip(lepton.pt, lepton.phi, 0.25, largest), size=13)
    for jet in content.of("FatJet", "Jet"):
        _draw_wedge(ax, jet)
        if jet.pt < _SHORT * largest:
            continue
        places, mark = _near_tip(jet.pt, jet.phi, 0.7 * jet.kind.radius, largest), JETS[jet.kind.collection]
        labels.put(text_of(jet), places, color=mark.color, size=15 if jet.kind.collection == "FatJet" else 12)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="$p_x$ [GeV]", ylabel="$p_y$ [GeV]")


def _at(pt: float, phi: float) -> tuple[float, float]:
    return float(pt * np.cos(phi)), float(pt * np.sin(phi))


def _near_tip(pt: float, phi: float, aside: float, largest: float) -> list[tuple[float, float, float, float]]:
    """Return places before and behind the end of a momentum, also a little aside of its direction."""
    places = []
    for angle in (phi, phi + aside, phi - aside):
        across, along = np.cos(angle), np.sin(angle)
        outside, inside = _at(pt + 0.03 * largest, angle), _at(pt - 0.03 * largest, angle)
        pair = [(*outside, float(across), float(along)), (*inside, float(-across), float(-along))]
        places += pair if pt < 0.85 * largest else pair[::-1]
    return places


def _draw_wedge(ax: Any, jet: EventObject) -> None:
    from matplotlib.patches import Wedge

    mark, middle, half = JETS[jet.kind.collection], np.degrees(jet.phi), np.degrees(jet.kind.radius)
    large = jet.kind.collection == "FatJet"
    wedge = Wedge((0, 0), jet.pt, middle - half, middle + half, facecolor="0.93" if large else "none", edgecolor=mark.color,
                  linestyle=mark.line, linewidth=mark.width)  # fmt: skip
    ax.add_patch(wedge).set_zorder(1 if large else 3)


def _draw_flow(ax: Any, sums: Float64s, largest: float) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle, Wedge

    width, rim = 360 / _SECTORS, _RIM * largest
    heights = _HEIGHT * largest * sums / max(sums.max(), 1e-9)
    bars = [
        Wedge((0, 0), rim + height, -180 + k * width, -180 + (k + 1) * width, width=height)
        for k, height in enumerate(heights)
        if height > 0
    ]
    ax.add_collection(PatchCollection(bars, facecolor=FLOW.color, edgecolor="black", linewidth=0.3, zorder=1))
    ax.add_patch(Circle((0, 0), rim, fill=False, edgecolor="0.4", linewidth=1.0)).set_zorder(2)


def _draw_rings(ax: Any, largest: float) -> None:
    """Draw circles of equal pT."""
    from matplotlib.patches import Circle
    from matplotlib.ticker import MaxNLocator

    for pt in MaxNLocator(3).tick_values(0, largest):
        if 0 < pt <= largest:
            ax.add_patch(Circle((0, 0), pt, fill=False, edgecolor="0.8", linewidth=0.8)).set_zorder(0)
