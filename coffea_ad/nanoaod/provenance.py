"""Proof that objects are those of a file, wherever masks, sorts, joins and replacements have left them.

The buffers of virtual arrays carry keys that name file, range of events and branch; they survive masks, slices, sorts and
`ak.with_field`, and nothing has to be read to compare them. What was copied, as by `ak.concatenate`, is compared by value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Ints

__all__ = ["COMPARED", "FileCollection", "agree", "file_collection", "in_file_order", "replaced", "same_records"]

COMPARED = ("pt", "eta", "phi")
"""What objects are recognised by; one of them may be varied."""


@dataclass(frozen=True)
class Leaf:
    """The buffer behind a field, and whether the field takes all of it in its order."""

    buffer: Any
    direct: bool

    @property
    def key(self) -> str | None:
        """File, range of events and branch, if the buffer is one that is read when needed."""
        return getattr(self.buffer, "buffer_key", None)

    def same_buffer(self, other: Leaf) -> bool:
        """Say whether both are buffers of the same numbers, without reading them."""
        return self.buffer is other.buffer or (self.key is not None and self.key == other.key)


def leaf(layout: Any, field: str) -> Leaf | None:
    """Follow a field of records through lists, indexes and masks to its buffer; None if there are several."""
    direct = True
    while not layout.is_numpy:
        if layout.is_record:
            if field not in layout.fields:
                return None
            layout = layout.content(field)
        elif layout.is_union or layout.is_unknown:
            return None
        else:
            direct = direct and layout.is_list
            layout = layout.content
    return Leaf(layout.data, direct)


def same_records(one: Any, other: Any, fields: Iterable[str]) -> bool:
    """Say whether two layouts pick their records from the same buffers."""
    pairs = [(leaf(one, field), leaf(other, field)) for field in fields]
    return all(a is not None and b is not None and a.same_buffer(b) for a, b in pairs)


@dataclass(frozen=True)
class FileCollection:
    """A collection as the file has it, whatever was put in its place in the events.

    Attributes
    ----------
    layout : ListOffsetArray
        With what identifies objects, read when asked for.
    starts : buffer
        The offsets: those that stand in the events, if they are the file's, so that nothing is read twice.
    """

    layout: Any
    starts: Any

    @cached_property
    def offsets(self) -> Ints:
        """Where the objects of each event begin, (n_events + 1,)."""
        return np.asarray(self.starts, np.int64)

    @property
    def event(self) -> Ints:
        """Position of the event of each object, (n,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """Return a field as it is in the file, (n,), or None if there is none."""
        if name not in self.layout.content.fields:
            return None
        return np.asarray(self.layout.content.content(name).data)

    def field(self, name: str) -> Leaf | None:
        """Return the buffer behind a field."""
        return leaf(self.layout, name)


def _same_offsets(one: Any, other: Any) -> bool:
    if not hasattr(one, "offsets") or not hasattr(other, "offsets") or len(one.offsets) != len(other.offsets):
        return False  # a slice keeps its key
    return Leaf(one.offsets.data, direct=True).same_buffer(Leaf(other.offsets.data, direct=True))


# What belongs to a chunk lives exactly as long as its events factory.
_files: WeakKeyDictionary[Any, dict[str, FileCollection]] = WeakKeyDictionary()


def file_collection(events: Any, name: str) -> FileCollection | None:
    """Return a collection as the file of the events has it, or None if there is no file, as in tracing.

    Parameters
    ----------
    events : ak.Array
        All events of a chunk; collections may have been replaced.
    name : str
    """
    attrs = events.attrs
    factory, form = attrs.get("@events_factory"), attrs.get("@form")
    if factory is None or form is None or "@original_array" in attrs:
        return None
    known = _files.setdefault(factory, {})
    if name not in known:
        if name not in form["fields"]:
            return None
        lists = form["contents"][form["fields"].index(name)]
        if lists["class"] != "ListOffsetArray" or lists["content"]["class"] != "RecordArray":
            return None
        layout = ak.from_buffers(
            _narrowed(lists), len(factory), factory._mapping,  # noqa: SLF001  the factory's own events may be altered
            buffer_key=attrs["@buffer_key"], highlevel=False,
        )  # fmt: skip
        current = events[name].layout if name in ak.fields(events) else layout
        known[name] = FileCollection(layout, (current if _same_offsets(current, layout) else layout).offsets.data)
    return known[name]


def replaced(events: Any, name: str, fields: Iterable[str]) -> bool:
    """Say whether some field of a collection is known not to be read from the file."""
    whole = file_collection(events, name)
    stored = None if whole is None else whole.field(whole.layout.content.fields[0])
    if stored is None or stored.key is None:
        return False
    leaves = [leaf(events[name].layout, field) for field in fields]
    return any(one is None or one.key is None for one in leaves)


def _narrowed(lists: Mapping[str, Any]) -> dict[str, Any]:
    """Return the form of a collection with no more fields than are compared."""
    records = lists["content"]
    pairs = dict(zip(records["fields"], records["contents"], strict=True))
    wanted = [f for f in (*COMPARED, "eventIdxG", "objectIdxG") if f in pairs] or records["fields"][:1]
    content = {**records, "fields": wanted, "contents": [pairs[f] for f in wanted]}
    return {**lists, "content": content}


def agree(columns: Mapping[str, npt.NDArray[Any]], whole: FileCollection, index: Ints | None = None) -> bool:
    """Say whether objects are those of the file: all but one of pt, η and φ are equal, since one may be varied.

    Parameters
    ----------
    columns : {field: (n,)}
        Of the objects.
    whole : FileCollection
    index : (n,) int64, optional
        Positions in the file; the whole collection in its order by default.
    """
    equal = []
    for name, values in columns.items():
        stored = whole.column(name)
        if stored is not None:
            stored = stored if index is None else stored[index]
            equal.append(np.array_equal(values, stored, equal_nan=stored.dtype.kind == "f"))
    return bool(equal) and sum(equal) >= min(2, len(equal))


def in_file_order(array: Any, whole: FileCollection) -> bool:
    """Say whether a collection has all objects of the file in their order, with whatever fields varied.

    Parameters
    ----------
    array : ak.Array
        (n_events, objects)
    whole : FileCollection
    """
    if array.ndim != 2:
        return False
    if _same_offsets(array.layout, whole.layout) and _untouched(array.layout.content, whole):
        return True
    counts = ak.to_numpy(ak.fill_none(ak.num(array, axis=1), -1))
    if not np.array_equal(counts, np.diff(whole.offsets)):
        return False
    if "objectIdxG" in ak.fields(array):
        return np.array_equal(_flat(array["objectIdxG"]), np.arange(whole.offsets[-1]))
    return agree({name: _flat(array[name]) for name in COMPARED if name in ak.fields(array)}, whole)


def _untouched(records: Any, whole: FileCollection) -> bool:
    """Say whether some field of records is the file's, in its order."""
    for field in whole.layout.content.fields:
        one, other = leaf(records, field), whole.field(field)
        if one is not None and other is not None and one.direct and one.same_buffer(other):
            return True
    return False


def _flat(array: Any) -> npt.NDArray[Any]:
    return np.asarray(ak.to_numpy(ak.flatten(array, axis=None)))
