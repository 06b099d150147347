"""Deep SVDD: a network that maps the background close to one point."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.reconstruction.autoencoder import AE, mlp

__all__ = ["BiasFreeAE", "DeepSVDD", "UnboundedActivation", "bias_free_mlp", "has_collapsed"]

UnboundedActivation = Literal["leaky_relu", "relu", "silu"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"leaky_relu": nn.LeakyReLU, "relu": nn.ReLU, "silu": nn.SiLU}

_LEAST = 0.1  # |c| of every output: a centre of 0 is reached by a network whose weights are all 0
_COLLAPSED = 1e-6  # spread below which the outputs count as constant: they vary by a thousandth of their size


def bias_free_mlp(widths: Sequence[int], activation: UnboundedActivation = "leaky_relu") -> nn.Sequential:
    """Return linear layers of these widths, without biases, with an activation between them.

    Raises
    ------
    ConfigError
        The activation is unknown, or bounded, which would let saturated units take the place of biases.
    """
    if activation not in _ACTIVATIONS:
        raise ConfigError("Deep SVDD: " + unknown_text("unbounded activation", activation, list(_ACTIVATIONS)))
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b, bias=False), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def _check_centre(centre: float) -> None:
    if centre == 0 or not math.isfinite(centre):
        raise ConfigError(
            f"Deep SVDD: the centre is {centre}, but it must be a finite number other than 0: "
            "weights that are all 0 map every row to 0, so the score would be 0 everywhere"
        )


def has_collapsed(method: str, spread: float) -> bool:
    """Say whether a network has become a constant, with a warning if so; `spread` is that of `DeepSVDD.spread`."""
    collapsed = spread < _COLLAPSED
    if collapsed:
        warnings.warn(
            f"{method}: the network has collapsed: its outputs hardly vary any more (spread {spread:.1g}, 1 before "
            "training), so all rows get nearly the same score; lower train.learning_rate, or take out constant inputs",
            stacklevel=3,
        )
    return collapsed


class BiasFreeAE(AE):
    """An autoencoder with an encoder that a `DeepSVDD` can start from; only its decoder has biases.

    Parameters
    ----------
    features : int
        Number of input columns, d.
    hidden : sequence of int
        Widths from the input to the bottleneck; the decoder mirrors them.
    latent : int
        Width of the bottleneck: the number of outputs of the `DeepSVDD`.
    transform : nn.Module
        Preprocessing x → z, part of the model.
    activation : "leaky_relu", "relu" or "silu"
        Between the layers of the encoder; the decoder has "silu" for "silu", else "relu".

    Examples
    --------
    >>> [name for name, _ in BiasFreeAE(8, hidden=(16,), transform=nn.Identity()).encoder.named_parameters()]
    ['0.weight', '2.weight']
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (64, 32),
        latent: int = 8,
        transform: nn.Module,
        activation: UnboundedActivation = "leaky_relu",
    ) -> None:
        super().__init__(features, hidden=hidden, latent=latent, transform=transform)
        self.encoder = bias_free_mlp([features, *hidden, latent], activation)
        self.decoder = mlp([latent, *reversed(hidden), features], "silu" if activation == "silu" else "relu")


class DeepSVDD(Model):
    """Deep support vector data description, one-class form.

    E(z) = |φ(z) − c|² / K with z = transform(x), a network φ without biases and K outputs; the mean of E over the
    background is minimised. Without biases and with unbounded activations φ cannot become a constant, and φ(0) = 0.

    Parameters
    ----------
    features : int
        Number of input columns, d.
    hidden : sequence of int
        Widths of the hidden layers.
    outputs : int
        K.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.
    centre : float, optional
        All K components of c. By default c is the mean of φ over the training rows before training, with components
        that are closer to 0 than 0.1 moved to ±0.1.
    activation : "leaky_relu", "relu" or "silu"
        Between the layers.

    Raises
    ------
    ConfigError
        The centre is 0 or not finite, or the activation is unknown or bounded.

    References
    ----------
    L. Ruff et al., "Deep one-class classification", Proceedings of Machine Learning Research 80 (2018) 4393;
    T. Aarrestad et al., "The Dark Machines anomaly score challenge", arXiv:2105.14027.

    Examples
    --------
    >>> model = DeepSVDD(8, transform=nn.Identity(), centre=2.0)
    >>> model.score(torch.zeros(3, 8))  # φ(0) = 0, so E(0) = c²
    tensor([4., 4., 4.], grad_fn=<WhereBackward0>)
    """

    method: ClassVar[str] = "Deep SVDD"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "validation", "spread")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (64, 32),
        outputs: int = 8,
        transform: nn.Module,
        centre: float | None = None,
        activation: UnboundedActivation = "leaky_relu",
    ) -> None:
        super().__init__((features,), transform)
        if centre is not None:
            _check_centre(centre)
        self.fixed = centre
        self.network = bias_free_mlp([features, *hidden, outputs], activation)
        self.register_buffer("centre", torch.full((outputs,), _LEAST if centre is None else float(centre)))
        self.register_buffer("start_variation", torch.ones(()))
        self.centre: Tensor
        self.start_variation: Tensor

    @classmethod
    def from_autoencoder(cls, autoencoder: AE, centre: float | None = None) -> Self:
        """Start from the encoder of a trained autoencoder, with its transform.

        Parameters
        ----------
        autoencoder : BiasFreeAE
            Or another AE whose encoder has no biases. Its weights are copied.
        centre : float, optional
            As for `DeepSVDD`.

        Raises
        ------
        ConfigError
            The encoder has biases, or layers that a `DeepSVDD` cannot have.

        Examples
        --------
        >>> ae = BiasFreeAE(8, hidden=(16,), latent=4, transform=nn.Identity())
        >>> torch.equal(DeepSVDD.from_autoencoder(ae).network(torch.ones(1, 8)), ae.encoder(torch.ones(1, 8)))
        True
        """
        linear = [layer for layer in autoencoder.encoder if isinstance(layer, nn.Linear)]
        names: dict[type[nn.Module], UnboundedActivation] = {
            nn.LeakyReLU: "leaky_relu", nn.ReLU: "relu", nn.SiLU: "silu",
        }  # fmt: skip
        others = {type(layer) for layer in autoencoder.encoder if not isinstance(layer, nn.Linear)} or {nn.ReLU}
        if any(layer.bias is not None for layer in linear):
            raise ConfigError(
                "Deep SVDD: the encoder of this autoencoder has biases, and with them its outputs could become "
                "constant; train a BiasFreeAE"
            )
        if len(others) != 1 or not others <= set(names):
            raise ConfigError("Deep SVDD: the encoder must consist of linear layers and one kind of activation")
        model = cls(
            autoencoder.features,
            hidden=[layer.out_features for layer in linear[:-1]],
            outputs=linear[-1].out_features,
            transform=autoencoder.transform,
            centre=centre,
            activation=names[others.pop()],
        )
        model.network.load_state_dict(autoencoder.encoder.state_dict())
        return model

    def energy(self, z: Tensor) -> Tensor:
        """Mean squared distance of the outputs from the centre, (n, d) → (n,)."""
        difference: Tensor = self.network(z) - self.centre
        return (difference**2).mean(dim=1)

    def start(self, batch: Batch, generator: torch.Generator) -> None:  # noqa: ARG002
        """Set the centre, unless it was given, and note how much the outputs vary before training."""
        z = batch.z
        with torch.no_grad():
            phi = self.network(z)
        if self.fixed is None:
            mean = phi.mean(dim=0)
            away = torch.where(mean < 0, -_LEAST, _LEAST)
            self.centre.copy_(torch.where(mean.abs() < _LEAST, away, mean))
        variation = self._variation(phi)
        if not 0 < variation.item() < math.inf:
            raise ConfigError("Deep SVDD: before training the outputs of the network do not vary, or are not finite")
        self.start_variation.copy_(variation)

    @staticmethod
    def _variation(phi: Tensor) -> Tensor:
        return phi.var(dim=0, correction=0).sum() / (phi**2).mean(dim=0).sum()

    def spread(self, z: Tensor) -> float:
        """Return the part of the outputs' mean square that varies between rows, Σ Var φ / Σ ⟨φ²⟩, over that at the start.

        It does not depend on the size of the centre; 0 is a constant.
        """
        with torch.no_grad():
            return (self._variation(self.network(z)) / self.start_variation).item()

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "loss", to be minimised, for a batch of transformed rows."""
        z = batch.z
        return {"loss": self.energy(z).mean()}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the mean energy of held-out rows, and the spread of the outputs."""
        z = batch.z
        return {**super().validate(batch, generator), "spread": self.spread(z)}

    def diverged(self, metrics: dict[str, float]) -> bool:
        """Say, with a warning, whether the network has become a constant; such an epoch is undone."""
        return has_collapsed(self.method, metrics["spread"])
