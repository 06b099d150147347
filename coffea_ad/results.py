"""A results folder: raw histograms as UHI JSON, normalised ones as ROOT TH1, and the report of the run."""

from __future__ import annotations

import json
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
        """Return the factor from raw sums to the run's luminosity."""
        entry = self.report["datasets"][dataset]
        return normalisation(dataset, entry["metadata"], entry["sumw"], self.report["lumi"])

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
    results = Results(histograms, report)
    _write(out / "report.json", json.dumps(report, indent=1, default=str))
    if any(histograms.values()):
        _write(out / "histograms.json", json.dumps(histograms, default=uhi.io.json.default))
        _write_root(results, out / "histograms.root")
    return results


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)


def _write_root(results: Results, path: Path) -> None:
    """One TH1 per observable/region/dataset/variation, at luminosity, as combine and pyhf take them."""
    temporary = path.with_name(path.name + ".part")
    with uproot.recreate(temporary) as file:
        for dataset, observables in results.histograms.items():
            norm = results.norm(dataset)
            for observable, histogram in observables.items():
                for region in histogram.axes["region"]:
                    for variation in histogram.axes["variation"]:
                        name = f"{observable}/{region}/{dataset}/{variation}"
                        file[name] = histogram[{"region": region, "variation": variation}] * norm
    temporary.replace(path)


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
        if not (root / "histograms.json").is_file():
            return Results({}, report)
        stored = json.loads((root / "histograms.json").read_text(), object_hook=uhi.io.json.object_hook)
        histograms = {d: {o: hist.Hist(h) for o, h in observables.items()} for d, observables in stored.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{root}: the results are damaged ({type(error).__name__}: {str(error)[:100]})") from None
    return Results(histograms, report)
