"""HDF5 files by h5py alone: tables as pandas writes them in its `fixed` layout, and plain arrays."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.errors import SkimError
from coffea_ad.typing import Float64s

__all__ = ["Frame", "opened"]


@contextlib.contextmanager
def opened(path: Path, address: str) -> Iterator[Any]:
    """Open a file with h5py; errors of reading are one sentence.

    Raises
    ------
    SkimError
        It is no HDF5 file, or is compressed with something that is not installed.
    ModuleNotFoundError
        h5py is not installed: the extra `import`.
    """
    import h5py

    with contextlib.suppress(ImportError):
        importlib.import_module("hdf5plugin")  # blosc and others, where it is installed
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SkimError(f"{address}: not a readable HDF5 file ({error})") from None
    with file:
        try:
            yield file
        except OSError as error:
            raise SkimError(
                f"{address}: its content cannot be read ({error}); if it is compressed with blosc, pip install hdf5plugin"
            ) from None


class Frame:
    """A table of numbers in pandas' fixed layout: blocks of columns of one type each.

    Parameters
    ----------
    file : h5py.File
    address : str
        For messages.

    Raises
    ------
    SkimError
        There is no such table, or more than one.
    """

    def __init__(self, file: Any, address: str) -> None:
        self.address = address
        groups = [file, *(file[name] for name in file if hasattr(file[name], "keys"))]
        frames = [group for group in groups if "axis0" in group and "block0_values" in group]
        if any("table" in group and "_i_table" in group for group in groups):
            raise SkimError(
                f"{address}: this is a table in pandas' layout 'table', which needs pytables; write it again with "
                'pandas.DataFrame.to_hdf(…, format="fixed")'
            )
        if len(frames) != 1:
            raise SkimError(f"{address}: {len(frames)} tables in pandas' fixed layout are in it, but one is needed")
        (group,) = frames
        self.columns = [_text(name) for name in group["axis0"][:]]
        self.place: dict[str, tuple[Any, int]] = {}
        i = 0
        while f"block{i}_values" in group:
            values = group[f"block{i}_values"]
            names = [_text(name) for name in group[f"block{i}_items"][:]]
            if values.ndim != 2 or values.shape[1] != len(names) or values.dtype.kind not in "fiub":
                raise SkimError(f"{address}: block{i}_values does not hold numbers of {len(names)} columns")
            self.place |= {name: (values, k) for k, name in enumerate(names)}
            i += 1
        self.n = min(len(values) for values, _ in self.place.values()) if self.place else 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.n

    def read(self, names: Sequence[str], start: int, stop: int) -> Float64s:
        """Return some columns of rows start … stop, (rows, len(names))."""
        out = np.empty((min(stop, self.n) - start, len(names)))
        blocks = {id(self.place[name][0]): self.place[name][0] for name in names}
        rows = {key: values[start : min(stop, self.n)] for key, values in blocks.items()}
        for k, name in enumerate(names):
            values, column = self.place[name]
            out[:, k] = rows[id(values)][:, column]
        return out


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
