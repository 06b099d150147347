"""Ensemble: several models as one, such as the best epochs of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, cast, get_args

import numpy as np
from scipy.special import logsumexp

from coffea_ad.errors import ConfigError
from coffea_ad.modelfiles.joining import joined_scores
from coffea_ad.modelfiles.ranks import RULES, Nodes, add_logp, combined_logp
from coffea_ad.nn.graph import Graphs, epoch_graphs
from coffea_ad.nn.model import Model
from coffea_ad.nn.scorable import Scorable, contributions_in, explaining
from coffea_ad.nn.training.history import History
from coffea_ad.scoring.calibration import calibrate
from coffea_ad.scoring.specs import Calibration, Contributions, Density, Folds
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["LARGEST_LOG_ODDS", "Ensemble", "How", "log_odds_of_mean"]

LARGEST_LOG_ODDS = 80.0
"""Of a member, where probabilities are averaged: its exponential is a number of float32."""

_OF_A_MEMBER = ("score", "contributions")

How = Literal["mean", "logmeanexp", "probability", "rank"]


class Ensemble:
    """M models of the same rows, with one score.

    With scores sₘ, that is one of

        mean:        Σ sₘ / M
        logmeanexp:  −ln (Σ exp(−sₘ) / M), the score of the mean density where each is −ln p
        probability: ln Σ σ(sₘ) − ln Σ σ(−sₘ), the log-odds of the mean probability where each is the log-odds of one
        rank:        −log₁₀ of the mean efficiency of "at least this score", by the ranks in given rows

    Parameters
    ----------
    members : sequence of Scorable
        Of the same shape, without folds.
    how : "mean", "logmeanexp", "probability" or "rank"
    calibrations : sequence of Calibration, optional
        For rank, one for each member: `with_ranks` makes them.

    Raises
    ------
    ConfigError
        There is no member, they do not go together, or ranks have no calibrations.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation", arXiv:2109.00546: scores of the ten best epochs
    are averaged.

    Examples
    --------
    >>> from torch import nn
    >>> from coffea_ad.nn.reconstruction.autoencoder import AE
    >>> model = Ensemble([AE(8, transform=nn.Identity()) for _ in range(3)])
    >>> model.method, model.scores(np.zeros((4, 8), np.float32)).shape
    ('AE, mean of 3', (4,))
    """

    folds: Folds | None = None

    def __init__(
        self, members: Sequence[Scorable], how: How = "mean", *, calibrations: Sequence[Calibration] = ()
    ) -> None:
        if how not in get_args(How):
            raise ConfigError(f"how is {how!r}, but must be {', '.join(get_args(How))}")
        if not members or len({m.shape for m in members}) != 1 or any(m.folds is not None for m in members):
            raise ConfigError("an ensemble needs one model or more, of the same columns and without folds")
        if how == "rank" and len(calibrations) != len(members):
            raise ConfigError("ranks need a calibration for each model: Ensemble.with_ranks(models, x, weight)")
        self.members, self.how, self.calibrations = list(members), how, tuple(calibrations)

    @classmethod
    def of_epochs(cls, model: Model, history: History, how: How | None = None) -> Model | Ensemble:
        """Return the kept epochs of a training as one model, or the model itself if one epoch is kept.

        Parameters
        ----------
        model : Model
        history : History
        how : optional
            By default as the model says: mean densities of a flow, mean probabilities of a classifier, else mean scores.
        """
        if len(history.epochs) == 1:
            return model
        return cls(history.models(model), how or cast("How", model.epochs_by))

    @classmethod
    def with_ranks(cls, members: Sequence[Scorable], x: Float32s, weight: Float64s) -> Ensemble:
        """Rank the members' scores in background rows, (n, *shape), with weights (n,)."""
        tables = [calibrate(member.scores(x), weight, "the rows that rank the members") for member in members]
        return cls(members, "rank", calibrations=tables)

    @property
    def method(self) -> str:
        """Name on the card."""
        names = list(dict.fromkeys(member.method for member in self.members))
        return f"{' and '.join(names)}, {self.how} of {len(self.members)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row of x."""
        return self.members[0].shape

    @property
    def density(self) -> Density | None:
        """Whether the score is −log p(x) or −log p(z): the mean of densities is one, the mean of their logarithms is not."""
        kinds = {member.density for member in self.members}
        return kinds.pop() if len(kinds) == 1 and (self.how == "logmeanexp" or len(self.members) == 1) else None

    def scores(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Score rows, (n, *shape) → (n,)."""
        each = [member.scores(x) for member in self.members]
        if self.how == "rank":
            return combined_logp(self.calibrations, each, "rank")
        values = np.stack(each).astype(np.float64)
        if self.how == "probability":
            return np.asarray(log_odds_of_mean(values), np.float32)
        if self.how == "mean":
            return np.asarray(values.mean(axis=0), np.float32)
        return np.asarray(np.log(len(each)) - logsumexp(-values, axis=0), np.float32)

    @property
    def contributes(self) -> Contributions | None:
        """What the members' contributions add up to, if that is the score of all: the mean of sums, and of no logarithms."""
        kinds = [contributions_in(member) for member in self.members]
        alike = kinds[0] is not None and all(kind == kinds[0] for kind in kinds)
        additive = len(kinds) == 1 or (self.how == "mean" and kinds[0] is not None and kinds[0].of == "score")
        return kinds[0] if alike and additive and self.how != "rank" else None

    def contributions_of(self, x: Float32s, folds: Ints | None = None) -> Float32s:  # noqa: ARG002
        """Return what each part adds to the scores of rows, (n, *shape) → (n, parts): the mean over the members."""
        each = np.stack([explaining(member).contributions_of(x) for member in self.members])
        return np.asarray(each.mean(axis=0, dtype=np.float64), np.float32)

    def graph(self, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score, and with two outputs of its contributions."""
        return self.graph_by(epoch_graphs, outputs)

    def graph_by(self, graphs: Graphs, outputs: Sequence[str]) -> bytes:
        """Return an ONNX graph of the score; `graphs` exports the members."""
        rules: dict[How, Callable[[Nodes, Sequence[str]], str]] = {
            "mean": RULES["mean-logp"], "logmeanexp": _log_mean_exp, "probability": _log_odds_of_mean,
            "rank": self._ranked,
        }  # fmt: skip
        return joined_scores(graphs(self.members, _OF_A_MEMBER[: len(outputs)]), self.shape, outputs, rules[self.how])

    def _ranked(self, add: Nodes, scores: Sequence[str]) -> str:
        values = [add_logp(add, s, table) for s, table in zip(scores, self.calibrations, strict=True)]
        total = add("Sum", *scores)
        zero = add("Sub", total, total)  # or NaN, if any member has no score: minima may lose a NaN
        return add("Where", add("IsNaN", zero), zero, RULES["rank"](add, values))


def _log_mean_exp(add: Nodes, scores: Sequence[str]) -> str:
    """Add −ln of the mean of exp(−score), with the least score taken out, so that nothing is rounded to 0."""
    least = add("Min", *scores)
    terms = [add("Exp", add("Sub", least, s)) for s in scores]
    mean = add("Mul", add("Sum", *terms), add.constant(1 / len(scores)))
    return add("Sub", least, add("Log", mean))


def log_odds_of_mean(each: Float64s) -> Float64s:
    """Return the log-odds of the mean probability from those of M members, (M, n) → (n,).

    ln Σ σ(mₖ) − ln Σ σ(−mₖ) with |mₖ| up to 80, so that no exponential is lost; mₖ itself for a single member.

    >>> log_odds_of_mean(np.array([[2.0, 50.0], [2.0, -50.0]])).round(6)
    array([2., 0.])
    """
    if len(each) == 1:
        return np.asarray(each[0], np.float64)
    m = np.clip(np.asarray(each, np.float64), -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)
    small = np.exp(-np.abs(m))
    larger, smaller = 1 / (1 + small), small / (1 + small)
    up, down = np.where(m >= 0, larger, smaller), np.where(m >= 0, smaller, larger)
    return np.asarray(np.log(up.sum(axis=0)) - np.log(down.sum(axis=0)), np.float64)


def _log_odds_of_mean(add: Nodes, scores: Sequence[str]) -> str:
    """Add what `log_odds_of_mean` does; a NaN of any member stays one, which a Clip may lose."""
    if len(scores) == 1:
        return scores[0]
    one, zero, pairs = add.constant(1.0), add.constant(0.0), []
    for score in scores:
        m = add("Clip", score, add.constant(-LARGEST_LOG_ODDS), add.constant(LARGEST_LOG_ODDS))
        small = add("Exp", add("Neg", add("Abs", m)))
        larger = add("Reciprocal", add("Add", small, one))
        positive = add("GreaterOrEqual", m, zero)
        sides = larger, add("Mul", small, larger)
        pairs.append((add("Where", positive, *sides), add("Where", positive, *sides[::-1])))
    up, down = (add("Log", add("Sum", *terms)) for terms in zip(*pairs, strict=True))
    total = add("Sum", *scores)
    return add("Add", add("Sub", up, down), add("Sub", total, total))
