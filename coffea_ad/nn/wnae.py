"""WNAE: the Wasserstein normalised autoencoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.distances import DISTANCES
from coffea_ad.nn.energy import EnergyModel

__all__ = ["WNAE"]


class WNAE(EnergyModel):
    """An autoencoder whose reconstruction error is the energy of the data's density.

    p(z) ∝ exp(−E(z)/T). The loss is a squared 2-Wasserstein distance between a batch of data and as many points of
    Langevin chains in p; its gradient flows through the chain. Data are drawn in proportion to their weights, so both
    samples are uniform. The distance of two perfect samples of n points is not 0 but a floor that depends on n and d;
    `validate` reports the excess over it.

        loss = W₂²(data, chains) + λ (⟨E⟩_data − ⟨E⟩_chains)/T + γ (⟨E²⟩_data + ⟨E²⟩_chains)/T²

    A distance to chains of few steps only asks that the chains end near the data; the second term is the gradient of
    the likelihood, and asks that they would stay there.

    Parameters
    ----------
    features, **options
        As for `EnergyModel`.
    distance : "exact", "sliced", "max_sliced" or "sinkhorn"
        See `distances`.
    grad_steps : int, optional
        The gradient flows through the last so many steps; by default through all.
    contrast : float
        λ.
    energy_weight : float
        γ.
    smear : float
        Gaussian noise that is added to the data of every batch, in transformed units: what is narrower than that is not
        learnt, and neither is it an anomaly. The excess is measured against data without it.

    References
    ----------
    CMS Collaboration, "Wasserstein normalized autoencoder for anomaly detection", arXiv:2510.02168;
    S. Yoon, Y.-K. Noh, F. Park, "Autoencoding under normalization constraints", arXiv:2105.05735.

    Examples
    --------
    >>> model = WNAE(2, hidden=(8,), latent=1, transform=torch.nn.Identity(), buffer_size=64)
    >>> g = torch.Generator().manual_seed(1)
    >>> model.start(torch.randn(256, 2, generator=g), g)
    >>> model.training_loss(torch.randn(32, 2, generator=g), g)["loss"].item() > 0
    True
    """

    method: ClassVar[str] = "WNAE"

    def __init__(
        self,
        features: int,
        *,
        distance: str = "exact",
        grad_steps: int | None = None,
        contrast: float = 0.0,
        energy_weight: float = 0.0,
        smear: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(features, **options)
        if distance not in DISTANCES:
            raise ConfigError(unknown_text("distance", distance, DISTANCES))
        self.distance, self.grad_steps = distance, grad_steps
        self.contrast, self.energy_weight, self.smear = contrast, energy_weight, smear

    def training_loss(self, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """Return the Wasserstein distance to the chains, advance them, and report both mean energies."""
        if self.smear > 0:
            z = z + self.smear * torch.randn(z.shape, generator=generator, device=z.device, dtype=z.dtype)
        made = self.negatives(z, generator, self.grad_steps)
        loss = DISTANCES[self.distance](z, made.points, generator=generator)
        with torch.set_grad_enabled(self.contrast > 0 or self.energy_weight > 0):
            data, model = self.energy(z), self.energy(made.points.detach())
        figures = {"energy_data": data.mean().detach(), "energy_model": model.mean().detach()}
        if self.contrast > 0:
            loss = loss + self.contrast * (data.mean() - model.mean()) / self.temperature
        if self.energy_weight > 0:
            loss = loss + self.energy_weight * ((data**2).mean() + (model**2).mean()) / self.temperature**2
        return {"loss": loss, **figures, "acceptance": made.acceptance.detach()}
