"""The modules of a processor that belong to no library: which they are, and how they reach the workers."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from coffea_ad.recipes import imports_of, installed

__all__ = ["Source", "SourceFinder", "Sources", "local_modules", "noting_imports"]

_PROCESS = uuid.uuid4().hex
_imported_by: dict[str, set[str]] = {}
"""Modules that were imported while a processor worked on its first events, by the module of the processor."""


@cache
def _holds_packages(folder: Path) -> bool:
    """Say whether packages were installed into a folder, wherever it lies, as by `pip install --target`."""
    return any(folder.glob("*.dist-info"))


def _local(name: str, origin: str | None) -> Path | None:
    """Return the file of a module, if it belongs to no library."""
    if not origin or not Path(origin).is_file() or installed(path := Path(origin).resolve()):
        return None
    depth = name.count(".") + (path.stem == "__init__")
    return None if _holds_packages(path.parents[min(depth, len(path.parents) - 1)]) else path


def _file_of(name: str) -> Path | None:
    """Return the file of a module, loaded or not; only a package that is loaded is looked into by the import system."""
    if name in sys.modules:
        return _local(name, getattr(sys.modules[name], "__file__", None))
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not rest:
        return None if spec is None else _local(name, spec.origin)
    for folder in spec.submodule_search_locations or ():
        place = Path(folder).joinpath(*rest)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return _local(name, str(path))
    return None


def _imports(name: str, path: Path) -> Iterator[str]:
    """Yield the names of modules that a file may import, also inside functions."""
    try:
        imports = imports_of(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    parts = name.split(".")
    package = parts if path.stem == "__init__" else parts[:-1]
    for level, source in imports:
        base = package[: len(package) - level + 1] if level else []
        if full := ".".join([*base, *([source] if source else [])]):
            yield full


def _used_by(module: ModuleType) -> Iterator[str]:
    """Yield the names of modules that a module's globals come from."""
    for value in list(vars(module).values()):
        name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str):
            yield name


def local_modules(home: ModuleType) -> dict[str, Path]:
    """Return the files of a module and of all that it uses, libraries left out, however they are found.

    Parameters
    ----------
    home : module
        Of a processor.

    Returns
    -------
    {name: Path}
        Also of modules that are imported inside functions, and of those that were while `noting_imports` watched.
    """
    paths: dict[str, Path] = {}
    seen: set[str] = set()
    waiting = [home.__name__, *sorted(_imported_by.get(home.__name__, ()))]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _file_of(name)
        parents = [".".join(name.split(".")[:i]) for i in range(1, name.count(".") + 1)]
        if path is None and name == home.__name__ and name in sys.modules:
            waiting += _used_by(home)  # a notebook, or a recipe of this package
        if path is not None:
            paths[name] = path
            waiting += [*parents, *_imports(name, path)]
            if name in sys.modules:
                waiting += _used_by(sys.modules[name])
    return paths


@contextmanager
def noting_imports(home: ModuleType | None) -> Iterator[None]:
    """Remember what is imported meanwhile as used by a module: nothing else knows of names that are made up at run time."""
    before = set(sys.modules)
    try:
        yield
    finally:
        if home is not None:
            new = {name for name in set(sys.modules) - before if _file_of(name) is not None}
            _imported_by.setdefault(home.__name__, set()).update(new)


class Source(NamedTuple):
    """A module's file and its text; a package has an `__init__.py`, or is a folder without one and has no text."""

    path: str
    text: bytes
    package: bool


class SourceFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds the modules whose sources were sent to this process.

    Parameters
    ----------
    sources : {name: Source}
    """

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self.sources = dict(sources)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:  # fmt: skip
        """Return where a module comes from, if it was sent."""
        if fullname not in self.sources:
            return None
        source = self.sources[fullname]
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=source.path or None, is_package=source.package)
        spec.has_location = bool(source.path)
        return spec

    def get_source(self, fullname: str) -> str:
        """Return the text of a module."""
        return importlib.util.decode_source(self.sources[fullname].text)

    def is_package(self, fullname: str) -> bool:
        """Say whether a module is a package."""
        return self.sources[fullname].package


class Sources:
    """The texts of modules, as they are now; where this is unpickled, they can be imported.

    They come before files of the same name that a worker has: an older copy would give other results without a word.

    Parameters
    ----------
    modules : {name: Path}
        As `local_modules` returns them.
    """

    def __init__(self, modules: Mapping[str, Path]) -> None:
        self.sources = {
            name: Source(str(path), path.read_bytes(), path.stem == "__init__")
            for name, path in modules.items()
            if path.suffix == ".py" and name != "__main__"
        }
        parts = [name.split(".") for name in self.sources]
        for parent in {".".join(p[:i]) for p in parts for i in range(1, len(p))} - set(self.sources):
            self.sources[parent] = Source("", b"", package=True)

    def __reduce__(self) -> tuple[object, ...]:
        """Send the texts."""
        return _receive, (_PROCESS, self.sources)


def _receive(sender: str, sources: Mapping[str, Source]) -> Sources:
    received = Sources({})
    received.sources = dict(sources)
    if sender == _PROCESS or not sources:  # here they are
        return received
    before = [finder for finder in sys.meta_path if isinstance(finder, SourceFinder)]
    known = {name: source for finder in before for name, source in finder.sources.items()}
    changed = {
        name.split(".")[0]
        for name, source in sources.items()
        if name in sys.modules and source.path and _differs(sys.modules[name], source, known.get(name))
    }
    for name in list(sys.modules):  # the whole package: its modules refer to each other
        if name.split(".")[0] in changed:
            del sys.modules[name]
    if known | dict(sources) != known:
        sys.meta_path[:] = [SourceFinder(known | dict(sources)), *(f for f in sys.meta_path if f not in before)]
    return received


def _differs(module: ModuleType, sent: Source, before: Source | None) -> bool:
    """Say whether a module that is loaded here was made of another text than the one that was sent."""
    if before is not None:
        return before.text != sent.text
    with suppress(OSError):
        return Path(module.__file__ or "").read_bytes() != sent.text
    return True
