"""The ABCD estimate on counts: what four numbers of events say of a background, of closure and of correlation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = [
    "MIN_EFFECTIVE",
    "MIN_EVENTS",
    "Estimate",
    "Homogeneity",
    "Kappa",
    "Plane",
    "Yield",
    "closure_uncertainty",
    "enough",
    "estimate",
    "homogeneity",
    "kappa",
    "mean_weight",
    "scaled_poisson",
    "slices",
    "twice_log_likelihood",
]

MIN_EVENTS, MIN_EFFECTIVE = 10.0, 25.0
"""Events, and effective ones of weighted yields, that every region of a test must hold: with fewer, p-values are not uniform."""
_HALVINGS = 100


@dataclass(frozen=True)
class Yield:
    """Events and their variance, of one region or bin by bin.

    Attributes
    ----------
    value, variance : (…,)
        Sums of weights, and of squared weights; of data both are the number of events.
    """

    value: Float64s
    variance: Float64s

    @classmethod
    def of(cls, value: npt.ArrayLike, variance: npt.ArrayLike | None = None) -> Yield:
        """Return a yield; without a variance, one of events that are counted.

        >>> Yield.of(4).n_effective
        array(4.)
        """
        content = np.asarray(value, np.float64)
        return cls(content, content if variance is None else np.asarray(variance, np.float64))

    @property
    def n_effective(self) -> Float64s:
        """(Σw)² / Σw², and 0 where the sum is not positive."""
        positive = (self.value > 0) & (self.variance > 0)
        return np.where(positive, self.value**2 / np.where(positive, self.variance, 1.0), 0.0)

    def sum(self) -> Yield:
        """Return the sum over all bins."""
        return Yield(np.asarray(self.value.sum()), np.asarray(self.variance.sum()))

    def bins(self, first: int, end: int) -> Yield:
        """Return some of the bins."""
        return Yield(self.value[first:end], self.variance[first:end])

    def minus(self, other: Yield) -> Yield:
        """Return the difference of two independent yields: their variances add."""
        return Yield(self.value - other.value, self.variance + other.variance)


@dataclass(frozen=True)
class Plane:
    """The four regions of a plane of two variables.

    Attributes
    ----------
    a : Yield or None
        Tagged, above the cut; None where it is not looked at.
    b : Yield
        Tagged, below the cut.
    c : Yield
        Untagged, above the cut.
    d : Yield
        Untagged, below the cut.
    """

    a: Yield | None
    b: Yield
    c: Yield
    d: Yield


@dataclass(frozen=True)
class Estimate:
    """N_B N_C / N_D and its interval.

    Attributes
    ----------
    value, low, high : (…,)
        NaN and ∞ where D is empty, so that nothing bounds the estimate from above.
    """

    value: Float64s
    low: Float64s
    high: Float64s

    def scaled(self, factor: float) -> Estimate:
        """Return the estimate times a factor that is known."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


def scaled_poisson(one: Yield, typical: float) -> tuple[Float64s, Float64s]:
    """Return a yield as a number of events, and what one of them weighs: the scaled Poisson distribution.

    A bin without any event is 0 events of the typical weight; one that negative weights make negative is 0 events that weigh as
    much as its error.
    """
    n = one.n_effective
    positive = n > 0
    weight = np.where(positive, one.variance / np.where(one.value > 0, one.value, 1.0), typical)
    weight = np.where(~positive & (one.variance > 0), np.sqrt(np.maximum(one.variance, 0.0)), weight)
    exact = (one.value > 0) & (one.variance <= 0)
    return np.where(exact, 1e15, n), np.where(exact, one.value / 1e15, weight)


def mean_weight(of: Yield, among: Sequence[Yield]) -> float:
    """Return Σw²/Σw of a region, or of all where it is empty."""
    for group in ((of,), among):
        value = sum(float(y.value.sum()) for y in group)
        variance = sum(float(y.variance.sum()) for y in group)
        if value > 0 and variance > 0:
            return variance / value
    return 1.0


def twice_log_likelihood(n: Float64s, expected: Float64s) -> Float64s:
    """2 (ν − n − n ln(ν/n)), and 2ν for n = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(n > 0, n * np.log(expected / np.where(n > 0, n, 1.0)), 0.0)
    return np.asarray(2 * (expected - n - log))


def estimate(b: Yield, c: Yield, d: Yield, *, z: float = 1.0) -> Estimate:
    """Return N_B N_C / N_D with the interval of its profile likelihood, of ± z standard deviations.

    The likelihood has three Poisson numbers and N_A = λ_B λ_C / λ_D. At a fixed N_A it is largest for λ_B = n_B + t,
    λ_C = n_C + t, λ_D = n_D − t, so that its profile is known in closed form along t; the interval ends where it has fallen by
    z²/2. Weighted yields are scaled Poisson numbers with the effective number of events.

    Parameters
    ----------
    b, c, d : Yield, (…,)
        They are broadcast: bins of c with one b and one d are the shape of c, scaled by b/d.
    z : float

    References
    ----------
    G. Bohm, G. Zech, "Statistics of weighted Poisson events and its applications", NIM A 748 (2014) 1, arXiv:1309.1287.

    Examples
    --------
    >>> estimate(Yield.of(20), Yield.of(30), Yield.of(60)).value
    array(10.)
    """
    regions = [scaled_poisson(y, mean_weight(y, (b, c, d))) for y in (b, c, d)]
    (n_b, w_b), (n_c, w_c), (n_d, w_d) = ([*np.broadcast_arrays(n, w)] for n, w in regions)
    n_b, n_c, n_d, w_b, w_c, w_d = np.broadcast_arrays(n_b, n_c, n_d, w_b, w_c, w_d)
    scale = w_b * w_c / w_d

    def product(t: Float64s) -> Float64s:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(scale * (n_b + t) * (n_c + t) / (n_d - t))

    def fallen(t: Float64s) -> Float64s:
        terms = [twice_log_likelihood(n, n + s * t) for n, s in ((n_b, 1.0), (n_c, 1.0), (n_d, -1.0))]
        return np.asarray(sum(terms))

    def crossing(end: Float64s) -> Float64s:
        """Return t between 0 and an end, beyond which the likelihood vanishes, where it has fallen by z²/2."""
        inner, outer = np.zeros_like(end), end.copy()
        for _ in range(_HALVINGS):
            middle = 0.5 * (inner + outer)
            inside = fallen(middle) < z**2
            inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
        return np.asarray(inner)

    smaller = np.minimum(n_b, n_c)
    high = np.where(n_d > 0, product(crossing(n_d * 1.0)), np.inf)
    low = np.where(smaller > 0, product(crossing(-smaller)), 0.0)
    return Estimate(np.where(n_d > 0, product(np.zeros_like(n_d)), np.nan), low, high)


@dataclass(frozen=True)
class Kappa:
    """Closure of one plane: κ = N_A N_D / (N_B N_C), 1 for variables that are independent.

    Attributes
    ----------
    name : str
        Of the plane.
    value, error : float
        Its statistical error; NaN where a region is empty.
    direct : bool
        Of the plane of the estimate itself, in simulation; others are of planes below its cut or of looser regions.
    """

    name: str
    value: float
    error: float
    direct: bool = False

    @property
    def deviation(self) -> float:
        """|ln κ|, what its error does not explain: √(ln² κ − σ²), or 0."""
        return float(np.sqrt(max(np.log(self.value) ** 2 - (self.error / self.value) ** 2, 0.0)))

    def over(self, other: Kappa) -> Kappa:
        """Return the ratio to an independent κ, under this one's name.

        >>> Kappa("data", 1.5, 0.3).over(Kappa("simulation", 1.5, 0.0)).value
        1.0
        """
        ratio = self.value / other.value
        return Kappa(self.name, ratio, ratio * float(np.hypot(self.error / self.value, other.error / other.value)))


def kappa(plane: Plane, name: str = "", *, direct: bool = False) -> Kappa:
    """Return κ of a plane with its error: that of the logarithm, √Σ σ²/N² over the four regions.

    Raises
    ------
    ValueError
        A is not in the plane.

    Examples
    --------
    >>> kappa(Plane(*(Yield.of(n) for n in (100, 100, 100, 100))))
    Kappa(name='', value=1.0, error=0.2, direct=False)
    """
    if plane.a is None:
        raise ValueError("κ needs region A")
    yields = [y.sum() for y in (plane.a, plane.b, plane.c, plane.d)]
    if not all(y.value > 0 for y in yields):
        return Kappa(name, float("nan"), float("nan"), direct)
    a, b, c, d = (float(y.value) for y in yields)
    value = a * d / (b * c)
    return Kappa(name, value, value * float(np.sqrt(sum(float(y.variance / y.value**2) for y in yields))), direct)


def closure_uncertainty(kappas: Sequence[Kappa], *, correlated: bool = False) -> float:
    """Return the uncertainty of ln N_A that closure tests leave: NaN without any.

    A non-closure that is known to ± σ counts as √(ln² κ + σ²): its mean square. It is that of the test with the smallest error, as long as
    the variables are independent wherever they are looked at; where they are not, a test elsewhere says nothing of this plane, and it
    is that of the test in the plane itself. Of the others what their errors do not explain, √(ln² κ − σ²), if that is more.

    Parameters
    ----------
    kappas : sequence of Kappa
    correlated : bool
        Whether a correlation is seen anywhere.

    Examples
    --------
    >>> tests = [Kappa("simulation", 1.0, 0.3, direct=True), Kappa("loose", 1.0, 0.05)]
    >>> closure_uncertainty(tests), closure_uncertainty(tests, correlated=True)
    (0.05, 0.3)
    """
    tested = [k for k in kappas if np.isfinite(k.value) and np.isfinite(k.error) and k.value > 0]
    if not tested:
        return float("nan")
    in_plane = [k for k in tested if k.direct and correlated]
    best = min(in_plane or tested, key=lambda k: k.error / k.value)
    return max(float(np.hypot(np.log(best.value), best.error / best.value)), *(k.deviation for k in tested))


@dataclass(frozen=True)
class Homogeneity:
    """Whether the tagged fraction is the same in all slices of the second variable.

    Attributes
    ----------
    statistic, ndf, p : float, int, float
        Likelihood ratio, its degrees of freedom, and the p-value by χ²; NaN with fewer than two slices.
    edges : tuple of int
        The slices: first bins, and the end.
    """

    statistic: float
    ndf: int
    p: float
    edges: tuple[int, ...]


def enough(*yields: Yield) -> float:
    """Return how many effective events a region of a test must hold: more, where any are weighted.

    >>> enough(Yield.of([3, 4])), enough(Yield.of([3, 4], [9, 16]))
    (10.0, 25.0)
    """
    return MIN_EVENTS if all(np.array_equal(y.value, y.variance) for y in yields) else MIN_EFFECTIVE


def slices(tagged: Yield, untagged: Yield) -> tuple[int, ...]:
    """Merge neighbouring bins, from above, until each slice holds enough effective events of both.

    Returns
    -------
    tuple of int
        First bins of the slices, and the end.

    Examples
    --------
    >>> slices(Yield.of([50, 20, 5, 6]), Yield.of([90, 70, 50, 40]))
    (0, 1, 2, 4)
    """
    n, least = len(tagged.value), enough(tagged, untagged)
    ends, end = [n], n
    for first in range(n - 1, -1, -1):
        if min(y.bins(first, end).sum().n_effective for y in (tagged, untagged)) >= least:
            ends.append(first)
            end = first
    if ends[-1] != 0:  # what is left is too little for a slice of its own
        ends[-1] = 0
    return tuple(reversed(ends)) if len(ends) > 1 else (0, n)


def homogeneity(tagged: Yield, untagged: Yield) -> Homogeneity:
    """Test that the tagged fraction does not depend on the second variable, which is κ = 1 at every cut in it.

    In each slice both numbers are Poisson, weighted ones scaled; under the hypothesis their expectations have one ratio r for
    all slices, and 2 ln of the likelihood ratio is χ² with one degree of freedom less than slices.

    Parameters
    ----------
    tagged, untagged : Yield, (bins,)
        Neighbouring bins are merged, as `slices` does.

    Examples
    --------
    >>> round(homogeneity(Yield.of([10, 20, 30]), Yield.of([100, 200, 300])).p, 3)
    1.0
    """
    edges, least = slices(tagged, untagged), enough(tagged, untagged)
    pairs = [(tagged.bins(i, j).sum(), untagged.bins(i, j).sum()) for i, j in pairwise(edges)]
    if len(pairs) < 2 or any(y.n_effective < least for pair in pairs for y in pair):
        return Homogeneity(float("nan"), 0, float("nan"), edges)
    from scipy.special import gammaincc

    rows = [(*scaled_poisson(t, 1.0), *scaled_poisson(u, 1.0)) for t, u in pairs]
    n_t, w_t, n_u, w_u = (np.array(part) for part in zip(*rows, strict=True))
    low, high = (float(np.log(f(w_t * n_t / (w_u * n_u)))) for f in (np.min, np.max))
    for _ in range(_HALVINGS):
        r = np.exp(0.5 * (low + high))
        slope = float(np.sum(n_t - (n_t + n_u) * (r / w_t) / (r / w_t + 1 / w_u)))
        low, high = (np.log(r), high) if slope > 0 else (low, np.log(r))
    u = (n_t + n_u) / (r / w_t + 1 / w_u)
    statistic = float(np.sum(twice_log_likelihood(n_t, u * r / w_t) + twice_log_likelihood(n_u, u / w_u)))
    statistic = max(statistic, 0.0)
    return Homogeneity(statistic, len(pairs) - 1, float(gammaincc((len(pairs) - 1) / 2, statistic / 2)), edges)
