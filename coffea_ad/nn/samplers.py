"""Markov chains in the space of transformed inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["langevin"]


def _reflect(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Fold x back into the box at its walls: unlike clamping, this leaves no atoms on them."""
    width = high - low
    y = torch.remainder(x - low, 2 * width)
    return low + torch.where(y > width, 2 * width - y, y)


def langevin(
    energy: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    steps: int,
    noise: float,
    temperature: float,
    low: Tensor,
    high: Tensor,
    generator: torch.Generator,
    create_graph: bool,
) -> Tensor:
    """Run unadjusted Langevin chains for p(x) ∝ exp(−E(x)/T) in a box.

    x ← x − (η/T) ∇E(x) + s·n, with n ~ N(0, 1) and η = s²/2; what leaves the box is reflected.

    Parameters
    ----------
    energy : function (n, d) → (n,)
    start : (n, d)
        First points of the chains; no gradient flows into them.
    steps : int
        Number of steps.
    noise, temperature : float
        s and T.
    low, high : (d,)
        The box.
    generator : torch.Generator
        Source of all noise.
    create_graph : bool
        Whether a gradient with respect to the energy's parameters will be taken through the chain.

    Returns
    -------
    (n, d)
        Last points of the chains.

    References
    ----------
    M. Welling, Y. W. Teh, "Bayesian learning via stochastic gradient Langevin dynamics", ICML 2011.
    """
    x = start.detach().requires_grad_()
    drift = 0.5 * noise**2 / temperature
    for _ in range(steps):
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(energy(x).sum(), x, create_graph=create_graph)
            kick = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            x = _reflect(x - drift * gradient + noise * kick, low, high)
            if not create_graph:
                x = x.detach().requires_grad_()
    return x if create_graph else x.detach()
