"""Where the files of a fileset come from: globs, folders, lists and addresses, and their words on a command line."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable
from pathlib import Path

import fsspec  # through it uproot reads everything that is not a local file

from coffea_ad.errors import ConfigError
from coffea_ad.files.systems import prepare, require_filesystem
from coffea_ad.filesets import is_fileset
from coffea_ad.filesets.names import dataset_name, is_das_name, split_object

__all__ = ["absolute", "expand_source", "parse_sources"]

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def parse_sources(words: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Sort the words of a command line into existing filesets (`old.json`) and sources (`NAME=SOURCE …`).

    >>> parse_sources(["old.json", "qcd=a.root", "b.root", "tt=@tt.txt"])
    (['old.json'], {'qcd': ['a.root', 'b.root'], 'tt': ['@tt.txt']})

    Raises
    ------
    ConfigError
        A word belongs to no dataset, or a dataset has no files.
    """
    existing: list[str] = []
    sources: dict[str, list[str]] = {}
    name = None
    for word in words:
        head, equals, source = word.partition("=")
        # what the shell made of a glob may have = in its path
        is_path = not equals or ("/" in head and not is_das_name(head)) or (name is not None and Path(word).exists())
        if not is_path:
            dataset_name(head)
            name = head
            sources.setdefault(name, []).extend([source] if source else [])
        elif not equals and is_fileset(word):
            existing.append(word)
        elif name is None:
            raise ConfigError(f"{word}: say to which dataset it belongs, as in NAME={word}")
        else:
            sources[name].append(word)
    for dataset, listed in sources.items():
        if not listed:
            raise ConfigError(f"dataset {dataset}: no files are given for it")
    return existing, sources


def absolute(path: str | Path) -> str:
    """Return a local path in full and without links, and an address as it is."""
    return str(path) if _ADDRESS.match(str(path)) else str(Path(path).resolve())


def expand_source(source: str) -> list[str]:
    """Return the files that a source stands for.

    Raises
    ------
    ConfigError
        It stands for none.
    """
    if not source.startswith("@"):
        return _files_at(source, Path())
    name = source[1:]
    try:
        listing = Path(name).expanduser()
    except RuntimeError as error:  # nobody of the name behind ~
        raise ConfigError(f"{name}: {error}") from None
    try:
        lines = [re.split(r"(?:^|\s)#", line)[0].strip() for line in listing.read_text().splitlines()]
    except OSError as error:
        raise ConfigError(f"{name}: the list of files cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: the list of files is not a text file") from None
    if not any(lines):
        raise ConfigError(f"{name}: the list holds no files")
    return [path for line in lines if line for path in _files_at(line, listing.parent)]


def _files_at(source: str, folder: Path) -> list[str]:
    """Expand a glob, a folder, a file or an address, with or without `:tree`; relative paths start at `folder`."""
    place, tree = split_object(source)
    return _expanded(place, folder) if tree is None else [f"{path}:{tree}" for path in _expanded(place, folder)]


def _expanded(source: str, folder: Path) -> list[str]:
    if _ADDRESS.match(source) and not source.startswith("file://"):
        return _remote(source)
    try:
        named = Path(source.removeprefix("file://")).expanduser()
        path = folder / named
        is_glob = any(c in source for c in "*?[") and not path.exists()
        if not (is_glob or path.is_dir()):
            if is_fileset(source) or path.suffix == ".txt":
                what = "a fileset takes no NAME=" if is_fileset(source) else f"a list is given as @{source}"
                raise ConfigError(f"{source}: this is no ROOT file; {what}")
            return [absolute(path)]
        # a ** meets a folder and its files: within one glob that is one file
        matched = [folder / name for name in _glob(str(named), folder)] if is_glob else [path]
        inside = {p: None for m in matched for p in ([m / n for n in _glob("**/*.root", m)] if m.is_dir() else [m])}
        if not inside:
            what = "nothing matches" if is_glob else "there is no *.root file in this folder"
            raise ConfigError(f"{source}: {what}")
        return [absolute(p) for p in inside]
    except RuntimeError as error:  # nobody of the name behind ~, or links in a circle
        raise ConfigError(f"{source}: {error}") from None


def _glob(pattern: str, folder: Path) -> list[str]:
    # follows linked folders and leaves out hidden files, such as those of copies under way, which Path.glob does not
    return sorted(glob.glob(pattern, root_dir=folder, recursive=True))  # noqa: PTH207


def _remote(address: str) -> list[str]:
    if address.endswith("/"):
        raise ConfigError(f"{address}: folders are not searched over the network; give a glob, such as {address}*.root")
    if "*" not in address:  # ? and [ are at home in addresses
        return [address]
    require_filesystem(address)
    prepare(address)
    try:
        filesystem, path = fsspec.core.url_to_fs(address)
        paths = sorted(filesystem.unstrip_protocol(p) for p in filesystem.glob(path))
    except Exception as error:  # noqa: BLE001  every filesystem has its own errors
        raise ConfigError(f"{address}: cannot be listed ({' '.join(str(error).split())[:160]})") from None
    if not paths:
        raise ConfigError(f"{address}: there is no such file")
    return paths
