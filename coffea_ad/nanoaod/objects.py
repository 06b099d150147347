"""Objects: a flat view of any mask, slice or sort of a collection, with the way back to events and file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, ConfigError, MissingBranch, MissingIndex
from coffea_ad.nanoaod import provenance
from coffea_ad.nanoaod.columns import flat, where
from coffea_ad.nanoaod.constituents import CONSTITUENT_TABLES, Constituents, gather
from coffea_ad.nanoaod.layouts import Picked, leaf, options_in, pick
from coffea_ad.typing import Float64s, Ints

__all__ = ["Objects"]


@dataclass(frozen=True)
class Objects:
    """The objects of a collection, flat, with the way back to their events and to their shape.

    Built from events, or from any mask, slice, `[:, 0]` or re-sort of a collection.

    Attributes
    ----------
    collection : str
        Name of the collection, such as "FatJet".
    array : ak.Array
        What was given: `array["pt"]` are the objects' own values, systematic variations included.
    source : ak.Array
        The complete events of the chunk.
    event : (n,) int64
        Position of each object's event in `source`.
    index : (n,) int64
        Position of each object in the collection of the file, flat.
    passed : ak.Array, optional
        The events that were passed, which may hold other constituents than the chunk.
    known : bool
        Whether all this has been compared with the file.
    """

    collection: str
    array: Any
    source: Any
    event: Ints
    index: Ints
    passed: Any = dataclasses.field(default=None, kw_only=True)
    known: bool = dataclasses.field(default=False, kw_only=True)

    @classmethod
    def of(cls, events: Any, collection: str = "FatJet") -> Objects:
        """Flatten `events[collection]`, or the collection itself if that is what was given.

        Raises
        ------
        MissingBranch
            The events have no such collection.
        MissingIndex
            The objects do not say which event they come from.
        """
        refuse_other(events)
        fields = ak.fields(events)
        if collection in fields:
            jets = events[collection]
            if not ak.fields(jets):
                raise MissingIndex(f"{where(events)}{collection} is {_kind(jets)}, not a collection of objects")
            if {"eventIdxG", "objectIdxG"} <= set(ak.fields(jets)):
                return cls._from_collection(jets, collection, events)
            return cls._from_file_order(events, jets, collection)
        if "run" in fields or not fields:
            raise MissingBranch(f"{where(events)}there is no collection {collection!r} (branches {collection}_*)")
        if not {"eventIdxG", "objectIdxG"} <= set(fields):
            raise MissingIndex(
                f"these objects (fields {', '.join(fields[:4])}{', …' if len(fields) > 4 else ''}) do not say which {collection} "
                "of which event they are: open the file with schemaclass=coffea_ad.NanoAODSchema, and pass objects as they "
                "are picked from the collection, not pairs or sums of them; or pass the whole events"
            )
        return cls._from_collection(events, collection)

    @classmethod
    def events(cls, events: Any) -> Objects:
        """Return the events themselves as objects, one each.

        Raises
        ------
        MissingIndex
            This is a collection of objects.
        """
        refuse_other(events)
        if "eventIdxG" in ak.fields(events):
            raise MissingIndex("whole events are needed here, not a collection of their objects")
        place = np.arange(len(events))
        return cls("events", events, events, place, place, known=True)

    @classmethod
    def _from_collection(cls, jets: Any, collection: str, passed: Any = None) -> Objects:
        name = jets.layout.purelist_parameter("collection_name")
        if name is not None and name != collection:
            raise MissingIndex(f"a {collection} collection is needed, but this is {name}")
        source = _chunk(jets, collection)
        picked = pick(jets)
        event, index = (picked.column(name) for name in ("eventIdxG", "objectIdxG"))
        if event is None or index is None:
            event, index = (leaf(jets[name])[0] for name in ("eventIdxG", "objectIdxG"))
        objects = cls(collection, jets, source, event, index, passed=passed)
        objects.__dict__["_picked"] = picked
        return objects

    @classmethod
    def _from_file_order(cls, events: Any, jets: Any, collection: str) -> Objects:
        """Take objects that do not say where they are, as with coffea's own schema, for those of the file in their order."""
        if jets.ndim != 2 or options_in(jets[ak.fields(jets)[0]]) > 0:
            raise MissingIndex(_lost(events, collection))
        counts = ak.to_numpy(ak.num(jets, axis=1))
        _chunk(events, collection)
        n = int(counts.sum())
        return cls(collection, jets, events, np.repeat(np.arange(len(counts)), counts), np.arange(n))

    @cached_property
    def proven(self) -> Objects:
        """These objects, if they are those of the file: their own fields need no proof, but what belongs to them does.

        Raises
        ------
        MissingIndex
            Objects of another file, of coffea's own schema after a mask or sort, or with constituents of other events.
        """
        if self.known:
            return self
        whole = provenance.file_collection(self.source, self.collection)
        if whole is not None and not self._indexed and not provenance.in_file_order(self.array, whole):
            raise MissingIndex(_lost(self.source, self.collection))
        if whole is not None and self._indexed and not self._are_of(whole):
            raise MissingIndex(
                f"the {self.collection} objects here are not those of the file that the events came from; were events of two "
                "files joined, or the collection replaced by another one? Score those of each file by themselves"
            )
        source = self.source
        altered = "" if self.passed is None else _altered(self.passed, source, self.collection)
        if altered:
            row = np.repeat(np.arange(len(self.counts)), self.counts)
            if len(self.passed) != len(source) or not np.array_equal(row, self.event):
                raise MissingIndex(
                    f"{altered} was replaced in events that had been masked, sorted or joined, and cannot be matched with the "
                    f"{self.collection} collection any more; replace it in the events as they were opened"
                )
            source = self.passed
        return dataclasses.replace(self, source=source, known=True)

    def _are_of(self, whole: provenance.FileCollection) -> bool:
        """Say whether the objects are those of the file at the places that they name."""
        starts, n = whole.offsets, len(self)
        if n == 0:
            return True
        if self.index.min() < 0 or self.index.max() >= starts[-1]:
            return False
        if not np.array_equal(np.searchsorted(starts, self.index, "right") - 1, self.event):
            return False
        if provenance.same_records(self.array.layout, whole.layout, ["objectIdxG"]):
            return True
        have = [name for name in provenance.COMPARED if name in ak.fields(self.array)]
        return provenance.agree({name: self.field(name) for name in have}, whole, self.index)

    def at(self, rows: Ints) -> Objects:
        """Return some of the objects, for what belongs to them in the file: they have no fields of their own but their places.

        Raises
        ------
        MissingIndex
            As `proven`.
        """
        known = self.proven
        event, index = known.event[rows], known.index[rows]
        array = ak.zip({"eventIdxG": event, "objectIdxG": index})
        return Objects(self.collection, array, known.source, event, index, known=True)

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.index)

    def field(self, name: str) -> npt.NDArray[Any]:
        """Return one field of the objects as passed in, flat.

        Raises
        ------
        MissingBranch
            The collection has no such field.
        """
        if name not in ak.fields(self.array):
            raise MissingBranch(f"{where(self.source)}there is no branch {self.collection}_{name}")
        values = self._picked.column(name)
        if values is not None:
            return values
        column = self.array[name]  # item access: `jets.tau2` would be vector's mass²
        if self._indexed and options_in(column) > options_in(self.array["objectIdxG"]):
            raise BadFile(f"{where(self.source)}{self.collection}_{name} has missing values; fill them first")
        return leaf(column)[0]

    def spectator(self, name: str) -> Float64s | None:
        """Return a number of each object that no feature has to know: its field, or else one of its event.

        Parameters
        ----------
        name : str
            A field of the objects, such as `pt`; or of the events, such as `mjj`, that all objects of an event share. The
            events that were passed come before those of the chunk.

        Returns
        -------
        (n,) float64, or None
            NaN where missing. None if there is no such field.

        Raises
        ------
        ConfigError
            The field is no number of each.
        """
        if len(self) == 0:
            return np.zeros(0)
        if self.collection != "events" and name in ak.fields(self.array):
            return np.asarray(self.field(name), np.float64)
        events = self.source if self.passed is None or name not in ak.fields(self.passed) else self.passed
        if name not in ak.fields(events):
            return None
        column = events[name]
        if column.ndim != 1 or ak.fields(column):
            raise ConfigError(f"{where(events)}the spectator {name} is not one number of each event, but {column.type}")
        values = np.asarray(ak.to_numpy(ak.fill_none(ak.values_astype(column, np.float64), np.nan)))
        if events is self.source:
            return values[self.event]
        return np.repeat(values, self.counts)

    def restore(self, values: npt.NDArray[Any]) -> Any:
        """Give a flat array (one value per object) the shape of what was passed in."""
        return self._picked.shaped(ak.contents.NumpyArray(values))

    def with_fields(self, columns: Mapping[str, Any]) -> Any:
        """Return what was passed in with more fields.

        Awkward's own `with_field` makes a whole object None where the new field is, if objects may be missing, as with
        `ak.firsts`; here an object keeps its other fields.

        Parameters
        ----------
        columns : {name: (n,) ak.Array}
            One value, or None, per object.
        """
        picked = self._picked
        index = ak.index.Index64(picked.places)
        # the index goes from the outside to every old field, where it waits until somebody reads it
        fields = {
            name: ak.contents.IndexedArray.simplified(index, content)
            for name, content in zip(picked.records.fields, picked.records.contents, strict=True)
        } | {name: ak.to_layout(column) for name, column in columns.items()}
        return picked.shaped(
            ak.contents.RecordArray(
                list(fields.values()), list(fields), length=len(self), parameters=picked.records.parameters
            )
        )

    @cached_property
    def constituents(self) -> Constituents:
        """The objects' constituents, gathered when first asked for and shared by all features of the objects.

        Raises
        ------
        MissingBranch, BadFile
        """
        return gather(self)

    @cached_property
    def _picked(self) -> Picked:
        return pick(self.array)

    @property
    def _indexed(self) -> bool:
        return "objectIdxG" in ak.fields(self.array)

    @cached_property
    def counts(self) -> Ints:
        """Number of objects per event, (n_events,), or of ones where there is at most one object an event."""
        ones = self.restore(np.ones(len(self), np.int64))
        while ones.ndim > 1:
            ones = ak.sum(ones, axis=-1)
        return np.asarray(ak.to_numpy(ak.fill_none(ones, 0)), np.int64)


def refuse_other(events: Any) -> None:
    """Raise if this is not an array of events or objects.

    Raises
    ------
    MissingIndex
    """
    if isinstance(events, ak.Record):
        raise MissingIndex("one event or object alone cannot be scored; pass a slice such as events[3:4]")
    if isinstance(events, Objects) or (isinstance(events, ak.Array) and (ak.fields(events) or len(events) == 0)):
        return
    raise MissingIndex(f"events or objects of a collection are needed, as coffea opens them, not {_kind(events)}")


def _kind(value: Any) -> str:
    """Say what somebody passed instead of events."""
    if value is None or isinstance(value, type):
        return repr(value)
    if isinstance(value, ak.Array):
        return "an awkward array without fields"
    name = f"{type(value).__module__.partition('.')[0]}.{type(value).__qualname__}".removeprefix("builtins.")
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _chunk(array: Any, collection: str) -> Any:
    """Return the events of the chunk that an array came from.

    Raises
    ------
    MissingIndex
    """
    attrs = array.attrs
    if "@original_array" in attrs:
        return attrs["@original_array"]
    if "@events_factory" not in attrs:
        raise MissingIndex(
            f"this {collection} collection has lost its events (was it pickled, saved or made anew?); score it in the process "
            f"that opened the file, and put objects made anew into the events with events[{collection!r}] = …"
        )
    return attrs["@events_factory"].events()


def _lost(events: Any, collection: str) -> str:
    """Say why objects without their places cannot be matched with their constituents."""
    whole = provenance.file_collection(events, collection)
    if whole is not None and "objectIdxG" in whole.layout.content.fields:
        return (
            f"the {collection} collection was replaced, and the new one does not say which objects of the file it holds; make it "
            "from the old one with ak.with_field, or keep the fields eventIdxG and objectIdxG"
        )
    return (
        "masked, sliced, joined or re-sorted events and collections lose the link between jets and constituents in coffea's "
        "own schema; open the file with schemaclass=coffea_ad.NanoAODSchema"
    )


def _altered(passed: Any, source: Any, collection: str) -> str:
    """Return the first table of constituents in the passed events that is not the chunk's, or an empty string."""
    if passed is source:
        return ""
    for table in CONSTITUENT_TABLES:
        for name, fields in table.fields(collection).items():
            if not all(name in ak.fields(events) for events in (passed, source)):
                continue
            one, other = passed[name].layout, source[name].layout
            shared = [f for f in fields if f in one.fields and f in other.fields]
            if not provenance.same_records(one, other, shared) and not _same_values(passed[name], source[name], shared):
                return name
    return ""


def _same_values(some: Any, whole: Any, fields: Iterable[str]) -> bool:
    """Say whether objects that were copied have the values that stand at their places in the chunk."""
    if "objectIdxG" not in ak.fields(some):
        return False
    index = flat(some["objectIdxG"])
    columns = [(flat(some[f]), flat(whole[f])) for f in fields]
    return all(
        index.max(initial=-1) < len(b) and np.array_equal(a, b[index], equal_nan=b.dtype.kind == "f")
        for a, b in columns
    )
