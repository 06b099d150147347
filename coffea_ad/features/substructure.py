"""Jet substructure from constituents: numba kernels over flat content and offsets.

Every kernel walks the jets once and allocates only for the jet at hand: nothing is padded, nothing is per jet in Python.
`coffea_ad.features.naive` holds a slow, obvious twin of each; tests compare them with each other and with fastjet-contrib.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["SUBSTRUCTURE_COLUMNS", "softdrop", "substructure"]

SUBSTRUCTURE_COLUMNS = ("sigma1", "sigma2", "efp1", "c2", "ptd", "msoftdrop", "tau2", "tau3")

_ACCURACY = 1e-4  # fastjet-contrib's one-pass minimisation: stop when the mean shift of the axes is below this,
_ATTEMPTS = 1000  # or after this many steps; the result is returned without comparing it to the seed
_MAX_AXES = 4
_TWO_PI = 2.0 * math.pi

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def _wrap(dphi: float) -> float:
    """Bring an angle difference into (-π, π]."""
    while dphi > math.pi:
        dphi -= _TWO_PI
    while dphi <= -math.pi:
        dphi += _TWO_PI
    return dphi


@njit(cache=True, nogil=True)
def _rapidity(px: float, py: float, pz: float, e: float) -> float:
    """Rapidity from a four-vector, written so that E − |pz| never cancels."""
    pt2 = px * px + py * py
    m2 = max(0.0, (e + pz) * (e - pz) - pt2)
    up = e + abs(pz)
    y = 0.5 * math.log((pt2 + m2) / (up * up)) if pt2 + m2 > 0.0 and up > 0.0 else -1e5
    return -y if pz > 0.0 else y


@njit(cache=True, nogil=True)
def _moments(pt: Floats, eta: Floats, phi: Floats) -> tuple[float, float, float]:
    """σ1, σ2 from pT²-weighted central moments in η and φ, and pTD."""
    w = sum_pt = mean_eta = mean_phi = 0.0
    for i in range(len(pt)):
        w += pt[i] * pt[i]
        sum_pt += pt[i]
        mean_eta += pt[i] * pt[i] * eta[i]
        mean_phi += pt[i] * pt[i] * _wrap(phi[i] - phi[0])
    mean_eta /= w
    mean_phi /= w
    a = b = c = 0.0
    for i in range(len(pt)):
        weight = pt[i] * pt[i] / w
        deta = eta[i] - mean_eta
        dphi = _wrap(phi[i] - phi[0]) - mean_phi
        a += weight * deta * deta
        b += weight * dphi * dphi
        c += weight * deta * dphi
    delta = math.sqrt((a - b) * (a - b) + 4.0 * c * c)
    return math.sqrt(0.5 * (a + b + delta)), math.sqrt(max(0.0, 0.5 * (a + b - delta))), math.sqrt(w) / sum_pt


@njit(cache=True, nogil=True)
def _correlators(pt: Floats, y: Floats, phi: Floats, beta: float) -> tuple[float, float]:
    """EFP1 = Σ_ij z_i z_j θ_ij over ordered pairs, and C2(β) = e3/e2² (0 if e2 = 0)."""
    n = len(pt)
    total = pt.sum()
    angle = np.empty((n, n))
    efp1 = e2 = e3 = 0.0
    for i in range(n):
        for j in range(i):
            dphi = _wrap(phi[i] - phi[j])
            theta = math.sqrt((y[i] - y[j]) ** 2 + dphi * dphi)
            power = theta**beta
            angle[i, j] = power
            zz = pt[i] * pt[j] / (total * total)
            efp1 += 2.0 * zz * theta
            e2 += zz * power
    for i in range(n):
        for j in range(i):
            pair = pt[i] * pt[j] * angle[i, j]
            inner = 0.0
            for k in range(j):
                inner += pt[k] * angle[i, k] * angle[j, k]
            e3 += pair * inner
    e3 /= total**3
    return efp1, (e3 / (e2 * e2) if e2 > 0.0 else 0.0)


@njit(cache=True, nogil=True)
def _distance(y: Floats, phi: Floats, i: int, j: int) -> float:
    dphi = abs(phi[i] - phi[j])
    if dphi > math.pi:
        dphi = _TWO_PI - dphi
    dy = y[i] - y[j]
    return float(dy * dy + dphi * dphi)


@njit(cache=True, nogil=True)
def _nearest(y: Floats, phi: Floats, m: int, i: int) -> tuple[int, float]:
    best, nearest = np.inf, -1
    for j in range(m):
        if j != i:
            d = _distance(y, phi, i, j)
            if d < best:
                best, nearest = d, j
    return nearest, best


@njit(cache=True, nogil=True)
def _cluster(p4: Floats, n: int, kt: bool, children: Ints, axes: Floats) -> None:
    """Recombine all particles of a jet into one, E-scheme, without a beam distance.

    d_ij = min(pT_i², pT_j²) ΔR_ij² for kT, ΔR_ij² for Cambridge/Aachen. A smallest d_ij is always found at a
    nearest neighbour in ΔR (M. Cacciari, G. Salam, hep-ph/0512210), so one neighbour per particle is enough.

    p4 : (2n, 4) holds px, py, pz, E of the n particles; rows n … 2n−2 are filled with the merged ones.
    children : (2n, 2), the two rows that were merged into each row ≥ n.
    axes : (4, 4, 2), [N−1, k] = (y, φ) of the k-th of the N last protojets.
    """
    node = np.empty(n, np.int64)
    y = np.empty(n)
    phi = np.empty(n)
    pt2 = np.empty(n)
    near = np.empty(n, np.int64)
    dist = np.empty(n)
    for i in range(n):
        node[i] = i
        y[i] = _rapidity(p4[i, 0], p4[i, 1], p4[i, 2], p4[i, 3])
        phi[i] = math.atan2(p4[i, 1], p4[i, 0])
        pt2[i] = p4[i, 0] ** 2 + p4[i, 1] ** 2
    for i in range(n):
        near[i], dist[i] = _nearest(y, phi, n, i)
    m = n
    while True:
        if m <= _MAX_AXES:
            for k in range(m):
                axes[m - 1, k, 0], axes[m - 1, k, 1] = y[k], phi[k]
        if m == 1:
            return
        best, a = np.inf, 0
        for i in range(m):
            d = dist[i] * pt2[i] if kt else dist[i]
            if d < best:
                best, a = d, i
        b = near[a]
        new = 2 * n - m
        children[new, 0], children[new, 1] = node[a], node[b]
        for c in range(4):
            p4[new, c] = p4[node[a], c] + p4[node[b], c]
        low, high, last = min(a, b), max(a, b), m - 1
        node[high], y[high], phi[high], pt2[high] = node[last], y[last], phi[last], pt2[last]
        near[high], dist[high] = near[last], dist[last]
        node[low] = new
        y[low] = _rapidity(p4[new, 0], p4[new, 1], p4[new, 2], p4[new, 3])
        phi[low] = math.atan2(p4[new, 1], p4[new, 0])
        pt2[low] = p4[new, 0] ** 2 + p4[new, 1] ** 2
        m -= 1
        for i in range(m):
            if i == low:
                continue
            if near[i] == a or near[i] == b:
                near[i], dist[i] = _nearest(y, phi, m, i)
                continue
            if near[i] == last:
                near[i] = high
            d = _distance(y, phi, i, low)
            if d < dist[i]:
                near[i], dist[i] = low, d
        near[low], dist[low] = _nearest(y, phi, m, low)


@njit(cache=True, nogil=True)
def _closest(axes: Floats, n_axes: int, y: float, phi: float) -> tuple[int, float, float]:
    best, chosen, best_dphi = np.inf, 0, 0.0
    for k in range(n_axes):
        dphi = _wrap(phi - axes[k, 1])
        d = (y - axes[k, 0]) ** 2 + dphi * dphi
        if d < best:
            best, chosen, best_dphi = d, k, dphi
    return chosen, best, best_dphi


@njit(cache=True, nogil=True)
def _one_pass(axes: Floats, n_axes: int, pt: Floats, y: Floats, phi: Floats) -> None:
    """Move the axes to a minimum of τ_N (β = 1), by the iteration of fastjet-contrib's OnePass axes."""
    moved = np.empty((n_axes, 3))
    for _ in range(_ATTEMPTS):
        moved[:] = 0.0
        for i in range(len(pt)):
            k, d2, dphi = _closest(axes, n_axes, y[i], phi[i])
            weight = pt[i] / math.sqrt(_ACCURACY * _ACCURACY + d2)
            moved[k, 0] += weight * y[i]
            moved[k, 1] += weight * (axes[k, 1] + dphi)
            moved[k, 2] += weight
        shift = 0.0
        for k in range(n_axes):
            if moved[k, 2] == 0.0:
                continue
            new_y, new_phi = moved[k, 0] / moved[k, 2], moved[k, 1] / moved[k, 2]
            shift += math.sqrt((new_y - axes[k, 0]) ** 2 + _wrap(new_phi - axes[k, 1]) ** 2)
            axes[k, 0], axes[k, 1] = new_y, _wrap(new_phi)
        if shift / n_axes <= _ACCURACY:
            return


@njit(cache=True, nogil=True)
def _subjettiness(axes: Floats, n_axes: int, pt: Floats, y: Floats, phi: Floats, r0: float) -> float:
    """τ_N = Σ_i pT_i min_k ΔR_ik / (R0 Σ_i pT_i) with OnePass_KT axes, β = 1; 0 with fewer than N particles."""
    if len(pt) < n_axes:
        return 0.0
    _one_pass(axes, n_axes, pt, y, phi)
    tau = total = 0.0
    for i in range(len(pt)):
        _, d2, _ = _closest(axes, n_axes, y[i], phi[i])
        tau += pt[i] * math.sqrt(d2)
        total += pt[i]
    return tau / (total * r0)


@njit(cache=True, nogil=True)
def _groom(p4: Floats, n: int, children: Ints, z_cut: float, beta: float, r0: float) -> int:
    """Walk back through a C/A history and return the row where soft drop stops."""
    row = 2 * n - 2
    while row >= n:
        a, b = children[row, 0], children[row, 1]
        pt_a, pt_b = math.hypot(p4[a, 0], p4[a, 1]), math.hypot(p4[b, 0], p4[b, 1])
        cut = z_cut
        if beta != 0.0:
            dy = _rapidity(p4[a, 0], p4[a, 1], p4[a, 2], p4[a, 3]) - _rapidity(p4[b, 0], p4[b, 1], p4[b, 2], p4[b, 3])
            dphi = _wrap(math.atan2(p4[a, 1], p4[a, 0]) - math.atan2(p4[b, 1], p4[b, 0]))
            cut *= (math.sqrt(dy * dy + dphi * dphi) / r0) ** beta
        if min(pt_a, pt_b) > cut * (pt_a + pt_b):
            return row
        row = a if pt_a > pt_b else b
    return row


@njit(cache=True, nogil=True)
def _mass(p4: Floats, row: int) -> float:
    px, py, pz, e = p4[row, 0], p4[row, 1], p4[row, 2], p4[row, 3]
    return math.sqrt(max(0.0, (e + pz) * (e - pz) - px * px - py * py))


@njit(cache=True, nogil=True)
def _load(
    start: int, stop: int, pt: Floats, eta: Floats, phi: Floats, mass: Floats
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Copy one jet's constituents with pT > 0 (PUPPI leaves zeros) and build their four-vectors."""
    n = 0
    for i in range(start, stop):
        n += pt[i] > 0.0
    jpt, jeta, jy, jphi = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    p4 = np.empty((2 * n, 4))
    k = 0
    for i in range(start, stop):
        if pt[i] > 0.0:
            jpt[k], jeta[k], jphi[k] = pt[i], eta[i], _wrap(phi[i])
            px, py, pz = pt[i] * math.cos(phi[i]), pt[i] * math.sin(phi[i]), pt[i] * math.sinh(eta[i])
            m = max(0.0, mass[i])
            p4[k, 0], p4[k, 1], p4[k, 2] = px, py, pz
            p4[k, 3] = math.sqrt(px * px + py * py + pz * pz + m * m)
            jy[k] = math.asinh(pz / math.sqrt(pt[i] * pt[i] + m * m))
            k += 1
    return jpt, jeta, jy, jphi, p4


@njit(cache=True, nogil=True)
def substructure(
    offsets: Ints,
    pt: Floats,
    eta: Floats,
    phi: Floats,
    mass: Floats,
    ecf_beta: float,
    r0: float,
    z_cut: float,
    softdrop_beta: float,
) -> Floats:
    """Compute the eight inputs of the semivisible-jet search, and τ1 and τ4, for many jets.

    z_i = pT_i / Σ pT of the constituents; angles in (y, φ), except σ1 and σ2, which use (η, φ).

    Parameters
    ----------
    offsets : (n_jets + 1,) int64
        Jet j owns the constituents offsets[j] … offsets[j+1].
    pt, eta, phi, mass : (n_constituents,) float64, GeV and radians
        PUPPI-weighted four-vectors.
    ecf_beta, r0, z_cut, softdrop_beta : float
        Angular power of C2, jet radius in τ_N and soft drop, soft-drop parameters.

    Returns
    -------
    (n_jets, 10) float64
        `SUBSTRUCTURE_COLUMNS`, then τ1 and τ4; NaN for a jet without constituents.

    References
    ----------
    J. Thaler, K. Van Tilburg, "Identifying boosted objects with N-subjettiness", arXiv:1011.2268;
    A. Larkoski, G. Salam, J. Thaler, "Energy correlation functions for jet substructure", arXiv:1305.0007;
    P. Komiske, E. Metodiev, J. Thaler, "Energy flow polynomials", arXiv:1712.07124;
    A. Larkoski et al., "Soft drop", arXiv:1402.2657.
    """
    n_jets = len(offsets) - 1
    out = np.full((n_jets, 10), np.nan)
    axes = np.empty((_MAX_AXES, _MAX_AXES, 2))
    for j in range(n_jets):
        jpt, jeta, jy, jphi, p4 = _load(offsets[j], offsets[j + 1], pt, eta, phi, mass)
        n = len(jpt)
        if n == 0:
            continue
        out[j, 0], out[j, 1], out[j, 4] = _moments(jpt, jeta, jphi)
        out[j, 2], out[j, 3] = _correlators(jpt, jy, jphi, ecf_beta)
        children = np.empty((2 * n, 2), np.int64)
        _cluster(p4, n, False, children, axes)
        out[j, 5] = _mass(p4, _groom(p4, n, children, z_cut, softdrop_beta, r0))
        _cluster(p4, n, True, children, axes)
        out[j, 8] = _subjettiness(axes[0], 1, jpt, jy, jphi, r0)
        out[j, 6] = _subjettiness(axes[1], 2, jpt, jy, jphi, r0)
        out[j, 7] = _subjettiness(axes[2], 3, jpt, jy, jphi, r0)
        out[j, 9] = _subjettiness(axes[3], 4, jpt, jy, jphi, r0)
    return out


@njit(cache=True, nogil=True)
def softdrop(
    offsets: Ints, pt: Floats, eta: Floats, phi: Floats, mass: Floats, z_cut: float, beta: float, r0: float
) -> Floats:
    """Groom many jets with soft drop and return each one's two subjets, the harder first.

    Parameters
    ----------
    offsets, pt, eta, phi, mass
        As in `substructure`.
    z_cut, beta, r0 : float
        Keep a splitting if min(pT1, pT2) / (pT1 + pT2) > z_cut (ΔR12 / R0)^β.

    Returns
    -------
    (n_jets, 2, 4) float64, GeV
        px, py, pz, E of the subjets. A jet groomed to one particle has that particle and a zero vector.
    """
    n_jets = len(offsets) - 1
    out = np.zeros((n_jets, 2, 4))
    axes = np.empty((_MAX_AXES, _MAX_AXES, 2))
    for j in range(n_jets):
        jpt, _, _, _, p4 = _load(offsets[j], offsets[j + 1], pt, eta, phi, mass)
        n = len(jpt)
        if n == 0:
            continue
        children = np.empty((2 * n, 2), np.int64)
        _cluster(p4, n, False, children, axes)
        row = _groom(p4, n, children, z_cut, beta, r0)
        if row < n:
            out[j, 0] = p4[row]
            continue
        a, b = children[row, 0], children[row, 1]
        if p4[a, 0] ** 2 + p4[a, 1] ** 2 < p4[b, 0] ** 2 + p4[b, 1] ** 2:
            a, b = b, a
        out[j, 0], out[j, 1] = p4[a], p4[b]
    return out
