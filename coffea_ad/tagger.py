"""Tagger: features + scorer + regions. The three lines that go into anybody's processor."""

from __future__ import annotations

import math
from collections.abc import Callable
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


_BLOCK_BYTES = 8_000_000  # of the widest input: what stays in a cache


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

    def rows(self, events: Any) -> dict[str, npt.NDArray[np.float32]]:
        """Compute the model's inputs for events or objects, {input: (n, *shape) float32}, all at once."""
        objects = self._objects(events)
        return self._reader(objects)(0, len(objects))

    def _objects(self, events: Any) -> Objects:
        if isinstance(events, Objects):
            return events
        return Objects.events(events) if self.card.level == "event" else Objects.of(events, self.collection)

    def _reader(self, objects: Objects) -> Callable[[int, int], dict[str, npt.NDArray[np.float32]]]:
        """Prepare the features of a chunk, and return a function that gives the inputs of some rows."""
        prepared: dict[str, list[features.Rows]] = {}
        if len(objects) > 0:  # a file without events may lack every branch
            for spec in self.card.inputs:
                table = [features.get(f.name) for f in spec.features]
                prepared[spec.name] = [
                    feature.prepare(objects, feature.resolve(f.options))
                    for f, feature in zip(spec.features, table, strict=True)
                ]

        def read(start: int, stop: int) -> dict[str, npt.NDArray[np.float32]]:
            out = {}
            for spec in self.card.inputs:
                parts = [rows(start, stop) for rows in prepared.get(spec.name, ())]
                empty = np.zeros((0, *spec.shape), np.float32)
                out[spec.name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1) if parts else empty
            return out

        return read

    def _score(self, objects: Objects) -> npt.NDArray[np.float32]:
        """Stream the rows into the scorer, block by block: large features are never dense for a whole chunk."""
        read, n = self._reader(objects), len(objects)
        widest = max(math.prod(spec.shape) for spec in self.card.inputs)
        block = max(_BLOCK_BYTES // (4 * widest) // self.scorer.batch, 1) * self.scorer.batch
        score = np.empty(n, np.float32)
        for start in range(0, n, block):
            stop = min(start + block, n)
            score[start:stop] = self.scorer.numpy_call(read(start, stop))
        return score

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
        level = self.card.level
        if level == "jet" and len(events) == 0 and not {self.collection, "pt"} & set(ak.fields(events)):
            return self._nothing()
        try:
            objects = self._objects(events)
            score = self._score(objects)
            bystanders = {r.bystander: objects.field(r.bystander) for r in self.card.regions if r.bystander}
        except MissingBranch as error:
            prefix = where(events)
            text = str(error).removeprefix(prefix)
            raise MissingBranch(f"{prefix}{text} (asked for by {self.card.name})") from None
        values = regions.logp(self.card.calibration, score)
        grade = ak.Array(regions.assign(values, self.card.regions, bystanders))
        columns = {"score": ak.nan_to_none(score), "logp": ak.nan_to_none(values), "region": ak.mask(grade, grade >= 0)}
        return objects.with_fields({f"{self.name}_{field}": column for field, column in columns.items()})

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
