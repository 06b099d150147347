"""How kinds of objects and constituents look: a colour and a marker each, so that they differ in grey as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coffea_ad.nanoaod.columns import event_text
from coffea_ad.plotting.displays.contents import Content, EventObject, Particles
from coffea_ad.typing import Float64s

__all__ = [
    "FLOW",
    "JETS",
    "LARGE",
    "LEPTONS",
    "MISSING",
    "PARTICLES",
    "SYMBOLS",
    "Mark",
    "area",
    "draw_particles",
    "number",
    "text_of",
    "title",
]


@dataclass(frozen=True)
class Mark:
    """Colour (matplotlib's petroff10, which colour-blind readers tell apart), marker and line."""

    color: str
    marker: str = ""
    line: Any = "-"
    width: float = 1.8


PARTICLES = {
    "charged hadrons": Mark("#3f90da", "o"), "neutral hadrons": Mark("#94a4a2", "s"), "photons": Mark("#ffa90e", "^"),
    "electrons": Mark("#bd1f01", "P"), "muons": Mark("#832db6", "X"), "charged": Mark("#3f90da", "o"),
    "neutral": Mark("#94a4a2", "s"), "constituents": Mark("#3f90da", "o"),
}  # fmt: skip
"""Of constituents, in the order of the legend."""
LEPTONS = {
    "Electron": Mark("#bd1f01", "P"), "Muon": Mark("#832db6", "X"), "Tau": Mark("#a96b59", "D"), "Photon": Mark("#ffa90e", "^"),
}  # fmt: skip
LARGE: dict[str, Any] = {"markersize": 14, "markeredgecolor": "black", "markeredgewidth": 1.2}
"""Of the markers of leptons and photons, which are larger than those of constituents."""
JETS = {"FatJet": Mark("black", line="-", width=2.2), "Jet": Mark("#717581", line=(0, (4, 2)))}
MISSING = Mark("#e76300", line=(0, (7, 3)), width=2.2)
FLOW = Mark("#3f90da")
SYMBOLS = {"FatJet": "J", "Jet": "j", "Electron": "e", "Muon": "μ", "Tau": "τ", "Photon": "γ"}
_LARGEST, _SMALLEST = 320.0, 9.0  # areas in points²


def area(pt: Float64s, largest: float) -> Float64s:
    """Return marker areas in proportion to pT; the softest stay visible."""
    return np.maximum(_LARGEST * pt / max(largest, 1e-9), _SMALLEST)


def draw_particles(ax: Any, x: Float64s, y: Float64s, particles: Particles, largest: float) -> None:
    """Draw constituents at some places, the hardest first, so that the soft ones lie over them."""
    order = np.argsort(-particles.pt)
    for kind, mark in PARTICLES.items():
        rows = order[particles.kind[order] == kind]
        if len(rows):
            ax.scatter(
                x[rows], y[rows], s=area(particles.pt[rows], largest), color=mark.color, marker=mark.marker, label=kind, alpha=0.75,
                edgecolors="black", linewidths=0.3, zorder=2,
            )  # fmt: skip


def number(pt: float) -> str:
    """Return a pT as it is written into a figure.

    >>> number(412.345), number(7.25)
    ('412', '7.2')
    """
    return f"{pt:.0f}" if pt >= 10 else f"{pt:.1f}"


def text_of(thing: EventObject) -> str:
    """Return what stands beside an object: its symbol and pT."""
    return f"{SYMBOLS[thing.kind.collection]} {number(thing.pt)}"


def title(content: Content, scores: dict[str, float], more: Sequence[str] = ()) -> str:
    """Return which event this is: dataset and ids, then scores, then what else has to be said."""
    ids = event_text(content.event)
    numbers = [f"{score} = {value:.4g}" for score, value in scores.items()]
    lines = [f"{content.name}   {ids}", "   ".join(numbers), "; ".join(more)]
    return "\n".join(line for line in lines if line)
