"""Whether a region changes the shape of a spectrum: simulated background in the region against all other events."""

from __future__ import annotations

from dataclasses import dataclass, field

import hist
import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.results.results import Results
from coffea_ad.results.sums import sum_of
from coffea_ad.typing import Float64s

__all__ = ["LocalExcess", "Sculpting", "compare_shapes", "sculpting"]

MIN_EFFECTIVE = 10.0
_TOYS = 1000
_INTERVALS = 1_000_000  # at a time
_DOUBTFUL = 0.01  # p-values below it are called sculpting


@dataclass(frozen=True)
class LocalExcess:
    """Background of a region in an interval, over what the shape of the other events predicts.

    Attributes
    ----------
    low, high : float
        In the unit of the observable.
    observed, expected : float
        Content of the region, and of the other events scaled to the region's total.
    error : float
        Of observed − expected, statistical.
    significance : float
        (observed − expected) / error; negative for a deficit.
    """

    low: float
    high: float
    observed: float
    expected: float
    error: float
    significance: float

    @property
    def relative(self) -> float:
        """(observed − expected) / expected."""
        return (self.observed - self.expected) / self.expected

    @property
    def relative_error(self) -> float:
        """Error of `relative`."""
        return self.error / self.expected


@dataclass(frozen=True)
class Sculpting:
    """Shape of the simulated background in a region, compared with the events outside of it.

    Attributes
    ----------
    observable, region : str
    edges : (bins + 1,)
    inside, outside : (bins,)
        Content of the region, and of the other events scaled to its total.
    chi2 : float
        Of the two shapes, in `bins_compared` bins with one degree of freedom less.
    bins_compared : int
        Neighbours are joined until both have 10 effective events.
    p_value : float
    excess : LocalExcess
        The most significant one of all intervals of neighbouring bins.
    global_p_value : float
        Part of 1000 pseudo-experiments without sculpting in which some excess is as significant.
    """

    observable: str
    region: str
    edges: Float64s
    inside: Float64s
    outside: Float64s
    chi2: float
    bins_compared: int
    p_value: float
    excess: LocalExcess
    global_p_value: float
    _pair: _Pair = field(repr=False, compare=False)

    @property
    def degrees_of_freedom(self) -> int:
        """Of `chi2`."""
        return self.bins_compared - 1

    @property
    def sculpts(self) -> bool:
        """Whether the shapes differ, or one interval stands out: a p-value is below 0.01."""
        return min(self.p_value, self.global_p_value) < _DOUBTFUL

    @property
    def verdict(self) -> str:
        """One sentence."""
        e = self.excess
        probable = "p < 0.001" if self.global_p_value < 1 / _TOYS else f"p = {self.global_p_value:.2g}"
        figures = (
            f"χ² = {self.chi2:.1f} of {self.degrees_of_freedom} degrees of freedom, p = {self.p_value:.2g}; largest local excess "
            f"{e.significance:.1f}σ at {e.low:g} to {e.high:g}, {100 * e.relative:+.0f} ± {100 * e.relative_error:.0f} %, "
            f"{probable} anywhere"
        )
        if not self.sculpts:
            return f"simulated background shows no sculpting of {self.observable} in {self.region}: {figures}"
        if self.global_p_value < _DOUBTFUL:
            return (
                f"region {self.region} makes an excess of simulated background in {self.observable}, so that one in data there is not "
                f"significant: {figures}"
            )
        return f"region {self.region} changes the shape of {self.observable} of simulated background: {figures}"

    def excess_in(self, low: float, high: float) -> LocalExcess:
        """Return the excess in an interval, by the bins that overlap with it, such as where a search has seen a bump in data.

        Raises
        ------
        ConfigError
            No bin overlaps with it, or simulation has nothing there.
        """
        place = np.flatnonzero((self.edges[1:] > low) & (self.edges[:-1] < high))
        if not len(place):
            raise ConfigError(f"{self.observable} has no bin between {low:g} and {high:g}")
        first, stop = int(place[0]), int(place[-1]) + 1
        excess, error, expected = (a[first, stop] for a in self._pair.intervals())
        if not (expected > 0 and error > 0):
            raise ConfigError(f"{self.region}: simulation has no background at {self.observable} {low:g} to {high:g}")
        return _local(self.edges, first, stop, excess, error, expected)


def sculpting(results: Results, observable: str, region: str, *, era: str | None = None, seed: int = 1) -> Sculpting:
    """Compare the shape of an observable of simulated background in a region with that of all other events with a score.

    The region is a part of the inclusive spectrum. What it is compared with is the rest, which shares no event with it, so that the
    two are independent.

    Parameters
    ----------
    results : Results
        Of `ad.load_results`. Data and signals are not looked at.
    observable : str
        A histogram of one observable, with one entry for each event: errors of several would be too small.
    region : str
    era : str, optional
        One only.
    seed : int
        Of the pseudo-experiments.

    Raises
    ------
    UnknownName
        There is no such region.
    ConfigError
        The results hold no simulated background, the region is no part of the inclusive spectrum, or simulation is too small.
    """
    part, whole = (_nominal(results, observable, name, era) for name in (region, "inclusive"))
    if len(part.axes) != 1:
        raise ConfigError(f"{observable} has {len(part.axes)} axes; sculpting is that of one observable")
    inside, v_inside = np.asarray(part.values(), np.float64), np.asarray(part.variances(), np.float64)
    outside = np.asarray(whole.values(), np.float64) - inside
    v_outside = np.asarray(whole.variances(), np.float64) - v_inside
    rounding = 1e-9 * np.asarray(whole.variances(), np.float64)
    cells = [results.regions_of(d) for d in results.report["datasets"] if observable in results.in_regions.get(d, {})]
    outsiders = any(not of.get(region, frozenset()) <= of.get("inclusive", frozenset()) for of in cells)
    if region == "inclusive" or outsiders or np.any(v_outside < -rounding):
        raise ConfigError(
            f"region {region} is no part of the inclusive spectrum of {observable}, so there is nothing to compare"
        )
    nothing = v_outside <= rounding
    outside, v_outside = np.where(nothing, 0.0, outside), np.where(nothing, 0.0, v_outside)
    edges = np.asarray(part.axes[0].edges, np.float64)
    return compare_shapes(edges, inside, v_inside, outside, v_outside, observable=observable, region=region, seed=seed)


def _nominal(results: Results, observable: str, region: str, era: str | None) -> hist.Hist:
    return sum_of([h[{"variation": "nominal"}] for h in results.background(observable, region, era=era).values()])


class _Pair:
    """Two independent weighted spectra that have one shape, if nothing sculpts.

    With the pooled content t = r + c of a bin and the region's part f = R/(R + C) of all, the residual d = (1 − f) r − f c of a
    bin has the variance (1 − f)² u_r f t + f² u_c (1 − f) t, where u = Σw²/Σw is the weight of an effective event. Of
    unweighted events, Σ d²/V is Pearson's χ² of two samples.
    """

    def __init__(self, inside: Float64s, v_inside: Float64s, outside: Float64s, v_outside: Float64s) -> None:
        self.weight_inside, self.weight_outside = _event_weight(inside, v_inside), _event_weight(outside, v_outside)
        self._set(inside, outside)

    def _set(self, inside: Float64s, outside: Float64s) -> None:
        self.total = np.maximum(inside + outside, 0.0)
        self.fraction = f = inside.sum(axis=-1, keepdims=True) / (inside + outside).sum(axis=-1, keepdims=True)
        self.share = self.total / self.total.sum(axis=-1, keepdims=True)
        self.residual = (1 - f) * inside - f * outside
        self.variance = self.total * f * (1 - f) * ((1 - f) * self.weight_inside + f * self.weight_outside)

    def effective(self) -> tuple[Float64s, Float64s]:
        """Return the expected effective events of each bin, inside and outside."""
        f = self.fraction
        return f * self.total / self.weight_inside, (1 - f) * self.total / self.weight_outside

    def intervals(self) -> tuple[Float64s, Float64s, Float64s]:
        """Return excess, its error and expectation of the region from each edge to each later one, (…, bins + 1, bins + 1)."""
        d, v, g = (_between(a) for a in (self.residual, self.variance, self.share))
        # the residuals of all bins add up to 0 by the definition of f, and the more of them an interval has, the less it is free
        spread = v - 2 * g * v + g**2 * self.variance.sum(axis=-1)[..., None, None]
        f = self.fraction[..., None]
        excess = d / (1 - f)  # r − α c with α = f / (1 − f)
        return excess, np.sqrt(np.maximum(spread, 0.0)) / (1 - f), f * _between(self.total) - f * excess

    def toys(self, n: int, rng: np.random.Generator) -> _Pair:
        """Return pseudo-experiments with one shape, (n, bins)."""
        inside, outside = self.effective()
        size = (n, len(self.total))
        out = object.__new__(_Pair)
        out.weight_inside, out.weight_outside = self.weight_inside, self.weight_outside
        out._set(rng.poisson(inside, size) * self.weight_inside, rng.poisson(outside, size) * self.weight_outside)
        return out


def _event_weight(content: Float64s, variance: Float64s) -> Float64s:
    """Return Σw²/Σw of every bin; that of the whole spectrum where a bin has nothing, or nothing positive."""
    mean = float(variance.sum() / content.sum())
    return np.where((content > 0) & (variance > 0), variance / np.where(content > 0, content, 1.0), mean)


def _between(values: Float64s) -> Float64s:
    reached = np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)
    return np.asarray(reached[..., None, :] - reached[..., :, None])


def _joined(enough: Float64s) -> list[int]:
    """Return where joined bins begin, so that each has 10 effective events; the last takes what is left."""
    starts, filled = [0], 0.0
    for i, n in enumerate(enough):
        if filled >= MIN_EFFECTIVE:
            starts.append(i)
            filled = 0.0
        filled += n
    return starts[:-1] if filled < MIN_EFFECTIVE and len(starts) > 1 else starts


def compare_shapes(
    edges: Float64s, inside: Float64s, v_inside: Float64s, outside: Float64s, v_outside: Float64s, *, observable: str = "observable",
    region: str = "region", seed: int = 1,
) -> Sculpting:  # fmt: skip
    """Compare two independent weighted spectra, as `sculpting` does.

    Parameters
    ----------
    edges : (bins + 1,)
    inside, v_inside, outside, v_outside : (bins,)
        Contents and sums of squared weights.
    observable, region : str
        For messages.
    seed : int

    Raises
    ------
    ConfigError
        One of them has too few effective events for two bins.

    References
    ----------
    N. D. Gagunashvili, arXiv:0905.4221 (weighted histograms).
    """
    from scipy.special import gammaincc

    for name, content, variance in ((f"region {region}", inside, v_inside), ("the other events", outside, v_outside)):
        n = float(content.sum()) ** 2 / max(float(variance.sum()), 1e-300) if content.sum() > 0 else 0.0
        if n < 2 * MIN_EFFECTIVE:
            raise ConfigError(
                f"{observable}: simulated background of {name} has {n:.1f} effective events; shapes of fewer than {2 * MIN_EFFECTIVE:g} "
                "cannot be compared"
            )
    pair = _Pair(inside, v_inside, outside, v_outside)
    starts = _joined(np.minimum(*pair.effective()))
    if len(starts) < 2:
        raise ConfigError(
            f"{observable}: region {region} and the other events do not share two bins with 10 effective events"
        )
    joined = _Pair(*(np.add.reduceat(a, starts) for a in (inside, v_inside, outside, v_outside)))
    chi2 = _chi2(joined)
    first, stop, best = _largest(pair)
    excess, error, expected = (a[first, stop] for a in pair.intervals())
    beyond = _toys_beyond(pair, best, np.random.default_rng(seed))
    scale = float(inside.sum() / outside.sum())
    return Sculpting(
        observable, region, edges, inside, outside * scale, chi2, len(starts), float(gammaincc(0.5 * (len(starts) - 1), 0.5 * chi2)),
        _local(edges, first, stop, excess, error, expected), (beyond + 1) / (_TOYS + 1), pair,
    )  # fmt: skip


def _chi2(pair: _Pair) -> float:
    """Return χ² of the residuals, whose sum is not free."""
    d, v, g = pair.residual, pair.variance, pair.share
    shift = float((g * d / v).sum() / (g**2 / v).sum())
    return float(((d - shift * g) ** 2 / v).sum())


def _significances(pair: _Pair, allowed_by: _Pair) -> Float64s:
    """Return excess over error of all intervals with 10 effective events in both spectra and no more than half of all bins."""
    excess, error, _ = pair.intervals()
    n = len(allowed_by.total)
    width = np.arange(n + 1)[None, :] - np.arange(n + 1)[:, None]
    filled = np.minimum(*(_between(a) for a in allowed_by.effective())) >= MIN_EFFECTIVE * (1 - 1e-9)
    allowed = (width > 0) & (width <= max(n // 2, 1)) & filled
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(allowed & (error > 0), excess / error, -np.inf)


def _toys_beyond(pair: _Pair, best: float, rng: np.random.Generator) -> int:
    """Return how many of the pseudo-experiments have an excess as significant; a few at a time, since each has bins² intervals."""
    block = max(_INTERVALS // len(pair.total) ** 2, 1)
    sizes = [min(block, _TOYS - start) for start in range(0, _TOYS, block)]
    return sum(int(np.sum(_significances(pair.toys(n, rng), pair).max(axis=(1, 2)) >= best)) for n in sizes)


def _largest(pair: _Pair) -> tuple[int, int, float]:
    values = _significances(pair, pair)
    first, stop = np.unravel_index(int(np.argmax(values)), values.shape)
    return int(first), int(stop), float(values[first, stop])


def _local(edges: Float64s, first: int, stop: int, excess: float, error: float, expected: float) -> LocalExcess:
    return LocalExcess(
        float(edges[first]),
        float(edges[stop]),
        float(expected + excess),
        float(expected),
        float(error),
        float(excess / error),
    )
