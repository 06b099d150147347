"""What became of a training, epoch by epoch, and the epochs that were best."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import Tensor

from coffea_ad.nn.model import Model

__all__ = ["Epoch", "History"]


class Epoch(NamedTuple):
    """An epoch whose weights are remembered: the value it was judged by, its number, and its weights."""

    value: float
    number: int
    state: dict[str, Tensor]


class History(list[dict[str, float]]):
    """Metrics of every epoch, in order, and the best epochs with their weights.

    Parameters
    ----------
    rows : iterable of dict
        Metrics of every epoch.
    epochs : iterable of Epoch
        The `TrainConfig.keep` best ones, the best first.
    measured : dict
        What else was measured of the trained model, for the card, such as {"long_run": …}.
    """

    def __init__(
        self,
        rows: Iterable[dict[str, float]],
        epochs: Iterable[Epoch] = (),
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(rows)
        self.epochs, self.measured = tuple(epochs), dict(measured or {})

    @property
    def best(self) -> dict[str, float]:
        """Metrics of the best epoch."""
        return next(row for row in self if int(row["epoch"]) == self.epochs[0].number)

    def models(self, model: Model) -> list[Model]:
        """Return the model with the weights of each of the best epochs."""
        out = []
        for epoch in self.epochs:
            member = copy.deepcopy(model)
            member.load_state_dict(epoch.state)
            out.append(member.eval())
        return out

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle rows, epochs and measurements."""
        return History, (list(self), self.epochs, self.measured)
