"""The look-elsewhere effect: from the largest significances of pseudo-experiments to global p-values, and to numbers of trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import log_ndtr, ndtr
from scipy.stats import kstwo

from coffea_ad.typing import Float64s

__all__ = ["Global", "Trials", "fit_trials", "global_p"]

_DOUBTFUL = 0.01  # KS p-value of the fitted tail
_ENOUGH = 10  # pseudo-experiments above, for a p-value by counting


class Trials(NamedTuple):
    """The distribution of the largest significance of a search without signal.

        P(Z_max ≥ z) = 1 − exp(−u e^(−c z²/2)) Φ(z)^c

    For a likelihood ratio c = 1: then u is the expected number of upward crossings of 0. Windows of few events, and
    backgrounds that were fitted to these very events, have local significances of another scale, and so another c.

    Attributes
    ----------
    u, c : float
    covariance : (2, 2) float64
        Of ln u and ln c.
    above : int
        Pseudo-experiments above the median, to which both are fitted.
    ks_p : float
        Kolmogorov–Smirnov p-value of these; small where the form is wrong.
    """

    u: float
    c: float
    covariance: Float64s
    above: int
    ks_p: float

    def p_value(self, z: float) -> float:
        """Return the probability of a larger largest significance."""
        return float(-np.expm1(self.c * log_ndtr(z) - self.u * np.exp(-self.c * z**2 / 2)))

    def p_error(self, z: float) -> float:
        """Return the statistical error of `p_value`, from the number of pseudo-experiments it is fitted to."""
        fall = self.u * np.exp(-self.c * z**2 / 2)
        slope = np.exp(self.c * log_ndtr(z) - fall) * fall * np.array([1.0, -self.c * z**2 / 2])
        return (
            float(np.sqrt(max(slope @ self.covariance @ slope, 0.0)))
            if np.isfinite(self.covariance).all()
            else float("inf")
        )

    def number(self, z: float) -> float:
        """Return the number of trials at a local significance: global p-value over local one."""
        return self.p_value(z) / float(ndtr(-z))

    def local_for(self, z_global: float) -> float:
        """Return the local significance that a global one needs.

        >>> round(Trials(10.0, 1.0, np.zeros((2, 2)), 500, 0.5).local_for(5.0), 2)
        5.89
        """
        wanted, high = float(ndtr(-z_global)), 1.0
        while self.p_value(high) > wanted:
            high *= 2
        return float(brentq(lambda z: np.log(self.p_value(z) / wanted), -3.0, high)) if self.u > 0 else z_global


def fit_trials(largest: Float64s) -> Trials:
    """Fit the distribution of the largest significance to that of pseudo-experiments: its upper half, by likelihood.

    Parameters
    ----------
    largest : (T,) float64
        −∞ where nothing was above its expectation.

    References
    ----------
    E. Gross, O. Vitells, "Trial factors for the look elsewhere effect in high energy physics", arXiv:1005.1891.

    Examples
    --------
    >>> z = np.random.default_rng(1).normal(size=(2000, 50)).max(axis=1)
    >>> trials = fit_trials(z)
    >>> 0.8 < trials.p_value(3.5) / (1 - (1 - 2.326e-4) ** 50) < 1.3
    True
    """
    z = np.sort(largest[np.isfinite(largest)])
    if len(z) < 2:
        return Trials(0.0, 1.0, np.full((2, 2), np.inf), len(z), float("nan"))
    cut = float(np.median(largest)) if np.isfinite(np.median(largest)) else (float(z[0]) if len(z) else 0.0)
    cut = max(cut, 0.0)
    upper = z[z > cut]
    below = len(largest) - len(upper)
    if len(upper) < 2:
        return Trials(0.0, 1.0, np.full((2, 2), np.inf), len(upper), float("nan"))

    def objective(parameters: Float64s) -> float:
        u, c = np.exp(parameters)
        fall = np.exp(-c * upper**2 / 2)
        density = np.log(c) + np.log(np.exp(-(upper**2) / 2 - log_ndtr(upper)) / np.sqrt(2 * np.pi) + u * upper * fall)
        log = density + c * log_ndtr(upper) - u * fall
        return -float(log.sum() + below * (c * log_ndtr(cut) - u * np.exp(-c * cut**2 / 2)))

    best = minimize(
        objective, np.array([np.log(5.0), 0.0]), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}
    )
    u, c = (float(v) for v in np.exp(best.x))
    trials = Trials(u, c, _covariance(objective, best.x), len(upper), float("nan"))
    at_cut = trials.p_value(cut)
    uniform = np.sort([1 - trials.p_value(v) / at_cut for v in upper])
    steps = np.arange(1, len(upper) + 1) / len(upper)
    distance = max(float(np.max(steps - uniform)), float(np.max(uniform - steps + 1 / len(upper))))
    return trials._replace(ks_p=float(kstwo.sf(distance, len(upper))))


def _covariance(objective: Callable[[Float64s], float], at: Float64s, step: float = 1e-3) -> Float64s:
    """Return the inverse of the second derivatives of −ln L."""
    second = np.empty((2, 2))
    for i in range(2):
        for j in range(2):
            di, dj = step * np.eye(2)[i], step * np.eye(2)[j]
            second[i, j] = (
                objective(at + di + dj) - objective(at + di - dj) - objective(at - di + dj) + objective(at - di - dj)
            ) / (4 * step**2)
    try:
        return np.asarray(np.linalg.inv(second))
    except np.linalg.LinAlgError:
        return np.full((2, 2), np.inf)


class Global(NamedTuple):
    """A global p-value.

    Attributes
    ----------
    p_value, error : float
    by : "counting" or "tail"
        Pseudo-experiments above, or the fitted distribution of their largest significances where too few are.
    above, toys : int
    """

    p_value: float
    error: float
    by: str
    above: int
    toys: int


def global_p(z: float, largest: Float64s, trials: Trials | None = None) -> Global:
    """Return the probability that the largest significance is at least z without a signal.

    Parameters
    ----------
    z : float
        Of the data.
    largest : (T,) float64
        Of pseudo-experiments.
    trials : Trials, optional
        As fitted to them; by default it is fitted here.
    """
    toys = len(largest)
    above = int((largest >= z - 1e-9).sum())
    if above >= _ENOUGH or not np.isfinite(z):
        p = (above + 1) / (toys + 1)
        return Global(p, float(np.sqrt(p * (1 - p) / toys)), "counting", above, toys)
    fitted = fit_trials(largest) if trials is None else trials
    if not fitted.ks_p > _DOUBTFUL:  # the form is wrong, and what it says of the tail as well: an upper end is known
        p = (above + 1) / (toys + 1)
        return Global(p, p / np.sqrt(above + 1), "counting", above, toys)
    p = fitted.p_value(z)
    return Global(p, fitted.p_error(z), "tail", above, toys)
