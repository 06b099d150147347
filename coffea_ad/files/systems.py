"""File systems by address: which package each needs, how long a server is waited for, and why it failed."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import fsspec

from coffea_ad.errors import ConfigError
from coffea_ad.files.names import is_url

__all__ = [
    "forget_listings",
    "is_absent",
    "limit_waiting",
    "located",
    "patience",
    "prepare",
    "require_filesystem",
    "why",
]


_EXTRAS = {"root": "xrootd", "xroot": "xrootd", "s3": "s3", "s3a": "s3"}


def require_filesystem(address: str) -> None:
    """Raise if nothing that is installed can read a remote address.

    Raises
    ------
    ConfigError
    """
    protocol = address.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        # fsspec's own sentence goes on with a remark about root directories
        extra = _EXTRAS.get(protocol)
        needs = f"more packages: pip install 'coffea-ad[{extra}]'" if extra else f"a filesystem ({error})"
        raise ConfigError(f"{address}: {protocol}:// needs {needs}") from None


PATIENCE = 60.0  # s, by default


class _Patience:
    """How long this process waits for an answer, in seconds, and for which of that XRootD has been set."""

    seconds = PATIENCE
    settled: float | None = None


def patience() -> float:
    """Return how many seconds this process waits for an answer."""
    return _Patience.seconds


def limit_waiting(seconds: float) -> None:
    """Set how long this process waits for an XRootD server that does not answer.

    XRootD's own defaults are half an hour for an answer and two minutes for each of five attempts to connect. What the
    environment says (`XRD_REQUESTTIMEOUT` and others) stays. Other file systems have limits of their own.
    """
    _Patience.seconds = seconds
    if "XRootD" in sys.modules:
        prepare("root://")


def prepare(address: str) -> None:
    """Hand the limit of waiting to the library behind an address, before it is used."""
    if not address.startswith(("root://", "xroot://")) or _Patience.settled == _Patience.seconds:
        return
    require_filesystem(address)
    settings = importlib.import_module("XRootD.client").env.EnvPutInt
    whole = max(int(_Patience.seconds), 1)
    limits = {
        "RequestTimeout": whole,
        "StreamTimeout": whole,
        "StreamErrorWindow": 0,  # a connection that broke is an error at once: we try again, and say so
        "ConnectionWindow": min(whole, 30),
        "ConnectionRetry": 1,
        "TimeoutResolution": 1,
    }
    for name, value in limits.items():
        if f"XRD_{name.upper()}" not in os.environ:
            settings(name, value)
    if _Patience.settled is None:
        atexit.register(_let_go)
    _Patience.settled = _Patience.seconds


def _let_go() -> None:
    """Close what fsspec-xrootd holds open: it does so itself at the end, with a traceback if the server is gone."""
    for filesystem in fsspec.get_filesystem_class("root")._cache.values():  # noqa: SLF001
        cache = filesystem._readonly_filehandle_cache  # noqa: SLF001
        with contextlib.suppress(Exception):
            cache.close_all()
        cache._cache.clear()  # noqa: SLF001


def why(error: BaseException) -> str:
    """Return in a few words what is wrong, without the file that the error names."""
    if isinstance(error, FileExistsError) and error.filename:
        return f"{error.filename} is a file, not a folder"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def located(path: str | Path) -> tuple[Any, str]:
    """Return the file system of a path or address, and the path in it, without a slash at the end.

    Raises
    ------
    ConfigError
        Nothing that is installed can reach it.
    """
    address = str(path)
    if is_url(address):
        require_filesystem(address)
    prepare(address)
    try:
        filesystem, inner = fsspec.url_to_fs(address)
    except Exception as error:  # noqa: BLE001  file systems raise what they like
        raise ConfigError(f"{address}: cannot be reached ({why(error)})") from None
    return filesystem, inner.rstrip("/")


def forget_listings(filesystem: Any) -> None:
    """Make a file system look again: others write while it remembers."""
    if hasattr(filesystem, "dircache"):
        filesystem.dircache.clear()


def is_absent(error: BaseException) -> bool:
    """Say whether a file is not there, in whatever words a file system has for it."""
    return isinstance(error, FileNotFoundError) or "no such file" in str(error).lower()
