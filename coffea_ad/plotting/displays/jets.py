"""The leading jets of an event with their constituents, subjets and primary Lund plane, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np

from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.features.grooming import lund_plane
from coffea_ad.features.protojets import protojets
from coffea_ad.nanoaod.columns import flat_columns
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.plotting.displays.contents import Content, EventObject, Particles, particles_of, readable
from coffea_ad.typing import Float64s, Ints

__all__ = ["JetContent", "Subjet", "jets_of"]


@dataclass(frozen=True)
class Subjet:
    """A part of a jet; GeV and radians."""

    pt: float
    eta: float
    phi: float
    mass: float


@dataclass(frozen=True)
class JetContent:
    """One jet.

    Attributes
    ----------
    jet : EventObject
    rank : int
        1 for the jet of highest pT.
    numbers : {name: float}
        `msoftdrop`, where it is known.
    particles : Particles or None
        None: the file has no constituents of these jets.
    label : (n_particles,) int64
        The subjet of each, in `subjets`.
    subjets : tuple of Subjet
        By falling pT: exclusive kT jets of the constituents, or the stored ones of the file.
    clustered : bool
        Which of the two.
    splittings : (n, 3) float64
        ln(1/Δ), ln(kT / GeV), z of the primary Lund plane, first the widest.
    """

    jet: EventObject
    rank: int
    numbers: Mapping[str, float]
    particles: Particles | None
    label: Ints
    subjets: tuple[Subjet, ...]
    clustered: bool
    splittings: Float64s


def jets_of(events: Any, content: Content, *, number: int = 2, subjets: int = 3) -> list[JetContent]:
    """Read the leading jets of an event: AK8 jets, or AK4 jets where there are none.

    Parameters
    ----------
    events : (1,) NanoEvents
    content : Content
        Of this event.
    number : int
        Jets at most.
    subjets : int
        So many exclusive kT subjets of each, d_ij = min(pT_i², pT_j²) ΔR_ij².

    Raises
    ------
    ConfigError
        The event has no jets.
    BadFile
        A branch cannot be read.

    Examples
    --------
    >>> from coffea_ad.event_lists.opened import Place, open_event
    >>> from coffea_ad.plotting.displays.contents import content_of
    >>> event = open_event(Place(str(svj_file), 7))
    >>> (jet,) = jets_of(event, content_of(event))
    >>> [round(part.pt) for part in jet.subjets]
    [227, 149, 80]
    """
    jets = content.of("FatJet")[:number] or content.of("Jet")[:number]
    if not jets:
        raise ConfigError(f"{content.file}: entry {content.entry} has no jets")
    collection = jets[0].kind.collection
    with readable(events):
        try:
            constituents = Objects.of(events, collection).constituents
        except MissingBranch:
            return [_without_constituents(events, jet, rank) for rank, jet in enumerate(jets, 1)]
        return [
            _with_constituents(
                jet, rank, _numbers(events, jet),
                particles_of(constituents, slice(*constituents.offsets[jet.index : jet.index + 2])), subjets,
            )
            for rank, jet in enumerate(jets, 1)
        ]  # fmt: skip


def _with_constituents(
    jet: EventObject, rank: int, numbers: Mapping[str, float], particles: Particles, subjets: int
) -> JetContent:
    offsets = np.array([0, len(particles)])
    momenta = (particles.pt, particles.eta, particles.phi, particles.mass)
    label = protojets(offsets, *momenta[:3], np.array([subjets]))
    parts = [_sum(particles[label == k]) for k in range(label.max(initial=-1) + 1)]
    order = np.argsort([-part.pt for part in parts], kind="stable").astype(np.int64)
    _, plane = lund_plane(offsets, *momenta)
    return JetContent(
        jet, rank, numbers, particles, np.argsort(order)[label], tuple(parts[k] for k in order), True, plane
    )


def _sum(particles: Particles) -> Subjet:
    """Add four-vectors."""
    pt, eta, phi, mass = particles.pt, particles.eta, particles.phi, particles.mass
    px, py, pz = (np.sum(pt * part) for part in (np.cos(phi), np.sin(phi), np.sinh(eta)))
    energy = np.sum(np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2))
    total = np.hypot(px, py)
    mass2 = energy**2 - total**2 - pz**2
    return Subjet(float(total), float(np.arcsinh(pz / total)), float(np.arctan2(py, px)), float(np.sqrt(max(mass2, 0))))


def _numbers(events: Any, jet: EventObject) -> dict[str, float]:
    """Return what else is known of a jet and worth being shown."""
    collection = jet.kind.collection
    if "msoftdrop" not in events.layout[collection].fields:
        return {}
    groomed = float(flat_columns(events, collection, ["msoftdrop"])[1]["msoftdrop"][jet.index])
    return {"msoftdrop": groomed} if groomed >= 0 else {}  # −1: the jet has no subjets


def _without_constituents(events: Any, jet: EventObject, rank: int) -> JetContent:
    """Return a jet with the subjets that the file has of it."""
    indices = ("subJetIdx1", "subJetIdx2")
    collection, parts = jet.kind.collection, []
    have = events.layout[collection].fields
    if "SubJet" in ak.fields(events) and set(indices) <= set(have):
        _, columns = flat_columns(events, "SubJet", ("pt", "eta", "phi", "mass"))
        places = [int(column[jet.index]) for column in flat_columns(events, collection, indices)[1].values()]
        parts = [Subjet(*(float(c[i]) for c in columns.values())) for i in places if 0 <= i < len(columns["pt"])]
    parts.sort(key=lambda part: -part.pt)
    return JetContent(
        jet, rank, _numbers(events, jet), None, np.zeros(0, np.int64), tuple(parts), False, np.zeros((0, 3))
    )
