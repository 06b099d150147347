"""Slow, obvious twins of the kernels: the definitions, written down without any trick. Imported by tests only."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

__all__ = ["substructure"]

Floats = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def _wrap(angle: float) -> float:
    return math.atan2(math.sin(angle), math.cos(angle))


def _rapidity(p: Vector) -> float:
    """Y = ½ ln((E + |pz|)² / (pT² + m²)), with the sign of pz."""
    mt2 = max(0.0, p[3] ** 2 - p[2] ** 2 - p[0] ** 2 - p[1] ** 2) + p[0] ** 2 + p[1] ** 2
    y = 0.5 * math.log((p[3] + abs(p[2])) ** 2 / mt2)
    return math.copysign(y, p[2])


def _pt(p: Vector) -> float:
    return math.hypot(p[0], p[1])


def _delta_r(p: Vector, q: Vector) -> float:
    return math.hypot(_rapidity(p) - _rapidity(q), _wrap(math.atan2(p[1], p[0]) - math.atan2(q[1], q[0])))


def _four_vectors(pt: Floats, eta: Floats, phi: Floats, mass: Floats) -> list[Vector]:
    out = []
    for a, b, c, m in zip(pt, eta, phi, mass, strict=True):
        px, py, pz = a * math.cos(c), a * math.sin(c), a * math.sinh(b)
        out.append(np.array([px, py, pz, math.sqrt(px * px + py * py + pz * pz + m * m)]))
    return out


def _moments(pt: Floats, eta: Floats, phi: Floats) -> tuple[float, float, float]:
    weight = pt**2 / np.sum(pt**2)
    dphi = np.array([_wrap(p - phi[0]) for p in phi])
    matrix = np.cov(np.stack([eta, dphi]), aweights=weight, ddof=0) if len(pt) > 1 else np.zeros((2, 2))
    small, large = np.sqrt(np.maximum(np.linalg.eigvalsh(matrix), 0))
    return float(large), float(small), float(np.sqrt(np.sum(pt**2)) / np.sum(pt))


def _correlators(particles: list[Vector], beta: float) -> tuple[float, float]:
    z = np.array([_pt(p) for p in particles])
    z /= z.sum()
    n = range(len(particles))
    theta = [[_delta_r(p, q) for q in particles] for p in particles]
    efp1 = sum(z[i] * z[j] * theta[i][j] for i in n for j in n if i != j)
    e2 = sum(z[i] * z[j] * theta[i][j] ** beta for i, j in itertools.combinations(n, 2))
    e3 = sum(
        z[i] * z[j] * z[k] * (theta[i][j] * theta[i][k] * theta[j][k]) ** beta
        for i, j, k in itertools.combinations(n, 3)
    )
    return float(efp1), float(e3 / e2**2) if e2 > 0 else 0.0


Tree = tuple[Vector, "Tree | None", "Tree | None"]


def _cluster(particles: list[Vector], *, kt: bool, stop: int) -> list[Tree]:
    """Merge the pair with the smallest distance until `stop` protojets are left."""
    trees: list[Tree] = [(p, None, None) for p in particles]
    while len(trees) > stop:

        def distance(pair: tuple[int, int], trees: list[Tree] = trees) -> float:
            p, q = trees[pair[0]][0], trees[pair[1]][0]
            return _delta_r(p, q) ** 2 * (min(_pt(p), _pt(q)) ** 2 if kt else 1.0)

        i, j = min(itertools.combinations(range(len(trees)), 2), key=distance)
        merged = (trees[i][0] + trees[j][0], trees[i], trees[j])
        trees = [t for k, t in enumerate(trees) if k not in (i, j)] + [merged]
    return trees


def _tau(particles: list[Vector], n: int, r0: float) -> float:
    if len(particles) < n:
        return 0.0
    pt = [_pt(p) for p in particles]
    place = [(_rapidity(p), math.atan2(p[1], p[0])) for p in particles]
    axes = [(_rapidity(t[0]), math.atan2(t[0][1], t[0][0])) for t in _cluster(particles, kt=True, stop=n)]

    def apart(a: tuple[float, float], b: tuple[float, float]) -> float:
        return math.hypot(a[0] - b[0], _wrap(a[1] - b[1]))

    for _ in range(1000):
        moved = []
        nearest = [min(range(n), key=lambda k, p=p: apart(p, axes[k])) for p in place]  # type: ignore[misc]
        for k in range(n):
            mine = [i for i, a in enumerate(nearest) if a == k]
            weights = [pt[i] / math.sqrt(1e-8 + apart(place[i], axes[k]) ** 2) for i in mine]
            if not mine:
                moved.append(axes[k])
                continue
            y = sum(w * place[i][0] for w, i in zip(weights, mine, strict=True)) / sum(weights)
            dphi = sum(w * _wrap(place[i][1] - axes[k][1]) for w, i in zip(weights, mine, strict=True)) / sum(weights)
            moved.append((y, _wrap(axes[k][1] + dphi)))
        shift = sum(apart(a, b) for a, b in zip(axes, moved, strict=True)) / n
        axes = moved
        if shift <= 1e-4:
            break
    return sum(w * min(apart(p, a) for a in axes) for w, p in zip(pt, place, strict=True)) / (r0 * sum(pt))


def _softdrop_mass(particles: list[Vector], z_cut: float, beta: float, r0: float) -> float:
    tree = _cluster(particles, kt=False, stop=1)[0]
    while tree[1] is not None and tree[2] is not None:
        a, b = tree[1], tree[2]
        pt_a, pt_b = _pt(a[0]), _pt(b[0])
        if min(pt_a, pt_b) / (pt_a + pt_b) > z_cut * (_delta_r(a[0], b[0]) / r0) ** beta:
            break
        tree = a if pt_a > pt_b else b
    p = tree[0]
    return math.sqrt(max(0.0, p[3] ** 2 - p[0] ** 2 - p[1] ** 2 - p[2] ** 2))


def substructure(
    offsets: npt.NDArray[np.int64], pt: Floats, eta: Floats, phi: Floats, mass: Floats,
    ecf_beta: float, r0: float, z_cut: float, softdrop_beta: float,
) -> Floats:  # fmt: skip
    """Compute what `coffea_ad.features.substructure.substructure` computes, (n_jets, 10)."""
    out = np.full((len(offsets) - 1, 10), np.nan)
    for jet in range(len(out)):
        rows = np.arange(offsets[jet], offsets[jet + 1])
        rows = rows[pt[rows] > 0]
        if len(rows) == 0:
            continue
        particles = _four_vectors(pt[rows], eta[rows], phi[rows], np.maximum(mass[rows], 0))
        sigma1, sigma2, ptd = _moments(pt[rows], eta[rows], phi[rows])
        efp1, c2 = _correlators(particles, ecf_beta)
        msd = _softdrop_mass(particles, z_cut, softdrop_beta, r0)
        tau = [_tau(particles, n, r0) for n in range(1, 5)]
        out[jet] = [sigma1, sigma2, efp1, c2, ptd, msd, tau[1], tau[2], tau[0], tau[3]]
    return out
