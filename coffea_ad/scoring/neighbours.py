"""Batches in which a row must keep its score: alone, backwards, in a full batch, and beside rows of other sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadModel

__all__ = ["LARGEST", "depends", "rescored"]

LARGEST = 1024  # rows of the largest batch that is tried: what a run hands to the runtime at a time
_SIZES = (1.0, 1e3, -1e3, 10.0, -10.0, 0.0)

Batch = Mapping[str, npt.NDArray[Any]]
Score = Callable[[dict[str, npt.NDArray[Any]]], npt.NDArray[Any]]


def rescored(
    score: Score, rows: Batch, size: int = LARGEST, *, extremes: bool = False
) -> Iterator[tuple[npt.NDArray[Any], str]]:
    """Yield the scores of the same rows in other batches, with words for the batch.

    A batch of a run holds what a chunk left of the events: one row or a thousand, in any order, and beside any other. A
    score that means something is the same in all of them.

    Parameters
    ----------
    score : callable
        {input: (m, *shape)} → (m,), in one batch.
    rows : {input: (n, *shape)}
    size : int
        Rows of the full batch, in which the rows stand last, after as many repetitions as are needed.
    extremes : bool
        Whether to put them beside rows that are zero and up to a thousand times as large, too.

    Yields
    ------
    (n,) scores, text

    Examples
    --------
    >>> batch_mean = lambda batch: batch["x"][:, 0] - batch["x"][:, 0].mean()
    >>> for scores, how in rescored(batch_mean, {"x": np.array([[1.0], [3.0]])}, size=4):
    ...     print(scores.tolist(), how)
    [0.0, 0.0] scored by itself
    [-1.0, 1.0] scored in another order
    [-1.0, 1.0] among 4 rows
    """
    n = len(next(iter(rows.values())))
    yield np.concatenate([score(_taken(rows, slice(i, i + 1))) for i in range(n)]), "scored by itself"
    yield score(_taken(rows, slice(None, None, -1)))[::-1], "scored in another order"
    size = max(size, n)
    places = np.arange(size)[::-1] % n
    full = _taken(rows, places)
    yield score(full)[size - n :][::-1], f"among {size} rows"
    if extremes and size > n:
        try:
            scores = score({key: _resized(value, n) for key, value in full.items()})
        except BadModel:  # rows that the network cannot take at all, such as those that it looks up in a table
            return
        yield scores[size - n :][::-1], "beside larger rows"


def depends(name: str, score: float, among: int, other: float, how: str) -> str:
    """Say that the score of a row depends on its batch."""
    return (
        f"{name}: the score of a row depends on the other rows of its batch: {score:.6g} among {among} rows is {other:.6g} "
        f"{how}, as with batch normalisation in training mode; export the network for inference"
    )


def _taken(rows: Batch, places: Any) -> dict[str, npt.NDArray[Any]]:
    return {key: np.ascontiguousarray(value[places]) for key, value in rows.items()}


def _resized(values: npt.NDArray[Any], last: int) -> npt.NDArray[Any]:
    """Scale all but the last rows, each repetition by another factor, within what float32 holds."""
    others = len(values) - last
    factor = np.resize(np.repeat(_SIZES, last), others).reshape(others, *[1] * (values.ndim - 1))
    bound = float(np.finfo(values.dtype).max)
    larger = np.clip(values[:others].astype(np.float64) * factor, -bound, bound).astype(values.dtype)
    return np.concatenate([larger, values[others:]])
