"""Names of datasets and files: what they are called here, whatever a fileset has for them."""

from __future__ import annotations

import hashlib
import os
import re
from numbers import Integral
from pathlib import PurePath
from typing import Any

from coffea_ad.errors import ConfigError

__all__ = ["DAS_NAME", "dataset_name", "file_and_tree", "is_das_name", "split_object"]

DAS_NAME = "das_name"
"""Key of the metadata under which the name in CMS's catalogue (DAS) stands."""

_NAME = re.compile(r"\w[\w.+-]*")
_DAS = re.compile(r"/[^/\s]+/[^/\s]+/[A-Z][A-Z-]*")
_OBJECT = re.compile(r"(.+\.root):([^:]+)", re.DOTALL)
_LONGEST = 200  # bytes; file systems take 255 of one name


def is_das_name(text: str) -> bool:
    """Say whether this is a name of a dataset in DAS.

    >>> is_das_name("/TTto4Q/Run3Summer22NanoAODv12-v2/NANOAODSIM"), is_das_name("/store/a.root")
    (True, False)
    """
    return _DAS.fullmatch(text) is not None


def dataset_name(key: Any) -> tuple[str, str | None]:
    """Return the name of a dataset, which is that of a folder as well, and its name in DAS if the key is one.

    Parameters
    ----------
    key : str, int or path

    Raises
    ------
    ConfigError
        No folder can have the name.

    Examples
    --------
    >>> dataset_name("/TTto4Q/Run3Summer22NanoAODv12-v2/NANOAODSIM")
    ('TTto4Q__Run3Summer22NanoAODv12-v2__NANOAODSIM', '/TTto4Q/Run3Summer22NanoAODv12-v2/NANOAODSIM')
    >>> dataset_name(2018)
    ('2018', None)
    """
    if isinstance(key, bool) or not isinstance(key, (str, Integral, PurePath)):
        raise ConfigError(f"dataset {key!r}: its name must be a text")
    text = str(key)
    _refuse_undecodable(text, f"dataset {_printable(text)}")
    das = text if is_das_name(text) else None
    name = text if das is None else text[1:].replace("/", "__")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"dataset {text!r}: its name becomes a folder; use letters, digits and . _ + - only, or a name in DAS such as "
            "/QCD/Run3Summer22NanoAODv12-v2/NANOAODSIM"
        )
    if len(name.encode()) > _LONGEST:
        name = (
            f"{name.encode()[: _LONGEST - 10].decode(errors='ignore')}__{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        )
    return name, das


def split_object(text: str) -> tuple[str, str | None]:
    """Return the path and the tree of `path:tree`, or the path and None.

    >>> split_object("root://host:1094//store/a.root:Events"), split_object("davs://host:443/b.root")
    (('root://host:1094//store/a.root', 'Events'), ('davs://host:443/b.root', None))
    """
    named = _OBJECT.fullmatch(text)
    return (text, None) if named is None else (named[1], named[2])


def file_and_tree(dataset: str, path: Any, tree: Any) -> tuple[str, str]:
    """Return the path of a file and the name of its tree, from `path` or `path:tree`.

    Parameters
    ----------
    dataset : str
        For the message.
    path : str or path
    tree : str or None
        What it is by default.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> file_and_tree("qcd", "root://host:1094//store/a.root:Events", None)
    ('root://host:1094//store/a.root', 'Events')
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str) or not os.fspath(path):
        raise ConfigError(f"dataset {dataset}: a file is {path!r}, but must be a path or an address")
    text = str(os.fspath(path))
    _refuse_undecodable(text, f"dataset {dataset}: file {_printable(text)}")
    text, named = split_object(text)
    tree = tree if named is None else named
    if re.search(r"\.(parquet|parq|pq)$", text):
        raise ConfigError(f"dataset {dataset}: {text} is no ROOT file; parquet is not read here")
    if not isinstance(tree, str) or not tree:
        raise ConfigError(f"dataset {dataset}: file {text!r} has no tree name")
    return text, str(tree)


def _printable(text: str) -> str:
    return ascii(text)


def _refuse_undecodable(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{what}: its name holds bytes that are no text in UTF-8; give it another") from None
