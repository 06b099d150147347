"""SelfDistillation: an encoder that learns to say of a part of a jet what it says of the whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from coffea_ad.errors import ConfigError
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.self_supervised.encoder import SetEncoder
from coffea_ad.nn.self_supervised.masked import drawn_by_pt
from coffea_ad.nn.self_supervised.tokens import TokenSet
from coffea_ad.nn.self_supervised.views import Views

__all__ = ["SelfDistillation", "koleo"]


def koleo(h: Tensor) -> Tensor:
    """Return −mean ln of the distance of each unit vector to its nearest neighbour, (n, features) → ().

    It spreads representations: the Kozachenko-Leonenko estimate of their entropy, up to constants.

    References
    ----------
    A. Sablayrolles, M. Douze, C. Schmid, H. Jégou, "Spreading vectors for similarity search", arXiv:1806.03198.

    Examples
    --------
    >>> round(koleo(torch.tensor([[1.0, 0.0], [-3.0, 0.0]])).item(), 3)
    -0.693
    """
    unit = functional.normalize(h.float(), dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-2.0)
    nearest = unit[cosine.detach().argmax(dim=1)]
    spread: Tensor = -((unit - nearest).norm(dim=1) + 1e-6).log().mean()
    return spread


class _Student(nn.Module):
    """An encoder with what it makes of hidden objects, and the prototypes of sets and of objects."""

    def __init__(self, encoder: SetEncoder, prototypes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.places = nn.Parameter(0.02 * torch.randn(encoder.slots, encoder.width))
        self.of_set = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.Linear(encoder.width, prototypes)
        )
        self.of_object = nn.Sequential(
            nn.Linear(encoder.width, encoder.width), nn.GELU(), nn.Linear(encoder.width, prototypes)
        )

    def forward(self, objects: TokenSet, hidden: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return h, and the logits of prototypes of sets, (n, prototypes), and of objects, (n, slots, prototypes)."""
        y = self.encoder.in_context(objects, hidden, self.places)
        h = self.encoder.pooled(objects, y)
        return h, self.of_set(h), self.of_object(y)


class SelfDistillation(Model):
    """Distillation of an encoder by its own moving average, without labels and without anomalous views.

    A teacher, whose weights are the moving average of the student's, sees two views of a set as a whole; the student sees
    them with objects hidden. With softmax over prototypes, p of the teacher (centred, at a low temperature) and q of the student,

    L = −Σ p(other view) ln q(view)  [sets]  −Σ p(object) ln q(hidden object)  [objects of the same view]  + λ KoLeo(h).

    The encoder that is left is the teacher's, of the last epoch: a loss against a teacher that changes does not compare epochs. It has no
    score by itself: distances on its representation are scores.

    Parameters
    ----------
    encoder : SetEncoder
    prototypes : int
    largest : float
        A part of pT that is uniform between 0 and this is hidden from the student.
    memory : float
        Of the moving average, a batch.
    temperatures : (float, float)
        Of teacher and student.
    centring : float
        Memory of the centre that is subtracted from the teacher's logits, so that no prototype takes all.
    spreading : float
        λ.
    positive : sequence of str
        Augmentations that make both views.
    options : {augmentation: {keyword: value}}

    Raises
    ------
    ConfigError
        A number is out of range.

    References
    ----------
    M. Caron et al., "Emerging properties in self-supervised vision transformers", arXiv:2104.14294; J. Zhou et al., "iBOT: image
    BERT pre-training with online tokenizer", arXiv:2111.07832; for jets H. F. Tsoi, D. Rankin, arXiv:2601.11719.

    Examples
    --------
    >>> from coffea_ad.nn.self_supervised.encoder import PRESETS
    >>> from coffea_ad.nn.self_supervised.tokens import Tokens
    >>> model = SelfDistillation(SetEncoder(50, Tokens(["pt", "deta", "dphi"]), **PRESETS["small"]))
    >>> loss = model.training_loss(Batch.of(torch.rand(8, 50, 3)), torch.Generator().manual_seed(1))["loss"]
    >>> bool(loss.isfinite()), any(p.requires_grad for p in model.encoder.parameters())
    (True, False)
    """

    method: ClassVar[str] = "self-distillation"
    criterion: str = "epochs_left"
    needs_epochs: bool = True
    plotted: ClassVar[tuple[str, ...]] = ("loss", "validation", "sets", "objects", "entropy")

    def __init__(
        self,
        encoder: SetEncoder,
        *,
        prototypes: int = 256,
        largest: float = 0.5,
        memory: float = 0.996,
        temperatures: tuple[float, float] = (0.04, 0.1),
        centring: float = 0.9,
        spreading: float = 0.01,
        positive: Sequence[str] = ("rotation",),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(encoder.shape, nn.Identity())
        if not (0 < memory < 1 and 0 <= centring < 1 and 0 < largest < 1 and min(temperatures) > 0):
            raise ConfigError("self-distillation: memory, centring and largest are parts of 1, temperatures positive")
        self.largest, self.memory, self.temperatures = largest, memory, tuple(temperatures)
        self.centring, self.spreading, self.prototypes = centring, spreading, prototypes
        self.student = _Student(encoder, prototypes)
        self.teacher = copy.deepcopy(self.student).requires_grad_(requires_grad=False)
        self.views = Views(encoder.tokens.columns, positive, (), options or {})
        for name in ("centre_of_sets", "centre_of_objects"):
            self.register_buffer(name, torch.zeros(prototypes))
        self._epochs_left = 0
        self.centre_of_sets: Tensor
        self.centre_of_objects: Tensor

    @property
    def encoder(self) -> SetEncoder:
        """The teacher's encoder."""
        return self.teacher.encoder

    @property
    def slots_vary(self) -> bool:
        """Rows without their last empty slots may be given."""
        return self.encoder.slots_vary

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Note how many epochs there will be."""
        self._epochs_left = epochs - epoch - 1

    def train(self, mode: bool = True) -> SelfDistillation:
        """Set the training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def _follow(self) -> None:
        """Move the teacher towards the student."""
        with torch.no_grad():
            for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                old.lerp_(new, 1 - self.memory)

    def _losses(self, x: Tensor, generator: torch.Generator) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        """Return the terms of the loss, and the teacher's logits of sets and of occupied slots."""
        warm, cold = self.temperatures[1], self.temperatures[0]
        views = [self.encoder.tokens(self.views.positive(x, generator)) for _ in range(2)]
        with torch.no_grad():
            whole = [self.teacher(view) for view in views]
            targets = [((logits - self.centre_of_sets) / cold).softmax(dim=1) for _, logits, _ in whole]
        sets, objects, spread = [], [], []
        for i, view in enumerate(views):
            hidden = drawn_by_pt(view.share, self.largest, generator)
            h, of_set, of_object = self.student(view, hidden)
            sets.append(-(targets[1 - i] * (of_set / warm).log_softmax(dim=1)).sum(dim=1).mean())
            p = ((whole[i][2][hidden] - self.centre_of_objects) / cold).softmax(dim=1)
            total = -(p * (of_object[hidden] / warm).log_softmax(dim=1)).sum()
            objects.append(total / hidden.sum().clamp(min=1))
            spread.append(koleo(h))
        p = torch.cat(targets)
        terms = {
            "sets": torch.stack(sets).mean(), "objects": torch.stack(objects).mean(), "koleo": torch.stack(spread).mean(),
            "entropy": -(p.mean(dim=0) * p.mean(dim=0).clamp(min=1e-12).log()).sum(),
        }  # fmt: skip
        return terms, [w[1] for w in whole], [w[2][v.occupied > 0] for w, v in zip(whole, views, strict=True)]

    def training_loss(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Return "loss" and its terms, and how many prototypes the teacher uses, as the entropy of their mean."""
        self._follow()
        terms, of_sets, of_objects = self._losses(batch.z, generator)
        for centre, logits in ((self.centre_of_sets, of_sets), (self.centre_of_objects, of_objects)):
            rows = torch.cat(logits)
            if len(rows):
                centre.lerp_(rows.mean(dim=0), 1 - self.centring)
        loss = terms["sets"] + terms["objects"] + self.spreading * terms["koleo"]
        return {"loss": loss, **{name: value.detach() for name, value in terms.items()}}

    def validate(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """Return the loss of held-out rows, with the entropy: an encoder that says the same of all sets has a low loss as well."""
        with torch.no_grad():
            terms, _, _ = self._losses(batch.z, generator)
        loss = (terms["sets"] + terms["objects"]).item()
        return {"validation": loss, "validation_entropy": terms["entropy"].item(), "epochs_left": self._epochs_left}
