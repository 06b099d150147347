"""Where everything came from: versions, digests, configurations, files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import yaml

from coffea_ad import files
from coffea_ad.report.blocks import Block, Section, Table, Verbatim
from coffea_ad.report.sources import Sources
from coffea_ad.tables import Listing

__all__ = ["provenance_section"]

_MOST = 200  # files of a dataset that are listed


def provenance_section(sources: Sources) -> Section:
    """Return the digests of all that the page was made from, versions, configurations, and the files of each dataset."""
    report = sources.results.report
    versions = tuple((name, str(version)) for name, version in report.get("versions", {}).items())
    blocks: list[Block] = [Table(Listing("digests, SHA-256", ("of", "digest"), tuple(_digests(sources))))]
    blocks.append(Table(Listing("versions of the run", ("package", "version"), versions)))
    for title, content in (("configuration", report.get("config")), ("settings of the run", report.get("settings"))):
        if content:
            blocks.append(Verbatim(title, _yaml(content)))
    blocks += [
        Verbatim(f"configuration of the search {s.folder}", _yaml(s.content["config"])) for s in sources.searches
    ]
    blocks += [
        Verbatim(f"settings of the evaluation {e.folder}", _yaml(e.content.get("settings", {})))
        for e in sources.evaluations
    ]
    blocks.append(Verbatim("files", "\n".join(_files(report["datasets"]))))
    return Section("Provenance", blocks)


def _digests(sources: Sources) -> Iterator[tuple[str, str]]:
    report = sources.results.report
    yield files.join(sources.folder, "report.json"), _sha256(files.join(sources.folder, "report.json"))
    if report.get("histograms"):
        yield "histograms of the results", str(report["histograms"])
    for entry in report.get("event_lists", {}).values():
        yield f"event list {entry['file']}", str(entry["digest"])
    for model in report.get("models", ()):
        yield f"model {model['file']}, without this digest in it", str(model["digest"])
        for part in ("network", "calibration"):
            if part in model:
                yield f"{part} of {model['name']}", str(model[part])
    key = report["key"]
    for path, digest in (key.get("code") or {}).items():
        yield f"code {path}", str(digest)
    if key.get("package"):
        yield "coffea_ad itself", str(key["package"])
    for path, digest in (key.get("inputs") or {}).items():
        yield f"input {path}", str(digest)
    for search in sources.searches:
        yield f"spectra of the search {search.folder}", str(search.content["input"]["sha256"])
    for name, folder in (
        ("search.json", [s.folder for s in sources.searches]),
        ("evaluation.json", [e.folder for e in sources.evaluations]),
    ):
        for of in folder:
            yield files.join(of, name), _sha256(files.join(of, name))
    for evaluation in sources.evaluations:
        for label, models in evaluation.content["provenance"].get("models", {}).items():
            for model in models:
                yield f"model {label} of the evaluation, without this digest in it", str(model["digest"])


def _sha256(path: str) -> str:
    return hashlib.sha256(files.read(path)).hexdigest()


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _files(datasets: dict[str, Any]) -> Iterator[str]:
    for name, entry in datasets.items():
        yield f"{name}:"
        for i, (path, about) in enumerate(entry.get("files", {}).items()):
            if i == _MOST:
                yield f"  and {len(entry['files']) - _MOST} more"
                break
            uuid = about.get("uuid") if isinstance(about, dict) else None
            done = (
                f"{about.get('processed', '?')} of {about.get('events', '?')} events" if isinstance(about, dict) else ""
            )
            yield f"  {path}  {done}{f'  uuid {uuid}' if uuid else ''}"
