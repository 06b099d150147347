"""Sequential recombination of one jet's constituents: kT and Cambridge/Aachen, E-scheme and winner-takes-all.

A smallest d_ij is always found at a nearest neighbour in ΔR (M. Cacciari, G. Salam, hep-ph/0512210), so one neighbour
per particle is enough: O(n²) for the n ≲ 200 constituents of a jet.
"""

from __future__ import annotations

import math

import numpy as np

from coffea_ad.features.jit import exact, subroutine
from coffea_ad.features.simd import bits
from coffea_ad.typing import Float64s, Ints

__all__ = ["are_finite", "cluster", "distance2", "largest", "load", "neighbours", "rapidity", "wrap"]


_TWO_PI = 2.0 * math.pi
_NOTHING = 0x7FFFFFFFFFFFFFFF


@subroutine
def wrap(dphi: float) -> float:
    """Bring the difference of two angles in (-π, π] into (-π, π]."""
    dphi = dphi - _TWO_PI if dphi > math.pi else dphi
    return dphi + _TWO_PI if dphi <= -math.pi else dphi


@subroutine
def distance2(y1: float, phi1: float, y2: float, phi2: float) -> float:
    """ΔR² = Δy² + Δφ², of angles in (-π, π]."""
    dphi = abs(phi1 - phi2)
    dphi = min(dphi, _TWO_PI - dphi)
    dy = y1 - y2
    return dy * dy + dphi * dphi


@subroutine
def rapidity(px: float, py: float, pz: float, e: float) -> float:
    """Rapidity from a four-vector, written so that E − |pz| never cancels."""
    pt2 = px * px + py * py
    m2 = max(0.0, (e + pz) * (e - pz) - pt2)
    up = e + abs(pz)
    y = 0.5 * math.log((pt2 + m2) / (up * up)) if pt2 + m2 > 0.0 and up > 0.0 else -1e5
    return -y if pz > 0.0 else y


@exact
def are_finite(a: float, b: float, c: float, d: float, e: float) -> bool:
    """Return whether numbers are finite; with fast arithmetic, every number would be."""
    return math.isfinite(a) and math.isfinite(b) and math.isfinite(c) and math.isfinite(d) and math.isfinite(e)


@exact
def _usual(pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s) -> bool:
    """Return whether all pT are positive, all numbers finite, and all angles within ±π: one loop of vectors."""
    number = 0
    for i in range(len(pt)):
        momentum = (pt[i] > 0.0) & (pt[i] < 1e300) & (abs(mass[i]) < 1e300)
        number += momentum & (abs(eta[i]) <= 300.0) & (abs(phi[i]) < math.pi)
    return number == len(pt)


@exact
def _copy(source: Float64s, target: Float64s) -> None:
    for i in range(len(source)):
        target[i] = source[i]


@exact  # this is where values that are not finite are found
def load(
    start: int, stop: int, pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s, q: Float64s, charged: bool, four_vectors: bool,
    jpt: Float64s, jeta: Float64s, jphi: Float64s, jy: Float64s, jq: Float64s, p4: Float64s,
) -> int:  # fmt: skip
    """Copy a jet's constituents with pT > 0 (PUPPI leaves zeros) and, if asked for, build their four-vectors.

    Returns their number, or −1 if one is not finite.
    """
    n = 0
    if not four_vectors and not charged and _usual(pt[start:stop], eta[start:stop], phi[start:stop], mass[start:stop]):
        _copy(pt[start:stop], jpt)
        _copy(eta[start:stop], jeta)
        _copy(phi[start:stop], jphi)
        return stop - start
    for i in range(start, stop):
        if pt[i] <= 0.0:
            continue
        angle = phi[i]
        if not -math.pi < angle <= math.pi:
            angle -= 2.0 * math.pi * np.rint(angle / (2.0 * math.pi))
        if charged:
            jq[n] = q[i]
        number = pt[i] + angle + mass[i] + (q[i] if charged else 0.0)
        # beyond |η| = 300 the momentum is not finite, whether it is asked for or not
        if not (math.isfinite(number) and abs(eta[i]) <= 300.0):
            return -1
        jpt[n], jeta[n], jphi[n] = pt[i], eta[i], angle
        if four_vectors:
            m = max(0.0, mass[i])
            grow = math.exp(eta[i])
            pz = 0.5 * pt[i] * (grow - 1.0 / grow)
            e = math.sqrt(pt[i] * pt[i] + pz * pz + m * m)
            if not math.isfinite(e):
                return -1
            p4[n, 0], p4[n, 1], p4[n, 2], p4[n, 3] = pt[i] * math.cos(angle), pt[i] * math.sin(angle), pz, e
            if m == 0.0:
                jy[n] = eta[i]
            else:
                y = math.log((e + abs(pz)) / math.sqrt(pt[i] * pt[i] + m * m))
                jy[n] = y if pz > 0.0 else -y
        n += 1
    return n


@exact
def largest(offsets: Ints) -> int:
    """Return the largest number of constituents, at least 1."""
    most = 1
    for j in range(len(offsets) - 1):
        most = max(most, offsets[j + 1] - offsets[j])
    return most


@subroutine
def _tagged(d: float, place: int, mask: int) -> int:
    """Return d as an integer whose lowest bits are the place: one minimum over these finds value and place at once.

    The order of numbers that differ by less than a part in 2^(52 − bits of the mask) is lost, which is rounding.
    """
    return int((bits(d) & ~mask) | place)


@subroutine
def _mask(n: int) -> int:
    mask = 1
    while mask < n:
        mask *= 2
    return mask - 1


@subroutine
def neighbours(n: int, y: Float64s, phi: Float64s, near: Ints, dist: Float64s) -> None:
    """Find the nearest neighbour in ΔR of each of n particles, and its ΔR²; a lone particle is its own, at infinity."""
    mask = _mask(n)
    for i in range(n):
        best = _NOTHING
        yi, phii = y[i], phi[i]
        for j in range(i):
            d = distance2(yi, phii, y[j], phi[j])
            best = min(best, _tagged(d, j, mask))
            near[j] = min(near[j], _tagged(d, i, mask))
        near[i] = best
    for i in range(n):
        near[i] &= mask
        dist[i] = distance2(y[i], phi[i], y[near[i]], phi[near[i]]) if n > 1 else np.inf


@subroutine
def _nearest(y: Float64s, phi: Float64s, mask: int, m: int, i: int) -> int:
    """Return the nearest neighbour of particle i among m."""
    yi, phii = y[i], phi[i]
    best = _NOTHING
    for j in range(m):
        tagged = _tagged(distance2(yi, phii, y[j], phi[j]), j, mask)
        best = min(best, _NOTHING if j == i else tagged)
    return best & mask


@subroutine
def _smallest(key: Float64s, mask: int, m: int) -> int:
    best = _NOTHING
    for j in range(m):
        best = min(best, _tagged(key[j], j, mask))
    return best & mask


@subroutine
def cluster(
    n: int,
    kt: bool,
    wta: bool,
    p4: Float64s,
    y: Float64s,
    phi: Float64s,
    weight: Float64s,
    near: Ints,
    dist: Float64s,
    node: Ints,
    key: Float64s,
    children: Ints,
    axes: Float64s,
    last_one: int,
) -> None:
    """Recombine the n particles of a jet until `last_one` are left, without a beam distance.

    d_ij = min(pT_i², pT_j²) ΔR_ij² for kT, ΔR_ij² for Cambridge/Aachen.

    A particle whose neighbour is gone is marked by near = −1 and keeps its old distance, which is a lower bound of the
    new one: its neighbour is looked for only when that bound is the smallest of all.

    p4 : (2n, 4) holds px, py, pz, E of the n particles; the E-scheme fills rows n … 2n−2 with the merged ones.
    y, phi, weight : (n,), rapidity, azimuth in (-π, π] and pT² (winner-takes-all: pT² of scalar sums); consumed.
    near, dist : (n,), from `neighbours`; consumed.
    node, key : work space of at least n.
    children : (2n, 2), the two rows that were merged into each row ≥ n.
    axes : (N_max, N_max, 2), [N−1, k] = (y, φ) of the k-th of the N last protojets.
    """
    # every particle is a protojet, with the distance to its nearest neighbour as its key
    mask = _mask(n)
    for i in range(n):
        node[i] = i
        key[i] = dist[i] * weight[i] if kt else dist[i]
    a = _smallest(key, mask, n)
    m = n
    while True:
        # the last protojets are the axes of N-subjettiness, for every N from the same tree
        if m <= len(axes):
            for k in range(m):
                axes[m - 1, k, 0], axes[m - 1, k, 1] = y[k], phi[k]
        if m <= last_one:
            return
        # a lower bound was the smallest: look for the true neighbour, until the smallest key is a true distance
        while near[a] < 0:
            near[a] = _nearest(y, phi, mask, m, a)
            dist[a] = distance2(y[a], phi[a], y[near[a]], phi[near[a]])
            key[a] = dist[a] * weight[a] if kt else dist[a]
            a = _smallest(key, mask, m)
        # merge a and b into the next row of the tree
        b = near[a]
        new = 2 * n - m
        na, nb = node[a], node[b]
        children[new, 0], children[new, 1] = na, nb
        low, high, last = min(a, b), max(a, b), m - 1
        if wta:
            winner = a if weight[a] > weight[b] else b
            pt = math.sqrt(weight[a]) + math.sqrt(weight[b])
            new_y, new_phi, new_weight = y[winner], phi[winner], pt * pt
        else:
            for c in range(4):
                p4[new, c] = p4[na, c] + p4[nb, c]
            px, py = p4[new, 0], p4[new, 1]
            new_y, new_phi = rapidity(px, py, p4[new, 2], p4[new, 3]), math.atan2(py, px)
            new_weight = px * px + py * py
        # the merged one takes the lower place and the last one the higher, so that protojets stay without gaps
        node[high], y[high], phi[high], weight[high] = node[last], y[last], phi[last], weight[last]
        near[high], dist[high] = near[last], dist[last]
        node[low], y[low], phi[low], weight[low] = new, new_y, new_phi, new_weight
        m -= 1
        # one pass without branches, for the vectoriser: neighbour of the merged one, who lost a neighbour, who has a closer
        # one now, and the smallest key
        nearest = smallest = _NOTHING
        for j in range(m):
            d = distance2(new_y, new_phi, y[j], phi[j])
            nearest = min(nearest, _NOTHING if j == low else _tagged(d, j, mask))
            neighbour = near[j]
            neighbour = -1 if (neighbour == a) | (neighbour == b) else neighbour
            neighbour = high if neighbour == last else neighbour
            closer = d < dist[j]
            near[j] = low if closer else neighbour
            dist[j] = d if closer else dist[j]
            key[j] = dist[j] * weight[j] if kt else dist[j]
            smallest = min(smallest, _NOTHING if j == low else _tagged(key[j], j, mask))
        near[low] = nearest & mask if m > 1 else low
        dist[low] = distance2(new_y, new_phi, y[near[low]], phi[near[low]])
        key[low] = dist[low] * new_weight if kt else dist[low]
        a = min(smallest, _tagged(key[low], low, mask)) & mask
