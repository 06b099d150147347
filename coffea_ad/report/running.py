"""What ran: datasets, what failed and why, luminosity, cutflow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea_ad.report.blocks import Block, Section, Sentences, Table
from coffea_ad.report.sources import Sources
from coffea_ad.results.listing import datasets_table
from coffea_ad.running.reports import missing_files
from coffea_ad.tables import Listing

__all__ = ["facts", "run_section"]


def facts(sources: Sources) -> list[tuple[str, str]]:
    """Return what stands at the top of the page: (what, value)."""
    report = sources.results.report
    datasets = report["datasets"]
    lumi = sources.results.luminosity()
    failed = sum(len(entry.get("failed", ())) for entry in datasets.values())
    seconds = report.get("seconds")
    return [
        ("processor", str(report.get("processor", "–"))),
        ("datasets", str(len(datasets))),
        ("events", f"{sum(entry.get('events') or 0 for entry in datasets.values()):,}".replace(",", " ")),
        ("files or chunks that failed", str(failed)),
        ("luminosity", "not known" if lumi is None else f"{lumi:.4g} fb⁻¹"),
        ("blinded", "yes" if sources.blinded else "no"),
        ("wall time", "–" if seconds is None else f"{seconds:.0f} s"),
    ]


def run_section(sources: Sources) -> Section:
    """Return datasets and their failures, notes of the run, luminosity sections and cutflow."""
    report = sources.results.report
    datasets = report["datasets"]
    blocks: list[Block] = [Table(datasets_table(datasets))]
    failed = missing_files([f for entry in datasets.values() for f in entry.get("failed", ())])
    if failed:
        blocks.append(Sentences(tuple(failed), grave=True))
    if report["notes"]:
        blocks.append(Sentences(tuple(map(str, report["notes"]))))
    blocks += [Table(table) for table in (_luminosity(datasets), _cutflow(datasets)) if table.rows]
    return Section("What ran", blocks)


def _luminosity(datasets: Mapping[str, Any]) -> Listing:
    """Return how many luminosity sections of data were processed, and what was recorded in them."""
    rows = []
    for name, entry in datasets.items():
        if about := entry.get("luminosity"):
            recorded = about.get("recorded")
            rows.append((name, f"{about['sections']:g}/{about['of']}", "–" if recorded is None else f"{recorded:.5g}"))
    return Listing("luminosity sections of data", ("dataset", "processed", "recorded, fb⁻¹"), tuple(rows))


def _cutflow(datasets: Mapping[str, Any]) -> Listing:
    """Return the events behind each step, where processors say so."""
    flows = {name: entry["cutflow"] for name, entry in datasets.items() if isinstance(entry.get("cutflow"), Mapping)}
    steps = dict.fromkeys(step for flow in flows.values() for step in flow)
    rows = tuple((name, *(_events(flow.get(step)) for step in steps)) for name, flow in flows.items())
    return Listing("events that pass, one step after another", ("dataset", *map(str, steps)), rows)


def _events(step: Any) -> str:
    return f"{step['events']:g}" if isinstance(step, Mapping) and isinstance(step.get("events"), (int, float)) else "–"
