"""Processors and training recipes: found by name or by path, loaded, listed, copied.

A recipe is one self-contained file, since siblings would not travel with it to the workers. What is loaded here is
registered for pickling by value, so that a worker need not have the file.
"""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal, NamedTuple

import cloudpickle

from coffea_ad.errors import ConfigError, UnknownName, unknown_text

__all__ = ["Recipe", "available", "copy", "find", "find_config", "kind_of", "load"]

Kind = Literal["processor", "training"]
_FOLDERS: dict[Kind, str] = {"processor": "processors", "training": "training"}


class Recipe(NamedTuple):
    """A recipe on disk, and the first line of its docstring."""

    name: str
    kind: Kind
    path: Path
    title: str


def _root(folder: str) -> Path:
    package = Path(__file__).parent
    shipped = package / "_recipes" / folder
    return shipped if shipped.is_dir() else package.parent / folder


def _title(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n")[0]


def available() -> list[Recipe]:
    """Return all shipped recipes."""
    return [
        Recipe(path.stem, kind, path, _title(path))
        for kind, folder in _FOLDERS.items()
        for path in sorted(_root(folder).glob("*.py"))
    ]


def find(name: str | Path) -> Path:
    """Return the file of a recipe, given its name or a path.

    Raises
    ------
    UnknownName
        Neither a shipped recipe nor a file; the message says the nearest name.
    """
    path = Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            raise UnknownName(f"{path}: there is no such file")
        return path.resolve()
    known = {recipe.name: recipe.path for recipe in available()}
    if str(name) not in known:
        raise UnknownName(unknown_text("recipe", str(name), known))
    return known[str(name)]


def find_config(name: str | Path) -> Path:
    """Return a configuration file: a path, or a name such as `wnae/svj.yaml` among the shipped ones.

    Raises
    ------
    ConfigError
        There is none.
    """
    if Path(name).is_file():
        return Path(name)
    for folder in _FOLDERS.values():
        if (_root(folder) / name).is_file():
            return _root(folder) / name
    shipped = [str(p.relative_to(_root(f))) for f in _FOLDERS.values() for p in sorted(_root(f).rglob("*.yaml"))]
    raise ConfigError(unknown_text("configuration", str(name), shipped))


def load(name: str | Path) -> ModuleType:
    """Import a recipe by name or by path.

    Raises
    ------
    UnknownName
        There is none.
    ConfigError
        It cannot be imported.
    """
    path = find(name)
    module_name = f"coffea_ad_recipe_{path.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        del sys.modules[module_name]  # the file may have been edited since
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UnknownName(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        del sys.modules[module_name]
        hint = "; training needs pip install 'coffea-ad[train]'" if getattr(error, "name", "") == "torch" else ""
        raise ConfigError(f"{path}: cannot be imported ({type(error).__name__}: {error}){hint}") from None
    cloudpickle.register_pickle_by_value(module)
    return module


def kind_of(module: ModuleType) -> Kind:
    """Say whether a recipe is a processor (it has `Processor`) or a training (it has `train`).

    Raises
    ------
    ConfigError
        It is neither, or has no `Config`.
    """
    for attribute, kind in (("Processor", "processor"), ("train", "training")):
        if hasattr(module, attribute):
            if not hasattr(module, "Config"):
                raise ConfigError(f"{module.__file__}: a recipe needs a pydantic model named Config")
            return kind  # type: ignore[return-value]
    raise ConfigError(f"{module.__file__}: a recipe needs a class Processor or a function train")


def copy(name: str, target: str | Path) -> list[Path]:
    """Copy a shipped recipe and its configurations, to be edited.

    Parameters
    ----------
    name : str
        A shipped recipe.
    target : path
        A new `.py` file, or a folder.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ConfigError
        A file is there already.
    """
    source = find(name)
    out = Path(target)
    out = out / source.name if out.suffix != ".py" else out
    pairs = [(source, out)]
    beside = source.with_suffix(".yaml")
    if beside.is_file():
        pairs.append((beside, out.with_suffix(".yaml")))
    folder = source.with_suffix("")
    if folder.is_dir():
        pairs += [(p, out.with_suffix("") / p.name) for p in sorted(folder.glob("*.yaml"))]
    for _, new in pairs:
        if new.exists():
            raise ConfigError(f"{new}: exists already; nothing was copied")
    for old, new in pairs:
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, new)
    return [new for _, new in pairs]
