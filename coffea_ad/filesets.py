"""Filesets: read into one form, and checked on the client before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uproot

from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.nanoaod import missing_branches
from coffea_ad.weights import cross_section

__all__ = ["load_fileset", "name_bad_file", "preflight", "sumw_of_skimmed"]


def load_fileset(source: str | Path | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Read a fileset and bring it to one form: {dataset: {"files": {path: tree}, "metadata": {…}}}.

    Parameters
    ----------
    source : path or mapping
        As coffea takes it: files as a mapping or as a list (then the tree is "treename" or "Events").

    Raises
    ------
    ConfigError
        It is not a fileset; the message names the dataset.
    """
    if isinstance(source, Mapping):
        content: Any = source
    else:
        try:
            content = json.loads(Path(source).read_text())
        except OSError as error:
            raise ConfigError(f"{source}: the fileset cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{source}: the fileset is not JSON text") from None
        except json.JSONDecodeError as error:
            raise ConfigError(f"{source}: the fileset is not valid JSON (line {error.lineno}: {error.msg})") from None
    if not isinstance(content, Mapping) or not content:
        raise ConfigError(f"{source}: a fileset maps datasets to files")
    out = {}
    for dataset, entry in content.items():
        described = entry if isinstance(entry, Mapping) else {"files": entry}
        out[dataset] = {
            "files": _files(dataset, described.get("files"), described.get("treename", "Events")),
            "metadata": _metadata(dataset, described.get("metadata") or {}),
        }
    return out


def _files(dataset: str, files: Any, tree: Any) -> dict[str, str]:
    if not re.fullmatch(r"\w[\w.+-]*", dataset):
        raise ConfigError(f"dataset {dataset!r}: its name becomes a folder; use letters, digits and . _ + - only")
    if isinstance(files, list):
        files = dict.fromkeys(files, tree)
    if not isinstance(files, Mapping) or not files:
        raise ConfigError(f"dataset {dataset}: there are no files")
    # coffea's preprocessing leaves {path: {"object_path": tree, "steps": …}}
    plain: dict[Any, Any] = {p: e.get("object_path") if isinstance(e, Mapping) else e for p, e in files.items()}
    for path, name in plain.items():
        if not isinstance(path, str) or not isinstance(name, str):
            raise ConfigError(f"dataset {dataset}: file {path!r} has no tree name")
    return plain


def _metadata(dataset: str, metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"dataset {dataset}: metadata must be keys and values")
    kinds = {key: metadata[key] for key in ("is_mc", "isMC") if key in metadata}
    for key, value in kinds.items():
        if value not in (True, False):
            raise ConfigError(f"dataset {dataset}: {key} is {value!r}, but must be true or false")
    if len({bool(v) for v in kinds.values()}) > 1:
        raise ConfigError(f"dataset {dataset}: is_mc and isMC contradict each other")
    return dict(metadata)


@dataclass(frozen=True)
class FileFacts:
    """What the check of one file found."""

    events: int
    has_weights: bool
    generated: int | None  # events of all of `Runs`; more than `events` in a file that was skimmed before


def _check_file(path: str, tree: str, needs: Mapping[str, Any]) -> FileFacts:
    """Open a file and check its branches.

    Raises
    ------
    BadFile, MissingBranch
    """
    try:
        with uproot.open(path) as file:
            events = file[tree]
            branches = set(events.keys())
            if events.num_entries > 0:
                lacking = missing_branches(needs, branches)
                if lacking:
                    raise MissingBranch(f"{path}: {lacking}")
            generated = _runs(file, "genEventCount")
            return FileFacts(events.num_entries, "genWeight" in branches, None if generated is None else int(generated))
    except uproot.exceptions.KeyInFileError:
        raise BadFile(f"{path}: there is no tree {tree!r}") from None
    except (OSError, ValueError, ImportError) as error:
        raise BadFile(f"{path}: {_reason(error)}") from None


def _runs(file: Any, branch: str) -> float | None:
    """Return the total of a branch of `Runs`; NanoAOD v6 and before wrote it with a trailing underscore."""
    if "Runs" not in file:
        return None
    runs = file["Runs"]
    for name in (branch, branch + "_"):
        if name in runs.keys():  # noqa: SIM118  a TTree is no mapping
            return float(np.sum(runs[name].array(library="np")))
    return None


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = " ".join(str(error).split())
    if "not a ROOT file" in text:
        return "this is not a ROOT file"
    return f"cannot be read ({text[:160]})"


def preflight(
    fileset: dict[str, dict[str, Any]], processor: Any, notes: list[str], *, tolerant: bool, normalise: bool
) -> set[str]:
    """Check one file of every dataset, and the metadata, on the client: seconds instead of retries on the cluster.

    Returns
    -------
    set of str
        The datasets whose files were skimmed before, so that `Runs` holds their sum of weights.
    """
    needs = processor.reads() if hasattr(processor, "reads") else {}
    skimmed = set()
    for dataset, entry in fileset.items():
        facts = _first_good(entry["files"], needs, tolerant=tolerant)
        metadata = entry["metadata"]
        if "is_mc" not in metadata and "isMC" not in metadata:
            metadata["is_mc"] = facts.has_weights
            kind, there = ("simulation", "there") if facts.has_weights else ("data", "not there")
            notes.append(f"{dataset}: taken as {kind}, since the metadata has no is_mc and genWeight is {there}")
        mc = bool(metadata.get("is_mc", metadata.get("isMC")))
        if mc and facts.events > 0 and not facts.has_weights:
            raise MissingBranch(f"dataset {dataset}: is_mc is true, but the files have no genWeight")
        if mc and normalise:
            cross_section(dataset, metadata)
        if mc and facts.generated is not None and facts.generated != facts.events:
            skimmed.add(dataset)
            notes.append(f"{dataset}: the files were skimmed before; the sum of weights is taken from their Runs trees")
    return skimmed


def _first_good(files: Mapping[str, str], needs: Mapping[str, Any], *, tolerant: bool) -> FileFacts:
    """Check files until one with events opens; the others are found out by the run itself."""
    problem: BadFile | None = None
    facts: FileFacts | None = None
    for path, tree in files.items():
        try:
            facts = _check_file(path, tree, needs)
        except BadFile as error:
            if not tolerant:
                raise
            problem = problem or error
            continue
        if facts.events > 0:
            return facts
    if facts is None:
        raise problem or BadFile("there are no files")
    return facts


def name_bad_file(fileset: Mapping[str, Mapping[str, Any]]) -> None:
    """Open every file and raise for the first bad one: what a worker raises does not always say which it was.

    Raises
    ------
    BadFile
    """
    for entry in fileset.values():
        for path, tree in entry["files"].items():
            _check_file(path, tree, {})


def sumw_of_skimmed(dataset: str, files: Mapping[str, str]) -> float:
    """Add up genEventSumw of all files: right only if all of their events were processed."""
    total = 0.0
    for path in files:
        with uproot.open(path) as file:
            part = _runs(file, "genEventSumw")
        if part is None:
            raise BadFile(f"{path}: other files of {dataset} have genEventSumw in Runs, this one has not")
        total += part
    return total
