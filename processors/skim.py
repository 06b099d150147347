"""NanoAOD → training tables: one parquet row per leading AK8 jet, with model inputs, bystanders and event ids.

    coffea-ad run skim --fileset backgrounds.json -o skims/

writes skims/DATASET/UUID-START-STOP.parquet, one file per chunk, also for chunks without a selected event, so that the
sum of weights is complete. A retry writes the same file again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from coffea import processor
from coffea.analysis_tools import PackedSelection
from pydantic import BaseModel, ConfigDict, Field

import coffea_ad as ad
from coffea_ad import selection as cuts
from coffea_ad.errors import ConfigError
from coffea_ad.nanoaod import CONSTITUENT_TABLES, Objects
from coffea_ad.skims import SKIM_KEY
from coffea_ad.weights import generator_weight, is_mc


class FeatureConfig(BaseModel):
    """A feature of the table `coffea_ad.features.FEATURES`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    options: dict[str, Any] = {}


class Config(BaseModel):
    """Selection and columns."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    collection: str = "FatJet"
    features: tuple[FeatureConfig, ...] = (FeatureConfig(name="jet_substructure"),)
    bystanders: FeatureConfig = FeatureConfig(name="jet_kinematics")
    met: str = "PuppiMET"
    jet_pt_min: float = Field(200.0, description="GeV, both leading jets")
    jet_eta_max: float = 2.4
    lepton_pt_min: float = Field(10.0, description="GeV; events with an isolated lepton above are vetoed")
    lepton_isolation_max: float = 0.2
    met_filters: tuple[str, ...] = ()


class Processor(processor.ProcessorABC):
    """Writes one parquet file per chunk."""

    fills_histograms = False

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:
        if output is None:
            raise ConfigError("skim: say where to write with -o FOLDER")
        if taggers:
            raise ConfigError("skim: takes no --model")
        self.config = config
        self.output = str(Path(output).resolve())

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that a file must have, for the check before the run."""
        c = self.config
        needs = {
            f"feature {ad.features.get(f.name).key(f.options)}": ad.features.get(f.name).reads(
                c.collection, ad.features.get(f.name).resolve(f.options)
            )
            for f in (*c.features, c.bystanders)
        }
        needs["the selection"] = (
            (
                f"{c.met}_pt",
                f"{c.met}_phi",
                "Electron_pt",
                "Electron_cutBased",
                "Muon_pt",
                "Muon_looseId",
                *c.met_filters,
            ),
        )
        return needs

    def process(self, events: Any) -> dict[str, Any]:
        """Select, compute, write."""
        weight = generator_weight(events)
        out: dict[str, Any] = {
            "sumw": float(weight.sum()),
            "events": len(events),
            "kind": {"mc" if is_mc(events) else "data"},
            "rows": 0,
            "cutflow": {},
        }
        columns: dict[str, Any] = {}
        if len(events) > 0:
            columns, out["cutflow"] = self._columns(events, weight)
        out["rows"] = len(columns.get("run", ()))
        out["files"] = {self._write(events, columns, out["sumw"])}
        return {events.metadata["dataset"]: out}

    def _columns(self, events: Any, weight: Any) -> tuple[dict[str, Any], Any]:
        c = self.config
        jets = events[c.collection]
        order = ak.argsort(jets["pt"], axis=1, ascending=False)
        leading = jets[order][:, :2]
        good = (leading["pt"] > c.jet_pt_min) & (abs(leading["eta"]) < c.jet_eta_max)
        chosen = PackedSelection()
        chosen.add("filters", cuts.met_filters(events, c.met_filters))
        chosen.add("two jets", ak.to_numpy(ak.sum(good, axis=1) == 2))
        chosen.add("lepton veto", ~cuts.has_lepton(events, c.lepton_pt_min, c.lepton_isolation_max))
        steps = ["filters", "two jets", "lepton veto"]
        mask = chosen.all(*steps)
        jets = leading[mask]
        met_pt, met_phi = (np.asarray(ak.to_numpy(events[c.met][k][mask]), np.float64) for k in ("pt", "phi"))
        dijet = jets[:, 0] + jets[:, 1]
        mt = cuts.transverse_mass(dijet, met_pt, met_phi)
        phi = ak.to_numpy(jets["phi"]).reshape(-1, 2)
        eta = ak.to_numpy(jets["eta"]).reshape(-1, 2)
        event = {
            "met": met_pt,
            "mt": mt,
            "mjj": np.asarray(ak.to_numpy(dijet.mass)),
            "rt": met_pt / np.maximum(mt, 1e-9),
            "ht": np.asarray(ak.to_numpy(ak.sum(jets["pt"], axis=1))),
            "dphi_min": np.abs(cuts.delta_phi(phi, met_phi[:, None])).min(axis=1, initial=np.pi),
            "delta_eta": np.abs(eta[:, 0] - eta[:, 1]),
            "genWeight": weight[mask],
        }
        keys = {k: ak.to_numpy(events[k][mask]) for k in ("run", "luminosityBlock", "event")}
        columns = {k: np.repeat(v, 2) for k, v in {**keys, **event}.items()}
        objects = Objects.of(jets, c.collection)
        first = np.r_[0, np.cumsum(ak.to_numpy(ak.num(objects.source[c.collection], axis=1)))]
        columns["objectIdx"] = objects.index - first[objects.event]
        for f in (*c.features, c.bystanders):
            feature = ad.features.get(f.name)
            values, _ = ad.features.compute(f.name, objects, c.collection, **f.options)
            prefix = "" if f is c.bystanders else f"{feature.key(f.options)}."
            for i, column in enumerate(feature.columns(feature.resolve(f.options))):
                columns[prefix + column.name] = values[:, i]
        return columns, cuts.cutflow(chosen, steps, weight)

    def _write(self, events: Any, columns: dict[str, Any], sumw: float) -> str:
        """Write the chunk's table under a temporary name, then rename it."""
        c, metadata = self.config, events.metadata
        described = {}
        for f in (*c.features, c.bystanders):
            feature = ad.features.get(f.name)
            options = feature.resolve(f.options)
            names = [column.name for column in feature.columns(options)]
            described[feature.key(f.options)] = {"version": feature.version, "options": options, "columns": names}
        fields = ak.fields(events)
        flavours = [t.flavour for t in CONSTITUENT_TABLES if t.links.format(c.collection) in fields]
        record = {
            "dataset": metadata["dataset"],
            "filename": metadata["filename"],
            "sumw": sumw,
            "events": len(events),
            "is_mc": is_mc(events),
            "flavour": flavours[0] if flavours else "NanoAOD without constituents",
            "features": described,
            "selection": c.model_dump(mode="json", exclude={"features", "bystanders"}),
            **{k: metadata[k] for k in ("xsec", "cross_section") if k in metadata},
        }
        # One schema for all files, whatever the flavour of the input and also without a row.
        shape = self._no_rows(described)
        table = pa.table({k: np.asarray(columns[k]).astype(v.dtype) if columns else v for k, v in shape.items()})
        table = table.replace_schema_metadata({SKIM_KEY: json.dumps(record)})
        folder = Path(self.output) / metadata["dataset"]
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{metadata['fileuuid']}-{metadata['entrystart']}-{metadata['entrystop']}.parquet"
        temporary = path.with_suffix(f".{os.getpid()}.part")
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(path)
        return str(path)

    def _no_rows(self, described: dict[str, Any]) -> dict[str, Any]:
        """Return the columns of a chunk without events, so that all files of a skim have one schema."""
        own = self.config.bystanders
        bystanders = ad.features.get(own.name).key(own.options)
        doubles = ("met", "mt", "mjj", "rt", "ht", "dphi_min", "delta_eta", "genWeight")
        return {
            "run": np.zeros(0, np.uint32),
            "luminosityBlock": np.zeros(0, np.uint32),
            "event": np.zeros(0, np.uint64),
            **{name: np.zeros(0) for name in doubles},
            "objectIdx": np.zeros(0, np.int64),
            **{
                ("" if key == bystanders else f"{key}.") + column: np.zeros(0, np.float32)
                for key, feature in described.items()
                for column in feature["columns"]
            },
        }

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do."""
        return accumulator


def finish(report: Any, output: Path) -> None:
    """Write manifest.json: which files are the skim. Datasets of earlier runs into the same folder stay in it."""
    path = output / "manifest.json"
    datasets = json.loads(path.read_text())["datasets"] if path.exists() else {}
    for name, out in report.outputs.items():
        files = sorted(str(Path(f).relative_to(output.resolve())) for f in out["files"])
        counts = {k: v for k, v in out.items() if k not in ("files", "kind")}
        counts["sumw"] = report.datasets[name]["sumw"]
        datasets[name] = {**counts, "files": files, "config": report.config, "versions": report.versions}
    temporary = path.with_name("manifest.json.part")
    temporary.write_text(json.dumps({"datasets": datasets}, indent=1))
    temporary.replace(path)
