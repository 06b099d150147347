"""The k events with the highest scores, as an accumulator that stays as small when any number of chunks is added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
from coffea.processor import AccumulatorABC

from coffea_ad.errors import ConfigError
from coffea_ad.nanoaod.columns import EVENT_ID, event_text
from coffea_ad.nanoaod.entries import entries_of, source
from coffea_ad.typing import Bools, Ints

__all__ = ["IDENTITY", "TopEvents"]

Columns = dict[str, npt.NDArray[Any]]

_TEXT = np.dtype(object)
IDENTITY: dict[str, np.dtype[Any]] = {
    "dataset": _TEXT,
    "file": _TEXT,
    "uuid": _TEXT,
    "tree": _TEXT,
    "entry": np.dtype(np.int64),
    "run": np.dtype(np.uint32),
    "luminosityBlock": np.dtype(np.uint32),
    "event": np.dtype(np.uint64),
    "weight": np.dtype(np.float64),
}
"""What every list says of its events, and how it is stored; scores and observables are float64."""


class TopEvents(AccumulatorABC):  # type: ignore[misc]
    """The k events with the highest scores, best first.

    Two lists add up to the list of all their events, whatever the order and grouping: equal scores are ordered by dataset,
    file and entry. Events whose score is NaN are in no list. Of two lists with different k, the sum has the smaller one,
    since what the shorter list has left out is not known.

    Parameters
    ----------
    k : int
        The most events that are kept; 0 keeps none.
    by : str or sequence of str
        The scores that order the events, higher first; each further one decides where those before it are equal.

    Attributes
    ----------
    ranked : int
        How many events had a score, of which these are the best.
    columns : {name: (n,) array}
        What the list says of its n ≤ k events: `IDENTITY`, scores, observables.

    Raises
    ------
    ConfigError
        k is negative.

    Examples
    --------
    >>> from coffea.nanoevents import NanoEventsFactory
    >>> from coffea_ad import NanoAODSchema
    >>> events = NanoEventsFactory.from_root(f"{svj_file}:Events", schemaclass=NanoAODSchema).events()
    >>> met = events.PuppiMET["pt"]
    >>> top = TopEvents.of(events, 2, {"met": met})
    >>> one, two = (TopEvents.of(part, 2, {"met": part.PuppiMET["pt"]}) for part in (events[:40], events[40:]))
    >>> bool(top == two + one), top["entry"].tolist() == np.argsort(-met).to_list()[:2]
    (True, True)
    """

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    def __init__(self, k: int, by: str | Sequence[str] = ()) -> None:
        if k < 0:
            raise ConfigError(f"a list of {k} events cannot be; k must be at least 0")
        self.k = int(k)
        self.by: tuple[str, ...] = (by,) if isinstance(by, str) else tuple(by)
        self.ranked = 0
        self.columns: Columns = {}

    @classmethod
    def of(
        cls,
        events: Any,
        k: int,
        scores: Mapping[str, Any],
        *,
        weight: Any = None,
        observables: Mapping[str, Any] | None = None,
    ) -> TopEvents:
        """Return the list of some events of one chunk.

        Parameters
        ----------
        events : NanoEvents, (n_events,)
            Opened with `coffea_ad.NanoAODSchema`; masked, sliced or sorted at will.
        k : int
        scores : {name: (n_events,)}
            Higher is more anomalous; the first orders the events, further ones decide where it is equal. NaN or None in the
            first: the event is not ranked.
        weight : (n_events,), optional
            1 by default.
        observables : {name: (n_events,) or (n_events, m)}, optional
            What else is wanted of each event; of m values, `name_1` to `name_m`.

        Raises
        ------
        ConfigError
            Lengths differ, or names are those of `IDENTITY`, or there is no score.
        MissingIndex
            The events do not say which entries they are.
        """
        return cls.of_parts(events, k, scores, {"": None}, weight=weight, observables=observables)[""]

    @classmethod
    def of_parts(
        cls,
        events: Any,
        k: int,
        scores: Mapping[str, Any],
        parts: Mapping[str, Bools | None],
        *,
        weight: Any = None,
        observables: Mapping[str, Any] | None = None,
    ) -> dict[str, TopEvents]:
        """Return a list of each of several parts of the same events, such as regions, as `of` does of one.

        What all lists say is computed once, and only of events that are in any of them.

        Parameters
        ----------
        events, k, scores, weight, observables
            As of `of`.
        parts : {name: (n_events,) bool, or None}
            Which events are ranked; None: all.

        Returns
        -------
        {name: TopEvents}

        Raises
        ------
        ConfigError, MissingIndex
            As `of`; or a part is of another number of events.
        """
        by, numbers = tuple(scores), _numbers(len(events), scores, observables or {})
        if not by:
            raise ConfigError("a list of events needs a score that orders them")
        weights = np.ones(len(events)) if weight is None else _column("weight", weight, len(events))
        defined = ~np.isnan(numbers[by[0]])
        lists, best = {name: cls(k, by) for name in parts}, {}
        for name, inside in parts.items():
            if inside is not None and len(inside) != len(events):
                raise ConfigError(f"a list of {len(events)} events: which of them are {name} is said of {len(inside)}")
            rows = np.flatnonzero(defined if inside is None else defined & inside)
            lists[name].ranked = len(rows)
            best[name] = _candidates(rows, numbers[by[0]], k)
        listed = np.unique(np.concatenate([*best.values(), np.zeros(0, np.int64)]))
        if not len(listed):
            return lists
        where, few = source(events), events[listed]
        texts = {
            "dataset": events.metadata.get("dataset", ""),
            "file": where.file,
            "uuid": where.uuid,
            "tree": where.tree,
        }
        columns: Columns = {name: np.full(len(listed), text, object) for name, text in texts.items()}
        columns |= {"entry": np.asarray(ak.to_numpy(entries_of(few)), np.int64), "weight": weights[listed]}
        columns |= {name: np.asarray(ak.to_numpy(few[name])).astype(IDENTITY[name]) for name in EVENT_ID}
        columns |= {name: column[listed] for name, column in numbers.items()}
        keys = [columns["entry"], *(-columns[name] for name in reversed(by))]
        for name, rows in best.items():
            at = np.searchsorted(listed, rows)
            at = at[np.lexsort([key[at] for key in keys])[:k]]
            if len(at):
                lists[name].columns = _arranged({n: column[at] for n, column in columns.items()}, by)
        return lists

    @classmethod
    def from_columns(cls, k: int, by: Sequence[str], columns: Mapping[str, Any], *, ranked: int) -> TopEvents:
        """Return a list of events that is known, in any order.

        Raises
        ------
        ConfigError
            Columns are missing, or have different lengths.
        """
        top = cls(k, by)
        top.ranked = int(ranked)
        if columns:
            missing = [name for name in (*IDENTITY, *top.by) if name not in columns]
            lengths = {len(column) for column in columns.values()}
            if missing or len(lengths) > 1 or not top.by:
                why = (
                    f"it has no {', '.join(missing) or 'score'}"
                    if missing or not top.by
                    else "its columns have different lengths"
                )
                raise ConfigError(f"this is no list of events: {why}")
            typed = {n: np.asarray(c).astype(IDENTITY.get(n, np.dtype(np.float64))) for n, c in columns.items()}
            top.columns = _best(typed, top.by, k)
        return top

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.columns["entry"]) if self.columns else 0

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return one column, best event first."""
        return self.columns[name]

    def __repr__(self) -> str:
        """Return one line: how many of how many events, and by what."""
        return (
            f"<TopEvents: {len(self)} of {self.ranked} events by {', '.join(self.by) or 'no score'}, at most {self.k}>"
        )

    def __eq__(self, other: object) -> bool:
        """Say whether two lists have the same events, with the same numbers."""
        if not isinstance(other, TopEvents):
            return NotImplemented
        one, two = self.columns, other.columns
        return (
            (self.k, self.by, self.ranked) == (other.k, other.by, other.ranked)
            and one.keys() == two.keys()
            and all(np.array_equal(one[n], two[n], equal_nan=one[n].dtype.kind == "f") for n in one)
        )

    @property
    def observables(self) -> tuple[str, ...]:
        """What the list says of its events beside their identity and scores."""
        return tuple(name for name in self.columns if name not in IDENTITY and name not in self.by)

    def ids(self, i: int) -> str:
        """Return `run:lumi:event` of an event."""
        return event_text(self[name][i] for name in EVENT_ID)

    def identity(self) -> TopEvents:
        """Return a list without events, which changes no other one with the same k."""
        return TopEvents(self.k, self.by)

    def unlike(self, other: TopEvents) -> str:
        """Say why another list cannot be added; empty if it can."""
        if self.by and other.by and self.by != other.by:
            return f"the events are ordered by {', '.join(self.by)} and by {', '.join(other.by)}"
        if len(self) and len(other) and self.columns.keys() != other.columns.keys():
            names = sorted(self.columns.keys() ^ other.columns.keys())
            return f"only one of the lists says {', '.join(names)} of its events"
        return ""

    def add(self, other: TopEvents) -> None:
        """Add another list in place.

        Raises
        ------
        ValueError
            The two are ordered by other scores, or say other things of their events.
        TypeError
            The other one is none.
        """
        if not isinstance(other, TopEvents):
            raise TypeError(f"a list of events and {type(other).__name__} cannot be added")
        problem = self.unlike(other)
        if problem:
            raise ValueError(f"two lists of events cannot be added: {problem}")
        by = self.by or other.by
        self.k, self.by, self.ranked = min(self.k, other.k), by, self.ranked + other.ranked
        filled = [part.columns for part in (self, other) if len(part)]
        joined = {n: np.concatenate([part[n] for part in filled]) for n in filled[0]} if filled else {}
        self.columns = _best(joined, by, self.k)

    def shortened(self, k: int) -> TopEvents:
        """Return the list of the k best of its events, or itself if k is not smaller."""
        return self if k >= self.k else self + TopEvents(k, self.by)


def _numbers(n: int, scores: Mapping[str, Any], observables: Mapping[str, Any]) -> Columns:
    """Return scores and observables as one column for each number."""
    out: Columns = {}
    for wide, name, values in [
        *((False, *item) for item in scores.items()),
        *((True, *item) for item in observables.items()),
    ]:
        column = _column(name, values, n, wide=wide)
        parts = {name: column} if column.ndim == 1 else {f"{name}_{i + 1}": c for i, c in enumerate(column.T)}
        twice = [part for part in parts if part in out or part in IDENTITY or part == "list"]
        if twice:
            raise ConfigError(f"a list of events has {twice[0]} already; give this column another name")
        out |= parts
    return out


def _column(name: str, values: Any, n: int, *, wide: bool = False) -> npt.NDArray[Any]:
    """Return one number for each event, or a table of them, as float64; None is NaN."""
    filled = ak.fill_none(values, np.nan, axis=-1) if isinstance(values, ak.Array) else values
    column = np.asarray(ak.to_numpy(filled), np.float64)
    if len(column) != n or column.ndim > 1 + wide:
        raise ConfigError(
            f"a list of {n} events: {name} has the shape {column.shape}, but must have one number for each event"
        )
    return column


def _candidates(rows: Ints, score: npt.NDArray[Any], k: int) -> Ints:
    """Return which of some rows may be among the k best: all that are not below the k-th."""
    if k == 0 or len(rows) <= k:
        return rows[: len(rows) if k else 0]
    of_rows = score[rows]
    return np.asarray(rows[of_rows >= np.partition(of_rows, len(rows) - k)[len(rows) - k]])


def _best(columns: Columns, by: Sequence[str], k: int) -> Columns:
    """Return the k best rows in their order; rows that are equal in all that orders them are ordered by all else."""
    if not columns or k == 0:
        return {}
    first = ("dataset", "file", "tree", "entry")
    names = [*first, *(n for n in sorted(columns) if n not in first and n not in by)]
    keys = [*(-columns[n] for n in by), *(_sortable(columns[n]) for n in names)]
    order = np.lexsort(keys[::-1])
    order = order[~np.isnan(columns[by[0]][order])][:k]
    return _arranged({n: column[order] for n, column in columns.items()}, by) if len(order) else {}


def _sortable(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.unique(column.astype(str), return_inverse=True)[1] if column.dtype == _TEXT else column


def _arranged(columns: Columns, by: Sequence[str]) -> Columns:
    """Return the columns in one order, whoever made them."""
    names = [*IDENTITY, *by]
    return {n: columns[n] for n in [*names, *sorted(set(columns) - set(names))]}
