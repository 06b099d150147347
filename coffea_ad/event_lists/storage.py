"""Lists of events as parquet: one file for each dataset, its lists told apart by the column `list`."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coffea_ad import files
from coffea_ad.errors import BadFile, CoffeaADError
from coffea_ad.event_lists.top import IDENTITY, TopEvents

__all__ = ["FOLDER", "Lists", "encoded", "file_names", "from_parquet", "load_lists", "stale_files", "to_parquet"]

Lists = Mapping[str, Mapping[str, TopEvents]]
"""{dataset: {name: TopEvents}}"""

FOLDER = "events"
"""Where lists of events are in a results folder."""
_KEY = b"coffea_ad_event_lists"
_LIST = "list"


def to_parquet(lists: Mapping[str, TopEvents]) -> bytes:
    """Return the lists of one dataset as a parquet file.

    Parameters
    ----------
    lists : {name: TopEvents}

    Examples
    --------
    >>> from_parquet(to_parquet({"ad": TopEvents(5, "ad_logp")}), "qcd.parquet")
    {'ad': <TopEvents: 0 of 0 events by ad_logp, at most 5>}
    """
    tables = [
        pa.table({_LIST: pa.array([name] * len(top), pa.string()), **{n: pa.array(c) for n, c in top.columns.items()}})
        for name, top in lists.items()
    ]
    about = {n: {"k": t.k, "by": t.by, "ranked": t.ranked, "columns": list(t.columns)} for n, t in lists.items()}
    table = pa.concat_tables(tables, promote_options="default")
    content = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(about)}), content, compression="zstd")
    return content.getvalue()


def from_parquet(content: bytes, path: str) -> dict[str, TopEvents]:
    """Return the lists in a parquet file.

    Parameters
    ----------
    content : bytes
    path : str
        For messages.

    Raises
    ------
    BadFile
        It is damaged, or holds something else.
    """
    try:
        # not a file of Python, which threads of pyarrow may still hold when Python ends
        table = pq.read_table(pa.BufferReader(content))
        about = json.loads((table.schema.metadata or {})[_KEY])
        return {name: _list(table, name, entry) for name, entry in about.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, CoffeaADError) as error:
        reason = str(error).partition("\n")[0][:150]
        raise BadFile(f"{path}: this holds no lists of events ({type(error).__name__}: {reason})") from None


def _list(table: Any, name: str, about: Mapping[str, Any]) -> TopEvents:
    rows = table.filter(pc.equal(table[_LIST], name)).select(about["columns"])
    columns = {
        n: np.asarray(c.to_pylist(), object) if n in IDENTITY and IDENTITY[n].kind == "O" else c.to_numpy()
        for n, c in zip(rows.column_names, rows.columns, strict=True)
    }
    return TopEvents.from_columns(about["k"], about["by"], columns, ranked=about["ranked"])


def file_names(datasets: Mapping[str, Any]) -> dict[str, str]:
    """Return the file of each dataset: its name, made safe and unique whatever the case of letters.

    >>> file_names({"qcd": {}, "/JetMET/Run2022C": {}, "QCD": {}})
    {'qcd': 'qcd.parquet', '/JetMET/Run2022C': '_JetMET_Run2022C.parquet', 'QCD': 'QCD_2.parquet'}
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in datasets:
        stem, n = files.as_name(name), 1
        while (label := stem if n == 1 else f"{stem}_{n}").lower() in taken:
            n += 1
        taken.add(label.lower())
        out[name] = f"{label}.parquet"
    return out


def encoded(lists: Lists) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """Return the files of all lists, and what the report says of them: how many events of how many, by which score.

    >>> content, said = encoded({"qcd": {"ad": TopEvents(5, "ad_logp")}})
    >>> list(content), said["qcd"]["file"], said["qcd"]["lists"]
    (['events/qcd.parquet'], 'events/qcd.parquet', {'ad': {'k': 5, 'listed': 0, 'ranked': 0, 'by': ['ad_logp']}})
    """
    content: dict[str, bytes] = {}
    said: dict[str, dict[str, Any]] = {}
    lists = {dataset: named for dataset, named in lists.items() if named}
    for dataset, name in file_names(lists).items():
        path = f"{FOLDER}/{name}"
        content[path] = to_parquet(lists[dataset])
        said[dataset] = {
            "file": path,
            "digest": hashlib.sha256(content[path]).hexdigest(),
            "lists": {
                n: {"k": top.k, "listed": len(top), "ranked": top.ranked, "by": list(top.by)}
                for n, top in lists[dataset].items()
            },
        }
    return content, said


def load_lists(folder: str | Path, report: Mapping[str, Any]) -> dict[str, dict[str, TopEvents]]:
    """Read the lists that a report names.

    Raises
    ------
    BadFile
        A file is not there, damaged, or not that of the report.
    """
    out = {}
    for dataset, entry in report.get("event_lists", {}).items():
        path = _path(folder, entry["file"])
        content = files.read(path)
        if hashlib.sha256(content).hexdigest() != entry["digest"]:
            raise BadFile(
                f"{path}: this list of events is not that of the report; was the run ended while it was writing?"
            )
        out[dataset] = from_parquet(content, path)
    return out


def stale_files(folder: str | Path, new: Mapping[str, Any]) -> list[str]:
    """Return the lists that an earlier report in the folder names and that a new one does not write again."""
    path = files.join(folder, "report.json")
    try:
        before = json.loads(files.read(path))["event_lists"] if files.exists(path) else {}
        return [_path(folder, entry["file"]) for entry in before.values() if entry["file"] not in new]
    except (BadFile, ValueError, KeyError, TypeError, AttributeError):
        return []  # what no report names is nobody's list


def _path(folder: str | Path, file: str) -> str:
    """Return where a list is; a report that was edited must not lead out of its folder."""
    place, _, name = str(file).rpartition("/")
    if place != FOLDER or not files.is_name(name):
        raise BadFile(f"{folder}: report.json is damaged (a list of events cannot be in {file!r})")
    return files.join(folder, FOLDER, name)
