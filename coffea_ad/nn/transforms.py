"""Preprocessing that lives inside the model, and so inside the exported graph."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from coffea_ad.errors import SkimError
from coffea_ad.weights import n_effective

__all__ = ["QuantileNormal", "Transform"]

_SEGMENTS = 256  # a power of two: the search below halves it
_FAR = 3.0e38


class Transform(nn.Module):
    """A preprocessing x → z that is fitted to the training rows, column by column.

    Attributes
    ----------
    low, high : (features,)
        The range of z that the training rows cover; the box of Markov chains.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("low", torch.full((features,), -4.0))
        self.register_buffer("high", torch.full((features,), 4.0))
        self.low: Tensor
        self.high: Tensor

    def fit(self, x: npt.NDArray[np.float32], weight: npt.NDArray[np.float64]) -> Self:
        """Learn from finite rows, (n, features), with weights that are not negative, (n,)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        raise NotImplementedError


class QuantileNormal(Transform):
    """Map every feature to a standard normal by its quantiles: piecewise linear in x, linear tails.

    z(x) = Φ⁻¹(F(x)) with the weighted mid-rank distribution F, so that tied values share one z; between knots
    z is linear in x, and beyond the last knots it goes on with the mean slope of the outermost segments, so that two
    anomalies beyond the training range stay distinguishable. The segment is found by an unrolled binary search, since
    `torch.searchsorted` has no ONNX form.

    Parameters
    ----------
    features : int
        Number of columns.

    Examples
    --------
    >>> import torch
    >>> x = torch.linspace(0, 1, 1001)[:, None] ** 2
    >>> transform = QuantileNormal(1).fit(x.numpy(), np.ones(1001))
    >>> transform(torch.tensor([[0.25]])).abs().item() < 0.01  # the median goes to 0
    True
    """

    def __init__(self, features: int) -> None:
        super().__init__(features)
        for name in ("x0", "z0", "slope"):
            self.register_buffer(name, torch.zeros(features * _SEGMENTS))  # flat: shared by all steps of the graph
        self.x0: Tensor
        self.z0: Tensor
        self.slope: Tensor

    def fit(self, x: npt.NDArray[np.float32], weight: npt.NDArray[np.float64]) -> Self:
        """Set the knots.

        Parameters
        ----------
        x : (n, features) float32
            Finite rows.
        weight : (n,) float64
            Not negative.

        Raises
        ------
        SkimError
            A column is constant, or rows are not flat.
        """
        if x.ndim != 2:
            raise SkimError(
                f"rows of shape {x.shape[1:]} cannot be transformed column by column; this model takes flat rows"
            )
        for i in range(self.features):
            knots_x, knots_z = self._knots(np.asarray(x[:, i], np.float64), weight, i)
            slopes = np.diff(knots_z) / np.diff(knots_x)
            mine, n = slice(i * _SEGMENTS, (i + 1) * _SEGMENTS), len(slopes)
            for table, unused, values in (
                (self.x0, _FAR, knots_x[:-1]),
                (self.z0, 0.0, knots_z[:-1]),
                (self.slope, 0.0, slopes),
            ):
                table[mine] = unused
                table[mine][:n] = torch.from_numpy(values)
            self.low[i], self.high[i] = float(knots_z[1]), float(knots_z[-2])
        return self

    def _knots(
        self, x: npt.NDArray[np.float64], weight: npt.NDArray[np.float64], column: int
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        values, inverse = np.unique(x, return_inverse=True)
        if len(values) < 3:
            raise SkimError(f"column {column} takes fewer than three different values; it cannot be transformed")
        mass = np.bincount(inverse, weight)
        rank = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
        # Beyond this rank a quantile rests on less than one effective row; the tails take over.
        edge = 0.5 / (n_effective(weight) + 1)
        inside = (rank > edge) & (rank < 1 - edge)
        if inside.sum() < 2:
            raise SkimError(f"column {column} has nearly all its weight on one value; it cannot be transformed")
        z, values = ndtri(rank[inside]), values[inside]
        grid = np.linspace(z[0], z[-1], _SEGMENTS - 2)
        inner = np.interp(grid, z, values).astype(np.float32).astype(np.float64)
        inner, first = np.unique(inner, return_index=True)  # an atom takes several knots: keep one
        inner_z = grid[first]
        # Mean slopes of the outermost tenth of the z range: single rows must not decide what lies beyond.
        k = max(1, len(inner) // 10)
        left = (inner_z[k] - inner_z[0]) / (inner[k] - inner[0])
        right = (inner_z[-1] - inner_z[-1 - k]) / (inner[-1] - inner[-1 - k])
        span = inner[-1] - inner[0]
        return (
            np.r_[inner[0] - span, inner, inner[-1] + span],
            np.r_[inner_z[0] - left * span, inner_z, inner_z[-1] + right * span],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        start = torch.arange(self.features, device=x.device) * _SEGMENTS
        index = torch.zeros_like(x, dtype=torch.int64) + start

        def look_up(table: Tensor, at: Tensor) -> Tensor:
            return table.index_select(0, at.reshape(-1)).reshape(at.shape)

        step = _SEGMENTS // 2
        while step:
            candidate = index + step
            index = torch.where(x >= look_up(self.x0, candidate), candidate, index)
            step //= 2
        return look_up(self.z0, index) + (x - look_up(self.x0, index)) * look_up(self.slope, index)
