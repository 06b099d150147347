"""The files of a skim: its manifest, what each says of itself, and what must agree between them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr, TypeAdapter, ValidationError

from coffea_ad import features, files
from coffea_ad.errors import SkimError, unknown_text
from coffea_ad.features.spec import FeatureSpec
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.skims.rows import stored_columns

__all__ = [
    "SKIM_KEY",
    "check_feature",
    "manifest_of",
    "metadata_of",
    "refuse_other_columns",
    "skim_files",
]


SKIM_KEY = b"coffea_ad"


class _Listed(BaseModel):
    """What a manifest says of a dataset."""

    files: list[StrictStr]
    sumw: float = Field(strict=True, allow_inf_nan=False)


class _Stored(BaseModel):
    """What a file says of a feature."""

    columns: list[StrictStr]
    options: dict[str, Any]
    version: StrictInt


class _Facts(BaseModel):
    """What a file says of itself."""

    features: dict[str, _Stored]
    selection: dict[str, Any]
    flavour: StrictStr
    is_mc: StrictBool
    collection: StrictStr = "FatJet"


def _checked(kind: Any, content: Any, place: str) -> Any:
    """Return the content as it is, if it has the form of what a skim writes."""
    try:
        TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise SkimError(f"{place}: this is not what a skim writes ({where}: {first['msg']})") from None
    return content


def manifest_of(folder: str | Path) -> dict[str, Any]:
    """Return what the manifest of a skim says of every dataset: its files and sum of weights."""
    nothing = SkimError(f"{folder}: there is no skim here, or it did not finish (no manifest.json)")
    path = files.join(folder, "manifest.json")
    if not files.exists(path):
        raise nothing
    try:
        listed = json.loads(files.read(path))["datasets"]
    except (ValueError, KeyError, TypeError):
        raise nothing from None
    return dict(_checked(dict[str, _Listed], listed, path))


def skim_files(folder: str | Path, datasets: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the parquet files of each dataset in a skim folder, as its manifest lists them.

    Other files that may lie there, from inputs that were replaced since, are not part of the skim.

    Raises
    ------
    SkimError
        There is no finished skim, it has not these datasets, or a file is missing.
    """
    manifest = manifest_of(folder)
    for name in datasets:
        if name not in manifest:
            raise SkimError(f"{folder}: " + unknown_text("dataset", name, manifest))
    listed = {name: [files.join(folder, f) for f in manifest[name]["files"]] for name in (datasets or sorted(manifest))}
    for path in (p for paths in listed.values() for p in paths):
        if not files.is_url(path) and not files.exists(path):  # a remote one says so when it is read
            raise SkimError(f"{path}: the manifest lists this file, but it is not there")
    return listed


def metadata_of(path: str, local: Path) -> tuple[pa.Schema, dict[str, Any]]:
    """Return the columns of a file, and what it says of itself."""
    try:
        schema = pq.read_schema(local)
    except (pa.ArrowInvalid, OSError) as error:
        raise SkimError(f"{path}: not a readable parquet file ({error})") from None
    if not schema.metadata or SKIM_KEY not in schema.metadata:
        raise SkimError(f"{path}: this parquet file was not made by a skim of coffea-ad")
    try:
        facts = json.loads(schema.metadata[SKIM_KEY])
    except ValueError:
        raise SkimError(f"{path}: what it says of itself is damaged") from None
    _check_columns(path, schema)
    return schema, _checked(_Facts, facts, path)


def _check_columns(path: str, schema: pa.Schema) -> None:
    """Refuse a file without weights or ids of its events, or with something else than numbers."""
    needed = (*EVENT_ID, "genWeight")
    lacking = [name for name in needed if name not in schema.names]
    if lacking:
        raise SkimError(f"{path}: it has no column {', '.join(lacking)}; skim again")
    for column in schema:
        sort = column.type.value_type if pa.types.is_list(column.type) else column.type
        number = pa.types.is_integer(sort) or (column.name not in EVENT_ID and pa.types.is_floating(sort))
        if not number and not (column.name not in needed and pa.types.is_boolean(sort)):
            raise SkimError(f"{path}: its column {column.name} holds {column.type}; skim again")


def refuse_other_columns(path: str, table: pa.Table, first: pa.Table) -> None:
    """Refuse a file whose columns beside the features are not those of the file before it."""
    here, before = ({c.name: str(c.type) for c in t.schema} for t in (table, first))
    for name in (n for n in {**before, **here} if here.get(n) != before.get(n)):
        raise SkimError(
            f"{path}: its column {name} is {here.get(name, 'not there')}, but {before.get(name, 'not there')} in the files "
            "before it; skim them alike"
        )


def _stored_key(path: str, metadata: Mapping[str, Any], spec: FeatureSpec) -> str:
    """Return under which name a file holds all columns of a feature, perhaps among others."""
    feature, stored = features.get(spec.name), metadata["features"]
    names = [c.name for c in spec.columns]
    usual_key = feature.stored_as(spec.options)
    for key in dict.fromkeys((spec.key, usual_key, *stored)):
        if key in stored and key.partition("[")[0] == spec.name and set(names) <= set(stored[key]["columns"]):
            others = {k: v for k, v in stored[key]["options"].items() if k != feature.selects}
            if key in (spec.key, usual_key) or feature.stored_as(others) == usual_key:
                return str(key)
    if usual_key in stored:
        lacking = [name for name in names if name not in stored[usual_key]["columns"]]
        raise SkimError(
            f"{path}: {usual_key} has no column {', '.join(lacking)}; skim again, with them among its {feature.selects}"
        )
    raise SkimError(f"{path}: " + unknown_text("feature", spec.key, stored))


def check_feature(path: str, schema: pa.Schema, metadata: Mapping[str, Any], spec: FeatureSpec) -> str:
    """Refuse a file that does not hold a feature as it is computed today; return the name of what it holds."""
    key = _stored_key(path, metadata, spec)
    stored, selects = metadata["features"][key], features.get(spec.name).selects
    # Options that came later have defaults that mean what was done before.
    options = {**features.get(spec.name).resolve({}).model_dump(mode="json"), **stored["options"]}
    if stored["version"] != spec.version or {**options, selects: 0} != {**spec.options, selects: 0}:
        raise SkimError(
            f"{path}: {key} was made with version {stored['version']} and {stored['options']}, "
            f"but this coffea-ad has version {spec.version} and {spec.options}; skim again"
        )
    missing = [c for c in stored_columns(spec, key) if c not in schema.names]
    if missing:
        raise SkimError(f"{path}: columns are missing: {', '.join(missing)}")
    if not selects and stored["columns"] != [c.name for c in spec.columns]:
        raise SkimError(f"{path}: the columns of {key} are {stored['columns']}, in another order than they should")
    return key
