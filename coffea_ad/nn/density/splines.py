"""Rational-quadratic splines of many rows at once, laid out for few and long loops: bins first, rows last.

The networks, the inverse, and what the parameters mean are zuko's. Its search looks up the edges of each value's bin one by one;
here a bin is what has been passed of the sums of widths, so that no table is searched, and a graph has half the cost.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["spline_map"]

_LOG_SLOPE = math.log(1e-3)  # zuko's least slope


def _clipped(phi: Tensor, bound: float) -> Tensor:
    """Return φ/(1 + |φ|/bound): free parameters, with an end."""
    return phi / (1 + (phi / bound).abs())


def spline_map(network: Any, inputs: Tensor, values: Tensor, bins: int, bound: float) -> tuple[Tensor, Tensor]:
    """Return what one map makes of its columns, and ln of the product of its slopes.

    With widths w, heights h of K bins on (−B, B), slopes d at their edges, s = h/w and ξ the place in a bin,

        y = y₀ + h (s ξ² + d₀ ξ(1−ξ)) / (s + (d₀ + d₁ − 2s) ξ(1−ξ)),

    and y = x beyond.

    Parameters
    ----------
    network : zuko.nn.MaskedMLP
        (n, inputs) → (n, D · (3K − 1)).
    inputs : (n, inputs)
        Columns and conditions.
    values : (D, n)
        The columns.
    bins : int
        K.
    bound : float
        B.

    Returns
    -------
    (D, n), (n,)
    """
    *hidden, last = network
    for layer in hidden:
        inputs = layer(inputs)
    columns, n = values.shape
    weight = (last.mask * last.weight).reshape(columns, -1, last.in_features).transpose(0, 1).flatten(0, 1)
    bias = last.bias.reshape(columns, -1).t().reshape(-1, 1)
    phi = torch.addmm(bias, weight, inputs.t()).reshape(3 * bins - 1, -1)  # (parameters, D n)
    x = values.reshape(-1)

    # Widths and heights, and their sums up to every edge; the totals stand for the whole of the box.
    parts = _clipped(phi[: 2 * bins], -0.5 * _LOG_SLOPE).exp().reshape(2, bins, -1)
    sums = torch.ones(bins, bins, device=x.device, dtype=x.dtype).tril() @ parts
    total = sums[:, -1]
    place = ((x / bound).clamp(-1.0, 1.0) + 1) * 0.5 * total[0]
    passed = (place >= sums[0, :-1]).to(x.dtype)
    edge = torch.ones_like(passed[:1])
    here = torch.cat([edge, passed]) - torch.cat([passed, edge - 1])  # 1 at the bin, 0 elsewhere
    low_x, low_y = (passed * parts[:, :-1]).sum(dim=1).unbind(0)
    width, height = (here * parts).sum(dim=1).unbind(0)
    slopes = phi[2 * bins :]  # logarithms; at the ends of the box 0, and so are empty sums
    first = _clipped((here[1:] * slopes).sum(dim=0), -_LOG_SLOPE).exp()
    second = _clipped((here[:-1] * slopes).sum(dim=0), -_LOG_SLOPE).exp()

    xi = ((place - low_x) / width).clamp(0.0, 1.0)
    rest = 1 - xi
    scale = total[0] / total[1]
    s = height / width * scale
    both = xi * rest
    below = s + (first + second - 2 * s) * both
    y = low_y + height * (s * xi * xi + first * both) / below
    y = bound * (2 * y / total[1] - 1)
    slope = s * s * (2 * s * both + first * rest * rest + second * xi * xi) / (below * below)
    inside = x.abs() <= bound
    out = torch.where(inside, y, x).reshape(columns, n)
    return out, torch.where(inside, slope, torch.ones_like(slope)).log().reshape(columns, n).sum(dim=0)
