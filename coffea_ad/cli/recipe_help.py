"""What `coffea-ad run RECIPE --help` prints: all keys of a recipe's configuration, with types, defaults and meanings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel
from rich.table import Table

from coffea_ad import recipes
from coffea_ad.config import Key, keys_of
from coffea_ad.features.listing import allowed

__all__ = ["described"]

_WORDS = {
    "processor": "coffea-ad run {name} --fileset FILESET.json [--config FILE.yaml] [key=value …] -o RESULTS/",
    "training": "coffea-ad run {name} [--config FILE.yaml] data=SKIMS/ [key=value …] -o MODEL.onnx",
}


def described(name: str) -> list[str | Table]:
    """Return what a recipe is, how it is called, and a table of its keys.

    Parameters
    ----------
    name : str
        Of a shipped recipe, or the path of one.

    Raises
    ------
    UnknownName, ConfigError

    Examples
    --------
    >>> described("skim_jets")[1]
    'coffea-ad run skim_jets --fileset FILESET.json [--config FILE.yaml] [key=value …] -o RESULTS/'
    """
    module = recipes.load(name)
    kind = recipes.kind_of(module)
    title = (inspect.getdoc(module) or "").strip() or f"{name}: a {kind}"
    out: list[str | Table] = [title + "\n", _WORDS[kind].format(name=name)]
    shipped = [c for recipe in recipes.available() if recipe.name == name for c in recipe.configurations]
    if shipped:
        out.append(f"configurations that ship with it: {', '.join(shipped)}")
    config = getattr(module, "Config", None)
    if isinstance(config, type) and issubclass(config, BaseModel):
        out.append(_keys(config))
    else:
        out.append(_arguments(module))
    return out


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("key", "type", "default", "what"):
        table.add_column(column, overflow="fold", no_wrap=column == "key")
    return table


def _keys(config: type[BaseModel]) -> Table:
    table = _table("keys, as key=value or in a file with --config")
    schema = config.model_json_schema()
    for key in keys_of(config):
        table.add_row(key.name, _type(schema, key), _default(key), key.description)
    return table


def _arguments(module: ModuleType) -> Table:
    """Return the arguments of a processor without a `Config`."""
    classes = [v for v in vars(module).values() if isinstance(v, type) and v.__module__ == module.__name__]
    table = _table("arguments of the processor")
    for owner in classes:
        if not hasattr(owner, "process"):
            continue
        for name, parameter in inspect.signature(owner).parameters.items():
            default = "required" if parameter.default is parameter.empty else str(parameter.default)
            annotation = "" if parameter.annotation is parameter.empty else str(parameter.annotation)
            table.add_row(name, annotation, default, "")
    return table


def _default(key: Key) -> str:
    if key.required:
        return "required"
    return _text(key.default)


def _text(value: Any) -> str:
    """Return a value as it is written in YAML."""
    if isinstance(value, BaseModel):
        return _text({k: v for k, v in value.model_dump(mode="json").items() if v not in ({}, [], None)})
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(v) for v in value) + "]"
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if value != "" else '""'


def _type(schema: Mapping[str, Any], key: Key) -> str:
    """Say what a key takes, from the JSON schema of the configuration."""
    place: Mapping[str, Any] = schema
    for part in key.name.split("."):
        place = _resolved(place, schema)["properties"][part]
    return allowed(_resolved(place, schema), schema.get("$defs", {}))


def _resolved(place: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follow references, also of what may be null."""
    options = [o for o in place.get("anyOf", ()) if o.get("type") != "null"]
    if "$ref" not in place and len(options) == 1 and "$ref" in options[0]:
        place = options[0]
    if "$ref" in place:
        return dict(schema["$defs"][str(place["$ref"]).rpartition("/")[2]])
    return place
