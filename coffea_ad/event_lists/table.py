"""Lists of events as one awkward array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np

from coffea_ad.event_lists.top import IDENTITY, TopEvents

__all__ = ["table_of"]


def table_of(lists: Mapping[str, TopEvents]) -> ak.Array:
    """Return a record for each event of each list, best first.

    Parameters
    ----------
    lists : {name: TopEvents}

    Returns
    -------
    (n,) ak.Array
        With a field `list`, the name; numbers that a list does not have are NaN.
    """
    names = dict.fromkeys([*IDENTITY, *(n for top in lists.values() for n in top.columns)])
    filled = [top for top in lists.values() if len(top)]
    columns: dict[str, Any] = {"list": [name for name, top in lists.items() for _ in range(len(top))]}
    for name in names:
        parts = [top.columns[name] if name in top.columns else np.full(len(top), np.nan) for top in filled]
        column = np.concatenate(parts) if parts else np.zeros(0, IDENTITY.get(name, np.float64))
        columns[name] = column.tolist() if column.dtype == object else column
    return ak.zip({n: _array(c) for n, c in columns.items()}, depth_limit=1)


def _array(column: object) -> ak.Array:
    if isinstance(column, list) and not column:
        return ak.Array([""])[:0]
    return ak.Array(column)
