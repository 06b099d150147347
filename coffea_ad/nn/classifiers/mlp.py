"""MLP: a dense network that tells two labels apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from coffea_ad.errors import SkimError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.reconstruction.autoencoder import Activation, mlp

__all__ = ["MLP"]


class MLP(Model):
    """A classifier of the labels 0 and 1; the score is the log of the ratio of their densities.

    A network f on z = transform(x) minimises the cross entropy of rows that are drawn with equal weight of either label,

        −⟨ln σ(f)⟩₁ − ⟨ln σ(−f)⟩₀,  and so  s(x) = f(z) → ln p(x|1) / p(x|0).

    Of the ten best epochs (`TrainConfig.keep`), `Ensemble.of_epochs` averages the probabilities.
    Where the labels hardly differ, which epoch is best is noise unless many validation rows are drawn (`validation_rows`).

    Parameters
    ----------
    features : int
        Number of columns of z.
    hidden : sequence of int
        Widths.
    activation : "relu", "silu", "leaky_relu" or "prelu"
        Between the layers.
    transform : nn.Module
        Preprocessing x → z; `Selected` leaves out columns that the classifier must not see.

    References
    ----------
    E. Metodiev, B. Nachman, J. Thaler, "Classification without labels", arXiv:1708.02949.
    A. Hallin et al., "Classifying anomalies through outer density estimation", arXiv:2109.00546: three layers of 64, and the mean
    of the ten best epochs.

    Examples
    --------
    >>> model = MLP(4, transform=nn.Identity())
    >>> model.scores(torch.zeros(3, 4).numpy()).shape
    (3,)
    """

    method = "MLP classifier"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "validation")
    epochs_by: ClassVar[str] = "probability"

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (64, 64, 64),
        activation: Activation = "relu",
        transform: nn.Module,
    ) -> None:
        super().__init__((features,), transform)
        self.net = mlp([features, *hidden, 1], activation)

    def energy(self, z: Tensor) -> Tensor:
        """Log of the ratio of densities, (n, features) → (n,)."""
        out: Tensor = self.net(z).squeeze(1)
        return out

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the cross entropy."""
        return {"loss": self._cross_entropy(batch)}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return the cross entropy of held-out rows."""
        with torch.no_grad():
            return {"validation": self._cross_entropy(batch).item()}

    def _cross_entropy(self, batch: Batch) -> Tensor:
        if batch.label is None:
            raise SkimError("a classifier needs rows with the labels 0 and 1: skim.labelled(mask) gives them")
        if bool(((batch.label != 0) & (batch.label != 1)).any()):
            raise SkimError("a classifier takes the labels 0 and 1 only")
        return binary_cross_entropy_with_logits(self.energy(batch.z), batch.label.to(batch.z.dtype))
