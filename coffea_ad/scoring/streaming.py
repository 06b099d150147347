"""Objects through features into scorers, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad import features
from coffea_ad.errors import BadFeature, ConfigError, MissingBranch
from coffea_ad.nanoaod.columns import EVENT_ID, where
from coffea_ad.nanoaod.constituents import Constituents
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.members import join
from coffea_ad.scoring.monitoring import watch
from coffea_ad.scoring.score_cache import Key, score_cache, tables_read
from coffea_ad.splits import fold_of, numbers
from coffea_ad.typing import Float32s, Float64s, Ints

if TYPE_CHECKING:
    from coffea_ad.scoring.tagger import Tagger

__all__ = ["asked_for_by", "prepared_of", "scores_of", "windows_of"]

_BLOCK_BYTES = 8_000_000  # of the widest input: what stays in a cache


@contextmanager
def asked_for_by(taggers: Sequence[Tagger], events: Any) -> Iterator[None]:
    """Say in the error of a missing branch which file it is, and which models need it."""
    try:
        yield
    except MissingBranch as error:
        prefix = where(events)
        names = ", ".join(dict.fromkeys(t.card.name for t in taggers))
        raise MissingBranch(f"{prefix}{str(error).removeprefix(prefix)} (asked for by {names})") from None


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


def prepared_of(objects: Objects, taggers: Sequence[Tagger]) -> dict[Key, features.Rows]:
    """Prepare the features of all taggers for a chunk, each once."""
    wanted: dict[Key, list[Tagger]] = {}
    for tagger in taggers if len(objects) > 0 else ():  # a file without events may lack every branch
        for key in tagger.keys:
            wanted.setdefault(key, []).append(tagger)
    prepared = {}
    for key, who in wanted.items():
        feature, source = features.get(key[0]), objects
        if "objectIdxG" in ak.fields(objects.array) and tables_read(key, objects.collection) is not None:
            source = _unvaried(objects, feature.name)
        with asked_for_by(who, objects.source):
            prepared[key] = feature.prepare(source, feature.options.model_validate_json(key[1]))
    return prepared


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


def windows_of(objects: Objects, card: ModelCard) -> Ints | None:
    """Return the window of every object, −1 where it has no score; None if all may have one."""
    return card.window_of(lambda name: _spectator(objects, card, name))


def scores_of(objects: Objects, taggers: Sequence[Tagger]) -> list[Float32s]:
    """Score all objects with all taggers, those apart for which fewer objects are left to score."""
    caches = [score_cache(objects, tagger.keys, tagger.scorer.digest, tagger.scorer.providers) for tagger in taggers]
    windows = [windows_of(objects, tagger.card) for tagger in taggers]
    out = [np.full(len(objects), np.nan, np.float32) for _ in taggers]
    inside, places = [], []
    groups: dict[bytes, tuple[Ints, list[int]]] = {}
    for i, (cache, window) in enumerate(zip(caches, windows, strict=True)):
        scored = np.arange(len(objects)) if window is None else np.flatnonzero(window >= 0)
        n_outputs = len(taggers[i].card.outputs)
        place = objects.index if window is None else objects.index[scored] * n_outputs + window[scored]
        inside.append(scored)
        places.append(place)
        # objects with fields that vary are taken as a whole, whatever their window: some of them would lose the fields
        rows = np.arange(len(objects)) if cache is None else scored[cache.missing(place)]
        groups.setdefault(rows.tobytes(), (rows, []))[1].append(i)
    for rows, members in groups.values():
        part = objects if len(rows) == len(objects) else objects.at(rows)
        some = [None if (w := windows[i]) is None else w[rows] for i in members]
        for i, score in zip(members, _stream(part, [taggers[i] for i in members], some), strict=True):
            cache = caches[i]
            if cache is None:
                out[i] = score
            else:
                cache.put(places[i][np.searchsorted(inside[i], rows)], score)
                out[i][inside[i]] = cache.score[places[i]]
    return out


def _stream(objects: Objects, taggers: Sequence[Tagger], windows: Sequence[Ints | None]) -> list[Float32s]:
    """Stream the rows into the scorers, block by block; every feature is made once for a block."""
    prepared, n = prepared_of(objects, taggers), len(objects)
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
        with asked_for_by(taggers, objects.source):
            values = {key: rows(here.start, here.stop) for key, rows in prepared.items()}
        for tagger, score, member, seen, mask in zip(taggers, scores, of, watches, inside, strict=True):
            batch, call = tagger.inputs(values), tagger.scorer.numpy_call
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
