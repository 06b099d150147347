"""Thresholds on `ad_logp` that follow a spectator smoothly, so that the background efficiency does not depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.flatness import flatness, quantile_edges
from coffea_ad.scoring.domains import binned
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.scoring.working_points import MIN_EFFECTIVE, efficiency, tied
from coffea_ad.typing import Float64s
from coffea_ad.weights import n_effective

__all__ = ["FlatThresholds", "Rows", "exact_threshold", "flat_edges", "flat_regions", "flat_thresholds", "levelled"]

_BINS = 48
_MOST = 10  # coefficients
_LEFT = 16.0  # 4σ
_ROWS_A_BIN = 50
_PER_COEFFICIENT = 2 * MIN_EFFECTIVE
_BANDWIDTHS = (0.3, 0.15, 0.08)  # of ad_logp; a fit begins with the widest


class FlatThresholds(NamedTuple):
    """Thresholds in bins of a spectator, and how well they are known.

    Attributes
    ----------
    thresholds : (bins,)
    uncertainty : (bins, coefficients)
        Their covariance is uncertainty @ uncertainty.T.
    achieved, error : float
        Efficiency of the rows that derived them, and its statistical error.
    n_effective : float
        Effective rows that pass.
    unresolved : float
        By how much χ² would fall with one more function: 1 by chance, more where the rows do not carry what they show.
    """

    thresholds: Float64s
    uncertainty: Float64s
    achieved: float
    error: float
    n_effective: float
    unresolved: float

    @property
    def coefficients(self) -> int:
        """Of the smooth threshold; 1 is one threshold for all rows."""
        return int(self.uncertainty.shape[1])

    @property
    def errors(self) -> Float64s:
        """Statistical error of each threshold, (bins,), on ad_logp."""
        return np.asarray(np.sqrt(np.square(self.uncertainty).sum(axis=1)))


def exact_threshold(ad_logp: Any, weight: Any, eps: float) -> tuple[float, float, float, float]:
    """Return the value that a part of the weight reaches, its error, the effective number that passes and its efficiency.

    Parameters
    ----------
    ad_logp, weight : (n,)
    eps : float
        The part; where rows are tied, more may pass.

    Examples
    --------
    >>> exact_threshold(np.arange(10.0), np.ones(10), 0.2)[0]
    8.0
    """
    values = np.asarray(ad_logp)
    order = np.argsort(-values, kind="stable")
    reached = np.maximum.accumulate(np.cumsum(weight[order])) / weight.sum()  # weights may be negative
    threshold = float(values[order][min(int(np.searchsorted(reached, eps)), len(order) - 1)])
    achieved, error, n_eff = efficiency(values, weight, threshold)
    return threshold, error / (eps * np.log(10)), n_eff, achieved


def flat_edges(spectator: npt.ArrayLike, weight: npt.ArrayLike) -> Float64s:
    """Return the inner edges of the bins in which a smooth threshold is tabulated.

    They are finer in both tails than bins of equal population: equal steps of log(p/(1 − p)) with the part p of rows below, until
    twice `MIN_EFFECTIVE` effective rows are left.

    Parameters
    ----------
    spectator, weight : (n,)
        Finite.

    Raises
    ------
    ConfigError
        There are too few rows, or all have one value.
    """
    s, w = np.asarray(spectator, np.float64), np.asarray(weight, np.float64)
    n = n_effective(np.abs(w))
    end = np.log(n / (2 * MIN_EFFECTIVE)) if n > 0 else 0.0
    parts = 1 / (1 + np.exp(-np.linspace(-end, end, _BINS - 1)))
    edges = quantile_edges(s, w, parts) if end > 0 else np.zeros(0)
    if not len(edges):
        raise ConfigError(f"{n:.0f} effective rows with one value of the spectator, or too few, make no bins")
    return edges


def _basis(spectator: Float64s, weight: Float64s) -> Float64s:
    """Return Chebyshev polynomials of the normal score of every row, (n, _MOST + 2).

    That is where the row is among all, with tails of a Gaussian; the ends, of `MIN_EFFECTIVE` effective rows, are at ±1.
    """
    from scipy.special import ndtri

    values, inverse = np.unique(spectator, return_inverse=True)
    mass = np.bincount(inverse, np.abs(weight), len(values))
    rank = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    end = float(ndtri(max(1 - MIN_EFFECTIVE / n_effective(np.abs(weight)), 0.6)))
    z = np.clip(ndtri(rank) / end, -1, 1)[inverse]
    return np.asarray(np.polynomial.chebyshev.chebvander(z, _MOST + 1))


def flat_thresholds(
    ad_logp: npt.ArrayLike, weight: npt.ArrayLike, spectator: npt.ArrayLike, eps: float, edges: Sequence[float] | Float64s,
) -> FlatThresholds:  # fmt: skip
    """Derive a threshold that follows a spectator: quantile regression on a few smooth functions of it.

    With functions b(s) the threshold t(s) = Σ θ_k b_k(s) solves Σ w [1(ad_logp ≥ t(s)) − ε] b_k(s) = 0 for each k: the efficiency
    has no component along any of them. The steps are smoothed for Newton's method, and what that changes in the mean is
    corrected at the end. There are as many functions as lower Akaike's criterion, and never more than one for each
    2 `MIN_EFFECTIVE` effective rows that pass.

    Parameters
    ----------
    ad_logp, weight, spectator : (n,)
        Rows of the background, finite; weights may be negative.
    eps : float
        Background efficiency.
    edges : (bins − 1,)
        Inner edges in the spectator, where the threshold is tabulated: its mean over the rows of each bin.

    References
    ----------
    R. Koenker, G. Bassett, Econometrica 46 (1978) 33; X. He, X. Pan, K. M. Tan, W.-X. Zhou, arXiv:2012.05187 (smoothed).
    """
    v, w, s = (np.asarray(a, np.float64) for a in (ad_logp, weight, spectator))
    basis, place = _basis(s, w), binned(s, np.asarray(edges).tolist())
    start = exact_threshold(v, w, eps)[0]
    most = int(np.clip(eps * n_effective(w) / _PER_COEFFICIENT, 1, _MOST))
    theta = np.array([start])
    gain = _gains(basis, v, w, eps, theta)
    while len(theta) < most and (gain[0] > 2 or (len(theta) + 1 < most and gain[:2].sum() > 4)):
        theta = _fitted(basis[:, : len(theta) + 1], v, w, eps, np.append(theta, 0.0))
        gain = _gains(basis, v, w, eps, theta)
    used = basis[:, : len(theta)]
    n = len(edges) + 1
    mass = np.maximum(np.bincount(place, np.abs(w), n), 1e-300)
    table = np.stack([np.bincount(place, np.abs(w) * b, n) for b in used.T], axis=1) / mass[:, None]
    thresholds = table @ theta
    thresholds = thresholds + exact_threshold(v - thresholds[place], w, eps)[0]
    achieved, error, passing = efficiency(v - thresholds[place], w, 0.0)
    inverse = np.linalg.pinv(_hessian(used, v - thresholds[place], w))
    residual = w * ((v >= thresholds[place]) - eps)
    spread = np.linalg.cholesky(_positive((used * np.square(residual)[:, None]).T @ used))
    return FlatThresholds(thresholds, table @ inverse @ spread, achieved, error, passing, float(gain.max()))


def _positive(matrix: Float64s) -> Float64s:
    return np.asarray(matrix + 1e-12 * np.trace(matrix) * np.eye(len(matrix)))


def _hessian(basis: Float64s, above: Float64s, weight: Float64s) -> Float64s:
    """Return Σ w f b bᵀ, with the density f of ad_logp at the threshold of each row."""
    h = _BANDWIDTHS[-1]
    density = weight * np.exp(-0.5 * (above / h) ** 2) / (h * np.sqrt(2 * np.pi))
    return np.asarray((basis * density[:, None]).T @ basis)


def _fitted(basis: Float64s, v: Float64s, w: Float64s, eps: float, theta: Float64s) -> Float64s:
    """Solve the smoothed equations by Newton's method, with narrower and narrower steps."""
    from scipy.special import ndtr

    for h in _BANDWIDTHS:
        for _ in range(60):
            below = (basis @ theta - v) / h
            gradient = basis.T @ (w * ((1 - eps) - ndtr(below)))
            # positive, also where weights are not, so that steps go the right way
            density = np.abs(w) * np.exp(-0.5 * below**2) / (h * np.sqrt(2 * np.pi))
            step = np.linalg.lstsq((basis * density[:, None]).T @ basis, gradient, rcond=1e-9)[0]
            step *= min(1.0, 0.5 / max(float(np.abs(step).sum()), 1e-300))
            theta = theta + step
            if np.abs(step).max() < 1e-5:
                break
    return theta


def _gains(basis: Float64s, v: Float64s, w: Float64s, eps: float, theta: Float64s) -> Float64s:
    """Return by how much χ² would fall with each of the next functions, (2,): the squared component that is left, over its variance."""
    p = len(theta)
    used = basis[:, :p]
    above = v - used @ theta
    residual = w * ((above >= 0) - eps)
    inverse = np.linalg.pinv(_hessian(used, above, w))
    gains = np.zeros(2)
    for i, b in enumerate(basis.T[p : p + 2]):
        both = _hessian(np.column_stack([used, b]), above, w)
        rest = b - used @ (inverse @ both[:p, p])
        gains[i] = (residual @ rest) ** 2 / max(float(np.square(residual * rest).sum()), 1e-300)
    return gains


class Rows(NamedTuple):
    """Rows of the background with what thresholds are derived from, all (n,)."""

    ad_logp: Float64s
    weight: Float64s
    spectator: Float64s

    def defined(self) -> Rows:
        """Return the rows that have a score and the spectator."""
        some = np.isfinite(self.ad_logp) & np.isfinite(self.spectator)
        return Rows(*(np.asarray(column, np.float64)[some] for column in self))


def levelled(weight: npt.ArrayLike, spectator: npt.ArrayLike) -> Float64s:
    """Return weights that are on average the same at all values of a spectator: w / ⟨|w|⟩(s).

    An efficiency at given s does not change if rows are weighted by a function of s. Events that were made more often where they are rare,
    with small weights, then say as much of the threshold there as they can; and an efficiency that is flat is the same with either weights.

    Parameters
    ----------
    weight, spectator : (n,)
        Finite.

    Examples
    --------
    >>> levelled([4.0, 4.0, 4.0], [1.0, 2.0, 3.0])
    array([1., 1., 1.])
    """
    w, s = np.asarray(weight, np.float64), np.asarray(spectator, np.float64)
    n = int(np.clip(np.count_nonzero(w) // _ROWS_A_BIN, 1, _BINS))
    edges = np.unique(np.quantile(s[w != 0], np.arange(1, n) / n)) if w.any() else np.zeros(0)
    place = np.searchsorted(edges, s, side="right")
    mass, centre = (np.bincount(place, part, len(edges) + 1) for part in (np.abs(w), s))
    rows = np.bincount(place, w != 0, len(edges) + 1)
    some = (rows > 0) & (mass > 0)
    if not some.any():
        return w
    where = (centre / np.maximum(np.bincount(place, minlength=len(edges) + 1), 1))[some]
    return np.asarray(w / np.exp(np.interp(s, where, np.log(mass[some] / rows[some]))))


def flat_regions(
    rows: Rows, check: Rows, named: Sequence[tuple[str, float]], spectator: str, origin: str
) -> tuple[list[RegionSpec], list[str], dict[str, Any]]:
    """Make regions whose thresholds follow a spectator, and measure on other rows how flat their efficiencies are.

    Both with `levelled` weights.

    Parameters
    ----------
    rows, check : Rows
        Those that derive the thresholds, and others, perhaps none.
    named : sequence of (name, efficiency)
        Loose → tight.
    spectator, origin : str
        For the card.

    Returns
    -------
    regions : list of RegionSpec
    left_out : list of str
        A sentence for each efficiency without a region.
    about : {region: {"errors", "coefficients", "check", …}}
        The error of every threshold, and what the check gave.

    Raises
    ------
    ConfigError
        The rows make no bins of the spectator.
    """
    some, check = (
        part._replace(weight=levelled(part.weight, part.spectator)) for part in (rows.defined(), check.defined())
    )
    try:
        edges = flat_edges(some.spectator, some.weight)
    except ConfigError as error:
        raise ConfigError(f"thresholds cannot follow {spectator}: {error}") from None
    written: list[RegionSpec] = []
    left_out: list[str] = []
    about: dict[str, Any] = {}
    for label, eps in named:
        flat = flat_thresholds(*some, eps, edges)
        if reason := _unfit(flat, some, eps, spectator, edges):
            left_out.append(f"region {label} is not written: {reason}")
            continue
        # a region lies inside the looser ones, also where their thresholds cross by chance; and no threshold is out of reach
        floor = np.asarray(written[-1].thresholds) if written else -np.inf
        reachable = np.minimum(flat.thresholds, some.ad_logp.max())
        region = RegionSpec(
            name=label, efficiency=eps, thresholds=tuple(np.maximum(reachable, floor).tolist()),
            error=float(flat.errors.max()), n_effective=flat.n_effective / flat.coefficients, derived_from=origin,
            spectator=spectator, edges=tuple(edges.tolist()),
        )  # fmt: skip
        written.append(region)
        about[label] = {
            "errors": flat.errors.tolist(),
            "coefficients": flat.coefficients,
            **_checked(region, check, flat),
        }
    return written, left_out, about


def _unfit(flat: FlatThresholds, rows: Rows, eps: float, spectator: str, edges: Float64s) -> str:
    """Say why thresholds make no region of an efficiency; nothing if they do."""
    if eps * n_effective(rows.weight) < 2 * _PER_COEFFICIENT or flat.n_effective < _PER_COEFFICIENT:
        return (
            f"it would rest on {flat.n_effective:.1f} effective background objects, and a threshold that follows {spectator} takes "
            f"{2 * _PER_COEFFICIENT:g}"
        )
    if abs(flat.achieved - eps) > 3 * flat.error:
        return tied(flat.achieved, eps)
    if flat.unresolved > _LEFT:
        return (
            f"{flat.n_effective:.1f} effective background objects pass, too few for as many coefficients as its threshold in {spectator} "
            "needs to follow"
        )
    largest, place = float(rows.ad_logp.max()), binned(rows.spectator, edges.tolist())
    beyond = (flat.thresholds > largest)[place]
    if eps * n_effective(rows.weight[beyond]) > MIN_EFFECTIVE:  # of fewer nothing can be seen
        return (
            f"its threshold in {spectator} would be {flat.thresholds.max():.2f}, beyond the largest ad_logp of the background, "
            f"{largest:.2f}; a calibration on more rows tells them apart, and --domain derives one"
        )
    return ""


def _checked(region: RegionSpec, check: Rows, flat: FlatThresholds) -> dict[str, Any]:
    """Return what a card says of the efficiency on rows that did not derive the thresholds."""
    if not len(check.ad_logp):
        return {"check": "there are no rows that did not derive it"}
    try:
        measured = flatness(*check, region, uncertainty=flat.uncertainty)
    except ConfigError as error:
        return {"check": str(error)}
    return {
        "check": f"{measured}, on rows that did not derive it",
        "chi2": measured.chi2,
        "bins": measured.bins,
        "p_value": measured.p_value,
        "edges": measured.edges.tolist(),
        "efficiency": measured.efficiency.tolist(),
        "efficiency_error": measured.error.tolist(),
    }
