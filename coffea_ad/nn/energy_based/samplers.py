"""Markov chains in the space of transformed inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Chains", "langevin"]

EnergyAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


class Chains(NamedTuple):
    """Where chains have come to.

    Attributes
    ----------
    points : (n, d)
    acceptance : ()
        Fraction of accepted proposals; 1 without a Metropolis step.
    """

    points: Tensor
    acceptance: Tensor


def _reflect(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Fold x back into the box at its walls: unlike clamping, this leaves no atoms on them."""
    folded = high - (high - (low + (x - low).abs())).abs()
    return torch.maximum(folded, low)  # of a leap further than the box is wide


def langevin(
    energy: EnergyAndGradient,
    start: Tensor,
    *,
    steps: int,
    noise: Tensor | float,
    temperature: float,
    low: Tensor,
    high: Tensor,
    generator: torch.Generator,
    metric: Tensor | None = None,
    metropolis: bool = False,
    grad_steps: int | None = 0,
) -> Chains:
    """Run Langevin chains for p(x) ∝ exp(−E(x)/T) in a box.

    x′ = x + L (b(x) + s n) with n ~ N(0, 1), η = s²/2, and the drift b = β/√(1 + |β|²), β = −(η/T) Lᵀ∇E(x), which is tamed:
    where the energy is steep, a step is no longer than 1. With L the Cholesky factor of the data's covariance a step is
    as long in a narrow direction as the data are. Without a Metropolis step (ULA) what leaves the box is reflected, and
    the chain's distribution is off by O(s²). With it (MALA) a proposal is accepted with probability min(1, a),

        log a = [E(x) − E(x′)]/T − (|b(x) + b(x′) + s n|² − |s n|²)/(4η),

    one probability for each chain, and never if it leaves the box; the distribution is then exact.

    Parameters
    ----------
    energy : function (n, d) → (n,), (n, d)
        E and ∇E; differentiable in the parameters where a gradient shall flow through the chain.
    start : (n, d)
        First points of the chains; no gradient flows into them.
    steps : int
        Number of steps.
    noise, temperature : float
        s and T.
    low, high : (d,)
        The box.
    generator : torch.Generator
        Source of all randomness.
    metric : (d, d), optional
        L; the unit matrix by default.
    metropolis : bool
        Whether proposals can be rejected.
    grad_steps : int or None
        A gradient flows through the last so many steps; None: through all.

    Returns
    -------
    Chains

    References
    ----------
    G. O. Roberts, R. L. Tweedie, "Exponential convergence of Langevin distributions and their discrete
    approximations", Bernoulli 2 (1996) 341; M. Girolami, B. Calderhead, "Riemann manifold Langevin and Hamiltonian
    Monte Carlo methods", JRSS B 73 (2011) 123; N. Brosse, A. Durmus, É. Moulines, S. Sabanis, "The tamed unadjusted
    Langevin algorithm", arXiv:1710.05559.

    Examples
    --------
    >>> box = torch.full((1,), 9.0)
    >>> g = torch.Generator().manual_seed(1)
    >>> chains = langevin(lambda x: ((x**2).sum(1) / 2, x), torch.zeros(4000, 1), steps=100, noise=1.0, temperature=1.0,
    ...                   low=-box, high=box, generator=g, metropolis=True)
    >>> round(chains.points.var().item(), 1)
    1.0
    """
    n, d = start.shape
    kick = noise * torch.randn((steps, n, d), generator=generator, device=start.device, dtype=start.dtype)
    rate = 0.5 * noise * noise / temperature
    luck = (
        torch.rand((steps, n), generator=generator, device=start.device, dtype=start.dtype).log()
        if metropolis
        else None
    )
    x = start.detach()
    accepted = x.new_zeros(())
    state: tuple[Tensor, Tensor] | None = None  # E and drift at x, where they are known from the last step

    def energy_and_drift(x: Tensor) -> tuple[Tensor, Tensor]:
        e, g = energy(x)
        b = -rate * (g if metric is None else g @ metric)
        return e, b * torch.rsqrt(1 + (b**2).sum(dim=1, keepdim=True))

    for i in range(steps):
        alive = grad_steps is None or i >= steps - grad_steps
        if grad_steps is not None and i == steps - grad_steps:
            state = None  # it was computed without a gradient
        with torch.set_grad_enabled(alive and torch.is_grad_enabled()):
            e, b = state if state is not None else energy_and_drift(x)
            move = b + kick[i]
            y = x + (move if metric is None else move @ metric.T)
            if luck is None:
                x = _reflect(y, low, high)
                continue
            inside = ((y >= low) & (y <= high)).all(dim=1)
            ey, by = energy_and_drift(y)
            back = move + by
            log_a = (e - ey) / temperature - ((back**2).sum(1) - (kick[i] ** 2).sum(1)) / (2 * noise * noise)
            go = (inside & (luck[i] < log_a))[:, None]
            x = torch.where(go, y, x)
            state = torch.where(go[:, 0], ey, e), torch.where(go, by, b)
            accepted = accepted + go.float().mean() / steps
    return Chains(x, accepted if metropolis else accepted + 1)
