"""Layouts of awkward arrays: numbers inside any nesting, and records that objects were picked from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.errors import MissingIndex
from coffea_ad.typing import Ints

__all__ = ["Picked", "leaf", "options_in", "pick"]


def options_in(array: Any) -> int:
    """Count the places where values may be missing."""
    text = str(ak.type(array))
    return text.count("?") + text.count("option[")


def leaf(array: Any) -> tuple[npt.NDArray[Any], Any]:
    """Return the flat values of a nested array of numbers, and the packed array they belong to."""

    def index(layout: Any, **_: Any) -> Any:
        return layout.to_IndexedOptionArray64() if layout.is_option and not layout.is_indexed else None

    # what is masked out is not among the values: only an index, unlike a mask, drops it when packed
    packed = ak.to_packed(ak.transform(index, array))
    leaves: list[npt.NDArray[Any]] = []

    def look(layout: Any, **_: Any) -> Any:
        if layout.is_numpy:
            leaves.append(np.asarray(layout.data))
            return layout
        return None

    ak.transform(look, packed)
    return (leaves[0] if leaves else np.zeros(0, np.int64)), packed


@dataclass(frozen=True)
class Picked:
    """Objects as places among records: what masks, slices and sorts leave of a collection."""

    records: Any
    places: Ints
    structure: Any

    def column(self, name: str) -> npt.NDArray[Any] | None:
        """Return a field that is as it was read: picked from the records, instead of projecting every index again."""
        content = self.records.content(name)
        if not content.is_numpy or content.is_option:
            return None
        return np.asarray(ak.to_numpy(ak.Array(content)))[self.places]

    def shaped(self, content: Any) -> Any:
        """Give one value or record per object the shape of what was passed in."""

        def put(layout: Any, **_: Any) -> Any:
            return content if layout.is_numpy else None

        return ak.transform(put, self.structure)


def pick(array: Any) -> Picked:
    """Find the records that objects are picked from.

    Raises
    ------
    MissingIndex
        They come from more than one array.
    """
    records: list[Any] = []

    def number(layout: Any, **_: Any) -> Any:
        if not layout.is_record:
            return None
        records.append(layout)
        return ak.contents.NumpyArray(np.arange(layout.length))

    places, structure = leaf(ak.transform(number, array))
    if len(records) != 1:
        raise MissingIndex("objects of different arrays were joined here; score each array by itself")
    return Picked(records[0], places, structure)
