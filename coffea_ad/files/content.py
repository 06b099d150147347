"""Content of files: read, written so that a half of one is never seen, copied here once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from coffea_ad.errors import BadFile, ConfigError, NotWritten
from coffea_ad.files.names import absolute, is_url, join
from coffea_ad.files.systems import forget_listings, is_absent, located, why

__all__ = ["alone", "exists", "probe", "read", "remove", "replacing", "require_writable", "sees", "unreadable", "write"]


_SPOOL = 2**26  # bytes of a remote file that stay in memory until it is complete
_PIECE = 2**23  # bytes that are sent at a time
_PROBE = b"here"


def exists(path: str | Path) -> bool:
    """Say whether there is a file.

    Raises
    ------
    BadFile
        A server does not answer, a folder must not be read, or a disk knows no such name.
    """
    if not is_url(path):
        try:
            return Path(str(path).removeprefix("file://")).is_file()
        except OSError as error:
            raise BadFile(f"{path}: cannot be reached ({why(error)})") from None
    filesystem, inner = located(path)
    try:
        forget_listings(filesystem)
        return bool(filesystem.exists(inner)) and bool(filesystem.info(inner)["type"] == "file")
    except Exception as error:  # noqa: BLE001
        raise BadFile(f"{path}: cannot be reached ({why(error)})") from None


def read(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises
    ------
    BadFile
        It is not there, or cannot be read.
    """
    try:
        if not is_url(path):
            return Path(str(path).removeprefix("file://")).read_bytes()
        filesystem, inner = located(path)
        forget_listings(filesystem)
        with filesystem.open(inner, "rb") as file:
            return bytes(file.read())
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001
        raise unreadable(path, error) from None


def unreadable(path: str | Path, error: BaseException) -> BadFile:
    """Say that a file is not there, or why it cannot be read."""
    return BadFile(f"{path}: " + ("there is no such file" if is_absent(error) else f"cannot be read ({why(error)})"))


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file to write to, which takes the place of `path` when the block ends; after an error all is as it was.

    Its folder is made if it is not there. Until then the content lies under a name of its own that begins with a dot,
    so several processes may write the same file: the last one wins, with a whole file.

    Parameters
    ----------
    path : path or fsspec URL

    Yields
    ------
    file : binary file
        That can be written, searched and read.

    Raises
    ------
    NotWritten
        No space, no permission, no answer: one sentence with the path and the reason.

    Examples
    --------
    >>> with replacing("memory://folder/a.txt") as file:
    ...     file.write(b"complete")
    8
    >>> read("memory://folder/a.txt")
    b'complete'
    """
    with _replacing_remote(path) if is_url(path) else _replacing_local(path) as file:
        yield file


@contextlib.contextmanager
def _replacing_local(path: str | Path) -> Iterator[BinaryIO]:
    target = Path(str(path).removeprefix("file://"))
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w+b") as file:
            yield cast("BinaryIO", file)
        temporary.replace(target)
    except OSError as error:
        raise NotWritten(f"{path}: cannot be written ({why(error)})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _replacing_remote(path: str | Path) -> Iterator[BinaryIO]:
    """Send a file when it is complete: network file systems dislike many small pieces."""
    with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
        try:
            yield cast("BinaryIO", spool)
        except OSError as error:
            raise NotWritten(
                f"{path}: cannot be written; the local folder for temporary files: {why(error)}"
            ) from error
        spool.seek(0)
        filesystem, target = located(path)
        parent, _, name = target.rpartition("/")
        temporary = f"{parent}/.{name}.{uuid.uuid4().hex[:12]}.part"
        try:
            filesystem.makedirs(parent, exist_ok=True)
            with filesystem.open(temporary, "wb") as file:
                shutil.copyfileobj(spool, file, _PIECE)
            _move(filesystem, temporary, target)
        except Exception as error:  # file systems raise what they like
            with contextlib.suppress(Exception):
                filesystem.rm_file(temporary)
            raise NotWritten(f"{path}: cannot be written ({why(error)})") from error


def _move(filesystem: Any, source: str, target: str) -> None:
    try:
        filesystem.mv(source, target)
    except Exception:
        forget_listings(filesystem)
        if not (filesystem.exists(source) and filesystem.exists(target)):
            raise
        filesystem.rm_file(target)  # some servers rename onto nothing only
        filesystem.mv(source, target)


@contextlib.contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Keep other processes out of a local folder, as long as they ask by this too; they wait for their turn.

    Where the disk has no locks, and for a URL, nothing is kept out: let several runs write into folders of their own there.
    """
    with contextlib.ExitStack() as stack:
        if not is_url(folder):
            with contextlib.suppress(OSError):
                place = Path(absolute(folder))
                place.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(place, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def write(path: str | Path, content: bytes) -> None:
    """Write a file at once.

    Raises
    ------
    NotWritten
    """
    with replacing(path) as file:
        file.write(content)


def remove(path: str | Path) -> None:
    """Remove a file; one that is not there is no error.

    Raises
    ------
    NotWritten
    """
    try:
        if not is_url(path):
            Path(str(path).removeprefix("file://")).unlink(missing_ok=True)
            return
        filesystem, inner = located(path)
        forget_listings(filesystem)
        if filesystem.exists(inner):
            filesystem.rm_file(inner)
    except FileNotFoundError:
        return
    except Exception as error:
        raise NotWritten(f"{path}: cannot be removed ({why(error)})") from error


def probe(folder: str | Path) -> str:
    """Write a small file into a folder and return its path, for `sees` on other machines.

    Raises
    ------
    NotWritten
    """
    path = join(folder, f".probe-{uuid.uuid4().hex[:12]}")
    write(path, _PROBE)
    return path


def sees(path: str) -> bool:
    """Say whether this process reads a probe."""
    try:
        return read(path) == _PROBE
    except (BadFile, ConfigError):
        return False


def require_writable(folder: str | Path, what: str) -> None:
    """Raise if nothing can be written into a folder, which is made if it is not there.

    Raises
    ------
    ConfigError
        Saying what was to be written.
    """
    try:
        remove(probe(folder))
    except NotWritten as error:
        reason = why(error.__cause__ or error)
        raise ConfigError(f"{folder}: {what} cannot be written there ({reason})") from None
