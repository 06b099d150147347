"""N-subjettiness of one jet: axes from clustering, moved to a minimum by the one-pass rule of fastjet-contrib."""

from __future__ import annotations

import math

from coffea_ad.features.clustering import wrap
from coffea_ad.features.jit import subroutine
from coffea_ad.typing import Float64s, Ints

__all__ = ["subjettiness"]

_ACCURACY = 1e-4  # fastjet-contrib's one-pass minimisation: stop when the mean shift of the axes is below this,
_ATTEMPTS = 1000  # or after this many steps; the result is returned without comparing it to the seed


@subroutine
def _assign(
    n: int, n_axes: int, y: Float64s, phi: Float64s, axes: Float64s, owner: Ints, d2: Float64s, dphi: Float64s
) -> None:
    """Find the nearest axis of every particle: its number, ΔR² and φ_i − φ_axis."""
    for i in range(n):
        delta = wrap(phi[i] - axes[0, 1])
        dy = y[i] - axes[0, 0]
        owner[i], dphi[i], d2[i] = 0, delta, dy * dy + delta * delta
    for k in range(1, n_axes):
        axis_y, axis_phi = axes[k, 0], axes[k, 1]
        for i in range(n):
            delta = wrap(phi[i] - axis_phi)
            dy = y[i] - axis_y
            d = dy * dy + delta * delta
            nearer = d < d2[i]
            owner[i] = k if nearer else owner[i]
            dphi[i] = delta if nearer else dphi[i]
            d2[i] = d if nearer else d2[i]


@subroutine
def _means(
    n: int, n_axes: int, pt: Float64s, y: Float64s, phi: Float64s, axes: Float64s, beta: float, roots: bool,
    owner: Ints, d2: Float64s, dphi: Float64s, weight: Float64s, means: Float64s,
) -> None:  # fmt: skip
    """Fill means[k] = Σ w, Σ w (y − y_k), Σ w (φ − φ_k) over the particles of axis k; w = pT (ε² + ΔR²)^(β/2 − 1).

    Up to three axes with β = 1, which are asked for most, are done in a single pass.
    """
    # any number of axes and any power: assign first, then sum axis by axis
    if n_axes > 3 or beta != 1.0:
        _assign(n, n_axes, y, phi, axes, owner, d2, dphi)
        if beta == 1.0:
            for i in range(n):
                weight[i] = pt[i] / math.sqrt(_ACCURACY * _ACCURACY + d2[i])
        elif roots and beta == 0.5:
            for i in range(n):
                root = math.sqrt(_ACCURACY * _ACCURACY + d2[i])
                weight[i] = pt[i] / (root * math.sqrt(root))
        elif roots and beta == 2.0:
            for i in range(n):
                weight[i] = pt[i]
        else:
            for i in range(n):
                weight[i] = pt[i] * (_ACCURACY * _ACCURACY + d2[i]) ** (0.5 * beta - 1.0)
        for k in range(n_axes):
            total = sum_y = sum_phi = 0.0
            for i in range(n):
                w = weight[i] if owner[i] == k else 0.0
                total += w
                sum_y += w * (y[i] - axes[k, 0])
                sum_phi += w * dphi[i]
            means[k, 0], means[k, 1], means[k, 2] = total, sum_y, sum_phi
        return
    # axes and sums as scalars stay in registers, which arrays of three would not
    y0, phi0 = axes[0, 0], axes[0, 1]
    total0 = total1 = total2 = sum_y0 = sum_y1 = sum_y2 = sum_phi0 = sum_phi1 = sum_phi2 = 0.0
    if n_axes == 1:
        for i in range(n):
            dy, delta = y[i] - y0, wrap(phi[i] - phi0)
            w = pt[i] / math.sqrt(_ACCURACY * _ACCURACY + dy * dy + delta * delta)
            total0 += w
            sum_y0 += w * dy
            sum_phi0 += w * delta
    elif n_axes == 2:
        y1, phi1 = axes[1, 0], axes[1, 1]
        for i in range(n):
            dphi0, dphi1 = wrap(phi[i] - phi0), wrap(phi[i] - phi1)
            dy0, dy1 = y[i] - y0, y[i] - y1
            a, b = dy0 * dy0 + dphi0 * dphi0, dy1 * dy1 + dphi1 * dphi1
            w = pt[i] / math.sqrt(_ACCURACY * _ACCURACY + min(a, b))
            # a tie goes to the lower axis, as in `_assign`; masked sums have no branch
            w0 = w if a <= b else 0.0
            w1 = w - w0
            total0 += w0
            total1 += w1
            sum_y0 += w0 * dy0
            sum_y1 += w1 * dy1
            sum_phi0 += w0 * dphi0
            sum_phi1 += w1 * dphi1
    else:
        y1, phi1, y2, phi2 = axes[1, 0], axes[1, 1], axes[2, 0], axes[2, 1]
        for i in range(n):
            dphi0, dphi1, dphi2 = wrap(phi[i] - phi0), wrap(phi[i] - phi1), wrap(phi[i] - phi2)
            dy0, dy1, dy2 = y[i] - y0, y[i] - y1, y[i] - y2
            a, b, c = dy0 * dy0 + dphi0 * dphi0, dy1 * dy1 + dphi1 * dphi1, dy2 * dy2 + dphi2 * dphi2
            nearest = min(a, b, c)
            w = pt[i] / math.sqrt(_ACCURACY * _ACCURACY + nearest)
            w0 = w if a == nearest else 0.0
            w1 = w if (b == nearest) & (a != nearest) else 0.0
            w2 = w - w0 - w1
            total0 += w0
            total1 += w1
            total2 += w2
            sum_y0 += w0 * dy0
            sum_y1 += w1 * dy1
            sum_y2 += w2 * dy2
            sum_phi0 += w0 * dphi0
            sum_phi1 += w1 * dphi1
            sum_phi2 += w2 * dphi2
    means[0, 0], means[0, 1], means[0, 2] = total0, sum_y0, sum_phi0
    if n_axes > 1:
        means[1, 0], means[1, 1], means[1, 2] = total1, sum_y1, sum_phi1
    if n_axes > 2:
        means[2, 0], means[2, 1], means[2, 2] = total2, sum_y2, sum_phi2


@subroutine
def subjettiness(
    n: int,
    n_axes: int,
    pt: Float64s,
    y: Float64s,
    phi: Float64s,
    axes: Float64s,
    one_pass: bool,
    beta: float,
    r0: float,
    owner: Ints,
    d2: Float64s,
    dphi: Float64s,
    weight: Float64s,
    means: Float64s,
    roots: bool,
) -> float:
    """τ_N = Σ_i pT_i min_k ΔR_ik^β / (R0^β Σ_i pT_i); 0 with fewer than N particles. Moves `axes` if `one_pass`.

    roots : powers of β = ½ and 2 by square roots and products, several times as fast, equal within rounding.
    owner, d2, dphi, weight : work space of at least n; means : (N, 3).
    """
    if n < n_axes:
        return 0.0
    if one_pass:
        for _ in range(_ATTEMPTS):
            _means(n, n_axes, pt, y, phi, axes, beta, roots, owner, d2, dphi, weight, means)
            shift = 0.0
            for k in range(n_axes):
                if means[k, 0] > 0.0:
                    dy, move = means[k, 1] / means[k, 0], means[k, 2] / means[k, 0]
                    shift += math.sqrt(dy * dy + move * move)
                    axes[k, 0], axes[k, 1] = axes[k, 0] + dy, wrap(axes[k, 1] + move)
            if shift / n_axes <= _ACCURACY:
                break
    _assign(n, n_axes, y, phi, axes, owner, d2, dphi)
    tau = total = 0.0
    if beta == 1.0:
        for i in range(n):
            tau += pt[i] * math.sqrt(d2[i])
    elif roots and beta == 0.5:
        for i in range(n):
            tau += pt[i] * math.sqrt(math.sqrt(d2[i]))
    elif roots and beta == 2.0:
        for i in range(n):
            tau += pt[i] * d2[i]
    else:
        for i in range(n):
            tau += pt[i] * d2[i] ** (0.5 * beta)
    for i in range(n):
        total += pt[i]
    return float(tau / (total * r0**beta))
