"""MaskedParticles: an encoder that learns what a constituent is like from the others of its jet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.self_supervised.encoder import SetEncoder
from coffea_ad.nn.self_supervised.tokens import TokenSet
from coffea_ad.nn.self_supervised.views import Views

__all__ = ["MaskedParticles", "drawn_by_pt"]

_TARGETS = 3  # ln of the share of pT, Δη, Δφ
_SPREAD = (-4.0, 2.0)  # ln σ of a Gaussian of the mixture: finer than 0.02 is the grid of a calorimeter, or rounding


def drawn_by_pt(share: Tensor, largest: float, generator: torch.Generator) -> Tensor:
    """Draw which objects of each set are hidden: in a random order, until they have a part of pT that is U(0, largest).

    Parameters
    ----------
    share : (n, slots)
        Part of the pT of the set; 0 in empty slots.
    largest : float
        Of the part of pT.

    Returns
    -------
    (n, slots) bool
        Not all objects of a set, and none in an empty slot.
    """
    part = torch.rand(len(share), 1, generator=generator, device=share.device) * largest
    order = torch.rand(share.shape, generator=generator, device=share.device).argsort(dim=1)
    shuffled = share.gather(1, order)
    hidden = shuffled.cumsum(dim=1) <= part * shuffled.sum(dim=1, keepdim=True)
    return torch.zeros_like(hidden).scatter(1, order, hidden) & (share > 0)


class MaskedParticles(Model):
    """Reconstruction of hidden constituents, as a density of each given the others; its likelihood is a score.

    Some constituents of a jet are hidden, so that of them only the place in the order of pT is known, and a network on what the encoder makes of
    the others predicts t = (ln(pT/Σ pT), Δη/R, Δφ/R) of each by a mixture of Gaussians p(t). The mean of −ln p over hidden constituents
    is minimised. By itself, the score is the mean of −ln p over all constituents of a jet, weighted with their pT, each hidden once:
    slots k, k + K, k + 2K … are hidden together, k = 0 … K − 1. That is a pseudo-likelihood, no density of the jet.

    Parameters
    ----------
    encoder : SetEncoder
        Of jets, whose tokens have scale "log".
    largest : float
        While training, a part of pT that is uniform between 0 and this is hidden.
    components : int
        Gaussians of a mixture.
    patterns : int
        K.
    weighting : "pt" or "count"
        Of the mean: what hard constituents are like matters more, or that of all alike.
    positive : sequence of str
        Augmentations of what is trained on, such as "rotation".
    options : {augmentation: {keyword: value}}

    Raises
    ------
    ConfigError
        The objects have no deta and dphi, pT is not logarithmic, or the weighting is unknown.

    References
    ----------
    T. Golling, L. Heinrich, M. Kagan, S. Klein, M. Leigh, M. Osadchy, J. A. Raine, "Masked particle modeling on sets",
    arXiv:2401.13537.

    Examples
    --------
    >>> from coffea_ad.nn.self_supervised.encoder import PRESETS
    >>> from coffea_ad.nn.self_supervised.tokens import Tokens
    >>> encoder = SetEncoder(50, Tokens(["pt", "deta", "dphi"], scale="log"), **PRESETS["small"])
    >>> MaskedParticles(encoder).score(torch.ones(2, 50, 3)).shape
    torch.Size([2])
    """

    method: ClassVar[str] = "masked particles"

    def __init__(
        self,
        encoder: SetEncoder,
        *,
        largest: float = 0.5,
        components: int = 8,
        patterns: int = 4,
        weighting: Literal["pt", "count"] = "pt",
        positive: Sequence[str] = ("rotation",),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(encoder.shape, nn.Identity())
        tokens = encoder.tokens
        if tuple(tokens.columns[:3]) != ("pt", "deta", "dphi") or tokens.scale != "log":
            raise ConfigError("masked particles: the tokens must be pt, deta, dphi with scale=log")
        if weighting not in ("pt", "count"):
            raise ConfigError("masked particles: " + unknown_text("weighting", weighting, ("pt", "count")))
        self.largest, self.components, self.patterns, self.weighting = largest, components, patterns, weighting
        self.encoder = encoder
        self.views = Views(tokens.columns, positive, (), options or {})
        self.places = nn.Parameter(0.02 * torch.randn(encoder.slots, encoder.width))
        self.predict = nn.Linear(encoder.width, components * (1 + 2 * _TARGETS))

    @property
    def slots_vary(self) -> bool:
        """Rows without their last empty slots may be given."""
        return self.encoder.slots_vary

    def _surprise(self, objects: TokenSet, hidden: Tensor) -> Tensor:
        """Return −ln p of every object if those of its pattern are hidden, (n, slots)."""
        y = self.encoder.in_context(objects, hidden, self.places)
        targets = objects.tokens[:, :, 1 : 1 + _TARGETS]  # behind ln(pT / pt_scale)
        n, slots, _ = y.shape
        shape = (n, slots, self.components, 1 + 2 * _TARGETS)
        logit, mean, spread = self.predict(y).reshape(shape).split([1, _TARGETS, _TARGETS], dim=3)
        spread = spread.clamp(*_SPREAD)
        pull = (targets.unsqueeze(2) - mean) * (-spread).exp()
        log_p = -0.5 * pull.square() - spread - 0.5 * math.log(2 * math.pi)
        surprise: Tensor = -(logit.squeeze(3).log_softmax(dim=2) + log_p.sum(dim=3)).logsumexp(dim=2)
        return surprise

    def energy(self, z: Tensor) -> Tensor:
        """Weighted mean of −ln p over the objects of rows, (n, slots, columns) → (n,); 0 without objects."""
        objects = self.encoder.tokens(z)
        occupied = objects.occupied > 0
        slot = torch.cumsum(torch.ones_like(occupied, dtype=torch.int64), dim=1) - 1
        hidden = torch.cat([occupied & (slot % self.patterns == k) for k in range(self.patterns)])
        repeated = TokenSet(*(values.repeat(self.patterns, *[1] * (values.ndim - 1)) for values in objects))
        surprise = self._surprise(repeated, hidden) * hidden.to(z.dtype)  # one pass for all patterns
        weight = objects.occupied if self.weighting == "count" else objects.share
        total = (surprise.reshape(self.patterns, *weight.shape).sum(dim=0) * weight).sum(dim=1)
        mean: Tensor = total / weight.sum(dim=1).clamp(min=1e-30)
        return mean

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return "loss", the mean of −ln p over hidden objects."""
        objects = self.encoder.tokens(self.views.positive(batch.z, generator))
        hidden = drawn_by_pt(objects.share, self.largest, generator)
        return {"loss": (self._surprise(objects, hidden) * hidden).sum() / hidden.sum().clamp(min=1)}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the loss of held-out rows, with the same objects hidden in every epoch."""
        with torch.no_grad():
            return {"validation": self.training_loss(batch, generator)["loss"].item()}
