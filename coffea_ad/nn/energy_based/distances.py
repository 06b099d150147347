"""Wasserstein distances of two samples of the same size: exact W₁ and W₂², and a sliced stand-in for W₂²."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Generator, Tensor

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s, Ints

__all__ = ["DISTANCES", "Distance", "sliced", "w1", "w2_squared"]


class Distance(Protocol):
    """A distance of two samples, differentiable in the points of both.

    Rows are drawn in proportion to their weights before they come here, so all points count the same.

    Parameters
    ----------
    x, y : (n, d)
    generator : torch.Generator
        Source of random directions, where there are any.

    Returns
    -------
    ()
        Not finite if a point is not. A ConfigError says what is wrong with samples or settings.
    """

    def __call__(self, x: Tensor, y: Tensor, *, generator: Generator) -> Tensor:
        """Return the distance."""


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or x.shape != y.shape or 0 in x.shape:
        raise ConfigError(f"a distance needs points (n, d) and (n, d), not {tuple(x.shape)} and {tuple(y.shape)}")


def _assignment(cost: Float64s) -> Ints:
    """Solve the assignment problem exactly, from a good start.

    A number added to a row or column of the costs does not change the optimal pairs. Potentials of a few rounds of
    Sinkhorn's iteration leave costs ≥ 0, near 0 at the optimal pairs; poor potentials would cost time, never exactness.
    """
    cost = cost - cost.min(axis=1, keepdims=True)
    cost -= cost.min(axis=0)
    scale = 0.03 * float(cost.mean())
    if scale > 0:
        column: npt.NDArray[Any] = np.ones(len(cost), np.float32)
        with np.errstate(all="ignore"):
            kernel = np.exp((cost * (-1 / scale)).astype(np.float32))
            for _ in range(20):
                column = 1 / ((1 / (kernel @ column)) @ kernel)
            potential = scale * np.log(column.astype(np.float64))
        cost -= np.where(np.isfinite(potential), potential, 0.0)
        cost -= cost.min(axis=1, keepdims=True)
        cost -= cost.min(axis=0)
    return np.asarray(linear_sum_assignment(cost)[1], np.int64)


def _paired(x: Tensor, y: Tensor, metric: str) -> Tensor | None:
    """Return y in the order of its optimal partners in x, on the CPU in float64; None if a point is not finite."""
    _check(x, y)
    cost = cdist(x.detach().double().cpu().numpy(), y.detach().double().cpu().numpy(), metric)
    if not np.isfinite(cost).all():
        return None  # a diverged model has no distance; the training loop says so
    return y[torch.from_numpy(_assignment(cost)).to(y.device)]


def w2_squared(x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:  # noqa: ARG001
    """Exact squared 2-Wasserstein distance.

    W₂² = min over pairings π of 1/n Σ_i |x_i − y_π(i)|². The gradient flows through the optimal pairs.

    Parameters
    ----------
    x, y, generator
        As for `Distance`; nothing here is random.

    References
    ----------
    G. Peyré, M. Cuturi, "Computational optimal transport", arXiv:1803.00567.

    Examples
    --------
    >>> w2_squared(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])).item()
    4.0
    """
    partners = _paired(x, y, "sqeuclidean")
    if partners is None:
        return (x.sum() + y.sum()) * float("nan")
    return (x - partners).square().sum(dim=1).mean()


def w1(x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:  # noqa: ARG001
    """Exact 1-Wasserstein distance, W₁ = min over pairings π of 1/n Σ_i |x_i − y_π(i)|.

    Parameters
    ----------
    x, y, generator
        As for `Distance`; nothing here is random.

    References
    ----------
    G. Peyré, M. Cuturi, "Computational optimal transport", arXiv:1803.00567.

    Examples
    --------
    >>> w1(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])).item()
    2.0
    """
    partners = _paired(x, y, "euclidean")
    if partners is None:
        return (x.sum() + y.sum()) * float("nan")
    # Where two points coincide the root has no slope; there the gradient is 0.
    square = (x - partners).square().sum(dim=1)
    apart = square > 0
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0).mean()


def _directions(d: int, projections: int, like: Tensor, generator: Generator) -> Tensor:
    """Draw orthonormal frames of directions, (frames · min(d, projections), d)."""
    if projections < 1:
        raise ConfigError(f"projections is {projections}; a sliced distance needs at least 1")
    width = min(d, projections)
    drawn = torch.randn(-(-projections // width), d, width, generator=generator, device=generator.device)
    frames: Tensor = torch.linalg.qr(drawn.to(like)).Q
    return frames.transpose(1, 2).reshape(-1, d)


def _sorted(p: Tensor) -> Tensor:
    """Sort each row. NumPy's sort is several times faster on a CPU."""
    if p.device.type != "cpu":
        return p.sort(dim=1).values
    rows = p.detach().numpy()
    if not p.requires_grad:
        return torch.from_numpy(np.sort(rows, axis=1))
    return p.gather(1, torch.from_numpy(np.argsort(rows, axis=1)))


def sliced(x: Tensor, y: Tensor, *, generator: Generator, projections: int = 256) -> Tensor:
    """Sliced squared 2-Wasserstein distance: d times the mean over directions θ of W₂²(θ·x, θ·y).

    The factor d puts it on the scale of W₂²: it is |s|² for a shift s, and never larger than W₂². Directions come in
    random orthonormal frames, so both hold exactly, not only in expectation, for projections ≥ d.

    Parameters
    ----------
    x, y, generator
        As for `Distance`.
    projections : int
        Number of directions, rounded up to whole frames of min(d, projections).

    References
    ----------
    M. Rowland et al., "Orthogonal estimation of Wasserstein distances", arXiv:1903.03784.

    Examples
    --------
    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    >>> round(sliced(x, x + torch.tensor([3.0, 4.0]), generator=torch.Generator()).item(), 3)
    25.0
    """
    _check(x, y)
    theta = _directions(x.shape[1], projections, x, generator)
    return x.shape[1] * (_sorted(theta @ x.T) - _sorted(theta @ y.T)).square().mean()


DISTANCES: dict[str, Distance] = {"w2_squared": w2_squared, "w1": w1, "sliced": sliced}
