"""Slow, obvious twins of the losses: their definitions, with all pairs of views as vectors side by side, (2N, 2N, D).

Tests and the benchmark compare the losses with them; nothing else imports them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

__all__ = ["LOSSES", "anom_clr", "anom_clr_plus", "decoupled_clr", "nt_xent", "uniformity"]


def _all_pairs(one: Tensor, other: Tensor) -> Tensor:
    """Return s of all views of two sets of rows, (N, D) → (2N, 2N)."""
    views = torch.cat([one, other])
    return cosine_similarity(views.unsqueeze(1), views.unsqueeze(0), dim=2)


def _partners(pairs: Tensor) -> Tensor:
    """Return s of each view with that of the same row in the other set, (2N,)."""
    n = len(pairs) // 2
    return torch.cat([pairs.diagonal(n), pairs.diagonal(-n)])


def _negatives(pairs: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the sum of e^{s/τ} over views of different rows, (2N,)."""
    both = torch.cat([row, row])
    different = (both.unsqueeze(1) != both.unsqueeze(0)).to(pairs.dtype)
    return (torch.exp(pairs / temperature) * different).sum(dim=1)


def nt_xent(z: Tensor, positive: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the mean of −ln[e^{s⁺/τ} / (e^{s⁺/τ} + Σ e^{s/τ})]."""
    pairs = _all_pairs(z, positive)
    nominator = torch.exp(_partners(pairs) / temperature)
    return -torch.log(nominator / (nominator + _negatives(pairs, temperature, row))).mean()


def decoupled_clr(z: Tensor, positive: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the mean of −ln[e^{s⁺/τ} / Σ e^{s/τ}]."""
    pairs = _all_pairs(z, positive)
    nominator = torch.exp(_partners(pairs) / temperature)
    return -torch.log(nominator / _negatives(pairs, temperature, row)).mean()


def anom_clr(z: Tensor, positive: Tensor, anomaly: Tensor, temperature: float, row: Tensor) -> Tensor:
    """Return the mean of −ln[e^{(s⁺ − s*)/τ} / Σ e^{s/τ}]."""
    pairs, anomalous = _all_pairs(z, positive), _all_pairs(z, anomaly)
    nominator = torch.exp((_partners(pairs) - _partners(anomalous)) / temperature)
    return -torch.log(nominator / _negatives(pairs, temperature, row)).mean()


def anom_clr_plus(z: Tensor, positive: Tensor, anomaly: Tensor, temperature: float, row: Tensor) -> Tensor:  # noqa: ARG001
    """Return the mean of −ln e^{(s⁺ − s*)/τ}."""
    difference = _partners(_all_pairs(z, positive)) - _partners(_all_pairs(z, anomaly))
    return -torch.log(torch.exp(difference / temperature)).mean()


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
