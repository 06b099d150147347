"""Counters against lists: nFatJet has to say of every event how many numbers FatJet_pt holds.

coffea cuts the numbers of all lists of a collection by its counter. Where the two disagree, jets are read as those of
another event, and nothing tells it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile

__all__ = ["compare_counters", "counter_of", "uncounted"]


def counter_of(branch: str, names: Iterable[str]) -> str | None:
    """Return the branch that counts what a list holds, or None if there is none among the names of a file.

    >>> counter_of("FatJet_pt", {"nFatJet"}), counter_of("PSWeight", {"nPSWeight"}), counter_of("run", {"nFatJet"})
    ('nFatJet', 'nPSWeight', None)
    """
    counter = f"n{branch.partition('_')[0]}"
    return counter if counter in names else None


def uncounted(types: Mapping[str, str]) -> dict[str, str]:
    """Return the collections of lists that nothing counts, {collection: one of its branches}.

    Parameters
    ----------
    types : {branch: type}
        As uproot names them.

    Examples
    --------
    >>> uncounted({"FatJet_pt": "float[]", "nJet": "int32_t", "Jet_pt": "std::vector<float>"})
    {'FatJet': 'FatJet_pt'}
    """
    out: dict[str, str] = {}
    for branch, kind in types.items():
        collection, underscore, _ = branch.partition("_")
        if underscore and kind.endswith(("[]", ">")) and f"n{collection}" not in types:
            out.setdefault(collection, branch)
    return out


def compare_counters(mapping: Any, tree: Any, names: Iterable[str], path: str) -> None:
    """Let a chunk compare every list that it reads with its counter, which is read once.

    Parameters
    ----------
    mapping : coffea's source of columns
        Of one chunk.
    tree : TTree or RNTuple
    names : iterable of str
        The branches of the tree.
    path : str
        Of the file, for the message.
    """
    have = frozenset(names)
    plain = mapping.extract_column
    counts: dict[tuple[str | None, int, int], Any] = {}

    def read(handle: Any, start: int, stop: int, allow_missing: bool, **more: Any) -> Any:
        name = None if handle is None else getattr(handle, "path", handle.name)  # the path of a field of a record
        if (name, start, stop) in counts:
            return counts[name, start, stop]
        array = plain(handle, start, stop, allow_missing, **more)
        layout = array.layout if hasattr(array, "layout") else array
        if name is not None and name[:1] == "n" and layout.is_numpy:
            _require_counts(np.asarray(layout.data), name, path, start)
        if name is None or not layout.is_list or layout.parameter("__array__") is not None:
            return array
        counter = counter_of(name, have)
        if counter is not None and hasattr(layout, "offsets"):
            if (counter, start, stop) not in counts:
                counts[counter, start, stop] = plain(tree[counter], start, stop, False, **more)
            _require_equal(np.asarray(counts[counter, start, stop]), layout, (counter, name), path, start)
        return array

    mapping.extract_column = read


def _require_counts(values: npt.NDArray[Any], name: str, path: str, start: int) -> None:
    negative = np.flatnonzero(values < 0)
    if len(negative):
        i = int(negative[0])
        raise BadFile(f"{path}: {name} is {values[i]} in event {start + i} (the first is 0), which counts nothing")


def _require_equal(said: npt.NDArray[Any], layout: Any, names: tuple[str, str], path: str, start: int) -> None:
    lengths = np.diff(np.asarray(layout.offsets.data))
    different = np.flatnonzero(said != lengths)
    if len(different):
        i = int(different[0])
        raise BadFile(
            f"{path}: {names[0]} is {said[i]} in event {start + i} (the first is 0), but {names[1]} holds {lengths[i]} numbers"
            f"; so it is in {len(different)} of {len(lengths)} events"
        )
