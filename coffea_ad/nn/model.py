"""Model: what all anomaly models share, and what the training loop, the export and the card ask of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Model"]


class Model(nn.Module):
    """An anomaly model on transformed rows: z = transform(x), score(x) = energy(z).

    Public attributes are settings, which a resumed training must share; what changes on the way is a buffer, or its name
    begins with an underscore. A model of one's own needs `energy` and `training_loss`; what is not trained by gradients sets its buffers in
    `learn` or `start` and has no parameters.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row of x.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.

    Attributes
    ----------
    method : str
        Name on the card.
    criterion : str
        The figure of `validate` whose minimum is the best epoch; never anything that knows a signal.
    needs_epochs : bool
        Whether an epoch depends on how many there will be, as of chains that get longer: such a training can only be
        resumed to the same number of epochs.
    needs_rows : int
        Effective number of validation rows below which `fit` warns that noise has a say in which epoch is kept.
    figures : tuple of str
        What `figures.training` draws of the history.
    """

    method: ClassVar[str]
    criterion: str = "validation"
    needs_epochs: bool = False
    needs_rows: ClassVar[int] = 0
    figures: ClassVar[tuple[str, ...]] = ("loss", "validation")

    def __init__(self, shape: tuple[int, ...], transform: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.transform = transform

    def settings(self) -> dict[str, Any]:
        """Return what was set when the model was made, beside the shapes of its weights."""
        plain = (bool, int, float, str, tuple, list, dict, type(None))
        own = {
            k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training" and isinstance(v, plain)
        }
        return {"model": type(self).__name__, **own}

    def energy(self, z: Tensor) -> Tensor:
        """Anomaly score of transformed rows, (n, …) → (n,); higher = more anomalous."""
        raise NotImplementedError

    def score(self, x: Tensor) -> Tensor:
        """Anomaly score of raw rows, (n, *shape) → (n,); NaN for a row with a NaN or infinite value."""
        defined = (x - x == 0).flatten(1).all(dim=1)
        wide = defined.reshape(-1, *(1 for _ in self.shape))
        energy = self.energy(self.transform(torch.where(wide, x, torch.zeros_like(x))))
        return torch.where(defined, energy, torch.full_like(energy, float("nan")))

    def forward(self, x: Tensor) -> Tensor:
        """Return the score: what is exported is what is trained."""
        return self.score(x)

    def learn(self, rows: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Learn what needs no gradients from all transformed training rows and their weights, block by block."""

    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Prepare for training, with transformed training rows drawn in proportion to their weights."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Adapt to how far the training is: chain lengths, weights of terms."""

    def training_loss(self, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return "loss", to be minimised, and figures to report, for a batch of transformed rows."""
        raise NotImplementedError

    def validate(self, z: Tensor, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return figures on held-out transformed rows, drawn in proportion to their weights: groups of disjoint rows."""
        with torch.no_grad():
            return {"validation": self.energy(z).mean().item()}

    def diverged(self, figures: dict[str, float]) -> bool:  # noqa: ARG002
        """Say whether an epoch's figures mean that the training has run away; not finite ones do in any case."""
        return False
