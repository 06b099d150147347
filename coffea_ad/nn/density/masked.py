"""Masked networks for graphs, without most of their zeros: half of the weights between hidden units are masked, and cost as much as others.

Units are sorted by how many they depend on, which changes no output, so that a layer is nearly triangular. A block of its units reads only the units
before that it depends on.
"""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Blocks", "blocked"]

_UNITS = 64  # of a block: with fewer, reading parts of rows costs what is saved


class Blocks(nn.Module):
    """A hidden layer max(0, W x + b), in blocks of units that read no more inputs than they depend on.

    Parameters
    ----------
    layer : zuko.nn.MaskedLinear
        W, b and the mask, with its units and their inputs sorted.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        for start, stop, reach in _blocks(layer.mask):
            part = nn.Linear(reach, stop - start)
            part.weight = nn.Parameter((layer.mask * layer.weight)[start:stop, :reach].detach().clone())
            part.bias = nn.Parameter(layer.bias[start:stop].detach().clone())
            self.parts.append(part)

    def forward(self, x: Tensor) -> Tensor:
        """Return the units of rows, (n, inputs) → (n, units)."""
        return torch.cat([part(x[:, : part.in_features]).relu() for part in self.parts], dim=1)


def _blocks(mask: Tensor) -> list[tuple[int, int, int]]:
    """Return first and last unit of every block, and how many inputs it reads; neighbours that read the same are one."""
    blocks: list[tuple[int, int, int]] = []
    starts = range(0, max(len(mask) - _UNITS // 2, 1), _UNITS)  # a short rest belongs to the last block
    for start, stop in zip(starts, [*starts[1:], len(mask)], strict=True):
        reach = int(mask[start:stop].any(dim=0).nonzero().max()) + 1
        first = blocks.pop()[0] if blocks and blocks[-1][2] == reach else start
        blocks.append((first, stop, reach))
    return blocks


def blocked(network: Any) -> Any:
    """Return a network with the same outputs and fewer multiplications by zeros; itself, where no layer has several blocks.

    Of H² multiplications between H hidden units about H (H + 64)/2 are left.

    Parameters
    ----------
    network : zuko.nn.MaskedMLP
        Masked layers, with ReLU between them.

    Returns
    -------
    nn.Sequential
        Copies of the first and the last layer, which are masked as before, and `Blocks` between them.

    Examples
    --------
    >>> import zuko
    >>> network = zuko.nn.MaskedMLP(torch.ones(8, 8).tril() > 0, [256, 256])
    >>> [tuple(part.weight.shape) for part in blocked(network)[2].parts]
    [(64, 64), (64, 128), (64, 192), (64, 256)]
    """
    layers = [copy.deepcopy(layer) for layer in network if hasattr(layer, "mask")]
    for layer, following in itertools.pairwise(layers):
        order = layer.mask.sum(dim=1).argsort(stable=True)
        layer.mask, following.mask = layer.mask[order], following.mask[:, order]
        layer.weight = nn.Parameter(layer.weight[order].detach())
        layer.bias = nn.Parameter(layer.bias[order].detach())
        following.weight = nn.Parameter(following.weight[:, order].detach())
    first, *between, last = layers
    if all(len(_blocks(layer.mask)) == 1 for layer in between):
        return network
    named = {f"blocks{i}": Blocks(layer) for i, layer in enumerate(between, start=1)}
    return nn.Sequential(OrderedDict(first=first, relu=nn.ReLU(), **named, last=last))
