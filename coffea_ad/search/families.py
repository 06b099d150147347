"""Smooth functions for falling spectra: each the exponential of a sum of terms, integrated over bins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.typing import Float64s

__all__ = ["FAMILIES", "Design", "Family", "design"]

_LARGEST = 600.0  # exponent
_NODES = 3  # of the Gauss–Legendre rule in each bin
Terms = Callable[[Float64s], list[Float64s]]


@dataclass(frozen=True)
class Family:
    """A family of functions with more and more parameters.

    Attributes
    ----------
    title : str
        The formula, x = m/√s.
    terms : function or None
        x → the terms φ_k(x), of which the first `order` are used: f(x) = exp(Σ_k θ_k φ_k(x)). None: Bernstein polynomials with
        coefficients that are not negative, of which there is no sub-family within the next one.
    orders : (lowest, highest) int
        Numbers of parameters.
    """

    title: str
    terms: Terms | None
    orders: tuple[int, int]


def _dijet(x: Float64s) -> list[Float64s]:
    log = np.log(x)
    return [np.ones_like(x), log, np.log1p(-x), log**2, log**3]


def _cube_root(x: Float64s) -> list[Float64s]:
    log = np.log(x)
    return [np.ones_like(x), log, np.log1p(-np.cbrt(x)), log**2]


def _ua2(x: Float64s) -> list[Float64s]:
    return [np.ones_like(x), np.log(x), x, x**2, x**3]


def _exponential(x: Float64s) -> list[Float64s]:
    return [np.ones_like(x), x, x**2, x**3, x**4]


FAMILIES: Mapping[str, Family] = {
    "dijet": Family("p₁ x^(p₂ + p₄ ln x + p₅ ln² x) (1 − x)^p₃", _dijet, (2, 5)),
    "cube_root": Family("p₁ x^(p₂ + p₄ ln x) (1 − x^⅓)^p₃", _cube_root, (3, 4)),
    "ua2": Family("p₁ x^p₂ exp(p₃ x + p₄ x² + p₅ x³)", _ua2, (3, 5)),
    "exponential": Family("p₁ exp(p₂ x + p₃ x² + p₄ x³ + p₅ x⁴)", _exponential, (2, 5)),
    "bernstein": Family("Σ pₖ B_{k,n}(x), pₖ ≥ 0", None, (3, 7)),
}
"""`dijet` is ATLAS's function of five parameters (arXiv:2307.01612), and CMS's p₀ (1 − x)^p₁ / x^(p₂ + p₃ ln x + p₄ ln² x) with other
signs (arXiv:1911.03947), which begins with two: a power. `cube_root` is a variation of it, `ua2` the function of UA2."""


class Design(NamedTuple):
    """A function on the bins of a spectrum: ν_i(θ) = Σ_q W_iq exp(Σ_k B_iqk θ_k).

    Attributes
    ----------
    weight : (n, q) float64
        Of the nodes of integration in a bin; of Bernstein polynomials the integral of each.
    basis : (n, q, p) float64
        Terms at the nodes, orthonormal, so that parameters are of the size of 1 and hardly correlated.
    published : (p, p) float64
        θ → the parameters of the formula, of which the first is the logarithm of p₁ where terms are exponents.
    """

    weight: Float64s
    basis: Float64s
    published: Float64s

    @property
    def order(self) -> int:
        """The number of parameters."""
        return int(self.basis.shape[2])

    def expected(self, theta: Float64s) -> Float64s:
        """Return ν, (n,) of one set of parameters (p,), or (T, n) of T of them."""
        with np.errstate(over="ignore"):
            nodes = np.exp(np.minimum(np.einsum("iqp,...p->...iq", self.basis, theta), _LARGEST))
        return np.asarray((self.weight * nodes).sum(axis=-1))


def design(family: str, order: int, edges: Float64s, sqrt_s: float) -> Design:
    """Return a function on bins, integrated over each of them.

        ν_i(θ) = ∫_i f(m; θ) dm ≈ Σ_q w_q f(m_q; θ)

    At its centre alone, a bin of 0.3 TeV at 1.8 TeV would be wrong by 3.5 % for m⁻⁵.

    Parameters
    ----------
    family : str
        Of `FAMILIES`.
    order : int
        Number of parameters.
    edges : (n + 1,) float64, GeV
        All above 0 and below √s.
    sqrt_s : float, GeV

    Returns
    -------
    Design

    Raises
    ------
    UnknownName
        There is no such family.
    ConfigError
        It has no such number of parameters, or the edges reach √s.

    References
    ----------
    ATLAS collaboration, "Search for new phenomena in two-body invariant mass distributions using unsupervised machine learning for anomaly
    detection", arXiv:2307.01612. CMS collaboration, "Search for high mass dijet resonances", arXiv:1911.03947.

    Examples
    --------
    >>> d = design("dijet", 3, np.linspace(1000.0, 5000.0, 41), 13000.0)
    >>> d.basis.shape
    (40, 3, 3)
    """
    if family not in FAMILIES:
        raise UnknownName.of("family of functions", family, FAMILIES)
    known = FAMILIES[family]
    if not known.orders[0] <= order <= known.orders[1]:
        raise ConfigError(f"{family} has {known.orders[0]} to {known.orders[1]} parameters, not {order}")
    if edges[0] <= 0 or edges[-1] > sqrt_s * (1 + 1e-9):
        raise ConfigError(
            f"{family}: a spectrum from {edges[0]:g} to {edges[-1]:g} GeV does not fit into 0 to √s = {sqrt_s:g} GeV"
        )
    points, rule = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(edges)[:, None] / 2
    m = (edges[:-1, None] + half) + half * points
    if known.terms is None:
        return _bernstein(order, m, half * rule, edges)
    terms = np.stack(known.terms(m / sqrt_s)[:order], axis=-1)
    flat = terms.reshape(-1, order)
    spread = np.sqrt((flat**2).mean(axis=0))
    q, r = np.linalg.qr(flat / spread)
    size = np.sqrt(len(flat))
    return Design(
        half * rule, np.ascontiguousarray((q * size).reshape(terms.shape)), np.linalg.inv(r / size) / spread[:, None]
    )


def _bernstein(order: int, m: Float64s, weight: Float64s, edges: Float64s) -> Design:
    t = (m - edges[0]) / (edges[-1] - edges[0])
    n = order - 1
    terms = np.stack([comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(order)], axis=-1)
    integrals = (terms * weight[..., None]).sum(axis=1)
    basis = np.broadcast_to(np.eye(order), (len(m), order, order))
    return Design(integrals, np.ascontiguousarray(basis), np.eye(order))
