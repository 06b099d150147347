"""What others need to ask a search for their own signal: the model, its regions and tables, with a manifest of digests."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from coffea_ad import files, recipes
from coffea_ad.errors import BadFile
from coffea_ad.results.folder import finite, load_results
from coffea_ad.scoring.card import read_card
from coffea_ad.search.acceptance import Acceptance
from coffea_ad.search.visible import LIMITS
from coffea_ad.versions import versions

__all__ = ["BUNDLE", "CONTENT", "check_bundle", "content_of", "write_acceptance"]

CONTENT = "acceptance.json"
BUNDLE = "bundle"
_MANIFEST = "manifest.json"
_CROSS_SECTIONS = "cross_sections.yaml"


def content_of(measured: Acceptance) -> dict[str, Any]:
    """Return what `acceptance.json` holds."""
    regions = {
        name: {
            **{k: v for k, v in asdict(region).items() if k != "unique"},
            "unique": {o: asdict(u) for o, u in region.unique.items()},
            "least_unique": None if region.least_unique is None else region.least_unique.observable,
        }
        for name, region in measured.regions.items()
    }
    content: dict[str, Any] = finite({
        "schema_version": 1, **{k: v for k, v in asdict(measured).items() if k not in ("regions", "limits")}, "regions": regions,
        "limits": {name: asdict(limit) for name, limit in measured.limits.items()}, "best_region": measured.best_region,
    })  # fmt: skip
    return content


def write_acceptance(
    measured: Acceptance, model: str | Path, output: str | Path, *, search: str | Path | None = None
) -> None:
    """Write `acceptance.json`, and the folder `bundle/`.

    The bundle holds the model file, its card and regions as JSON, the processor's source and configuration, the tables in the form of
    HEPData, the limits of the search, and `manifest.json` with the SHA-256 digest of each of them.

    Parameters
    ----------
    measured : Acceptance
    model : path
    output : path
        The folder, with the results of the run in `results/`.
    search : path, optional
        Its `limits.json` is copied.
    """
    content = _json(content_of(measured))
    files.write(files.join(output, CONTENT), content)
    data = files.read(model)
    report = load_results(files.join(output, "results")).report
    parts = {
        "model.onnx": data,
        "card.json": _json(read_card(data, str(model)).model_dump(mode="json")),
        "regions.json": _json(report["regions"]),
        "configuration.json": _json({"processor": measured.processor, "config": report["config"]}),
        "processor.py": inspect.getsource(recipes.load(measured.processor)).encode(),
        CONTENT: content,
        "acceptance.yaml": _yaml(_acceptance_table(measured)),
    }
    if search is not None:
        parts |= {LIMITS: files.read(files.join(search, LIMITS)), _CROSS_SECTIONS: _yaml(_limit_table(measured))}
    folder = files.join(output, BUNDLE)
    for name in {LIMITS, _CROSS_SECTIONS} - set(parts):
        files.remove(files.join(folder, name))  # of what is overwritten
    for name, part in parts.items():
        files.write(files.join(folder, name), part)
    manifest = {
        "schema_version": 1,
        "files": {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()},
        "model": report["models"][0],
        "processor": measured.processor,
        "versions": versions("coffea-ad", "coffea", "awkward", "onnxruntime", "numpy"),
    }
    files.write(files.join(folder, _MANIFEST), _json(manifest))


def check_bundle(folder: str | Path) -> dict[str, Any]:
    """Return the manifest of a bundle whose files are all as they were written.

    Raises
    ------
    BadFile
        One is not there or has changed, or this is no bundle.
    """
    path = files.join(folder, _MANIFEST)
    if not files.exists(path):
        raise BadFile(f"{folder}: there is no {_MANIFEST}; this is no bundle")
    try:
        manifest: dict[str, Any] = json.loads(files.read(path))
        digests = dict(manifest["files"])
    except (ValueError, KeyError, TypeError):
        raise BadFile(f"{path}: the manifest is damaged") from None
    for name, digest in digests.items():
        part = files.join(folder, name)
        if not files.exists(part):
            raise BadFile(f"{folder}: {name} of its manifest is not there")
        if hashlib.sha256(files.read(part)).hexdigest() != digest:
            raise BadFile(f"{part}: this is not the file of the manifest; it was changed or damaged")
    return manifest


def _json(content: Any) -> bytes:
    return json.dumps(finite(content), indent=1, default=str, allow_nan=False).encode() + b"\n"


def _yaml(content: Any) -> bytes:
    return str(yaml.safe_dump(finite(content), sort_keys=False, allow_unicode=True)).encode()


def _acceptance_table(measured: Acceptance) -> dict[str, Any]:
    """Return the acceptances as a table of HEPData."""
    regions = measured.regions
    values = [
        {"value": r.value, "errors": [{"symerror": r.error, "label": "stat"}]} for r in regions.values()
    ]  # fmt: skip
    columns = [{"header": {"name": "Acceptance times efficiency"}, "values": values}]
    if any(r.unique for r in regions.values()):
        least = [r.least_unique for r in regions.values()]
        columns.append({
            "header": {"name": "Part that the region takes alone"},
            "values": [
                {"value": "-"} if u is None else {"value": u.value, "errors": [{"symerror": u.error, "label": "stat"}]}
                for u in least
            ],
        })  # fmt: skip
    return _table(list(regions), columns)


def _limit_table(measured: Acceptance) -> dict[str, Any]:
    """Return the cross-sections as a table of HEPData."""
    columns = [
        {
            "header": {"name": f"{kind} limit on the cross-section", "units": "pb"},
            "values": [{"value": "-" if v is None else v} for v in values],
        }
        for kind, values in (
            ("Observed", [limit.observed for limit in measured.limits.values()]),
            ("Expected", [limit.expected for limit in measured.limits.values()]),
        )
    ]
    return _table(list(measured.limits), columns)


def _table(regions: list[str], columns: list[dict[str, Any]]) -> dict[str, Any]:
    names = [{"value": name} for name in regions]
    return {"independent_variables": [{"header": {"name": "Region"}, "values": names}], "dependent_variables": columns}
