"""DeepSVDDEnsemble: Deep SVDD networks of several sizes as one model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.one_class.svdd import DeepSVDD, UnboundedActivation, has_collapsed

__all__ = ["DIMENSIONS", "DeepSVDDEnsemble"]

DIMENSIONS = (5, 8, 13, 21, 34, 55, 89, 144, 233, 377)


class DeepSVDDEnsemble(Model):
    """Deep SVDD networks with fixed centres and different numbers of outputs, as one model.

    E(z) = (1/M) Σₘ Eₘ(z) / ⟨Eₘ⟩, with Eₘ(z) = |φₘ(z) − cₘ|² / Kₘ and ⟨Eₘ⟩ its mean over the rows of a training epoch, so
    that no member counts more than another. The loss is (1/M) Σₘ Eₘ / cₘ²; as the members share nothing but the
    transform, each is trained as it would be alone. There is one member for every number of outputs and centre.

    Parameters
    ----------
    features, hidden, transform, activation
        As for `DeepSVDD`.
    dimensions : sequence of int
        Numbers of outputs.
    centres : sequence of float
        Constants; every component of a member's centre is this number.

    Raises
    ------
    ConfigError
        There is no member, or a centre is 0 or not finite.

    References
    ----------
    S. Caron, L. Hendriks, R. Verheyen, "Rare and different: Anomaly scores from a combination of likelihood and
    out-of-distribution models to detect new physics at the LHC", arXiv:2106.10164;
    T. Aarrestad et al., "The Dark Machines anomaly score challenge", arXiv:2105.14027.

    Examples
    --------
    >>> model = DeepSVDDEnsemble(8, dimensions=(5, 8), centres=(1.0, 2.0), transform=nn.Identity())
    >>> len(model.members), model.score(torch.zeros(3, 8)).shape
    (4, torch.Size([3]))
    """

    method: ClassVar[str] = "Deep SVDD ensemble"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "validation", "spread")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (64, 32),
        dimensions: Sequence[int] = DIMENSIONS,
        transform: nn.Module,
        centres: Sequence[float] = (1.0,),
        activation: UnboundedActivation = "leaky_relu",
    ) -> None:
        super().__init__((features,), transform)
        pairs = list(itertools.product(dimensions, centres))
        if not pairs:
            raise ConfigError(f"{self.method}: dimensions and centres must hold at least one number each")
        members = [
            DeepSVDD(
                features, hidden=hidden, outputs=k, transform=nn.Identity(), centre=centre, activation=activation
            )
            for k, centre in pairs
        ]  # fmt: skip
        self.members = nn.ModuleList(members)
        self.register_buffer("scale", torch.ones(len(pairs)))
        self.register_buffer("weight", torch.tensor([1 / centre**2 for _, centre in pairs]))
        self.scale: Tensor
        self.weight: Tensor
        self._batches = 0

    def energies(self, z: Tensor) -> Tensor:
        """Return the energies Eₘ of all members, (n, d) → (n, M)."""
        return torch.stack([member.energy(z) for member in self._each()], dim=1)

    def _each(self) -> list[DeepSVDD]:
        return [member for member in self.members if isinstance(member, DeepSVDD)]

    def energy(self, z: Tensor) -> Tensor:
        """Mean over the members of their energies, each relative to its mean over the background, (n, d) → (n,)."""
        return (self.energies(z) / self.scale).mean(dim=1)

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Prepare every member, and take the means of their energies before training."""
        z = batch.z
        for member in self._each():
            member.start(batch, generator)
        with torch.no_grad():
            self.scale.copy_(self.energies(z).mean(dim=0))

    def begin_epoch(self, epoch: int, epochs: int) -> None:  # noqa: ARG002
        """Take the means of the energies anew, from the rows of this epoch."""
        self._batches = 0

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean of the members' losses, and keep count of the means of their energies."""
        z = batch.z
        means = self.energies(z).mean(dim=0)
        if self.training:
            self._batches += 1
            with torch.no_grad():
                self.scale.copy_(self.scale.lerp(means, 1 / self._batches))
        return {"loss": (means * self.weight).mean()}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return the loss on held-out rows, and the smallest spread of a member."""
        z = batch.z
        with torch.no_grad():
            loss = (self.energies(z).mean(dim=0) * self.weight).mean().item()
        return {"validation": loss, "spread": min(member.spread(z) for member in self._each())}

    def diverged(self, metrics: dict[str, float]) -> bool:
        """Say, with a warning, whether a member has become a constant; such an epoch is undone."""
        return has_collapsed(self.method, metrics["spread"])
