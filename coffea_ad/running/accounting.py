"""What a run did, dataset by dataset: files, chunks, sums of weights, regions and variations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coffea_ad.running.chunks import SUMS, Failure
from coffea_ad.running.encoding import COUNTED, encode, regions_in
from coffea_ad.scoring.card import ModelCard

__all__ = [
    "cells_in",
    "described_regions",
    "described_variations",
    "effective_events",
    "identity",
    "per_dataset",
]


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
        expected = [c for c in chunks if c.dataset == dataset]
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
                "uuid": identity(fact.get("uuid", "")),
                **{k: fact.get(k) for k in ("generated", "runs_sumw", "layout")},
                **({"sections": fact["sections"]} if "sections" in fact else {}),
                **({"steps": entry["steps"][path]} if path in entry.get("steps", {}) else {}),
            }
        output = done["out"].get(dataset, {})
        numbers = encode(output) if isinstance(output, Mapping) else {}
        out[dataset] = {
            "metadata": entry["metadata"],
            "files": files,
            "chunks_expected": len(expected),
            "chunks_processed": sum(c in processed for c in expected),
            "failed": [f._asdict() for f in sorted(failures) if f.dataset == dataset],
            "events": int(sum(f["processed"] for f in files.values())),
            "sumw": 0.0,
            "weighted": any("sumw" in c for c in counted.values()),  # or the processor collects none
            "n_effective": effective_events(files.values()),
            **{k: v for k, v in numbers.items() if k in COUNTED},
        }
        if isinstance(output, Mapping):
            out[dataset] |= cells_in(output)
    return out


def cells_in(output: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether events of a dataset are hidden, and in which cells; and its regions as sets of cells."""
    out: dict[str, Any] = {}
    if "blinded" in output:
        out["blinded"] = True in output["blinded"]
    if output.get("hidden_cells"):
        out["hidden_cells"] = sorted(output["hidden_cells"])
    if regions_in(output):
        out["regions"] = {name: sorted(cells) for name, cells in output["regions"].items()}
    return out


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


def identity(uuid: bytes | str) -> str:
    """Return the id of a file as text; one of zeros only, which tells no file from another, is none.

    >>> identity(bytes(16)), identity(bytes([1, 2]))
    ('', '0102')
    """
    text = uuid.hex() if isinstance(uuid, bytes) else uuid
    return text if text.strip("0") else ""


def total_of(files: Iterable[Mapping[str, Any]], name: str) -> float | None:
    """Add a sum of weights up over files; None if a file with processed events does not have it."""
    values = [file.get(name) for file in files if file["processed"]]
    return None if None in values else float(sum(v for v in values if v is not None))


def effective_events(files: Iterable[Mapping[str, Any]]) -> float | None:
    """Return (Σw)² / Σw² of what was processed; None if the processor did not collect Σw², or there is nothing.

    >>> effective_events([{"processed": 3, "sumw": 1.0, "sumw2": 3.0}])
    0.3333333333333333
    """
    files = list(files)
    sumw, square = total_of(files, "sumw"), total_of(files, "sumw2")
    if sumw is None or not square:
        return None
    value = sumw**2 / square
    return value if math.isfinite(value) else None
