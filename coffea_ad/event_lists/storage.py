"""Lists of events as parquet: one file for each dataset, its lists told apart by the column `list`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from coffea_ad.errors import BadFile, CoffeaADError
from coffea_ad.event_lists.top import IDENTITY, TopEvents
from coffea_ad.files import as_name

__all__ = ["FOLDER", "described", "file_names", "from_parquet", "to_parquet"]

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
        table = pq.read_table(io.BytesIO(content))
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
        stem, n = as_name(name), 1
        while (label := stem if n == 1 else f"{stem}_{n}").lower() in taken:
            n += 1
        taken.add(label.lower())
        out[name] = f"{label}.parquet"
    return out


def described(lists: Mapping[str, TopEvents]) -> dict[str, dict[str, Any]]:
    """Return what a report says of the lists of a dataset: how many events of how many, by which score.

    >>> described({"ad": TopEvents(5, "ad_logp")})
    {'ad': {'k': 5, 'listed': 0, 'ranked': 0, 'by': ['ad_logp']}}
    """
    return {n: {"k": top.k, "listed": len(top), "ranked": top.ranked, "by": list(top.by)} for n, top in lists.items()}
