"""Data against a template: the classifier of a method, by its settings."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coffea_ad.errors import SkimError, unknown_text
from coffea_ad.evaluation.argos import best_by_argos
from coffea_ad.nn.classifiers.bagged import BaggedTrees
from coffea_ad.nn.classifiers.mlp import MLP
from coffea_ad.nn.ensemble import Ensemble
from coffea_ad.nn.scorable import Scorable
from coffea_ad.nn.training.loop import TrainConfig, fit
from coffea_ad.nn.transforms.columns import Standard, Transform
from coffea_ad.nn.transforms.selected import Selected
from coffea_ad.resonant.method import Method
from coffea_ad.resonant.settings import ClassifierConfig
from coffea_ad.skims.skim import Skim

__all__ = ["Classified", "fit_best", "fit_classifier", "labelled"]

_TRAIN = 0.75


class Classified(Method):
    """A method whose score is that of a classifier, which tells data from rows of the template that it learns on."""

    title: str

    def prepare(self) -> None:
        """Learn what the template needs, before the classifier."""

    def ones(self) -> Skim:
        """Return the rows of label 1."""
        return self.signal_region

    def learn(self) -> Scorable:
        """Prepare the template, and learn the classifier."""
        self.prepare()
        return self.classify(labelled(self.ones(), self.rows(None, 1000 + self.seed, ("train", "validation"))))

    def classify(self, rows: Skim) -> Scorable:
        """Fit the classifier of the settings, or the best of its candidates."""
        model, metrics = fit_best(
            self.settings.tried, rows, self.inputs(rows), self.folder / "classifier", self.seed, self.title
        )
        self.metrics |= metrics
        return model


def labelled(signal_like: Skim, background_like: Skim) -> Skim:
    """Join the "train" and "validation" rows of two samples that are to be told apart, with the labels 1 and 0."""
    ones, zeros = (rows.splits("train", "validation") for rows in (signal_like, background_like))
    return ones.labelled(np.ones(len(ones.weight), bool)).joined(zeros.labelled(np.zeros(len(zeros.weight), bool)))


def fit_best(
    candidates: Sequence[ClassifierConfig], rows: Skim, inputs: tuple[str, ...], folder: Path | None, seed: int, method: str,
    *, transform: Transform | None = None,
) -> tuple[Scorable, dict[str, Any]]:  # fmt: skip
    """Fit several classifiers, and return the one that has learnt most, with what its card says of the selection.

    With more than one, all fit to the "train" rows alone, divided anew, and the largest ARGOS on the "validation" rows decides: these are of
    neither what is scored nor what calibrates, so that the selection is a part of the training, to be repeated with it.

    Parameters
    ----------
    candidates : sequence of ClassifierConfig
    rows, inputs, folder, seed, method, transform
        As for `fit_classifier`.

    Returns
    -------
    model : Scorable
    metrics : dict
        "argos", {number of the candidate: value}, and "candidate", the number of the selected one; nothing of a single one.

    Raises
    ------
    ConfigError
        The validation rows of the template are too few.
    """
    if len(candidates) == 1:
        return fit_classifier(candidates[0], rows, inputs, folder, seed, method, transform=transform), {}
    learns, held = rows.splits("train"), rows.splits("validation")
    again = np.random.default_rng([seed, 1]).random(len(learns.weight)) < _TRAIN
    learns = replace(learns, split=np.where(again, "train", "validation"))
    models = {
        str(i): fit_classifier(
            candidate, learns, inputs, folder and folder / f"candidate_{i}", seed, method, transform=deepcopy(transform)
        )
        for i, candidate in enumerate(candidates, start=1)
    }
    label = np.asarray(held.label)
    data, template = held.select(label == 1), held.select(label == 0)
    choice = best_by_argos(
        models, data.x[:], template.x[:], weight_signal_region=data.weight, weight_template=template.weight
    )
    return models[choice.name], {
        "argos": {name: value.value for name, value in choice.values.items()},
        "candidate": int(choice.name),
    }


def fit_classifier(
    settings: ClassifierConfig, rows: Skim, inputs: tuple[str, ...], folder: Path | None, seed: int, method: str,
    *, transform: Transform | None = None,
) -> Scorable:  # fmt: skip
    """Fit the classifier of a method to labelled rows.

    Parameters
    ----------
    settings : ClassifierConfig
    rows : Skim
        As `labelled` gives them.
    inputs : tuple of str
        The columns that it sees; it takes rows with all columns.
    folder : path
    seed : int
    method : str
        Name on the card.
    transform : Transform, optional
        mlp only: what it learns on, instead of standardised inputs.

    Raises
    ------
    SkimError
        One of the labels has no rows.
    """
    inputs = _of_candidate(settings, rows, inputs)
    if settings.kind != "mlp":
        return BaggedTrees.of(
            rows, inputs=inputs, members=settings.members, library=settings.kind, attributes=settings.attributes,
            seed=seed, method=method, **settings.options,
        )  # fmt: skip
    torch.manual_seed(seed)
    columns = rows.columns
    places = [columns.index(name) for name in inputs]
    before = transform or Selected(places, len(columns), Standard(len(inputs), names=inputs))
    model = MLP(len(inputs), hidden=settings.hidden, transform=before)
    n = int((rows.split == "train").sum())
    config = TrainConfig(
        epochs=settings.epochs, keep=min(settings.keep, settings.epochs), batch_size=256, samples_per_epoch=max(n, 2),
        validation_rows=20_000, seed=seed, device="cpu",
    )  # fmt: skip
    history = fit(model, rows, config, folder)
    return Ensemble.of_epochs(model, history)


def _of_candidate(settings: ClassifierConfig, rows: Skim, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns that a classifier sees: its own, if it names any."""
    for name in settings.inputs:
        if name not in rows.columns:
            raise SkimError("inputs: " + unknown_text("column", name, rows.columns))
    return settings.inputs or inputs
