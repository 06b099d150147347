"""Histograms as one compressed file of UHI: `histograms.zip`, which `uhi.io.zip` reads without this package."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from typing import Any

import hist
import uhi.io.json
import uhi.io.zip

__all__ = ["digest", "from_bytes", "from_json", "to_bytes"]

Named = dict[str, dict[str, hist.Hist]]
_INDEX = "index.json"
_BEGIN_OF_TIME = (1980, 1, 1, 0, 0, 0)


class _Undated(zipfile.ZipFile):
    """An archive whose bytes follow from its content: a member has no date."""

    def open(self, name: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
        return super().open(self._member(name) if mode == "w" else name, mode, *args, **kwargs)

    def writestr(self, zinfo_or_arcname: Any, *args: Any, **kwargs: Any) -> None:
        super().writestr(self._member(zinfo_or_arcname), *args, **kwargs)

    def _member(self, name: Any) -> Any:
        if isinstance(name, zipfile.ZipInfo):
            return name
        member = zipfile.ZipInfo(name, _BEGIN_OF_TIME)
        member.compress_type = self.compression
        member.external_attr = 0o600 << 16
        return member


def to_bytes(histograms: Named) -> bytes:
    """Return the archive of histograms; the same histograms give the same bytes.

    Parameters
    ----------
    histograms : {group: {name: Hist}}
        Each is the entry `group/name`; `index.json` lists them as (group, name, entry).

    Examples
    --------
    >>> h = hist.Hist(hist.axis.Regular(2, 0, 1, name="x"), data=[1.0, 2.0])
    >>> data = to_bytes({"tt": {"x": h}})
    >>> data == to_bytes({"tt": {"x": h}}), from_bytes(data)["tt"]["x"] == h
    (True, True)
    """
    memory = io.BytesIO()
    index: list[tuple[str, str, str]] = []
    with _Undated(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for group, content in histograms.items():
            for name, histogram in content.items():
                entry = f"{group}/{name}"
                while any(entry == other for *_, other in index):
                    entry += "~"  # of a/b and c, and of a and b/c
                uhi.io.zip.write(archive, entry, histogram)
                index.append((group, name, entry))
        archive.writestr(_INDEX, json.dumps(index))
    return memory.getvalue()


def from_bytes(data: bytes) -> Named:
    """Return what `to_bytes` has packed.

    Raises
    ------
    ValueError
        It is no such archive, or a damaged one.
    """
    out: Named = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for group, name, entry in json.loads(archive.read(_INDEX)):
                out.setdefault(group, {})[name] = hist.Hist(uhi.io.zip.read(archive, entry))
    except (
        zipfile.BadZipFile, zlib.error, LookupError, AttributeError, TypeError, EOFError, OSError, RuntimeError, MemoryError,
    ) as error:  # fmt: skip
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return out


def from_json(data: bytes) -> Named:
    """Return the histograms of a `histograms.json`, in which folders of earlier versions keep them."""
    stored = json.loads(data, object_hook=uhi.io.json.object_hook)
    return {group: {name: hist.Hist(h) for name, h in content.items()} for group, content in stored.items()}


def digest(data: bytes) -> str:
    """Return the SHA-256 of the bytes, as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()
