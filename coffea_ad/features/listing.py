"""The table of features as people read it: all of them, or one in full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from coffea_ad import features
from coffea_ad.errors import CoffeaADError

__all__ = ["details", "overview"]

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
    broken = []
    for name in (*features.FEATURES, *origins):
        try:
            feature = features.get(name)
        except CoffeaADError as error:
            broken.append(str(error))
            continue
        options = feature.resolve({})
        names = [c.name for c in feature.columns(options)]
        shown = ", ".join(names[:8]) + (f", … ({len(names)})" if len(names) > 8 else "")
        origin = origins.get(name, "coffea-ad")
        table.add_row(name, str(feature.version), feature.level, _by(feature.row_shape(options)), shown, origin)
    return table, broken


def details(
    name: str, chosen: Mapping[str, Any], collection: str = "FatJet", *, every: bool = False
) -> tuple[Table, Table]:
    """Return what a feature computes, from which branches, and its options.

    Raises
    ------
    UnknownName, BadFeature, ConfigError
    """
    feature = features.get(name)
    options = feature.resolve(chosen)
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
        table.add_row(name, text, _allowed(schema["properties"][name]))
    return table


def _allowed(schema: Mapping[str, Any]) -> str:
    """Say in a few words what a JSON schema allows."""
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return " or ".join(_allowed(s) for s in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(str(v) for v in schema["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤"}
    limits = [f"{sign} {schema[key]:g}" for key, sign in signs.items() if key in schema]
    kind = str(schema.get("type", ""))
    return " ".join([{"array": "list", "null": "none", "boolean": "true, false"}.get(kind, kind), *limits])
