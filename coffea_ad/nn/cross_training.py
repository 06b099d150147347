"""Folded: members of a cross-training as one model, in which no event is scored by a network that has seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nn.model import Model
from coffea_ad.scoring.specs import Folds
from coffea_ad.splits import fold_of
from coffea_ad.typing import Ints

__all__ = ["Folded"]


class Folded(nn.Module):
    """k members; member f was trained without fold f, and scores fold f.

    Parameters
    ----------
    members : sequence of Model
        In the order of the folds.
    salt : str
        Divides the events: `weights.fold_of(salt, k, run, luminosityBlock, event)`.

    Raises
    ------
    ConfigError
        There are fewer than two members, or they differ in method or columns.

    Examples
    --------
    >>> from coffea_ad.nn.reconstruction.autoencoder import AE
    >>> model = Folded([AE(8, transform=nn.Identity()) for _ in range(3)], salt="folds")
    >>> model.score(torch.zeros(4, 8), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4])
    """

    def __init__(self, members: Sequence[Model], salt: str) -> None:
        super().__init__()
        if len(members) < 2 or len({(m.method, m.shape) for m in members}) != 1:
            raise ConfigError("the members of a cross-training must be two or more, of one method and the same columns")
        self.members = nn.ModuleList(members)
        self.shape, self.method = members[0].shape, members[0].method
        self.folds = Folds(k=len(members), salt=salt)

    def fold_of(self, ids: Mapping[str, npt.NDArray[Any]]) -> Ints:
        """Return the fold of events from their `run`, `luminosityBlock` and `event`, such as the spectators of a skim."""
        return fold_of(self.folds.salt, self.folds.k, *(ids[name] for name in EVENT_ID))

    def score(self, x: Tensor, fold: Tensor) -> Tensor:
        """Anomaly score of raw rows by the member that never saw their events, (n, d) and (n,) integers → (n,)."""
        return torch.stack(self(x)).gather(0, fold[None, :])[0]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the scores by every member."""
        return tuple(member(x) for member in self.members)
