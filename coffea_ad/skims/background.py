"""Which rows of a skim are a model's background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.scoring.card import ModelCard
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim

__all__ = ["background", "background_datasets", "model_rows", "rows_in_words"]


def background_datasets(card: ModelCard, asked: Sequence[str], available: Sequence[str]) -> list[str]:
    """Return what counts as a model's background: what is asked for, or else what it was trained on.

    Raises
    ------
    ConfigError
        It is not clear.
    """
    if asked:
        return list(asked)
    trained = sorted(card.provenance.get("rows", {}))
    if trained and set(trained) <= set(available):
        return trained
    if len(available) == 1:
        return list(available)
    raise ConfigError(f"say which datasets are the background with --datasets; there are: {', '.join(available)}")


def background(
    card: ModelCard, folder: str | Path, datasets: Sequence[str] = (), splits: Sequence[str] = ("validation",)
) -> Skim:
    """Return the rows of a skim that are a model's background: what calibrates it, and gives its regions.

    Validation rows do, as in the training: the model has not learned from training rows that way, and test rows are for
    evaluation alone. Of a cross-trained model all rows do, since the member that scores a row has not seen it, and of a model
    from elsewhere too, since nothing is known of its training. Only rows inside the model's domain or windows count.

    Parameters
    ----------
    card : ModelCard
        Of one input; says features, filters, datasets and domain.
    folder : path
        A skim.
    datasets : sequence of str
        What the model was trained on by default.
    splits : sequence of str
        Other ones: "train", "validation", "test".

    Returns
    -------
    Skim
        `x` has the features of the model's input side by side; rows may be `rows.Rows`.

    Raises
    ------
    ConfigError, SkimError
        It is not clear what the background is, or the skim does not hold it.
    """
    names = background_datasets(card, datasets, sorted(skim_files(folder)))
    every = model_rows(card, folder, names)
    if card.folds is not None or "rows" not in card.provenance:
        return every
    some = every.splits(*splits)
    if not len(some.x):
        raise SkimError(f"{folder}: {', '.join(names)} has no {' or '.join(splits)} rows")
    return some


def model_rows(card: ModelCard, folder: str | Path, datasets: Sequence[str]) -> Skim:
    """Return the inputs of a model, of one input, for all rows of datasets that it could have been trained on, where it is valid.

    Raises
    ------
    ConfigError, SkimError
        The skim does not hold them.
    """
    filters, weights = card.provenance.get("filters", ()), card.provenance.get("weights", "xsec")
    parts = [
        load_skim(
            folder, f.name, f.options, datasets=datasets, filters=filters, keep="auto",
            weights="none" if weights == "none" else "xsec",
        )
        for f in card.inputs[0].features
    ]  # fmt: skip
    if len({len(p.x) for p in parts}) != 1:
        raise ConfigError(f"{folder}: the features of {card.name} are not defined on the same rows")
    first = parts[0]
    rows = first if len(parts) == 1 else replace(first, x=np.concatenate([np.asarray(p.x) for p in parts], axis=1))
    return _valid_rows(card, rows, folder)


def spectator(card: ModelCard, skim: Skim, name: str, folder: str | Path) -> npt.NDArray[Any]:
    """Return a column of a skim that a model's domain, windows, thresholds or folds need.

    Raises
    ------
    SkimError
        There is no such column.
    """
    if name not in skim.spectators:
        raise SkimError(
            f"{folder}: {card.name} needs the spectator {name!r}, but " + unknown_text("column", name, skim.spectators)
        )
    return skim.spectators[name]


def _valid_rows(card: ModelCard, skim: Skim, folder: str | Path) -> Skim:
    """Return the rows inside a model's domain or windows."""
    window = card.window_of(lambda name: spectator(card, skim, name, folder))
    if window is None:
        return skim
    if not (window >= 0).any():
        raise SkimError(f"{folder}: no row lies where {card.name} is valid: {card.validity}")
    inside = skim.select(window >= 0)
    if "total_weight" not in skim.provenance:
        return inside
    part = float(inside.event_weight.sum() / skim.event_weight.sum())
    return replace(inside, provenance={**skim.provenance, "total_weight": part * skim.provenance["total_weight"]})


def rows_in_words(card: ModelCard, skim: Skim, splits: Sequence[str] = ("validation",)) -> str:
    """Say which rows `background` returned and how they are weighted, for the card."""
    which = "out-of-fold" if card.folds is not None else " and ".join(splits) if "rows" in card.provenance else "all"
    weighted = skim.provenance.get("event_weight", "their own weights")
    where = f" with {card.validity}" if card.validity else ""
    return f"{which} rows of {', '.join(sorted(set(skim.dataset.tolist())))}{where}, each weighing {weighted}"
