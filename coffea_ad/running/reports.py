"""RunReport: what a run was asked for, what it did, what failed and why, how fast it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coffea_ad.results.listing import datasets_table
from coffea_ad.running.encoding import counts, encode
from coffea_ad.tables import html_of

__all__ = ["RunReport", "measured", "missing_files"]


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

    def _repr_html_(self) -> str:
        return html_of(repr(self)[1:-1], [datasets_table(self.datasets)], [*missing_files(self.failed), *self.notes])

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
        content = {name: getattr(self, name) for name in names}
        counted = encode({name: counts(output) for name, output in self.outputs.items()})
        return {
            **content,
            "complete": self.complete,
            "blinded": self.blinded,
            "events_per_second": self.events_per_second,
            "outputs": counted,
        }


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
