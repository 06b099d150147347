"""Processors and training recipes: found by name or by path, loaded, listed, copied.

A recipe is one self-contained file, to be copied and edited by itself. What is loaded here is registered for pickling by
value, so that a worker need not have the file.
"""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import shutil
import sys
import sysconfig
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Literal, NamedTuple

import cloudpickle

from coffea_ad.errors import CoffeaADError, ConfigError, UnknownName, unknown_text

__all__ = [
    "Recipe",
    "available",
    "configuration",
    "copy",
    "find",
    "find_config",
    "imports_of",
    "installed",
    "kind_of",
    "load",
    "load_plugin",
    "own_files",
    "parts_of",
    "plugins_loaded",
]

Kind = Literal["processor", "training"]
NO_CONFIG = "none"
"""The word for no configuration file at all."""
_FOLDERS: dict[Kind, str] = {"processor": "processors", "training": "training"}
_RENAMED = {"skim": "skim_jets"}


class Recipe(NamedTuple):
    """A recipe on disk, the first line of its docstring, and the names of the configurations that ship with it."""

    name: str
    kind: Kind
    path: Path
    title: str
    configurations: tuple[str, ...] = ()


def _root(folder: str) -> Path:
    package = Path(__file__).parent
    shipped = package / "_recipes" / folder
    return shipped if shipped.is_dir() else package.parent / folder


def _title(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return text.split("\n")[0]


def _configurations(path: Path) -> tuple[str, ...]:
    """Return the configurations beside a recipe, `skim_jets.yaml`, and in the folder of its name, `wnae/svj.yaml`."""
    files = [path.with_suffix(".yaml"), *sorted(path.with_suffix("").glob("*.yaml"))]
    return tuple(f.relative_to(path.parent).as_posix() for f in files if f.is_file())


def available() -> list[Recipe]:
    """Return all shipped recipes."""
    return [Recipe(path.stem, kind, path, _title(path), _configurations(path)) for kind, path in _shipped()]


def _shipped() -> list[tuple[Kind, Path]]:
    return [(kind, path) for kind, folder in _FOLDERS.items() for path in sorted(_root(folder).glob("*.py"))]


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
    known = {path.stem: path for _, path in _shipped()}
    if str(name) in _RENAMED:
        raise UnknownName(f"the recipe {name} is called {_RENAMED[str(name)]} now")
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
    known = {recipe.name: recipe for recipe in available()}
    if str(name) in known and known[str(name)].configurations:
        sentence = f"{name} is a recipe; its configurations are {', '.join(known[str(name)].configurations)}"
        raise ConfigError(sentence)
    shipped = [c for recipe in known.values() for c in recipe.configurations]
    near = [c for c in shipped if Path(c).stem == Path(name).stem]
    near = near or [c for c in shipped if get_close_matches(str(Path(name).with_suffix("")), [c.removesuffix(".yaml")])]
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; shipped are {', '.join(sorted(shipped))}"
    raise ConfigError(f"{name}: there is no such file, and no configuration of that name is shipped{hint}")


def configuration(recipe: str | Path, config: str | Path | None = None) -> Path | None:
    """Return the configuration of a recipe: the one that is asked for, or the YAML file of its name beside it.

    Parameters
    ----------
    recipe : str or path
    config : str or path, optional
        A file, a shipped one, or "none" for the defaults in the recipe's code.

    Returns
    -------
    Path or None
        None: the defaults in the code.

    Raises
    ------
    ConfigError, UnknownName

    Examples
    --------
    >>> configuration("semivisible_jets").name, configuration("semivisible_jets", "none")
    ('semivisible_jets.yaml', None)
    """
    if config is not None:
        return None if str(config) == NO_CONFIG else find_config(config)
    beside = find(recipe).with_suffix(".yaml")
    return beside if beside.is_file() else None


def load(name: str | Path) -> ModuleType:
    """Import a recipe by name or by path; modules of one's own beside it are found, and travel with it.

    Raises
    ------
    UnknownName
        There is none.
    ConfigError
        It cannot be imported.
    """
    return _imported(find(name), "recipe")


_plugins: dict[str, Path] = {}
"""The plugin files of this process, by the names of their modules."""


def load_plugin(name: str | Path) -> ModuleType:
    """Import a file that registers features of one's own with `features.register`.

    Raises
    ------
    UnknownName
        There is no such file.
    ConfigError
        It cannot be imported, or registers nothing.
    """
    from coffea_ad.features import registered

    if Path(name).suffix != ".py":
        raise ConfigError(f"{name}: a plugin is a Python file, such as my_features.py")
    path = find(name)
    module = _imported(path, "plugin")
    if not {str(file) for file in own_files(module)} & {file for _, file in registered().values()}:
        raise ConfigError(f"{path}: it registers no feature; call coffea_ad.features.register(…) in it")
    _plugins[module.__name__] = path
    return module


def plugins_loaded() -> list[str]:
    """Return the files that `load_plugin` has imported."""
    return [str(path) for path in _plugins.values()]


class _FromSource(importlib.machinery.SourceFileLoader):
    """Compiles a file as it is: bytecode of before passes for new if an edit is of the same second and length."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _imported(path: Path, kind: str) -> ModuleType:
    """Import a file anew, so that what it defines travels by value."""
    module_name = f"coffea_ad_{kind}_{path.stem}"
    loaded = sys.modules.get(module_name)
    if loaded is not None and loaded.__file__ == str(path):
        for file in own_files(loaded):  # the files may have been edited since
            names = [k for k, m in sys.modules.items() if getattr(m, "__file__", None) == str(file)]
            for key in names:
                if key != "__main__":
                    del sys.modules[key]
    loader = _FromSource(module_name, str(path))
    spec = importlib.util.spec_from_file_location(module_name, path, loader=loader)
    if spec is None or spec.loader is None:
        raise UnknownName(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        spec.loader.exec_module(module)
    except CoffeaADError:
        raise
    except Exception as error:  # noqa: BLE001  it may do anything when it is imported
        del sys.modules[module_name]
        hint = "; training needs pip install 'coffea-ad[train]'" if getattr(error, "name", "") == "torch" else ""
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = f"{path}, line {line}" if line else str(path)
        raise ConfigError(f"{where}: cannot be imported ({type(error).__name__}: {error}){hint}") from None
    files = {str(file) for file in own_files(module)}
    for local in [m for m in sys.modules.values() if getattr(m, "__file__", None) in files]:
        if local.__name__ != "__main__":
            cloudpickle.register_pickle_by_value(local)
    return module


def own_files(module: ModuleType) -> list[Path]:
    """Return the files of a module and of all that it imports, also inside functions, libraries left out."""
    source = getattr(module, "__file__", None)
    sources: dict[Path, None] = {}
    listing = cache(_listing)
    places = [Path(p) for p in sys.path if p]
    waiting = [Path(source).resolve()] if source else []
    while waiting:
        path = waiting.pop()
        if path in sources or not path.is_file() or (installed(path) and sources):
            continue
        sources[path] = None
        try:
            imports = imports_of(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        for level, name in imports:
            near = [path.parent, *places]
            waiting += _files_of(path.parents[level - 1], name) if level else _beside(near, name, listing)
    return list(sources)


@lru_cache(maxsize=1000)
def imports_of(source: bytes) -> tuple[tuple[int, str], ...]:
    """Return the level and the name of all that a source may import, also inside functions: of `from . import a` (1, ""), (1, "a")."""
    out: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            out += [(0, a.name) for a in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module):
            parent = node.module or ""
            out += [(node.level, name) for name in (parent, *(f"{parent}.{a.name}".strip(".") for a in node.names))]
    return tuple(out)


def _beside(places: list[Path], name: str, listing: Callable[[Path], set[str] | None]) -> list[Path]:
    """Return the files of a module that is no library's, in the first of some folders that has it."""
    first = name.split(".", maxsplit=1)[0]
    for folder in places:
        names = listing(folder)
        if (names is None or {first, f"{first}.py"} & names) and (files := _files_of(folder, name)):
            return [f for f in files if not installed(f.resolve())]
    return []


def _listing(folder: Path) -> set[str] | None:
    """Return the names in a folder; None where they may be opened, and not listed."""
    try:
        return {p.name for p in folder.iterdir()} if folder.is_dir() else set()
    except OSError:
        return None


def _files_of(folder: Path, name: str) -> list[Path]:
    place = folder.joinpath(*name.split(".")) if name else folder
    return [f.resolve() for f in (place.with_suffix(".py"), place / "__init__.py") if f.is_file()]


@cache
def _library_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return (*(Path(paths[k]) for k in ("stdlib", "platstdlib", "purelib", "platlib")), Path(__file__).parent)


def installed(path: Path) -> bool:
    """Say whether a file is a library's, or of this package."""
    return any(path.is_relative_to(root) for root in _library_folders()) or "site-packages" in path.parts


def kind_of(module: ModuleType) -> Kind:
    """Say whether a recipe is a processor (it has `Processor`, or one class of coffea's kind) or a training (it has `train`).

    Raises
    ------
    ConfigError
        It is neither, or has no `Config`.
    """
    if hasattr(module, "train") and not hasattr(module, "Processor"):
        if not hasattr(module, "Config"):
            raise ConfigError(f"{module.__file__}: a training recipe needs a pydantic model named Config")
        return "training"
    parts_of(module)
    return "processor"


def parts_of(module: ModuleType) -> tuple[Any, Any]:
    """Return the processor class of a module, and its `Config`, or None where the arguments of the class are its configuration.

    The class is `Processor`, or the only one in the file that is a `coffea.processor.ProcessorABC`.

    Raises
    ------
    ConfigError
        There is none, or there are several.
    """
    from coffea.processor import ProcessorABC

    if hasattr(module, "Processor"):
        return module.Processor, getattr(module, "Config", None)
    classes = [
        value for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ProcessorABC) and value.__module__ == module.__name__
    ]  # fmt: skip
    if len(classes) == 1:
        return classes[0], None
    if classes:
        names = ", ".join(value.__name__ for value in classes)
        raise ConfigError(f"{module.__file__}: there are several processors ({names}); name the one to run Processor")
    raise ConfigError(
        f"{module.__file__}: there is nothing to run: neither a class Processor, nor a processor of coffea, nor a function train"
    )


def copy(name: str, target: str | Path, *, force: bool = False) -> list[Path]:
    """Copy a shipped recipe and its configurations, to be edited.

    Parameters
    ----------
    name : str
        A shipped recipe.
    target : path
        A new `.py` file, or a folder.
    force : bool
        Overwrite what is there.

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
        if new.exists() and not force:
            raise ConfigError(f"{new} exists already; nothing was copied, --force overwrites it")
    for old, new in pairs:
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(old, new)
    return [new for _, new in pairs]
