"""Batches for the runtime: in the order of the rows, or rows of few objects apart from those of many, without empty slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["batches"]

_OF_SETS = 32  # rows of a batch of sets: what attention and networks make of 32 times 50 objects stays in a cache

Batch = Mapping[str, npt.NDArray[Any]]
Places = slice | npt.NDArray[np.intp]


def batches(rows: Batch, size: int, *, slots_vary: bool = False) -> Iterator[tuple[Places, Batch]]:
    """Divide rows into batches, and say which they are.

    If the number of slots may vary, rows are sorted by the place of their last slot that is not empty, and a batch has the
    slots that one of its rows needs: where a graph takes no notice of empty slots, its scores are the same, and attention among n
    objects takes a time like n².

    Parameters
    ----------
    rows : {input: (n, *shape)}
    size : int
        Rows of a batch, at most.
    slots_vary : bool
        Whether empty slots, all numbers of which are 0, may be left out at the end of rows of the shape (slots, columns).

    Yields
    ------
    places, {input: (m, *shape)}

    Examples
    --------
    >>> sets = np.array([[[1.0], [2.0], [3.0]], [[4.0], [0.0], [0.0]]])
    >>> [(places.tolist(), part["x"].shape) for places, part in batches({"x": sets}, 1, slots_vary=True)]
    [([1], (1, 2, 1)), ([0], (1, 3, 1))]
    """
    n = len(next(iter(rows.values())))
    if not (slots_vary and len(rows) == 1 and n):
        for start in range(0, n, size):
            places = slice(start, min(start + size, n))
            yield places, {name: array[places] for name, array in rows.items()}
        return
    ((name, array),) = rows.items()
    filled = (array != 0).any(axis=2)
    n_slots = array.shape[1] - filled[:, ::-1].argmax(axis=1)
    n_slots[~filled.any(axis=1)] = 0
    order = np.argsort(n_slots, kind="stable")
    step = min(size, _OF_SETS)
    for start in range(0, n, step):
        which = order[start : start + step]
        yield which, {name: array[which, : max(int(n_slots[which[-1]]), 2)]}  # of one slot no graph has to know
