"""The large set of jet observables for searches that do not know their signal: one pass over the jets.

N-subjettiness, energy flow polynomials, masses and two counts together: constituents are loaded, neighbours searched and
kT axes clustered once for all powers of the angle, which is what makes the set affordable.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from coffea_ad.features.clustering import cluster, largest, load, neighbours
from coffea_ad.features.energy_flow import GRAPHS, N_GRAPHS, PADDING, flow_polynomials
from coffea_ad.features.grooming import cylindrical, groom
from coffea_ad.features.jit import contiguous, kernel
from coffea_ad.features.nsubjettiness import subjettiness
from coffea_ad.features.substructure import Conventions
from coffea_ad.typing import Float64s, Ints

__all__ = ["KITCHEN_SINK", "TAU_BETAS", "kitchen_sink"]

TAU_BETAS = (0.5, 1.0, 2.0)
_MOST_AXES = 9
_TAUS = len(TAU_BETAS) * _MOST_AXES
_EFPS = _TAUS + N_GRAPHS
_WIDTH = _EFPS + 4

KITCHEN_SINK = (
    *(f"tau{n}_beta{beta:g}" for beta in TAU_BETAS for n in range(1, _MOST_AXES + 1)),
    *GRAPHS,
    "mass", "msoftdrop", "multiplicity", "ptd",
)  # fmt: skip
"""The observables of a jet, in the order of `kitchen_sink`'s columns."""


@kernel
def _kitchen_sink(
    offsets: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    betas: Float64s,
    efp_beta: float,
    r0: float,
    z_cut: float,
    softdrop_beta: float,
    wta: bool,
    one_pass: bool,
) -> Float64s:
    """Fill the row of each jet."""
    # work space for the largest jet: nothing is allocated inside the loop
    n_jets, most = len(offsets) - 1, largest(offsets)
    out = np.empty((n_jets, _WIDTH))
    ws, zero = np.empty((12, most + PADDING)), np.zeros(1)
    jpt, jeta, jphi, jy, jq = ws[0], ws[1], ws[2], ws[3], ws[4]
    y, angle, weight, dist, key, first_dist = ws[5], ws[6], ws[7], ws[8], ws[9], ws[10]
    node, near, first_near = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    children, p4 = np.empty((2 * most, 2), np.int64), np.empty((2 * most, 4))
    axes, moved, means = np.empty((_MOST_AXES, _MOST_AXES, 2)), np.empty((_MOST_AXES, 2)), np.empty((_MOST_AXES, 3))
    theta, scaled = np.empty((most + PADDING, most + PADDING)), np.empty((most + PADDING, most + PADDING))
    vectors = np.empty((7, most + PADDING))
    for j in range(n_jets):
        row = out[j]
        n = load(offsets[j], offsets[j + 1], pt, eta, phi, mass, zero, False, True, jpt, jeta, jphi, jy, jq, p4)
        if n <= 0:
            row[:] = np.nan
            continue
        flow_polynomials(n, jpt, jy, jphi, efp_beta, True, theta, scaled, vectors, row[_TAUS:_EFPS])
        total = sum_pt2 = px = py = pz = e = 0.0
        for i in range(n):
            total += jpt[i]
            sum_pt2 += jpt[i] * jpt[i]
            px += p4[i, 0]
            py += p4[i, 1]
            pz += p4[i, 2]
            e += p4[i, 3]
        row[_EFPS] = math.sqrt(max(0.0, (e + pz) * (e - pz) - px * px - py * py))
        row[_EFPS + 2], row[_EFPS + 3] = n, math.sqrt(sum_pt2) / total
        neighbours(n, jy, jphi, first_near, first_dist)
        # C/A for soft drop, then kT for the axes of all N
        for step in range(2):
            for i in range(n):  # a clustering consumes what it is given
                y[i], angle[i], weight[i] = jy[i], jphi[i], jpt[i] * jpt[i]
                near[i], dist[i] = first_near[i], first_dist[i]
            cluster(n, step == 1, step == 1 and wta, p4, y, angle, weight, near, dist, node, key, children, axes, 1)
            if step == 0:
                _, _, _, row[_EFPS + 1] = cylindrical(p4, groom(n, p4, children, z_cut, softdrop_beta, r0))
        for b in range(len(betas)):
            for k in range(_MOST_AXES):
                for a in range(min(k + 1, n)):
                    moved[a, 0], moved[a, 1] = axes[k, a, 0], axes[k, a, 1]
                row[b * _MOST_AXES + k] = subjettiness(
                    n, k + 1, jpt, jy, jphi, moved, one_pass, betas[b], r0, near, dist, key, y, means, True
                )
    return out


def kitchen_sink(
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    conventions: Conventions | None = None,
    efp_beta: float = 1.0,
) -> Float64s:
    """Compute `KITCHEN_SINK` of many jets.

    τ_1 … τ_9 = Σ_i pT_i min_k ΔR_ik^β / (R0^β Σ_i pT_i) at β = ½, 1, 2; the energy flow polynomials of `energy_flow.GRAPHS`; the
    mass of the sum of all constituents, and after soft drop; number of constituents with pT > 0; √Σ pT² / Σ pT.

    Parameters
    ----------
    offsets, pt, eta, phi, mass
        As in `coffea_ad.features.substructure.substructure`.
    conventions : Conventions
        Of these, axes, R0, z_cut and softdrop_beta are looked at.
    efp_beta : float
        Angular power of the energy flow polynomials.

    Returns
    -------
    (n_jets, len(KITCHEN_SINK)) float64
        Masses in GeV. NaN for a jet without constituents, or with one that is not finite. With fewer than N constituents
        τ_N is 0, with one all polynomials are.

    References
    ----------
    J. Thaler, K. Van Tilburg, "Identifying boosted objects with N-subjettiness", arXiv:1011.2268;
    P. Komiske, E. Metodiev, J. Thaler, "Energy flow polynomials: a complete linear basis for jet substructure",
    arXiv:1712.07124; A. Larkoski et al., "Soft drop", arXiv:1402.2657.

    Examples
    --------
    >>> pt, eta, phi = np.array([[30.0, 10.0], [0.2, -0.2], [0.0, 0.3]])
    >>> row = dict(zip(KITCHEN_SINK, kitchen_sink([0, 2], pt, eta, phi, [0.0, 0.0])[0].tolist()))
    >>> round(row["efp_1_1"], 4), round(row["mass"], 3), row["tau3_beta1"], row["multiplicity"]
    (0.1875, 8.686, 0.0, 2.0)
    """
    c = conventions or Conventions()
    p, e, f, m = (contiguous(a, np.float64) for a in (pt, eta, phi, mass))
    return np.asarray(
        _kitchen_sink(
            contiguous(offsets, np.int64), p, e, f, m, np.array(TAU_BETAS), float(efp_beta), float(c.R0), float(c.z_cut),
            float(c.softdrop_beta), "WTA" in c.axes, c.axes.startswith("OnePass"),
        )
    )  # fmt: skip
