"""Scorable: what card, export and comparison ask of a model, whether it is of torch, of trees, or of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from coffea_ad.errors import ConfigError
from coffea_ad.nn.model import Model
from coffea_ad.scoring.specs import Contributions, Density, Folds
from coffea_ad.typing import Float32s, Ints

__all__ = ["Explaining", "Scorable", "contributions_in", "explaining", "models_in"]


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


@runtime_checkable
class Explaining(Protocol):
    """A `Scorable` that can say what each part of a row adds to its score; its graphs take outputs for that behind those of scores.

    Attributes
    ----------
    contributes : Contributions or None
        What contributions add up to, and of what parts they are; None if there are none after all.
    """

    @property
    def contributes(self) -> Contributions | None:
        """What contributions add up to."""

    def contributions_of(self, x: Float32s, folds: Ints | None = None) -> Float32s:
        """Return contributions, (n, *shape) float32 → (n, parts) float32, NaN where there is no score."""


def contributions_in(model: Any) -> Contributions | None:
    """Return what a model's contributions are, or None.

    A subclass that changes the score and not the contributions, which were made for another one, has none.
    """
    if not isinstance(model, Explaining):
        return None
    if isinstance(model, Model):
        order = type(model).__mro__
        first = {n: next(i for i, c in enumerate(order) if n in vars(c)) for n in ("contributions", "energy", "score")}
        if first["contributions"] > min(first["energy"], first["score"]):
            return None
    return model.contributes


def explaining(model: Any) -> Explaining:
    """Return a model that has contributions.

    Raises
    ------
    ConfigError
        It has none.
    """
    if contributions_in(model) is None:
        raise ConfigError(f"the score of {model.method} is no sum, and has no contributions")
    checked: Explaining = model
    return checked


def models_in(model: Any) -> Iterator[Model]:
    """Go through the torch models that something scorable consists of."""
    if isinstance(model, Model):
        yield model
    else:
        for member in getattr(model, "members", ()):
            yield from models_in(member)
