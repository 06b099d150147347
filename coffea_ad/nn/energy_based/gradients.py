"""Gradients of an autoencoder's energy, and how the terms of a loss share in the gradient of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError

__all__ = ["energy_and_gradient", "gradient_shares"]


def _with_slope(activation: nn.Module, h: Tensor) -> tuple[Tensor, Tensor]:
    """Return an activation and its derivative, (n, k) → (n, k), (n, k)."""
    if isinstance(activation, nn.SiLU):
        gate = torch.sigmoid(h)
        value = h * gate
        return value, gate + value * (1 - gate)
    up = (h > 0).to(h.dtype)
    if isinstance(activation, nn.ReLU):
        return torch.relu(h), up
    if isinstance(activation, nn.LeakyReLU | nn.PReLU):
        below = activation.negative_slope if isinstance(activation, nn.LeakyReLU) else activation.weight
        slope = up + below * (1 - up)
        return h * slope, slope
    raise ConfigError(f"an energy model cannot be sampled with the activation {type(activation).__name__}")


def energy_and_gradient(layers: Sequence[nn.Module], u: Tensor) -> tuple[Tensor, Tensor]:
    """Return E = |u − f(u)|²/d and ∇E for the layers f of an autoencoder, (n, d) → (n,), (n, d).

    ∇E = (2/d) (r − Jᵀr) with r = u − f(u); written out, since a gradient by autograd inside a chain that is itself
    differentiated costs several times as much.
    """
    h = u
    tape: list[tuple[Tensor, bool]] = []  # weights, and derivatives of activations
    for layer in layers:
        if isinstance(layer, nn.Linear):
            tape.append((layer.weight, True))
            h = layer(h)
        else:
            h, slope = _with_slope(layer, h)
            tape.append((slope, False))
    r = u - h
    v = r
    for factor, linear in reversed(tape):
        v = v @ factor if linear else v * factor
    return (r**2).mean(dim=1), (2 / u.shape[1]) * (r - v)


def gradient_shares(terms: Mapping[str, Tensor], weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return |∇ term| with respect to all weights, as a fraction of the sum over terms; their graphs stay."""
    if len(terms) == 1:
        return {name: torch.ones(()) for name in terms}

    def size(term: Tensor) -> Tensor:
        parts = torch.autograd.grad(term, weights, retain_graph=True, materialize_grads=True)
        total: Tensor = torch.cat([part.flatten() for part in parts]).norm()
        return total

    sizes = torch.stack([size(term) for term in terms.values()])
    shares = sizes / sizes.sum().clamp_min(torch.finfo(sizes.dtype).tiny)
    return dict(zip(terms, shares, strict=True))
