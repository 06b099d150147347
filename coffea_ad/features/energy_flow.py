"""Energy flow polynomials: sums over a jet's constituents, one for each multigraph.

EFP_G = Σ_{i1 … iV} z_i1 … z_iV Π_{edges (k, l)} θ_{ik il}^β: a vertex is a constituent, an edge an angle. Written out that
is N^V terms; here vertices are eliminated one after another. A leaf is a vector, v_m = Σ_j z_j θ_ij^(mβ), a path a
product of matrix and vector, so that trees cost N²; only triangles and cycles of four need a product of matrices, N³/2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.features.clustering import distance2, largest, load
from coffea_ad.features.jit import contiguous, kernel, subroutine
from coffea_ad.typing import Float64s, Ints

__all__ = ["GRAPHS", "N_GRAPHS", "PADDING", "efp", "flow_polynomials", "graph_label"]

Graph = tuple[tuple[int, int], ...]

GRAPHS: dict[str, Graph] = {
    "efp_1_1": ((0, 1),),
    "efp_2_1": ((0, 1), (0, 1)),
    "efp_2_2": ((0, 1), (0, 2)),
    "efp_3_1": ((0, 1), (0, 1), (0, 1)),
    "efp_3_2": ((0, 1), (0, 1), (0, 2)),
    "efp_3_3": ((0, 1), (0, 2), (0, 3)),
    "efp_3_4": ((0, 1), (1, 2), (2, 3)),
    "efp_3_5": ((0, 1), (0, 2), (1, 2)),
    "efp_4_1": ((0, 1), (0, 1), (0, 1), (0, 1)),
    "efp_4_2": ((0, 1), (0, 1), (0, 1), (0, 2)),
    "efp_4_3": ((0, 1), (0, 1), (0, 2), (0, 2)),
    "efp_4_4": ((0, 1), (0, 1), (0, 2), (0, 3)),
    "efp_4_5": ((0, 1), (0, 1), (1, 2), (2, 3)),
    "efp_4_6": ((0, 1), (1, 2), (1, 2), (2, 3)),
    "efp_4_7": ((0, 1), (0, 2), (0, 3), (0, 4)),
    "efp_4_8": ((0, 1), (0, 2), (0, 3), (3, 4)),
    "efp_4_9": ((0, 1), (1, 2), (2, 3), (3, 4)),
    "efp_4_10": ((0, 1), (0, 1), (0, 2), (1, 2)),
    "efp_4_11": ((0, 1), (0, 2), (1, 2), (2, 3)),
    "efp_4_12": ((0, 1), (1, 2), (2, 3), (0, 3)),
}
"""All connected multigraphs without loops of at most four edges: `efp_d_k` is the k-th with d edges, trees before cycles."""

N_GRAPHS = len(GRAPHS)
_NAMES = tuple(GRAPHS)
PADDING = 8
"""The matrices of `flow_polynomials` reach this much beyond the particles of a jet."""


def graph_label(name: str) -> str:
    """Return the edges of a graph in words.

    >>> graph_label("efp_3_5")
    '01 02 12'
    """
    return " ".join(f"{a}{b}" for a, b in GRAPHS[name])


def _canonical(graph: Iterable[Sequence[int]]) -> Graph:
    """Return the same for graphs that differ by the numbers of their vertices only: the smallest of all orders."""
    edges = [tuple(int(v) for v in edge) for edge in graph]
    vertices = sorted({v for edge in edges for v in edge})
    if any(len(edge) != 2 or edge[0] == edge[1] for edge in edges) or not edges or len(vertices) > 5:
        raise ConfigError(f"{edges} is no graph of 1 to 4 edges between two different vertices each")
    orders = (dict(zip(vertices, order, strict=True)) for order in itertools.permutations(range(len(vertices))))
    return min(tuple(sorted((min(o[a], o[b]), max(o[a], o[b])) for a, b in edges)) for o in orders)


_BY_GRAPH = {_canonical(graph): name for name, graph in GRAPHS.items()}


@subroutine
def _angles(n: int, y: Float64s, phi: Float64s, beta: float, theta: Float64s) -> None:
    """Fill θ_ij^β, both halves and the diagonal, with 0 from n on up to the padding."""
    for i in range(n):
        row, yi, phii = theta[i], y[i], phi[i]
        for j in range(n):
            row[j] = math.sqrt(distance2(yi, phii, y[j], phi[j]))
        if beta == 0.5:
            for j in range(n):
                row[j] = math.sqrt(row[j])
        elif beta == 2.0:
            for j in range(n):
                row[j] *= row[j]
        elif beta != 1.0:
            for j in range(n):
                row[j] = row[j] ** beta
        row[i] = 0.0
        row[n : n + PADDING] = 0.0
    theta[n : n + PADDING, : n + PADDING] = 0.0


@subroutine
def _cycles(n: int, z: Float64s, theta: Float64s, scaled: Float64s, corner: Float64s) -> tuple[float, float, float]:
    """Return the triangle, the triangle with a double edge and the cycle of four; `corner` takes T_i = Σ_j z_j θ_ij C_ij.

    C_ij = Σ_k θ_ik z_k θ_jk closes a path of two edges; it is symmetric, so half of it is computed, four j at a time.
    """
    for i in range(n):
        corner[i] = 0.0
        for k in range(n + PADDING):
            scaled[i, k] = theta[i, k] * z[k]
    triangle = double = cycle = 0.0
    for i in range(n):
        row = scaled[i]
        square = 0.0
        for k in range(n):
            square += row[k] * theta[i, k]
        cycle += z[i] * z[i] * square * square
        for j in range(0, i, 4):
            a, b, c, d = theta[j], theta[j + 1], theta[j + 2], theta[j + 3]
            s0 = s1 = s2 = s3 = 0.0
            for k in range(n):
                x = row[k]
                s0 += x * a[k]
                s1 += x * b[k]
                s2 += x * c[k]
                s3 += x * d[k]
            for m in range(min(4, i - j)):
                s = s0 if m == 0 else (s1 if m == 1 else (s2 if m == 2 else s3))
                t, zz = theta[i, j + m], z[i] * z[j + m]
                triangle += zz * t * s
                double += zz * t * t * s
                cycle += 2.0 * zz * s * s
                corner[i] += z[j + m] * t * s
                corner[j + m] += z[i] * t * s
    return 2.0 * triangle, 2.0 * double, cycle


@subroutine
def flow_polynomials(
    n: int, pt: Float64s, y: Float64s, phi: Float64s, beta: float, cyclic: bool,
    theta: Float64s, scaled: Float64s, vectors: Float64s, out: Float64s,
) -> None:  # fmt: skip
    """Fill the polynomials of one jet, in the order of `GRAPHS`; those with cycles only if `cyclic`.

    theta, scaled : (≥ n + PADDING, ≥ n + PADDING), vectors : (7, ≥ n + PADDING); work space.
    """
    z, v1, v2, v3, w, u, corner = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4], vectors[5], vectors[6]
    total = 0.0
    for i in range(n):
        total += pt[i]
    for i in range(n):
        z[i] = pt[i] / total
    z[n : n + PADDING] = 0.0
    _angles(n, y, phi, beta, theta)
    # leaves: v_m = Σ_j z_j θ_ij^m
    four = 0.0
    for i in range(n):
        row = theta[i]
        s1 = s2 = s3 = s4 = 0.0
        for j in range(n):
            t = row[j]
            x = z[j] * t
            s1 += x
            x *= t
            s2 += x
            x *= t
            s3 += x
            s4 += x * t
        v1[i], v2[i], v3[i] = s1, s2, s3
        u[i] = z[i] * s1
        four += z[i] * s4
    # paths: w_i = Σ_j θ_ij z_j v1_j, an arm of two edges; and the double edge between two leaves
    middle = 0.0
    for i in range(n):
        row = theta[i]
        s1 = s2 = 0.0
        for j in range(n):
            x = row[j] * u[j]
            s1 += x
            s2 += x * row[j]
        w[i] = s1
        middle += u[i] * s2
    for k in range(N_GRAPHS):
        out[k] = 0.0
    for i in range(n):
        zi, a, b, c, arm = z[i], v1[i], v2[i], v3[i], w[i]
        out[0] += zi * a
        out[1] += zi * b
        out[2] += zi * a * a
        out[3] += zi * c
        out[4] += zi * b * a
        out[5] += zi * a * a * a
        out[6] += zi * a * arm
        out[9] += zi * c * a
        out[10] += zi * b * b
        out[11] += zi * b * a * a
        out[12] += zi * b * arm
        out[14] += zi * a * a * a * a
        out[15] += zi * a * a * arm
        out[16] += zi * arm * arm
    out[8], out[13] = four, middle
    if cyclic:
        out[7], out[17], out[19] = _cycles(n, z, theta, scaled, corner)
        for i in range(n):
            out[18] += u[i] * corner[i]


@kernel
def _efp(
    offsets: Ints, pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s, beta: float, cyclic: bool
) -> Float64s:
    """Fill the polynomials of all jets, (n_jets, N_GRAPHS)."""
    n_jets, most = len(offsets) - 1, largest(offsets)
    out = np.empty((n_jets, N_GRAPHS))
    ws, zero = np.empty((5, most)), np.zeros(1)
    p4 = np.empty((most, 4))
    theta, scaled = np.empty((most + PADDING, most + PADDING)), np.empty((most + PADDING, most + PADDING))
    vectors = np.empty((7, most + PADDING))
    for j in range(n_jets):
        n = load(
            offsets[j], offsets[j + 1], pt, eta, phi, mass, zero, False, True, ws[0], ws[1], ws[2], ws[3], ws[4], p4
        )
        if n <= 0:
            out[j] = np.nan
            continue
        flow_polynomials(n, ws[0], ws[3], ws[2], beta, cyclic, theta, scaled, vectors, out[j])
    return out


def efp(
    graphs: Iterable[str | Iterable[Sequence[int]]],
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    beta: float = 1.0,
) -> Float64s:
    """Compute energy flow polynomials of many jets.

    EFP_G = Σ_{i1 … iV} z_i1 … z_iV Π_{(k, l)} θ_{ik il}^β over all constituents for each vertex, z_i = pT_i / Σ pT, θ in (y, φ):
    normalised, so without a unit, and not changed by a boost along the beam or by a collinear splitting.

    Parameters
    ----------
    graphs : iterable of str or of edges
        Names of `GRAPHS`, or lists of pairs of vertices such as [(0, 1), (1, 2)], at most four edges, connected.
    offsets : (n_jets + 1,) int64
        Jet j owns the constituents offsets[j] … offsets[j+1].
    pt, eta, phi, mass : (n_constituents,) float64, GeV and radians
    beta : float
        Angular power.

    Returns
    -------
    (n_jets, len(graphs)) float64
        NaN for a jet without constituents, or with one that is not finite; 0 for a jet of one.

    Raises
    ------
    UnknownName
        No such name.
    ConfigError
        The graph has loops, is not connected or has more than four edges; or β is not positive.

    References
    ----------
    P. Komiske, E. Metodiev, J. Thaler, "Energy flow polynomials: a complete linear basis for jet substructure",
    arXiv:1712.07124; "Cutting multiparticle correlators down to size", arXiv:1911.04491.

    Examples
    --------
    >>> pt, eta, phi = np.array([[30.0, 10.0], [0.2, -0.2], [0.0, 0.3]])
    >>> efp(["efp_1_1", [(0, 1), (1, 2)]], [0, 2], pt, eta, phi, [0.0, 0.0]).round(4).tolist()
    [[0.1875, 0.0469]]
    """
    names = [graph if isinstance(graph, str) else _name_of(graph) for graph in graphs]
    for name in names:
        if name not in GRAPHS:
            raise UnknownName.of("energy flow polynomial", name, _NAMES)
    if not 0 < beta < math.inf:
        raise ConfigError(f"beta is {beta!r}, but must be a positive number")
    p, e, f, m = (contiguous(a, np.float64) for a in (pt, eta, phi, mass))
    pick = [_NAMES.index(name) for name in names]
    cyclic = any(k in (7, 17, 18, 19) for k in pick)
    return np.asarray(_efp(contiguous(offsets, np.int64), p, e, f, m, float(beta), cyclic)[:, pick])


def _name_of(graph: Iterable[Sequence[int]]) -> str:
    canonical = _canonical(graph)
    if canonical not in _BY_GRAPH:
        raise ConfigError(
            f"the graph {[list(edge) for edge in canonical]} is not connected, or has more than four edges"
        )
    return _BY_GRAPH[canonical]
