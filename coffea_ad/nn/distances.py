"""Squared 2-Wasserstein distances of two weighted samples, and cheaper stand-ins, all on the scale of W₂²."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch import Generator, Tensor
from torch.nn.functional import normalize

from coffea_ad.errors import ConfigError

__all__ = ["DISTANCES", "Distance", "exact", "max_sliced", "sinkhorn", "sliced"]

_Weights: TypeAlias = Tensor | None


class Distance(Protocol):
    """A distance of two samples, differentiable in the points of both.

    Parameters
    ----------
    x, y : (n, d), (m, d)
    wx, wy : (n,), (m,), optional
        Weights ≥ 0, constants, normalised here; all the same if not given.
    generator : torch.Generator
        Source of random directions, where there are any.

    Returns
    -------
    ()
        In units of |x|²; not finite if a point is not. A ConfigError says what is wrong with samples or settings.
    """

    def __call__(
        self, x: Tensor, y: Tensor, wx: _Weights = None, wy: _Weights = None, *, generator: Generator
    ) -> Tensor:
        """Return the distance."""


def _weights(w: _Weights, points: Tensor) -> Tensor:
    """Return weights with the sum 1, in float64."""
    w = points.new_ones(len(points)) if w is None else w
    if w.shape != points.shape[:1]:
        raise ConfigError(f"a sample of {len(points)} points has weights of the shape {tuple(w.shape)}")
    w = w.detach().to(points.device).double()
    if not bool((torch.isfinite(w) & (w >= 0)).all()) or float(w.sum()) <= 0:
        raise ConfigError("a distance of samples needs finite weights ≥ 0 with a positive sum")
    return w / w.sum()


def _check(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (*x.shape, *y.shape):
        raise ConfigError(f"a distance needs points (n, d) and (m, d), not {tuple(x.shape)} and {tuple(y.shape)}")


def _assignment(cost: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Solve the assignment problem exactly, from a good start.

    A number added to a row or column of the costs does not change the optimal pairs. Potentials of a few rounds of
    Sinkhorn leave costs ≥ 0, near 0 at the optimal pairs; poor potentials would cost time, never exactness.
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


def exact(
    x: Tensor, y: Tensor, wx: _Weights = None, wy: _Weights = None, *, generator: Generator | None = None  # noqa: ARG001
) -> Tensor:  # fmt: skip
    """Exact squared 2-Wasserstein distance.

    W₂² = min over plans P of Σ_ij P_ij |x_i − y_j|², with Σ_j P_ij = wx_i and Σ_i P_ij = wy_j. Without weights and for
    equal sizes P pairs the points. The gradient flows through the optimal P. Solved on the CPU in float64.

    Parameters
    ----------
    x, y, wx, wy, generator
        As for `Distance`; nothing here is random.

    References
    ----------
    G. Peyré, M. Cuturi, "Computational optimal transport", arXiv:1803.00567.

    Examples
    --------
    >>> exact(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])).item()
    4.0
    """
    _check(x, y)
    cost = cdist(x.detach().double().cpu().numpy(), y.detach().double().cpu().numpy(), "sqeuclidean")
    if not np.isfinite(cost).all():
        return (x.sum() + y.sum()) * float("nan")  # a diverged model has no distance; the training loop says so
    if wx is None and wy is None and len(x) == len(y):
        pairs = torch.from_numpy(_assignment(cost)).to(y.device)
        return (x - y[pairs]).square().sum(dim=1).mean()
    from ot import emd  # type: ignore[import-untyped]

    a, b = _weights(wx, x).cpu().numpy(), _weights(wy, y).cpu().numpy()
    plan = emd(a, b, cost, numItermax=100_000_000, center_dual=False)
    i, j = (torch.from_numpy(k).to(x.device) for k in np.nonzero(plan))
    return torch.from_numpy(plan[plan != 0]).to(x) @ (x[i] - y[j]).square().sum(dim=1)


def _directions(d: int, projections: int, like: Tensor, generator: Generator) -> Tensor:
    """Draw orthonormal frames of directions, (frames · min(d, projections), d)."""
    if projections < 1:
        raise ConfigError(f"projections is {projections}; a sliced distance needs at least 1")
    width = min(d, projections)
    drawn = torch.randn(-(-projections // width), d, width, generator=generator, device=generator.device)
    frames: Tensor = torch.linalg.qr(drawn.to(like)).Q
    return frames.transpose(1, 2).reshape(-1, d)


def _sorted(p: Tensor, *, ordered: bool) -> tuple[Tensor, Tensor | None]:
    """Sort each row; return the order too where weights need it. NumPy's sort is several times faster on a CPU."""
    if p.device.type != "cpu":
        return p.sort(dim=1)
    rows = p.detach().numpy()
    if not p.requires_grad and not ordered:
        return torch.from_numpy(np.sort(rows, axis=1)), None
    order = torch.from_numpy(np.argsort(rows, axis=1))
    return p.gather(1, order), order


def _lines(px: Tensor, py: Tensor, wx: _Weights, wy: _Weights) -> Tensor:
    """∫ (F⁻¹(u) − G⁻¹(u))² du over the merged steps of F and G, which is W₂² on lines, (k, n) and (k, m) → (k,)."""
    sides = [(*_sorted(p, ordered=w is not None), w) for p, w in ((px, wx), (py, wy))]
    if wx is None and wy is None and px.shape[1] == py.shape[1]:
        return (sides[0][0] - sides[1][0]).square().mean(dim=1)
    steps = []
    for values, order, w in sides:
        mass = _weights(w, values.T)
        total = torch.cumsum((mass if w is None or order is None else mass[order]).expand(len(values), -1), 1)
        steps.append((total / total[:, -1:]).contiguous())
    grid = torch.cat(steps, 1).sort(dim=1).values
    width = torch.diff(grid, dim=1, prepend=torch.zeros_like(grid[:, :1]))
    middle = grid - 0.5 * width
    xs, ys = (
        side[0].gather(1, torch.searchsorted(step, middle, right=True).clamp_(max=step.shape[1] - 1))
        for side, step in zip(sides, steps, strict=True)
    )
    return (width.to(xs) * (xs - ys).square()).sum(dim=1)


def sliced(
    x: Tensor, y: Tensor, wx: _Weights = None, wy: _Weights = None, *, generator: Generator, projections: int = 256
) -> Tensor:
    """Sliced squared 2-Wasserstein distance: d times the mean over directions θ of W₂²(θ·x, θ·y).

    The factor d puts it on the scale of W₂²: it is |s|² for a shift s, and never larger than W₂². Directions come in
    random orthonormal frames, so both hold exactly, not only in expectation, for projections ≥ d.

    Parameters
    ----------
    x, y, wx, wy, generator
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
    return x.shape[1] * _lines(theta @ x.T, theta @ y.T, wx, wy).mean()


def max_sliced(
    x: Tensor, y: Tensor, wx: _Weights = None, wy: _Weights = None,
    *, generator: Generator, projections: int = 64, ascents: int = 10,
) -> Tensor:  # fmt: skip
    """Max-sliced squared 2-Wasserstein distance: the largest W₂²(θ·x, θ·y) over unit vectors θ.

    It is |s|² for a shift s, and never larger than W₂². From the best of random directions and the difference of the
    means go steps θ ← g/|g|, g = ∇_θ W₂² (for fixed pairs the power iteration of a quadratic form). The best θ met is
    used, which may be a local maximum; the gradient moves points along it only.

    Parameters
    ----------
    x, y, wx, wy, generator
        As for `Distance`.
    projections, ascents : int
        Number of first directions, as for `sliced`, and steps of the search.

    References
    ----------
    I. Deshpande et al., "Max-sliced Wasserstein distance and its use for GANs", arXiv:1904.05877.

    Examples
    --------
    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    >>> round(max_sliced(x, x + torch.tensor([3.0, 4.0]), generator=torch.Generator()).item(), 3)
    25.0
    """
    _check(x, y)
    fixed_x, fixed_y = x.detach(), y.detach()
    means = _weights(wx, x).to(x) @ fixed_x - _weights(wy, y).to(y) @ fixed_y
    theta = torch.cat([_directions(x.shape[1], projections, x, generator), normalize(means, dim=0)[None]])
    values = _lines(theta @ fixed_x.T, theta @ fixed_y.T, wx, wy)
    at = best = theta[values.argmax()][None]
    largest = values.max()
    for _ in range(ascents + 1):
        at = at.detach().requires_grad_()
        with torch.enable_grad():
            value = _lines(at @ fixed_x.T, at @ fixed_y.T, wx, wy).sum()
            (gradient,) = torch.autograd.grad(value, at)
        if value > largest:
            best, largest = at.detach(), value.detach()
        at = normalize(gradient, dim=1)
    return _lines(best @ x.T, best @ y.T, wx, wy).sum()


def _squares(x: Tensor, y: Tensor) -> Tensor:
    return x.square().sum(dim=1)[:, None] + y.square().sum(dim=1) - 2 * x @ y.T


def _entropic(cost: Tensor, a: Tensor, b: Tensor, epsilon: Tensor, iterations: int) -> Tensor:
    """Entropic transport cost ⟨P, C⟩ + ε KL(P | a⊗b), differentiable in C and ε at the plan found.

    P is the minimiser and may be held fixed (envelope theorem). ε falls to its value over the first half of the
    iterations; both potentials move half way at once, which treats x and y alike.
    """
    c, goal = cost.detach(), epsilon.detach()
    log_a, log_b = a.log()[:, None], b.log()[None, :]
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)
    widest = torch.clamp(c.abs().max() / goal, min=1.0)
    for k in range(iterations):
        at = goal * widest ** max(0.0, 1 - 2 * k / iterations)
        new_f = -at * torch.logsumexp((g - c) / at + log_b, dim=1, keepdim=True)
        new_g = new_f.T if a is b else -at * torch.logsumexp((f - c) / at + log_a, dim=0, keepdim=True)
        f, g = 0.5 * (f + new_f), 0.5 * (g + new_g)
    exponent = (f + g - c) / goal
    plan = torch.exp(exponent + log_a + log_b)
    return (plan * cost).sum() + epsilon * ((plan * exponent).sum() - plan.sum() + 1)


def sinkhorn(
    x: Tensor, y: Tensor, wx: _Weights = None, wy: _Weights = None,
    *, generator: Generator | None = None, epsilon: float = 0.05, iterations: int = 50,  # noqa: ARG001
) -> Tensor:  # fmt: skip
    """Sinkhorn divergence S = OT_ε(x, y) − ½ OT_ε(x, x) − ½ OT_ε(y, y) for squared Euclidean costs.

    OT_ε = min over plans P of ⟨P, C⟩ + ε KL(P | wx⊗wy), iterated in the log domain. S is 0 for equal samples and |s|²
    for a shift s, and tends to W₂² for ε → 0. It stays on the device of x; on a CPU `exact` is the faster.

    Parameters
    ----------
    x, y, wx, wy, generator
        As for `Distance`; nothing here is random.
    epsilon, iterations : float, int
        ε in units of the mean cost between x and y, and updates of the potentials.

    References
    ----------
    J. Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn divergences", arXiv:1810.08278.

    Examples
    --------
    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))
    >>> round(sinkhorn(x, x + torch.tensor([3.0, 4.0])).item(), 2)
    25.0
    """
    _check(x, y)
    if not epsilon > 0 or iterations < 1:
        raise ConfigError(f"sinkhorn needs epsilon > 0 and iterations ≥ 1, not {epsilon} and {iterations}")
    a, b = _weights(wx, x).to(x), _weights(wy, y).to(y)
    centre = 0.5 * (a @ x + b @ y).detach()  # |x|² + |y|² − 2x·y loses digits far from the origin
    x, y = x - centre, y - centre
    cost = _squares(x, y)
    level = (epsilon * (a @ cost @ b)).clamp(min=torch.finfo(x.dtype).tiny ** 0.5)
    own = [_entropic(_squares(s, s), w, w, level, iterations) for s, w in ((x, a), (y, b))]
    return _entropic(cost, a, b, level, iterations) - 0.5 * (own[0] + own[1])


DISTANCES: dict[str, Distance] = {"exact": exact, "sliced": sliced, "max_sliced": max_sliced, "sinkhorn": sinkhorn}
