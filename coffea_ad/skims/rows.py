"""Rows of a skim, read block by block: dense, sparse in memory, or in files that are larger than it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from coffea_ad import features
from coffea_ad.features.spec import FeatureSpec
from coffea_ad.skims.filters import Condition, column_of, expression
from coffea_ad.typing import Bools, Float32s, Ints

__all__ = ["DenseRows", "Keep", "RowWriter", "Rows", "SparseRows", "read_rows", "stored_columns"]

Keep = Literal["dense", "auto"]
_BLOCK = 2**22  # numbers that are dense at a time
_LARGE = 2**25  # numbers above which listed features are kept sparse, if the caller takes that


class _Store(Protocol):
    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""

    def rows(self, places: Ints) -> Float32s:
        """Return the rows at some places, (n,) → (n, *shape)."""


@dataclass(frozen=True)
class DenseRows:
    """Rows as they are, (n, *shape) float32, usually mapped from a file."""

    values: Float32s

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return tuple(self.values.shape[1:])

    def rows(self, places: Ints) -> Float32s:
        """Return the rows at some places."""
        return np.asarray(self.values[places])


@dataclass(frozen=True)
class SparseRows:
    """What is not 0 of every row: row i has value[k] at index[k] of its flat numbers, offsets[i] ≤ k < offsets[i + 1]."""

    offsets: Ints
    index: npt.NDArray[Any]
    value: Float32s
    shape: tuple[int, ...]

    def rows(self, places: Ints) -> Float32s:
        """Return the rows at some places."""
        first = self.offsets[places]
        counts = self.offsets[places + 1] - first
        row = np.repeat(np.arange(len(places)), counts)
        k = np.arange(len(row)) + np.repeat(first - np.cumsum(counts) + counts, counts)
        out = np.zeros((len(places), math.prod(self.shape)), np.float32)
        out[row, self.index[k]] = self.value[k]
        return out.reshape(-1, *self.shape)


class Rows:
    """Rows of a store in some order; reads like an array, and becomes one where it is indexed.

    Parameters
    ----------
    store : DenseRows or SparseRows
    places : (n,) int64
        Which rows of the store, and in which order.

    Examples
    --------
    >>> store = SparseRows(np.array([0, 1, 1, 3]), np.array([2, 0, 1]), np.array([5, 6, 7], np.float32), (3,))
    >>> rows = Rows(store, np.array([2, 0]))
    >>> rows.shape, rows[0].tolist(), rows[np.array([False, True])].tolist()
    ((2, 3), [6.0, 7.0, 0.0], [[0.0, 0.0, 5.0]])
    >>> rows.select(np.array([False, True])).shape  # nothing is read
    (1, 3)
    """

    dtype = np.dtype(np.float32)

    def __init__(self, store: _Store, places: Ints) -> None:
        self.store, self.places = store, places

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array, (n, *shape)."""
        return (len(self.places), *self.store.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.places)

    def __getitem__(self, which: Any) -> Float32s:
        """Read a row, or rows by a slice, places or a mask."""
        places = self.places[which]
        return self.store.rows(np.atleast_1d(places))[0] if np.ndim(places) == 0 else self.store.rows(places)

    def __iter__(self) -> Iterator[Float32s]:
        """Read one row after the other."""
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Read all rows."""
        if copy is False:
            raise ValueError("rows that are not in memory as they stand cannot be had without a copy")
        return self[:] if dtype is None else self[:].astype(dtype)

    def select(self, which: Any) -> Rows:
        """Return some of the rows, by a slice, places or a mask, without reading any."""
        return Rows(self.store, self.places[which])


class RowWriter:
    """Takes rows block by block, in memory or into files of a folder.

    Parameters
    ----------
    shape : tuple of int
        Of a row.
    sparse : bool
        Whether blocks are given by what is not 0.
    folder : path, optional
        Where the files go; older ones are replaced. None: memory.
    """

    def __init__(self, shape: Sequence[int], *, sparse: bool, folder: Path | None = None) -> None:
        self.shape, self.sparse, self.folder = tuple(shape), sparse, folder
        small = math.prod(self.shape) <= 2**16
        kinds: dict[str, Any] = {"index": np.uint16 if small else np.uint32, "value": np.float32}
        self.kinds = kinds if sparse else {"value": np.float32}
        self.counts: list[Ints] = []
        self.parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in self.kinds}
        self.files: dict[str, BinaryIO] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in self.kinds:
                # a training that still reads files of the same name keeps the ones that it has opened
                self._path(name).unlink(missing_ok=True)
                self.files[name] = self._path(name).open("wb")

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"rows.{name}"

    def append(self, values: Float32s, index: npt.NDArray[Any] | None = None, counts: Ints | None = None) -> None:
        """Take rows, (n, *shape); of sparse ones values and places, (k,), and how many of them each row has, (n,)."""
        columns = {"value": values} if index is None else {"value": values, "index": index}
        self.counts.append(np.full(len(values), 1) if counts is None else np.asarray(counts, np.int64))
        for name, kind in self.kinds.items():
            column = np.ascontiguousarray(columns[name], kind)
            if self.files:
                self.files[name].write(column.tobytes())
            else:
                self.parts[name].append(column)

    def finish(self) -> DenseRows | SparseRows:
        """Return what was written, in the order in which it came."""
        for file in self.files.values():
            file.close()
        counts = np.concatenate([np.zeros(0, np.int64), *self.counts])
        row = () if self.sparse else self.shape
        numbers = {name: self._column(name, int(counts.sum()), row) for name in self.kinds}
        if not self.sparse:
            return DenseRows(numbers["value"])
        return SparseRows(np.r_[0, np.cumsum(counts)], numbers["index"], numbers["value"], self.shape)

    def _column(self, name: str, n: int, row: tuple[int, ...]) -> npt.NDArray[Any]:
        kind = self.kinds[name]
        if not self.files or n == 0:  # no empty file can be mapped
            return np.concatenate([np.zeros((0, *row), kind), *self.parts.pop(name)])
        return np.memmap(self._path(name), kind, "r", shape=(n, *row))


def _listed(spec: FeatureSpec) -> bool:
    feature = features.get(spec.name)
    return feature.listed(feature.resolve(spec.options))


def stored_columns(spec: FeatureSpec, key: str) -> list[str]:
    """Return the columns of a skim that hold a feature; `key` is what stands before their names."""
    return [f"{key}.{part}" for part in (("index", "value") if _listed(spec) else (c.name for c in spec.columns))]


def _nonzero(table: pa.Table, spec: FeatureSpec) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], Bools]:
    """Return values, places and their numbers by row of a listed feature, and which rows are finite."""
    places, numbers = (table[c].combine_chunks() for c in stored_columns(spec, spec.key))
    counts = places.value_lengths().fill_null(0).to_numpy()
    value = numbers.flatten().to_numpy()
    row = np.repeat(np.arange(len(table)), counts)
    wrong = np.bincount(row, ~np.isfinite(value), len(table)) > 0
    return value, places.flatten().to_numpy(), counts, ~(wrong | places.is_null().to_numpy(zero_copy_only=False))


def _dense(table: pa.Table, spec: FeatureSpec) -> tuple[Float32s, Bools]:
    """Return a feature of a table, (n, *shape), and which rows are finite."""
    if not _listed(spec):
        x = np.stack([table[c].to_numpy() for c in stored_columns(spec, spec.key)], axis=1).astype(np.float32)
        return x, np.asarray(np.isfinite(x).all(axis=1))
    value, places, counts, finite = _nonzero(table, spec)
    x = np.zeros((len(table), math.prod(spec.row_shape)), np.float32)
    x[np.repeat(np.arange(len(x)), counts), places] = value
    return x.reshape(-1, *spec.row_shape), finite


def _blocks(files: Sequence[tuple[Path, str]], spec: FeatureSpec, filters: Sequence[Condition]) -> Iterator[pa.Table]:
    """Read the columns of a feature, a block of rows at a time; they are called by the feature's key."""
    passing = expression(filters)
    asked = [column_of(f) for f in filters]
    size = min(max(_BLOCK // math.prod(spec.row_shape), 1), 65_536)
    for path, key in files:
        names = stored_columns(spec, key)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(size, columns=list(dict.fromkeys([*names, *asked]))):
                table = pa.Table.from_batches([batch])
                rows = table if passing is None else table.filter(passing)
                yield rows.select(names).rename_columns(stored_columns(spec, spec.key))


def read_rows(
    files: Sequence[tuple[Path, str]], spec: FeatureSpec, filters: Sequence[Condition], order: npt.NDArray[Any], keep: Keep,
    folder: Path | None,
) -> tuple[Float32s | Rows, Bools]:  # fmt: skip
    """Read the rows of a feature from files of a skim.

    Parameters
    ----------
    files : sequence of (path, str)
        What stands before the names of the feature's columns may differ from file to file.
    spec : FeatureSpec
    filters : sequence of (column, operator, value)
        As `filters.conditions` gives them.
    order : (n,) int64
        Which row of all files comes first, second, …
    keep : "dense" or "auto"
    folder : path, optional
        Where the rows go, if not into memory.

    Returns
    -------
    x : (n, *shape) float32, or Rows
    finite : (n,) bool
    """
    n, start = len(order), 0
    finite: Bools = np.zeros(n, bool)
    large = n * math.prod(spec.row_shape) > _LARGE
    sparse = _listed(spec) and (folder is not None or (keep == "auto" and large))
    if folder is None and not sparse:
        x = np.empty((n, *spec.row_shape), np.float32)
        place = np.empty(n, np.int64)
        place[order] = np.arange(n)
        for table in _blocks(files, spec, filters):
            rows = place[start : start + len(table)]
            x[rows], finite[rows] = _dense(table, spec)
            start += len(table)
        return x, finite
    writer = RowWriter(spec.row_shape, sparse=sparse, folder=folder)
    for table in _blocks(files, spec, filters):
        if sparse:
            value, places, counts, good = _nonzero(table, spec)
            writer.append(value, places, counts)
        else:
            values, good = _dense(table, spec)
            writer.append(values)
        finite[start : start + len(table)] = good
        start += len(table)
    return Rows(writer.finish(), order), finite[order]
