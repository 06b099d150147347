"""Scores taken apart: rows of a model, and what each part of them adds to the score, beside what is usual there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from coffea_ad.errors import CardMismatch
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import InputSpec
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = [
    "Attribution",
    "Explanation",
    "Explanations",
    "Part",
    "Rows",
    "explain",
    "medians",
    "only_input",
]

BY_OUTPUT = "the model's contributions"


@dataclass(frozen=True)
class Rows:
    """Rows of a model, and which events and jets they are.

    Attributes
    ----------
    x : (n, *shape) float32
    members : (n,) int64, or None
        Which member scores each row, as `OnnxScorer` takes it.
    ids : tuple of str
        run:lumi:event.
    datasets : tuple of str
    jets : tuple of int or None
        Place of the jet in the collection of its event, from 0; None for a whole event.
    notes : tuple of str
        What has to be said of them.
    """

    x: Float32s
    members: Ints | None
    ids: tuple[str, ...]
    datasets: tuple[str, ...]
    jets: tuple[int | None, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One part of a score.

    Attributes
    ----------
    name : str
    value : float
        Of the input; NaN for a term that is of no input.
    typical : float
        The median of the input in the background; NaN where the card has none.
    contribution : float
    share : float
        Of the sum of all contributions.
    """

    name: str
    value: float
    typical: float
    contribution: float
    share: float


@dataclass(frozen=True, repr=False)
class Explanation:
    """One event or jet, and what its score is made of.

    Attributes
    ----------
    id, dataset, jet
        As in `Rows`.
    score : float
        Of the model file.
    names : tuple of str
    values, typical, contributions : (parts,) float64
    remainder : float
        What the contributions leave of what they should add up to: rounding, or the error of an integral.
    """

    id: str
    dataset: str
    jet: int | None
    score: float
    names: tuple[str, ...]
    values: Float64s
    typical: Float64s
    contributions: Float64s
    remainder: float

    def __repr__(self) -> str:
        """Name the event and its leading part."""
        return f"<Explanation of {self.title}: {self.leading(1)[0].name} leads>"

    @property
    def title(self) -> str:
        """Event, dataset, jet and score in one line."""
        what = "" if self.jet is None else f", jet {self.jet}"
        return f"{self.id} {self.dataset}{what}: score {self.score:.4g}"

    @property
    def total(self) -> float:
        """Sum of the contributions."""
        return float(self.contributions.sum())

    def leading(self, n: int | None = None) -> list[Part]:
        """Return the n parts with the largest contributions by size, or all, largest first; equal ones in their order."""
        order = np.argsort(-np.abs(self.contributions), kind="stable")[:n]
        total = self.total
        return [
            Part(
                self.names[i],
                float(self.values[i]),
                float(self.typical[i]),
                float(self.contributions[i]),
                float(self.contributions[i] / total) if total else math.nan,
            )
            for i in order
        ]


@dataclass(frozen=True)
class Explanations:
    """Several events or jets, explained by one model.

    Attributes
    ----------
    card : ModelCard
    by : str
        How: "the model's contributions", or integrated gradients and from where.
    of : str
        What the contributions add up to.
    rows : tuple of Explanation
    notes : tuple of str
    """

    card: ModelCard
    by: str
    of: str
    rows: tuple[Explanation, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attribution:
    """Another way to contributions than the model's own output.

    Attributes
    ----------
    by, of : str
        As in `Explanations`.
    apply : callable
        (rows, (n, *shape) float32; members, or None) → contributions of all numbers of a row, (n, numbers), and what they leave of what
        they should add up to, (n,), float64.
    """

    by: str
    of: str
    apply: Callable[[Float32s, Ints | None], tuple[Float64s, Float64s]]


def explain(scorer: OnnxScorer, rows: Rows, attribution: Attribution | None = None) -> Explanations:
    """Take the scores of rows apart.

    Parameters
    ----------
    scorer : OnnxScorer
    rows : Rows
        Those without a score are left out, which is noted.
    attribution : Attribution, optional
        Such as `nn.attribution.integrated_gradients`; by default the contributions that the model file gives.

    Returns
    -------
    Explanations

    Raises
    ------
    CardMismatch
        The model has several inputs, or no contributions.

    Examples
    --------
    >>> from coffea_ad import OnnxScorer
    >>> rows = Rows(np.zeros((1, 8), np.float32), None, ("1:1:1",), ("toy",), (0,))
    >>> explain(OnnxScorer(model_file), rows)
    Traceback (most recent call last):
    coffea_ad.errors.CardMismatch: ...: its card promises no contributions; coffea-ad explain takes gradients of its training
    """
    card, spec = scorer.card, only_input(scorer.card)
    score = np.asarray(scorer(rows.x, rows.members), np.float64)
    defined = np.isfinite(score)
    x, members = rows.x[defined], None if rows.members is None else rows.members[defined]
    if attribution is None:
        parts = scorer.contributions(x, members).astype(np.float64)
        of: str = "score" if card.contributions is None else card.contributions.of
        total = np.exp(score[defined]) if of == "exp(score)" else score[defined]
        by, names, remainder = BY_OUTPUT, card.parts, total - parts.sum(axis=1)
    else:
        parts, remainder = attribution.apply(x, members)
        by, of, names = attribution.by, attribution.of, spec.entries
    place = {name: i for i, name in enumerate(spec.entries)}
    of_x = np.array([place.get(name, -1) for name in names])
    typical = np.append(medians(card, spec), np.nan)[of_x]
    flat = np.concatenate(
        [x.reshape(len(x), len(spec.entries)), np.full((len(x), 1), np.nan, np.float32)], axis=1
    ).astype(np.float64)
    which = np.flatnonzero(defined)
    explanations = [
        Explanation(
            id=rows.ids[k],
            dataset=rows.datasets[k],
            jet=rows.jets[k],
            score=float(score[k]),
            names=names,
            values=flat[i, of_x],
            typical=typical,
            contributions=parts[i],
            remainder=float(remainder[i]),
        )
        for i, k in enumerate(which)
    ]
    lost = [f"{rows.ids[k]} {rows.datasets[k]}: it has no score by {card.name}" for k in np.flatnonzero(~defined)]
    return Explanations(card, by, of, tuple(explanations), (*rows.notes, *lost))


def only_input(card: ModelCard) -> InputSpec:
    """Return the input of a model that has one.

    Raises
    ------
    CardMismatch
    """
    if len(card.inputs) > 1:
        raise CardMismatch(
            f"{card.name}: scores of a model of one input can be explained, and it has {len(card.inputs)}"
        )
    return card.inputs[0]


def medians(card: ModelCard, spec: InputSpec) -> Float64s:
    """Return the median of each number of a row in the background, NaN where the card does not say."""
    quantiles: Any = card.quantiles
    if quantiles is None or 0.5 not in quantiles.probability or len(spec.columns) != len(spec.entries):
        return np.full(len(spec.entries), np.nan)
    at = quantiles.probability.index(0.5)
    return np.array([quantiles.values[c][at] if c in quantiles.values else np.nan for c in spec.columns], np.float64)
