"""Fields of records in RNTuples, by the names of NanoAOD's branches: `FatJet.pt` is FatJet_pt.

An awkward array of records that uproot writes becomes such an RNTuple. Lists of records need no counter, since the
fields of a record have one length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea.nanoevents.util import quote

__all__ = ["branch_names", "record_offsets", "unfold_forms"]


def branch_names(types: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a tree as they are in the file, and how NanoAOD names them.

    Parameters
    ----------
    types : {field: type}
        As uproot names them; a record of no class has an empty one.

    Examples
    --------
    >>> branch_names({"run": "std::uint32_t", "FatJet": "", "FatJet.pt": "float"})
    {'run': 'run', 'FatJet.pt': 'FatJet_pt'}
    """
    out = {}
    for name in types:
        record, dot, field = name.partition(".")
        if dot and types.get(record) == "":
            if "." not in field and f"{record}_{field}" not in types:
                out[name] = f"{record}_{field}"
        elif types[name] != "" or not any(other.startswith(f"{name}.") for other in types):
            out[name] = name
    return out


def unfold_forms(forms: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace records by their fields, each of which is read by itself.

    Parameters
    ----------
    forms : {branch: form}
        As coffea makes them of a file.

    Returns
    -------
    forms : {branch: form}
    offsets : {collection: form key}
        Of the lists of records among them.
    """
    out: dict[str, Any] = {}
    offsets: dict[str, str] = {}
    for name, form in forms.items():
        jagged = form["class"] == "ListOffsetArray"
        record = form["content"] if jagged else form
        if record["class"] != "RecordArray" or record.get("parameters", {}).get("typename") != "":
            out[name] = form
            continue
        for field, content in zip(record["fields"], record["contents"], strict=True):
            if content["class"] != "NumpyArray" or f"{name}_{field}" in forms:
                continue
            loaded = f"{name}.{field},!load"
            column_form = {**content, "form_key": quote(loaded + (",!content" if jagged else ""))}
            if jagged:
                column_form = {**form, "content": column_form, "form_key": quote(loaded)}
                offsets.setdefault(name, quote(loaded + ",!offsets"))
            out[f"{name}_{field}"] = column_form
    return out, offsets


def record_offsets(key: str) -> dict[str, Any]:
    """Return the form of the offsets of a list of records, given its key."""
    return {
        "class": "NumpyArray",
        "itemsize": 8,
        "format": "i",
        "primitive": "int64",
        "parameters": {},
        "form_key": key,
    }
