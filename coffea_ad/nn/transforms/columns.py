"""Preprocessing that lives inside the model, and so inside the exported graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.described import Described
from coffea_ad.typing import Float32s, Float64s
from coffea_ad.weights import n_effective

__all__ = ["Log", "QuantileNormal", "Standard", "Transform", "covered"]

_COARSE = 16
_SEGMENTS = _COARSE**2
_ATOM = 0.02  # the share of rows from which a single value of a column has knots of its own
_TAIL = 64.0  # the most by which z changes over an outer segment of a quantile transform, before it goes on as a line
_REACH = 1e6  # the largest |z|: far from everything, and its square is still a number in float32
_LARGEST = 3e38  # what float32 holds
_SMALL = 0.01  # the quantile of |x| ≠ 0 below which `Log` is linear


def _distribution(x: Float64s, weight: Float64s) -> tuple[Float64s, Float64s, float, Float64s]:
    """Return the different values of a column, their weighted mid-ranks, the rank of one effective row, and their weights."""
    values, inverse = np.unique(x, return_inverse=True)
    mass = np.bincount(inverse, weight).astype(np.float64)
    rank = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    return values, rank, 0.5 / (n_effective(weight) + 1), mass


def covered(x: Float64s, weight: Float64s) -> tuple[float, float]:
    """Return the range of a column, without what rests on less than about one effective row at either end."""
    values, rank, edge, _ = _distribution(x, weight)
    inside = values[(rank > edge) & (rank < 1 - edge)]
    return (float(inside[0]), float(inside[-1])) if len(inside) else (float(values[0]), float(values[-1]))


class Transform(nn.Module, metaclass=Described):
    """A preprocessing x → z that is fitted to the training rows, column by column.

    Parameters
    ----------
    features : int
        Number of columns.
    names : sequence of str
        Their names, for messages.

    Attributes
    ----------
    row_shape : tuple of int or None
        Shape of a row of x, where it is not that of z.
    z_columns : tuple of str or None
        Names of the numbers of z that are numbers of x; empty where all are, each in its place; None where none is.
    has_jacobian : bool
        Whether there is a `log_det`, so that a density of z is one of x, too.
    low, high : (features,)
        The range of z that the training rows cover, without what rests on less than about one effective row at either
        end; the box of Markov chains.
    """

    row_shape: tuple[int, ...] | None = None
    z_columns: tuple[str, ...] | None = ()
    has_jacobian: ClassVar[bool] = True

    @property
    def box(self) -> Tensor:
        """The edges of x, (2, features), beyond which z does not change any more; ±∞ where a column has none."""
        edge = torch.full_like(self.low, torch.inf)
        return torch.stack([-edge, edge])

    def inside(self, x: Tensor) -> Tensor:
        """Say which rows lie in the box, edges included, (n, features) → (n,) bool; none with an undefined value."""
        low, high = self.box
        within: Tensor = ((x >= low) & (x <= high)).all(dim=1)
        return within

    def __init__(self, features: int, *, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.features, self.names = features, tuple(names)
        self.register_buffer("low", torch.full((features,), -4.0))
        self.register_buffer("high", torch.full((features,), 4.0))
        self.low: Tensor
        self.high: Tensor

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Learn from finite rows, (n, features), with weights that are not negative, (n,).

        Raises
        ------
        SkimError
            Rows are not flat, or a column cannot be transformed; the message names it.
        """
        if x.ndim != 2:
            raise SkimError(
                f"rows of shape {x.shape[1:]} cannot be transformed column by column; this model takes flat rows"
            )
        for i in range(self.features):
            low, high = self._fit_column(i, np.asarray(x[:, i], np.float64), np.asarray(weight, np.float64))
            self.low[i], self.high[i] = low, high
        return self

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:
        """Learn one column; return the range of its z."""
        raise NotImplementedError

    def _refuse(self, i: int, why: str) -> SkimError:
        return SkimError(f"column {self.names[i] if self.names else i} {why}")

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        raise NotImplementedError

    def log_det(self, x: Tensor) -> Tensor:
        """Return log |det ∂z/∂x| of rows, (n, features) → (n,): −log p(x) = −log p(z) − log_det(x)."""
        return self._log_slopes(x).sum(dim=1)

    def log_slopes(self, x: Tensor) -> Tensor:
        """Return log |dz/dx| of every column, (n, features) → (n, features): a conditional density leaves some out."""
        return self._log_slopes(x)

    def inverse(self, z: Tensor) -> Tensor:  # noqa: ARG002
        """Return the rows x of transformed ones, (n, features) → (n, features), up to the rounding of float32."""
        raise ConfigError(f"{type(self).__name__} has no inverse; nothing can be sampled through it")

    def _log_slopes(self, x: Tensor) -> Tensor:  # noqa: ARG002
        """Return log |dz/dx| of every column, (n, features) → (n, features)."""
        raise ConfigError(f"{type(self).__name__} has no Jacobian; a density behind it is one of z")


class Standard(Transform):
    """Shift and scale every column: z = (x − μ) / σ, with the weighted mean and standard deviation.

    |z| ends at 10⁶, so that an input near the end of float32 gives a number in every model.

    Parameters
    ----------
    features, names
        As for `Transform`.
    constant : "keep" or "refuse"
        What is done with a column that takes one value only: it keeps its unit, σ = 1, so that it is 0 in training and
        another value still shows; or training ends with a sentence. In wide, sparse features such as the rapidity-mass
        matrix some columns are always constant, and so "keep" is the default. A skim in which all columns are constant
        is refused in any case.

    Examples
    --------
    >>> x = np.array([[1.0], [3.0]], np.float32)
    >>> Standard(1).fit(x, np.ones(2))(torch.tensor([[5.0]])).item()
    3.0
    """

    def __init__(
        self, features: int, *, names: Sequence[str] = (), constant: Literal["keep", "refuse"] = "keep"
    ) -> None:
        super().__init__(features, names=names)
        self.constant = constant
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.mean: Tensor
        self.scale: Tensor

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Learn from finite rows, (n, features), with weights that are not negative, (n,)."""
        if x.ndim == 2 and len(x) and bool((x == x[0]).all()):
            raise SkimError("all columns take one value only; there is nothing to standardise")
        return super().fit(x, weight)

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:
        mean = np.average(x, weights=weight)
        scale = np.float32(np.sqrt(np.average((x - mean) ** 2, weights=weight)))
        if np.ptp(x[weight > 0]) == 0 or scale == 0:
            if self.constant == "refuse":
                raise self._refuse(i, "takes one value only; it cannot be standardised")
            mean, scale = x[weight > 0][0], np.float32(1)
        self.mean[i], self.scale[i] = float(mean), float(scale)
        low, high = covered(x, weight)
        return (low - mean) / scale, (high - mean) / scale

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        return ((x - self.mean) / self.scale).clamp(-_REACH, _REACH)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows x of transformed ones, (n, features) → (n, features)."""
        return z * self.scale + self.mean

    def _log_slopes(self, x: Tensor) -> Tensor:
        return -self.scale.abs().log().expand_as(x)


class Log(Transform):
    """Take the logarithm of every column and standardise it; defined for any number, zero and negative ones included.

    y = sign(x) log(1 + |x|/ε) and z = (y − μ_y) / σ_y. For x ≥ 0 that is log(x + ε) up to constants: values far below
    ε, an atom at zero among them, lie together, and negative ones mirror the positive ones. ε is the weighted 1 %
    quantile of |x| over the rows in which x is not zero.

    Parameters
    ----------
    features, names
        As for `Transform`.

    Examples
    --------
    >>> x = np.geomspace(1, 1e4, 101, dtype=np.float32)[:, None]
    >>> z = Log(1).fit(x, np.ones(101))(torch.tensor([[0.0], [100.0], [1e4], [-5.0]]))
    >>> bool(z.isfinite().all()), bool(z[3] < z[0] < z[1] < z[2])
    (True, True)
    """

    def __init__(self, features: int, *, names: Sequence[str] = ()) -> None:
        super().__init__(features, names=names)
        for name in ("epsilon", "scale"):
            self.register_buffer(name, torch.ones(features))
        self.register_buffer("mean", torch.zeros(features))
        self.epsilon: Tensor
        self.mean: Tensor
        self.scale: Tensor

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:
        x, weight = x[weight > 0], weight[weight > 0]
        if np.ptp(x) == 0:
            raise self._refuse(i, "takes one value only; it cannot be transformed")
        size, rank, *_ = _distribution(np.abs(x[x != 0]), weight[x != 0])
        epsilon = max(float(np.interp(_SMALL, rank, size)), 1e-30)
        y = np.sign(x) * np.log1p(np.abs(x) / epsilon)
        mean = np.average(y, weights=weight)
        scale = np.float32(np.sqrt(np.average((y - mean) ** 2, weights=weight)))
        if scale == 0:
            raise self._refuse(i, "takes nearly one value only; it cannot be transformed")
        self.epsilon[i], self.mean[i], self.scale[i] = epsilon, float(mean), float(scale)
        low, high = covered(y, weight)
        return (low - mean) / scale, (high - mean) / scale

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        relative = (x.abs() / self.epsilon).clamp(max=1e38)  # a large x over a small ε is more than float32 holds
        y = x.sign() * (1 + relative).log()
        return ((y - self.mean) / self.scale).clamp(-_REACH, _REACH)

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows x of transformed ones, (n, features) → (n, features)."""
        y = z * self.scale + self.mean
        return (y.sign() * self.epsilon * y.abs().expm1()).clamp(-_LARGEST, _LARGEST)

    def _log_slopes(self, x: Tensor) -> Tensor:
        return -((x.abs() + self.epsilon).log() + self.scale.abs().log())


class QuantileNormal(Transform):
    """Map every feature to a standard normal by its quantiles: piecewise linear in x, linear tails.

    z(x) = Φ⁻¹(F(x)) with the weighted mid-rank distribution F, so that tied values share one z; between knots
    z is linear in x, and beyond the last knots it goes on with the mean slope of the outermost segments, so that two
    anomalies beyond the training range stay distinguishable, up to |z| = 10⁶.

    Parameters
    ----------
    features, names
        As for `Transform`.

    Examples
    --------
    >>> x = torch.linspace(0, 1, 1001)[:, None] ** 2
    >>> transform = QuantileNormal(1).fit(x.numpy(), np.ones(1001))
    >>> transform(torch.tensor([[0.25]])).abs().item() < 0.01  # the median goes to 0
    True
    """

    def __init__(self, features: int, *, names: Sequence[str] = ()) -> None:
        super().__init__(features, names=names)
        for name in ("x0", "z0", "slope"):
            self.register_buffer(name, torch.zeros(features * _SEGMENTS))  # flat: shared by all steps of the graph
        self.x0: Tensor
        self.z0: Tensor
        self.slope: Tensor

    def _fit_column(self, i: int, x: Float64s, weight: Float64s) -> tuple[float, float]:
        knots_x, knots_z = self._knots(x, weight, i)
        # A segment ends a rounding below where the next one begins, so that float32 never falls there.
        ends = np.nextafter(knots_z.astype(np.float32), np.float32(-np.inf))[1:]
        rise = np.maximum(ends - knots_z[:-1], 0)
        slopes = np.clip(rise / np.diff(knots_x), 1e-37, 1e37)  # what float32 can hold
        columns, n = slice(i * _SEGMENTS, (i + 1) * _SEGMENTS), len(slopes)
        for table, unused, values in (
            (self.x0, np.inf, knots_x[:-1]),  # no number reaches an unused segment
            (self.z0, 0.0, knots_z[:-1]),
            (self.slope, 0.0, slopes),
        ):
            table[columns] = unused
            table[columns][:n] = torch.from_numpy(values)
        return float(knots_z[1]), float(knots_z[-2])

    def _knots(self, x: Float64s, weight: Float64s, i: int) -> tuple[Float64s, Float64s]:
        values, rank, edge, mass = _distribution(x, weight)
        if max(-values[0], values[-1]) > 1e37:
            raise self._refuse(i, f"reaches {max(-values[0], values[-1]):.2g}; it cannot be transformed")
        if len(values) < 3:
            raise self._refuse(i, "takes fewer than three different values; it cannot be transformed")
        # Beyond this rank a quantile rests on less than one effective row; the tails take over.
        inside = (rank > edge) & (rank < 1 - edge)
        if inside.sum() < 2:
            raise self._refuse(i, "has nearly all its weight on one value; it cannot be transformed")
        z, values = ndtri(rank[inside]), values[inside]
        inner = self._places(values, z, mass[inside] / mass.sum())
        inner_z = np.interp(inner, values, z)
        # Mean slopes of the outermost tenth of the z range: single rows must not decide what lies beyond.
        k = max(1, len(inner) // 10)
        left = (inner_z[k] - inner_z[0]) / (inner[k] - inner[0])
        right = (inner_z[-1] - inner_z[-1 - k]) / (inner[-1] - inner[-1 - k])
        # Where the outer segments end does not matter, but a z there that float32 cannot hold would.
        before, after = (min(inner[-1] - inner[0], _TAIL / slope) for slope in (left, right))
        return (
            np.r_[inner[0] - before, inner, inner[-1] + after],
            np.r_[inner_z[0] - left * before, inner_z, inner_z[-1] + right * after],
        )

    @staticmethod
    def _places(values: Float64s, z: Float64s, share: Float64s) -> Float64s:
        """Return where the knots lie: evenly in z, and at values that many rows share, with a neighbour on either side."""
        atom = np.flatnonzero(share > _ATOM)
        around = np.unique(np.clip(atom[:, None] + np.array([-1, 0, 1]), 0, len(values) - 1))
        grid = np.linspace(z[0], z[-1], _SEGMENTS - 2 - len(around))
        even = np.interp(grid, z, values).astype(np.float32).astype(np.float64)
        return np.unique(np.r_[even, values[around]])

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, features) → (n, features)."""
        by_column = x.t().contiguous()
        table = torch.stack([self.x0, self.z0, self.slope], dim=1)
        x0, z0, slope = table.index_select(0, self._segment(by_column).reshape(-1)).unbind(dim=1)
        z = (z0 + (by_column.reshape(-1) - x0) * slope).clamp(-_REACH, _REACH)
        return z.reshape(self.features, -1).t().contiguous()

    def inverse(self, z: Tensor) -> Tensor:
        """Return the rows x of transformed ones, (n, features) → (n, features): linear between the knots, and beyond them."""
        by_column = z.t().contiguous()
        x0, z0, slope = (table.reshape(self.features, -1) for table in (self.x0, self.z0, self.slope))
        used = x0.isfinite()
        knots = torch.where(used, z0, torch.inf)
        segment = (torch.searchsorted(knots, by_column, right=True) - 1).clamp(min=0)
        x = x0.gather(1, segment) + (by_column - z0.gather(1, segment)) / slope.gather(1, segment)
        # Segments end a rounding below the next knot, and where many rows share a value they are all but flat.
        ends = torch.cat([x0[:, 1:], torch.full_like(x0[:, :1], torch.inf)], dim=1)
        return torch.minimum(x, ends.gather(1, segment)).clamp(-_LARGEST, _LARGEST).t().contiguous()

    def _log_slopes(self, x: Tensor) -> Tensor:
        by_column = x.t().contiguous()
        slope = self.slope.index_select(0, self._segment(by_column).reshape(-1))
        return slope.reshape(self.features, -1).t().log()

    def _segment(self, x: Tensor) -> Tensor:
        """Return the place in the tables of the last knot at or below every value, (features, n) → (features, n)."""
        knots = self.x0.reshape(self.features, _COARSE, -1)
        start = torch.arange(self.features, dtype=torch.int32, device=x.device)[:, None]
        if not torch.compiler.is_exporting():
            place = torch.searchsorted(knots.flatten(1), x, right=True, out_int32=True) - 1
            return place.clamp(min=0) + start * _SEGMENTS
        # The same for a graph, which has no such search: every 16th knot is compared, and then the 15 that follow.
        # Products with ones count what is passed; sums over an empty batch fail in onnxruntime.
        passed = (x[:, None, :] >= knots[:, 1:, :1]).to(x.dtype)
        coarse = (torch.ones(1, _COARSE - 1) @ passed).squeeze(1).to(torch.int32) + start * _COARSE
        near = knots[:, :, 1:].flatten(0, 1).index_select(0, coarse.reshape(-1))
        values = x.reshape(-1, 1) @ torch.ones(1, _COARSE - 1)  # onnxruntime compares equal shapes ten times as fast
        fine = ((values >= near).to(x.dtype) @ torch.ones(_COARSE - 1, 1)).reshape(self.features, -1)
        return coarse * _COARSE + fine.to(torch.int32)
