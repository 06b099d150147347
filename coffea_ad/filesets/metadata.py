"""Metadata of datasets, brought to one form: types that JSON has, and one name for what has several."""

from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.files.names import is_name
from coffea_ad.nanoaod.campaigns import energy_in
from coffea_ad.weights import cross_section, takes_sign

__all__ = ["as_json", "settled_metadata"]

_KINDS = ("data", "background", "signal")
# coffea gives these to the metadata of a chunk itself, and stops where a user has done so
_RESERVED = {"dataset", "filename", "treename", "metadata", "entrystart", "entrystop", "fileuuid", "numentries", "uuid",
             "clusters", "preload"}  # fmt: skip


def settled_metadata(dataset: str, metadata: Any) -> dict[str, Any]:
    """Return metadata in JSON's types, with `is_mc` (a boolean), `xsec` (pb) and `sqrt_s` (GeV) under these names.

    Parameters
    ----------
    dataset : str
        For messages.
    metadata : mapping or None
        Other spellings, `isMC`, `cross_section` and `ecm`, stay beside these.

    Raises
    ------
    ConfigError
        A value cannot be what its key says, two spellings contradict each other, or a key is one that coffea sets.

    Examples
    --------
    >>> settled_metadata("tt", {"isMC": np.True_, "xsec": "831.8"})
    {'isMC': True, 'xsec': 831.8, 'is_mc': True}
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"dataset {dataset}: metadata must be keys and values")
    for key in metadata:
        if not isinstance(key, str):
            raise ConfigError(f"dataset {dataset}: {key!r} in the metadata is no text, which a key must be")
    reserved = sorted(_RESERVED & metadata.keys())
    if reserved:
        raise ConfigError(f"dataset {dataset}: coffea sets {', '.join(reserved)} itself; take another key")
    out = {str(key): as_json(value, f"dataset {dataset}: {key}") for key, value in metadata.items()}
    _settle_kind(dataset, out)
    _settle_cross_section(dataset, out)
    takes_sign(dataset, out)
    _settle_sample(dataset, out)
    energy = energy_in({k: out[k] for k in ("sqrt_s", "ecm", "eCM") if k in out}, dataset)
    return out if energy is None else {**out, "sqrt_s": energy}


def _settle_kind(dataset: str, out: dict[str, Any]) -> None:
    for key in ("is_mc", "isMC", "is_signal", "isSignal"):
        if key in out:
            if not isinstance(out[key], (bool, int, float)) or out[key] not in (0, 1):
                raise ConfigError(f"dataset {dataset}: {key} is {out[key]!r}, but must be true or false")
            out[key] = bool(out[key])
    kind = out.get("kind")
    if kind is not None and kind not in _KINDS:
        raise ConfigError(f"dataset {dataset}: kind is {kind!r}, but must be {', '.join(_KINDS)}")
    said: dict[str, Any] = {key: out[key] for key in ("is_mc", "isMC") if key in out}
    if kind is not None:
        said["kind"] = kind != "data"
    if len({bool(value) for value in said.values()}) > 1:
        raise ConfigError(f"dataset {dataset}: {' and '.join(said)} contradict each other")
    marked = [key for key in ("is_signal", "isSignal", "signal") if out.get(key) is not None]
    if kind is not None and any(out[key] is not (kind == "signal") for key in marked):
        raise ConfigError(f"dataset {dataset}: kind and {marked[0]} contradict each other")
    if said:
        out["is_mc"] = bool(next(iter(said.values())))


def _settle_sample(dataset: str, out: dict[str, Any]) -> None:
    """Check what groups datasets: `process` and `era` are names, `lumi` (fb⁻¹) and `mass` (GeV, of a signal) positive numbers."""
    for key in ("process", "era"):
        if key in out:
            value = out[key]
            if isinstance(value, bool) or not isinstance(value, (str, int)) or not is_name(str(value)):
                raise ConfigError(
                    f"dataset {dataset}: {key} is {value!r}, but must be a name of letters, digits and _ . + -"
                )
            out[key] = str(value)
    for key, unit in (("lumi", "fb⁻¹"), ("mass", "GeV")):
        value = out.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            raise ConfigError(f"dataset {dataset}: {key} is {value!r}, but must be a positive number of {unit}")


def _settle_cross_section(dataset: str, out: dict[str, Any]) -> None:
    said = {key: cross_section(dataset, {key: out[key]}) for key in ("xsec", "cross_section") if key in out}
    if len(set(said.values())) > 1:
        raise ConfigError(f"dataset {dataset}: xsec and cross_section contradict each other")
    if said:
        out |= {str(key): value for key, value in said.items()} | {"xsec": next(iter(said.values()))}


def as_json(value: Any, what: str) -> Any:
    """Return a value in types that JSON has.

    Parameters
    ----------
    value
        numpy's numbers, booleans and arrays, decimals, enumerations, tuples, sets, paths and dates become what JSON has for
        them.
    what : str
        For the message.

    Raises
    ------
    ConfigError
        JSON has nothing for it.

    Examples
    --------
    >>> as_json({"years": (np.int64(2017), 2018), "data": np.bool_(False)}, "x")
    {'years': [2017, 2018], 'data': False}
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, (np.datetime64, np.timedelta64)):  # whose item is a bare integer at some resolutions
        return str(value)
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, (Decimal, Fraction)):
        value = float(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        value = float(value)
        if not math.isfinite(value):
            raise ConfigError(f"{what} is {value}, which is no number")
        return value
    if isinstance(value, (PurePath, dt.date, dt.time, uuid.UUID)):
        return str(value)
    if isinstance(value, Mapping):
        out = {str(k): as_json(v, f"{what}.{k}") for k, v in value.items()}
        if len(out) < len(value):
            raise ConfigError(f"{what} has two keys that are the same text")
        return out
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [as_json(v, what) for v in value]
    raise ConfigError(f"{what} is a {type(value).__name__}, which JSON has not")
