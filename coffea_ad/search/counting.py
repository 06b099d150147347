"""Upper limits by counting events."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import poisson

from coffea_ad.errors import ConfigError
from coffea_ad.search.asymptotic import LEVEL, asymptotic_limit
from coffea_ad.search.channels import Channel, Sample
from coffea_ad.typing import Float64s

__all__ = ["counting_limit"]

_BANDS = (-2.0, -1.0, 0.0, 1.0, 2.0)
_DRAWS = 2000  # of the background within its error
_RARE = 1e-6  # probability of as few events by the background alone, below which ratios of sums are not exact
_MANY = 500.0  # events, from which counting has the asymptotic form


def counting_limit(
    events: float, background: float, error: float, level: float = LEVEL, *, signal_error: float = 0.0
) -> tuple[float, tuple[float, ...]]:
    """Return the observed and the expected upper limits on a number of signal events, by counting.

        CLs(s) = ⟨P(≤ n | s ε + b)⟩ / ⟨P(≤ n | b)⟩

    where b is averaged over its normal error, cut off at 0, and ε over a log-normal one around 1. This is exact for few events, where asymptotic
    formulae are not. With a large background, and for numbers far below it, the limit is the asymptotic one of one bin.

    Parameters
    ----------
    events, background, error : float
        Observed, and expected without a signal, with its standard deviation.
    level : float
        1 − confidence level.
    signal_error : float
        Relative, of what is expected of a signal.

    Returns
    -------
    observed : float
    expected : tuple of 5 floats
        Median, ∓ 1 and 2 standard deviations, rising.

    Raises
    ------
    ConfigError
        A number is not finite or below 0.
    FitFailed
        As for `asymptotic_limit`, with many events.

    Examples
    --------
    >>> observed, expected = counting_limit(0, 1e-6, 0.0)
    >>> round(observed, 2)
    3.0
    """
    numbers = {"events": events, "background": background, "its error": error, "the signal's error": signal_error}
    for what, value in numbers.items():
        if not (np.isfinite(value) and value >= 0):
            raise ConfigError(f"counting: {what} must be a number of 0 or more, not {value:g}")
    b = np.maximum(background + error * _normal(), 1e-9)
    n = float(np.floor(events))
    efficiency = np.exp(np.log1p(signal_error) * _normal()[_shuffled()])
    many = background > _MANY
    if many or poisson.cdf(n, b).mean() < _RARE:
        observed = asymptotic_limit(_one_bin(n, max(background, 1e-3), error, signal_error), background, error, level)[
            0
        ]
    else:
        observed = _counting(n, b, efficiency, level)
    if many:  # of what is expected before there are data: a fit to data would have its bands move with them
        return observed, asymptotic_limit(
            _one_bin(background, background, error, signal_error), background, error, level
        )[1]
    quantiles = _usual(b)
    limits = {k: _counting(k, b, efficiency, level) for k in set(quantiles)}
    return observed, tuple(limits[k] for k in quantiles)


def _counting(n: float, b: Float64s, efficiency: Float64s, level: float) -> float:
    null = poisson.cdf(n, b).mean()
    low, high = 0.0, (n + 10 * np.sqrt(n + 1) + 10) / float(efficiency.min())
    while high - low > 1e-4 * high:
        s = (low + high) / 2
        low, high = (s, high) if poisson.cdf(n, b + s * efficiency).mean() / null > level else (low, s)
    return float(high)


def _usual(b: Float64s) -> list[float]:
    """Return the quantiles of the number of events without a signal, at the standard deviations of the bands."""
    out = []
    for z in _BANDS:
        wanted = ndtr(z)
        low, high = -1, int(b.max() + 10 * np.sqrt(b.max()) + 10)
        while high - low > 1:
            k = (low + high) // 2
            low, high = (low, k) if poisson.cdf(k, b).mean() >= wanted else (k, high)
        out.append(float(high))
    return out


def _one_bin(events: float, background: float, error: float, signal_error: float) -> Channel:
    b = np.array([background])
    up, down = b + error, np.maximum(b - error, 1e-3 * b)
    norm = {"signal_yield": (1 / (1 + signal_error), 1 + signal_error)} if signal_error > 0 else {}
    samples = {
        "background": Sample(b, np.zeros(1), variations={"background": (up, down)} if error > 0 else {}),
        "signal": Sample(np.ones(1), np.zeros(1), signal=True, norm=norm),
    }
    return Channel("region", np.array([0.0, 1.0]), np.array([events]), samples)


def _normal() -> Float64s:
    """Return the quantiles of a normal distribution at equal parts of it: as draws, without their fluctuation."""
    return np.asarray(ndtri((np.arange(_DRAWS) + 0.5) / _DRAWS))


def _shuffled() -> Any:
    """Return an order in which equal parts of one distribution meet all parts of another: multiples of the golden ratio."""
    return np.argsort(np.arange(_DRAWS) * 0.6180339887498949 % 1.0)
