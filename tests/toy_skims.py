"""Skims of toy rows, written as the processors write them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coffea_ad.features.spec import feature_spec
from coffea_ad.skims.files import SKIM_KEY

NAME = "jet_substructure"


def toy_rows(n, seed=0, shift=0.0):
    """Eight correlated columns; the weight of a row falls steeply where its first columns are large."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 8))
    return (z + shift + 0.3 * z[:, :1]).astype(np.float32), rng


def write_skim(folder, datasets, *, collection="FatJet"):
    """Write {dataset: {"x": rows, "weight": genWeight, "sumw": …, "pt": …, **metadata}} as a finished skim."""
    spec = feature_spec(NAME)
    manifest = {}
    for i, (name, given) in enumerate(datasets.items()):
        entry = dict(given)
        x, weight = np.asarray(entry.pop("x"), np.float32), np.asarray(entry.pop("weight"), np.float64)
        n = len(x)
        columns = {
            "run": np.ones(n, np.uint32), "luminosityBlock": np.full(n, i + 1, np.uint32),
            "event": np.asarray(entry.pop("event", np.arange(n)), np.uint64), "objectIdx": np.zeros(n, np.int64),
            "genWeight": weight, "pt": np.asarray(entry.pop("pt", np.full(n, 300.0)), np.float32),
        }  # fmt: skip
        columns |= {f"{NAME}.{c.name}": x[:, j] for j, c in enumerate(spec.columns)}
        sumw = float(entry.pop("sumw", weight.sum()))
        record = {
            "dataset": name, "filename": "toy.root", "sumw": sumw, "events": n, "is_mc": entry.pop("is_mc", True),
            "flavour": "NanoAOD v15", "selection": entry.pop("selection", {}), "collection": collection,
            "features": {NAME: {"version": spec.version, "options": spec.options, "columns": [c.name for c in spec.columns],
                                "shape": list(spec.row_shape)}},
            **entry,
        }  # fmt: skip
        path = folder / name / "toy.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns).replace_schema_metadata({SKIM_KEY: json.dumps(record)}), path)
        manifest[name] = {"sumw": sumw, "files": [f"{name}/toy.parquet"]}
    (folder / "manifest.json").write_text(json.dumps({"datasets": manifest}))
    return folder
