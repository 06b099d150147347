"""ImageAE: a convolutional autoencoder on jet images, and the re-weighting of their pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.reconstruction.autoencoder import ACTIVATIONS, OUTPUTS, Activation, Output
from coffea_ad.nn.transforms.columns import Transform
from coffea_ad.scoring.specs import Contributions
from coffea_ad.typing import Float32s, Float64s

__all__ = ["ImageAE", "PixelPower"]

_TRUNCATE = 4  # standard deviations at which the smearing kernel ends
_BATCH = 4096


class PixelPower(Transform):
    """Re-weight the pixels of an image: z = I^p / (s Σ I^p).

    A power below 1 lifts faint pixels, so that an autoencoder has to describe more than the hardest few. The scale s is
    fitted so that the mean square of the training pixels is 1: numbers of order 1 are what layers start from.

    Parameters
    ----------
    pixels : int
        Pixels of an image in all.
    power : float
        p > 0.

    Raises
    ------
    ConfigError
        The power is not positive: an empty pixel would be lit.

    References
    ----------
    T. Finke, M. Krämer, A. Morandini, A. Mück, I. Oleksiyuk, "Autoencoders for unsupervised anomaly detection in high
    energy physics", arXiv:2104.09051.

    Examples
    --------
    >>> z = PixelPower(4, power=0.5)(torch.tensor([[[0.64, 0.0], [0.32, 0.04]]]))
    >>> z[0, 0, 0] / z[0, 1, 1]
    tensor(4.)
    """

    def __init__(self, pixels: int, power: float = 1.0) -> None:
        super().__init__(pixels)
        if not 0 < power < math.inf:
            raise ConfigError(f"power is {power:g}, but must be positive: at 0 an empty pixel would be lit")
        self.power = power
        self.register_buffer("scale", torch.ones(()))
        self.scale: Tensor

    def fit(self, x: Float32s, weight: Float64s) -> Self:
        """Set the scale from images, (n, size, size), with weights, (n,), and note the range of each pixel."""
        if x.ndim < 3:
            raise SkimError(f"rows of shape {x.shape[1:]} are no images; this transform takes rows such as (40, 40)")
        self.scale.fill_(1.0)
        square, low, high = 0.0, torch.full_like(self.low, math.inf), torch.full_like(self.high, -math.inf)
        for start in range(0, len(x), _BATCH):
            z = self(torch.from_numpy(np.asarray(x[start : start + _BATCH]))).flatten(1)
            square += float((z.double() ** 2).mean(dim=1) @ torch.from_numpy(weight[start : start + _BATCH]))
            low, high = torch.minimum(low, z.amin(dim=0)), torch.maximum(high, z.amax(dim=0))
        if square <= 0:
            raise SkimError("all pixels of the training images are empty")
        self.scale.fill_(math.sqrt(square / float(weight.sum())))
        self.low.copy_(low / self.scale)
        self.high.copy_(high / self.scale)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Transform images, (n, size, size) → (n, size, size); an empty image stays empty."""
        raised = x.clamp_min(0.0) ** self.power if self.power != 1 else x
        total = raised.sum(dim=(1, 2), keepdim=True).clamp_min(1e-12)
        return raised / (total * self.scale)


class ImageAE(Model):
    """Convolutional autoencoder on images of jets.

    With z = transform(x) and a Gaussian kernel K of `smear` pixels, the score of x is

        E(z) = Σ_pixels (K ∗ (z − D(e(z))))².

    Without smearing K is 1. With it a pixel that is decoded one place off is a small error and not two large ones, and
    images that differ a little are close, as their jets are.

    Parameters
    ----------
    size : int
        Pixels along each side.
    channels : sequence of int
        Of the convolutions; each is followed by a pooling that halves the sides.
    hidden : int
        Width of the dense layers around the bottleneck.
    latent : int
        Width of the bottleneck.
    transform : nn.Module
        Preprocessing x → z, such as `PixelPower`; part of the model and of the exported graph.
    activation : "relu", "silu", "leaky_relu" or "prelu"
        Between the layers.
    output : "linear", "relu" or "sigmoid"
        Behind the decoder.
    smear : float
        σ of K in pixels; 0: none.

    Raises
    ------
    ConfigError
        The sides cannot be halved so often, or `smear` is negative.

    References
    ----------
    T. Heimel, G. Kasieczka, T. Plehn, J. Thompson, "QCD or what?", arXiv:1808.08979; T. Finke, M. Krämer,
    A. Morandini, A. Mück, I. Oleksiyuk, "Autoencoders for unsupervised anomaly detection in high energy physics",
    arXiv:2104.09051.

    Examples
    --------
    >>> model = ImageAE(transform=nn.Identity())
    >>> model.score(torch.zeros(3, 40, 40)).shape
    torch.Size([3])
    """

    method: ClassVar[str] = "ImageAE"
    criterion = "reconstruction"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "reconstruction")

    def __init__(
        self,
        size: int = 40,
        *,
        channels: Sequence[int] = (8, 16),
        hidden: int = 100,
        latent: int = 6,
        transform: nn.Module,
        activation: Activation = "prelu",
        output: Output = "linear",
        smear: float = 0.0,
    ) -> None:
        super().__init__((size, size), transform)
        side, act = size, ACTIVATIONS[activation]
        if size % 2 ** len(channels):
            raise ConfigError(f"images of {size} pixels a side cannot be halved {len(channels)} times")
        encoder: list[nn.Module] = []
        for into, out in zip((1, *channels), channels, strict=False):
            encoder += [nn.Conv2d(into, out, 3, padding=1), act(), nn.AvgPool2d(2)]
            side //= 2
        last = channels[-1]
        dense = nn.Linear(last * side**2, hidden), act(), nn.Linear(hidden, latent)
        self.encoder = nn.Sequential(*encoder, nn.Flatten(), *dense)
        decoder: list[nn.Module] = [nn.Linear(latent, hidden), act(), nn.Linear(hidden, last * side**2), act()]
        decoder.append(nn.Unflatten(1, (last, side, side)))
        for into, out in zip(reversed(channels), (*reversed(channels[:-1]), 1), strict=True):
            decoder += [nn.Upsample(scale_factor=2), nn.Conv2d(into, out, 3, padding=1), act()]
        self.decoder = nn.Sequential(*decoder[:-1], OUTPUTS[output]())
        self.register_buffer("kernel", _gaussian(smear))
        self.kernel: Tensor

    def reconstruct(self, z: Tensor) -> Tensor:
        """Return what the decoder makes of the bottleneck, (n, size, size) → (n, size, size)."""
        decoded: Tensor = self.decoder(self.encoder(z[:, None]))
        return decoded[:, 0]

    def energy(self, z: Tensor) -> Tensor:
        """Sum over pixels of the squared, smeared reconstruction error, (n, size, size) → (n,)."""
        return self.error_of(z - self.reconstruct(z))

    def error_of(self, difference: Tensor) -> Tensor:
        """Energy of images that differ so much from what is made of them, (n, size, size) → (n,)."""
        return self._errors(difference).sum(dim=(1, 2, 3))

    def _errors(self, difference: Tensor) -> Tensor:
        """Squared, smeared difference of each pixel, (n, size, size) → (n, 1, size, size)."""
        difference = difference[:, None]
        if len(self.kernel) > 1:
            reach = len(self.kernel) // 2
            for shape, padding in (((1, 1, -1, 1), (reach, 0)), ((1, 1, 1, -1), (0, reach))):
                difference = nn.functional.conv2d(difference, self.kernel.reshape(shape), padding=padding)
        return difference**2

    @property
    def contributes(self) -> Contributions | None:
        """Each pixel's error, behind the smearing."""
        return self.by_column()

    def contributions(self, z: Tensor) -> Tensor:
        """Squared, smeared reconstruction error of each pixel, (n, size, size) → (n, size²)."""
        return self._errors(z - self.reconstruct(z)).flatten(1)

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "loss", to be minimised: the mean energy of a batch of transformed rows."""
        z = batch.z
        return {"loss": self.energy(z).mean()}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return metrics on held-out transformed rows, drawn in proportion to their weights."""
        z = batch.z
        with torch.no_grad():
            return {"reconstruction": self.energy(z).mean().item()}


def _gaussian(sigma: float) -> Tensor:
    """Return a normalised Gaussian, cut off at 4 σ; of both images it can be taken at once, as it is linear."""
    if not 0 <= sigma < math.inf:
        raise ConfigError(f"smear is {sigma:g}, but must be a width in pixels")
    reach = int(_TRUNCATE * sigma + 0.5)
    if reach == 0:
        return torch.ones(1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2)
    return (kernel / kernel.sum()).float()
