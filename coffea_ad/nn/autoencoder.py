"""AE: a dense autoencoder whose anomaly score is its reconstruction error."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from coffea_ad.nn.model import Model

__all__ = ["AE", "Activation", "mlp"]


Activation = Literal["relu", "silu"]
_ACTIVATIONS: dict[Activation, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def mlp(widths: Sequence[int], activation: Activation = "relu") -> nn.Sequential:
    """Return linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class AE(Model):
    """Dense autoencoder on transformed inputs.

    E(z) = |z − D(e(z))|² / d, with z = transform(x). The score of x is E.

    Parameters
    ----------
    features : int
        Number of input columns, d.
    hidden : sequence of int
        Widths from the input to the bottleneck; the decoder mirrors them.
    latent : int
        Width of the bottleneck.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.
    activation : "relu" or "silu"
        Between the layers.

    References
    ----------
    T. Heimel, G. Kasieczka, T. Plehn, J. Thompson, "QCD or what?", arXiv:1808.08979.

    Examples
    --------
    >>> model = AE(8, transform=nn.Identity())
    >>> model.score(torch.zeros(3, 8)).shape
    torch.Size([3])
    """

    method: ClassVar[str] = "AE"
    criterion: ClassVar[str] = "reconstruction"
    figures: ClassVar[tuple[str, ...]] = ("loss", "reconstruction")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (10, 10),
        latent: int = 6,
        transform: nn.Module,
        activation: Activation = "relu",
    ) -> None:
        super().__init__((features,), transform)
        self.features = features
        self.encoder = mlp([features, *hidden, latent], activation)
        self.decoder = mlp([latent, *reversed(hidden), features], activation)

    def energy(self, z: Tensor) -> Tensor:
        """Mean squared reconstruction error of transformed rows, (n, d) → (n,)."""
        difference: Tensor = z - self.decoder(self.encoder(z))
        return (difference**2).mean(dim=1)

    def training_loss(self, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "loss", to be minimised, and figures to report, for a batch of transformed rows."""
        return {"loss": self.energy(z).mean()}

    def validate(self, z: Tensor, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return figures on held-out transformed rows, drawn in proportion to their weights."""
        with torch.no_grad():
            return {"reconstruction": self.energy(z).mean().item()}
