"""Jet substructure from constituents: one pass over the jets, which computes what is asked for and nothing else.

The kernels walk flat content and offsets. Work space is one jet large and made once: nothing is padded, nothing is per
jet in Python. The parts stand in `moments`, `correlators`, `clustering`, `nsubjettiness` and `grooming`;
`coffea_ad.features.naive` holds a slow, obvious twin, which tests compare with them and with fastjet-contrib.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import UnknownName
from coffea_ad.features.base import NonNegative, Number, Options, Positive
from coffea_ad.features.clustering import cluster, distance2, largest, load, neighbours, rapidity
from coffea_ad.features.correlators import PAD, e3, pairs, quadruples, triples
from coffea_ad.features.grooming import branches, cylindrical, groom, opening, soft_drop
from coffea_ad.features.jit import contiguous, kernel, subroutine
from coffea_ad.features.moments import angularities, angularity, charge_sum, ellipse
from coffea_ad.features.nsubjettiness import subjettiness
from coffea_ad.features.simd import FORMS
from coffea_ad.typing import Bools, Float64s, Ints

__all__ = ["OBSERVABLES", "WNAE_INPUTS", "Axes", "Conventions", "parse_angularity", "substructure"]

WNAE_INPUTS = ("sigma1", "sigma2", "efp1", "c2", "ptd", "msoftdrop", "tau2", "tau3")

MAX_AXES = 9
Axes = Literal["OnePass_KT", "KT", "OnePass_WTA_KT", "WTA_KT"]

# The kernel's columns, in the groups that are computed together; angularities and τ_N follow.
_GROUPS: dict[str, tuple[str, ...]] = {
    "moments": ("sigma1", "sigma2", "ptd", "multiplicity"),
    "charge": ("charge",),
    "angles": ("girth", "lha", "width", "thrust"),
    "pairs": ("efp1", "e2"),
    "e3": ("e3",),
    "triples": ("1e3", "2e3"),
    "quadruples": ("2e4",),
    "groomed": ("msoftdrop", "ptsoftdrop", "etasoftdrop", "phisoftdrop", "zg", "rg"),
    "lund": ("n_splittings", "n_softdrop"),
}
_COLUMN = {name: i for i, name in enumerate(name for names in _GROUPS.values() for name in names)}
_GROUP_OF = {name: i for i, names in enumerate(_GROUPS.values()) for name in names}
(
    _SIGMA1, _SIGMA2, _PTD, _MULTIPLICITY, _Q, _GIRTH, _LHA, _WIDTH, _THRUST, _EFP1, _E2, _E3_ALL, _E3_ONE, _E3_TWO, _E4_TWO,
    _M_SD, _PT_SD, _ETA_SD, _PHI_SD, _ZG, _RG, _N_SPLITTINGS, _N_SOFTDROP,
) = range(len(_COLUMN))  # fmt: skip
_MOMENTS, _CHARGE, _ANGLES, _PAIRS, _E3, _TRIPLES, _QUADRUPLES, _GROOMED, _LUND = range(len(_GROUPS))
_FIXED = len(_COLUMN)

# Ratios: numerator, denominator, power of the denominator. 0 where the denominator is 0.
_RATIOS: dict[str, tuple[str, str, int]] = {
    "c2": ("e3", "e2", 2),
    "d2": ("e3", "e2", 3),
    "m2": ("1e3", "e2", 1),
    "n2": ("2e3", "e2", 2),
    "n3": ("2e4", "1e3", 2),
    **{f"tau{n}{n - 1}": (f"tau{n}", f"tau{n - 1}", 1) for n in range(2, MAX_AXES + 1)},
}
_TAUS = tuple(f"tau{n}" for n in range(1, MAX_AXES + 1))

OBSERVABLES = (*_COLUMN, *_RATIOS, *_TAUS)
"""Names that `substructure` knows, beside angularities `lambda_κ_β`."""


class Conventions(Options):
    """What the literature leaves open, and is chosen here.

    Attributes
    ----------
    beta : float
        Angular power of the energy correlation functions.
    R0 : float
        Radius in angularities, N-subjettiness and soft drop.
    z_cut, softdrop_beta : float
        A splitting is kept if min(pT1, pT2) / (pT1 + pT2) > z_cut (ΔR12 / R0)^β.
    axes : str
        Of N-subjettiness; CMS uses OnePass_KT.
    tau_beta : float
        Angular power of N-subjettiness.
    moments : "central" or "jet"
        σ1, σ2 about the pT²-weighted centroid or about the jet's axis.
    angles_from : "jet" or "wta"
        Angularities from the jet's axis (sum of its constituents) or the winner-takes-all axis of C/A, free of recoil.
    kappa : float
        Power of the jet charge.
    kt_min : float, GeV
        Smallest kT = pT_soft Δ of a splitting that `n_splittings` counts.
    """

    beta: Positive = 0.5
    R0: Positive = 0.8
    z_cut: Positive = 0.1
    softdrop_beta: Number = 0.0
    axes: Axes = "OnePass_KT"
    tau_beta: Positive = 1.0
    moments: Literal["central", "jet"] = "central"
    angles_from: Literal["jet", "wta"] = "jet"
    kappa: Positive = 0.5
    kt_min: NonNegative = 1.0


@subroutine
def _grooming(
    n: int, p4: Float64s, children: Ints, z_cut: float, beta: float, r0: float, kt_min: float, lund: bool, row: Float64s
) -> None:
    """Fill the columns that come from the C/A tree."""
    stop = groom(n, p4, children, z_cut, beta, r0)
    row[_PT_SD], row[_ETA_SD], row[_PHI_SD], row[_M_SD] = cylindrical(p4, stop)
    row[_ZG] = row[_RG] = row[_N_SPLITTINGS] = row[_N_SOFTDROP] = 0.0
    at = 2 * n - 2 if lund else stop
    while at >= n:
        hard, soft, pt_hard, pt_soft = branches(p4, children, at)
        z, delta = pt_soft / (pt_hard + pt_soft), opening(p4, hard, soft)
        if at == stop:
            row[_ZG], row[_RG] = z, delta
            if not lund:
                return
        row[_N_SPLITTINGS] += 1.0 if pt_soft * delta >= kt_min else 0.0
        row[_N_SOFTDROP] += 1.0 if soft_drop(z, delta, z_cut, beta, r0) else 0.0
        at = hard


@kernel
def _substructure(
    offsets: Ints,
    pt: Float64s,
    eta: Float64s,
    phi: Float64s,
    mass: Float64s,
    q: Float64s,
    charged: bool,
    wanted: Bools,
    pick: Ints,
    taus: Ints,  # rising
    kappas: Float64s,
    betas: Float64s,
    ecf_beta: float,
    r0: float,
    z_cut: float,
    softdrop_beta: float,
    wta: bool,
    one_pass: bool,
    tau_beta: float,
    central: bool,
    from_wta: bool,
    charge_kappa: float,
    kt_min: float,
) -> Float64s:
    """Compute the wanted groups of columns jet by jet, and keep the columns `pick`; `q` is not looked at unless `charged`."""
    # work space for the largest jet: nothing is allocated inside the loop
    n_jets, most = len(offsets) - 1, largest(offsets)
    n_fixed, n_extra = _FIXED, len(kappas)
    out = np.empty((n_jets, len(pick)))
    row = np.empty(n_fixed + n_extra + len(taus))
    ws = np.empty((13, most + PAD))
    jpt, jeta, jphi, jy, jq = ws[0], ws[1], ws[2], ws[3], ws[4]
    y, angle, weight, dist, key, first_dist, radius, z = ws[5], ws[6], ws[7], ws[8], ws[9], ws[10], ws[11], ws[12]
    node, near, first_near = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    children = np.empty((2 * most, 2), np.int64)
    p4 = np.empty((2 * most, 4))
    # what the wanted groups have in common is computed once, and only if one of them is wanted
    need_pairs = wanted[_PAIRS] or wanted[_E3] or wanted[_TRIPLES] or wanted[_QUADRUPLES]
    width = most + PAD if need_pairs else 1
    theta, vectors = np.empty((width, width)), np.empty((FORMS, width))
    from_axis = wanted[_ANGLES] or n_extra > 0
    steps = (from_axis and from_wta, wanted[_GROOMED] or wanted[_LUND], len(taus) > 0)
    clustered = steps[0] or steps[1] or steps[2]
    four_vectors = clustered or need_pairs or from_axis or wanted[_CHARGE] or not central
    n_axes, fewest = (taus[-1], taus[0]) if len(taus) > 0 else (1, 1)
    axes, moved, means = np.empty((n_axes, n_axes, 2)), np.empty((n_axes, 2)), np.empty((n_axes, 3))
    for j in range(n_jets):
        # constituents are loaded once for all groups; a jet without any, or with one that is not finite, is undefined
        n = load(offsets[j], offsets[j + 1], pt, eta, phi, mass, q, charged, four_vectors, jpt, jeta, jphi, jy, jq, p4)
        if n <= 0:
            out[j] = np.nan
            continue
        # scalar sums, and the axis of the sum of four-vectors
        total = sum_pt2 = px = py = pz = e = jet_pt = jet_phi = axis_y = axis_phi = 0.0
        for i in range(n):
            total += jpt[i]
            sum_pt2 += jpt[i] * jpt[i]
        if four_vectors:
            for i in range(n):
                px += p4[i, 0]
                py += p4[i, 1]
                pz += p4[i, 2]
                e += p4[i, 3]
            jet_pt, jet_phi = math.sqrt(px * px + py * py), math.atan2(py, px)
            axis_y, axis_phi = rapidity(px, py, pz, e), jet_phi
        # moments need no pairs and no tree
        if wanted[_MOMENTS]:
            eta0, phi0 = (jeta[0], jphi[0]) if central else (math.asinh(pz / jet_pt), jet_phi)
            row[_SIGMA1], row[_SIGMA2] = ellipse(n, jpt, jeta, jphi, eta0, phi0, central)
            row[_PTD], row[_MULTIPLICITY] = math.sqrt(sum_pt2) / total, n
        if wanted[_CHARGE]:
            row[_Q] = charge_sum(n, jq, jpt, jet_pt, charge_kappa)
        # correlators: angles of pairs are kept in `theta` for triples and quadruples
        if need_pairs:
            for i in range(n):
                z[i] = jpt[i] / total
            row[_EFP1], row[_E2] = pairs(n, z, jy, jphi, ecf_beta, theta)
            if wanted[_E3]:
                row[_E3_ALL] = e3(n, z, theta, vectors)
            if wanted[_TRIPLES]:
                row[_E3_ONE], row[_E3_TWO] = triples(n, z, theta)
            if wanted[_QUADRUPLES]:
                row[_E4_TWO] = quadruples(n, z, theta)
        # nearest neighbours in ΔR start all three clusterings
        if clustered:
            neighbours(n, jy, jphi, first_near, first_dist)
        # At most three clusterings, through one call that is compiled once: C/A with winner-takes-all, C/A, kT.
        for step in range(3):
            if not steps[step]:
                continue
            for i in range(n):  # a clustering consumes what it is given
                y[i], angle[i], weight[i] = jy[i], jphi[i], jpt[i] * jpt[i]
                near[i], dist[i] = first_near[i], first_dist[i]
            takes_all, left = (step == 0, 1) if step < 2 else (wta, fewest)
            cluster(n, step == 2, takes_all, p4, y, angle, weight, near, dist, node, key, children, axes, left)
            if step == 0:
                axis_y, axis_phi = axes[0, 0, 0], axes[0, 0, 1]
            elif step == 1:
                _grooming(n, p4, children, z_cut, softdrop_beta, r0, kt_min, wanted[_LUND], row)
            else:
                for k in range(len(taus)):
                    for a in range(taus[k]):
                        moved[a, 0], moved[a, 1] = axes[taus[k] - 1, a, 0], axes[taus[k] - 1, a, 1]
                    row[n_fixed + n_extra + k] = subjettiness(
                        n, taus[k], jpt, jy, jphi, moved, one_pass, tau_beta, r0, near, dist, key, y, means, False
                    )
        # last, since the winner-takes-all axis comes from the first clustering
        if from_axis:
            for i in range(n):
                radius[i] = math.sqrt(distance2(jy[i], jphi[i], axis_y, axis_phi))
            row[_LHA], row[_WIDTH], row[_THRUST] = angularities(n, jpt, total, radius, r0)
            row[_GIRTH] = row[_WIDTH] * r0
            for k in range(n_extra):
                row[n_fixed + k] = angularity(n, jpt, total, radius, r0, kappas[k], betas[k])
        # columns in the caller's order
        for k in range(len(pick)):
            out[j, k] = row[pick[k]]
    return out


def substructure(
    names: Sequence[str],
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    charge: npt.ArrayLike | None = None,
    conventions: Conventions | None = None,
) -> Float64s:
    """Compute observables of many jets.

    z_i = pT_i / Σ pT of the constituents; angles in (y, φ), except σ1 and σ2, which use (η, φ).

    Parameters
    ----------
    names : sequence of str
        Of `OBSERVABLES`, or `lambda_κ_β` for the angularity Σ z^κ (ΔR / R0)^β.
    offsets : (n_jets + 1,) int64
        Jet j owns the constituents offsets[j] … offsets[j+1].
    pt, eta, phi, mass : (n_constituents,) float64, GeV and radians
        PUPPI-weighted four-vectors.
    charge : (n_constituents,), optional
        For the jet charge.
    conventions : Conventions

    Returns
    -------
    (n_jets, len(names)) float64
        NaN for a jet without constituents, or with one that is not finite.

    Raises
    ------
    UnknownName

    References
    ----------
    J. Thaler, K. Van Tilburg, "Identifying boosted objects with N-subjettiness", arXiv:1011.2268;
    A. Larkoski, G. Salam, J. Thaler, "Energy correlation functions for jet substructure", arXiv:1305.0007;
    I. Moult, L. Necib, J. Thaler, "New angles on energy correlation functions", arXiv:1609.07483;
    A. Larkoski, J. Thaler, W. Waalewijn, "Gaining (mutual) information about quark/gluon discrimination",
    arXiv:1408.3122;
    P. Komiske, E. Metodiev, J. Thaler, "Energy flow polynomials", arXiv:1712.07124;
    A. Larkoski et al., "Soft drop", arXiv:1402.2657; F. Dreyer, G. Salam, G. Soyez, "The Lund jet plane",
    arXiv:1807.04758.

    Examples
    --------
    >>> pt, eta, phi = np.array([[30.0, 10.0], [0.2, -0.2], [0.0, 0.3]])
    >>> substructure(["efp1", "multiplicity"], [0, 2], pt, eta, phi, [0.0, 0.0]).round(4).tolist()
    [[0.1875, 2.0]]
    """
    c = conventions or Conventions()
    parts = [part for name in names for part in (_RATIOS[name][:2] if name in _RATIOS else (name,))]
    extra = [parse_angularity(name) for name in parts if name.startswith("lambda_")]
    unknown = [name for name in parts if name not in OBSERVABLES and not name.startswith("lambda_")]
    if unknown:
        raise UnknownName.of("observable", unknown[0], (*OBSERVABLES, "lambda_κ_β"))
    taus = sorted({int(name[3:]) for name in parts if name in _TAUS})
    wanted = np.zeros(len(_GROUPS), np.bool_)
    wanted[[_GROUP_OF[name] for name in parts if name in _GROUP_OF]] = True
    place = {**_COLUMN, **{f"tau{n}": _FIXED + len(extra) + i for i, n in enumerate(taus)}}
    lambdas = iter(range(_FIXED, _FIXED + len(extra)))
    pick = [next(lambdas) if name.startswith("lambda_") else place[name] for name in parts]
    p, e, f, m = (contiguous(a, np.float64) for a in (pt, eta, phi, mass))
    charged = charge is not None
    q = contiguous(charge, np.float64) if charge is not None else np.zeros(1)
    kappas, betas = np.array(extra, np.float64).reshape(-1, 2).T.copy()
    table = _substructure(
        contiguous(offsets, np.int64), p, e, f, m, q, charged, wanted, np.array(pick, np.int64), np.array(taus, np.int64),
        kappas, betas, float(c.beta), float(c.R0), float(c.z_cut), float(c.softdrop_beta),
        "WTA" in c.axes, c.axes.startswith("OnePass"), float(c.tau_beta),
        c.moments == "central", c.angles_from == "wta", float(c.kappa), float(c.kt_min),
    )  # fmt: skip
    if not charged:
        table[:, [part == "charge" for part in parts]] = np.nan
    if not any(name in _RATIOS for name in names):
        return table
    out, columns = np.empty((len(table), len(names))), iter(table.T)
    for i, name in enumerate(names):
        out[:, i] = next(columns)
        if name in _RATIOS:
            below = next(columns) ** _RATIOS[name][2]
            out[:, i] = np.divide(out[:, i], below, out=0.0 * below, where=below > 0)
    return out


def parse_angularity(name: str) -> tuple[float, float]:
    """Return κ and β of `lambda_κ_β`.

    >>> parse_angularity("lambda_1_0.5")
    (1.0, 0.5)
    """
    match = re.fullmatch(r"lambda_(\d+\.?\d*|\.\d+)_(\d+\.?\d*|\.\d+)", name)
    if match is None:
        raise UnknownName(f"{name!r} is not an angularity; write it as lambda_1_0.5")
    return float(match[1]), float(match[2])
