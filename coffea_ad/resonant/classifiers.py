"""Data against a template: the classifier of a method, by its settings."""

from __future__ import annotations

from dataclasses import replace
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
from coffea_ad.resonant.settings import ClassifierConfig
from coffea_ad.skims.skim import Skim

__all__ = ["fit_classifier", "labelled"]


def labelled(signal_like: Skim, background_like: Skim, seed: int) -> Skim:
    """Join rows that are to be told apart, with the labels 1 and 0; only those that train or validate.

    Rows of a template are divided into "train" and "validation" like the data.

    Parameters
    ----------
    signal_like, background_like : Skim
        Data of the signal region, and a template. A template that is generated has no test rows to keep back.
    seed : int
        Of how the template is divided.
    """
    ones = signal_like.splits("train", "validation")
    share = float((ones.split == "train").mean()) if len(ones.split) else 0.75
    if background_like.provenance.get("generated"):
        rng = np.random.default_rng(seed)
        split = np.where(rng.random(len(background_like.split)) < share, "train", "validation")
        zeros = replace(background_like, split=split)
    else:
        zeros = background_like.splits("train", "validation")
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
