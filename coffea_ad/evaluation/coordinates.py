"""Coordinates of inputs, fitted to weighted background rows, and anomalies that are made in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s

__all__ = ["Standardised", "ZScores", "core_and_narrow"]

_KNOTS = 256


class Standardised:
    """Inputs less their weighted mean, over their weighted standard deviation; constant columns become 0.

    Parameters
    ----------
    x : (n, columns)
    weight : (n,)
        Not negative.
    """

    def __init__(self, x: npt.NDArray[Any], weight: Float64s) -> None:
        self.mean = np.average(x, axis=0, weights=weight)
        width = np.sqrt(np.average((x - self.mean) ** 2, axis=0, weights=weight))
        self.scale = np.divide(1.0, width, out=np.zeros(len(width)), where=width > 0)

    def __call__(self, x: npt.NDArray[Any]) -> Float64s:
        """Transform rows, (n, columns)."""
        return np.asarray((x - self.mean) * self.scale)


class ZScores:
    """Inputs mapped to a standard normal by their weighted mid-ranks, linear between knots and beyond them.

    scikit-learn's transformer saturates at |z| = 5.2: all rows beyond the training range get one value, and the
    strongest anomalies cannot be told apart. Here the outermost slopes go on. Columns with fewer than three different
    values are standardised.

    Parameters
    ----------
    x : (n, columns)
    weight : (n,)
        Not negative.
    """

    def __init__(self, x: npt.NDArray[Any], weight: Float64s) -> None:
        self.plain = Standardised(x, weight)
        self.knots = [self._knots(np.asarray(column, np.float64), weight) for column in x.T]

    @staticmethod
    def _knots(x: Float64s, weight: Float64s) -> tuple[Float64s, Float64s] | None:
        from scipy.special import ndtri

        values, inverse = np.unique(x, return_inverse=True)
        mass = np.bincount(inverse, weight)
        values, mass = values[mass > 0], mass[mass > 0]
        if len(values) < 3:
            return None
        z = ndtri((np.cumsum(mass) - 0.5 * mass) / mass.sum())
        if len(values) <= _KNOTS:
            return values, z
        # Single rows at the ends must not decide the slopes of what lies beyond.
        grid = np.linspace(z[len(z) // 1000], z[-1 - len(z) // 1000], _KNOTS)
        knots, first = np.unique(np.interp(grid, z, values), return_index=True)
        return (knots, grid[first]) if len(knots) > 2 else None

    def __call__(self, x: npt.NDArray[Any]) -> Float64s:
        """Transform rows, (n, columns)."""
        out = self.plain(x)
        for i, knots in enumerate(self.knots):
            if knots is not None:
                at, z = knots
                column = np.asarray(x[:, i], np.float64)
                k = max(1, len(at) // 10)
                left, right = (z[k] - z[0]) / (at[k] - at[0]), (z[-1] - z[-1 - k]) / (at[-1] - at[-1 - k])
                beyond = np.minimum(column - at[0], 0) * left + np.maximum(column - at[-1], 0) * right
                out[:, i] = np.interp(column, at, z) + beyond
        return out


def _quantiles(x: npt.NDArray[Any], weight: Float64s, probabilities: Sequence[float]) -> Float64s:
    """Return weighted quantiles of every column, (probabilities, columns)."""
    columns = [
        np.quantile(np.asarray(c, np.float64), probabilities, weights=weight, method="inverted_cdf") for c in x.T
    ]
    return np.stack(columns, axis=1)


def core_and_narrow(x: npt.NDArray[Any], train: npt.NDArray[Any], weight: Float64s) -> dict[str, npt.NDArray[Any]]:
    """Make two anomalies that are simpler than the background, from its own rows.

    With z = (x − median)/σ, the weighted median of a column and half its central 68 %: `core` is z → 0.35 z, inside the
    background, and `narrow` is z → 1 + 0.1 z, a small blob off its centre. A reconstruction error that is small for
    whatever is simple misses the first.

    Parameters
    ----------
    x : (n, columns)
        Background rows to be changed.
    train : (m, columns)
        Background rows that give median and σ.
    weight : (m,)
        Rows with negative weights are left out of these.

    Returns
    -------
    {"core": (n, columns), "narrow": (n, columns)}

    Raises
    ------
    ConfigError
        The rows are not flat, or none has a positive weight.

    References
    ----------
    T. Finke et al., "Autoencoders for unsupervised anomaly detection in high energy physics", arXiv:2104.09051, on
    what an autoencoder takes for simple.

    Examples
    --------
    >>> rows = np.linspace(-1, 1, 1001)[:, None]
    >>> float(core_and_narrow(np.array([[1.0]]), rows, np.ones(1001))["core"].round(2)[0, 0])
    0.35
    """
    if x.ndim != 2:
        raise ConfigError(f"rows of shape {x.shape[1:]} have no simpler twins; only flat inputs have")
    keep = weight > 0
    if not keep.any():
        raise ConfigError("there are no background rows with a positive weight to take a median of")
    low, median, high = _quantiles(train[keep], weight[keep], (0.16, 0.5, 0.84))
    distance, sigma = x - median, 0.5 * (high - low)
    made = {"core": median + 0.35 * distance, "narrow": median + sigma + 0.1 * distance}
    return {name: rows.astype(x.dtype) for name, rows in made.items()}
