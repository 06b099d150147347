"""Inputs on common scales, fitted to weighted background rows: what simple baselines take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = ["Standardised", "ZScores"]

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
