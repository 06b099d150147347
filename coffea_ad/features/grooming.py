"""The Cambridge/Aachen tree of one jet, walked down its harder branch: soft drop and the primary Lund plane."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from coffea_ad.features.clustering import cluster, distance2, largest, load, neighbours, rapidity
from coffea_ad.features.jit import contiguous, kernel, subroutine
from coffea_ad.typing import Float64s, Ints

__all__ = ["branches", "cylindrical", "groom", "lund_plane", "opening", "soft_drop", "subjets"]


@subroutine
def branches(p4: Float64s, children: Ints, row: int) -> tuple[int, int, float, float]:
    """Return the harder and the softer branch of a splitting and their pT."""
    a, b = children[row, 0], children[row, 1]
    pt_a, pt_b = math.sqrt(p4[a, 0] ** 2 + p4[a, 1] ** 2), math.sqrt(p4[b, 0] ** 2 + p4[b, 1] ** 2)
    return (b, a, pt_b, pt_a) if pt_a < pt_b else (a, b, pt_a, pt_b)


@subroutine
def opening(p4: Float64s, a: int, b: int) -> float:
    """Δ of two rows in (y, φ)."""
    y_a, y_b = rapidity(p4[a, 0], p4[a, 1], p4[a, 2], p4[a, 3]), rapidity(p4[b, 0], p4[b, 1], p4[b, 2], p4[b, 3])
    return math.sqrt(distance2(y_a, math.atan2(p4[a, 1], p4[a, 0]), y_b, math.atan2(p4[b, 1], p4[b, 0])))


@subroutine
def soft_drop(z: float, delta: float, z_cut: float, beta: float, r0: float) -> bool:
    """Whether z > z_cut (Δ / R0)^β; Δ is not looked at if β = 0."""
    return bool(z > (z_cut if beta == 0.0 else z_cut * (delta / r0) ** beta))


@subroutine
def groom(n: int, p4: Float64s, children: Ints, z_cut: float, beta: float, r0: float) -> int:
    """Drop softer branches until one passes soft drop; return the row of that splitting, or of the last particle."""
    row = 2 * n - 2
    while row >= n:
        hard, soft, pt_hard, pt_soft = branches(p4, children, row)
        delta = opening(p4, hard, soft) if beta != 0.0 else 0.0
        if soft_drop(pt_soft / (pt_hard + pt_soft), delta, z_cut, beta, r0):
            return row
        row = hard
    return row


@subroutine
def cylindrical(p4: Float64s, row: int) -> tuple[float, float, float, float]:
    """pT, η, φ and mass of a row; the mass is 0 where rounding makes E² − p² negative."""
    px, py, pz, e = p4[row, 0], p4[row, 1], p4[row, 2], p4[row, 3]
    pt = math.sqrt(px * px + py * py)
    mass = math.sqrt(max(0.0, (e + pz) * (e - pz) - px * px - py * py))
    return pt, math.asinh(pz / pt) if pt > 0.0 else 0.0, math.atan2(py, px), mass


@kernel
def _trees(
    offsets: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    z_cut: float,
    beta: float,
    r0: float,
    lund: bool,
) -> tuple[Float64s, Ints, Float64s]:
    """Two subjets per jet, or the primary declusterings: their number per jet and (ln 1/Δ, ln kT, z) flat."""
    n_jets, most = len(offsets) - 1, largest(offsets)
    subjet = np.zeros((1 if lund else n_jets, 2, 4))
    counts = np.zeros(n_jets, np.int64)
    plane = np.empty((offsets[n_jets] - offsets[0] if lund else 1, 3))
    ws = np.empty((8, most))
    node, near = np.empty(most, np.int64), np.empty(most, np.int64)
    children, p4, axes = np.empty((2 * most, 2), np.int64), np.empty((2 * most, 4)), np.empty((1, 1, 2))
    zero = np.zeros(1)
    filled = 0
    for j in range(n_jets):
        n = load(
            offsets[j], offsets[j + 1], pt, eta, phi, mass, zero, False, True, ws[0], ws[1], ws[2], ws[3], ws[4], p4
        )
        if n <= 0:
            counts[j] = -1
            continue
        for i in range(n):
            ws[5, i] = ws[0, i] * ws[0, i]
        neighbours(n, ws[3], ws[2], near, ws[6])
        cluster(n, False, False, p4, ws[3], ws[2], ws[5], near, ws[6], node, ws[7], children, axes, 1)
        if lund:
            row = 2 * n - 2
            while row >= n:
                hard, soft, pt_hard, pt_soft = branches(p4, children, row)
                delta = opening(p4, hard, soft)
                plane[filled, 0], plane[filled, 1] = -math.log(delta), math.log(pt_soft * delta)
                plane[filled, 2] = pt_soft / (pt_hard + pt_soft)
                filled += 1
                counts[j] += 1
                row = hard
        else:
            row = groom(n, p4, children, z_cut, beta, r0)
            first, second = row, -1
            if row >= n:
                first, second, pt_hard, pt_soft = branches(p4, children, row)
            for c in range(4):
                subjet[j, 0, c] = p4[first, c]
                subjet[j, 1, c] = p4[second, c] if second >= 0 else 0.0
    return subjet, counts, plane[:filled]


def subjets(
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    z_cut: float = 0.1,
    beta: float = 0.0,
    R0: float = 0.8,
) -> Float64s:
    """Groom many jets with soft drop and return each one's two subjets, the harder first.

    A splitting is kept if min(pT1, pT2) / (pT1 + pT2) > z_cut (ΔR12 / R0)^β.

    Parameters
    ----------
    offsets, pt, eta, phi, mass
        As in `coffea_ad.features.substructure.substructure`.
    z_cut, beta, R0 : float

    Returns
    -------
    (n_jets, 2, 4) float64, GeV
        px, py, pz, E of the subjets. A jet groomed to one particle has that particle and a zero vector; a jet without
        constituents, or with one that is not finite, two zero vectors.

    References
    ----------
    A. Larkoski et al., "Soft drop", arXiv:1402.2657

    Examples
    --------
    >>> two = subjets([0, 2], [30.0, 10.0], [0.2, -0.2], [0.0, 0.3], [0.0, 0.0])
    >>> np.hypot(two[0, :, 0], two[0, :, 1]).round(6).tolist()
    [30.0, 10.0]
    """
    p, e, f, m = (contiguous(a, np.float64) for a in (pt, eta, phi, mass))
    rows = contiguous(offsets, np.int64)
    return np.asarray(_trees(rows, p, e, f, m, float(z_cut), float(beta), float(R0), False)[0])


def lund_plane(
    offsets: npt.ArrayLike, pt: npt.ArrayLike, eta: npt.ArrayLike, phi: npt.ArrayLike, mass: npt.ArrayLike
) -> tuple[Ints, Float64s]:
    """Return the primary Lund plane of many jets: the splittings along the harder branch of C/A, first the widest.

    Δ in (y, φ), kT = pT_soft Δ, z = pT_soft / (pT_hard + pT_soft).

    Parameters
    ----------
    offsets, pt, eta, phi, mass
        As in `coffea_ad.features.substructure.substructure`.

    Returns
    -------
    counts : (n_jets,) int64
        Splittings of each jet; −1 for a jet without constituents, or with one that is not finite.
    plane : (n_splittings, 3) float64
        ln(1/Δ), ln(kT / GeV), z. A splitting of two identical directions has infinite ln(1/Δ).

    References
    ----------
    F. Dreyer, G. Salam, G. Soyez, "The Lund jet plane", arXiv:1807.04758

    Examples
    --------
    >>> counts, plane = lund_plane([0, 2], [30.0, 10.0], [0.2, -0.2], [0.0, 0.3], [0.0, 0.0])
    >>> counts.tolist(), plane.round(4).tolist()
    ([1], [[0.6931, 1.6094, 0.25]])
    """
    p, e, f, m = (contiguous(a, np.float64) for a in (pt, eta, phi, mass))
    rows = contiguous(offsets, np.int64)
    _, counts, plane = _trees(rows, p, e, f, m, 0.1, 0.0, 1.0, True)
    return counts, plane
