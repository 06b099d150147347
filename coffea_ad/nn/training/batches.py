"""Rows of a skim as the training loop wants them: drawn in proportion to their weights, transformed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import SkimError
from coffea_ad.nn.model import Model
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints
from coffea_ad.weights import n_effective

__all__ = ["GROUPS", "IN_MEMORY", "TrainingRows", "draw", "draw_evenly", "fit_transform", "held_out_rows", "seeded"]

GROUPS = 4
"""Disjoint groups of held-out rows: each is a draw of the data, and the error is that over them."""
IN_MEMORY = 2**28
"""Transformed numbers up to this many are kept; beyond, rows are read and transformed batch by batch."""

_BLOCK = 2**24  # transformed numbers that are handed on at a time


def draw(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows with replacement in proportion to their weights; `torch.multinomial` ends at 2²⁴ rows."""
    total = torch.cumsum(weight, 0)
    u = torch.rand(n, generator=generator, device=weight.device, dtype=weight.dtype) * total[-1]
    return torch.searchsorted(total, u, right=True).clamp_(max=len(weight) - 1)


def draw_evenly(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows in proportion to their weights, each as often as n w or once more or less; no row twice if all weigh alike.

    The places (u + k)/n, k = 0 … n − 1, with one u, in the cumulative sum of weights. Rows must stand in a random order.
    """
    total = torch.cumsum(weight, 0)
    u = torch.rand((), generator=generator, device=weight.device, dtype=weight.dtype)
    places = (u + torch.arange(n, device=weight.device, dtype=weight.dtype)) / n * total[-1]
    return torch.searchsorted(total, places, right=True).clamp_(max=len(weight) - 1)


def seeded(seed: int, stream: int, device: torch.device) -> torch.Generator:
    """Return a generator; different streams of one seed are independent."""
    state = int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state & 0x7FFFFFFFFFFFFFFF)


class TrainingRows:
    """The rows of one split with positive weight, transformed: all at once if they fit in memory, else when asked for."""

    def __init__(self, data: Skim, split: str, device: torch.device) -> None:
        self.x = data.x
        self.index = np.flatnonzero((data.split == split) & (data.weight > 0))
        if len(self.index) < 10:
            raise SkimError(f"the skim has {len(self.index)} {split} rows with positive weight; at least 10 are needed")
        self.weight = torch.from_numpy(data.weight[self.index]).to(device)
        self.device = device
        self.kept: Tensor | None = None

    def raw(self, rows: Ints) -> Float32s:
        """Return inputs, as they lie in the skim."""
        return np.asarray(self.x[self.index[rows]], np.float32)

    def keep(self, model: Model) -> None:
        """Transform all rows now, if they fit."""
        self.model = model
        if type(self.x) is np.ndarray and len(self.index) * math.prod(self.x.shape[1:]) <= IN_MEMORY:
            with torch.no_grad():
                self.kept = model.transform(torch.from_numpy(self.raw(np.arange(len(self.index)))).to(self.device))

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through all transformed rows with their weights."""
        every = torch.arange(len(self.index), device=self.device)
        for rows in every.split(max(_BLOCK // math.prod(self.x.shape[1:]), 1)):
            yield self[rows], self.weight[rows]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Return transformed rows."""
        if self.kept is not None:
            return self.kept[rows]
        with torch.no_grad():
            z: Tensor = self.model.transform(torch.from_numpy(self.raw(rows.cpu().numpy())).to(self.device))
        return z


def held_out_rows(rows: TrainingRows, n: int, generator: torch.Generator) -> Tensor:
    """Draw groups from disjoint rows, no more than the effective number of rows can tell apart."""
    order = torch.randperm(len(rows.weight), generator=generator, device=rows.device)
    pools = [order[k::GROUPS] for k in range(GROUPS)]
    size = min(n // GROUPS, len(pools[-1]), max(2, int(n_effective(rows.weight.cpu().numpy()) / GROUPS)))
    return rows[torch.cat([pool[draw_evenly(rows.weight[pool], size, generator)] for pool in pools])]


def fit_transform(model: Model, rows: TrainingRows, seed: int) -> None:
    """Fit the preprocessing, to no more rows than memory holds easily."""
    if isinstance(model.transform, Transform):
        most = max(IN_MEMORY // (16 * math.prod(model.shape)), 10_000)
        chosen = np.arange(len(rows.index))
        if len(chosen) > most:
            chosen = np.sort(np.random.default_rng(seed).choice(len(chosen), most, replace=False))
        model.transform.fit(rows.raw(chosen), rows.weight.cpu().numpy()[chosen])
