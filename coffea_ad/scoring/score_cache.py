"""Scores of a chunk that are computed once: a variation of the jets' energy changes no score that does not read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import awkward as ak
import numpy as np

from coffea_ad import features
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.typing import Float32s, Ints

__all__ = ["ScoreCache", "score_cache", "tables_read"]

Key = tuple[str, str]
"""Name and options: what makes a feature the same for two models."""


def tables_read(key: Key, collection: str) -> set[str] | None:
    """Return the collections that a feature reads, or None if fields of the objects themselves are among them."""
    feature = features.get(key[0])
    alternatives = feature.reads(collection, feature.options.model_validate_json(key[1]))
    branches = {branch for alternative in alternatives for branch in alternative}
    if feature.level == "event" or any(branch.startswith(f"{collection}_") for branch in branches):
        return None
    return {branch.partition("_")[0] for branch in branches}


class ScoreCache:
    """Scores of a chunk's objects by one model, by the places of the objects in the whole collection.

    With windows an object has a place for each: a variation may move it from one to another.
    """

    def __init__(self, tables: Sequence[Any]) -> None:
        self.tables: list[ReferenceType[Any]] = [ref(table) for table in tables]
        self.score = np.zeros(0, np.float32)
        self.done = np.zeros(0, bool)

    def computed_from(self, tables: Sequence[Any]) -> bool:
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
        """Store the scores of some of the objects."""
        self.score[place], self.done[place] = score, True


# A chunk is its events factory: scores live exactly as long.
_caches: WeakKeyDictionary[Any, dict[tuple[str, str, tuple[str, ...]], ScoreCache]] = WeakKeyDictionary()


def score_cache(objects: Objects, keys: Sequence[Key], digest: str, providers: tuple[str, ...]) -> ScoreCache | None:
    """Return the cache of a chunk for a model, or None if its scores may change with the objects' own fields.

    Parameters
    ----------
    objects : Objects
    keys : sequence of (name, options)
        Features of the model.
    digest, providers : str, tuple of str
        Its file, and where it is computed.
    """
    attrs = objects.source.attrs
    factory = attrs.get("@events_factory")
    if factory is None or "@original_array" in attrs or "objectIdxG" not in ak.fields(objects.array):
        return None
    names: set[str] = set()
    for key in keys:
        read = tables_read(key, objects.collection)
        if read is None:
            return None
        names |= read
    layout = objects.proven.source.layout
    if not layout.is_record:  # an index over the events: its tables are new ones whenever they are asked for
        return None
    tables = [layout.content(name) for name in sorted(names.intersection(layout.fields))]
    of_chunk = _caches.setdefault(factory, {})
    who = digest, objects.collection, providers
    if who not in of_chunk or not of_chunk[who].computed_from(tables):
        of_chunk[who] = ScoreCache(tables)
    return of_chunk[who]
