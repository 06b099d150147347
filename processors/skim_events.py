"""NanoAOD → training tables of whole events: one parquet row per event, with an event-level feature and spectators.

    coffea-ad run skim_events --fileset backgrounds.json -o skims/

The default is the rapidity-mass matrix and the selection of the dijet search with it: a lepton of 60 GeV and a jet of
30 GeV. Large features are stored sparse; one file per chunk, also for chunks without a selected event, so that the sum of
weights is complete. A retry writes the same file again. With `training_fraction` only that part of the events is kept,
chosen by their ids; `rmm_two_body` leaves the same events out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
from coffea import processor
from coffea.analysis_tools import PackedSelection
from pydantic import Field

import coffea_ad as ad
from coffea_ad import files
from coffea_ad import selection as cuts
from coffea_ad.config import Frozen
from coffea_ad.corrections import Corrections, Corrector, nominal_jets, with_jets
from coffea_ad.corrections.jet_veto import JetIdConfig, JetVetoMapConfig
from coffea_ad.corrections.jets import JetEnergyConfig
from coffea_ad.errors import ConfigError
from coffea_ad.features.object_options import AllObjectOptions, object_branches, object_ways
from coffea_ad.features.objects import select_objects
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.nanoaod import Objects
from coffea_ad.skims.writing import feature_columns, feature_reads, write_chunk, write_manifest
from coffea_ad.splits import event_uniform
from coffea_ad.weights import generator_weight, is_mc, weight_sums

# what the selection looks at: jets, muons, electrons; photons, near which jets are removed
_SLOTS = (50, 0, 20, 20, 20)
_NO_LEPTONS = (50, 0, 0, 0, 0)
_CORRECTIONS = ("lumi_mask", "jet_veto_map", "jet_id", "jec")
_KEYS = {"run": np.uint32, "luminosityBlock": np.uint32, "event": np.uint64}
_EVENT = ("met", "ht", "n_jets", "n_leptons", "leading_jet_pt", "leading_lepton_pt", "mjj", "genWeight")


class Config(Frozen):
    """Selection and columns."""

    features: tuple[FeatureConfig, ...] = (FeatureConfig(name="rmm"),)
    objects: AllObjectOptions = Field(
        AllObjectOptions(), description="of the selection and the spectators; a feature has its own"
    )
    leading_lepton_pt_min: cuts.Cut = Field(
        60.0, description="GeV, electron or muon; 0: events without leptons as well; null: nor are leptons looked at"
    )
    n_jets_min: int | None = 1
    triggers: cuts.Triggers = ()
    met_filters: cuts.Names = Field((), description="all of them; campaign: those of the dataset's")
    lumi_mask: cuts.Path = Field("", description="golden JSON: data of certified luminosity sections only")
    jet_veto_map: JetVetoMapConfig | None = Field(None, description="events with a jet in a vetoed region are left out")
    jet_id: JetIdConfig | None = Field(None, description="jets that fail are none")
    jec: JetEnergyConfig | None = Field(None, description="as in the search that will use the model: its nominal jets")
    met_jet_pt_min: float = Field(15.0, description="GeV; what moves jets above it goes into the missing momentum")
    training_fraction: float = Field(
        1.0, gt=0, le=1, description="keep this part of all events, by a hash of their ids"
    )
    training_salt: str = Field("training", description="another one chooses other events")


class Processor(processor.ProcessorABC):
    """Writes one parquet file per chunk."""

    fills_histograms = False

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:
        if output is None:
            raise ConfigError("skim_events: say where to write with -o FOLDER")
        if taggers:
            raise ConfigError("skim_events: takes no --model")
        self.config = config
        self.output = files.absolute(output)
        self.corrector = Corrector(Corrections(**{k: getattr(config, k) for k in _CORRECTIONS}), "Jet")
        certified = ["certified"] if config.lumi_mask else []
        veto = ["jet veto"] if config.jet_veto_map else []
        self.slots = _NO_LEPTONS if config.leading_lepton_pt_min is None else _SLOTS
        lepton = [] if config.leading_lepton_pt_min is None else ["lepton"]
        jets = [] if config.n_jets_min is None else ["jets"]
        self.steps = (*certified, "trigger", "filters", *veto, *lepton, *jets)
        self.fraction = config.training_fraction  # of the events that a file once had, expected

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that a file must have, for the check before the run."""
        c = self.config
        selection = object_branches(c.objects, self.slots)
        needs = {**feature_reads(c.features, "event"), "the selection": (selection,)}
        return {**needs, **cuts.trigger_reads(c.triggers), **cuts.filter_reads(c.met_filters), **self.corrector.reads()}

    def process(self, events: Any) -> dict[str, Any]:
        """Select, compute, write."""
        c, n_events = self.config, len(events)
        if c.training_fraction < 1 and len(events) > 0:
            ids = (ak.to_numpy(events[k]) for k in _KEYS)
            events = events[event_uniform(c.training_salt, *ids) < c.training_fraction]
        weight = generator_weight(events)
        out: dict[str, Any] = {
            **weight_sums(weight),  # of the events that are kept: the skim stands for the whole cross-section
            "events": n_events,
            "kind": {"mc" if is_mc(events) else "data"},
            "undefined": 0,
            "cutflow": {},
        }
        columns = self._nothing()
        if len(events) > 0:
            columns = self._columns(events, weight, out)
        out["rows"] = len(columns["run"])
        path = write_chunk(
            self.output, events, columns, described=self.config.features,
            selection=self._selection(), sumw=out["sumw"],
        )  # fmt: skip
        out["files"] = {path}
        return {events.metadata["dataset"]: out}

    def _selection(self) -> dict[str, Any]:
        """Return what was cut on; what was not asked for leaves no trace."""
        options = self.config.model_dump(mode="json", exclude={"features"})
        if self.config.training_fraction == 1:
            del options["training_fraction"], options["training_salt"]
        options["jec"] = nominal_jets(self.config.jec)
        if not self.config.jec:
            del options["met_jet_pt_min"]
        return {k: v for k, v in options.items() if k not in _CORRECTIONS or v}

    def _columns(self, events: Any, weight: Any, out: dict[str, Any]) -> dict[str, Any]:
        c = self.config
        if c.jec or c.jet_id:
            _, jets = next(self.corrector.jets(events))
            events = with_jets(events, jets, c.objects.met, pt_min=c.met_jet_pt_min)
        event, valid = self._spectators(events)
        packed = PackedSelection()
        packed.add("certified", self.corrector.certified(events))
        packed.add("jet veto", self.corrector.outside_veto(events))
        packed.add("trigger", cuts.triggered(events, c.triggers))
        packed.add("filters", cuts.met_filters(events, c.met_filters))
        if c.leading_lepton_pt_min is not None:
            packed.add("lepton", event["leading_lepton_pt"] >= c.leading_lepton_pt_min)
        if c.n_jets_min is not None:
            packed.add("jets", event["n_jets"] >= c.n_jets_min)
        mask = packed.all(*self.steps)
        columns: dict[str, Any] = {k: ak.to_numpy(events[k][mask]).astype(t) for k, t in _KEYS.items()}
        event["genWeight"] = np.asarray(weight, np.float64)
        columns |= {k: event[k][mask] for k in _EVENT}
        for feature in c.features:
            columns |= feature_columns(feature, events[mask])
        out["cutflow"] = cuts.cutflow(packed, self.steps, weight)
        out["undefined"] = int((~valid).sum())
        branches = [b for way in object_ways(c.objects, self.slots) for b in way]
        out["undefined_in"] = cuts.undefined_in(events[~valid], dict.fromkeys(branches))
        return columns

    def _spectators(self, events: Any) -> tuple[dict[str, Any], Any]:
        """Numbers of events for cuts, weights and plots, and which are defined; m_jj of two leading jets, 0 with fewer."""
        objects = select_objects(Objects.events(events), self.config.objects, self.slots)
        return cuts.event_numbers(objects, leptons=self.config.leading_lepton_pt_min is not None), objects.valid

    def _nothing(self) -> dict[str, Any]:
        """Return the columns of a chunk without events: all files of a skim have the same."""
        empty: dict[str, Any] = {name: np.zeros(0, t) for name, t in _KEYS.items()} | {k: np.zeros(0) for k in _EVENT}
        for feature in self.config.features:
            empty |= feature_columns(feature, None)
        return empty

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do."""
        return accumulator


finish = write_manifest
