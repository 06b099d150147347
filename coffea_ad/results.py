"""A results folder: raw histograms as UHI JSON, normalised ones as ROOT TH1, and the report of the run."""

from __future__ import annotations

import hashlib
import io
import json
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hist
import uhi.io.json
import uproot
from pydantic import BaseModel, ConfigDict, ValidationError

from coffea_ad import files
from coffea_ad.errors import BadFile, CoffeaADError, ConfigError, NotNormalisable, NotWritten, UnknownName
from coffea_ad.luminosity import golden_files
from coffea_ad.outputs import clear_figures
from coffea_ad.weights import is_simulation, normalisation

__all__ = ["ALL", "Results", "load_results", "over_regions", "save_results"]

ALL = "all"
"""The group of histograms that are of no single dataset."""


def over_regions(histogram: hist.Hist) -> bool:
    """Say whether a histogram is over region, variation and observables: the form that is written at luminosity."""
    return {"region", "variation"} < set(histogram.axes.name)


@dataclass(frozen=True, repr=False)
class Results:
    """What a run has filled.

    Attributes
    ----------
    histograms : {dataset: {name: Hist}}
        Raw: of a search, sums of genWeight over region, variation and the observable. What a processor has filled for all
        datasets together stands under "all".
    report : dict
        The content of `report.json`.
    """

    histograms: dict[str, dict[str, hist.Hist]]
    report: dict[str, Any]

    def __repr__(self) -> str:
        """Return one line: which datasets, and how many histograms."""
        names = list(self.report.get("datasets", {}))
        listed = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        n = sum(len(named) for named in self.histograms.values())
        return f"<Results of {self.report.get('processor', 'a processor')}: {n} histograms of {len(names)} datasets ({listed})>"

    @property
    def in_regions(self) -> dict[str, dict[str, hist.Hist]]:
        """The histograms over region, variation and an observable, {dataset: {observable: Hist}}."""
        datasets = self.report["datasets"]
        fits = {d: {o: h for o, h in n.items() if over_regions(h)} for d, n in self.histograms.items() if d in datasets}
        return {d: named for d, named in fits.items() if named}

    @property
    def not_normalisable(self) -> dict[str, str]:
        """Why, for each dataset that has no factor to a luminosity."""
        reasons = {}
        for dataset in self.report["datasets"]:
            try:
                self.norm(dataset)
            except (ConfigError, NotNormalisable) as error:
                reasons[dataset] = str(error)
        return reasons

    def norm(self, dataset: str) -> float:
        """Return the factor from raw sums to the luminosity of the dataset's run.

        Raises
        ------
        UnknownName
            There is no such dataset.
        NotNormalisable, ConfigError
            Its weights sum to 0 or were not collected; there is no cross-section or luminosity.
        """
        if dataset not in self.report["datasets"]:
            raise UnknownName.of("dataset", dataset, self.report["datasets"])
        entry = self.report["datasets"][dataset]
        if entry.get("events") == 0:
            return 0.0  # nothing to scale
        lumi = entry.get("lumi", self.report["lumi"])
        mc = is_simulation(entry["metadata"]) is not False
        if mc and lumi is None:
            raise ConfigError(f"dataset {dataset}: its run was given no luminosity; run it with --lumi")
        if mc and not (entry.get("weighted", True) and entry.get("sumw") is not None):
            raise NotNormalisable(
                f"dataset {dataset}: its processor returned no sumw, the sum of weights, to normalise with"
            )
        return normalisation(dataset, entry["metadata"], entry.get("sumw", 0.0), lumi)

    def scaled(self, dataset: str, observable: str) -> hist.Hist:
        """Return a histogram of a dataset at its run's luminosity.

        Of a histogram of all datasets with an axis `dataset`, this is the dataset's part.

        Raises
        ------
        UnknownName
            There is no such dataset or histogram; the message says the nearest name.
        NotNormalisable, ConfigError
            As for `norm`.
        """
        norm = self.norm(dataset)
        named, common = self.histograms.get(dataset, {}), self.histograms.get(ALL, {})
        if observable in named:
            return named[observable] * norm
        if observable in common and "dataset" in common[observable].axes.name:
            if dataset in common[observable].axes["dataset"]:
                return common[observable][{"dataset": dataset}] * norm
            raise UnknownName(f"histogram {observable}: its axis dataset has no {dataset}")
        raise UnknownName.of(f"histogram of {dataset}", observable, named)


def save_results(histograms: dict[str, dict[str, hist.Hist]], report: dict[str, Any], folder: str | Path) -> Results:
    """Write `report.json`, the golden JSON of data, and, if there are any, `histograms.json` and `histograms.root`.

    Parameters
    ----------
    histograms : {dataset or "all": {name: Hist}}
        Raw.
    report : dict
    folder : path or fsspec URL

    Raises
    ------
    NotWritten
        Results of an earlier run are as they were, unless only the ROOT file, which is the last, could not be written; in a
        new folder there is the report at least.
    """
    results = Results(histograms, _finite(dict(report)))
    text, root = b"", b""
    if any(histograms.values()):
        text = json.dumps(histograms, default=uhi.io.json.default).encode()
        results.report["histograms"] = hashlib.sha256(text).hexdigest()
        root, problems = _as_root(results)
        results.report["notes"] = [*report.get("notes", ()), *problems]
    told = json.dumps(results.report, indent=1, default=str, allow_nan=False).encode()
    with files.alone(folder):  # files of two runs must not be mixed
        _write(results, folder, told, text, root)
    return results


def _write(results: Results, folder: str | Path, told: bytes, text: bytes, root: bytes) -> None:
    """Write the files of a results folder, the small and the important ones first."""
    paths = {name: files.join(folder, name) for name in ("report.json", "histograms.json", "histograms.root")}
    try:
        with ExitStack() as together:  # a report must never stand beside another run's histograms
            names = ["report.json", *(["histograms.json"] if text else [])]  # closed in the other order
            opened = {name: together.enter_context(files.replacing(paths[name])) for name in names}
            for name, file in opened.items():
                file.write(told if name == "report.json" else text)
                file.flush()
    except NotWritten as error:
        if not files.exists(paths["report.json"]):
            files.write(paths["report.json"], told)  # the small one may fit yet
            raise NotWritten(f"{error}; the report alone is in {folder}") from error
        raise
    for name, content in (("histograms.json", text), ("histograms.root", root)):
        if not content:
            files.remove(paths[name])
    clear_figures(folder, "sections/*.json")
    for name, content in golden_files(results.report["datasets"]).items():
        files.write(files.join(folder, "sections", name), content)
    if root:
        try:
            files.write(paths["histograms.root"], root)
        except NotWritten as error:
            files.remove(paths["histograms.root"])  # an older one would not be that of the report
            raise NotWritten(f"{error}; report.json and histograms.json are complete") from error


def _finite(value: Any) -> Any:
    """Put null where a number is none: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Memory(io.BytesIO):
    """Bytes that outlive the file that is written into them."""

    def close(self) -> None:
        pass


def _as_root(results: Results) -> tuple[bytes, list[str]]:
    """One TH1 per observable/region/dataset/variation, at luminosity, as combine and pyhf take them; say what was not."""
    problems = []
    content = _Memory()
    with uproot.recreate(content) as file:
        for dataset, observables in results.in_regions.items():
            try:
                norm = results.norm(dataset)
                for observable, histogram in observables.items():
                    for region in histogram.axes["region"]:
                        for variation in histogram.axes["variation"]:
                            name = f"{observable}/{region}/{dataset}/{variation}"
                            file[name] = histogram[{"region": region, "variation": variation}] * norm
            except CoffeaADError as error:
                problems.append(f"{dataset} is not in histograms.root ({error})")
            except Exception as error:  # noqa: BLE001  the histograms themselves must not be lost for it
                problems.append(f"{dataset} is not in histograms.root ({type(error).__name__}: {str(error)[:120]})")
    return content.getvalue(), problems


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
            raise BadFile(f"{root}: its report.json is none of a run")
        _check(report, root)
        if not files.exists(files.join(root, "histograms.json")):
            if "histograms" in report:
                raise BadFile(f"{root}: there is a report, but its histograms.json is not there")
            return Results({}, report)
        text = files.read(files.join(root, "histograms.json"))
        if report.get("histograms", digest := hashlib.sha256(text).hexdigest()) != digest:
            raise BadFile(
                f"{root}: the histograms are not those of the report; was the run ended while it was writing?"
            )
        stored = json.loads(text, object_hook=uhi.io.json.object_hook)
        histograms = {d: {o: hist.Hist(h) for o, h in observables.items()} for d, observables in stored.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{root}: the results are damaged ({type(error).__name__}: {str(error)[:100]})") from None
    return Results(histograms, report)


def _check(report: dict[str, Any], folder: str | Path) -> None:
    """Refuse a report of which a part has another form than a run gives it.

    Raises
    ------
    BadFile
    """
    try:
        _Report.model_validate(report)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadFile(f"{folder}: report.json is damaged at {place} ({first['msg'].lower()})") from None
