"""Slots: sets of objects, padded with zeros, as flat rows."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import SkimError
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.typing import Float32s, Float64s

__all__ = ["Slots"]


class Slots(Transform):
    """Transform every occupied slot of a set by the same preprocessing, and lay the slots side by side: (n, N, C) → (n, N C).

    A slot with nothing but zeros is empty, and stays 0 in z. The preprocessing of the C columns is fitted to occupied slots
    only, all N of a row together, each with the row's weight: how often slots are empty does not move it.

    What a model makes of z is a matter of all N C numbers. The error of an autoencoder is their mean, with the same N C for
    every row, whatever else is in a batch: that an empty slot is empty has to be restored like any other value, and what the
    network puts there counts. So rows with many objects have more to be wrong, and a score follows the multiplicity to some extent;
    compare it with that. The order of the slots counts, too: features sort them by pT, and a permuted row has permuted z.

    Parameters
    ----------
    slots : int
        N.
    then : Transform
        Preprocessing of the C columns of a slot. Flags such as `mask`, which tell an average object from an empty slot, should
        be left as they are.

    Raises
    ------
    SkimError
        When fitted: rows of another shape, no object in any of them, or a column that cannot be transformed; the message names it.

    References
    ----------
    E. Govorkova et al., "Autoencoders on field-programmable gate arrays for real-time, unsupervised new physics detection at 40 MHz
    at the Large Hadron Collider", arXiv:2108.03986: flat, padded objects as inputs of autoencoders.

    Examples
    --------
    >>> from coffea_ad.nn.transforms.columns import Standard
    >>> x = np.array([[[3.0], [1.0]], [[5.0], [0.0]]], np.float32)  # two objects, and one
    >>> Slots(2, Standard(1)).fit(x, np.ones(2))(torch.from_numpy(x)).round(decimals=2)
    tensor([[ 0.0000, -1.2200],
            [ 1.2200,  0.0000]])
    """

    has_jacobian: ClassVar[bool] = False

    def __init__(self, slots: int, then: Transform) -> None:
        super().__init__(slots * then.features, names=[f"{name}[{i}]" for i in range(slots) for name in then.names])
        self.row_shape = (slots, then.features)
        self.slots, self.then = slots, then

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Learn from finite rows, (n, N, C), with weights that are not negative, (n,)."""
        if tuple(x.shape[1:]) != self.row_shape:
            raise SkimError(
                f"rows have the shape {tuple(x.shape[1:])}, the model takes sets of the shape {self.row_shape}"
            )
        occupied = (x != 0).any(axis=2)
        if not occupied[weight > 0].any():
            raise SkimError("all slots of all rows are empty; there is nothing to learn from")
        self.then.fit(x[occupied], np.repeat(weight, occupied.sum(axis=1)))
        self.low.copy_(self.then.low.clamp(max=0.0).repeat(self.slots))  # 0 is always possible
        self.high.copy_(self.then.high.clamp(min=0.0).repeat(self.slots))
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Transform rows, (n, N, C) → (n, N C)."""
        occupied = (x != 0).any(dim=2, keepdim=True)
        z: Tensor = self.then(x.reshape(-1, self.then.features)).reshape(-1, self.slots, self.then.features)
        return torch.where(occupied, z, torch.zeros_like(z)).flatten(1)
