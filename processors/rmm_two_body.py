"""Search with the rapidity-mass matrix: anomalous events, and the masses of pairs of their leading objects.

    coffea-ad run rmm_two_body --fileset all.json --model rmm.onnx --executor dask --lumi 138 -o results/

Leptons, photons, jets, b jets and missing momentum → rapidity-mass matrix → score of the whole event → nested anomaly
regions → nine invariant masses m_jY, after ATLAS (arXiv:2307.01612). Events that trained the model are left out, and the
luminosity is less by their part. Without a model all selected events are in one region. Copy the file with
`coffea-ad cp rmm_two_body mine.py`, edit it, and run it by its path.
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
from coffea_ad.features.object_options import AllObjectOptions, object_ways
from coffea_ad.features.objects import select_objects
from coffea_ad.nanoaod import EVENT_ID, Objects
from coffea_ad.scoring.trained_on import model_objects, training_part
from coffea_ad.splits import event_uniform
from coffea_ad.weights import generator_weight, is_mc, weight_sums

_SLOTS = (50, 50, 20, 20, 20)  # what is looked at: light jets, b jets, muons, electrons, photons
_NO_LEPTONS = (50, 50, 0, 0, 20)
_LABELS = dict(
    zip(cuts.TWO_BODY, ("jj", "bb", "jb", "je", "be", r"j\mu", r"b\mu", r"j\gamma", r"b\gamma"), strict=True)
)


class Config(Frozen):
    """Selection, training events, variations, axes."""

    objects: AllObjectOptions | None = Field(None, description="which objects count; default: those of the model")
    leading_lepton_pt_min: cuts.Cut = Field(
        60.0, description="GeV, electron or muon; 0: events without leptons as well; null: nor are leptons looked at"
    )
    n_jets_min: int | None = Field(1, description="jets and b jets")
    triggers: cuts.Triggers = Field(
        (), description="any of them, or those of every primary dataset; none: not asked for"
    )
    met_filters: cuts.Names = Field((), description="all of them; campaign: those of the dataset's")
    corrections: Corrections = Corrections()
    jet_scale: float = Field(
        0.02, ge=0, lt=1, description="placeholder, where there is no jec: relative shift of jet pT and mass"
    )
    met_jet_pt_min: float = Field(15.0, description="GeV; shifts of jets above it go into the missing momentum")
    training_fraction: float | None = Field(
        None, ge=0, lt=1, description="part of all events that trained the model, left out; default: the model's"
    )
    training_salt: str = Field("training", description="how they were chosen, as in skim_events")
    mass_min: float = Field(50.0, gt=0, description="GeV, begin of the mass axes")
    mass_max: float = Field(13600.0, gt=0, description="GeV, end of the mass axes")
    mass_bins: int = Field(150, ge=1, description="of equal width in ln m")
    mass_edges: tuple[float, ...] = Field((), description="GeV, in the place of all of these")
    against_score: tuple[str, ...] = Field(
        ("mjj",), description="observables that are filled against the score as well, without variations"
    )
    unblind: bool = Field(False, description="show data in the tightest region")
    top_events: int = Field(
        100, ge=0, description="so many of the most anomalous events are listed, by each model; none of blinded data"
    )


class Processor(processor.ProcessorABC):
    """Fills the masses in anomaly regions."""

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:  # noqa: ARG002
        self.config = config
        for tagger in taggers:
            if tagger.card.level != "event":
                raise ConfigError(
                    f"rmm_two_body: {tagger.card.name} is a model of {tagger.collection}, and whole events are scored here"
                )
        if config.mass_min >= config.mass_max:
            raise ConfigError(f"rmm_two_body: mass_min {config.mass_min:g} is not below mass_max {config.mass_max:g}")
        # regions of the first model have plain names, those of others begin with their tagger's
        self.taggers = {"" if i == 0 else f"{t.name}_": t for i, t in enumerate(taggers)}
        cards = [tagger.card for tagger in taggers]
        self.objects = config.objects or model_objects(cards, AllObjectOptions, "rmm_two_body") or AllObjectOptions()
        self.left_out = training_part(cards, config.training_fraction, config.training_salt, "rmm_two_body")
        self.fraction = self.luminosity_fraction = 1 - self.left_out  # of events, expected, and of the luminosity
        self.corrector = Corrector(config.corrections, "Jet", jet_scale=config.jet_scale)
        certified = ["certified"] if config.corrections.lumi_mask else []
        veto = ["jet veto"] if config.corrections.jet_veto_map else []
        self.slots = _NO_LEPTONS if config.leading_lepton_pt_min is None else _SLOTS
        lepton = [] if config.leading_lepton_pt_min is None else ["lepton"]
        jets = [] if config.n_jets_min is None else ["jets"]
        self.steps = (*certified, "trigger", "filters", *veto, "defined", *lepton, *jets)
        self.filler = histograms.RegionFiller(self.taggers, self.steps, unblind=config.unblind, cuts=self._cuts())

    def _cuts(self) -> bool:
        """Say whether anything is cut on."""
        c = self.config
        masks = (c.triggers, c.met_filters, c.corrections.lumi_mask, c.corrections.jet_veto_map)
        return any(masks) or (c.leading_lepton_pt_min or 0) > 0 or (c.n_jets_min or 0) > 0

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that are read, for the check before the run; with an empty alternative they may be absent."""
        more = EVENT_ID if self.left_out else ()
        models = {what: ways for tagger in self.taggers.values() for what, ways in tagger.card.reads.items()}
        needs = {**models, "the selection": object_ways(self.objects, self.slots, more=more)}
        return {
            **needs,
            **cuts.trigger_reads(self.config.triggers),
            **cuts.filter_reads(self.config.met_filters),
            **self.corrector.reads(),
        }

    def process(self, events: Any) -> dict[str, Any]:
        """Analyse one chunk."""
        mc, n_events = is_mc(events), len(events)
        if self.left_out and len(events) > 0:
            ids = (ak.to_numpy(events[k]) for k in EVENT_ID)
            events = events[event_uniform(self.config.training_salt, *ids) >= self.left_out]
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
            **self.filler.begin(
                self._axes(), ["nominal", *by_jets, *by_weight], mc=mc, against_score=self.config.against_score
            ),
        }
        if len(events) > 0:
            c = self.config
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
                varied = with_jets(events, jets, self.objects.met, pt_min=c.met_jet_pt_min)
                self._analyse(varied, common, weight, out, mc=mc)
        return {events.metadata["dataset"]: out}

    def _axes(self) -> list[Any]:
        c = self.config
        equal = np.geomspace(c.mass_min, c.mass_max, c.mass_bins + 1)
        edges = histograms.mass_edges(c.mass_min, c.mass_max, c.mass_bins, edges=c.mass_edges or tuple(equal))
        return [
            *(hist.axis.Variable(edges, name=m, label=rf"$m_{{{k}}}$ [GeV]") for m, k in _LABELS.items()),
            hist.axis.Regular(50, 0, 1500, name="met", label="missing momentum [GeV]"),
            hist.axis.Regular(50, 0, 4000, name="ht", label="$H_T$ [GeV]"),
        ]

    def _analyse(
        self, events: Any, common: dict[str, Any], weight: Mapping[str, Any], out: dict[str, Any], *, mc: bool
    ) -> None:
        """Select events with one set of jets, and fill the histograms with all weights that go with it."""
        c = self.config
        objects = select_objects(Objects.events(events), self.objects, self.slots)
        # by the names of a skim's columns, and with their values: mjj of any two jets, where the histogram has light ones
        numbers = cuts.event_numbers(objects, leptons=c.leading_lepton_pt_min is not None)
        packed = PackedSelection()
        for name, mask in common.items():
            packed.add(name, mask)
        packed.add("defined", objects.valid)
        if c.leading_lepton_pt_min is not None:
            packed.add("lepton", numbers["leading_lepton_pt"] >= c.leading_lepton_pt_min)
        if c.n_jets_min is not None:
            packed.add("jets", numbers["n_jets"] >= c.n_jets_min)
        mask = packed.all(*self.steps)
        masses = cuts.two_body_masses(objects)
        values = {name: column[mask] for name, column in {**masses, "met": objects.met, "ht": numbers["ht"]}.items()}
        if "nominal" in weight:
            out["undefined"] += int((~objects.valid).sum())  # such an event passes no cut
            branches = [b for way in object_ways(self.objects, self.slots) for b in way]
            out["undefined_in"] = cuts.undefined_in(events[~objects.valid], dict.fromkeys(branches))
        spectators = values | {name: column[mask] for name, column in numbers.items()}
        selected = events[mask]
        tagged = self.filler.tag(selected, mc=mc, spectators=spectators)
        self.filler.fill(out, tagged, values, weight, packed, mask, mc=mc)
        if "nominal" in weight and c.top_events:
            out["event_lists"] = self.filler.rank(
                c.top_events, selected, tagged, values, weight["nominal"][mask], mc=mc
            )

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do; normalisation happens when the results are written."""
        return accumulator
