"""Rows of a skim as the training loop wants them: sampled in proportion to their weights, transformed."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import SkimError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Float64s, Ints
from coffea_ad.weights import n_effective

__all__ = [
    "GROUPS",
    "IN_MEMORY",
    "TrainingRows",
    "balanced",
    "fit_transform",
    "held_out_rows",
    "sample_evenly",
    "sample_rows",
    "seeded",
]

GROUPS = 4
"""Disjoint groups of held-out rows: each is a draw of the data, and the error is that over them."""
IN_MEMORY = 2**28
"""Transformed numbers up to this many are kept; beyond, rows are read and transformed batch by batch."""

_BLOCK = 2**24  # transformed numbers that are handed on at a time


def sample_rows(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Sample n rows with replacement in proportion to their weights; `torch.multinomial` ends at 2²⁴ rows."""
    total = torch.cumsum(weight, 0)
    u = torch.rand(n, generator=generator, device=weight.device, dtype=weight.dtype) * total[-1]
    return torch.searchsorted(total, u, right=True).clamp_(max=len(weight) - 1)


def sample_evenly(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Sample n rows in proportion to their weights, each as often as n w or once more or less; no row twice if all weigh alike.

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
    """The rows of one split with positive weight, transformed: all at once if they fit in memory, else when asked for.

    With labels, the weights of each label sum to the same, so that rows of every label are sampled equally often.
    """

    def __init__(self, data: Skim, split: str, device: torch.device) -> None:
        self.x = data.x
        self.index = np.flatnonzero((data.split == split) & (data.weight > 0))
        if len(self.index) < 10:
            raise SkimError(f"the skim has {len(self.index)} {split} rows with positive weight; at least 10 are needed")
        weight = data.weight[self.index]
        self.label: Tensor | None = None
        if data.label is not None:
            label = data.label[self.index]
            self.label = torch.from_numpy(label).to(device)
            weight = balanced(weight, label)
        self.weight = torch.from_numpy(weight).to(device)
        self.row = torch.from_numpy(self.index).to(device)
        self.device = device
        self.transformed: Tensor | None = None

    def raw(self, rows: Ints) -> Float32s:
        """Return inputs, as they lie in the skim."""
        return np.asarray(self.x[self.index[rows]], np.float32)

    def transform(self, model: Model) -> None:
        """Transform all rows now, block by block, if they fit before and behind the transform."""
        self.model = model
        if type(self.x) is not np.ndarray or len(self.index) * math.prod(self.x.shape[1:]) > IN_MEMORY:
            return
        first = self._transformed(np.arange(4))
        if len(self.index) * math.prod(first.shape[1:]) > IN_MEMORY:
            return
        step = max(_BLOCK // math.prod(self.x.shape[1:]), 1)
        parts = [
            self._transformed(np.arange(start, min(start + step, len(self.index))))
            for start in range(0, len(self.index), step)
        ]
        self.transformed = torch.cat(parts)

    def _transformed(self, rows: Ints) -> Tensor:
        with torch.no_grad():
            z: Tensor = self.model.transform(torch.from_numpy(self.raw(rows)).to(self.device))
        return z

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through all transformed rows with their weights."""
        every = torch.arange(len(self.index), device=self.device)
        for rows in every.split(max(_BLOCK // math.prod(self.x.shape[1:]), 1)):
            yield self[rows].z, self.weight[rows]

    def __getitem__(self, rows: Tensor) -> Batch:
        """Return transformed rows, with their labels and places."""
        z = self.transformed[rows] if self.transformed is not None else self._transformed(rows.cpu().numpy())
        return Batch(z, None if self.label is None else self.label[rows], self.row[rows])


def balanced(weight: Float64s, label: Ints) -> Float64s:
    """Return weights of which those of each label sum to 1.

    >>> balanced(np.array([1.0, 3.0, 2.0]), np.array([0, 0, 1]))
    array([0.25, 0.75, 1.  ])
    """
    _, which = np.unique(label, return_inverse=True)
    return np.asarray(weight / np.bincount(which, weight)[which], np.float64)


def held_out_rows(rows: TrainingRows, n: int, generator: torch.Generator) -> Batch:
    """Draw groups from disjoint rows, no more than the effective number of rows can tell apart."""
    order = torch.randperm(len(rows.weight), generator=generator, device=rows.device)
    pools = [order[k::GROUPS] for k in range(GROUPS)]
    size = min(n // GROUPS, len(pools[-1]), max(2, int(n_effective(rows.weight.cpu().numpy()) / GROUPS)))
    return rows[torch.cat([pool[sample_evenly(rows.weight[pool], size, generator)] for pool in pools])]


def fit_transform(model: Model, rows: TrainingRows, seed: int) -> None:
    """Fit the preprocessing, to no more rows than memory holds easily."""
    if isinstance(model.transform, Transform):
        most = max(IN_MEMORY // (16 * math.prod(model.shape)), 10_000)
        places = np.arange(len(rows.index))
        if len(places) > most:
            places = np.sort(np.random.default_rng(seed).choice(len(places), most, replace=False))
        model.transform.fit(rows.raw(places), rows.weight.cpu().numpy()[places])
