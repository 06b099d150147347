"""How much a cut on a score changes the spectrum of a mass, which a search looks for bumps in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.curves import MIN_EFFECTIVE, rising
from coffea_ad.typing import Float64s
from coffea_ad.weights import n_effective

__all__ = ["Divergence", "Sculpting", "distance_correlation", "jensen_shannon", "rank_correlation", "sculpting"]

_RANDOM_CUTS = 200
_SHUFFLES = 5


@dataclass(frozen=True)
class Divergence:
    """Jensen-Shannon divergence of the mass spectrum before and after a cut, and that of random cuts.

    Attributes
    ----------
    value : float
        Bit; NaN if fewer than `curves.MIN_EFFECTIVE` effective rows pass.
    random, random_error : float
        Mean and standard deviation for cuts at random that leave as many effective rows.
    n_effective : float
        Of the rows that pass.
    """

    value: float
    random: float
    random_error: float
    n_effective: float


@dataclass(frozen=True)
class Sculpting:
    """Dependence of a mass on a score, of background.

    Attributes
    ----------
    divergence : {ε_B: Divergence}
    distance_correlation, distance_correlation_random : float
        Of the ranks of score and mass, and its mean when the rows are shuffled.
    rank_correlation : float
        Spearman's.
    edges, before, after : (bins + 1,), (bins,), {ε_B: (bins,)}
        The spectra, normalised to 1.
    """

    divergence: Mapping[float, Divergence]
    distance_correlation: float
    distance_correlation_random: float
    rank_correlation: float
    edges: Float64s
    before: Float64s
    after: Mapping[float, Float64s]


def jensen_shannon(p: npt.ArrayLike, q: npt.ArrayLike) -> Float64s:
    """Jensen-Shannon divergence of two spectra, to the base 2: 0 if they are equal, 1 if they do not overlap.

    H((p + q)/2) − (H(p) + H(q))/2 with the entropy H.

    Parameters
    ----------
    p, q : (…, bins)
        Contents; they need not be normalised. Bins that negative weights make negative count as empty.

    Returns
    -------
    (…,)

    References
    ----------
    J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37 (1991) 145.

    Examples
    --------
    >>> jensen_shannon([1, 1, 0, 0], [[1, 1, 0, 0], [0, 0, 1, 1]])
    array([0., 1.])
    """

    def entropy(a: Float64s) -> Float64s:
        return np.asarray(-np.sum(a * np.log2(np.where(a > 0, a, 1.0)), axis=-1))

    first, second = (np.maximum(np.asarray(a, np.float64), 0.0) for a in (p, q))
    first, second = (a / a.sum(axis=-1, keepdims=True) for a in (first, second))
    return np.asarray(np.maximum(entropy(0.5 * (first + second)) - 0.5 * (entropy(first) + entropy(second)), 0.0))


def _rank(x: Float64s, w: Float64s) -> Float64s:
    """Return weighted mid-ranks between 0 and 1; they never fall, also where weights are negative."""
    values, inverse = np.unique(x, return_inverse=True)
    mass = np.bincount(inverse, w, len(values))
    return np.asarray(rising((np.cumsum(mass) - 0.5 * mass) / mass.sum())[inverse])


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Spearman's correlation of weighted rows: Pearson's correlation of their weighted mid-ranks.

    Parameters
    ----------
    x, y : (n,)
    weight : (n,), optional
        Negative ones are subtracted.

    Returns
    -------
    float
        NaN if one of them is constant, or if weights leave no variance.

    Examples
    --------
    >>> rank_correlation([1, 2, 3], [1, 8, 27])
    1.0
    """
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    w = np.ones(len(a)) if weight is None else np.asarray(weight, np.float64)
    w = w / w.sum()
    ranks = np.stack([_rank(a, w), _rank(b, w)])
    centred = ranks - (ranks @ w)[:, None]
    covariance = (centred * w) @ centred.T
    if not (covariance.diagonal() > 0).all():
        return float("nan")
    return float(np.round(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]), 12))


def _centred(x: Float64s, w: Float64s) -> Float64s:
    distance = np.abs(x[:, None] - x[None, :])
    row = distance @ w
    return np.asarray(distance - row[:, None] - row[None, :] + w @ row)


def distance_correlation(x: npt.ArrayLike, y: npt.ArrayLike, weight: npt.ArrayLike | None = None) -> float:
    """Distance correlation of weighted rows: 0 for independent numbers, 1 for numbers that fix each other linearly.

    dCor² = ⟨AB⟩/√(⟨AA⟩⟨BB⟩) with the doubly centred distances A_ij of x and B_ij of y, averaged with w_i w_j. A
    finite sample of independent numbers does not give 0 but of the order n^(−1/2). Memory goes with n².

    Parameters
    ----------
    x, y : (n,)
    weight : (n,), optional
        Negative ones are subtracted.

    Returns
    -------
    float
        NaN if one of them is constant, or if weights leave no variance.

    References
    ----------
    G. J. Székely, M. L. Rizzo, N. K. Bakirov, "Measuring and testing dependence by correlation of distances",
    arXiv:0803.4101; G. Kasieczka, D. Shih, "DisCo fever: robust networks through distance correlation",
    arXiv:2001.05310.

    Examples
    --------
    >>> distance_correlation([1, 2, 3, 4], [2, 4, 6, 8])
    1.0
    """
    a = np.asarray(x, np.float64)
    w = np.ones(len(a)) if weight is None else np.asarray(weight, np.float64)
    w = w / w.sum()
    return _correlation(_centred(a, w), _centred(np.asarray(y, np.float64), w), w)


def _correlation(a: Float64s, b: Float64s, w: Float64s) -> float:
    ab, aa, bb = (float(w @ (first * second) @ w) for first, second in ((a, b), (a, a), (b, b)))
    return float(np.round(np.sqrt(max(ab, 0.0) / np.sqrt(aa * bb)), 12)) if min(aa, bb) > 0 else float("nan")


def _passing(score: Float64s, weight: Float64s, eps: float) -> Float64s:
    """Return the weights of the rows after a cut; those of a tied score at the threshold are scaled to fill it up."""
    values, inverse = np.unique(-score, return_inverse=True)
    mass = np.bincount(inverse, weight, len(values))
    reached = np.cumsum(mass)
    target = eps * reached[-1]
    # The first of tied scores to reach the target: its weight is positive, whatever the signs of single rows.
    place = int(np.argmax(reached >= target * (1 - 1e-12)))
    part = (target - (reached[place] - mass[place])) / mass[place]
    return np.where(inverse < place, weight, np.where(inverse == place, weight * min(max(part, 0.0), 1.0), 0.0))


def _quantiles(x: Float64s, weight: Float64s, probabilities: Float64s) -> Float64s:
    """Return the smallest values with at least these shares of the weight, of either sign, below or at them."""
    values, inverse = np.unique(x, return_inverse=True)
    mass = np.bincount(inverse, weight, len(values))
    below = rising(np.cumsum(mass) / mass.sum())
    return np.asarray(values[np.minimum(np.searchsorted(below, probabilities * (1 - 1e-12)), len(values) - 1)])


def _divergence(
    before: Float64s, passing: Float64s, bin_of: npt.NDArray[Any], eps: float, rng: np.random.Generator
) -> tuple[Divergence, Float64s]:
    after = np.maximum(np.bincount(bin_of, passing, len(before)), 0.0)
    n_eff = n_effective(passing)
    if n_eff < MIN_EFFECTIVE * (1 - 1e-9):
        return Divergence(float("nan"), float("nan"), float("nan"), n_eff), after / max(after.sum(), 1e-300)
    # What passes is a part of the whole, so it differs less from it than an independent sample of its size would.
    size = max(round(n_eff / (1 - eps)), 1)
    random = jensen_shannon(before, rng.multinomial(size, before / before.sum(), _RANDOM_CUTS))
    value = float(jensen_shannon(before, after))
    return Divergence(value, float(random.mean()), float(random.std(ddof=1)), n_eff), after / after.sum()


def sculpting(
    score: npt.ArrayLike,
    mass: npt.ArrayLike,
    weight: npt.ArrayLike | None = None,
    *,
    cuts: Sequence[float] = (0.1, 0.01),
    bins: int = 20,
    rows: int = 2000,
    seed: int = 1,
) -> Sculpting:
    """Measure how a cut on a score changes a mass spectrum, of background.

    The bins hold equal shares of the uncut spectrum. Correlations are those of ranks, which no rising function of the
    score changes.

    Parameters
    ----------
    score, mass : (n,)
        Rows where one of them is not finite are left out.
    weight : (n,), optional
        Negative ones are subtracted.
    cuts : sequence of float
        ε_B of the cuts.
    bins : int
    rows : int
        At most so many rows, drawn at random, go into the distance correlation.
    seed : int

    Returns
    -------
    Sculpting

    Raises
    ------
    ConfigError
        Fewer than two rows are left, or their weights do not sum to something positive.

    Examples
    --------
    >>> mass = np.linspace(0, 1, 2000)
    >>> measured = sculpting(mass, mass)
    >>> round(measured.divergence[0.1].value, 2), measured.rank_correlation  # two of twenty bins are left
    (0.76, 1.0)
    """
    s, m = np.asarray(score, np.float64), np.asarray(mass, np.float64)
    w = np.ones(len(s)) if weight is None else np.asarray(weight, np.float64)
    keep = np.isfinite(s) & np.isfinite(m) & (w != 0)
    s, m, w = s[keep], m[keep], w[keep]
    if len(s) < 2 or not w.sum() > 0:
        raise ConfigError("sculpting needs two rows with score, mass and a positive sum of weights")
    rng = np.random.default_rng(seed)
    edges = np.unique(_quantiles(m, w, np.linspace(0, 1, bins + 1)))
    edges = edges if len(edges) > 1 else np.append(edges, np.nextafter(edges, np.inf))
    bin_of = np.clip(np.searchsorted(edges, m, side="right") - 1, 0, len(edges) - 2)
    before = np.maximum(np.bincount(bin_of, w, len(edges) - 1), 0.0)
    divergences = {eps: _divergence(before, _passing(s, w, eps), bin_of, eps, rng) for eps in cuts}
    some = rng.choice(len(s), min(rows, len(s)), replace=False)
    x, y, share = _rank(s, w)[some], _rank(m, w)[some], w[some] / w[some].sum()
    a, b = _centred(x, share), _centred(y, share)
    # Weights stay with the mass: shuffled scores are those of a cut at random.
    shuffled = [rng.permutation(len(x)) for _ in range(_SHUFFLES)]
    random = [_correlation(_centred(x[order], share), b, share) for order in shuffled]
    return Sculpting(
        divergence={eps: d for eps, (d, _) in divergences.items()},
        distance_correlation=_correlation(a, b, share),
        distance_correlation_random=float(np.mean(random)),
        rank_correlation=rank_correlation(s, m, w),
        edges=edges,
        before=before / before.sum(),
        after={eps: spectrum for eps, (_, spectrum) in divergences.items()},
    )
