"""Data against a template: the classifier of a method, by its settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

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

__all__ = ["Classified", "fit_classifier", "labelled"]


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
        """Fit the classifier of the settings."""
        return fit_classifier(
            self.settings.classifier, rows, self.inputs(rows), self.folder / "classifier", self.seed, self.title
        )


def labelled(signal_like: Skim, background_like: Skim) -> Skim:
    """Join the "train" and "validation" rows of two samples that are to be told apart, with the labels 1 and 0."""
    ones, zeros = (rows.splits("train", "validation") for rows in (signal_like, background_like))
    return ones.labelled(np.ones(len(ones.weight), bool)).joined(zeros.labelled(np.zeros(len(zeros.weight), bool)))


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
