"""Model: what all anomaly models share, and what the training loop, the export and the card ask of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from coffea_ad.errors import ConfigError
from coffea_ad.nn.described import Described
from coffea_ad.nn.graph import torch_graph
from coffea_ad.scoring.specs import Contributions, Density, Folds
from coffea_ad.typing import Float32s, Ints

__all__ = ["Batch", "Model"]

_BLOCK = 4096


class Batch(NamedTuple):
    """Rows as a model trains on them.

    Attributes
    ----------
    z : (n, …) float32
        Transformed rows.
    label : (n,) int64, optional
        What `Skim.label` says of them, such as 1 in a signal window and 0 in the sidebands.
    row : (n,) int64
        Their places in the skim. Rows are drawn with replacement: those with equal places are one row that was drawn twice, and
        no negatives of each other.
    """

    z: Tensor
    label: Tensor | None
    row: Tensor

    @classmethod
    def of(cls, z: Tensor, label: Tensor | None = None) -> Self:
        """Return rows that are no rows of a skim, each another one.

        >>> Batch.of(torch.zeros(2, 3)).row
        tensor([0, 1])
        """
        return cls(z, label, torch.arange(len(z), device=z.device))


class Model(nn.Module, metaclass=Described):
    """An anomaly model on transformed rows: z = transform(x), score(x) = energy(z).

    Public attributes are settings, which a resumed training must share; what changes on the way is a buffer, or its name
    begins with an underscore. A model of one's own needs `energy` and `training_loss`; what is not trained by gradients sets its buffers in
    `learn` or `start` and has no parameters.

    Parameters
    ----------
    shape : tuple of int
        Shape of a row of z.
    transform : nn.Module
        Preprocessing x → z, part of the model and of the exported graph.

    Attributes
    ----------
    shape : tuple of int
        Shape of a row of x: `transform.row_shape`, where the transform changes it, or else that of z.
    method : str
        Name on the card.
    criterion : str
        The metric of `validate` whose minimum is the best epoch; never anything that knows a signal.
    needs_epochs : bool
        Whether an epoch depends on how many there will be, as of chains that get longer: such a training can only be
        resumed to the same number of epochs.
    needs_rows : int
        Effective number of validation rows below which `fit` warns that noise has a say in which epoch is kept.
    plotted : tuple of str
        Which metrics `plots.training` shows.
    training_only : tuple of str
        Weights that the score does not depend on.
    epochs_by : "mean", "logmeanexp" or "probability"
        How `Ensemble.of_epochs` and `nn.load` average several epochs.
    density : "x", "z" or None
        Whether the score is −log p(x) or −log p(z), where it is a density at all.
    """

    method: ClassVar[str]
    criterion: str = "validation"
    needs_epochs: bool = False
    needs_rows: ClassVar[int] = 0
    plotted: ClassVar[tuple[str, ...]] = ("loss", "validation")
    training_only: ClassVar[tuple[str, ...]] = ()
    epochs_by: ClassVar[str] = "mean"
    density: Density | None = None
    folds: ClassVar[Folds | None] = None

    def __init__(self, shape: tuple[int, ...], transform: nn.Module) -> None:
        super().__init__()
        self.shape: tuple[int, ...] = getattr(transform, "row_shape", None) or shape
        self.transform = transform

    @property
    def slots_vary(self) -> bool:
        """Whether rows without their last empty slots may be given, as an encoder of sets takes them."""
        return bool(getattr(self.transform, "slots_vary", False))

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; the transform stays as it will be in the exported graph."""
        super().train(mode)
        self.transform.eval()
        return self

    def settings(self) -> dict[str, Any]:
        """Return what was set when the model was made, beside the shapes of its weights."""
        plain = (bool, int, float, str, tuple, list, dict, type(None))
        plain_ones = {
            k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training" and isinstance(v, plain)
        }
        return {"model": type(self).__name__, **plain_ones}

    def energy(self, z: Tensor) -> Tensor:
        """Anomaly score of transformed rows, (n, …) → (n,); higher = more anomalous."""
        raise NotImplementedError

    @property
    def contributes(self) -> Contributions | None:
        """What `contributions` add up to, and of what parts they are; None for a score that is no sum."""
        return None

    def contributions(self, z: Tensor) -> Tensor:
        """Return what each part adds to the scores of transformed rows, (n, …) → (n, parts)."""
        raise NotImplementedError

    def by_column(self, of: Literal["score", "exp(score)"] = "score", *terms: str) -> Contributions | None:
        """Describe contributions of one part for each number of z, and of terms behind them; None if z are no numbers of x."""
        known: tuple[str, ...] | None = () if isinstance(self.transform, nn.Identity) else None
        parts = getattr(self.transform, "z_columns", known)
        return None if parts is None else Contributions(parts=parts, terms=terms, of=of)

    def _defined(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return which raw rows are finite, (n,) bool, and transformed rows, of zeros in place of those that are not."""
        defined = (x - x == 0).flatten(1).all(dim=1)
        wide = defined.reshape(-1, *(1 for _ in self.shape))
        return defined, self.transform(torch.where(wide, x, torch.zeros_like(x)))

    def score(self, x: Tensor) -> Tensor:
        """Anomaly score of raw rows, (n, *shape) → (n,); NaN for a row with a NaN or infinite value."""
        defined, z = self._defined(x)
        energy = self.energy(z)
        return torch.where(defined, energy, torch.full_like(energy, float("nan")))

    def score_and_contributions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores of raw rows, and what each part adds to them, (n, *shape) → (n,), (n, parts); NaN as for `score`."""
        defined, z = self._defined(x)
        energy, parts = self.energy(z), self.contributions(z)
        undefined = torch.full_like(energy, float("nan"))
        return torch.where(defined, energy, undefined), torch.where(defined[:, None], parts, undefined[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the score: what is exported is what is trained."""
        return self.score(x)

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Return the scores of raw rows, (n, *shape) float32 → (n,) float32, block by block."""
        return _in_blocks(self, self, x)

    def contributions_of(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Return what each part adds to the scores of raw rows, (n, *shape) float32 → (n, parts) float32, block by block.

        Raises
        ------
        ConfigError
            There are no contributions.
        """
        contributes = self.contributes
        if contributes is None:
            raise ConfigError(f"the score of {self.method} is no sum, and has no contributions")
        return _in_blocks(self, lambda rows: self.score_and_contributions(rows)[1], x, contributes.size(self.shape))

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score, (rows, *shape) → (rows,), and, with two outputs, of its contributions, (rows, parts)."""
        return torch_graph(self, outputs)

    def learn(self, rows: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Learn what needs no gradients from all transformed training rows and their weights, block by block."""

    def start(self, batch: Batch, generator: torch.Generator) -> None:
        """Prepare for training, with transformed training rows drawn in proportion to their weights."""

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Adapt to how far the training is: chain lengths, weights of terms."""

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return "loss", to be minimised, and metrics to report, for a batch of transformed rows."""
        raise NotImplementedError

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return metrics on held-out transformed rows, drawn in proportion to their weights: groups of disjoint rows."""
        with torch.no_grad():
            return {"validation": self.energy(batch.z).mean().item()}

    def diverged(self, metrics: dict[str, float]) -> bool:  # noqa: ARG002
        """Say whether an epoch's metrics mean that the training has run away; not finite ones do in any case."""
        return False


def _in_blocks(model: nn.Module, function: Callable[[Tensor], Tensor], x: Float32s, *wide: int) -> Float32s:
    """Return what a model makes of rows, (n, …) → (n, *wide) float32; of `rows.Rows` only a block is dense at a time."""
    device = next(iter(model.state_dict().values()), torch.zeros(0)).device
    parts = [np.zeros((0, *wide), np.float32)]
    with torch.no_grad():
        for start in range(0, len(x), _BLOCK):
            rows = torch.from_numpy(np.asarray(x[start : start + _BLOCK])).to(device)
            parts.append(function(rows).cpu().numpy())
    return np.concatenate(parts)
