"""Twins of the substructure kernels: every pair, triple and quadruple is looked at, and every minimum is over all pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coffea_ad.features.substructure import Conventions
from coffea_ad.typing import Float64s, Ints

__all__ = ["Jet", "Particle", "jets", "lund_plane", "subjets", "substructure"]


class Particle(NamedTuple):
    """A constituent, or what some of them were merged into."""

    pt: float
    y: float
    phi: float
    p4: Float64s  # px, py, pz, E
    parts: tuple[Particle, ...] = ()

    @property
    def eta(self) -> float:
        """Pseudorapidity."""
        return math.asinh(self.p4[2] / self.pt)

    @property
    def mass2(self) -> float:
        """E² − p², which rounding may make negative."""
        px, py, pz, e = self.p4
        return float(max(0.0, e * e - px * px - py * py - pz * pz))


def _constituent(pt: float, eta: float, phi: float, mass: float) -> Particle:
    mass = max(mass, 0.0)
    px, py, pz = pt * math.cos(phi), pt * math.sin(phi), pt * math.sinh(eta)
    p4 = np.array([px, py, pz, math.sqrt(px * px + py * py + pz * pz + mass * mass)])
    return Particle(pt, math.asinh(pz / math.hypot(pt, mass)), phi, p4)


def _sum(particles: Sequence[Particle]) -> Particle:
    """E-scheme: four-vectors are added."""
    p4 = np.sum([p.p4 for p in particles], axis=0)
    pt, phi = math.hypot(p4[0], p4[1]), math.atan2(p4[1], p4[0])
    merged = Particle(pt, math.nan, phi, p4, tuple(particles))
    return merged._replace(y=math.asinh(p4[2] / math.sqrt(pt * pt + merged.mass2)))


def _winner(particles: Sequence[Particle]) -> Particle:
    """Winner-takes-all: pT are added, the direction is that of the hardest."""
    hardest = max(particles, key=lambda p: p.pt)
    return Particle(sum(p.pt for p in particles), hardest.y, hardest.phi, hardest.p4, tuple(particles))


def _wrapped(angle: float) -> float:
    return math.atan2(math.sin(angle), math.cos(angle))


def _apart(y1: float, phi1: float, y2: float, phi2: float) -> float:
    return math.hypot(y1 - y2, _wrapped(phi1 - phi2))


def _delta_r(p: Particle, q: Particle) -> float:
    return _apart(p.y, p.phi, q.y, q.phi)


def _clustered(
    particles: Sequence[Particle], left: int, merge: Callable[[Sequence[Particle]], Particle], *, kt: bool
) -> list[Particle]:
    """Merge the pair with the smallest d_ij until so many are left: ΔR², times the smaller pT² for kT."""
    now = list(particles)
    while len(now) > left:
        pt, y, phi = np.array([(p.pt, p.y, p.phi) for p in now]).T
        dy, dphi = y[:, None] - y, phi[:, None] - phi
        d = dy**2 + np.arctan2(np.sin(dphi), np.cos(dphi)) ** 2
        if kt:
            d *= np.minimum(pt[:, None], pt) ** 2
        np.fill_diagonal(d, np.inf)
        i, j = np.unravel_index(np.argmin(d), d.shape)
        now = [p for k, p in enumerate(now) if k not in (i, j)] + [merge([now[i], now[j]])]
    return now


def _branches(p: Particle) -> tuple[Particle, Particle, float, float]:
    """Return the harder and the softer part, z and Δ."""
    soft, hard = sorted(p.parts, key=lambda part: part.pt)
    return hard, soft, soft.pt / (soft.pt + hard.pt), _delta_r(hard, soft)


def _along_the_harder(p: Particle) -> Iterator[Particle]:
    """All splittings of the tree from its root on, always into the harder branch."""
    while p.parts:
        yield p
        p = _branches(p)[0]


def _passes(z: float, delta: float, c: Conventions) -> bool:
    if c.softdrop_beta == 0:
        return bool(z > c.z_cut)
    if delta == 0:
        return c.softdrop_beta > 0  # the threshold is 0, or infinite
    return bool(z > c.z_cut * (delta / c.R0) ** c.softdrop_beta)


class Jet:
    """One jet with at least one constituent; each observable is a method, or made by one in `value`."""

    def __init__(self, particles: list[Particle], charges: Float64s | None, c: Conventions) -> None:
        self.particles, self.charges, self.c = particles, charges, c
        self.pt = np.array([p.pt for p in particles])
        self.z = self.pt / np.sum(self.pt)
        self.axis = _sum(particles)

    # ---- sums over constituents

    def spreads(self) -> tuple[float, float]:
        """σ1, σ2."""
        eta = np.array([p.eta for p in self.particles])
        weight = self.pt**2 / np.sum(self.pt**2)
        if self.c.moments == "central":
            dphi = np.array([_wrapped(p.phi - self.particles[0].phi) for p in self.particles])
            points = np.stack([eta - np.average(eta, weights=weight), dphi - np.average(dphi, weights=weight)])
        else:
            points = np.stack([eta - self.axis.eta, [_wrapped(p.phi - self.axis.phi) for p in self.particles]])
        small, large = np.linalg.eigvalsh((weight * points) @ points.T)
        return math.sqrt(max(0.0, large)), math.sqrt(max(0.0, small))

    def ptd(self) -> float:
        """√Σ pT² / Σ pT."""
        return math.sqrt(np.sum(self.pt**2)) / float(np.sum(self.pt))

    def charge(self) -> float:
        """Σ q (pT / pT of the jet)^κ."""
        if self.charges is None:
            return math.nan
        return float(np.sum(self.charges * (self.pt / self.axis.pt) ** self.c.kappa))

    @cached_property
    def radii(self) -> list[float]:
        """Distances from the axis that angularities are taken from."""
        axis = self.axis
        if self.c.angles_from == "wta":
            (axis,) = _clustered(self.particles, 1, _winner, kt=False)
        return [_delta_r(p, axis) for p in self.particles]

    def angularity(self, kappa: float, beta: float) -> float:
        """Σ z^κ (ΔR / R0)^β."""
        return float(sum(z**kappa * (r / self.c.R0) ** beta for z, r in zip(self.z, self.radii, strict=True)))

    # ---- energy correlation functions

    @cached_property
    def angles(self) -> list[list[float]]:
        """ΔR of all pairs."""
        return [[_delta_r(p, q) for q in self.particles] for p in self.particles]

    def correlator(self, n: int, v: int) -> float:
        """Sum over n constituents of the product of the v smallest of their angles^β."""
        total = 0.0
        for subset in itertools.combinations(range(len(self.z)), n):
            smallest = sorted(self.angles[i][j] for i, j in itertools.combinations(subset, 2))[:v]
            total += math.prod(self.z[i] for i in subset) * math.prod(smallest) ** self.c.beta
        return float(total)

    def efp1(self) -> float:
        """Σ z_i z_j ΔR_ij over all i and all j."""
        n = range(len(self.z))
        return float(sum(self.z[i] * self.z[j] * self.angles[i][j] for i in n for j in n))

    # ---- the Cambridge/Aachen tree

    @cached_property
    def tree(self) -> Particle:
        """The last of all mergings."""
        return _clustered(self.particles, 1, _sum, kt=False)[0]

    @cached_property
    def splittings(self) -> list[tuple[Particle, Particle, float, float]]:
        """The primary Lund plane: harder and softer branch, z and Δ."""
        return [_branches(p) for p in _along_the_harder(self.tree)]

    @cached_property
    def groomed(self) -> Particle:
        """What is left once the first splitting passes soft drop; the last particle if none does."""
        p = self.tree
        while p.parts:
            hard, _, z, delta = _branches(p)
            if _passes(z, delta, self.c):
                break
            p = hard
        return p

    def zg_rg(self) -> tuple[float, float]:
        """Return z and Δ of the splitting that passed."""
        return _branches(self.groomed)[2:] if self.groomed.parts else (0.0, 0.0)

    # ---- N-subjettiness

    def tau(self, n: int) -> float:
        """Sum over constituents of pT (distance to the nearest of n axes)^β, normalised."""
        if len(self.particles) < n:
            return 0.0
        merge = _winner if "WTA" in self.c.axes else _sum
        axes = [(a.y, a.phi) for a in _clustered(self.particles, n, merge, kt=True)]
        if self.c.axes.startswith("OnePass"):
            axes = self._minimised(axes)
        beta, r0 = self.c.tau_beta, self.c.R0
        total = sum(p.pt * min(_apart(p.y, p.phi, *a) for a in axes) ** beta for p in self.particles)
        return float(total / (r0**beta * np.sum(self.pt)))

    def _minimised(self, axes: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Move each axis to the weighted mean of its constituents until the axes stay; they are those nearest to it."""
        for _ in range(1000):
            moved = list(axes)
            nearest = [min(range(len(axes)), key=lambda k: _apart(p.y, p.phi, *axes[k])) for p in self.particles]
            for k, (y, phi) in enumerate(axes):
                nearby = [p for p, a in zip(self.particles, nearest, strict=True) if a == k]
                if nearby:
                    power = self.c.tau_beta / 2 - 1
                    weights = [p.pt * (1e-4**2 + _apart(p.y, p.phi, y, phi) ** 2) ** power for p in nearby]
                    dy = np.average([p.y - y for p in nearby], weights=weights)
                    dphi = np.average([_wrapped(p.phi - phi) for p in nearby], weights=weights)
                    moved[k] = (float(y + dy), _wrapped(float(phi + dphi)))
            shift = sum(_apart(*old, *new) for old, new in zip(axes, moved, strict=True)) / len(axes)
            axes = moved
            if shift <= 1e-4:
                break
        return axes

    # ---- all of them, by name

    def value(self, name: str) -> float:
        """Return an observable."""
        if name.startswith("lambda_"):
            return self.angularity(*map(float, name.split("_")[1:]))
        if name.startswith("tau"):
            tau = self.tau(int(name[3]))
            return tau if len(name) == 4 else _ratio(tau, self.tau(int(name[4])))
        e = self.correlator
        definitions: dict[str, Callable[[], float]] = {
            "sigma1": lambda: self.spreads()[0],
            "sigma2": lambda: self.spreads()[1],
            "ptd": self.ptd,
            "multiplicity": lambda: len(self.particles),
            "charge": self.charge,
            "girth": lambda: float(np.sum(self.z * self.radii)),
            "lha": lambda: self.angularity(1, 0.5),
            "width": lambda: self.angularity(1, 1),
            "thrust": lambda: self.angularity(1, 2),
            "efp1": self.efp1,
            "e2": lambda: e(2, 1),
            "e3": lambda: e(3, 3),
            "1e3": lambda: e(3, 1),
            "2e3": lambda: e(3, 2),
            "2e4": lambda: e(4, 2),
            "c2": lambda: _ratio(e(3, 3), e(2, 1) ** 2),
            "d2": lambda: _ratio(e(3, 3), e(2, 1) ** 3),
            "m2": lambda: _ratio(e(3, 1), e(2, 1)),
            "n2": lambda: _ratio(e(3, 2), e(2, 1) ** 2),
            "n3": lambda: _ratio(e(4, 2), e(3, 1) ** 2),
            "msoftdrop": lambda: math.sqrt(self.groomed.mass2),
            "ptsoftdrop": lambda: self.groomed.pt,
            "etasoftdrop": lambda: self.groomed.eta,
            "phisoftdrop": lambda: _wrapped(self.groomed.phi),
            "zg": lambda: self.zg_rg()[0],
            "rg": lambda: self.zg_rg()[1],
            "n_splittings": lambda: sum(soft.pt * delta >= self.c.kt_min for _, soft, _, delta in self.splittings),
            "n_softdrop": lambda: sum(_passes(z, delta, self.c) for _, _, z, delta in self.splittings),
        }
        return float(definitions[name]())


def _ratio(over: float, under: float) -> float:
    return over / under if under > 0 else 0.0


def jets(
    offsets: npt.ArrayLike,
    pt: npt.ArrayLike,
    eta: npt.ArrayLike,
    phi: npt.ArrayLike,
    mass: npt.ArrayLike,
    charge: npt.ArrayLike | None = None,
    conventions: Conventions | None = None,
) -> Iterator[Jet | None]:
    """Each jet, or None where it has no constituent, or one that is not finite."""
    c = conventions or Conventions()
    table = np.array([pt, eta, phi, mass, np.zeros(np.shape(pt)) if charge is None else charge], float).T
    for start, stop in itertools.pairwise(np.array(offsets).tolist()):
        rows = [row for row in table[start:stop].tolist() if not row[0] <= 0]
        if rows and np.isfinite(rows).all():
            particles = [_constituent(*row[:4]) for row in rows]
            yield Jet(particles, None if charge is None else np.array(rows)[:, 4], c)
        else:
            yield None


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
    """Compute what `coffea_ad.features.substructure.substructure` computes, (n_jets, len(names))."""
    out = np.full((len(np.array(offsets)) - 1, len(names)), np.nan)
    for row, jet in zip(out, jets(offsets, pt, eta, phi, mass, charge, conventions), strict=True):
        if jet is not None:
            row[:] = [jet.value(name) for name in names]
    return out


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
    """Compute what `coffea_ad.features.grooming.subjets` computes, (n_jets, 2, 4)."""
    out = np.zeros((len(np.array(offsets)) - 1, 2, 4))
    c = Conventions(z_cut=z_cut, softdrop_beta=beta, R0=R0)
    for two, jet in zip(out, jets(offsets, pt, eta, phi, mass, None, c), strict=True):
        if jet is not None:
            axes = _branches(jet.groomed)[:2] if jet.groomed.parts else (jet.groomed,)
            two[: len(axes)] = [p.p4 for p in axes]
    return out


def lund_plane(
    offsets: npt.ArrayLike, pt: npt.ArrayLike, eta: npt.ArrayLike, phi: npt.ArrayLike, mass: npt.ArrayLike
) -> tuple[Ints, Float64s]:
    """Compute what `coffea_ad.features.grooming.lund_plane` computes, (n_jets,) and (n_splittings, 3)."""
    splittings = [None if jet is None else jet.splittings for jet in jets(offsets, pt, eta, phi, mass)]
    plane = [(-np.log(delta), np.log(soft.pt * delta), z) for jet in splittings for _, soft, z, delta in jet or []]
    counts = [-1 if jet is None else len(jet) for jet in splittings]
    return np.array(counts, np.int64), np.array(plane, float).reshape(-1, 3)
