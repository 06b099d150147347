"""Scorable: what card, export and comparison ask of a model, whether it is of torch, of trees, or of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from coffea_ad.nn.model import Model
from coffea_ad.scoring.specs import Density, Folds
from coffea_ad.typing import Float32s, Ints

__all__ = ["Scorable", "models_in"]


@runtime_checkable
class Scorable(Protocol):
    """A model that can be exported: `Model`, `CrossTrained`, `Ensemble`, `Trees`, or one of your own.

    Attributes
    ----------
    method : str
        Name on the card.
    shape : tuple of int
        Shape of a row of x.
    folds : Folds or None
        The folds of a cross-training, whose rows are scored by the member that never saw their event.
    density : "x", "z" or None
        Whether the score is −log p(x) or −log p(z), where it is a density at all.
    """

    @property
    def method(self) -> str:
        """Name on the card."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row of x."""

    @property
    def folds(self) -> Folds | None:
        """The folds of a cross-training."""

    @property
    def density(self) -> Density | None:
        """Whether the score is −log p(x) or −log p(z)."""

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:
        """Score rows, (n, *shape) float32 → (n,) float32, NaN where an input is not finite; with folds by that of every row."""

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph with the input "features", (rows, *shape), and an output (rows,) for every member."""


def models_in(model: Any) -> Iterator[Model]:
    """Go through the torch models that something scorable consists of."""
    if isinstance(model, Model):
        yield model
    else:
        for member in getattr(model, "members", ()):
            yield from models_in(member)
