"""One direction of an evaluation: models that were trained on one process, and look for others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.baselines import baselines, ceiling, column_baselines
from coffea_ad.evaluation.comparison import evaluate
from coffea_ad.evaluation.matching import match_spectrum
from coffea_ad.evaluation.processes import Process
from coffea_ad.evaluation.record import Evaluation, Sample
from coffea_ad.evaluation.simple_anomalies import core_and_narrow
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.typing import Bools, Float64s

__all__ = ["TWINS", "Direction", "Options"]

Score = Callable[[npt.NDArray[Any]], Float64s]
TWINS = ("core", "narrow")
"""Signals that are made of background rows."""
_CEILING = "supervised ceiling"


@dataclass(frozen=True)
class Options:
    """What is compared: rows, spectators, and the arguments of `evaluate`."""

    splits: tuple[str, ...]
    mass: str | None
    match: str | None
    with_baselines: bool
    settings: Mapping[str, Any]
    seed: int
    filters: tuple[Any, ...] = ()


def _sample(process: Process, mask: Bools, scores: Mapping[str, Any], options: Options) -> Sample:
    pt, mass = (process.spectator(n) if n else None for n in (options.match, options.mass))
    return Sample(
        scores,
        process.rows.event_weight[mask],
        None if pt is None else pt[mask],
        None if mass is None else mass[mask],
        process.event[mask],
    )


def _defined(score: Score, x: npt.NDArray[Any]) -> Float64s:
    out = np.full(len(x), np.nan)
    keep = np.isfinite(x).all(axis=1)
    if keep.any():
        out[keep] = score(x[keep])
    return out


class Direction:
    """Models that were trained on one process, and look for others."""

    def __init__(
        self, models: Mapping[str, Sequence[OnnxScorer]], background: Process, signals: Mapping[str, Process],
        options: Options,
    ) -> None:  # fmt: skip
        self.models, self.background, self.signals, self.options = models, background, signals, options
        self.reference = next(iter(models.values()))[0]
        self.evaluated = background.in_splits(*options.splits)
        self.notes: list[str] = []

    def evaluate(self) -> Evaluation:
        """Return the rows of models and baselines, of the ceiling, and of the anomalies made of background."""
        b = _sample(self.background, self.evaluated, self._scores(self.background, self.evaluated), self.options)
        signals = {
            name: _sample(p, p.in_splits(), self._scores(p, p.in_splits()), self.options)
            for name, p in self.signals.items()
        }
        fitted = self._fitted()
        b = replace(b, scores={**b.scores, **self._baselines(fitted, self.background, self.evaluated)})
        signals = {
            name: replace(
                s, scores={**s.scores, **self._baselines(fitted, self.signals[name], self.signals[name].in_splits())}
            )
            for name, s in signals.items()
        }
        evaluation = evaluate(b, signals, **self.options.settings)
        if self.options.with_baselines:
            for name in self.signals:
                evaluation = self._with_ceiling(evaluation, name)
        twins = self._twins(fitted)
        if twins:
            plain = replace(b, pt=None, mass=None)
            evaluation = evaluation.joined(evaluate(plain, twins, **self.options.settings))
        return replace(evaluation, notes=(*self.notes, *evaluation.notes))

    def _scores(self, process: Process, mask: Bools) -> dict[str, npt.NDArray[Any]]:
        out = {}
        for label, scorers in self.models.items():
            each = [process.score(m, process.inputs(m.card, m.name), mask) for m in scorers]
            out[label] = np.stack(each) if len(each) > 1 else each[0]
        return out

    def _flat(self, process: Process, mask: Bools) -> npt.NDArray[Any]:
        inputs = process.inputs(self.reference.card, self.reference.name).values()
        return np.concatenate([x[mask].reshape(int(mask.sum()), -1) for x in inputs], axis=1)

    def _training(self, process: Process) -> tuple[npt.NDArray[Any], Float64s, Bools]:
        """Return the defined rows of the training split, their weights, and which they are."""
        training = process.rows.split == "train"
        x = self._flat(process, training)
        keep = np.isfinite(x).all(axis=1)
        training[training] = keep
        weight = process.rows.event_weight[training]
        if (weight < 0).any():
            self.notes.append(
                f"{', '.join(process.datasets)}: baselines and ceilings are fitted without the {int((weight < 0).sum())} "
                "training rows of negative weight"
            )
        return x[keep], weight, training

    def _fitted(self) -> dict[str, Score]:
        if not self.options.with_baselines:
            return {}
        try:
            return baselines(*self._training(self.background)[:2], seed=self.options.seed)
        except ConfigError as error:
            self.notes.append(f"{', '.join(self.background.datasets)}: {error}")
            return {}

    def _columns(self) -> tuple[str, ...]:
        spec = self.reference.card.inputs[0]
        return spec.columns if len(self.reference.card.inputs) == 1 and len(spec.shape) == 1 else ()

    def _baselines(
        self, fitted: Mapping[str, Score], process: Process,
        mask: Bools, x: npt.NDArray[Any] | None = None,
    ) -> dict[str, Float64s]:  # fmt: skip
        """Score rows with baselines; rows that were made, `x`, have no spectators."""
        if not self.options.with_baselines:
            return {}
        others = {} if x is not None else {k: v[mask] for k, v in process.rows.spectators.items()}
        flat = self._flat(process, mask) if x is None else x
        single = column_baselines(flat, self._columns(), others, level=self.reference.card.level)
        return {**single, **{name: _defined(score, flat) for name, score in fitted.items()}}

    def _with_ceiling(self, evaluation: Evaluation, name: str) -> Evaluation:
        """Add classifiers of one signal: trained on training rows, evaluated on test rows of both."""
        signal = self.signals[name]
        try:
            trained, samples = self._ceilings(signal), []
            for process in (self.background, signal):
                test = process.in_splits("test")
                scores = {label: _defined(score, self._flat(process, test)) for label, score in trained.items()}
                samples.append(replace(_sample(process, test, scores, self.options), mass=None))
        except ConfigError as error:
            return replace(evaluation, notes=(*evaluation.notes, f"{name}: {error}"))
        return evaluation.joined(evaluate(samples[0], {name: samples[1]}, **self.options.settings))

    def _ceilings(self, signal: Process) -> dict[str, Score]:
        """Train with the weights as they are, and at equal spectra, where the first is no ceiling."""
        (b, wb, of_b), (s, ws, of_s) = self._training(self.background), self._training(signal)
        weights = {_CEILING: (wb, ws)}
        spectra = [p.spectator(self.options.match) if self.options.match else None for p in (self.background, signal)]
        if spectra[0] is not None and spectra[1] is not None and (ws > 0).any():
            positive = np.maximum(wb, 0.0), np.maximum(ws, 0.0)
            weights[f"{_CEILING}, equal spectra"] = match_spectrum(spectra[0][of_b], spectra[1][of_s], *positive)
        return {label: ceiling(b, s, *pair, seed=self.options.seed) for label, pair in weights.items()}

    def _twins(self, fitted: Mapping[str, Score]) -> dict[str, Sample]:
        """Score the low-complexity anomalies that are made of the evaluated background rows."""
        train = self.background.rows.split == "train"
        scores: dict[str, dict[str, Any]] = {name: {} for name in TWINS}
        try:
            for label, scorers in self.models.items():
                each = [self._shrunk(m, train) for m in scorers]
                for name, by_label in scores.items():
                    stacked = [self._score_twins(m, x[name]) for m, x in zip(scorers, each, strict=True)]
                    by_label[label] = np.stack(stacked) if len(stacked) > 1 else stacked[0]
            shrunk = self._shrunk(self.reference, train)
        except ConfigError as error:
            self.notes.append(f"no low-complexity anomalies: {error}")
            return {}
        for name, by_label in scores.items():
            x = next(iter(shrunk[name].values()))
            by_label.update(self._baselines(fitted, self.background, self.evaluated, x))
        weight, event = self.background.rows.event_weight[self.evaluated], self.background.event[self.evaluated]
        return {name: Sample(by_label, weight, event=event) for name, by_label in scores.items()}

    def _shrunk(self, model: OnnxScorer, train: Bools) -> dict[str, dict[str, npt.NDArray[Any]]]:
        inputs = self.background.inputs(model.card, model.name)
        if len(inputs) > 1:
            raise ConfigError(f"{model.name} has several inputs, and only flat rows of one input have simpler twins")
        ((name, x),) = inputs.items()
        usable = train & np.isfinite(x.reshape(len(x), -1)).all(axis=1)
        twins = core_and_narrow(x[self.evaluated], x[usable], self.background.rows.event_weight[usable])
        return {kind: {name: rows} for kind, rows in twins.items()}

    def _score_twins(self, model: OnnxScorer, inputs: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """Score rows that were made of the evaluated ones, by the members that score those."""
        everywhere = {k: np.full((len(self.evaluated), *v.shape[1:]), np.nan, np.float32) for k, v in inputs.items()}
        for k, v in inputs.items():
            everywhere[k][self.evaluated] = v
        return self.background.score(model, everywhere, self.evaluated)
