"""WNAE: the Wasserstein normalised autoencoder."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.energy_based.distances import DISTANCES
from coffea_ad.nn.energy_based.energy import EnergyModel

__all__ = ["WNAE"]


class WNAE(EnergyModel):
    """An autoencoder whose reconstruction error is the energy of the data's density.

    p ∝ exp(−E/T). The loss is a Wasserstein distance between a batch of data and as many points of Langevin chains in
    p; its gradient flows through the chain. Data are drawn in proportion to their weights, so both samples are uniform.
    The distance of two perfect samples of n points is not 0 but a floor that depends on n and d; `validate` reports the
    excess over it.

        loss = W₂²(data, chains) + λ (⟨E⟩_data − ⟨E⟩_chains)/T + γ (⟨E²⟩_data + ⟨E²⟩_chains)/T²

    By default λ = γ = 0. The second term is the gradient of the likelihood, and soon outweighs the distance: the model is
    then an `NAE` in all but name. The history has each term's share of the gradient, `share_…`.

    Parameters
    ----------
    features, **options
        As for `EnergyModel`.
    distance : "w2_squared", "w1" or "sliced"
        W₂², W₁, or a sliced W₂²; see `distances`.
    grad_steps : int, optional
        The gradient flows through the last so many steps; None: through all.
    contrast : float
        λ.
    energy_weight : float
        γ.
    smear : float
        As for `EnergyModel`.

    References
    ----------
    CMS Collaboration, "Wasserstein normalized autoencoder for anomaly detection", arXiv:2510.02168;
    S. Yoon, Y.-K. Noh, F. Park, "Autoencoding under normalization constraints", arXiv:2105.05735.

    Examples
    --------
    >>> model = WNAE(2, hidden=(8,), latent=1, transform=torch.nn.Identity(), buffer_size=64)
    >>> g = torch.Generator().manual_seed(1)
    >>> from coffea_ad.nn.model import Batch
    >>> model.start(Batch.of(torch.randn(256, 2, generator=g)), g)
    >>> model.training_loss(Batch.of(torch.randn(32, 2, generator=g)), g)["loss"].item() > 0
    True
    """

    method: ClassVar[str] = "WNAE"

    def __init__(
        self,
        features: int,
        *,
        distance: str = "w2_squared",
        grad_steps: int | None = 1,
        contrast: float = 0.0,
        energy_weight: float = 0.0,
        smear: float = 0.2,
        **options: Any,
    ) -> None:
        super().__init__(features, smear=smear, **options)
        if distance not in DISTANCES:
            raise ConfigError(unknown_text("distance", distance, DISTANCES))
        self.distance, self.grad_steps = distance, grad_steps
        self.contrast, self.energy_weight = contrast, energy_weight

    def terms(self, u: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the Wasserstein distance to the chains, which are advanced, other terms, and both mean energies."""
        chains = self.negatives(u, generator, self.grad_steps)
        terms = {"wasserstein": DISTANCES[self.distance](u, chains.points, generator=generator)}
        with torch.set_grad_enabled(self.contrast > 0 or self.energy_weight > 0):
            data, model = self.energy_of(u), self.energy_of(chains.points.detach())
        if self.contrast > 0:
            terms["contrast"] = self.contrast * (data.mean() - model.mean()) / self.temperature
        if self.energy_weight > 0:
            terms["energy"] = self.energy_weight * ((data**2).mean() + (model**2).mean()) / self.temperature**2
        metrics = {"energy_data": data.mean().detach(), "energy_model": model.mean().detach()}
        return terms, {**metrics, "acceptance": chains.acceptance.detach()}
