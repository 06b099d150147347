"""Student: a small network that learns to give the scores of another model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from coffea_ad.errors import SkimError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.reconstruction.autoencoder import Activation, mlp
from coffea_ad.nn.self_supervised.encoder import SetEncoder, in_buckets
from coffea_ad.typing import Float32s

__all__ = ["SetStudent", "Student"]


class Student(Model):
    """A dense network f on z = transform(x) that repeats what another model, its teacher, says of rows.

    With the teacher's target t(x), a rising function of its score, training minimises ⟨(f(z) − t)²⟩, and the score is f(z). It has
    the teacher's order of rows as far as the network can say it, and no other knowledge: what the teacher does not see, the
    student does not either.

    Parameters
    ----------
    features : int
        Number of columns of z.
    hidden : sequence of int
        Widths.
    activation : "relu", "silu", "leaky_relu" or "prelu"
    transform : nn.Module
        Preprocessing x → z.

    References
    ----------
    A. A. Pol, E. Govorkova, S. Gronroos et al., "Knowledge distillation for anomaly detection", arXiv:2310.06047.

    Examples
    --------
    >>> student = Student(4, transform=nn.Identity())
    >>> student.learn_from(np.zeros(3, np.float32))
    >>> student.training_loss(Batch.of(torch.zeros(3, 4)), torch.Generator())["loss"].shape
    torch.Size([])
    """

    method = "student"
    plotted: ClassVar[tuple[str, ...]] = ("loss", "validation", "rank_correlation")

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (128, 128),
        activation: Activation = "relu",
        transform: nn.Module,
    ) -> None:
        super().__init__((features,), transform)
        self.net = mlp([features, *hidden, 1], activation)
        self._targets = torch.zeros(0)

    def learn_from(self, targets: Float32s) -> None:
        """Set the targets of all rows of the skim that the student is to be trained on, (n,), of about mean 0 and width 1.

        Raises
        ------
        SkimError
            One is not finite.
        """
        values = np.ascontiguousarray(targets, np.float32)
        if not np.isfinite(values).all():
            raise SkimError("a row without a score of the teacher cannot train its student")
        self._targets = torch.from_numpy(values)

    def settings(self) -> dict[str, Any]:
        """Add the targets, which a resumed training must share."""
        return {**super().settings(), "targets": hashlib.sha256(self._targets.numpy().tobytes()).hexdigest()}

    def energy(self, z: Tensor) -> Tensor:
        """Return the target as the network has learnt it, (n, features) → (n,)."""
        out: Tensor = self.net(z).squeeze(1)
        return out

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:  # noqa: ARG002
        """Return the mean squared difference from the targets."""
        return {"loss": mse_loss(self._answers(batch.z), self._wanted(batch))}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Return the same of held-out rows, and the correlation of ranks with the teacher."""
        with torch.no_grad():
            answers, wanted = self._answers(batch.z), self._wanted(batch)
            ranks = torch.stack([v.argsort().argsort().double() for v in (answers, wanted)])
            correlation = torch.corrcoef(ranks)[0, 1].item()
            return {"validation": mse_loss(answers, wanted).item(), "rank_correlation": correlation}

    def _answers(self, z: Tensor) -> Tensor:
        """Return what the network says of a batch."""
        return self.energy(z)

    def _wanted(self, batch: Batch) -> Tensor:
        """Return the targets of a batch."""
        if not len(self._targets):
            raise SkimError("a student needs the targets of its teacher: student.learn_from(targets)")
        return self._targets.to(batch.z.device)[batch.row]


class SetStudent(Student):
    """A student that takes sets, such as the constituents of a jet: an encoder of sets, h, and one linear layer on it.

    Parameters
    ----------
    encoder : SetEncoder
        Untrained; all of it is trained.

    Examples
    --------
    >>> from coffea_ad.nn.self_supervised.encoder import PRESETS
    >>> from coffea_ad.nn.self_supervised.tokens import Tokens
    >>> encoder = SetEncoder(50, Tokens(["pt", "deta", "dphi"], scale="log"), **PRESETS["small"])
    >>> SetStudent(encoder).score(torch.ones(2, 50, 3)).shape
    torch.Size([2])
    """

    def __init__(self, encoder: SetEncoder) -> None:
        super().__init__(encoder.width, hidden=(), transform=nn.Identity())
        self.shape = encoder.shape
        self.encoder = encoder

    @property
    def slots_vary(self) -> bool:
        """Rows without their last empty slots may be given."""
        return self.encoder.slots_vary

    def energy(self, z: Tensor) -> Tensor:
        """Return the target as the network has learnt it, (n, slots, columns) → (n,)."""
        return super().energy(self.encoder.h(z))

    def _answers(self, z: Tensor) -> Tensor:
        # empty slots cost as much as others, but where pT stands first it is known which rows have them
        return in_buckets(self.energy, z) if self.encoder.tokens.columns[0] == "pt" else self.energy(z)
