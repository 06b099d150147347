"""Sums over one jet's constituents: axes, pT dispersion, angularities, charge. All are O(n)."""

from __future__ import annotations

import math

from coffea_ad.features.clustering import wrap
from coffea_ad.features.jit import subroutine
from coffea_ad.typing import Float64s

__all__ = ["angularities", "angularity", "charge_sum", "ellipse"]


@subroutine
def ellipse(
    n: int, pt: Float64s, eta: Float64s, phi: Float64s, eta0: float, phi0: float, central: bool
) -> tuple[float, float]:
    """σ1, σ2: roots of the eigenvalues of the pT²-weighted second moments in η and φ.

    About (η0, φ0), or about the centroid if `central`; (η0, φ0) is then only where differences are counted from.
    """
    w = mean_eta = mean_phi = 0.0
    for i in range(n):
        weight = pt[i] * pt[i]
        w += weight
        mean_eta += weight * (eta[i] - eta0)
        mean_phi += weight * wrap(phi[i] - phi0)
    if central:
        mean_eta /= w
        mean_phi /= w
    else:
        mean_eta = mean_phi = 0.0
    a = b = c = 0.0
    for i in range(n):
        weight = pt[i] * pt[i]
        deta = eta[i] - eta0 - mean_eta
        dphi = wrap(phi[i] - phi0) - mean_phi
        a += weight * deta * deta
        b += weight * dphi * dphi
        c += weight * deta * dphi
    a, b, c = a / w, b / w, c / w
    delta = math.sqrt((a - b) * (a - b) + 4.0 * c * c)
    return math.sqrt(0.5 * (a + b + delta)), math.sqrt(max(0.0, 0.5 * (a + b - delta)))


@subroutine
def angularities(n: int, pt: Float64s, total: float, radius: Float64s, r0: float) -> tuple[float, float, float]:
    """λ^1_β = Σ_i z_i (ΔR_i / R0)^β for β = ½, 1 and 2; `radius` holds the ΔR_i to the axis."""
    half = one = two = 0.0
    for i in range(n):
        z, x = pt[i] / total, radius[i] / r0
        half += z * math.sqrt(x)
        one += z * x
        two += z * x * x
    return half, one, two


@subroutine
def angularity(n: int, pt: Float64s, total: float, radius: Float64s, r0: float, kappa: float, beta: float) -> float:
    """λ^κ_β = Σ_i z_i^κ (ΔR_i / R0)^β, with 0⁰ = 1."""
    out = 0.0
    for i in range(n):
        out += (pt[i] / total) ** kappa * (radius[i] / r0) ** beta
    return out


@subroutine
def charge_sum(n: int, q: Float64s, pt: Float64s, jet_pt: float, kappa: float) -> float:
    """Q_κ = Σ_i q_i (pT_i / pT_jet)^κ."""
    out = 0.0
    for i in range(n):
        if q[i] != 0.0:
            out += q[i] * (pt[i] / jet_pt) ** kappa
    return out
