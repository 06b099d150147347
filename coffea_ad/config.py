"""Typed configurations: YAML and `key=value` overrides into a recipe's frozen pydantic model."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from coffea_ad.errors import ConfigError

__all__ = ["Frozen", "Key", "keys_of", "load_config", "load_eras", "parse_overrides"]

Config = TypeVar("Config", bound=BaseModel)


class Frozen(BaseModel):
    """A configuration, or a part of one: immutable, without unknown keys, and without numbers that are infinite or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Key(NamedTuple):
    """A key of a configuration, with dots into nested ones."""

    name: str
    annotation: Any
    default: Any
    description: str
    required: bool


class _Loader(yaml.SafeLoader):
    """YAML in which no key may stand twice: the first of two values would be lost without a word."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(f"the key {key!r} stands twice", key_node.start_mark)
            seen |= {key} if isinstance(key, str) else set()
        return super().construct_mapping(node, deep)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Turn `a.b=value` into nested dictionaries; values are YAML.

    >>> parse_overrides(["train.epochs=5", "data=skims/"])
    {'train': {'epochs': 5}, 'data': 'skims/'}
    """
    out: dict[str, Any] = {}
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(f"{item!r} is not of the form key=value")
        *parents, last = key.split(".")
        place = out
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{item!r}: {parent} is set to a value and to keys at once")
        if isinstance(place.get(last), dict):
            raise ConfigError(f"{item!r}: {last} is set to a value and to keys at once")
        try:
            place[last] = yaml.load(value, _Loader)  # noqa: S506  a subclass of the safe loader
        except (yaml.YAMLError, ValueError, RecursionError):  # dates that do not exist are ValueErrors
            raise ConfigError(f"{item!r}: the value cannot be read as YAML; put quotes around a text") from None
    return out


_OF_ONE = {"btag": "btag_min"}
"""Keys whose number has no meaning for another name."""


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for name, number in _OF_ONE.items():
        if (
            name in changes
            and changes[name] != base.get(name)
            and base.get(number) is not None
            and number not in changes
        ):
            raise ConfigError(
                f"{name}={changes[name]}: {number}={base[number]} is that of {base.get(name)}; give {number} too, or {number}=null "
                "for that of the campaign"
            )
    for key, value in changes.items():
        old = out.get(key)
        out[key] = _merge(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a subclass of the safe loader
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML ({str(error).splitlines()[0]})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid YAML ({error})") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold keys and values")
    return content


def _bare(annotation: Any) -> Any:
    """Return a type without Annotated and without `| None`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        options = [a for a in get_args(annotation) if a is not type(None)]
        return _bare(options[0]) if len(options) == 1 else annotation
    return annotation


def _model_of(annotation: Any) -> type[BaseModel] | None:
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def _element(annotation: Any) -> Any:
    """Return the type of a list's elements, or None if this is no list."""
    bare = _bare(annotation)
    arguments = get_args(bare)
    if get_origin(bare) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return arguments[0]
    return arguments[0] if get_origin(bare) is list else None


def _is_element(annotation: Any, value: Any) -> bool:
    """Say whether a value is one element of a list, which stands there without its list."""
    element = _bare(_element(annotation))
    if isinstance(value, dict):
        return _model_of(element) is not None
    if isinstance(value, list):  # such as one filter, [met, ">", 100], where a list of filters is wanted
        return get_origin(element) in (tuple, list) and not any(isinstance(v, list) for v in value[:1])
    return isinstance(value, (str, int, float))


def _with_lists(model: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    """Take one element where a list is wanted for a list of one."""
    out = dict(content)
    for name, info in model.model_fields.items():
        value, inner = out.get(name), _model_of(info.annotation)
        if inner is not None and isinstance(value, dict):
            out[name] = _with_lists(inner, value)
        elif value is not None and _element(info.annotation) is not None and _is_element(info.annotation, value):
            out[name] = [value]
    return out


def keys_of(model: type[BaseModel], *, prefix: str = "", defaults: Any = None) -> Iterator[Key]:
    """Yield all keys of a configuration, those of nested ones with dots.

    >>> class Config(BaseModel):
    ...     epochs: int = 5
    >>> [(key.name, key.default) for key in keys_of(Config)]
    [('epochs', 5)]
    """
    for name, info in model.model_fields.items():
        if name in getattr(model, "unused", ()):  # inherited, and refused with a sentence
            continue
        default = None if info.is_required() else info.get_default(call_default_factory=True)
        if defaults is not None:  # a nested configuration may have other defaults than its class
            default = getattr(defaults, name)
        inner = _model_of(info.annotation)
        required = info.is_required() and defaults is None
        if inner is None or default is None:
            yield Key(prefix + name, info.annotation, default, info.description or "", required)
        if inner is not None:
            yield from keys_of(inner, prefix=f"{prefix}{name}.", defaults=default)


def _unknown(model: type[BaseModel], parents: Sequence[str], wrong: str) -> str:
    """Return the sentence about an unknown key: the same word elsewhere, or the nearest at this place or elsewhere."""
    current: type[BaseModel] | None = model
    listed, annotation = False, None
    for part in parents:
        if get_origin(_bare(annotation)) is dict:
            annotation = get_args(_bare(annotation))[1]
            current = _model_of(annotation)
            continue
        info = current.model_fields.get(part) if current is not None else None
        annotation = None if info is None else info.annotation
        element = None if info is None else _element(info.annotation)
        listed = listed or element is not None
        current = None if info is None else _model_of(info.annotation if element is None else element)
    place = [] if current is None else list(current.model_fields)
    siblings = {n: n if listed else ".".join((*parents, n)) for n in place}  # no dots lead into a list
    everywhere: dict[str, str] = {}
    for key in keys_of(model):
        everywhere.setdefault(key.name.rpartition(".")[2], key.name)
    near = [siblings[n] for n in difflib.get_close_matches(wrong, siblings, n=1)]
    if wrong in everywhere:
        near = [everywhere[wrong]]
    near = near or [everywhere[n] for n in difflib.get_close_matches(wrong, everywhere, n=1)]
    hint = f"; did you mean {near[0]!r}?" if near else "."
    where = f" in {'.'.join(parents)}" if parents else ""
    return f"unknown key {wrong!r}{where}{hint} Known: {', '.join(sorted(place))}"


def _place(model: type[BaseModel], loc: Iterable[Any]) -> tuple[list[str], str]:
    """Return the keys that lead to an error, and how the place is written; the names of a union's members are left out."""
    current: Any = model
    keys: list[str] = []
    text = ""
    for part in loc:
        fields = getattr(_model_of(current), "model_fields", {})
        if isinstance(part, int):
            text += f"[{part}]"
            current = _element(current)
        elif get_origin(_bare(current)) is dict and text:
            keys.append(str(part))
            text += f".{part}"
            current = get_args(_bare(current))[1]
        elif part in fields:
            keys.append(str(part))
            text += f".{part}" if text else str(part)
            current = fields[part].annotation
        else:
            break
    return keys, text


def _over_defaults(model: type[BaseModel], content: dict[str, Any]) -> dict[str, Any]:
    """Lay keys of a nested configuration over what the recipe sets there, so that `train.epochs=5` changes nothing else."""
    out = dict(content)
    for name, field in model.model_fields.items():
        default = field.default
        if isinstance(default, BaseModel) and isinstance(content.get(name), dict):
            out[name] = _merge(default.model_dump(exclude_unset=True), _over_defaults(type(default), content[name]))
    return out


def _origin(keys: Sequence[str], path: str | Path | None, overrides: Sequence[str]) -> str:
    """Say where a value came from: the word of the command line that sets it, or the file."""
    for item in reversed(overrides):
        place: Any = parse_overrides([item])
        for key in keys:
            if not isinstance(place, dict) or key not in place:
                break
            place = place[key]
        else:
            if keys:
                return f"command line: {item}"
        if keys and not isinstance(place, dict):
            return f"command line: {item}"
    if path is not None:
        return str(path) if keys or not overrides else f"{path} and command line"
    return "command line" if overrides else "configuration"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _sentence(
    model: type[BaseModel], error: ValidationError, path: str | Path | None, overrides: Sequence[str], *, settable: bool
) -> str:  # fmt: skip
    errors = error.errors()
    first = errors[0]
    loc = first["loc"]
    keys, text = _place(model, loc)
    if first["type"] == "extra_forbidden":
        wrong = str(loc[-1])
        return f"{_origin([*keys, wrong], path, overrides)}: {_unknown(model, keys, wrong)}"
    if first["type"] == "missing":
        give = "" if "[" in text or not settable else f"; give it as {text}=… or in a file with --config"
        origin = _origin(keys[:-1], path, overrides) if keys[1:] else path or "configuration"
        return f"{origin}: the key {text!r} is missing{give}"
    # the members of a union each have their say
    about = [e for e in errors if _place(model, e["loc"])[0] == keys]
    said = dict.fromkeys(_said(e) for e in about)
    more = len({tuple(_place(model, e["loc"])[0]) for e in errors}) - 1
    rest = f" (and {more} more {'key is' if more == 1 else 'keys are'} wrong)" if more else ""
    origin = _origin(keys, path, overrides)
    value = f" {text} = {_short(first['input'])}:" if text and not origin.startswith(f"command line: {text}=") else ""
    return f"{origin}:{value} {' or '.join(said)}{rest}"


def _said(error: Any) -> str:
    """Return what pydantic says of a value, without the names of classes."""
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return "must hold keys and values, {key: value}"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def load_config(model: type[Config], path: str | Path | None = None, overrides: Iterable[str] | None = None) -> Config:
    """Read a configuration. What neither the file nor an override says is as the recipe's `Config` has it, key by key.

    Parameters
    ----------
    model : pydantic model
        The recipe's `Config`.
    path : path, optional
        A YAML file, or a JSON file.
    overrides : iterable of str, optional
        `key=value`, with dots into nested keys. One element where a list is wanted is a list of one.

    Raises
    ------
    ConfigError
        A key or value is wrong; the message says where it came from, and the nearest right key.

    Examples
    --------
    >>> class Config(BaseModel):
    ...     datasets: tuple[str, ...] = ()
    >>> load_config(Config, overrides=["datasets=qcd"]).datasets
    ('qcd',)
    """
    return _validated(model, _content(path, overrides), path, overrides)


def load_eras(
    model: type[Config], path: str | Path | None = None, overrides: Iterable[str] | None = None
) -> dict[str, Config]:
    """Read a configuration that has some keys by era, `eras: {2022: {…}, 2022EE: {…}}`, which go over the others.

    Parameters
    ----------
    model, path, overrides
        As `load_config` takes them.

    Returns
    -------
    {era: Config}
        With the name "" where there are no eras.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> class Config(BaseModel):
    ...     triggers: tuple[str, ...] = ()
    ...     met_min: float = 0.0
    >>> found = load_eras(Config, overrides=["met_min=100", "eras.2022.triggers=HT1050", "eras.2016.triggers=HT900"])
    >>> {era: (config.triggers, config.met_min) for era, config in found.items()}
    {'2022': (('HT1050',), 100.0), '2016': (('HT900',), 100.0)}
    """
    content = _content(path, overrides)
    if "eras" in model.model_fields or "eras" not in content:
        return {"": _validated(model, content, path, overrides)}
    eras = content.pop("eras")
    if not isinstance(eras, dict) or not eras or not all(isinstance(changes, dict) for changes in eras.values()):
        raise ConfigError(f"{path or 'command line'}: eras must hold an era and its keys, {{2022: {{key: value}}}}")
    return {
        str(era): _validated(model, _merge(content, changes), path, overrides, under=("eras", str(era)))
        for era, changes in eras.items()
    }


def _content(path: str | Path | None, overrides: Iterable[str] | None) -> dict[str, Any]:
    content: dict[str, Any] = _merge(_read(Path(path)) if path is not None else {}, parse_overrides(overrides or ()))
    for key in content:
        if not isinstance(key, str):
            raise ConfigError(f"{path}: the key {key!r} is no text")
    return content


def _validated(
    model: type[Config], content: Mapping[str, Any], path: str | Path | None, overrides: Iterable[str] | None,
    *, under: Sequence[str] = (),
) -> Config:  # fmt: skip
    try:
        return model.model_validate(_over_defaults(model, _with_lists(model, dict(content))))
    except ValidationError as error:
        sentence = _sentence(model, error, path, list(overrides or ()), settable=overrides is not None)
        raise ConfigError(sentence + (f" (in {'.'.join(under)})" if under else "")) from None
