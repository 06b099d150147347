"""Readers of public tables of trigger-like objects: Dark Machines and ADC 2021. Both become events for `event_objects`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad import features
from coffea_ad.errors import SkimError
from coffea_ad.features.events import EventObjectOptions
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.files import is_name
from coffea_ad.skims.blocks import Block
from coffea_ad.skims.hdf5 import opened
from coffea_ad.skims.writing import feature_columns
from coffea_ad.typing import Float64s, Ints

__all__ = ["adc_table", "dark_machines"]

_LINES, _EVENTS = 20_000, 50_000
_COLLECTIONS = ("Electron", "Muon", "Jet")
_SYMBOLS = {"e-": 0, "e+": 0, "m-": 1, "m+": 1, "j": 2, "b": 2, "g": -1}
_HEADER = "event ID; process ID; event weight; MET; METphi; object, E, pT, η, φ; …"
_MEV = 1e-3


def _events(
    n: int,
    kind: Ints,
    event: Ints,
    columns: dict[str, Float64s],
    met: Float64s,
    met_phi: Float64s,
    config: FeatureConfig,
) -> ak.Array:
    """Return n events with electrons, muons and jets (kind 0, 1, 2), flat objects of which are listed in any order."""
    options = features.get(config.name).resolve(config.options)
    assert isinstance(options, EventObjectOptions)
    out: dict[str, Any] = {}
    for which, name in enumerate(_COLLECTIONS):
        rows = np.flatnonzero(kind == which)
        rows = rows[np.argsort(event[rows], kind="stable")]
        counts = np.bincount(event[rows], minlength=n)
        out[name] = ak.unflatten(ak.zip({k: v[rows] for k, v in columns.items()}), counts)
    out[options.met] = ak.zip({"pt": met, "phi": met_phi})
    return ak.zip(out, depth_limit=1)


def dark_machines(path: Path, address: str, config: FeatureConfig, stop: int | None) -> Iterator[Block]:
    """Read lines of `event ID; process ID; event weight; MET; METphi; object, E, pT, η, φ; …`, MeV and radians.

    Objects are j, b, e±, m±; photons (g) have no place in `event_objects`. Each process ID is a dataset, each weight stays.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = enumerate((line for line in itertools.islice(file, stop)), start=1)
        while batch := list(itertools.islice(lines, _LINES)):
            parsed = [_parsed(f"{address}: line {number}", line) for number, line in batch if line.strip()]
            if parsed:
                yield _block(parsed, config)


def _parsed(where: str, line: str) -> tuple[str, tuple[float, float, float], list[tuple[float, ...]]]:
    """Return process, (weight, MET, φ) and objects (kind, E, pT, η, φ) of a line."""
    fields = [field.strip() for field in line.strip().rstrip(";").split(";")]
    wrong = SkimError(f"{where} is not {_HEADER!r}, but {line.strip()[:80]!r}")
    if len(fields) < 5:
        raise wrong
    try:
        numbers = (float(fields[2]), float(fields[3]), float(fields[4]))
        objects = []
        for text in fields[5:]:
            symbol, *values = (part.strip() for part in text.split(","))
            if len(values) != 4:
                raise wrong
            if symbol not in _SYMBOLS:
                raise SkimError(f"{where}: an object is {symbol!r}, but must be one of {', '.join(_SYMBOLS)}")
            objects.append((_SYMBOLS[symbol], *map(float, values)))
    except ValueError:
        raise wrong from None
    # older files have process and event in the other order; an event's number is no name
    process = fields[1] if _is_number(fields[0]) or not _is_number(fields[1]) else fields[0]
    if not is_name(process):
        raise SkimError(f"{where}: its process {process!r} cannot name a dataset")
    return process, numbers, objects


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _block(
    parsed: Sequence[tuple[str, tuple[float, float, float], list[tuple[float, ...]]]], config: FeatureConfig
) -> Block:
    n = len(parsed)
    weight, met, met_phi = np.array([numbers for _, numbers, _ in parsed]).T
    flat = np.array([row for *_, objects in parsed for row in objects], np.float64).reshape(-1, 5)
    event = np.repeat(np.arange(n), [len(objects) for *_, objects in parsed])
    energy, pt, eta, phi = flat[:, 1] * _MEV, flat[:, 2] * _MEV, flat[:, 3], flat[:, 4]
    mass = np.sqrt(np.maximum(energy**2 - (pt * np.cosh(np.clip(eta, -20, 20))) ** 2, 0))
    columns = {"pt": pt, "eta": eta, "phi": phi, "mass": mass}
    events = _events(n, flat[:, 0].astype(np.int64), event, columns, met * _MEV, met_phi, config)
    return Block(np.array([process for process, *_ in parsed], np.str_), weight, feature_columns(config, events))


def adc_table(path: Path, address: str, config: FeatureConfig, stop: int | None) -> Iterator[Block]:
    """Read the array `Particles`, (n, 19, 4): pT (GeV), η, φ and type (1 MET, 2 electron, 3 muon, 4 jet, 0 nothing).

    Rows are missing momentum, 4 electrons, 4 muons and 10 jets. The feature selects, orders and scales them anew.
    """
    with opened(path, address) as file:
        if "Particles" not in file or getattr(file["Particles"], "shape", ())[1:] != (19, 4):
            shape = getattr(file["Particles"], "shape", "a group") if "Particles" in file else "not there"
            raise SkimError(f"{address}: its array Particles is {shape}, but must be (n, 19, 4)")
        table = file["Particles"]
        total = len(table) if stop is None else min(stop, len(table))
        for start in range(0, total, _EVENTS):
            rows = np.asarray(table[start : min(start + _EVENTS, total)], np.float64)
            yield Block(np.full(len(rows), "", np.str_), np.ones(len(rows)), _adc_columns(rows, address, config))


def _adc_columns(rows: npt.NDArray[Any], address: str, config: FeatureConfig) -> dict[str, Any]:
    number = rows[:, :, 3]
    place = np.array([1] + 4 * [2] + 4 * [3] + 10 * [4])
    wrong = (number != 0) & (number != place)
    if wrong.any():
        event, row = np.argwhere(wrong)[0]
        raise SkimError(
            f"{address}: row {row} of an event has type {number[event, row]:g}, but must be {place[row]}, or 0 for nothing"
        )
    event, row = np.nonzero((number > 0) & (place > 1))
    pt, eta, phi, kind = rows[event, row].T
    columns = {"pt": pt, "eta": eta, "phi": phi, "mass": np.zeros(len(pt))}
    met = np.where(number[:, 0] > 0, rows[:, 0, 0], 0.0)
    events = _events(len(rows), kind.astype(np.int64) - 2, event, columns, met, rows[:, 0, 2], config)
    return feature_columns(config, events)
