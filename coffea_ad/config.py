"""Typed configurations: YAML and `key=value` overrides into a recipe's frozen pydantic model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from coffea_ad.errors import ConfigError, unknown_text

__all__ = ["load_config", "parse_overrides"]

Config = TypeVar("Config", bound=BaseModel)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Turn `a.b=value` into nested dictionaries; values are YAML.

    >>> parse_overrides(["train.epochs=5", "data=skims/"])
    {'train': {'epochs': 5}, 'data': 'skims/'}
    """
    out: dict[str, Any] = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"{item!r} is not of the form key=value")
        *parents, last = key.split(".")
        place = out
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{item!r}: {parent} is set to a value and to keys at once")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"{item!r}: the value cannot be read") from None
    return out


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({str(error).splitlines()[0]})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold keys and values")
    return content


def _fields(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Return the keys that would have been right at this place."""
    current: Any = model
    for part in loc:
        fields = getattr(current, "model_fields", {})
        if part not in fields:
            break
        current = fields[part].annotation
    return list(getattr(current, "model_fields", {}))


def _over_defaults(model: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    """Lay keys of a nested configuration over what the recipe sets there, so that `train.epochs=5` changes nothing else."""
    out = dict(content)
    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel) and isinstance(content.get(name), dict):
            out[name] = _merge(default.model_dump(exclude_unset=True), _over_defaults(type(default), content[name]))
    return out


def load_config(model: type[Config], path: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """Read a configuration. What neither the file nor an override says is as the recipe's `Config` has it, key by key.

    Parameters
    ----------
    model : pydantic model
        The recipe's `Config`.
    path : path, optional
        A YAML file.
    overrides : iterable of str
        `key=value`, with dots into nested keys.

    Raises
    ------
    ConfigError
        A key or value is wrong; the message names it and the nearest right key.
    """
    source = str(path) if path is not None else "configuration"
    content = _merge(_read(Path(path)) if path is not None else {}, parse_overrides(overrides))
    try:
        return model.model_validate(_over_defaults(model, content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(p) for p in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _fields(model, first["loc"][:-1])
            raise ConfigError(f"{source}: " + unknown_text("key", str(first["loc"][-1]), known)) from None
        if first["type"] == "missing":
            raise ConfigError(f"{source}: the key {key!r} is missing") from None
        raise ConfigError(f"{source}: {key} = {first['input']!r}: {first['msg']}") from None
