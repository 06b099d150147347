"""AE: a dense autoencoder whose anomaly score is its reconstruction error."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from coffea_ad.nn.model import Batch, Model
from coffea_ad.scoring.specs import Contributions

__all__ = ["AE", "Activation", "Output", "Score", "mlp"]


Activation = Literal["relu", "silu", "leaky_relu", "prelu"]
Output = Literal["linear", "relu", "sigmoid"]
Score = Literal["mse", "mae", "log_mae"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
}
OUTPUTS: dict[Output, type[nn.Module]] = {"linear": nn.Identity, "relu": nn.ReLU, "sigmoid": nn.Sigmoid}
_SMALLEST = 1e-30  # of a mean absolute error, before its logarithm


def mlp(widths: Sequence[int], activation: Activation = "relu") -> nn.Sequential:
    """Return linear layers of these widths with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class AE(Model):
    """Dense autoencoder on transformed inputs.

    With z = transform(x), the bottleneck e(z) and δ = z − D(e(z)), the score of x is one of

        mse:      |δ|² / d
        mae:      Σ_i |δ_i| / d
        log_mae:  ln (Σ_i |δ_i| / d)

    and training minimises ⟨mse⟩ or ⟨mae⟩ + λ ⟨|e(z)|₁ / d_e⟩ with the weight λ = `sparse`. The last term pulls
    activations of the bottleneck to 0, so that a row is described by few of them, and the bottleneck may be wide
    without copying every input.

    Parameters
    ----------
    features : int
        Number of input columns, d.
    hidden : sequence of int
        Widths from the input to the bottleneck; the decoder mirrors them.
    latent : int
        Width of the bottleneck, d_e.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.
    activation : "relu", "silu", "leaky_relu" or "prelu"
        Between the layers.
    output : "linear", "relu" or "sigmoid"
        Behind the decoder; the last two only where z is positive, or between 0 and 1.
    sparse : float
        λ.
    score : "mse", "mae" or "log_mae"
    loss : "mse" or "mae"
        What is minimised; the score may be another, as in the search with the rapidity-mass matrix.

    References
    ----------
    T. Heimel, G. Kasieczka, T. Plehn, J. Thompson, "QCD or what?", arXiv:1808.08979; M. Farina, Y. Nakai, D. Shih,
    "Searching for new physics with deep autoencoders", arXiv:1808.08992; for `sparse` I. Goodfellow, Y. Bengio,
    A. Courville, "Deep Learning", MIT Press 2016, section 14.2.1.

    Examples
    --------
    >>> model = AE(8, transform=nn.Identity())
    >>> model.score(torch.zeros(3, 8)).shape
    torch.Size([3])
    >>> AE.svj(nn.Identity()).encoder
    Sequential(
      (0): Linear(in_features=8, out_features=10, bias=True)
      (1): ReLU()
      (2): Linear(in_features=10, out_features=10, bias=True)
      (3): ReLU()
      (4): Linear(in_features=10, out_features=6, bias=True)
    )
    """

    method: ClassVar[str] = "AE"
    criterion = "reconstruction"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "reconstruction")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (10, 10),
        latent: int = 6,
        transform: nn.Module,
        activation: Activation = "relu",
        output: Output = "linear",
        sparse: float = 0.0,
        score: Score = "mse",
        loss: Literal["mse", "mae"] = "mse",
    ) -> None:
        super().__init__((features,), transform)
        self.features = features
        self.sparse, self.score_kind, self.minimised = sparse, score, loss
        self.encoder = mlp([features, *hidden, latent], activation)
        self.decoder = mlp([latent, *reversed(hidden), features], activation)
        if output != "linear":
            self.decoder.append(OUTPUTS[output]())

    @classmethod
    def svj(cls, transform: nn.Module, **options: Any) -> Self:
        """Return 8-10-10-6-10-10-8 for the eight substructure features of semivisible jets (arXiv:2510.02168)."""
        return cls(8, **{"hidden": (10, 10), "latent": 6, "transform": transform, **options})

    @classmethod
    def rmm(cls, transform: nn.Module, **options: Any) -> Self:
        """Return 1287-800-400-200-400-800-1287 for the rapidity-mass matrix; the score is ln MAE.

        Layers and leaky ReLU are those of S. Chekanov, W. Hopkins, "Event-based anomaly detection for searches for new
        physics", arXiv:2111.12119, and ATLAS, arXiv:2307.01612.
        """
        network = {"hidden": (800, 400), "latent": 200, "activation": "leaky_relu", "score": "log_mae"}
        return cls(1287, **{**network, "transform": transform, **options})

    def reconstruct(self, z: Tensor) -> Tensor:
        """Return what the decoder makes of the bottleneck, (n, d) → (n, d)."""
        decoded: Tensor = self.decoder(self.encoder(z))
        return decoded

    def energy(self, z: Tensor) -> Tensor:
        """Reconstruction error of transformed rows, (n, d) → (n,)."""
        return _error(z - self.reconstruct(z), self.score_kind)

    def error_of(self, difference: Tensor) -> Tensor:
        """Return the error that is minimised, of rows that differ so much from what is made of them, (n, d) → (n,)."""
        return _error(difference, self.minimised)

    @property
    def contributes(self) -> Contributions | None:
        """Each input's part of the error; of a logarithm, of what it is taken of."""
        return self.by_column("exp(score)" if self.score_kind == "log_mae" else "score")

    def contributions(self, z: Tensor) -> Tensor:
        """δᵢ²/d or |δᵢ|/d of transformed rows, (n, d) → (n, d)."""
        return _errors(z - self.reconstruct(z), self.score_kind)

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return "loss", to be minimised, and metrics to report, for a batch of transformed rows."""
        z = batch.z
        bottleneck = self.encoder(z)
        error = self.error_of(z - self.decoder(bottleneck)).mean()
        if self.sparse == 0:
            return {"loss": error}
        activity = bottleneck.abs().mean()
        return {"loss": error + self.sparse * activity, "activity": activity.detach()}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return metrics on held-out transformed rows, drawn in proportion to their weights."""
        z = batch.z
        with torch.no_grad():
            return {"reconstruction": self.error_of(z - self.reconstruct(z)).mean().item()}


def _errors(difference: Tensor, kind: Score) -> Tensor:
    """Return the part of each column in a reconstruction error, before a logarithm, (n, d) → (n, d)."""
    return (difference**2 if kind == "mse" else difference.abs()) / difference.shape[1]


def _error(difference: Tensor, kind: Score) -> Tensor:
    """Return a reconstruction error of every row, (n, d) → (n,)."""
    if kind == "mse":
        return (difference**2).mean(dim=1)
    mae = difference.abs().mean(dim=1)
    return mae if kind == "mae" else mae.clamp_min(_SMALLEST).log()
