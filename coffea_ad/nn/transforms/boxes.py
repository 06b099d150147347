"""Preprocessing that ends at a box around the training rows: what lies beyond is as far as its edge, and can be told."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from coffea_ad.nn.transforms.columns import Transform, covered
from coffea_ad.typing import Float64s

__all__ = ["Boxed", "Logit", "MinMax"]

_EDGE = 1e-6  # the place in the box, from either edge, below which a logit is a line
_LOG_EDGE = math.log(_EDGE)
_REACH = 1e37  # beyond, a range is more than float32 holds


class Boxed(Transform):
    """A preprocessing of the place u = (x − min)/(max − min) in the range of the training rows.

    The range is that of all training rows with a positive weight, so that none of them lies outside. A row outside is
    transformed as the nearest point of the box, and `inside` says so: x is compared as it is, without rounding.

    Attributes
    ----------
    minimum, maximum : (features,)
        The box.
    """

    def __init__(self, features: int, *, names: Sequence[str] = ()) -> None:
        super().__init__(features, names=names)
        self.register_buffer("minimum", torch.zeros(features))
        self.register_buffer("maximum", torch.ones(features))
        self.minimum: Tensor
        self.maximum: Tensor

    @property
    def box(self) -> Tensor:
        """The range of the training rows, (2, features)."""
        return torch.stack([self.minimum, self.maximum])

    def _fit_box(self, i: int, x: Float64s, weight: Float64s) -> Float64s:
        """Learn the range of a column, and return the places in it."""
        low, high = x[weight > 0].min(), x[weight > 0].max()
        if low == high:
            raise self._refuse(i, "takes one value only; it cannot be transformed")
        if max(-low, high) > _REACH:
            raise self._refuse(i, f"reaches {max(-low, high):.2g}; it cannot be transformed")
        self.minimum[i], self.maximum[i] = low, high
        return np.asarray((x - low) / (high - low), np.float64)


class MinMax(Boxed):
    """Put the range of the training rows on −1 … 1: z = 2u − 1, with u = (x − min)/(max − min).

    Parameters
    ----------
    features, names
        As for `Transform`.

    Raises
    ------
    SkimError
        A column takes one value only, or reaches beyond 10³⁷; the message names it.

    Examples
    --------
    >>> x = np.array([[2.0], [4.0], [10.0]], np.float32)
    >>> transform = MinMax(1).fit(x, np.ones(3))
    >>> transform(torch.tensor([[2.0], [4.0], [99.0]])).flatten().tolist()
    [-1.0, -0.5, 1.0]
    """

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:
        return covered(2 * self._fit_box(i, x, weight) - 1, weight)

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        return (2 * (x - self.minimum) / (self.maximum - self.minimum) - 1).clamp(-1.0, 1.0)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows x of transformed ones, (n, features) → (n, features)."""
        width = 0.5 * (self.maximum - self.minimum)
        return torch.where(z < 0, self.minimum + (z + 1) * width, self.maximum - (1 - z) * width)

    def _log_slopes(self, x: Tensor) -> Tensor:
        return (2 / (self.maximum - self.minimum)).log().expand_as(x)


class Logit(Boxed):
    """Take the logit of the place in the range of the training rows, and standardise it.

    z = (y − μ)/σ with y = ln u − ln(1 − u) and u = (x − min)/(max − min). In the outermost millionth of the box a logarithm goes
    on as a line, so that y ends: values at an edge, such as an atom at zero, lie at |y| = 14.8, and the box is mapped one to
    one. μ and σ are the weighted mean and standard deviation of y.

    Parameters
    ----------
    features, names
        As for `Transform`.

    Raises
    ------
    SkimError
        A column takes one value only, or reaches beyond 10³⁷; the message names it.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation", arXiv:2109.00546.

    Examples
    --------
    >>> x = np.linspace(0, 8, 9, dtype=np.float32)[:, None]
    >>> transform = Logit(1).fit(x, np.ones(9))
    >>> transform(torch.tensor([[6.0], [8.0], [80.0]])).round(decimals=2)
    tensor([[0.1600],
            [2.1000],
            [2.1000]])
    >>> transform.inside(torch.tensor([[4.0], [8.0], [80.0]])).tolist()
    [True, True, False]
    """

    def __init__(self, features: int, *, names: Sequence[str] = ()) -> None:
        super().__init__(features, names=names)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.mean: Tensor
        self.scale: Tensor

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:
        u = self._fit_box(i, x, weight)
        u = np.clip(u, 0, 1)  # rows without weight make no box
        y = _bent(torch.from_numpy(u)).numpy() - _bent(torch.from_numpy(1 - u)).numpy()
        mean = np.average(y, weights=weight)
        scale = np.sqrt(np.average((y - mean) ** 2, weights=weight))
        self.mean[i], self.scale[i] = float(mean), float(scale)
        low, high = covered(y, weight)
        return (low - mean) / scale, (high - mean) / scale

    def _places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and 1 − u, which are not in 0 … 1 outside the box; both from x, so that neither loses digits next to its edge."""
        width = self.maximum - self.minimum
        return (x - self.minimum) / width, (self.maximum - x) / width

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        below, above = self._places(x)
        return (_bent(below) - _bent(above) - self.mean) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows x of transformed ones, (n, features) → (n, features)."""
        y, width = z * self.scale + self.mean, self.maximum - self.minimum
        size = y.abs()
        line = (_EDGE * (1 - _LOG_EDGE - size)).clamp(min=0.0)
        place = width * torch.where(size > -_LOG_EDGE, line, (-size).sigmoid())  # from the nearer edge
        return torch.where(y < 0, self.minimum + place, self.maximum - place)

    def _log_slopes(self, x: Tensor) -> Tensor:
        below, above = (place.clamp(_EDGE, 1.0).log() for place in self._places(x))
        return -(below + above + ((self.maximum - self.minimum) * self.scale).log())


def _bent(u: Tensor) -> Tensor:
    """Return ln u, below the edge its tangent; outside the box as at the nearest point of it."""
    return u.clamp(_EDGE, 1.0).log() + (u / _EDGE - 1).clamp(-1.0, 0.0)
