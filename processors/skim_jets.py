"""NanoAOD → training tables: one parquet row per leading AK8 jet, with model inputs, spectators and event ids.

    coffea-ad run skim_jets --fileset backgrounds.json -o skims/

    coffea-ad run skim_jets --fileset backgrounds.json -o skims/ jets=each jet_pt_min=150 jet_pt_max=350 jet_eta_max=2

With `jets=each` a leading jet is taken whatever the other one is; columns of the dijet are then NaN where there is one jet only.

writes skims/DATASET/UUID-START-STOP.parquet, one file per chunk, also for chunks without a selected event, so that the
sum of weights is complete. A retry writes the same file again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import awkward as ak
import numpy as np
from coffea import processor
from coffea.analysis_tools import PackedSelection
from pydantic import Field

import coffea_ad as ad
from coffea_ad import files
from coffea_ad import selection as cuts
from coffea_ad.config import Frozen
from coffea_ad.corrections import Corrections, Corrector, nominal_jets, with_shifted_jets
from coffea_ad.corrections.jet_veto import JetIdConfig, JetVetoMapConfig
from coffea_ad.corrections.jets import JetEnergyConfig
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.nanoaod import Objects
from coffea_ad.skims.writing import feature_columns, feature_reads, write_chunk, write_manifest
from coffea_ad.weights import generator_weight, is_mc, weight_sums

_EVENT = ("met", "mt", "mjj", "rt", "ht", "dphi_min", "delta_eta", "genWeight")
_CORRECTIONS = ("lumi_mask", "jet_veto_map", "jet_id", "jec")
_KEYS = {"run": np.uint32, "luminosityBlock": np.uint32, "event": np.uint64}


class Config(Frozen):
    """Selection and columns; a cut that is null is none, and needs no branch."""

    collection: str = "FatJet"
    features: tuple[FeatureConfig, ...] = (
        FeatureConfig(name="jet_substructure", options={"observables": ["+multiplicity"]}),
    )
    spectators: FeatureConfig = FeatureConfig(name="jet_kinematics")
    met: str = "PuppiMET"
    jets: Literal["both", "each"] = Field(
        "both", description="both leading jets pass the cuts; or each that does is taken"
    )
    jet_pt_min: cuts.Cut = Field(200.0, description="GeV, of the leading jets")
    jet_pt_max: cuts.Cut = Field(None, description="GeV")
    jet_eta_max: cuts.Cut = 2.4
    lepton_pt_min: cuts.Cut = Field(10.0, description="GeV; events with an isolated lepton above are vetoed")
    lepton_isolation_max: cuts.Cut = 0.2
    met_filters: cuts.Names = Field((), description="all of them; campaign: those of the dataset's")
    lumi_mask: cuts.Path = Field("", description="golden JSON: data of certified luminosity sections only")
    jet_veto_map: JetVetoMapConfig | None = Field(None, description="events with a jet in a vetoed region are left out")
    jet_id: JetIdConfig | None = Field(None, description="a leading jet that fails is none")
    jec: JetEnergyConfig | None = Field(None, description="as in the search that will use the model: its nominal jets")


class Processor(processor.ProcessorABC):
    """Writes one parquet file per chunk."""

    fills_histograms = False

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:
        if output is None:
            raise ConfigError("skim_jets: say where to write with -o FOLDER")
        if taggers:
            raise ConfigError("skim_jets: takes no --model")
        self.config = config
        self.output = files.absolute(output)
        asked = Corrections(**{k: getattr(config, k) for k in _CORRECTIONS})
        self.corrector = Corrector(asked, config.collection)
        certified = ["certified"] if config.lumi_mask else []
        veto = ["jet veto"] if config.jet_veto_map else []
        leptons = ["lepton veto"] if config.lepton_pt_min is not None else []
        self.jets = "two jets" if config.jets == "both" else "jets"
        self.steps = (*certified, "filters", *veto, self.jets, *leptons)

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that a file must have, for the check before the run."""
        c = self.config
        needs = feature_reads((*c.features, c.spectators), "jet", c.collection)
        kinematics = (f"{c.collection}_{k}" for k in ("pt", "eta", "phi", "mass"))
        branches = (
            *kinematics,
            f"{c.met}_pt",
            f"{c.met}_phi",
            *cuts.lepton_branches(c.lepton_pt_min, c.lepton_isolation_max),
        )
        return {**needs, "the selection": (branches,), **cuts.filter_reads(c.met_filters), **self.corrector.reads()}

    def process(self, events: Any) -> dict[str, Any]:
        """Select, compute, write."""
        weight = generator_weight(events)
        out: dict[str, Any] = {
            **weight_sums(weight),
            "events": len(events),
            "kind": {"mc" if is_mc(events) else "data"},
            "rows": 0,
            "undefined": 0,
            "cutflow": {},
        }
        columns = self._nothing()
        if len(events) > 0:
            columns = self._columns(events, weight, out)
        out["rows"] = len(columns["run"])
        path = write_chunk(
            self.output, events, columns, described=(*self.config.features, self.config.spectators),
            selection=self._selection(),
            sumw=out["sumw"], collection=self.config.collection,
        )  # fmt: skip
        out["files"] = {path}
        return {events.metadata["dataset"]: out}

    def _selection(self) -> dict[str, Any]:
        """Return what was cut on; a mask or map that was not asked for leaves no trace."""
        options = self.config.model_dump(mode="json", exclude={"features", "spectators"})
        options["jec"] = nominal_jets(self.config.jec)
        usual = {"jets": "both", "jet_pt_max": None} | dict.fromkeys(_CORRECTIONS)
        return {k: v for k, v in options.items() if k not in usual or (v and v != usual[k])}

    def _columns(self, events: Any, weight: Any, out: dict[str, Any]) -> dict[str, Any]:
        c = self.config
        _, nominal = next(self.corrector.jets(events))
        leading, without_pt = cuts.leading_jets(nominal)
        without = {f"{c.collection}_pt": without_pt}
        for field in ("eta", "phi", "mass"):
            without[f"{c.collection}_{field}"] = ak.to_numpy(ak.any(~np.isfinite(leading[field]), axis=1))
        undefined = np.any(list(without.values()), axis=0)
        good = cuts.above(leading["pt"], c.jet_pt_min) & cuts.below(leading["pt"], c.jet_pt_max)
        good = good & cuts.below(abs(leading["eta"]), c.jet_eta_max)
        if c.jet_id:
            good = good & leading["passes_id"]
        packed = PackedSelection()
        packed.add("certified", self.corrector.certified(events))
        packed.add("jet veto", self.corrector.outside_veto(events))
        packed.add("filters", cuts.met_filters(events, c.met_filters))
        n_good = ak.to_numpy(ak.sum(good, axis=1))
        packed.add(self.jets, (n_good == 2 if c.jets == "both" else n_good > 0) & ~undefined)
        packed.add("lepton veto", ~cuts.has_lepton(events, c.lepton_pt_min, c.lepton_isolation_max))
        mask = packed.all(*self.steps)
        event = self._event(events[mask], leading[mask]) | {"genWeight": weight[mask]}
        keys = {k: ak.to_numpy(events[k][mask]).astype(t) for k, t in _KEYS.items()}
        jets, n = leading[mask][good[mask]], n_good[mask]
        columns: dict[str, Any] = {k: np.repeat(v, n) for k, v in keys.items()}
        columns |= {k: np.repeat(np.asarray(event[k], np.float64), n) for k in _EVENT}
        objects = Objects.of(jets, c.collection)
        first = np.r_[0, np.cumsum(ak.to_numpy(ak.num(objects.source[c.collection], axis=1)))]
        columns["objectIdx"] = objects.index - first[objects.event]
        out["cutflow"] = cuts.cutflow(packed, self.steps, weight)
        out["undefined"] = cuts.undefined_numbers(nominal, undefined)  # such an event passes no cut
        out["undefined_in"] = {branch: int(mask.sum()) for branch, mask in without.items() if mask.any()}
        return columns | self._features(objects)

    def _event(self, events: Any, jets: Any) -> dict[str, Any]:
        """Return columns of events, those of the dijet NaN where there is one jet only."""
        met_pt, met_phi = with_shifted_jets(events[self.config.met], jets)
        two = ak.to_numpy(ak.num(jets, axis=1) == 2)
        dijet = cuts.dijet(jets[two], met_pt[two], met_phi[two])._asdict()
        dijet["rt"] = met_pt[two] / np.maximum(dijet["mt"], 1e-9)
        out = {name: np.full(len(two), np.nan) for name in dijet}
        for name, values in dijet.items():
            out[name][two] = values
        return {"met": met_pt, **out}

    def _features(self, objects: Any) -> dict[str, Any]:
        c = self.config
        columns = feature_columns(c.spectators, objects, c.collection, prefix=False)
        for feature in c.features:
            columns |= feature_columns(feature, objects, c.collection)
        return columns

    def _nothing(self) -> dict[str, Any]:
        """Return the columns of a chunk without events: all files of a skim have the same."""
        empty: dict[str, Any] = {name: np.zeros(0, t) for name, t in _KEYS.items()}
        return (
            empty | {name: np.zeros(0) for name in _EVENT} | {"objectIdx": np.zeros(0, np.int64)} | self._features(None)
        )

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do."""
        return accumulator


finish = write_manifest
