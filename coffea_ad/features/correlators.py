"""Energy correlation functions of one jet: pairs, triples and quadruples of constituents.

_v e_n = Σ_{i1<…<in} z_i1 … z_in × the product of the v smallest of their pairwise angles θ^β; e_n has all of them.
"""

from __future__ import annotations

import math

from coffea_ad.features.clustering import distance2
from coffea_ad.features.jit import subroutine
from coffea_ad.features.simd import FORMS, LANES, lower_forms
from coffea_ad.typing import Float64s

__all__ = ["PAD", "e3", "pairs", "quadruples", "triples"]

PAD = FORMS + LANES
"""`angle` and `z` reach this much beyond the particles of a jet, and are 0 there."""


@subroutine
def pairs(n: int, z: Float64s, y: Float64s, phi: Float64s, beta: float, angle: Float64s) -> tuple[float, float]:
    """EFP1 = Σ z_i z_j θ_ij over ordered pairs, and e2 = Σ_{i<j} z_i z_j θ_ij^β.

    angle : (≥ n + PAD, ≥ n + PAD) takes θ_ij^β for j < i, and 0 elsewhere near the diagonal.
    """
    efp1 = e2 = 0.0
    for i in range(n):
        row, yi, phii, total = angle[i], y[i], phi[i], 0.0
        for j in range(i):
            row[j] = math.sqrt(distance2(yi, phii, y[j], phi[j]))
            total += z[j] * row[j]
        efp1 += z[i] * total
        if beta == 0.5:
            total = 0.0
            for j in range(i):
                row[j] = math.sqrt(row[j])
                total += z[j] * row[j]
        elif beta != 1.0:
            total = 0.0
            for j in range(i):
                row[j] = row[j] ** beta
                total += z[j] * row[j]
        e2 += z[i] * total
        row[i : i + PAD] = 0.0
    angle[n : n + FORMS, : n + PAD] = 0.0
    z[n : n + FORMS] = 0.0
    return 2.0 * efp1, e2


@subroutine
def e3(n: int, z: Float64s, angle: Float64s, vectors: Float64s) -> float:
    """e3 = Σ_{i>j>k} z_i z_j z_k (θ_ij θ_ik θ_jk)^β, as z_i uᵀ L u with u_k = z_k θ_ik^β and L the lower triangle of θ^β.

    vectors : (FORMS, ≥ n + PAD), work space; as many i are done at once.
    """
    total = 0.0
    for i in range(0, n, FORMS):
        for b in range(FORMS):
            row, u, root = angle[i + b], vectors[b], math.sqrt(z[i + b])
            for k in range(i + b):
                u[k] = root * z[k] * row[k]
            u[i + b : i + PAD] = 0.0
        total += lower_forms(angle, vectors, i + FORMS - 1)
    return total


@subroutine
def triples(n: int, z: Float64s, angle: Float64s) -> tuple[float, float]:
    """₁e3 and ₂e3."""
    one = two = 0.0
    for i in range(n):
        for j in range(i):
            a = angle[i, j]
            inner_one = inner_two = 0.0
            for k in range(j):
                b, c = angle[i, k], angle[j, k]
                inner_one += z[k] * min(a, b, c)
                inner_two += z[k] * min(a * min(b, c), b * c)
            one += z[i] * z[j] * inner_one
            two += z[i] * z[j] * inner_two
    return one, two


@subroutine
def quadruples(n: int, z: Float64s, angle: Float64s) -> float:
    """₂e4: the product of the two smallest of six angles."""
    out = 0.0
    for i in range(n):
        for j in range(i):
            a = angle[i, j]
            for k in range(j):
                b, c = angle[i, k], angle[j, k]
                low = min(a, b, c)
                high = max(min(a, b), min(max(a, b), c))  # the second smallest of three
                inner = 0.0
                for m in range(k):
                    d, e, f = angle[i, m], angle[j, m], angle[k, m]
                    low2 = min(d, e, f)
                    high2 = max(min(d, e), min(max(d, e), f))
                    second = min(max(low, low2), high, high2)
                    inner += z[m] * min(low, low2) * second
                out += z[i] * z[j] * z[k] * inner
    return out
