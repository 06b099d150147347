"""Tagger: features + scorer + regions. The three lines that go into anybody's processor.

`tag` is where it happens, for one tagger or several: features that they share are computed once, block by block, so that
large ones are never dense for a whole chunk; scores that cannot have changed are kept within the chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad import features, regions
from coffea_ad.card import ModelCard
from coffea_ad.errors import BadFeature, CoffeaADError, ConfigError, MissingBranch
from coffea_ad.files import is_name
from coffea_ad.members import join
from coffea_ad.monitoring import watch
from coffea_ad.nanoaod import EVENT_ID, Constituents, Objects, refuse_other, where
from coffea_ad.scoring import OnnxScorer
from coffea_ad.splits import fold_of, numbers
from coffea_ad.typing import Float32s, Float64s, Ints

__all__ = ["Tagger", "tag"]

_BLOCK_BYTES = 8_000_000  # of the widest input: what stays in a cache

Key = tuple[str, str]  # name and options: what makes a feature the same for two models


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
        prepared = _prepare(objects, [self])
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
        window = _windows(objects, self.card)
        return objects.restore(np.asarray(window) < 0)

    @property
    def keys(self) -> list[Key]:
        """Name and options of the features."""
        return [key for keys in self._features.values() for key in keys]

    def inputs(self, made: Mapping[Key, Float32s]) -> dict[str, Float32s]:
        """Put the rows of features side by side as the model takes them."""
        out = {}
        for spec in self.card.inputs:
            parts = [made[key] for key in self._features[spec.name] if key in made]
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
        members = join(card, _windows(objects, card), _folds(objects, card)) if several else None
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
    with _asked_for_by(taggers, events):
        objects = _objects(events, card)
    columns: dict[str, Any] = {}
    for tagger, score in zip(taggers, _scores(objects, taggers), strict=True):
        with _asked_for_by([tagger], events):
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


@contextmanager
def _asked_for_by(taggers: Sequence[Tagger], events: Any) -> Iterator[None]:
    """Say in the error of a missing branch which file it is, and which models need it."""
    try:
        yield
    except MissingBranch as error:
        prefix = where(events)
        names = ", ".join(dict.fromkeys(t.card.name for t in taggers))
        raise MissingBranch(f"{prefix}{str(error).removeprefix(prefix)} (asked for by {names})") from None


def _nothing(taggers: Sequence[Tagger]) -> Any:
    """Return the answer for no events at all: such files may lack every branch."""
    types = {"score": np.float32, "logp": np.float32, "region": np.int8}
    fields = {f"{t.name}_{field}": np.zeros(0, dtype) for t in taggers for field, dtype in types.items()}
    return ak.unflatten(ak.zip({"pt": np.zeros(0, np.float32), **fields}), np.zeros(0, np.int64))


def _objects(events: Any, card: ModelCard) -> Objects:
    if isinstance(events, Objects):
        return events
    return Objects.events(events) if card.level == "event" else Objects.of(events, card.collection)


@dataclass(frozen=True)
class _Unvaried(Objects):
    """Objects without fields of their own: what is computed from them is the same for all variations of the objects."""

    whole: Objects
    feature: str

    @cached_property
    def constituents(self) -> Constituents:
        """Those of the objects, gathered once for both."""
        return self.whole.constituents

    def field(self, name: str) -> npt.NDArray[Any]:
        """Refuse: a feature that takes what may vary has to say so."""
        raise BadFeature(f"feature {self.feature} takes {self.collection}_{name}, which it does not declare as read")


def _unvaried(objects: Objects, feature: str) -> Objects:
    alone = objects.at(np.arange(len(objects)))
    return _Unvaried(
        alone.collection, alone.array, alone.source, alone.event, alone.index, objects, feature, known=True
    )  # fmt: skip


def _tables(key: Key, collection: str) -> set[str] | None:
    """Return the collections that a feature reads, or None if fields of the objects themselves are among them."""
    feature = features.get(key[0])
    alternatives = feature.reads(collection, feature.options.model_validate_json(key[1]))
    branches = {branch for alternative in alternatives for branch in alternative}
    if feature.level == "event" or any(branch.startswith(f"{collection}_") for branch in branches):
        return None
    return {branch.partition("_")[0] for branch in branches}


def _prepare(objects: Objects, taggers: Sequence[Tagger]) -> dict[Key, features.Rows]:
    """Prepare the features of all taggers for a chunk, each once."""
    wanted: dict[Key, list[Tagger]] = {}
    for tagger in taggers if len(objects) > 0 else ():  # a file without events may lack every branch
        for key in tagger.keys:
            wanted.setdefault(key, []).append(tagger)
    prepared = {}
    for key, who in wanted.items():
        feature, source = features.get(key[0]), objects
        if "objectIdxG" in ak.fields(objects.array) and _tables(key, objects.collection) is not None:
            source = _unvaried(objects, feature.name)
        with _asked_for_by(who, objects.source):
            prepared[key] = feature.prepare(source, feature.options.model_validate_json(key[1]))
    return prepared


class _Kept:
    """Scores of a chunk's objects by one model, by the places of the objects in the whole collection.

    With windows an object has a place for each: a variation may move it from one to another.
    """

    def __init__(self, tables: Sequence[Any]) -> None:
        self.tables: list[ReferenceType[Any]] = [ref(table) for table in tables]
        self.score = np.zeros(0, np.float32)
        self.done = np.zeros(0, bool)

    def made_of(self, tables: Sequence[Any]) -> bool:
        """Say whether the collections are still those that the scores were computed from."""
        return len(tables) == len(self.tables) and all(r() is t for r, t in zip(self.tables, tables, strict=True))

    def missing(self, place: Ints) -> Ints:
        """Return which of the objects have no score yet, each place once."""
        more = int(place.max(initial=-1)) + 1 - len(self.done)
        if more > 0:
            self.score, self.done = np.pad(self.score, (0, more)), np.pad(self.done, (0, more))
        rows = np.flatnonzero(~self.done[place])
        return rows[np.sort(np.unique(place[rows], return_index=True)[1])]

    def put(self, place: Ints, score: Float32s) -> None:
        """Keep the scores of some of the objects."""
        self.score[place], self.done[place] = score, True


# A chunk is its events factory: scores live exactly as long.
_kept: WeakKeyDictionary[Any, dict[tuple[str, str, tuple[str, ...]], _Kept]] = WeakKeyDictionary()


def _keep(objects: Objects, tagger: Tagger) -> _Kept | None:
    """Return what is kept of a chunk for a model, or None if its scores may change with the objects' own fields."""
    attrs = objects.source.attrs
    factory = attrs.get("@events_factory")
    if factory is None or "@original_array" in attrs or "objectIdxG" not in ak.fields(objects.array):
        return None
    names: set[str] = set()
    for key in tagger.keys:
        read = _tables(key, objects.collection)
        if read is None:
            return None
        names |= read
    layout = objects.proven.source.layout
    if not layout.is_record:  # an index over the events: its tables are new ones whenever they are asked for
        return None
    tables = [layout.content(name) for name in sorted(names.intersection(layout.fields))]
    mine = _kept.setdefault(factory, {})
    who = tagger.scorer.digest, objects.collection, tagger.scorer.providers
    if who not in mine or not mine[who].made_of(tables):
        mine[who] = _Kept(tables)
    return mine[who]


def _folds(objects: Objects, card: ModelCard) -> Ints | None:
    """Return the fold of each object's event."""
    if card.folds is None:
        return None
    source = objects.source
    missing = [name for name in EVENT_ID if name not in ak.fields(source)]
    if missing:
        raise MissingBranch(f"{where(source)}the folds of {card.name} need {', '.join(missing)}")
    ids = numbers(source, f"the folds of {card.name} are told apart")
    return fold_of(card.folds.salt, card.folds.k, *ids)[objects.proven.event]


def _spectator(objects: Objects, card: ModelCard, name: str) -> Float64s:
    """Return a spectator of every object.

    Raises
    ------
    ConfigError
        There is none of this name.
    """
    values = objects.spectator(name)
    if values is not None:
        return values
    if card.level == "event":
        who, how = "the events have no such field", f"events = ak.with_field(events, …, {name!r})"
    else:
        who = f"neither the {card.collection} objects nor their events have such a field"
        how = f"jets = ak.with_field(jets, …, {name!r}), one number of each event"
    raise ConfigError(
        f"{where(objects.source)}{card.name} needs the spectator {name!r}, but {who}; give it before tagging: {how}"
    )


def _windows(objects: Objects, card: ModelCard) -> Ints | None:
    """Return the window of every object, −1 where it has no score; None if all may have one."""
    return card.window_of(lambda name: _spectator(objects, card, name))


def _scores(objects: Objects, taggers: Sequence[Tagger]) -> list[Float32s]:
    """Score all objects with all taggers, those apart for which fewer objects are left to score."""
    kept = [_keep(objects, tagger) for tagger in taggers]
    windows = [_windows(objects, tagger.card) for tagger in taggers]
    out = [np.full(len(objects), np.nan, np.float32) for _ in taggers]
    inside, places = [], []
    groups: dict[bytes, tuple[Ints, list[int]]] = {}
    for i, (mine, window) in enumerate(zip(kept, windows, strict=True)):
        scored = np.arange(len(objects)) if window is None else np.flatnonzero(window >= 0)
        n_outputs = len(taggers[i].card.outputs)
        place = objects.index if window is None else objects.index[scored] * n_outputs + window[scored]
        inside.append(scored)
        places.append(place)
        # objects with fields that vary are taken as a whole, whatever their window: some of them would lose the fields
        rows = np.arange(len(objects)) if mine is None else scored[mine.missing(place)]
        groups.setdefault(rows.tobytes(), (rows, []))[1].append(i)
    for rows, members in groups.values():
        part = objects if len(rows) == len(objects) else objects.at(rows)
        some = [None if (w := windows[i]) is None else w[rows] for i in members]
        for i, score in zip(members, _stream(part, [taggers[i] for i in members], some), strict=True):
            mine = kept[i]
            if mine is None:
                out[i] = score
            else:
                mine.put(places[i][np.searchsorted(inside[i], rows)], score)
                out[i][inside[i]] = mine.score[places[i]]
    return out


def _stream(objects: Objects, taggers: Sequence[Tagger], windows: Sequence[Ints | None]) -> list[Float32s]:
    """Stream the rows into the scorers, block by block; every feature is made once for a block."""
    prepared, n = _prepare(objects, taggers), len(objects)
    widest = max(math.prod(spec.shape) for t in taggers for spec in t.card.inputs)
    step = max(t.scorer.step for t in taggers)
    block = max(_BLOCK_BYTES // (4 * widest) // step, 1) * step
    scores = [np.empty(n, np.float32) for _ in taggers]
    of = [join(t.card, w, _folds(objects, t.card)) if n else None for t, w in zip(taggers, windows, strict=True)]
    inside = [None if w is None else w >= 0 for w in windows]
    totals = [n if mask is None else int(mask.sum()) for mask in inside]
    watches = [watch(t.card, t.scorer.digest, total) for t, total in zip(taggers, totals, strict=True)]
    for start in range(0, n, block):
        here = slice(start, min(start + block, n))
        with _asked_for_by(taggers, objects.source):
            made = {key: rows(here.start, here.stop) for key, rows in prepared.items()}
        for tagger, score, member, seen, mask in zip(taggers, scores, of, watches, inside, strict=True):
            batch, call = tagger.inputs(made), tagger.scorer.numpy_call
            score[here] = call(batch) if member is None else call(batch, member[here])
            if seen is not None and mask is None:
                seen.see(start, batch, score[here])
            elif seen is not None and mask is not None:
                some = mask[here]
                seen.see(int(mask[:start].sum()), {k: x[some] for k, x in batch.items()}, score[here][some])
    for seen in watches:
        if seen is not None:
            seen.finish()
    return scores
