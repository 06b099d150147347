"""WNAE: the Wasserstein normalised autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.nn.autoencoder import AE, Activation
from coffea_ad.nn.losses import wasserstein2
from coffea_ad.nn.samplers import langevin
from coffea_ad.nn.transforms import QuantileNormal

__all__ = ["WNAE"]


class WNAE(AE):
    """An autoencoder whose reconstruction error is the energy of the data's density.

    p(z) ∝ exp(−E(z)/T). The loss is the exact squared 2-Wasserstein distance between a batch of data and as many
    points of persistent Langevin chains in p; its gradient flows through the whole chain. Data are drawn in proportion
    to their weights, so both samples are uniform. The distance of two perfect samples of n points is not 0 but a floor
    that depends on n and d; `validate` reports the excess over it, and the epoch with the smallest excess is kept.

    Parameters
    ----------
    features, hidden, latent, transform, activation
        As for `AE`.
    steps : int
        Langevin steps per batch.
    noise, temperature : float
        s and T of `langevin`.
    buffer_size : int
        Number of persistent chains.
    replay : float
        Fraction of a batch that goes on from the chains; the rest starts afresh from N(0, 1).

    References
    ----------
    CMS Collaboration, "Wasserstein normalized autoencoder for anomaly detection", arXiv:2510.02168;
    S. Yoon, Y.-K. Noh, F. Park, "Autoencoding under normalization constraints", arXiv:2105.05735.

    Examples
    --------
    >>> model = WNAE(2, hidden=(8,), latent=1, transform=nn.Identity(), buffer_size=64)
    >>> g = torch.Generator().manual_seed(1)
    >>> model.start(torch.randn(256, 2, generator=g), g)
    >>> model.training_loss(torch.randn(32, 2, generator=g), g)["loss"].item() > 0
    True
    """

    method: ClassVar[str] = "WNAE"
    criterion: ClassVar[str] = "excess"
    figures: ClassVar[tuple[str, ...]] = ("loss", "wasserstein", "floor")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (10, 10),
        latent: int = 6,
        transform: nn.Module,
        activation: Activation = "relu",
        steps: int = 10,
        noise: float = 0.22,
        temperature: float = 0.063,
        buffer_size: int = 10_000,
        replay: float = 0.95,
    ) -> None:
        super().__init__(features, hidden=hidden, latent=latent, transform=transform, activation=activation)
        self.steps, self.noise, self.temperature, self.replay = steps, noise, temperature, replay
        self.register_buffer("chains", torch.zeros(buffer_size, features))
        self.register_buffer("low", torch.full((features,), -4.0))
        self.register_buffer("high", torch.full((features,), 4.0))
        self.register_buffer("floor", torch.zeros(()))
        self.chains: Tensor
        self.low: Tensor
        self.high: Tensor
        self.floor: Tensor

    def _fresh(self, n: int, generator: torch.Generator) -> Tensor:
        points = torch.randn(n, self.features, generator=generator, device=self.chains.device)
        return torch.minimum(torch.maximum(points, self.low), self.high)

    def start(self, z: Tensor, generator: torch.Generator) -> None:
        """Set the box of the chains to the range of the transform, or else of the data, and start the chains."""
        if isinstance(self.transform, QuantileNormal):
            low, high = self.transform.low, self.transform.high
        else:
            low, high = z.amin(dim=0), z.amax(dim=0)
        self.low.copy_(low)
        self.high.copy_(high)
        self.floor.zero_()
        self.chains.copy_(self._fresh(len(self.chains), generator))

    def _chain(self, start: Tensor, generator: torch.Generator, *, steps: int, create_graph: bool) -> Tensor:
        return langevin(
            self.energy,
            start,
            steps=steps,
            noise=self.noise,
            temperature=self.temperature,
            low=self.low,
            high=self.high,
            generator=generator,
            create_graph=create_graph,
        )

    def training_loss(self, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the Wasserstein distance to the chains, advance them, and report both mean energies."""
        n, device = len(z), z.device
        if n > len(self.chains):
            raise ConfigError(f"buffer_size is {len(self.chains)}, but a batch has {n} rows and needs as many chains")
        slot = torch.randperm(len(self.chains), generator=generator, device=device)[:n]
        replayed = torch.rand(n, 1, generator=generator, device=device) < self.replay
        start = torch.where(replayed, self.chains[slot], self._fresh(n, generator))
        model = self._chain(start, generator, steps=self.steps, create_graph=True)
        self.chains[slot] = model.detach()
        with torch.no_grad():
            energies = {"energy_data": self.energy(z).mean(), "energy_model": self.energy(model).mean()}
        return {"loss": wasserstein2(z, model), **energies}

    def validate(self, z: Tensor, generator: torch.Generator) -> dict[str, float]:
        """Return the distance between held-out data and advanced chains, its floor, and the excess.

        The floor is the distance between the two halves of z, which the training loop draws from disjoint rows; the
        model is compared with both at the same size.
        """
        n = min(len(z) // 2, len(self.chains))
        one, two = z[:n], z[n : 2 * n]
        if self.floor.item() == 0.0:
            self.floor.copy_(wasserstein2(one, two))
        slot = torch.randperm(len(self.chains), generator=generator, device=z.device)[:n]
        model = self._chain(self.chains[slot], generator, steps=self.steps, create_graph=False)
        distance = 0.5 * (wasserstein2(one, model) + wasserstein2(two, model)).item()
        with torch.no_grad():
            reconstruction = self.energy(z).mean().item()
        floor = self.floor.item()
        return {
            "wasserstein": distance,
            "floor": floor,
            "excess": distance - floor,
            "reconstruction": reconstruction,
        }

    def sample(self, n: int, generator: torch.Generator, steps: int = 0) -> Tensor:
        """Return n points of the chains in transformed units, advanced by further steps."""
        slot = torch.randint(len(self.chains), (n,), generator=generator, device=self.chains.device)
        points = self.chains[slot]
        return self._chain(points, generator, steps=steps, create_graph=False) if steps else points.clone()
