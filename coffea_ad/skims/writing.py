"""What skimming processors share: features and spectators of a chunk → one parquet file, and the manifest of a skim.

A skim is <output>/<dataset>/<file uuid>-<start>-<stop>.parquet, one file per chunk, also for chunks without a selected
event, so that the sum of weights is complete; a retry writes the same file again. A feature has one column per number,
`feature.column`; one that is `sparse` has two, `feature.index` and `feature.value`, with the places in the flattened row
of what is not 0.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from coffea_ad import features, files
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import FeatureConfig, feature_spec
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.nanoaod.constituents import CONSTITUENT_TABLES
from coffea_ad.skims.files import SKIM_KEY
from coffea_ad.splits import numbers
from coffea_ad.typing import Bools, Float32s
from coffea_ad.weights import cross_section, has_cross_section, is_mc, is_signal

__all__ = ["FeatureConfig", "feature_columns", "feature_reads", "write_chunk", "write_manifest", "write_rows"]


def feature_reads(
    asked: Iterable[FeatureConfig], level: str, collection: str = "FatJet"
) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the branches of features, for the check before a run.

    Raises
    ------
    ConfigError
        A feature is not of the skim's level, "jet" or "event".
    """
    out = {}
    for f in asked:
        feature = features.get(f.name)
        if feature.level != level:
            raise ConfigError(
                f"{f.key} is a feature of the {feature.level} level, but the rows of this skim are {level}s"
            )
        out[f"feature {f.key}"] = feature.reads(collection, feature.resolve(f.options))
    return out


def feature_columns(
    config: FeatureConfig, events: Any, collection: str = "FatJet", *, prefix: bool = True
) -> dict[str, pa.Array]:
    """Compute a feature as columns of a skim.

    Parameters
    ----------
    config : FeatureConfig
    events : ak.Array, or None for the columns of no rows
        As for `features.compute`.
    collection : str
    prefix : bool
        Columns are `feature.column`; otherwise `column`, as for spectators.
    """
    feature = features.get(config.name)
    options = feature.resolve(config.options)
    key = config.key
    if feature.listed(options):
        if not prefix:
            raise ConfigError(f"{key}: spectators must be numbers, not rows of shape {feature.row_shape(options)}")
        blocks = () if events is None else features.blocks(config.name, events, 1024, collection, **config.options)
        return _sparse(key, blocks)
    size = feature.size(options)
    values = np.zeros((0, size), np.float32) if events is None else features.compute(
        config.name, events, collection, **config.options)[0]  # fmt: skip
    names = [(f"{key}." if prefix else "") + column.name for column in feature.columns(options)]
    return {name: pa.array(column) for name, column in zip(names, values.reshape(-1, size).T, strict=True)}


def _sparse(key: str, blocks: Iterable[Float32s]) -> dict[str, pa.Array]:
    """Keep what is not 0; an undefined row is null."""
    index, value, counts, undefined = [], [], [], []
    for block in blocks:
        flat = block.reshape(len(block), -1)
        lost: Bools = ~np.asarray(np.isfinite(flat).all(axis=1))
        row, column = np.nonzero(np.where(lost[:, None], 0, flat))
        index.append(column.astype(np.uint32))
        value.append(flat[row, column])
        counts.append(np.bincount(row, minlength=len(flat)))
        undefined.append(lost)
    places = np.concatenate([np.zeros(0, np.uint32), *index])
    numbers = np.concatenate([np.zeros(0, np.float32), *value])
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))]).astype(np.int32)
    null = np.concatenate([np.zeros(0, bool), *undefined])

    def lists(content: npt.NDArray[Any]) -> pa.Array:
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(content), mask=pa.array(null))

    return {f"{key}.index": lists(places), f"{key}.value": lists(numbers)}


def _described(config: FeatureConfig) -> dict[str, Any]:
    spec = feature_spec(config.name, config.options)
    return {
        "version": spec.version,
        "options": spec.options,
        "columns": [c.name for c in spec.columns],
        "shape": list(spec.row_shape),
    }


def write_chunk(
    output: str | Path,
    events: Any,
    columns: Mapping[str, Any],
    *,
    described: Iterable[FeatureConfig],
    selection: Mapping[str, Any],
    sumw: float,
    collection: str = "FatJet",
) -> str:
    """Write the rows of a chunk: the file is there as a whole or not at all.

    Parameters
    ----------
    output : path or fsspec URL
        Folder of the skim.
    events : NanoEvents
        The whole chunk, for its metadata.
    columns : {name: array}
        Always the same names and types, also when there is no row.
    described : iterable of FeatureConfig
        The features among the columns.
    selection : mapping
        What was cut on; files with different selections are not read together.
    sumw : float
        Sum of the generator weights of the whole chunk.
    collection : str
        Whose constituents tell the NanoAOD flavour.

    Returns
    -------
    str
        Path of the file.

    Raises
    ------
    NotWritten
    BadFile
        The events have no numbers of their own.
    """
    metadata = events.metadata
    described = tuple(described)
    _refuse_twice(described)
    fields = ak.fields(events)
    if set(EVENT_ID).issubset(fields):
        numbers(events, "training and validation rows are told apart")
    flavours = [t.flavour for t in CONSTITUENT_TABLES if t.links.format(collection) in fields]
    record = {
        "dataset": metadata["dataset"],
        "filename": metadata["filename"],
        "sumw": sumw,
        "events": len(events),
        "is_mc": is_mc(events),
        "generator_weight": metadata.get("generator_weight", "stored"),
        "flavour": flavours[0] if flavours else "NanoAOD without constituents",
        "selection": dict(selection),
        "collection": collection,
        "is_signal": is_signal(metadata),
        **({"xsec": cross_section(metadata["dataset"], metadata)} if has_cross_section(metadata) else {}),
    }
    name = f"{_file_id(metadata)}-{metadata['entrystart']}-{metadata['entrystop']}.parquet"
    return write_rows(files.join(output, metadata["dataset"], name), pa.table(dict(columns)), record, described)


def write_rows(path: str, table: pa.Table, record: Mapping[str, Any], described: Iterable[FeatureConfig]) -> str:
    """Write a file of a skim with what it says of itself: the file is there as a whole or not at all.

    Parameters
    ----------
    path : path or fsspec URL
    table : pa.Table
        Ids of events, genWeight, columns of the features and spectators.
    record : mapping
        dataset, filename, sumw, events, is_mc, flavour, selection, and what else is known.
    described : iterable of FeatureConfig
        The features among the columns.

    Returns
    -------
    str
        The path.

    Raises
    ------
    NotWritten
    """
    described = tuple(described)
    _refuse_twice(described)
    record = {**record, "features": {f.key: _described(f) for f in described}}
    with files.replacing(path) as file:
        pq.write_table(table.replace_schema_metadata({SKIM_KEY: json.dumps(record)}), file, compression="zstd")
    return path


def _refuse_twice(described: tuple[FeatureConfig, ...]) -> None:
    twice = [f.key for i, f in enumerate(described) if f.key in {g.key for g in described[:i]}]
    if twice:
        raise ConfigError(f"feature {twice[0]} is asked for twice; name all of its columns in one")


def _file_id(metadata: Mapping[str, Any]) -> str:
    """Return what tells the files of a dataset apart: their random id, or a digest of the address where a file has none."""
    uuid = str(metadata["fileuuid"])
    if uuid.strip("0-"):
        return uuid
    return hashlib.blake2b(str(metadata["filename"]).encode(), digest_size=16).hexdigest()


def write_manifest(report: Any, output: str | Path) -> None:
    """Write manifest.json: which files are the skim. Datasets of earlier runs into the same folder stay in it."""
    folder = files.absolute(output)
    path = files.join(folder, "manifest.json")
    with files.alone(folder):  # another run may add its datasets at the same time
        datasets = json.loads(files.read(path))["datasets"] if files.exists(path) else {}
        for name in set(report.datasets) - set(report.outputs):
            datasets.pop(name, None)  # what an earlier run left is not this one's
        for name, out in report.outputs.items():
            names = sorted(f.removeprefix(folder).lstrip("/") for f in out["files"])
            counts = {k: v for k, v in out.items() if k not in ("files", "kind")}
            counts["sumw"] = report.datasets[name]["sumw"]
            datasets[name] = {**counts, "files": names, "config": report.config, "versions": report.versions}
        files.write(path, json.dumps({"datasets": datasets}, indent=1).encode())
