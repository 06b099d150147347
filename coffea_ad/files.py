"""Files by path or fsspec URL: read, written so that a half of one is never seen, and errors that name them.

Everything that a run, a skim or a checkpoint writes goes through `replacing`, onto a disk or to any storage that fsspec knows,
such as `root://host//folder` and `s3://bucket/folder`.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import importlib
import os
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import fsspec

from coffea_ad.errors import BadFile, ConfigError, NotWritten

__all__ = [
    "absolute",
    "alone",
    "as_name",
    "exists",
    "is_name",
    "is_url",
    "join",
    "limit_waiting",
    "local_copy",
    "located",
    "parted",
    "patience",
    "prepare",
    "probe",
    "read",
    "remove",
    "replacing",
    "require_filesystem",
    "require_writable",
    "sees",
    "why",
    "write",
]

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EXTRAS = {"root": "xrootd", "xroot": "xrootd", "s3": "s3", "s3a": "s3"}
_SPOOL = 2**26  # bytes of a remote file that stay in memory until it is complete
_PIECE = 2**23  # bytes that are sent at a time
_PROBE = b"here"


_NAME = re.compile(r"[\w.+-]*[\w+-][\w.+-]*")


def is_name(text: str) -> bool:
    """Say whether a text can be the name of something that names files: letters, digits and . _ + - only, and not only dots.

    >>> [is_name(t) for t in ("tight_2tag", "eff1e-05", "..", "a/b", "")]
    [True, True, False, False, False]
    """
    return _NAME.fullmatch(text) is not None


def as_name(text: str) -> str:
    """Return a text with `_` for what no file name should have.

    >>> as_name("jets/pt"), as_name(".."), as_name("x/../../escaped")
    ('jets_pt', '__', 'x_.._.._escaped')
    """
    name = re.sub(r"[^\w.+-]", "_", text)
    return name if is_name(name) else "_" * max(len(name), 1)


def is_url(path: str | Path) -> bool:
    """Say whether a path is the address of a remote file; `file://` is not.

    >>> is_url("root://host//store/a.root"), is_url("skims/"), is_url("file:///skims")
    (True, False, False)
    """
    return bool(_URL.match(str(path))) and not str(path).startswith("file://")


def absolute(path: str | Path) -> str:
    """Return a local path in full and without links, and an address as it is, both without a slash at the end.

    >>> absolute("root://host//skims/")
    'root://host//skims'
    """
    if is_url(path):
        return str(path).rstrip("/")
    return str(Path(str(path).removeprefix("file://")).resolve())


def join(folder: str | Path, *names: str) -> str:
    """Return the path of something in a folder.

    >>> join("s3://bucket/skims/", "qcd", "a.parquet"), join("skims", "qcd")
    ('s3://bucket/skims/qcd/a.parquet', 'skims/qcd')
    """
    if is_url(folder):
        return "/".join([str(folder).rstrip("/"), *names])
    return str(Path(str(folder).removeprefix("file://"), *names))


def parted(path: str | Path) -> tuple[str, str]:
    """Return the folder of a path or address, and the name in it.

    >>> parted("root://host//skims/a.root"), parted("a.root")
    (('root://host//skims', 'a.root'), ('.', 'a.root'))
    """
    if is_url(path):
        folder, _, name = str(path).rstrip("/").rpartition("/")
        return (folder + "/" if folder.endswith(":/") else folder), name
    local = Path(str(path).removeprefix("file://"))
    return str(local.parent), local.name


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


def _forget_listings(filesystem: Any) -> None:
    """Make a file system look again: others write while it remembers."""
    if hasattr(filesystem, "dircache"):
        filesystem.dircache.clear()


def _is_absent(error: BaseException) -> bool:
    return isinstance(error, FileNotFoundError) or "no such file" in str(error).lower()


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
        _forget_listings(filesystem)
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
        _forget_listings(filesystem)
        with filesystem.open(inner, "rb") as file:
            return bytes(file.read())
    except ConfigError:
        raise
    except Exception as error:  # noqa: BLE001
        raise _unreadable(path, error) from None


def _unreadable(path: str | Path, error: BaseException) -> BadFile:
    return BadFile(f"{path}: " + ("there is no such file" if _is_absent(error) else f"cannot be read ({why(error)})"))


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
        _forget_listings(filesystem)
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
        _forget_listings(filesystem)
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


class _LocalCopies:
    """Remote files that were read in this process, on the local disk until its end."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.paths: dict[tuple[str, str], Path] = {}

    def get(self, address: str) -> Path:
        filesystem, inner = located(address)
        try:
            _forget_listings(filesystem)
            key = (address, str(filesystem.ukey(inner)))  # another one if the file was replaced
        except Exception as error:  # noqa: BLE001
            raise _unreadable(address, error) from None
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
            raise _unreadable(address, error) from None
        with source, replacing(path) as file:
            while piece := _piece(source, address):
                file.write(piece)
        return path


def _piece(source: Any, address: str) -> bytes:
    try:
        return bytes(source.read(_PIECE))
    except Exception as error:  # noqa: BLE001
        raise _unreadable(address, error) from None


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
