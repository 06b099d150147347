"""ARGOS: how much a classifier of data against a template has learnt, without knowing a signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.curves import Ranking
from coffea_ad.typing import Float32s

__all__ = ["LEAST", "Argos", "Choice", "argos", "best_by_argos"]

LEAST = 20.0
"""Effective template events above a cut, below which it does not count."""


class Argos(NamedTuple):
    """The largest ε_SR/√ε_T − √ε_T, and the efficiency of the template where it is."""

    value: float
    efficiency: float


class Choice(NamedTuple):
    """What was selected, by which value, out of how many, and the values of all.

    Attributes
    ----------
    name : str
    argos : Argos
    tried : int
        Each is a trial: a p-value of the selected one has to count them, and the card to state them.
    values : {name: Argos}
    """

    name: str
    argos: Argos
    tried: int
    values: dict[str, Argos]


class Scores(Protocol):
    """Anything that scores rows, such as a model of `coffea_ad.nn`."""

    def scores(self, x: Float32s) -> npt.NDArray[Any]:
        """Score rows, (n, columns) → (n,)."""


def argos(
    score_signal_region: npt.ArrayLike,
    score_template: npt.ArrayLike,
    *,
    weight_signal_region: npt.ArrayLike | None = None,
    weight_template: npt.ArrayLike | None = None,
    least: float = LEAST,
) -> Argos:
    """Return the largest excess of data over a template above a cut, in units of its statistical error.

    With the fractions ε of data in the signal region and of the template that have at least a score,

        ARGOS = max (ε_SR − ε_T) / √ε_T = max (ε_SR/√ε_T − √ε_T),

    over the cuts that at least `least` effective template events pass. A signal of the fraction f gives about f times its
    significance improvement; noise gives a few times 1/√N_SR. Tied scores are never split: a cut lies between two scores.

    Parameters
    ----------
    score_signal_region, score_template : (n,)
        Of rows that the classifier has not seen; undefined ones are left out.
    weight_signal_region, weight_template : (n,), optional
        1 by default; negative ones are subtracted.
    least : float
        Statistical floor.

    Returns
    -------
    Argos
        (0, 1) where no cut shows an excess: everything passes.

    Raises
    ------
    ConfigError
        A sample is empty, its weights do not sum to something positive, or the template has fewer than `least` effective events.

    References
    ----------
    "ARGOS", arXiv:2511.14832, for choosing epochs and settings of weakly supervised classifiers.

    Examples
    --------
    >>> data = np.r_[np.zeros(900), np.ones(100)]
    >>> template = np.r_[np.zeros(950), np.ones(50)]
    >>> result = argos(data, template)
    >>> round(result.value, 3), result.efficiency
    (0.224, 0.05)
    """
    scores, weights = [], []
    for score, weight in ((score_template, weight_template), (score_signal_region, weight_signal_region)):
        values = np.asarray(score, np.float64)
        weights.append(np.ones(len(values)) if weight is None else np.asarray(weight, np.float64))
        if weights[-1].shape != values.shape:
            raise ConfigError(f"{len(values)} scores have {len(weights[-1])} weights")
        scores.append(np.where(weights[-1] != 0, values, np.nan))
    curve = Ranking.of(*scores).curve(*weights)
    if not np.isfinite(curve.area):
        raise ConfigError("the weights of the template or of the signal region do not sum to something positive")
    counts = (curve.n_effective >= least * (1 - 1e-9)) & (curve.eps_b > 0)
    if not counts.any():
        most = float(curve.n_effective.max())
        raise ConfigError(
            f"the template has {most:.1f} effective events with a score; at least {least:g} must pass a cut"
        )
    root = np.sqrt(curve.eps_b[counts])
    values = curve.eps_s[counts] / root - root
    best = int(np.argmax(values))
    if values[best] <= 0:
        return Argos(0.0, 1.0)
    return Argos(float(values[best]), float(curve.eps_b[counts][best]))


def best_by_argos(
    candidates: Mapping[str, Scores],
    signal_region: Float32s,
    template: Float32s,
    *,
    weight_signal_region: npt.ArrayLike | None = None,
    weight_template: npt.ArrayLike | None = None,
    least: float = LEAST,
) -> Choice:
    """Select the model with the largest ARGOS, such as an epoch or a setting; of equal ones the first.

    Parameters
    ----------
    candidates : {name: model}
        Anything with `scores(x)`.
    signal_region, template : (n, columns)
        Rows that no candidate was trained on and that are not tested with the selected one: the largest of many values is too
        large.
    weight_signal_region, weight_template, least
        As for `argos`.

    Returns
    -------
    Choice
        With the number of candidates, each of which is a trial.

    Raises
    ------
    ConfigError
        There is no candidate, or as for `argos`.

    Examples
    --------
    >>> class Column(NamedTuple):
    ...     i: int
    ...     def scores(self, x): return x[:, self.i]
    >>> rng = np.random.default_rng(1)
    >>> template, data = rng.normal(size=(2, 1000, 2))
    >>> data[:100, 1] += 3
    >>> choice = best_by_argos({"first": Column(0), "second": Column(1)}, data, template)
    >>> choice.name, choice.tried
    ('second', 2)
    """
    if not candidates:
        raise ConfigError("there is no candidate to select from")
    options = {"weight_signal_region": weight_signal_region, "weight_template": weight_template}
    values = {
        name: argos(model.scores(signal_region), model.scores(template), least=least, **options)
        for name, model in candidates.items()
    }
    name = max(values, key=lambda n: values[n].value)
    return Choice(name, values[name], len(values), values)
