"""The folder of results: written as a whole, and checked when it is read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import hist
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from coffea_ad import files
from coffea_ad.errors import BadFile, NotWritten
from coffea_ad.event_lists.storage import Lists, encoded, load_lists, stale_files
from coffea_ad.luminosity.sections import golden_files
from coffea_ad.outputs import clear_figures
from coffea_ad.results import histogram_files
from coffea_ad.results.results import Results

__all__ = ["FORMER", "HISTOGRAMS", "SCHEMA", "finite", "load_results", "save_results"]


SCHEMA = 2
"""Version of `report.json`: 1 had regions as an axis of the histograms."""
HISTOGRAMS = "histograms.zip"
FORMER = ("histograms.json", "histograms.root")
"""What folders of version 1 hold in its place; the first one is read."""


def save_results(
    histograms: dict[str, dict[str, hist.Hist]],
    report: dict[str, Any],
    folder: str | Path,
    event_lists: Lists | None = None,
) -> Results:
    """Write `report.json`, the golden JSON of data, and, if there are any, `histograms.zip` and lists of events.

    Parameters
    ----------
    histograms : {dataset or "all": {name: Hist}}
        Raw.
    report : dict
    folder : path or fsspec URL
    event_lists : {dataset: {name: TopEvents}}, optional

    Raises
    ------
    NotWritten
        Results of an earlier run are as they were; in a new folder there is the report at least.
    """
    lists, said = encoded(event_lists or {})
    named = {dataset: dict(of_dataset) for dataset, of_dataset in (event_lists or {}).items()}
    results = Results(histograms, finite({"schema_version": SCHEMA, **report, "event_lists": said}), named)
    packed = b""
    if any(histograms.values()):
        packed = histogram_files.to_bytes(histograms)
        results.report["histograms"] = histogram_files.digest(packed)
    told = json.dumps(results.report, indent=1, default=str, allow_nan=False).encode()
    with files.alone(folder):  # files of two runs must not be mixed
        _write(results, folder, told, packed, lists)
    return results


def _write(results: Results, folder: str | Path, told: bytes, packed: bytes, lists: Mapping[str, bytes]) -> None:
    """Write the files of a results folder, the small and the important ones first."""
    stale = stale_files(folder, lists)
    report_file = files.join(folder, "report.json")
    try:
        with ExitStack() as together:  # a report must never stand beside another run's histograms
            together_written = {"report.json": told, **({HISTOGRAMS: packed} if packed else {}), **lists}
            opened = {n: together.enter_context(files.replacing(files.join(folder, n))) for n in together_written}
            for name, file in opened.items():  # closed in the other order
                file.write(together_written[name])
                file.flush()
    except NotWritten as error:
        if not files.exists(report_file):
            files.write(report_file, told)  # the small one may fit yet
            raise NotWritten(f"{error}; the report alone is in {folder}") from error
        raise
    for name in ([] if packed else [HISTOGRAMS]) + [*FORMER]:
        files.remove(files.join(folder, name))
    for path in stale:
        files.remove(path)
    clear_figures(folder, "sections/*.json")
    for name, content in golden_files(results.report["datasets"]).items():
        files.write(files.join(folder, "sections", name), content)


def finite(value: Any) -> Any:
    """Put null where a number is none, and lists in the place of arrays: JSON has neither NaN nor arrays."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return finite(value.tolist())
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Entry(BaseModel):
    """What a report says of a dataset, as far as results are made with it."""

    model_config = ConfigDict(strict=True)
    metadata: dict[str, Any]
    lumi: float | None = None
    sumw: float | None = None
    events: int | None = None
    weighted: bool = True
    files: dict[str, Any] = {}
    failed: list[dict[str, Any]] = []
    regions: dict[str, list[str]] = {}
    hidden_cells: list[str] = []
    sumw_variations: dict[str, float | None] = {}


class _Listed(BaseModel):
    """What a report says of the lists of events of a dataset."""

    model_config = ConfigDict(strict=True)
    file: str
    digest: str
    lists: dict[str, dict[str, Any]]


class _Report(BaseModel):
    model_config = ConfigDict(strict=True)
    datasets: dict[str, _Entry]
    lumi: float | None
    notes: list[str]
    throughput: dict[str, Any]
    key: dict[str, Any]
    outputs: dict[str, Any] = {}
    models: list[dict[str, Any]] = []
    histograms: str = ""
    schema_version: int = 1
    regions: dict[str, dict[str, Any]] = {}
    variations: dict[str, dict[str, Any]] = {}
    event_lists: dict[str, _Listed] = {}


def load_results(folder: str | Path) -> Results:
    """Read a results folder.

    Raises
    ------
    BadFile
        It is none.
    """
    root = folder
    if not files.exists(files.join(root, "report.json")):
        raise BadFile(f"{root}: there is no report.json; this is not a results folder")
    try:
        report = json.loads(files.read(files.join(root, "report.json")))
        if not isinstance(report, dict) or any(
            k not in report for k in ("datasets", "lumi", "notes", "throughput", "key")
        ):
            raise BadFile(f"{root}: its report.json was not written by coffea-ad run")
        _check(report, root)
        name = next((n for n in (HISTOGRAMS, FORMER[0]) if files.exists(files.join(root, n))), "")
        if not name:
            if "histograms" in report:
                raise BadFile(f"{root}: there is a report, but its {HISTOGRAMS} is not there")
            return Results({}, report, load_lists(root, report))
        data = files.read(files.join(root, name))
        if report.get("histograms", digest := histogram_files.digest(data)) != digest:
            raise BadFile(
                f"{root}: the histograms are not those of the report; was the run ended while it was writing?"
            )
        histograms = (histogram_files.from_bytes if name == HISTOGRAMS else histogram_files.from_json)(data)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{root}: the results are damaged ({type(error).__name__}: {str(error)[:100]})") from None
    return Results(histograms, report, load_lists(root, report))


def _check(report: dict[str, Any], folder: str | Path) -> None:
    """Refuse a report of which a part has another form than a run gives it.

    Raises
    ------
    BadFile
    """
    try:
        version = _Report.model_validate(report).schema_version
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadFile(f"{folder}: report.json is damaged at {place} ({first['msg'].lower()})") from None
    if version > SCHEMA:
        raise BadFile(
            f"{folder}: its report.json has schema version {version}, and this coffea-ad knows those up to {SCHEMA}"
        )
