"""What an excess is worth: the same search, trainings included, on data without a signal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.counting import count_significance, p_value_of
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.resonant.classifiers import fit_best, labelled
from coffea_ad.resonant.members import Member, Role, Task, train_member
from coffea_ad.resonant.settings import ClassifierConfig
from coffea_ad.resonant.windows import mass_of
from coffea_ad.scoring.calibration import calibrate, logp
from coffea_ad.skims.skim import Skim
from coffea_ad.splits import fold_of
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = [
    "Excess", "Permutations", "PseudoData", "calibrated_p", "excess_of", "permuted_excesses", "pseudo_excesses",
]  # fmt: skip


class Excess(NamedTuple):
    """Events of a signal region above the threshold of an efficiency, and what the template leads one to expect.

    Attributes
    ----------
    efficiency : float
        Nominal, of the template.
    observed : float
    expected, error : float
        Σ over folds of (efficiency on the counted half) · (events of the fold), with the statistical error of template rows.
    significance, p_value : float
        As if nothing had been trained on these data: `count_significance`.
    """

    efficiency: float
    observed: float
    expected: float
    error: float
    significance: float
    p_value: float


def excess_of(members: Sequence[Member], efficiencies: Sequence[float]) -> list[Excess]:
    """Count the events of all folds above their members' thresholds.

    Thresholds come from the first half of each template, the expectation from the second.
    """
    parts = [
        (m.template_score, m.template_weight, m.score, np.arange(len(m.template_score)) < len(m.template_score) // 2)
        for m in members
    ]
    return [_excess(parts, eps) for eps in efficiencies]


_Part = tuple[Float32s, Float64s, Float32s, np.ndarray]


def _excess(parts: Sequence[_Part], efficiency: float) -> Excess:
    observed = expected = variance = 0.0
    for template, weight, score, calibrates in parts:
        if np.ptp(template[calibrates]) == 0:  # nothing was learnt in this fold, and nothing is selected
            continue
        table = calibrate(template[calibrates], weight[calibrates], "half of a template")
        cut = -np.log10(efficiency)
        passed = logp(table, score) >= cut
        counted = logp(table, template[~calibrates]) >= cut
        w = weight[~calibrates]
        share = float(w[counted].sum() / w.sum())
        observed += float(passed.sum())
        expected += share * len(score)
        # at least one row's worth: that none of few rows passed does not mean that none can
        some = max(float((w[counted] ** 2).sum()), float((w**2).mean()))
        variance += some / w.sum() ** 2 * len(score) ** 2
    if not variance:
        return Excess(efficiency, 0.0, 0.0, 0.0, 0.0, 0.5)
    expected = max(expected, np.sqrt(variance) / 2)
    z = count_significance(observed, expected, float(np.sqrt(variance)))
    return Excess(efficiency, observed, expected, float(np.sqrt(variance)), z, p_value_of(z))


class Permutations(NamedTuple):
    """What permutations need: rows of data and template, and how a search trains.

    Attributes
    ----------
    data, template : Skim
        Of the signal region; rows of the template count for themselves, without weights.
    inputs : tuple of str
    candidates : tuple of ClassifierConfig
        One, or several from which each fold selects.
    k : int
        Folds; 2: half of the data train, and the other half are counted.
    salt : str
    efficiencies : tuple of float
    seed : int
    """

    data: Skim
    template: Skim
    inputs: tuple[str, ...]
    candidates: tuple[ClassifierConfig, ...]
    k: int
    salt: str
    efficiencies: tuple[float, ...]
    seed: int


def permuted_excesses(plan: Permutations, numbers: Sequence[int]) -> list[list[Excess]]:
    """Search data in which rows of data and template have changed places at random, number by number.

    Where data and template are of one distribution, number 0, which leaves all as it is, is like any other number: its rank
    among the others is a p-value that holds whatever the training does.

    Parameters
    ----------
    plan : Permutations
    numbers : sequence of int
        Each stands for one permutation.

    Returns
    -------
    list of list of Excess
        For each number, by efficiency.
    """
    pool = plan.data.joined(replace(plan.template, dataset=np.full(len(plan.template.weight), "template")))
    n = len(plan.data.weight)
    out = []
    for number in numbers:
        order = np.arange(len(pool.weight))
        if number:
            order = np.random.default_rng([plan.seed, number]).permutation(order)
        out.append(_cross_fitted(plan, pool.select(order[:n]), pool.select(order[n:]), number))
    return out


def _cross_fitted(plan: Permutations, data: Skim, template: Skim, number: int) -> list[Excess]:
    """Train in all folds, and count; template rows of a fold calibrate and are counted, the others train."""
    rng = np.random.default_rng([plan.seed, number, 1])
    fold = _folds(data, plan, number)
    of_template = rng.integers(plan.k, size=len(template.weight))
    parts: list[_Part] = []
    for f in range(plan.k if plan.k > 2 else 1):
        rows = labelled(_all_train(data.select(fold != f), rng), _all_train(template.select(of_template != f), rng))
        model, _ = fit_best(plan.candidates, rows, plan.inputs, None, plan.seed + f, "permutation")
        left = template.select(of_template == f)
        calibrates = rng.permutation(len(left.weight)) < len(left.weight) // 2
        parts.append(
            (model.scores(left.x), np.ones(len(left.weight)), model.scores(data.select(fold == f).x), calibrates)
        )
    return [_excess(parts, eps) for eps in plan.efficiencies]


def _folds(data: Skim, plan: Permutations, number: int) -> Ints:
    """Return the folds of rows: of number 0 by the hash of events, of others at random, since their rows are not events."""
    if number:
        return np.random.default_rng([plan.seed, number, 2]).integers(plan.k, size=len(data.weight))
    return fold_of(plan.salt, plan.k, *(data.spectators[c] for c in ("run", "luminosityBlock", "event")))


def _all_train(rows: Skim, rng: np.random.Generator) -> Skim:
    return replace(rows, split=np.where(rng.random(len(rows.weight)) < 0.75, "train", "validation"))


class PseudoData(NamedTuple):
    """What searches of pseudo-data need: the tasks of a window, its rows, and a template of its background.

    Attributes
    ----------
    tasks : tuple of Task
        Of all folds.
    skims : {role: Skim}
        As they were searched; the signal region of "data" is replaced.
    template : Skim
        Rows that the pseudo-data are drawn from, with replacement.
    efficiencies : tuple of float
    seed : int
    """

    tasks: tuple[Task, ...]
    skims: dict[Role, Skim]
    template: Skim
    efficiencies: tuple[float, ...]
    seed: int


def pseudo_excesses(plan: PseudoData, number: int) -> list[Excess]:
    """Search pseudo-data without signal by the whole chain, every density and every classifier trained again.

    The signal region gets as many rows as it has, Poisson distributed, drawn from the template; the sidebands are those of the
    data, drawn again with replacement.
    """
    rng = np.random.default_rng([plan.seed, number])
    data, window = plan.skims["data"], plan.tasks[0].window
    mass = mass_of(data, window.mass)
    n = int(rng.poisson(window.in_signal_region(mass).sum()))
    weight = plan.template.weight / plan.template.weight.sum()
    drawn = plan.template.select(rng.choice(len(weight), n, p=weight))
    beside = np.flatnonzero(window.in_sidebands(mass))
    beside = rng.choice(beside, int(rng.poisson(len(beside))))
    x = np.concatenate([np.asarray(drawn.x[:]), np.asarray(data.x[beside])])
    others = {k: np.zeros(len(x), v.dtype) for k, v in data.spectators.items() if k not in EVENT_ID}
    pseudo = data.replaced(x, dataset="pseudo-data", spectators=others, seed=plan.seed)
    members = [train_member(task, {**plan.skims, "data": pseudo}) for task in plan.tasks]
    return excess_of(members, plan.efficiencies)


def calibrated_p(observed: float, null: Sequence[float]) -> tuple[float, float]:
    """Return the p-value of a statistic among those without signal, (1 + number at least as large) / (1 + all), with its error.

    Raises
    ------
    ConfigError
        There are none.

    Examples
    --------
    >>> calibrated_p(2.0, [0.1, 1.0, 3.0])[0]
    0.5
    """
    values = np.asarray([v for v in null if np.isfinite(v)], np.float64)
    if not len(values):
        raise ConfigError("a p-value cannot be calibrated without statistics of data that hold no signal")
    p = float((1 + (values >= observed).sum()) / (1 + len(values)))
    return p, float(np.sqrt(p * (1 - p) / len(values)))
