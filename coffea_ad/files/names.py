"""Names, paths and addresses of files."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["absolute", "as_name", "is_name", "is_url", "join", "parted"]


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
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
