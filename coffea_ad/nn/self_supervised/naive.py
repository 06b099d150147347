"""Slow, obvious twins of the losses: their definitions, with every pair of rows as vectors side by side, (2N, 2N, D).

Tests and the benchmark compare the losses with them; nothing else imports them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

__all__ = ["LOSSES", "anom_clr", "anom_clr_plus", "decoupled_clr", "nt_xent", "uniformity"]


def _all_pairs(a: Tensor, b: Tensor) -> Tensor:
    return cosine_similarity(a.unsqueeze(1), b.unsqueeze(0), dim=2)


def _negatives(row: Tensor) -> Tensor:
    """Return 1 for views of different rows and 0 for those of one, (2N, 2N)."""
    both = torch.cat([row, row])
    return (both.unsqueeze(1) != both.unsqueeze(0)).float()


def _partners(z: Tensor, other: Tensor) -> Tensor:
    """Return s of each view with that of the same row in the other half, (2N,)."""
    pairs = _all_pairs(torch.cat([z, other]), torch.cat([z, other]))
    return torch.cat([pairs.diagonal(len(z)), pairs.diagonal(-len(z))])


def nt_xent(z: Tensor, positive: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the mean of −ln[e^{s⁺/τ} / (e^{s⁺/τ} + Σ e^{s/τ})]."""
    views = torch.cat([z, positive])
    nominator = torch.exp(_partners(z, positive) / temperature)
    negatives = (torch.exp(_all_pairs(views, views) / temperature) * _negatives(row)).sum(dim=1)
    return -torch.log(nominator / (nominator + negatives)).mean()


def decoupled_clr(z: Tensor, positive: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the mean of −ln[e^{s⁺/τ} / Σ e^{s/τ}]."""
    views = torch.cat([z, positive])
    nominator = torch.exp(_partners(z, positive) / temperature)
    negatives = (torch.exp(_all_pairs(views, views) / temperature) * _negatives(row)).sum(dim=1)
    return -torch.log(nominator / negatives).mean()


def anom_clr(z: Tensor, positive: Tensor, anomaly: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the mean of −ln[e^{(s⁺ − s*)/τ} / Σ e^{s/τ}]."""
    views = torch.cat([z, positive])
    nominator = torch.exp((_partners(z, positive) - _partners(z, anomaly)) / temperature)
    negatives = (torch.exp(_all_pairs(views, views) / temperature) * _negatives(row)).sum(dim=1)
    return -torch.log(nominator / negatives).mean()


def anom_clr_plus(z: Tensor, positive: Tensor, anomaly: Tensor, temperature: float, row: Tensor) -> Tensor:  # noqa: ARG001
    """Return the mean of −ln e^{(s⁺ − s*)/τ}."""
    return -torch.log(torch.exp((_partners(z, positive) - _partners(z, anomaly)) / temperature)).mean()


def uniformity(z: Tensor, row: Tensor) -> Tensor:
    """Return the logarithm of the mean Gaussian of all pairs of different rows."""
    unit = z / z.norm(dim=1, keepdim=True)
    pairs = [
        torch.exp(-2 * (unit[i] - unit[j]).square().sum())
        for i in range(len(z))
        for j in range(len(z))
        if row[i] != row[j]
    ]
    return torch.stack(pairs).mean().log()


LOSSES = {"nt_xent": nt_xent, "decoupled_clr": decoupled_clr, "anom_clr": anom_clr, "anom_clr_plus": anom_clr_plus}
