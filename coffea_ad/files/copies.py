"""Remote files as local ones, fetched once a process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import Any

from coffea_ad.files.content import _PIECE, replacing, unreadable
from coffea_ad.files.names import is_url
from coffea_ad.files.systems import forget_listings, located

__all__ = ["local_copy"]


class _LocalCopies:
    """Remote files that were read in this process, on the local disk until its end."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.paths: dict[tuple[str, str], Path] = {}

    def get(self, address: str) -> Path:
        filesystem, inner = located(address)
        try:
            forget_listings(filesystem)
            key = (address, str(filesystem.ukey(inner)))  # another one if the file was replaced
        except Exception as error:  # noqa: BLE001
            raise unreadable(address, error) from None
        if key not in self.paths:
            self.paths[key] = self._fetched(address, filesystem, inner)
        return self.paths[key]

    def _fetched(self, address: str, filesystem: Any, inner: str) -> Path:
        if self.folder is None:
            self.folder = tempfile.mkdtemp(prefix="coffea-ad-")
            atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        path = Path(self.folder) / uuid.uuid4().hex / inner.rpartition("/")[2]
        try:
            source = filesystem.open(inner, "rb")
        except Exception as error:  # noqa: BLE001
            raise unreadable(address, error) from None
        with source, replacing(path) as file:
            while piece := _piece(source, address):
                file.write(piece)
        return path


def _piece(source: Any, address: str) -> bytes:
    try:
        return bytes(source.read(_PIECE))
    except Exception as error:  # noqa: BLE001
        raise unreadable(address, error) from None


_COPIES = _LocalCopies()


def local_copy(path: str | Path) -> Path:
    """Return a local file with the content of another, which may be remote; it is fetched once and goes with the process.

    Raises
    ------
    BadFile
        It is not there, or cannot be read.
    NotWritten
        The folder for temporary files, which `TMPDIR` names, has no space.
    """
    return _COPIES.get(str(path)) if is_url(path) else Path(str(path).removeprefix("file://"))
