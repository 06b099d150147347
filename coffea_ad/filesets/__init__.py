"""Filesets: read into one form."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coffea_ad.errors import ConfigError
from coffea_ad.weights import settled

__all__ = ["load_fileset"]


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
    partial = [p for p, e in files.items() if isinstance(e, Mapping) and _partial(e)]
    if partial:
        raise ConfigError(
            f"dataset {dataset}: {partial[0]} is to be read in part (steps), which is not done; leave them out"
        )
    for path, name in plain.items():
        if not isinstance(path, str) or not isinstance(name, str):
            raise ConfigError(f"dataset {dataset}: file {path!r} has no tree name")
    return plain


def _partial(entry: Mapping[str, Any]) -> bool:
    """Say whether the steps of coffea's preprocessing leave events out."""
    steps, total = entry.get("steps"), entry.get("num_entries")
    if not steps:
        return False
    edges = sorted((int(a), int(b)) for a, b in steps)
    gaps = edges[0][0] != 0 or any(a[1] != b[0] for a, b in itertools.pairwise(edges))
    return gaps or (total is not None and edges[-1][1] < int(total))


def _metadata(dataset: str, metadata: Any) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"dataset {dataset}: metadata must be keys and values")
    return settled(dataset, metadata)
