"""Filesets: read into one form."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml
from pydantic import BaseModel

from coffea_ad.errors import ConfigError
from coffea_ad.filesets.metadata import settled_metadata
from coffea_ad.filesets.names import DAS_NAME, dataset_name, file_and_tree

__all__ = ["is_fileset", "load_fileset"]

_SUFFIXES = (".json", ".json.gz", ".yaml", ".yml", ".yaml.gz", ".yml.gz")
_GZIP = b"\x1f\x8b"


def is_fileset(word: str) -> bool:
    """Say whether a file is a fileset by its name: JSON or YAML, also compressed by gzip.

    >>> [is_fileset(word) for word in ("a.json", "output_available.json.gz", "a.yaml", "a.root")]
    [True, True, True, False]
    """
    return word.endswith(_SUFFIXES)


def load_fileset(source: str | Path | Mapping[Any, Any]) -> dict[str, dict[str, Any]]:
    """Read a fileset and bring it to one form: {dataset: {"files": {path: tree}, "metadata": {…}}}.

    A dataset of whose files some are read in part has "steps" as well: {path: [[start, stop], …]}, in rising order. One
    whose key is a name in DAS gets a name that can be a folder, and keeps the other as `das_name` in its metadata.

    Parameters
    ----------
    source : path or mapping
        As coffea takes and writes it, in JSON or YAML, also compressed: files as a mapping to tree names or to what
        preprocessing has found, as a list, or one alone, `path:tree` or `path` (then the tree is "treename" or "Events");
        metadata in any spelling that `filesets.metadata.settled_metadata` takes.

    Raises
    ------
    ConfigError
        It is not a fileset; the message names the dataset.
    """
    content = source if isinstance(source, Mapping) else _read(source)
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"{_shown(source)}: a fileset maps datasets to files")
    out: dict[str, dict[str, Any]] = {}
    keys: dict[str, Any] = {}
    for key, entry in content.items():
        dataset, das = dataset_name(key)
        if dataset in out:
            raise ConfigError(
                f"datasets {keys[dataset]} and {key} would have the same name here, {dataset}; rename one"
            )
        keys[dataset] = key
        described = entry.model_dump() if isinstance(entry, BaseModel) else entry
        if not isinstance(described, Mapping) or not _describes(described):
            described = {"files": described}
        metadata = settled_metadata(dataset, described.get("metadata"))
        files, steps = _files(dataset, described.get("files"), described.get("treename") or "Events")
        out[dataset] = {"files": files, "metadata": metadata if das is None else {DAS_NAME: das, **metadata}}
        if steps:
            out[dataset]["steps"] = steps
    return out


def _shown(source: Any) -> str:
    return "fileset" if isinstance(source, Mapping) else str(source)


def _describes(entry: Mapping[Any, Any]) -> bool:
    """Say whether this is the description of a dataset, and not its files themselves."""
    return "files" in entry or "metadata" in entry or "treename" in entry


def _read(source: str | Path) -> Any:
    if not isinstance(source, (str, PurePath)):
        raise ConfigError(f"a fileset is a path or a mapping, not a {type(source).__name__}")
    path = Path(source)
    kind = "YAML" if path.name.removesuffix(".gz").endswith((".yaml", ".yml")) else "JSON"
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if data.startswith(_GZIP) else data).decode()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ConfigError(f"{source}: the fileset is damaged: it cannot be decompressed") from None
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise ConfigError(f"{source}: the fileset is not {kind} text") from None
        raise ConfigError(
            f"{source}: the fileset cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from None
    try:
        return yaml.safe_load(text) if kind == "YAML" else json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{source}: the fileset is not valid JSON (line {error.lineno}: {error.msg})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}: " if mark is not None else ""
        raise ConfigError(
            f"{source}: the fileset is not valid YAML ({place}{getattr(error, 'problem', None) or error})"
        ) from None


def _files(dataset: str, files: Any, tree: Any) -> tuple[dict[str, str], dict[str, list[list[int]]]]:
    """Return {path: tree}, and {path: steps} of files that are read in part."""
    if isinstance(files, (str, os.PathLike)):
        files = [files]
    if isinstance(files, np.ndarray):
        files = files.ravel().tolist()
    if isinstance(files, (list, tuple, set, frozenset)):
        for path in files:
            if not isinstance(path, (str, os.PathLike)):
                raise ConfigError(f"dataset {dataset}: a file is {path!r}, but must be a path or an address")
        files = dict.fromkeys(sorted(files, key=str) if isinstance(files, (set, frozenset)) else files)
    if not isinstance(files, Mapping) or not files:
        raise ConfigError(f"dataset {dataset}: there are no files")
    out: dict[str, str] = {}
    steps: dict[str, list[list[int]]] = {}
    for key, value in files.items():
        entry = value.model_dump() if isinstance(value, BaseModel) else value
        # coffea's preprocessing leaves {path: {"object_path": tree, "steps": …}}; without a name the tree is the usual one
        name = entry.get("object_path") if isinstance(entry, Mapping) else entry
        path, out_tree = file_and_tree(dataset, key, tree if name is None else name)
        if path in out:
            raise ConfigError(f"dataset {dataset}: {path} is there twice, and its events would count twice")
        out[path] = out_tree
        part = _part(f"dataset {dataset}: the steps of {path}", entry) if isinstance(entry, Mapping) else None
        if part is not None:
            steps[path] = part
    return out, steps


def _part(what: str, entry: Mapping[str, Any]) -> list[list[int]] | None:
    """Return the ranges of events that the steps of a file cover, or None if that is the whole file."""
    steps, total = entry.get("steps"), entry.get("num_entries")
    if steps is None:
        return None
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise ConfigError(f"{what} must be a list of [start, stop]")
    ranges: list[list[int]] = []
    for step in steps:
        if not isinstance(step, Sequence) or len(step) != 2 or not all(_is_count(edge) for edge in step):
            raise ConfigError(f"{what} must be pairs of whole numbers, not {step!r}")
        start, stop = (int(edge) for edge in step)
        if stop < start:
            raise ConfigError(f"{what} must run forwards, not from {start} to {stop}")
        if stop > start:
            ranges.append([start, stop])
    ranges.sort()
    if any(a[1] > b[0] for a, b in itertools.pairwise(ranges)):
        raise ConfigError(f"{what} overlap, and events would count twice")
    merged: list[list[int]] = []
    for start, stop in ranges:
        if merged and merged[-1][1] == start:
            merged[-1][1] = stop
        else:
            merged.append([start, stop])
    if not merged:
        return None if total == 0 or not steps else [[0, 0]]
    # without the number of events, steps that begin at 0 might end anywhere: they are taken at their word
    return None if merged == [[0, total]] else merged


def _is_count(value: Any) -> bool:
    return bool(isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 0)
