"""Results added: a resubmission to its run, or several runs, such as years, to one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import hist
from coffea.processor import accumulate
from coffea.processor.executor import WorkItem

from coffea_ad.errors import ConfigError
from coffea_ad.luminosity.account import account
from coffea_ad.outputs import RESULTS, check_folder, clear_figures
from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.results import ALL, Results
from coffea_ad.running.accounting import effective_events
from coffea_ad.running.chunks import SUMS
from coffea_ad.running.encoding import COUNTED, decode, encode
from coffea_ad.running.event_lists import added_lists, without_option
from coffea_ad.running.reports import RunReport
from coffea_ad.running.weighing import sum_of_weights, weighed
from coffea_ad.weights import is_simulation

__all__ = ["added", "as_report", "left_over", "merge"]


def merge(folders: Sequence[str | Path], output: str | Path, *, force: bool = False) -> Results:
    """Add results folders and write the sum.

    Datasets of the same name are added, if they have no file in common and the same luminosity; others stand side by side,
    each with its own luminosity.

    Parameters
    ----------
    folders : sequence of path
    output : path
        A new folder.
    force : bool
        Overwrite what is in it.

    Raises
    ------
    ConfigError
        An event would count twice, or histograms do not fit.
    BadFile
        A folder holds no results.
    """
    if len(folders) < 2:
        raise ConfigError("merge takes at least two results folders")
    check_folder(output, RESULTS, force=force)
    loaded = [load_results(folder) for folder in folders]
    both = loaded[0]
    for folder, more in zip(folders[1:], loaded[1:], strict=True):
        try:
            both = added(both, more, resubmission=False)
        except ConfigError as error:
            raise ConfigError(f"{folder}: {error}") from None
    both.report["notes"] = [*both.report["notes"], *_not_compared(loaded)]
    save_results(both.histograms, both.report, output, both.event_lists)
    clear_figures(output)
    return both


def _not_compared(loaded: Sequence[Results]) -> list[str]:
    """Say whose events may be in two of the folders: a folder holds counts of repeated events, not the ids of all."""
    seen: dict[str, list[bool]] = {}
    for results in loaded:
        for dataset, entry in results.report["datasets"].items():
            seen.setdefault(dataset, []).append(is_simulation(entry["metadata"]) is False)
    data_in = sum(any(is_simulation(e["metadata"]) is False for e in r.report["datasets"].values()) for r in loaded)
    names = sorted(d for d, data in seen.items() if len(data) > 1 or (data_in > 1 and data[0]))
    if not names:
        return []
    sentence = (
        f"{', '.join(names)}: whether events of one folder are in another as well was not looked at; a run over all files "
        "at once does, and --duplicates drop leaves them out"
    )
    return [sentence]


def added(one: Results, two: Results, *, resubmission: bool) -> Results:
    """Return two results as one.

    Parameters
    ----------
    one, two : Results
    resubmission : bool
        `two` has done what failed in `one`: files may be in both, and what `two` was asked for has failed no more.

    Raises
    ------
    ConfigError
    """
    histograms = {d: dict(h) for d, h in one.histograms.items()}
    if ALL in one.histograms and ALL in two.histograms and not resubmission:
        _same_conditions("the histograms of all datasets together", one.report, two.report)
    for dataset, observables in two.histograms.items():
        sums = histograms.setdefault(dataset, {})
        for name, histogram in observables.items():
            sums[name] = _sum(sums[name], histogram, f"{dataset}: {name}") if name in sums else histogram
    report = dict(one.report)
    report["datasets"] = dict(one.report["datasets"])
    for dataset, entry in two.report["datasets"].items():
        first = report["datasets"].get(dataset)
        if first is not None and not resubmission:
            _same_conditions(dataset, one.report, two.report)
        report["datasets"][dataset] = (
            entry if first is None else _dataset(dataset, first, entry, resubmission=resubmission)
        )
    try:
        outputs = accumulate([decode(r.report.get("outputs", {})) for r in (one, two)])
    except (ValueError, TypeError) as error:
        raise ConfigError(f"what the processors counted cannot be added ({error})") from None
    report["outputs"] = encode(outputs)
    for dataset, entry in report["datasets"].items():
        entry.update({k: v for k, v in report["outputs"].get(dataset, {}).items() if k in COUNTED})
    lists, said = added_lists(one, two)
    report["notes"] = list(dict.fromkeys([*one.report["notes"], *two.report["notes"], *said]))
    for part in ("regions", "variations"):
        report[part], differing = _agreed(one.report.get(part, {}), two.report.get(part, {}))
        if differing:
            report["notes"].append(f"these {part} are not the same in all runs, see `runs`: {', '.join(differing)}")
    report["seconds"] = one.report["seconds"] + two.report["seconds"]
    report["throughput"] = _throughput(one.report["throughput"], two.report["throughput"])
    report["complete"] = not any(d["failed"] for d in report["datasets"].values())
    report["blinded"] = any(d.get("blinded", False) for d in report["datasets"].values())
    report["inputs"] = _inputs(one.report.get("inputs", {}), two.report.get("inputs", {}))
    report["events_per_second"] = report["throughput"]["event_rate_elapsed_khz"] * 1000
    if not resubmission:
        if one.report["lumi"] != two.report["lumi"]:
            report["lumi"] = None  # each dataset has its own
        report["models"] = [*one.report["models"], *(m for m in two.report["models"] if m not in one.report["models"])]
        of_one_run = (
            "config", "versions", "models", "processor", "executor", "lumi", "key", "settings", "regions", "variations",
            "event_lists",
        )  # fmt: skip
        report["runs"] = [
            run for r in (one.report, two.report) for run in (r.get("runs") or [{k: r.get(k) for k in of_one_run}])
        ]  # fmt: skip
    return Results(histograms, report, lists)


def _agreed(
    one: Mapping[str, dict[str, Any]], two: Mapping[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Join what two runs say of their regions or variations; `differing` lists what they say differently of one."""
    out = {**one, **two}
    for name in one.keys() & two.keys():
        keys = {*one[name], *two[name]} - {"differing"}
        same = {k: two[name][k] for k in sorted(keys) if k in one[name] and two[name].get(k) == one[name][k]}
        lost = sorted(keys - same.keys() | {*one[name].get("differing", ()), *two[name].get("differing", ())})
        out[name] = {**same, **({"differing": lost} if lost else {})}
    return out, sorted(name for name, told in out.items() if "differing" in told)


def _same_conditions(dataset: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    """Refuse to add a dataset to itself under other cuts: axes may fit, and the sum mean nothing."""
    for part in ("models", "config", "code", "inputs"):
        if without_option(one["key"].get(part)) != without_option(two["key"].get(part)):
            raise ConfigError(f"{dataset}: it was made with different {part} in both; give it another name for each")


def _sum(one: hist.Hist, two: hist.Hist, where: str) -> hist.Hist:
    try:
        return one + two
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: the histograms have different axes and cannot be added ({error})") from None


def _dataset(name: str, one: dict[str, Any], two: dict[str, Any], *, resubmission: bool) -> dict[str, Any]:
    common = sorted(set(one["files"]) & set(two["files"]))
    if not resubmission:
        if common:
            raise ConfigError(f"{name}: {common[0]} is in both, and its events would count twice")
        if one["metadata"] != two["metadata"]:
            keys = [
                k for k in {**one["metadata"], **two["metadata"]} if one["metadata"].get(k) != two["metadata"].get(k)
            ]
            raise ConfigError(
                f"{name}: its metadata are not the same in both ({', '.join(keys)}); give it another name"
            )
        if one["lumi"] != two["lumi"] and None in (_recorded(one), _recorded(two)):
            raise ConfigError(
                f"{name}: it is normalised to {one['lumi']} and to {two['lumi']} fb⁻¹; give it another name for each"
            )
        same = {f["uuid"]: p for p, f in one["files"].items() if f["uuid"]}
        again = next((p for p, f in two["files"].items() if f["uuid"] in same), None)
        if again is not None:
            raise ConfigError(
                f"{name}: {same[two['files'][again]['uuid']]} and {again} are the same file, and count twice"
            )
    files = {**one["files"], **two["files"]}
    for path in common:
        first, again = one["files"][path], two["files"][path]
        files[path] = {
            **again,
            "processed": first["processed"] + again["processed"],
            **{k: first.get(k, 0.0) + again.get(k, 0.0) for k in SUMS if k in first or k in again},
        }
    retried = sum(f["start"] >= 0 for f in one["failed"])  # their chunks were expected already
    out = {
        **one,
        "files": files,
        "chunks_expected": one["chunks_expected"] + two["chunks_expected"] - (retried if resubmission else 0),
        "chunks_processed": one["chunks_processed"] + two["chunks_processed"],
        "failed": two["failed"] if resubmission else [*one["failed"], *two["failed"]],
        "events": one["events"] + two["events"],
        "sumw": one["sumw"] + two["sumw"],
        "weighted": one.get("weighted", True) or two.get("weighted", True),
        "n_effective": effective_events(files.values()),
    }
    if "luminosity" in one and "luminosity" in two:
        account({name: out}, None, None)
        recorded = [r for r in (_recorded(one), _recorded(two)) if r is not None]
        if not resubmission and len(recorded) == 2:
            out["luminosity"]["recorded"] = sum(recorded)
            out["lumi"] = one["lumi"] + two["lumi"]
    if "blinded" in one or "blinded" in two:
        out["blinded"] = one.get("blinded", False) or two.get("blinded", False)
    hidden = sorted({*one.get("hidden_cells", ()), *two.get("hidden_cells", ())})
    if hidden:
        out["hidden_cells"] = hidden
    regions = one.get("regions", {}) | two.get("regions", {})
    if regions != two.get("regions", regions) or regions != one.get("regions", regions):
        raise ConfigError(f"{name}: its regions are made of other cells in both; give it another name for each")
    if regions:
        out["regions"] = regions
    if is_simulation(one["metadata"]) is not False:
        weighed(name, out)
    return out


def _recorded(entry: Mapping[str, Any]) -> float | None:
    """Return the luminosity that a table gave the processed sections of data."""
    value = entry.get("luminosity", {}).get("recorded")
    return None if value is None else float(value)


def _throughput(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {
        k: one[k] + two[k]
        for k in (
            "total_events", "num_chunks", "resumed_chunks", "elapsed_time_seconds", "total_cpu_time", "total_bytes_read",
            "opening_seconds",
        )
    }  # fmt: skip
    wall, cpu = max(out["elapsed_time_seconds"], 1e-9), out["total_cpu_time"]
    out["avg_cpu_time_per_chunk"] = cpu / max(out["num_chunks"], 1)
    out["data_rate_gbps"] = out["total_bytes_read"] * 8e-9 / wall
    out["event_rate_elapsed_khz"] = out["total_events"] / wall / 1000
    out["event_rate_cpu_total_khz"] = out["total_events"] / max(cpu, 1e-9) / 1000
    out["total_cores"] = max(one["total_cores"], two["total_cores"])
    out["event_rate_core_khz"] = out["event_rate_elapsed_khz"] / max(out["total_cores"], 1)
    out["core_efficiency"] = cpu / wall / max(out["total_cores"], 1)
    out["columns"] = sorted({*one["columns"], *two["columns"]})
    return out


def _inputs(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Add up rows and undefined inputs; a drift is told for each run by its own."""
    out = {}
    for model in {**one, **two}:
        counted = accumulate([r[model]["datasets"] for r in (one, two) if model in r])
        drifts = [r[model]["drift"] for r in (one, two) if model in r]
        out[model] = {"datasets": counted, "drift": {k: v for d in drifts for k, v in d.items()}}
    return out


def as_report(stored: Mapping[str, Any], fraction: float = 1.0) -> RunReport:
    """Return a stored report as an object, its sums of weights computed from its files anew.

    Parameters
    ----------
    stored : dict
        The content of `report.json`.
    fraction : float
        The part of all events that the processor keeps by their hash.
    """
    names = {f.name for f in fields(RunReport)}
    report = RunReport(**{**{k: v for k, v in stored.items() if k in names}, "outputs": decode(stored["outputs"])})
    for name, entry in report.datasets.items():
        mc = is_simulation(entry["metadata"]) is not False
        entry["sumw"] = sum_of_weights(name, entry, mc=mc, fraction=fraction, notes=[])
        if mc:
            weighed(name, entry)
    return report


def left_over(
    stored: Mapping[str, Any],
) -> tuple[dict[str, dict[str, Any]], list[WorkItem], dict[tuple[str, str], dict[str, Any]]]:
    """Return what a run has not done.

    Returns
    -------
    fileset : {dataset: {"files": {path: tree}, "metadata": {…}}}
    opened : list of WorkItem
        Chunks of files that were opened.
    facts : {(dataset, path): dict}
        What is known of those files.
    """
    fileset, opened, facts = {}, [], {}
    for dataset, entry in stored["datasets"].items():
        files = {}
        for failed in entry["failed"]:
            path = failed["file"]
            file = entry["files"][path]
            files[path] = file["tree"]
            if failed["start"] < 0:
                continue
            opened.append(
                WorkItem(dataset, path, file["tree"], failed["start"], failed["stop"], bytes.fromhex(failed["uuid"]),
                         dict(entry["metadata"]))
            )  # fmt: skip
            facts[dataset, path] = {"numentries": file["events"], **file}
        if files:
            fileset[dataset] = {"files": files, "metadata": entry["metadata"]}
            steps = {path: entry["files"][path]["steps"] for path in files if "steps" in entry["files"][path]}
            if steps:
                fileset[dataset]["steps"] = steps
    return fileset, opened, facts
