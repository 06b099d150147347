"""NAE: the normalised autoencoder, trained by maximum likelihood."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.nn.energy_based.energy import EnergyModel
from coffea_ad.nn.reconstruction.autoencoder import AE

__all__ = ["NAE"]


def _log_cosh(x: Tensor) -> Tensor:
    """Return ln cosh x, finite for any finite x."""
    return x.abs() + nn.functional.softplus(-2 * x.abs()) - math.log(2)


class NAE(EnergyModel):
    """An autoencoder trained so that p(z) ∝ exp(−E(z)/T) fits the data.

    The gradient of the log-likelihood is that of ⟨E⟩_chains − ⟨E⟩_data, with both in units of T:

        loss = f(Δ) + γ (⟨E²⟩_data + ⟨E²⟩_chains)/T²,   Δ = (⟨E⟩_data − ⟨E⟩_chains)/T,

    with f(Δ) = Δ, or log cosh Δ + 10⁻³ ⟨E⟩_data/T, which does not reward chains of ever higher energy. The value of the loss
    says nothing about the quality of the fit: `validate` measures the Wasserstein distance to held-out data, and its excess
    chooses the epoch. Train an `AE` first and take its weights over (`load_weights_from`), or add noise to the data (`smear`): chains
    of a random network are soon lost in narrow directions.

    Parameters
    ----------
    features, **options
        As for `EnergyModel`.
    energy_weight : float
        γ; keeps energies of data and chains small, without which the training can run away.
    log_cosh : bool
        f.
    spectral_norm : bool
        Largest singular value 1 for every layer but the last of encoder and decoder.

    References
    ----------
    S. Yoon, Y.-K. Noh, F. Park, "Autoencoding under normalization constraints", arXiv:2105.05735; B. M. Dillon,
    L. Favaro, T. Plehn, P. Sorrenson, M. Krämer, "A normalized autoencoder for LHC triggers", arXiv:2206.14225.

    Examples
    --------
    >>> model = NAE(2, hidden=(8,), latent=1, transform=nn.Identity(), buffer_size=64)
    >>> g = torch.Generator().manual_seed(1)
    >>> from coffea_ad.nn.model import Batch
    >>> model.start(Batch.of(torch.randn(256, 2, generator=g)), g)
    >>> sorted(model.training_loss(Batch.of(torch.randn(32, 2, generator=g)), g))
    ['acceptance', 'energy_data', 'energy_model', 'loss', 'share_contrast', 'share_energy']
    """

    method: ClassVar[str] = "NAE"
    plotted: ClassVar[tuple[str, ...]] = ("wasserstein", "floor", "energy_data", "energy_model")

    def __init__(
        self,
        features: int,
        *,
        energy_weight: float = 1e-3,
        log_cosh: bool = False,
        spectral_norm: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(features, **options)
        self.energy_weight, self.log_cosh = energy_weight, log_cosh
        if spectral_norm:
            for part in (self.encoder, self.decoder):
                for layer in [m for m in part if isinstance(m, nn.Linear)][:-1]:
                    nn.utils.parametrizations.spectral_norm(layer)

    def terms(self, u: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the contrast of energies of data and chains, the squares of both, and both mean energies."""
        chains = self.negatives(u, generator)
        data, model = self.energy_of(u) / self.temperature, self.energy_of(chains.points.detach()) / self.temperature
        contrast = data.mean() - model.mean()
        terms = {"contrast": _log_cosh(contrast) + 1e-3 * data.mean() if self.log_cosh else contrast}
        if self.energy_weight > 0:
            terms["energy"] = self.energy_weight * ((data**2).mean() + (model**2).mean())
        scaled = {"energy_data": data.mean().detach(), "energy_model": model.mean().detach()}
        metrics = {name: value * self.temperature for name, value in scaled.items()}
        return terms, {**metrics, "acceptance": chains.acceptance.detach()}

    def load_weights_from(self, autoencoder: AE) -> None:
        """Begin with the weights of a trained autoencoder of the same layers.

        Raises
        ------
        ConfigError
            Its layers are others.
        """
        linear = [m for m in (*self.encoder, *self.decoder) if isinstance(m, nn.Linear)]
        theirs = [m for m in (*autoencoder.encoder, *autoencoder.decoder) if isinstance(m, nn.Linear)]
        if [m.weight.shape for m in linear] != [m.weight.shape for m in theirs]:
            raise ConfigError("the autoencoder has other layers than the model that takes its weights over")
        self._of_z = True  # `start` takes the units of the data into account
        with torch.no_grad():
            for one, other in zip(linear, theirs, strict=True):
                weight = other.weight.detach().clone().to(one.weight.device)
                if hasattr(one, "parametrizations"):
                    one.weight = weight
                else:
                    one.weight.copy_(weight)
                one.bias.copy_(other.bias)
