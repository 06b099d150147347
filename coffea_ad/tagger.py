"""Tagger: features + scorer + regions. The three lines that go into anybody's processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad import features, regions
from coffea_ad.card import ModelCard
from coffea_ad.errors import CoffeaADError, MissingBranch
from coffea_ad.nanoaod import Objects, refuse_single, where
from coffea_ad.scoring import OnnxScorer

__all__ = ["Tagger"]


class Tagger:
    """Applies a model file to NanoAOD events.

    The model knows its inputs: the card names the features, and the same code that made the training's skim computes
    them here.

    Parameters
    ----------
    model : path or bytes
        An ONNX file with a card.
    name : str
        Prefix of the new fields, so that several taggers live side by side.
    collection : str, optional
        Another collection than the card's.

    Raises
    ------
    BadModel, CardMismatch

    Examples
    --------
    >>> from coffea.nanoevents import NanoEventsFactory
    >>> import coffea_ad as ad
    >>> events = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=ad.NanoAODSchema).events()
    >>> tagger = ad.Tagger(model_file)
    >>> jets = tagger(events)
    >>> [field for field in jets.fields if field.startswith("ad_")]
    ['ad_score', 'ad_logp', 'ad_region']
    """

    def __init__(self, model: str | Path | bytes, name: str = "ad", collection: str | None = None) -> None:
        self.scorer = OnnxScorer(model)
        self.name = name
        card = self.scorer.card
        self.card: ModelCard = card if collection is None else card.model_copy(update={"collection": collection})
        try:
            self.card.check()
        except CoffeaADError as error:
            raise type(error)(f"{self.scorer.name}: {error}") from None

    @property
    def collection(self) -> str:
        """The collection that is scored."""
        return self.card.collection

    def rows(self, objects: Any) -> dict[str, npt.NDArray[np.float32]]:
        """Compute the model's inputs for events or objects, {input: (n, columns) float32}."""
        return {
            spec.name: np.concatenate(
                [features.compute(f.name, objects, self.collection, **f.options)[0] for f in spec.features], axis=1
            )
            for spec in self.card.inputs
        }

    def __call__(self, events: Any) -> Any:
        """Score events, or any mask, slice, `[:, 0]` or re-sort of the collection.

        Features read the passed objects' own fields, so systematic variations made with `ak.with_field` are scored as
        varied; constituents are not rescaled.

        Parameters
        ----------
        events : ak.Array
            NanoEvents, or objects of the card's collection.

        Returns
        -------
        ak.Array
            The objects (the events, for an event-level model) with `{name}_score` (float32, higher = more anomalous),
            `{name}_logp` (float32) and `{name}_region` (int8, number of thresholds passed); None where undefined.

        Raises
        ------
        MissingBranch, MissingIndex
        """
        refuse_single(events)
        if self.card.level == "event":
            return self._decorate(events, self._score(self.rows(events)), lambda values: values, {})
        if len(events) == 0 and self.collection not in ak.fields(events) and "pt" not in ak.fields(events):
            return self._nothing()
        try:
            objects = Objects.of(events, self.collection)
            rows = self.rows(objects)
        except MissingBranch as error:
            prefix = where(events)
            text = str(error).removeprefix(prefix)
            raise MissingBranch(f"{prefix}{text} (asked for by {self.card.name})") from None
        bystanders = {r.bystander: objects.field(r.bystander) for r in self.card.regions if r.bystander}
        return self._decorate(objects.array, self._score(rows), objects.restore, bystanders)

    def _score(self, rows: dict[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        return self.scorer.numpy_call(rows)

    def _decorate(
        self, array: Any, score: npt.NDArray[np.float32], restore: Any, bystanders: dict[str, npt.NDArray[Any]]
    ) -> Any:
        values = regions.logp(self.card.calibration, score)
        grade = regions.assign(values, self.card.regions, bystanders)
        out = array
        for field, column in (("score", score), ("logp", values)):
            out = ak.with_field(out, ak.nan_to_none(restore(column)), f"{self.name}_{field}")
        shaped = ak.Array(restore(grade))
        return ak.with_field(out, ak.mask(shaped, shaped >= 0), f"{self.name}_region")

    def _nothing(self) -> Any:
        """Return the answer for no events at all: such files may lack every branch."""
        row = ak.zip(
            {
                "pt": np.zeros(0, np.float32),
                f"{self.name}_score": np.zeros(0, np.float32),
                f"{self.name}_logp": np.zeros(0, np.float32),
                f"{self.name}_region": np.zeros(0, np.int8),
            }
        )
        return ak.unflatten(row, np.zeros(0, np.int64))
