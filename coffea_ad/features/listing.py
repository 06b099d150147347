"""The table of features as people read it: all of them, or one in full."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from coffea_ad import features
from coffea_ad.errors import CoffeaADError, listed

__all__ = ["allowed", "details", "overview"]

_SHOWN = 60  # columns, unless all are asked for


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _by(numbers: tuple[int, ...]) -> str:
    return " × ".join(str(n) for n in numbers)


def overview() -> tuple[Table, list[str]]:
    """Return a table with a line per feature, and a sentence for each that another package announces but cannot give."""
    table = _table(
        "features: `coffea-ad features NAME` shows one in full", "name", "v", "level", "shape", "columns", "from"
    )
    origins = {name: point.dist.name if point.dist else "?" for name, point in features.plugins().items()}
    files = {name: Path(file).name or "this session" for name, (_, file) in features.registered().items()}
    broken = []
    for name in (*features.FEATURES, *origins):
        try:
            feature = features.get(name)
        except CoffeaADError as error:
            broken.append(str(error))
            continue
        options = feature.resolve({})
        names = [c.name for c in feature.columns(options)]
        shown = listed(names, 8)
        origin = {**origins, **files}.get(name, "coffea-ad")
        table.add_row(name, str(feature.version), feature.level, _by(feature.row_shape(options)), shown, origin)
    return table, broken


def details(
    name: str, values: Mapping[str, Any], collection: str = "FatJet", *, every: bool = False
) -> tuple[Table, Table]:
    """Return what a feature computes, from which branches, and its options.

    Raises
    ------
    UnknownName, BadFeature, ConfigError
    """
    feature = features.get(name)
    options = feature.resolve(values)
    table = _table(f"{feature.key(options)}, version {feature.version}", "what", "value")
    table.add_row("level", feature.level)
    table.add_row("shape", _by(feature.row_shape(options)) + (", mostly 0" if feature.sparse else ""))
    columns = feature.columns(options)
    shown = [c.name + (f" [{c.unit}]" if c.unit else "") for c in (columns if every else columns[:_SHOWN])]
    table.add_row("columns", ", ".join(shown) + (f", … ({len(columns)} in all)" if len(columns) > len(shown) else ""))
    for i, alternative in enumerate(feature.reads(collection, options)):
        table.add_row("branches" if i == 0 else "  or", ", ".join(alternative))
    table.add_row("convention", feature.convention)
    table.add_row("reference", feature.reference or "none")
    return table, _options(feature, options)


def _options(feature: features.Feature, options: Any) -> Table:
    table = _table("options", "name", "value", "allowed")
    schema = feature.options.model_json_schema()
    for name, value in options.model_dump(mode="json").items():
        text = ", ".join(str(v) for v in value) if isinstance(value, list) else str(value)
        table.add_row(name, text, _meaning(schema, name))
    return table


def _meaning(schema: Mapping[str, Any], name: str) -> str:
    place = schema["properties"][name]
    return str(place.get("description") or allowed(place, schema.get("$defs")))


def allowed(schema: Mapping[str, Any], definitions: Mapping[str, Any] | None = None) -> str:
    """Say in a few words what a JSON schema allows.

    >>> allowed({"type": "array", "items": {"type": "number", "exclusiveMinimum": 0}})
    'list of number > 0'
    """
    of = definitions or {}
    if "$ref" in schema:
        return allowed(of.get(str(schema["$ref"]).rpartition("/")[2], {}), of)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(allowed(s, of) for s in schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(str(v) or '""' for v in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if "prefixItems" in schema:
        return "[" + ", ".join(allowed(s, of) for s in schema["prefixItems"]) + "]"
    if "properties" in schema:
        return "{" + ", ".join(schema["properties"]) + "}"
    if schema.get("items"):
        return f"list of {allowed(schema['items'], of)}"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    kind = str(schema.get("type", "anything"))
    words = {"array": "list", "null": "none", "boolean": "true, false", "object": "keys and values", "string": "text"}
    return " ".join([words.get(kind, kind), *limits])
