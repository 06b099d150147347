"""Tagger: features + scorer + regions. The three lines that go into anybody's processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np

from coffea_ad import features
from coffea_ad.errors import CoffeaADError, ConfigError
from coffea_ad.files.names import is_name
from coffea_ad.nanoaod.objects import Objects, refuse_other
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.members import join
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.streaming import _folds, _spectator, asked_for_by, prepared_of, scores_of, windows_of
from coffea_ad.typing import Float32s

__all__ = ["Tagger", "tag"]

from coffea_ad.scoring.score_cache import Key


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
    threads, providers, batch
        Of the runtime, as for `OnnxScorer`.

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

    def __init__(
        self,
        model: str | Path | bytes,
        name: str = "ad",
        collection: str | None = None,
        *,
        threads: int = 1,
        providers: tuple[str, ...] = ("CPUExecutionProvider",),
        batch: int = 1024,
    ) -> None:
        self._registered = features.Registered()  # travels with the tagger, also without our own runner
        self.scorer = OnnxScorer(model, batch=batch, threads=threads, providers=providers)
        if not is_name(name):
            raise ConfigError(f"{name!r} cannot name a tagger: letters, digits and . _ + - only")
        self.name = name
        card = self.scorer.card
        self.card: ModelCard = card if collection is None else card.model_copy(update={"collection": collection})
        try:
            self.card.check()
        except CoffeaADError as error:
            raise type(error)(f"{self.scorer.name}: {error}") from None
        self._features: dict[str, list[Key]] = {
            spec.name: [(f.name, features.get(f.name).resolve(f.options).model_dump_json()) for f in spec.features]
            for spec in card.inputs
        }

    @property
    def collection(self) -> str:
        """The collection that is scored."""
        return self.card.collection

    @property
    def target(self) -> str:
        """What is scored: the collection, or whole events."""
        return self.collection if self.card.level == "jet" else "whole events"

    def rows(self, events: Any) -> dict[str, Float32s]:
        """Compute the model's inputs for events or objects, {input: (n, *shape) float32}, all at once."""
        objects = _objects(events, self.card)
        prepared = prepared_of(objects, [self])
        return self.inputs({key: rows(0, len(objects)) for key, rows in prepared.items()})

    def __call__(self, events: Any) -> Any:
        """Score events, or any mask, slice, `[:, 0]` or re-sort of the collection.

        Features read the passed objects' own fields, so systematic variations made with `ak.with_field` are scored as
        varied; constituents are not rescaled. Scores of a model that reads no such field are kept within the chunk.

        Parameters
        ----------
        events : ak.Array
            NanoEvents, or objects of the card's collection.

        Returns
        -------
        ak.Array
            The objects (the events, for an event-level model) with `{name}_score` (float32, higher = more anomalous; NaN
            where undefined), `{name}_logp` (float32; NaN where undefined, or without a calibration) and `{name}_region`
            (int8, number of thresholds passed; −1 where undefined). Outside of the card's domain or windows all are
            undefined.

        Raises
        ------
        MissingBranch, MissingIndex
        ConfigError
            A spectator of the card is neither a field of the objects nor of the events.
        """
        return tag(events, [self])

    def outside(self, events: Any) -> Any:
        """Say which objects have no score because the model is not valid there, by its domain or windows.

        Parameters
        ----------
        events : ak.Array
            What is tagged.

        Returns
        -------
        ak.Array of bool, or None
            In the shape of the objects, with an undefined spectator among those outside. None for a model without a domain.
        """
        if not self.card.validity:
            return None
        objects = _objects(events, self.card)
        window = windows_of(objects, self.card)
        return objects.restore(np.asarray(window) < 0)

    @property
    def keys(self) -> list[Key]:
        """Name and options of the features."""
        return [key for keys in self._features.values() for key in keys]

    def inputs(self, rows: Mapping[Key, Float32s]) -> dict[str, Float32s]:
        """Put the rows of features side by side as the model takes them."""
        out = {}
        for spec in self.card.inputs:
            parts = [rows[key] for key in self._features[spec.name] if key in rows]
            empty = np.zeros((0, *spec.shape), np.float32)
            out[spec.name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1) if parts else empty
        return out

    def __repr__(self) -> str:
        """Name the model, what it scores, and the prefix of its fields."""
        return f"Tagger({self.card.name!r} scores {self.target}, name={self.name!r}, model={self.scorer.name!r})"

    def fields(self, objects: Objects, score: Float32s) -> dict[str, Any]:
        """Return the new fields: the scores, and what the card makes of them.

        There are no option types: None would pass a mask such as `ad_region >= 1` as an object.
        """
        card = self.card
        spectators = {r.spectator: _spectator(objects, card, r.spectator) for r in card.regions if r.spectator}
        several = len(card.calibrations) > 1
        members = join(card, windows_of(objects, card), _folds(objects, card)) if several else None
        values = regions.card_logp(card, score, members)
        grade = regions.assign(values, card.regions, spectators)
        return {f"{self.name}_score": score, f"{self.name}_logp": values, f"{self.name}_region": grade}


def tag(events: Any, taggers: Sequence[Tagger]) -> Any:
    """Score with several models at once; a feature that more than one of them takes is computed once.

    Parameters
    ----------
    events : ak.Array
        NanoEvents, or any mask, slice, `[:, 0]` or re-sort of the taggers' collection.
    taggers : sequence of Tagger
        Of the same collection, or all of whole events, each with a name of its own.

    Returns
    -------
    ak.Array
        The objects with the fields of all taggers, as `Tagger` gives them one by one.

    Raises
    ------
    ConfigError
        The taggers do not go together.
    MissingBranch, MissingIndex

    Examples
    --------
    >>> from coffea.nanoevents import NanoEventsFactory
    >>> import coffea_ad as ad
    >>> events = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=ad.NanoAODSchema).events()
    >>> jets = ad.tag(events, [ad.Tagger(model_file), ad.Tagger(model_file, name="other")])
    >>> [field for field in jets.fields if field.endswith("_score")]
    ['ad_score', 'other_score']
    """
    taggers = _several(taggers)
    _go_together(taggers)
    refuse_other(events)
    card = taggers[0].card
    if card.level == "jet" and len(events) == 0 and not {card.collection, "pt"} & set(ak.fields(events)):
        return _nothing(taggers)
    with asked_for_by(taggers, events):
        objects = _objects(events, card)
    columns: dict[str, Any] = {}
    for tagger, score in zip(taggers, scores_of(objects, taggers), strict=True):
        with asked_for_by([tagger], events):
            columns |= tagger.fields(objects, score)
    return objects.with_fields(columns)


def _several(taggers: Any) -> tuple[Tagger, ...]:
    """Return taggers as a tuple, if they are some."""
    listed = tuple(taggers) if isinstance(taggers, Iterable) and not isinstance(taggers, str | ak.Array) else (taggers,)
    if not isinstance(taggers, Tagger) and all(isinstance(tagger, Tagger) for tagger in listed):
        return listed
    wrong = taggers if isinstance(taggers, Tagger) else next(t for t in listed if not isinstance(t, Tagger))
    raise ConfigError(
        f"tag(events, taggers) takes a list of taggers, such as [ad.Tagger('model.onnx')], not a {type(wrong).__name__}"
        + (" alone" if isinstance(taggers, Tagger) else "")
    )


def _go_together(taggers: Sequence[Tagger]) -> None:
    if not taggers:
        raise ConfigError("tag needs at least one tagger")
    first = taggers[0]
    for i, tagger in enumerate(taggers):
        if tagger.target != first.target:
            raise ConfigError(
                f"{first.card.name} scores {first.target} and {tagger.card.name} scores {tagger.target}: call tag for "
                "each by itself"
            )
        if tagger.name in {other.name for other in taggers[:i]}:
            raise ConfigError(f"two taggers are called {tagger.name!r} and would write the same fields")


def _nothing(taggers: Sequence[Tagger]) -> Any:
    """Return the answer for no events at all: such files may lack every branch."""
    types = {"score": np.float32, "logp": np.float32, "region": np.int8}
    fields = {f"{t.name}_{field}": np.zeros(0, dtype) for t in taggers for field, dtype in types.items()}
    return ak.unflatten(ak.zip({"pt": np.zeros(0, np.float32), **fields}), np.zeros(0, np.int64))


def _objects(events: Any, card: ModelCard) -> Objects:
    if isinstance(events, Objects):
        return events
    return Objects.events(events) if card.level == "event" else Objects.of(events, card.collection)
