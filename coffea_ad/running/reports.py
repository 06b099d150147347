"""RunReport: what a run was asked for, what it did, what failed and why, how fast it was."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import boost_histogram
import numpy as np
from coffea.processor import column_accumulator, value_accumulator

from coffea_ad.errors import ConfigError
from coffea_ad.event_lists import TopEvents
from coffea_ad.running.chunks import SUMS, Failure
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.monitoring import describe, drift, drifted
from coffea_ad.weights import takes_sign

__all__ = [
    "COUNTED", "RunReport", "decode", "described_regions", "described_variations", "effective_events", "encode", "inputs_seen", "measured", "missing_files", "per_dataset",
    "regions_in", "skimmed_signs", "sum_of_weights", "weighed",
]  # fmt: skip

COUNTED = ("cutflow", "unscored", "undefined", "undefined_in", "rows", "sumw_variations")
"""What processors count beside events and weights, and the report repeats for each dataset."""
_CANCELLED = 1e-12  # |Σw| / Σ|w| that is nothing but rounding
_FEW = 0.01  # of the events
_LEAST = 10.0  # events


@dataclass(frozen=True, repr=False)
class RunReport:
    """What a run did.

    Attributes
    ----------
    outputs : {dataset: accumulator}
        What the processor returned, merged.
    datasets : {dataset: dict}
        Per dataset: metadata, luminosity, files and chunks expected and processed, what failed and why, events, sumw,
        whether events are hidden (`blinded`), and what else the processor counted.
    lumi : float or None
        fb⁻¹; None where nothing was normalised and none was given.
    throughput : dict
        Events, seconds, rates, bytes, in roastcoffea's names.
    inputs : {model: {dataset: dict}}
        Rows that the models saw, undefined ones by column, and how far the inputs are from those of the training.
    duplicates : dict
        How many events are there twice, by pairs of datasets.
    config, versions : dict
        The resolved configuration and the versions of the packages.
    placeholders : list of str
        Variations that stand for an uncertainty which nobody has measured.
    regions : {region: dict}
        Cells, model, working point, thresholds.
    variations : {variation: dict}
        What is varied, and how it is treated.
    key : dict
        Digests of all that the results depend on.
    """

    outputs: dict[str, Any]
    datasets: dict[str, dict[str, Any]]
    config: dict[str, Any]
    versions: dict[str, str]
    models: list[dict[str, Any]]
    processor: str
    executor: str
    lumi: float | None
    seconds: float
    throughput: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    duplicates: dict[str, Any] = field(default_factory=dict)
    key: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    placeholders: list[str] = field(default_factory=list)
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)
    variations: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return one line: what ran over how much, and whether all of it was done."""
        names = ", ".join(list(self.datasets)[:5]) + (", …" if len(self.datasets) > 5 else "")
        events = sum(d["events"] for d in self.datasets.values())
        state = "complete" if self.complete else f"{len(self.failed)} failed"
        return f"<RunReport of {self.processor}: {events} events of {len(self.datasets)} datasets ({names}), {state}>"

    @property
    def complete(self) -> bool:
        """Whether every file and chunk was processed."""
        return not any(d["failed"] for d in self.datasets.values())

    @property
    def blinded(self) -> bool:
        """Whether events of any dataset are hidden."""
        return any(d.get("blinded", False) for d in self.datasets.values())

    @property
    def failed(self) -> list[dict[str, Any]]:
        """All files and chunks that were not processed."""
        return [f for d in self.datasets.values() for f in d["failed"]]

    @property
    def events_per_second(self) -> float:
        """Events per second of wall time."""
        return float(sum(d["events"] for d in self.datasets.values()) / max(self.seconds, 1e-9))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `report.json`."""
        names = (
            "datasets", "config", "versions", "models", "processor", "executor", "lumi", "seconds", "throughput", "inputs",
            "duplicates",
            "key", "settings", "notes", "runs", "placeholders", "regions", "variations",
        )  # fmt: skip
        own = {name: getattr(self, name) for name in names}
        counted = encode({name: _counts(output) for name, output in self.outputs.items()})
        return {
            **own,
            "complete": self.complete,
            "blinded": self.blinded,
            "events_per_second": self.events_per_second,
            "outputs": counted,
        }


def _counts(output: Any) -> Any:
    """Leave out what the report says elsewhere."""
    if not regions_in(output):
        return output
    return {k: v for k, v in output.items() if k not in ("regions", "hidden_cells", "variations")}


def missing_files(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each file that was not processed, or not as a whole.

    >>> missing_files([{"dataset": "qcd", "file": "a", "cause": "a: no answer"}] * 3)
    ['a: no answer (and 2 more chunks of this file)']
    """
    causes: dict[tuple[str, str], list[str]] = {}
    for f in failed:
        causes.setdefault((f["dataset"], f["file"]), []).append(f["cause"])
    more = {2: " (and 1 more chunk of this file)"}
    return [
        c[0] + (more.get(len(c), f" (and {len(c) - 1} more chunks of this file)") if len(c) > 1 else "")
        for c in causes.values()
    ]


def encode(output: Any) -> Any:
    """Turn what a processor counted into what JSON holds, without histograms and lists of events, which have their own files.

    >>> encode({"files": {"b", "a"}, "n": 3, "x": np.ones(2)})
    {'files': {'set': ['a', 'b']}, 'n': 3, 'x': {'array': [1.0, 1.0]}}
    """
    if isinstance(output, Mapping):
        found = {str(k): encode(v) for k, v in output.items() if not _has_a_file(v)}
        return {k: v for k, v in found.items() if v is not None}
    if isinstance(output, column_accumulator):
        return {"column": output.value.tolist()}
    if isinstance(output, value_accumulator):
        return encode(output.value)
    if isinstance(output, (set, frozenset)):
        return {"set": [encode(v) for v in sorted(output, key=str)]}
    if isinstance(output, (list, tuple)):
        return {"tuple" if isinstance(output, tuple) else "list": [encode(v) for v in output]}
    if isinstance(output, np.ndarray):
        return {"array": output.tolist()}
    if isinstance(output, (bool, int, float, str)):
        return output
    return output.item() if isinstance(output, np.generic) else None


def _has_a_file(value: Any) -> bool:
    return isinstance(value, (boost_histogram.Histogram, TopEvents)) or (
        isinstance(value, Mapping) and bool(value) and all(_has_a_file(v) for v in value.values())
    )


def decode(stored: Any) -> Any:
    """Turn what `encode` made into accumulators again.

    >>> decode({'files': {'set': ['a', 'b']}, 'n': 3})["n"]
    3
    """
    if isinstance(stored, dict):
        if set(stored) == {"set"}:
            return {decode(v) for v in stored["set"]}
        if set(stored) in ({"tuple"}, {"list"}):
            values = [decode(v) for v in next(iter(stored.values()))]
            return tuple(values) if "tuple" in stored else values
        if set(stored) == {"array"}:
            return np.array(stored["array"])
        if set(stored) == {"column"}:
            return column_accumulator(np.array(stored["column"]))
        return {k: decode(v) for k, v in stored.items()}
    return stored


def per_dataset(
    fileset: Mapping[str, Mapping[str, Any]],
    facts: Mapping[tuple[str, str], Mapping[str, Any]],
    chunks: Sequence[Any],
    done: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Compare what was asked for with what was done, file by file and chunk by chunk.

    Parameters
    ----------
    fileset : {dataset: {"files": {path: tree}, "metadata": {…}}}
    facts : {(dataset, path): dict}
        What opening each file found.
    chunks : sequence of WorkItem
        Expected.
    done : dict
        The run's accumulator: "processed", "failed", "files", "out".
    """
    processed, failures = done["processed"], set(done.get("failed", ()))
    told = {(f.dataset, f.file, f.start) for f in failures}
    failures |= {
        Failure(c.dataset, c.filename, c.entrystart, c.entrystop, c.fileuuid.hex(), "Lost", f"{c.filename}: no result came back")
        for c in chunks
        if c not in processed and (c.dataset, c.filename, c.entrystart) not in told
    }  # fmt: skip
    out = {}
    for dataset, entry in fileset.items():
        mine = [c for c in chunks if c.dataset == dataset]
        counted = done.get("files", {}).get(dataset, {})
        files = {}
        for path, tree in entry["files"].items():
            fact = facts.get((dataset, path), {})
            if "error" in fact:
                failures.add(Failure(dataset, path, -1, -1, "", fact["error"], fact["cause"]))
            files[path] = {
                "tree": tree,
                "events": fact.get("numentries"),
                "processed": counted.get(path, {}).get("events", 0),
                "sumw": counted.get(path, {}).get("sumw", 0.0),
                **{k: counted[path][k] for k in SUMS[1:] if k in counted.get(path, {})},
                "uuid": _identity(fact.get("uuid", "")),
                **{k: fact.get(k) for k in ("generated", "runs_sumw", "layout")},
                **({"sections": fact["sections"]} if "sections" in fact else {}),
                **({"steps": entry["steps"][path]} if path in entry.get("steps", {}) else {}),
            }
        output = done["out"].get(dataset, {})
        numbers = encode(output) if isinstance(output, Mapping) else {}
        out[dataset] = {
            "metadata": entry["metadata"],
            "files": files,
            "chunks_expected": len(mine),
            "chunks_processed": sum(c in processed for c in mine),
            "failed": [f._asdict() for f in sorted(failures) if f.dataset == dataset],
            "events": int(sum(f["processed"] for f in files.values())),
            "sumw": 0.0,
            "weighted": any("sumw" in c for c in counted.values()),  # or the processor collects none
            "n_effective": effective_events(files.values()),
            **{k: v for k, v in numbers.items() if k in COUNTED},
        }
        if isinstance(output, Mapping):
            out[dataset] |= _cells(output)
    return out


def _cells(output: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether events of a dataset are hidden, and in which cells; and its regions as sets of cells."""
    out: dict[str, Any] = {}
    if "blinded" in output:
        out["blinded"] = True in output["blinded"]
    if output.get("hidden_cells"):
        out["hidden_cells"] = sorted(output["hidden_cells"])
    if regions_in(output):
        out["regions"] = {name: sorted(cells) for name, cells in output["regions"].items()}
    return out


def regions_in(output: Any) -> bool:
    """Say whether what a processor returned for a dataset defines regions, as {name: set of cells}."""
    regions = output.get("regions") if isinstance(output, Mapping) else None
    return (
        isinstance(regions, Mapping)
        and bool(regions)
        and all(isinstance(cells, (set, frozenset)) for cells in regions.values())
    )


def described_regions(
    datasets: Mapping[str, Mapping[str, Any]], models: Sequence[tuple[str, ModelCard]]
) -> dict[str, dict[str, Any]]:
    """Say of every named region which cells it is, and of which model and working point.

    Parameters
    ----------
    datasets : {dataset: dict}
        Of a report, with `regions`.
    models : sequence of (name of the tagger, card)
        Regions of the first have plain names, those of others begin with the tagger's name and "_".

    Returns
    -------
    {region: dict}
        `cells`, and where it is a region of a model `tagger`, `model`, `level`, and of a working point `region`, `efficiency`,
        `thresholds` on `ad_logp`, their `error`, `n_effective`, `derived_from`, and `tags`.
    """
    out: dict[str, dict[str, Any]] = {}
    for entry in datasets.values():
        for name, cells in entry.get("regions", {}).items():
            out.setdefault(name, {"cells": cells})
    for i, (tagger, card) in enumerate(models):
        prefix = f"{tagger}_" if i else ""
        of_model = {"tagger": tagger, "model": card.name, "level": card.level}
        if prefix + "inclusive" in out:
            out[prefix + "inclusive"] |= of_model
        for spec in card.regions:
            point = {"region": spec.name, **spec.model_dump(mode="json", exclude={"name"})}
            tagged = {f"{prefix}{spec.name}_{n}tag": {"tags": n} for n in range(3)} if card.level == "jet" else {}
            for name, tags in (tagged or {prefix + spec.name: {}}).items():
                if name in out:
                    out[name] |= {**of_model, **point, **tags}
    return out


def described_variations(
    outputs: Mapping[Any, Any], datasets: Mapping[str, Any], placeholders: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Say of every variation what it varies and how it is treated.

    Returns
    -------
    {variation: dict}
        `source` and `direction`, `of` ("weights" or "jets"), `shape_only` (it has the cross-section of the nominal),
        `correlated` (between eras), `placeholder` (nobody has measured it).
    """
    told: dict[str, set[str]] = {}
    for dataset in datasets:
        output = outputs.get(dataset, {})
        for name, marks in (output.get("variations") or {}).items() if isinstance(output, Mapping) else ():
            told.setdefault(name, set()).update(marks)
    out: dict[str, dict[str, Any]] = {}
    for name, marks in told.items():
        direction = next((d for d in ("Up", "Down") if name.endswith(d)), "")
        out[name] = {
            "source": name.removesuffix(direction),
            "direction": direction.lower(),
            "of": "jets" if "jets" in marks else "weights",
            "shape_only": "shape_only" in marks,
            "correlated": "uncorrelated" not in marks,
            "placeholder": name in placeholders,
        }
    return out


def _identity(uuid: bytes | str) -> str:
    """Return the id of a file as text; one of zeros only, which tells no file from another, is none.

    >>> _identity(bytes(16)), _identity(bytes([1, 2]))
    ('', '0102')
    """
    text = uuid.hex() if isinstance(uuid, bytes) else uuid
    return text if text.strip("0") else ""


def _total(files: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """Add a sum of weights up over files; None if a file with processed events does not have it."""
    values = [file.get(name) for file in files if file["processed"]]
    return None if None in values else float(sum(v for v in values if v is not None))


def effective_events(files: Iterable[Mapping[str, Any]]) -> float | None:
    """Return (Σw)² / Σw² of what was processed; None if the processor did not collect Σw², or there is nothing.

    >>> effective_events([{"processed": 3, "sumw": 1.0, "sumw2": 3.0}])
    0.3333333333333333
    """
    files = list(files)
    sumw, square = _total(files, "sumw"), _total(files, "sumw2")
    if sumw is None or not square:
        return None
    value = sumw**2 / square
    return value if math.isfinite(value) else None


def weighed(dataset: str, entry: dict[str, Any]) -> list[str]:
    """Look at the weights of a simulated dataset, and say what is wrong with them.

    If they cancel, its sum of weights becomes exactly 0, so that nothing can be normalised by what is only rounding. Otherwise
    it is said if few events carry the sum, or most of it cancels.

    Parameters
    ----------
    dataset, entry : str, dict
        As `per_dataset` makes them, with `sumw`.
    """
    files = list(entry["files"].values())
    sumw, absolute, square = (_total(files, k) for k in SUMS)
    n = entry["events"]
    if n == 0 or sumw is None or absolute is None or square is None:
        return []
    if abs(entry["sumw"]) <= _CANCELLED * absolute:
        entry["sumw"] = 0.0
        return [f"{dataset}: the weights of its {n} events sum to 0; nothing of it can be normalised"]
    if not math.isfinite(square) or square == 0:
        return []
    carrying, effective = absolute**2 / square, sumw**2 / square
    if carrying < _FEW * n or (carrying < _LEAST and n > 2 * _LEAST):
        return [f"{dataset}: few events carry its sum of weights: {n} events are worth {carrying:.3g} of equal weight"]
    if effective < _FEW * n:
        return [f"{dataset}: most of its weights cancel: {n} events are worth {effective:.3g} without negative weights"]
    return []


def _unlike_runs(file: Mapping[str, Any], kept: float, *, signs: bool = False) -> str | None:
    """Compare a simulated file with its `Runs`: None if they agree, "" if it was skimmed before, else what is wrong.

    `Runs` have no sums of signs: there only the numbers of events can be compared.
    """
    generated, events, runs = file["generated"], file["events"], file["runs_sumw"]
    if events is None or (generated is None and runs is None):
        return None
    if generated is not None and generated < events:
        return f"holds {events} events, but its Runs count {generated:g} generated ones only, as after a merge that lost some"
    if generated == events:
        return None
    if signs:
        return "has Runs that count no events: whether it was skimmed before is not known" if generated is None else ""
    if runs is None or not math.isfinite(runs):
        return "was skimmed before and has no genEventSumw that is a number"
    if generated is not None:
        return ""
    if file["processed"] < events or events == 0 or "sumw2" not in file:
        return None if events else ""
    # no number of events: only the sums can tell, up to rounding and to what a part by hash leaves to chance
    sumw = file["sumw"] / kept
    allowed = 1e-4 * max(abs(runs), file.get("sumw_abs", 0.0)) + 6 * math.sqrt((1 - kept) * file["sumw2"]) / kept
    if abs(runs - sumw) <= allowed:
        return None
    if runs < sumw and file.get("sumw_abs") == file["sumw"]:
        return f"has weights that sum to {sumw:g}, but its Runs say {runs:g} only, as after a merge that lost some"
    return ""


def skimmed_signs(dataset: str, path: str, file: Mapping[str, Any]) -> str:
    """Say that a file cannot be normalised by signs, given its numbers of `events` and `generated` ones."""
    return (
        f"dataset {dataset}: {path} was skimmed before ({file['events']:g} of {file['generated']:g} events), and its Runs have "
        "no sum of signs to normalise with; take generator_weight: stored, or the file before that skim"
    )


def sum_of_weights(
    dataset: str, entry: Mapping[str, Any], *, mc: bool, kept: float, notes: list[str]
) -> float:  # fmt: skip
    """Return the sum of weights that normalises what was processed of a dataset.

    It is collected with the histograms, chunk by chunk. A file that was skimmed before holds fewer events than `Runs` has
    counted: its share is the sum in `Runs`, times the part of its events that was processed.

    Parameters
    ----------
    dataset, entry : str, dict
        As `per_dataset` makes them.
    mc : bool
    kept : float
        The part of all events that the processor keeps by their hash.
    notes : list of str
        Takes a sentence if there are skimmed files.
    """
    total, skimmed, partly = 0.0, 0, 0
    signs = takes_sign(dataset, entry["metadata"])
    for path, file in entry["files"].items():
        problem = _unlike_runs(file, kept, signs=signs) if mc else ""
        if not mc or problem is None:
            total += file["sumw"]
        elif problem:
            notes.append(f"{dataset}: {path} {problem}; it counts by its own events")
            total += file["sumw"]
        elif signs:
            raise ConfigError(skimmed_signs(dataset, path, file))
        else:
            skimmed += 1
            partly += 0 < file["processed"] < file["events"]
            # of one that was skimmed to nothing, all was processed
            part = file["processed"] / file["events"] if file["events"] else 1.0
            total += kept * file["runs_sumw"] * part
    if skimmed:
        part = f"; {partly} of them in part, by the part of their events" if partly else ""
        notes.append(f"{dataset}: {skimmed} files were skimmed before; their sum of weights is taken from Runs{part}")
    return total


def measured(done: Mapping[str, Any], seconds: float, cores: int) -> dict[str, Any]:
    """Return throughput in roastcoffea's names; rates per core are per second of wall time of all cores.

    Parameters
    ----------
    done : dict
        The run's accumulator.
    seconds : float
        Wall time of the processing.
    cores : int
    """
    metrics = done.get("metrics", {})
    events, cpu = int(metrics.get("entries", 0)), float(metrics.get("cputime", 0.0))
    chunks, size = len(done["processed"]), int(metrics.get("bytesread", 0))
    resumed = int(done.get("resumed", 0))
    wall = max(seconds, 1e-9)
    return {
        "total_events": events,
        "num_chunks": chunks,
        "resumed_chunks": resumed,
        "elapsed_time_seconds": seconds,
        "total_cpu_time": cpu,
        "avg_cpu_time_per_chunk": cpu / max(chunks - resumed, 1),
        "total_bytes_read": size,
        "data_rate_gbps": size * 8e-9 / wall,
        "event_rate_elapsed_khz": events / wall / 1000,
        "event_rate_cpu_total_khz": events / max(cpu, 1e-9) / 1000,
        "event_rate_core_khz": events / wall / max(cores, 1) / 1000,
        "core_efficiency": cpu / wall / max(cores, 1),
        "total_cores": cores,
        "columns": sorted(metrics.get("columns", ())),
    }


def inputs_seen(
    cards: Mapping[str, tuple[str, ModelCard]],
    done: Mapping[str, Any],
    groups: Mapping[str, Iterable[tuple[str, float]]],
) -> tuple[dict[str, Any], list[str]]:
    """Compare what the models were given with what they were trained on.

    Parameters
    ----------
    cards : {digest: (name, card)}
    done : dict
        The run's accumulator.
    groups : {kind: ((dataset, weight), …)}
        Data and simulation are compared as wholes: simulated datasets by their cross-sections.

    Returns
    -------
    report : {model: {"datasets": {dataset: dict}, "drift": {kind: {column: distance}}}}
    notes : list of str
        One sentence for each kind whose inputs have moved.
    """
    report: dict[str, Any] = {}
    notes = []
    seen = done.get("inputs", {})
    for digest, (name, card) in cards.items():
        mine = {d: s[digest] for d, s in seen.items() if digest in s}
        entry: dict[str, Any] = {
            "datasets": {
                d: {"rows": int(s["rows"]), "unscored": int(s["unscored"]), "undefined": dict(s["undefined"])}
                for d, s in mine.items()
            },
            "drift": {},
        }
        for kind, members in groups.items():
            counts = _weighted(mine, members)
            if not counts:
                continue
            entry["drift"][kind] = {f.column: round(f.distance, 4) for f in drift(card, {"quantiles": counts})}
            moved = drifted(card, {"quantiles": counts})
            if moved:
                notes.append(f"{kind}: {describe(card, moved)}")
        report[name] = entry
    return report, notes


def _weighted(seen: Mapping[str, Any], members: Iterable[tuple[str, float]]) -> dict[str, Any]:
    """Add up datasets by their weights, and bring each column to its effective number of rows."""
    total: dict[str, Any] = {}
    squares: dict[str, float] = {}
    for dataset, weight in members:
        for column, values in seen.get(dataset, {}).get("quantiles", {}).items():
            counts = np.asarray(values, np.float64)
            total[column] = total.get(column, 0) + weight * counts
            squares[column] = squares.get(column, 0.0) + weight**2 * float(counts.sum())
    return {c: t * t.sum() / squares[c] for c, t in total.items() if squares[c] > 0}
