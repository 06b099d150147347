"""Twin of the energy flow polynomials: every assignment of constituents to vertices is one term. Imported by tests only."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np

from coffea_ad.features.naive.substructure import Particle

__all__ = ["efp", "efp_of_many"]


def _theta(p: Particle, q: Particle) -> float:
    dphi = math.remainder(p.phi - q.phi, 2 * math.pi)
    return math.hypot(p.y - q.y, dphi)


def _weights(particles: Sequence[Particle], beta: float) -> tuple[list[float], list[list[float]]]:
    total_pt = math.fsum(p.pt for p in particles)
    return [p.pt / total_pt for p in particles], [[_theta(p, q) ** beta for q in particles] for p in particles]


def efp(graph: Iterable[Sequence[int]], particles: Sequence[Particle], beta: float = 1.0) -> float:
    """Compute Σ_{i1 … iV} Π_v z_iv Π_edges θ^β of one jet, for any multigraph.

    Parameters
    ----------
    graph : iterable of pairs of vertices
        Vertices 0 … V−1.
    particles : sequence of Particle
    beta : float

    Returns
    -------
    float
    """
    edges = [tuple(edge) for edge in graph]
    vertices = 1 + max(v for edge in edges for v in edge)
    z, theta = _weights(particles, beta)
    terms = (
        math.prod(z[i] for i in place) * math.prod(theta[place[a]][place[b]] for a, b in edges)
        for place in itertools.product(range(len(particles)), repeat=vertices)
    )
    return math.fsum(terms)


def efp_of_many(graph: Iterable[Sequence[int]], particles: Sequence[Particle], beta: float = 1.0) -> float:
    """Compute the same as a sum of tensors by numpy, for jets whose N^V terms are too many."""
    edges = [tuple(edge) for edge in graph]
    vertices = 1 + max(v for edge in edges for v in edge)
    z, theta = (np.array(a) for a in _weights(particles, beta))
    operands: list[object] = [x for v in range(vertices) for x in (z, [v])]
    operands += [x for edge in edges for x in (theta, list(edge))]
    return float(np.einsum(*operands, [], optimize="greedy"))  # type: ignore[call-overload]
