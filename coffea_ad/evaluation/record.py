"""Samples that are evaluated, and what is found: one row for a score and a signal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.curves import Curve
from coffea_ad.evaluation.latent import Latent
from coffea_ad.evaluation.sculpting import Sculpting
from coffea_ad.tables import html_of
from coffea_ad.typing import Float64s

__all__ = ["MIN_SEEDS", "Estimate", "Evaluation", "Metrics", "Row", "Sample", "both_directions"]

MIN_SEEDS = 5
"""A standard deviation over fewer models that differ by their seed is too uncertain to be shown."""


@dataclass(frozen=True)
class Sample:
    """Rows of one process with their scores.

    Attributes
    ----------
    scores : {name: (n,) or (k, n)}
        Higher = more anomalous; k models that differ by their seed stand below one another. NaN = undefined.
    weight : (n,), optional
        1 by default; negative weights, as of generators at next-to-leading order, are subtracted, and counted.
    pt, mass : (n,), optional
        What spectra are matched in, GeV, and what a cut must not sculpt, GeV.
    event : (n,) integers, optional
        Rows with the same number are resampled together, such as the jets of an event; without it, every row is one.
    """

    scores: Mapping[str, npt.NDArray[Any]]
    weight: npt.NDArray[Any] | None = None
    pt: npt.NDArray[Any] | None = None
    mass: npt.NDArray[Any] | None = None
    event: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Estimate:
    """A number, its bootstrap error, and its standard deviation over models that differ by their seed.

    With several models, the value is their mean and the error is that of the mean for these models. NaN where there is
    nothing to say; a standard deviation takes `MIN_SEEDS` models.

    Attributes
    ----------
    value, error, spread : float
    each : tuple of float
        The number of every model, where there are several.
    """

    value: float
    error: float
    spread: float = float("nan")
    each: tuple[float, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """How good a score is against one signal.

    Attributes
    ----------
    auc : Estimate
    signal_efficiency : {ε_B: Estimate}
        NaN where fewer effective background objects pass than the guard asks for.
    significance_improvement : Estimate
        The largest ε_S/√ε_B among the working points that the guard lets through.
    eps_b : float
        Where that is; the mean over several models.
    n_effective, n_effective_signal : float
        (Σw)² / Σw² of the rows with a score; the mean over several models.
    curve : Curve
        On a grid of ε_B; the mean over several models.
    auc_replicas : (n_bootstrap,)
        The AUC in each replica, the mean over several models: replica i is of the same events for every score.
    """

    auc: Estimate
    signal_efficiency: Mapping[float, Estimate]
    significance_improvement: Estimate
    eps_b: float
    n_effective: float
    n_effective_signal: float
    curve: Curve
    auc_replicas: Float64s = field(default_factory=lambda: np.zeros(0), repr=False)


@dataclass(frozen=True)
class Row:
    """One score against one signal.

    Attributes
    ----------
    score, signal : str
    models : int
        How many models, different by their seed, stand behind the score.
    plain, matched : Metrics
        As it is, and with the background reweighted to the signal's pT spectrum; None where there is no pT.
    undefined_background, undefined_signal : int
        Rows without a score, for the model that has most of them.
    """

    score: str
    signal: str
    models: int
    plain: Metrics
    matched: Metrics | None
    undefined_background: int
    undefined_signal: int


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` has found.

    Attributes
    ----------
    rows : tuple of Row
    sculpting : {score: Sculpting}
        Means over models that differ by their seed.
    notes : tuple of str
        What was left out, and why.
    settings, provenance : dict
    reverse : Evaluation, optional
        The other direction: models of the signal's process that look for the background's.
    latent : {encoder: Latent}
        Two principal axes of representations.
    """

    rows: tuple[Row, ...]
    sculpting: Mapping[str, Sculpting] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reverse: Evaluation | None = None
    latent: Mapping[str, Latent] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from coffea_ad.evaluation.report import listings

        return html_of("evaluation", listings(self), self.notes)

    def row(self, score: str, signal: str) -> Row:
        """Return one row.

        Raises
        ------
        ConfigError
            It was not evaluated.
        """
        for row in self.rows:
            if (row.score, row.signal) == (score, signal):
                return row
        raise ConfigError(f"{score} was not evaluated against {signal}")

    def joined(self, other: Evaluation) -> Evaluation:
        """Return the rows of both, with the settings of this one."""
        notes = tuple(dict.fromkeys((*self.notes, *other.notes)))
        return replace(self, rows=self.rows + other.rows, sculpting={**self.sculpting, **other.sculpting}, notes=notes)


def both_directions(evaluation: Evaluation) -> list[tuple[str, Estimate, Estimate, Estimate]]:
    """Return (score, forward, reverse, the smaller one) of the AUC, for scores that have both directions.

    A score that finds one process as anomaly of the other must also find the other as anomaly of the one; what tags
    complexity does only the first.

    Parameters
    ----------
    evaluation : Evaluation
        With `reverse`, whose rows have the same names of scores; of several signals, the first counts.

    Raises
    ------
    ConfigError
        There is no other direction.
    """
    if evaluation.reverse is None:
        raise ConfigError("only one direction was evaluated")
    forward, backward = ({r.score: r.plain.auc for r in e.rows[::-1]} for e in (evaluation, evaluation.reverse))
    order = dict.fromkeys(row.score for row in evaluation.rows)
    return [
        (score, forward[score], backward[score], min(forward[score], backward[score], key=lambda e: e.value))
        for score in order
        if score in backward
    ]
