"""Rows of a skim as several models want them: the same rows for all, undefined where a model's input is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError, SkimError, unknown_text
from coffea_ad.features.spec import FeatureSpec
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.members import member_of
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.background import spectator
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Bools, Float32s, Float64s, Ints

__all__ = ["Process"]

Inputs = dict[str, Float32s]
_KEYS = (*EVENT_ID, "objectIdx")


class Process:
    """Datasets of a skim, in the rows where the first input of a model is defined.

    Parameters
    ----------
    folder : path
        A skim.
    datasets : sequence of str
    model : OnnxScorer
        The one whose rows are taken; its card also says which rows it was trained on (`filters`).
    filters : sequence of (column, operator, value)
        Further conditions on the rows, as of `load_skim`.

    Raises
    ------
    SkimError
        The skim does not hold the datasets or the feature, or no row passes.
    """

    def __init__(
        self, folder: str | Path, datasets: Sequence[str], model: OnnxScorer, filters: Sequence[Any] = ()
    ) -> None:
        self.folder, self.datasets = Path(folder), tuple(datasets)
        self.filters = (*model.card.provenance.get("filters", ()), *filters)
        self.skims: dict[str, Skim] = {}
        self.places: dict[str, Ints | None] = {}
        self.rows = self._skim(model.card.inputs[0].features[0], model.name)
        self.event = np.unique(np.stack(self._ids(self.rows)[:-1], axis=1), axis=0, return_inverse=True)[1].reshape(-1)

    def _skim(self, spec: FeatureSpec, model: str) -> Skim:
        if spec.key not in self.skims:
            try:
                self.skims[spec.key] = load_skim(
                    self.folder, spec.name, spec.options, datasets=self.datasets, filters=self.filters
                )
            except SkimError as error:
                raise SkimError(f"{model} cannot be evaluated on this skim: {error}") from None
        return self.skims[spec.key]

    def _ids(self, skim: Skim) -> tuple[npt.NDArray[Any], ...]:
        dataset = np.searchsorted(np.sort(self.datasets), skim.dataset)
        keys = [skim.spectators[k] if k in skim.spectators else np.zeros(len(dataset)) for k in _KEYS]
        return dataset, *(np.asarray(k).astype(np.int64) for k in keys)

    def _places(self, skim: Skim) -> Ints | None:
        """Return where each row stands in another skim of the same datasets, −1 if it does not; None if all agree."""
        ids, other_ids = self._ids(self.rows), self._ids(skim)
        if all(np.array_equal(a, b) for a, b in zip(ids, other_ids, strict=True)):
            return None
        place = {row: i for i, row in enumerate(zip(*(a.tolist() for a in other_ids), strict=True))}
        return np.array([place.get(row, -1) for row in zip(*(a.tolist() for a in ids), strict=True)], np.int64)

    def inputs(self, card: ModelCard, name: str) -> Inputs:
        """Return the inputs of a model for all rows; NaN where one is undefined.

        Parameters
        ----------
        card : ModelCard
        name : str
            For messages.

        Raises
        ------
        SkimError
            The skim does not hold a feature.
        """
        out: Inputs = {}
        for spec in card.inputs:
            parts = []
            for feature in spec.features:
                skim = self._skim(feature, name)
                if feature.key not in self.places:
                    self.places[feature.key] = self._places(skim)
                places = self.places[feature.key]
                x = skim.x if places is None else skim.x[places]
                if places is not None:
                    x[places < 0] = np.nan
                parts.append(x)
            out[spec.name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        return out

    def score(self, model: OnnxScorer, inputs: Inputs, mask: Bools) -> Float32s:
        """Score some rows: each by the member of its window that never saw it, and none where the model is not valid."""
        members = member_of(model.card, lambda name: spectator(model.card, self.rows, name, self.folder)[mask])
        return np.asarray(model({name: x[mask] for name, x in inputs.items()}, members))

    def in_splits(self, *splits: str) -> Bools:
        """Say which rows are in some splits; all without a name.

        Raises
        ------
        ConfigError
            There is no such split, or it has no row with a positive weight.
        """
        known = ("train", "validation", "test")
        for name in splits:
            if name not in known:
                raise ConfigError(unknown_text("split", name, known))
        mask = np.isin(self.rows.split, splits) if splits else np.ones(len(self.rows.x), bool)
        if not (self.rows.event_weight[mask] > 0).any():
            raise ConfigError(
                f"{self.folder}: {', '.join(self.datasets)} has no {' or '.join(splits) or 'row'} rows with a positive weight"
            )
        return np.asarray(mask)

    def spectator(self, name: str) -> Float64s | None:
        """Return a spectator for all rows, or None if the skim has no such column."""
        values = self.rows.spectators.get(name)
        return None if values is None else np.asarray(values, np.float64)
