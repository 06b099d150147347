"""A results folder: raw histograms as UHI JSON, normalised ones as ROOT TH1, and the report of the run."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hist
import uhi.io.json
import uproot

from coffea_ad.errors import BadFile
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
    folder : path
    """
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(histograms, _finite(dict(report)))
    parts = {}
    if any(histograms.values()):
        text = json.dumps(histograms, default=uhi.io.json.default)
        results.report["histograms"] = hashlib.sha256(text.encode()).hexdigest()
        results.report["notes"] = [*report.get("notes", ()), *_write_root(results, out / "histograms.root.part")]
        parts["histograms.json"] = text.encode()
    parts["report.json"] = json.dumps(results.report, indent=1, default=str, allow_nan=False).encode()
    for name, content in parts.items():
        (out / f"{name}.part").write_bytes(content)
    # all at once, at the end: a report must never stand beside another run's histograms
    for name in ("histograms.root", "histograms.json", "report.json"):
        if (out / f"{name}.part").exists():
            (out / f"{name}.part").replace(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    return results


def _finite(value: Any) -> Any:
    """Put null where a number is none: JSON has no NaN."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_root(results: Results, path: Path) -> list[str]:
    """One TH1 per observable/region/dataset/variation, at luminosity, as combine and pyhf take them; say what was not."""
    problems = []
    with uproot.recreate(path) as file:
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
    return problems


def load_results(folder: str | Path) -> Results:
    """Read a results folder.

    Raises
    ------
    BadFile
        It is none.
    """
    root = Path(folder)
    if not (root / "report.json").is_file():
        raise BadFile(f"{root}: there is no report.json; this is not a results folder")
    try:
        report = json.loads((root / "report.json").read_text())
        lacking = [k for k in ("datasets", "lumi", "notes", "throughput", "key") if k not in report]
        if not isinstance(report, dict) or lacking:
            raise BadFile(f"{root}: its report.json is none of a run")
        if not (root / "histograms.json").is_file():
            return Results({}, report)
        text = (root / "histograms.json").read_text()
        if report.get("histograms", digest := hashlib.sha256(text.encode()).hexdigest()) != digest:
            raise BadFile(
                f"{root}: the histograms are not those of the report; was the run ended while it was writing?"
            )
        stored = json.loads(text, object_hook=uhi.io.json.object_hook)
        histograms = {d: {o: hist.Hist(h) for o, h in observables.items()} for d, observables in stored.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{root}: the results are damaged ({type(error).__name__}: {str(error)[:100]})") from None
    return Results(histograms, report)
