"""Exclusive protojets: which constituents of a jet kT has merged, when so many protojets are left."""

from __future__ import annotations

import numpy as np

from coffea_ad.features.clustering import cluster, largest, load, neighbours
from coffea_ad.features.jit import contiguous, kernel
from coffea_ad.typing import Float64s, Ints

__all__ = ["protojets"]


@kernel
def _protojets(offsets: Ints, pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s, number: Ints) -> Ints:
    most = largest(offsets)
    label = np.full(len(pt), -1, np.int64)
    ws, zero = np.empty((10, most)), np.zeros(1)
    node, near, waiting = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(2 * most, np.int64)
    children, p4, axes = np.empty((2 * most, 2), np.int64), np.empty((2 * most, 4)), np.empty((1, 1, 2))
    for j in range(len(offsets) - 1):
        first = offsets[j]
        n = load(first, offsets[j + 1], pt, eta, phi, mass, zero, False, True, ws[0], ws[1], ws[2], ws[3], ws[4], p4)
        if n != offsets[j + 1] - first or n == 0:
            continue
        for i in range(n):
            ws[5, i], ws[6, i], ws[7, i] = ws[3, i], ws[2, i], ws[0, i] * ws[0, i]
        neighbours(n, ws[5], ws[6], near, ws[8])
        left = min(max(number[j], 1), n)
        cluster(n, True, False, p4, ws[5], ws[6], ws[7], near, ws[8], node, ws[9], children, axes, left)
        for k in range(left):  # down the tree of every protojet that is left
            waiting[0], depth = node[k], 1
            while depth > 0:
                depth -= 1
                row = waiting[depth]
                if row < n:
                    label[first + row] = k
                else:
                    waiting[depth], waiting[depth + 1] = children[row, 0], children[row, 1]
                    depth += 2
    return label


def protojets(offsets: Ints, pt: Float64s, eta: Float64s, phi: Float64s, number: Ints) -> Ints:
    """Return the protojet of every constituent, where kT leaves so many of a jet.

    d_ij = min(pT_i², pT_j²) ΔR_ij², E-scheme, without a beam distance, constituents without mass.

    Parameters
    ----------
    offsets : (jets + 1,) int64
    pt, eta, phi : (constituents,) float64
        pT > 0, GeV; angles from any centre.
    number : (jets,) int64
        Protojets that are to be left; a jet with fewer constituents stays as it is.

    Returns
    -------
    (constituents,) int64
        0 … number − 1; −1 in a jet whose constituents are not all finite with pT > 0.

    References
    ----------
    S. Catani, Y. L. Dokshitzer, M. H. Seymour, B. R. Webber, "Longitudinally-invariant k⊥-clustering algorithms for hadron-hadron
    collisions", Nucl. Phys. B406 (1993) 187.

    Examples
    --------
    >>> offsets, number = np.array([0, 3]), np.array([2])
    >>> pt, eta, phi = np.array([50.0, 40.0, 1.0]), np.array([0.0, 0.5, 0.6]), np.zeros(3)
    >>> label = protojets(offsets, pt, eta, phi, number)
    >>> bool(label[1] == label[2]), bool(label[0] == label[1])
    (True, False)
    """
    return _protojets(
        contiguous(offsets, np.int64),
        contiguous(pt, np.float64),
        contiguous(eta, np.float64),
        contiguous(phi, np.float64),
        np.zeros(len(pt)),
        contiguous(number, np.int64),
    )
