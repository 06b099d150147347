"""The likelihood of an ABCD estimate: Poisson numbers of data and of simulation, and what closure leaves, against what was observed.

ln N_A is a sum of logarithms of numbers of events, each with its likelihood. At a fixed ln N_A the likelihood is largest where all terms have
one slope t, so that its profile is known along t: a Poisson number n that is multiplied is n + t there, one that is divided by n − t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coffea_ad.search.abcd_counts import Plane, Yield, mean_weight, scaled_poisson, twice_log_likelihood
from coffea_ad.typing import Float64s

__all__ = ["Ratio", "interval", "plane_ratio", "significance"]

_STEPS = 100


@dataclass(frozen=True)
class Ratio:
    """A product of numbers of events over another: N_B N_C / N_D, or κ of simulation.

    Attributes
    ----------
    signs : (regions,)
        +1 for what is multiplied, −1 for what it is divided by.
    n, weight : (regions, processes)
        Events, and what one of them weighs: N of a region is Σ n w over the processes, of which each is a scaled Poisson number.
    """

    signs: Float64s
    n: Float64s
    weight: Float64s

    @property
    def ends(self) -> tuple[float, float]:
        """Between which slopes the likelihood exists."""
        events = self.n.sum(axis=1)
        return (
            max((-float(e) for e, s in zip(events, self.signs, strict=True) if s > 0), default=-np.inf),
            min((float(e) for e, s in zip(events, self.signs, strict=True) if s < 0), default=np.inf),
        )

    def at(self, t: float) -> tuple[float, float]:
        """Return ln of the ratio at a slope, and by how much twice the logarithm of the likelihood has fallen.

        At a fixed N = Σ λ w of a region its processes are λ = n / (1 − a w) with one a for all of them, and a N is the slope. A process
        without events stays without, until a w is 1 for it.
        """
        slope = self.signs * t
        expected = np.maximum(self.n + slope[:, None], 0.0) if self.n.shape[1] == 1 else self._shared(slope)
        with np.errstate(divide="ignore"):
            logs = np.log((expected * self.weight).sum(axis=1))
        return float(self.signs @ logs), float(twice_log_likelihood(self.n, expected).sum())

    def _shared(self, slope: Float64s) -> Float64s:
        """Return λ of the processes of each region where its slope is given."""
        largest = 1 / self.weight.max(axis=1)
        low, high = np.where(slope < 0, -largest, 0.0), largest * (1 - 1e-12)
        while np.any(outside := (slope < 0) & (self._slope(low)[0] > slope) & (low > -1e18)):
            low = np.where(outside, 8 * low, low)
        a = np.zeros_like(low)
        for _ in range(_STEPS):  # Newton's, and bisection where that leads out of the interval
            value, derivative = self._slope(a)
            low, high = np.where(value < slope, a, low), np.where(value < slope, high, a)
            step = a - (value - slope) / np.where(derivative > 0, derivative, 1.0)
            step = np.where((step > low) & (step < high), step, 0.5 * (low + high))
            if np.all(np.abs(step - a) <= 1e-12 * largest):
                break
            a = step
        expected = self.n / (1 - a[:, None] * self.weight)
        rows, heaviest = np.arange(len(slope)), self.weight.argmax(axis=1)
        rest = (slope - (expected * self.weight).sum(axis=1) * largest) * (self.n[rows, heaviest] == 0)
        expected[rows, heaviest] += np.maximum(rest, 0.0)  # a w = 1
        return np.asarray(expected)

    def _slope(self, a: Float64s) -> tuple[Float64s, Float64s]:
        """Return a N and its derivative."""
        rest = 1 - a[:, None] * self.weight
        terms = self.n * self.weight / rest
        return a * terms.sum(axis=1), (terms / rest).sum(axis=1)


def plane_ratio(planes: Sequence[Plane], letters: Mapping[str, float]) -> Ratio:
    """Return the ratio of regions of a plane; each plane is a process.

    Where the events of a process in a region weigh less than its events usually do, heavier ones may be missing there by chance: they are a process
    of their own, of which the region has none.

    Parameters
    ----------
    planes : sequence of Plane
    letters : {"a", "b", "c", "d": +1 or −1}

    Examples
    --------
    >>> ratio = plane_ratio([Plane(None, *(Yield.of(n) for n in (20, 30, 60)))], {"b": 1, "c": 1, "d": -1})
    >>> round(float(np.exp(ratio.at(0.0)[0])), 6)
    10.0
    """
    regions = [[_sum(getattr(plane, letter)) for plane in planes] for letter in letters]
    usual = [mean_weight(Yield(np.zeros(()), np.zeros(())), of) for of in zip(*regions, strict=True)]
    n, weight = (np.zeros((len(letters), 2 * len(planes))) for _ in range(2))
    for i, row in enumerate(regions):
        for j, one in enumerate(row):
            n[i, j], weight[i, j] = scaled_poisson(one, usual[j])
            weight[i, len(planes) + j] = max(usual[j], weight[i, j])
    columns = (
        slice(None) if np.any(weight[:, len(planes) :] > weight[:, : len(planes)] * (1 + 1e-9)) else slice(len(planes))
    )
    return Ratio(np.array(list(letters.values())), n[:, columns], weight[:, columns])


def _sum(content: Yield | None) -> Yield:
    if content is None:
        raise ValueError("κ needs region A")
    return content.sum()


def _crossing(excess: Callable[[float], float], low: float, high: float) -> float:
    """Return where a function changes its sign from − to +, or the end beyond which it does not."""
    from scipy.optimize import brentq

    margin = 1e-12 * (high - low)
    low, high = low + margin, high - margin
    if excess(low) >= 0 or excess(high) <= 0:
        return low if excess(low) >= 0 else high
    return float(brentq(excess, low, high, xtol=1e-12 * (high - low), rtol=1e-12))


def interval(ratio: Ratio, *, z: float = 1.0) -> tuple[float, float]:
    """Return by how much ln of the ratio may be lower and higher: where twice the logarithm of the likelihood has fallen by z².

    Examples
    --------
    >>> ratio = Ratio(np.array([1.0]), np.array([[10000.0]]), np.array([[1.0]]))
    >>> [round(e, 3) for e in interval(ratio)]
    [0.01, 0.01]
    """
    centre = ratio.at(0.0)[0]
    low, high = ratio.ends
    reach = float(ratio.n.sum()) + z**2 + 1  # where an end is infinite

    def end(outer: float) -> float:
        part = _crossing(lambda part: ratio.at(part * outer)[1] - z**2, 0.0, 1.0)
        return ratio.at(part * outer)[0]

    return centre - end(max(low, -reach)), end(min(high, 10 * reach)) - centre


def significance(
    observed: float, ratios: Sequence[Ratio], *, closure: float = 0.0, others: float = 0.0, subtraction: float = 0.0
) -> float:
    """Return the signed significance of observed events by the likelihood ratio: √(2 ln L), negative below the expectation.

    Parameters
    ----------
    observed : float
        Events, a Poisson number of mean N_A and the others.
    ratios : sequence of Ratio
        Whose product is N_A.
    closure : float
        Standard deviation of ln N_A beside what the ratios' numbers say.
    others, subtraction : float
        Further expected events, and the standard deviation of the sum.

    Examples
    --------
    >>> plane = Plane(None, *(Yield.of(n) for n in (10_000, 20_000, 2_000_000)))
    >>> round(significance(120, [plane_ratio([plane], {"b": 1, "c": 1, "d": -1})]), 2)
    1.92
    """

    def means(t: float) -> tuple[float, float, float]:
        """Return N_A, the mean of the observed number, and by how much the likelihood of the ratios and of the closure has fallen."""
        logs, fallen = zip(*(r.at(t) for r in ratios), strict=True)
        estimate = float(np.exp(min(sum(logs) + closure**2 * t, 700.0)))
        b, s2 = estimate + others, subtraction**2
        mean = 0.5 * ((b - s2) + float(np.hypot(b - s2, 2 * np.sqrt(observed * s2)))) if s2 else b
        return estimate, max(mean, 1e-300), sum(fallen) + (closure * t) ** 2

    def slope(t: float) -> float:
        estimate, mean, _ = means(t)
        return t + estimate - observed * (estimate / mean)

    t = _crossing(slope, max(r.ends[0] for r in ratios), min(r.ends[1] for r in ratios))
    _, mean, fallen = means(t)
    if subtraction:
        fallen += (subtraction * (1 - observed / mean)) ** 2
    fallen += float(twice_log_likelihood(np.array(observed), np.array(mean)))
    return float(np.sign(observed - means(0.0)[0] - others) * np.sqrt(max(fallen, 0.0)))
