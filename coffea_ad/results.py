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

from coffea_ad import files
from coffea_ad.errors import BadFile, NotWritten
from coffea_ad.weights import normalisation

__all__ = ["Results", "load_results", "save_results"]


@dataclass(frozen=True)
class Results:
    """What a run has filled.

    Attributes
    ----------
    histograms : {dataset: {observable: Hist}}
        Raw sums of genWeight over region, variation and the observable.
    report : dict
        The content of `report.json`.
    """

    histograms: dict[str, dict[str, hist.Hist]]
    report: dict[str, Any]

    def norm(self, dataset: str) -> float:
        """Return the factor from raw sums to the luminosity of the dataset's run."""
        entry = self.report["datasets"][dataset]
        return normalisation(dataset, entry["metadata"], entry["sumw"], entry.get("lumi", self.report["lumi"]))

    def scaled(self, dataset: str, observable: str) -> hist.Hist:
        """Return a histogram at the run's luminosity."""
        return self.histograms[dataset][observable] * self.norm(dataset)


def save_results(histograms: dict[str, dict[str, hist.Hist]], report: dict[str, Any], folder: str | Path) -> Results:
    """Write `report.json` and, if there are any, `histograms.json` and `histograms.root`.

    Parameters
    ----------
    histograms : {dataset: {observable: Hist}}
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
    if root:
        try:
            files.write(paths["histograms.root"], root)
        except NotWritten as error:
            files.remove(paths["histograms.root"])  # an older one would not be that of the report
            raise NotWritten(f"{error}; report.json and histograms.json are complete") from error
    return results


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
        for dataset, observables in results.histograms.items():
            try:
                norm = results.norm(dataset)
                for observable, histogram in observables.items():
                    for region in histogram.axes["region"]:
                        for variation in histogram.axes["variation"]:
                            name = f"{observable}/{region}/{dataset}/{variation}"
                            file[name] = histogram[{"region": region, "variation": variation}] * norm
            except Exception as error:  # noqa: BLE001  the histograms themselves must not be lost for it
                problems.append(f"{dataset} is not in histograms.root ({type(error).__name__}: {str(error)[:120]})")
    return content.getvalue(), problems


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
        lacking = [k for k in ("datasets", "lumi", "notes", "throughput", "key") if k not in report]
        if not isinstance(report, dict) or lacking:
            raise BadFile(f"{root}: its report.json is none of a run")
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
