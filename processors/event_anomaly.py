"""Anomalous events: any model of whole events, its regions, and what events in them look like.

    coffea-ad run event_anomaly --fileset all.json --model events.onnx --executor dask --lumi 138 -o results/

Leptons, jets and missing momentum are selected as in the inputs of the model; events that pass the cuts are scored and
sorted into nested regions, of which numbers of objects, H_T, missing momentum, leading pT and masses of leading pairs are filled.
Several models sort the events side by side, and without one all selected events are in one region. Copy the file with
`coffea-ad cp event_anomaly mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import hist
import numpy as np
from coffea import processor
from coffea.analysis_tools import PackedSelection
from pydantic import Field

import coffea_ad as ad
from coffea_ad import histograms
from coffea_ad import selection as cuts
from coffea_ad.config import Frozen
from coffea_ad.corrections import Corrections, Corrector, with_jets
from coffea_ad.errors import ConfigError
from coffea_ad.features.object_options import AllObjectOptions, ObjectOptions, object_ways
from coffea_ad.features.objects import SelectedObjects, select_objects
from coffea_ad.nanoaod import EVENT_ID, Objects
from coffea_ad.scoring.trained_on import model_jets, model_objects, training_part
from coffea_ad.splits import event_uniform
from coffea_ad.weights import generator_weight, is_mc, weight_sums

_LEPTONS, _JETS = ("muon", "electron"), ("jet",)
_PAIRS = {"mll": (_LEPTONS, _LEPTONS), "mlj": (_LEPTONS, _JETS), "mjj": (_JETS, _JETS)}
_LABELS = {"mll": r"m_{\ell\ell}", "mlj": r"m_{\ell j}", "mjj": "m_{jj}"}


class Config(Frozen):
    """Selection, training events, variations, axes; a cut that is null is none."""

    objects: AllObjectOptions | None = Field(
        None, description="which objects count, photons only to clean jets of them; default: those of the model"
    )
    leading_lepton_pt_min: cuts.Cut = Field(
        23.0, description="GeV, electron or muon; 0: events without leptons as well; null: nor are leptons looked at"
    )
    n_jets_min: int | None = None
    ht_min: cuts.Cut = Field(None, description="GeV, pT of all jets, summed")
    met_min: cuts.Cut = Field(None, description="GeV")
    triggers: cuts.Triggers = Field(
        (), description="any of them, or those of every primary dataset; none: not asked for"
    )
    met_filters: cuts.Names = Field((), description="all of them; campaign: those of the dataset's")
    corrections: Corrections = Corrections()
    jet_scale: float = Field(
        0.02, ge=0, lt=1, description="placeholder, where there is no jec: relative shift of jet pT and masses"
    )
    met_jet_pt_min: float = Field(15.0, description="GeV; shifts of jets above it go into the missing momentum")
    training_fraction: float | None = Field(
        None, ge=0, lt=1, description="part of all events that trained the model, left out; default: the model's"
    )
    training_salt: str = Field("training", description="how they were chosen, as in skim_events")
    mass_min: float = Field(0.0, ge=0, description="GeV, begin of the mass axes")
    mass_max: float = Field(1000.0, gt=0, description="GeV, end of the mass axes")
    mass_bins: int = Field(100, ge=1, description="of equal width")
    mass_edges: tuple[float, ...] = Field((), description="GeV, in the place of all of these")
    against_score: tuple[str, ...] = Field(
        ("ht",), description="observables that are filled against the score as well, without variations"
    )
    unblind: bool = Field(False, description="show data in the tightest region")
    top_events: int = Field(
        100, ge=0, description="so many of the most anomalous events are listed, by each model; none of blinded data"
    )


class Processor(processor.ProcessorABC):
    """Fills numbers and masses of events in anomaly regions."""

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:  # noqa: ARG002
        self.config = c = config
        for tagger in taggers:
            if tagger.card.level != "event":
                raise ConfigError(
                    f"event_anomaly: {tagger.card.name} is a model of {tagger.collection}, and whole events are scored here"
                )
        self.edges = histograms.mass_edges(c.mass_min, c.mass_max, c.mass_bins, edges=c.mass_edges)
        # regions of the first model have plain names, those of others begin with their tagger's
        self.taggers = {"" if i == 0 else f"{t.name}_": t for i, t in enumerate(taggers)}
        self.objects = c.objects or self._objects_of_models()
        photons = 20 if isinstance(self.objects, AllObjectOptions) and self.objects.cleaning > 0 else 0
        leptons = 0 if c.leading_lepton_pt_min is None else 20
        self.slots = (50, 0, leptons, leptons, photons)  # jets, b jets or not, muons, electrons, photons
        self.left_out = training_part(self._cards(), c.training_fraction, c.training_salt, "event_anomaly")
        self.fraction = self.luminosity_fraction = 1 - self.left_out  # of events, expected, and of the luminosity
        self.corrector = Corrector(c.corrections, self._corrected_jets(), jet_scale=c.jet_scale)
        certified = ["certified"] if c.corrections.lumi_mask else []
        veto = ["jet veto"] if c.corrections.jet_veto_map else []
        self.minima = self._minima()
        self.steps = (*certified, "trigger", "filters", *veto, "defined", *self.minima)
        masks = (c.triggers, c.met_filters, certified, veto)
        some_cut = any(masks) or any(least > 0 for _, least in self.minima.values())
        self.filler = histograms.RegionFiller(self.taggers, self.steps, unblind=c.unblind, cuts=some_cut)

    def _cards(self) -> list[ad.ModelCard]:
        return [tagger.card for tagger in self.taggers.values()]

    def _objects_of_models(self) -> ObjectOptions:
        plain, full = (model_objects(self._cards(), k, "event_anomaly") for k in (ObjectOptions, AllObjectOptions))
        return full or plain or ObjectOptions()

    def _corrected_jets(self) -> str:
        """Return the jets whose energies are corrected and varied: those that the models take."""
        c, collections = self.config, sorted(model_jets(self._cards())) or ["Jet"]
        if len(collections) > 1 and (c.jet_scale or c.corrections.jec or c.corrections.jet_id):
            raise ConfigError(
                f"event_anomaly: the models are of different jets, {' and '.join(collections)}, and those of one collection are "
                "corrected and varied; run them one by one, or with jet_scale=0 and without jec and jet_id"
            )
        return collections[-1]

    def _minima(self) -> dict[str, tuple[str, float]]:
        """Return what is cut on from below, {step: (number of the event, minimum)}."""
        c = self.config
        minima = {
            "lepton": ("leading_lepton_pt", c.leading_lepton_pt_min), "jets": ("n_jets", c.n_jets_min),
            "HT": ("ht", c.ht_min), "MET": ("met", c.met_min),
        }  # fmt: skip
        return {step: (name, least) for step, (name, least) in minima.items() if least is not None}

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that are read, for the check before the run; with an empty alternative they may be absent."""
        more = EVENT_ID if self.left_out else ()
        models = {what: ways for card in self._cards() for what, ways in card.reads.items()}
        return {
            **models,
            "the selection": object_ways(self.objects, self.slots, more=more),
            **cuts.trigger_reads(self.config.triggers),
            **cuts.filter_reads(self.config.met_filters),
            **self.corrector.reads(),
        }

    def process(self, events: Any) -> dict[str, Any]:
        """Analyse one chunk."""
        c, mc, n_events = self.config, is_mc(events), len(events)
        if self.left_out and n_events > 0:
            ids = (ak.to_numpy(events[k]) for k in EVENT_ID)
            events = events[event_uniform(c.training_salt, *ids) >= self.left_out]
        weights = self.corrector.weights(events)
        by_weight = self.corrector.weight_variations if mc else ()
        by_jets = self.corrector.jet_variations if mc else ()
        out: dict[str, Any] = {
            **weight_sums(generator_weight(events)),  # before any cut and correction: what normalises
            "sumw_variations": self.corrector.sums(weights) if mc else {},
            "variations": self.corrector.variations if mc else {},
            "events": n_events,
            "left_out": n_events - len(events),
            "kind": {"mc" if mc else "data"},
            "undefined": 0,
            "undefined_in": {},
            **self.filler.begin(self._axes(), ["nominal", *by_jets, *by_weight], mc=mc, against_score=c.against_score),
        }
        if len(events) > 0:
            common = {
                "certified": self.corrector.certified(events),
                "jet veto": self.corrector.outside_veto(events),
                "trigger": cuts.triggered(events, c.triggers),
                "filters": cuts.met_filters(events, c.met_filters),
            }
            for variation, jets in self.corrector.jets(events):
                weight = {variation: weights.weight()}
                if variation == "nominal":  # the same events with the same scores: only their weights differ
                    weight |= {name: weights.weight(name) for name in by_weight}
                collection, met = self.corrector.collection, self.objects.met
                varied = with_jets(events, jets, met, collection=collection, pt_min=c.met_jet_pt_min)
                self._analyse(varied, common, weight, out, mc=mc)
        return {events.metadata["dataset"]: out}

    def _axes(self) -> list[Any]:
        return [
            hist.axis.Regular(50, 0, 500, name="met", label="missing momentum [GeV]"),
            hist.axis.Regular(50, 0, 2000, name="ht", label="$H_T$ [GeV]"),
            hist.axis.Regular(16, -0.5, 15.5, name="n_jets", label="number of jets"),
            hist.axis.Regular(9, -0.5, 8.5, name="n_leptons", label="number of electrons and muons"),
            hist.axis.Regular(50, 0, 500, name="leading_lepton_pt", label="$p_T$ of the leading lepton [GeV]"),
            hist.axis.Regular(50, 0, 1000, name="leading_jet_pt", label="$p_T$ of the leading jet [GeV]"),
            *(hist.axis.Variable(self.edges, name=name, label=f"${_LABELS[name]}$ [GeV]") for name in _PAIRS),
        ]

    def _analyse(
        self, events: Any, common: dict[str, Any], weight: Mapping[str, Any], out: dict[str, Any], *, mc: bool
    ) -> None:
        """Select events with one set of jets, and fill the histograms with all weights that go with it."""
        objects = select_objects(Objects.events(events), self.objects, self.slots)
        # by the names of a skim's columns, and with their values
        numbers = cuts.event_numbers(objects, leptons=self.config.leading_lepton_pt_min is not None)
        packed = PackedSelection()
        for name, mask in {**common, "defined": objects.valid}.items():
            packed.add(name, mask)
        for step, (name, least) in self.minima.items():
            packed.add(step, numbers[name] >= least)
        mask = packed.all(*self.steps)
        values = {name: column[mask] for name, column in _observables(objects, numbers).items()}
        if "nominal" in weight:
            out["undefined"] += int((~objects.valid).sum())  # such an event passes no cut
            branches = [b for way in object_ways(self.objects, self.slots) for b in way]
            out["undefined_in"] = cuts.undefined_in(events[~objects.valid], dict.fromkeys(branches))
        selected = events[mask]
        tagged = self.filler.tag(
            selected, mc=mc, spectators=values | {name: column[mask] for name, column in numbers.items()}
        )
        self.filler.fill(out, tagged, values, weight, packed, mask, mc=mc)
        if "nominal" in weight and self.config.top_events:
            out["event_lists"] = self.filler.rank(
                self.config.top_events, selected, tagged, values, weight["nominal"][mask], mc=mc
            )

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do; normalisation happens when the results are written."""
        return accumulator


def _observables(objects: SelectedObjects, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is filled: numbers of the event, and NaN, which is in no bin, for objects and pairs that it lacks."""
    leading = {name: numbers[name] for name in ("leading_lepton_pt", "leading_jet_pt")}
    return {
        **{name: numbers[name] for name in ("met", "ht", "n_jets", "n_leptons")},
        **{name: np.where(pt > 0, pt, np.nan) for name, pt in leading.items()},
        **{name: objects.pair_mass(*pair) for name, pair in _PAIRS.items()},
    }
