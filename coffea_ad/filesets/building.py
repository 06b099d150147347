"""Filesets from globs, folders, lists and addresses, with their metadata."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.files.content import write
from coffea_ad.filesets import load_fileset
from coffea_ad.filesets.names import DAS_NAME, dataset_name, file_and_tree
from coffea_ad.filesets.sources import absolute, expand_source
from coffea_ad.outputs import check_file
from coffea_ad.weights import cross_section

__all__ = ["build_fileset", "parse_metadata", "refuse_output", "write_fileset"]

_SPELLINGS = ({"is_mc", "isMC"}, {"xsec", "cross_section"}, {"sqrt_s", "ecm", "eCM"})


def build_fileset(
    sources: Mapping[str, Sequence[str]],
    *,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    tree: str = "Events",
    existing: Sequence[str | Path | Mapping[str, Any]] = (),
) -> dict[str, dict[str, Any]]:
    """Make a fileset in coffea's own form; no file is opened.

    Parameters
    ----------
    sources : {dataset: sources}
        Each a glob, a folder, `@list.txt`, a file, or an address such as root://…. A dataset may have its name in DAS.
    metadata : {dataset: {key: value}}
        `xsec` in pb, `is_mc`, and others of one's own. They win over those of existing filesets.
    tree : str
        Name of the tree in the files of `sources`.
    existing : sequence of paths or mappings
        Filesets to add to.

    Returns
    -------
    {dataset: {"files": {path: tree}, "metadata": {…}}}
        Sorted, with absolute paths, in the form of `load_fileset`.

    Raises
    ------
    ConfigError
        A source holds no files, a file is there twice, or metadata cannot be right.

    Examples
    --------
    >>> fileset = build_fileset({"svj": [str(svj_file)]}, metadata={"svj": {"is_mc": True, "xsec": 1.2}})
    >>> [Path(path).name for path in fileset["svj"]["files"]], fileset["svj"]["metadata"]
    (['svj_v15.root'], {'is_mc': True, 'xsec': 1.2})
    """
    files: dict[str, dict[str, Any]] = defaultdict(dict)
    described: dict[str, dict[str, Any]] = defaultdict(dict)
    places: dict[str, list[str]] = defaultdict(list)
    for dataset, path, name in _all_files(sources, tree, existing, described):
        files[dataset][path] = name
        places[path].append(dataset)
    _refuse_duplicates(places)
    for name, new in (metadata or {}).items():
        dataset = dataset_name(name)[0]
        if dataset not in files:
            raise ConfigError("metadata: " + unknown_text("dataset", dataset, files))
        for key, value in new.items():
            for other in next((s for s in _SPELLINGS if key in s), {key}):
                described[dataset].pop(other, None)
            described[dataset][key] = value
    out = {}
    for dataset in sorted(files):
        out[dataset] = {"files": dict(sorted(files[dataset].items())), "metadata": described[dataset]}
    return load_fileset(out)  # the checks of everybody who reads it


def _all_files(
    sources: Mapping[str, Sequence[str]],
    tree: str,
    existing: Sequence[str | Path | Mapping[str, Any]],
    described: dict[str, dict[str, Any]],
) -> Iterable[tuple[str, str, Any]]:
    """Give (dataset, path, tree) of every file, and gather the metadata of existing filesets."""
    for old in existing:
        for dataset, entry in load_fileset(old).items():
            for key, value in entry["metadata"].items():
                if described[dataset].setdefault(key, value) != value:
                    both = f"{described[dataset][key]!r} and {value!r}"
                    raise ConfigError(f"dataset {dataset}: {key} is {both} in two filesets")
            for path, name in entry["files"].items():
                steps = entry.get("steps", {}).get(path)
                yield dataset, absolute(path), name if steps is None else {"object_path": name, "steps": steps}
    for key, words in sources.items():
        dataset, das = dataset_name(key)
        if das is not None:
            described[dataset][DAS_NAME] = das
        if isinstance(words, str):
            raise ConfigError(f"dataset {dataset}: its sources are a list, not one text")
        if not words:
            raise ConfigError(f"dataset {dataset}: no files are given for it")
        for source in words:
            for path in expand_source(source):
                yield dataset, *file_and_tree(dataset, path, tree)


def _refuse_duplicates(places: Mapping[str, Sequence[str]]) -> None:
    """Raise if a file is there twice, since its events would count twice."""
    twice = [
        f"{path} is in {' and in '.join(sorted(set(where)))}" + (" twice" if len(set(where)) == 1 else "")
        for path, where in places.items()
        if len(where) > 1
    ]
    if twice:
        more = f"; {len(twice) - 5} more" if len(twice) > 5 else ""
        raise ConfigError("events would count twice: " + "; ".join(twice[:5]) + more)


def parse_metadata(
    xsec: Iterable[str] = (), data: Iterable[str] = (), meta: Iterable[str] = ()
) -> dict[str, dict[str, Any]]:
    """Turn `NAME=PB`, `NAME` and `NAME.key=value` into {dataset: {key: value}}; values are YAML.

    >>> parse_metadata(["qcd=1000"], ["met"], ["qcd.year=2022"])
    {'qcd': {'xsec': 1000.0, 'year': 2022}, 'met': {'is_mc': False}}

    Raises
    ------
    ConfigError
        A word has another form, or a key is given twice.
    """
    out: dict[str, dict[str, Any]] = defaultdict(dict)

    def put(word: str, dataset: str, key: str, value: Any) -> None:
        same = next((s for s in _SPELLINGS if key in s), {key})
        if same & out[dataset].keys():
            raise ConfigError(f"{word}: {key} of {dataset} is given twice")
        out[dataset][key] = value

    for word in xsec:
        dataset, _, number = word.rpartition("=")
        if not dataset:
            raise ConfigError(f"--xsec {word}: the form is NAME=PB")
        put(f"--xsec {word}", dataset, "xsec", cross_section(dataset, {"xsec": number}))
    for dataset in data:
        put(f"--data {dataset}", dataset, "is_mc", False)
    for word in meta:
        place, equals, text = word.partition("=")
        dataset, dot, key = place.rpartition(".")
        if not (dataset and dot and key and equals and text):
            raise ConfigError(f"--meta {word}: the form is NAME.key=value")
        put(f"--meta {word}", dataset, key, _value(word, text))
    return dict(out)


def _value(word: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
        json.dumps(value, allow_nan=False)
    except yaml.YAMLError:
        raise ConfigError(f"--meta {word}: the value cannot be read") from None
    except (TypeError, ValueError):
        return text  # what JSON does not have, such as a date
    return value


def refuse_output(path: str | Path, *, force: bool = False) -> None:
    """Raise if a fileset cannot be written there, before files are opened for minutes.

    Raises
    ------
    ConfigError
    """
    if not Path(path).parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {Path(path).parent}")
    check_file(path, force=force)


def write_fileset(fileset: Mapping[str, Any], path: str | Path, *, force: bool = False) -> None:
    """Write a fileset in one step, so that there is never half of one; `.gz` compresses it.

    Parameters
    ----------
    fileset : mapping
    path : path
    force : bool
        Overwrite a file that is there.

    Raises
    ------
    ConfigError
        A file is there already.
    """
    refuse_output(path, force=force)
    try:
        text = json.dumps({d: _with_steps(entry) for d, entry in fileset.items()}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: metadata that JSON does not have ({error})") from None
    data = (text + "\n").encode()
    write(path, gzip.compress(data) if Path(path).suffix == ".gz" else data)


def _with_steps(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataset in coffea's form, where steps stand with their file."""
    steps = entry.get("steps", {})
    files = {p: {"object_path": tree, "steps": steps[p]} if p in steps else tree for p, tree in entry["files"].items()}
    return {**{k: v for k, v in entry.items() if k != "steps"}, "files": files}
