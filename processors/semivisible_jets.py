"""Semivisible jets: two AK8 jets and aligned missing momentum, sorted into anomaly regions by tagged jets.

    coffea-ad run semivisible_jets --fileset all.json --model wnae.onnx --executor dask -o results/

The selection follows the shape of the CMS search for resonant semivisible jets (arXiv:2112.11125). Without a model, all
selected events are in one region, for control plots; several models sort the events side by side. Copy the file with
`coffea-ad cp semivisible_jets mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

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
from coffea_ad.corrections import Corrections, Corrector, with_shifted_jets
from coffea_ad.errors import ConfigError
from coffea_ad.splits import SPLIT, split_of
from coffea_ad.weights import generator_weight, is_mc, weight_sums

Split = Literal["train", "validation", "test"]


class Config(Frozen):
    """Selection, names of branches, variations; a cut that is null is none, and needs no branch."""

    met: str = "PuppiMET"
    jet_pt_min: cuts.Cut = Field(200.0, description="GeV, both leading jets")
    jet_eta_max: cuts.Cut = 2.4
    delta_eta_max: cuts.Cut = 1.5
    rt_min: cuts.Cut = Field(0.15, description="MET / m_T")
    met_min: cuts.Cut = Field(100.0, description="GeV")
    dphi_max: cuts.Cut = Field(0.8, description="smallest angle between a leading jet and MET")
    lepton_pt_min: cuts.Cut = Field(10.0, description="GeV; events with an isolated lepton above are vetoed")
    lepton_isolation_max: cuts.Cut = 0.2
    triggers: cuts.Triggers = Field(
        (), description="any of them, or those of every primary dataset; none: not asked for"
    )
    met_filters: cuts.Names = Field((), description="all of them; campaign: those of the dataset's")
    corrections: Corrections = Corrections()
    jet_scale: float = Field(
        0.02, ge=0, lt=1, description="placeholder, where there is no jec: relative shift of jet pT and masses"
    )
    mass_min: float = Field(0.0, ge=0, description="GeV, begin of the m_T and m_JJ axes")
    mass_max: float = Field(5000.0, gt=0, description="GeV, end of the m_T and m_JJ axes")
    mass_bins: int = Field(50, ge=1, description="of equal width")
    mass_resolution: float | None = Field(None, gt=0, lt=1, description="relative; bins as wide as it from mass_min on")
    mass_edges: tuple[float, ...] = Field((), description="GeV, in the place of all of these")
    splits: tuple[Split, ...] = Field((), description="simulated events of these parts of a training only; none: all")
    against_score: tuple[str, ...] = Field(
        ("mt",), description="observables that are filled against the score as well, without variations"
    )
    unblind: bool = Field(False, description="show data with a jet in the tightest region")
    top_events: int = Field(
        100, ge=0, description="so many of the most anomalous events are listed, by each model; none of blinded data"
    )


class Processor(processor.ProcessorABC):
    """Fills histograms of anomaly regions."""

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:  # noqa: ARG002
        self.config = config
        for tagger in taggers:
            if tagger.card.level != "jet":
                raise ConfigError(
                    f"semivisible_jets: {tagger.card.name} is a model of whole events, and jets are tagged here"
                )
        c = config
        self.edges = histograms.mass_edges(
            c.mass_min, c.mass_max, c.mass_bins, resolution=c.mass_resolution, edges=c.mass_edges
        )
        # regions of the first model have plain names, those of others begin with their tagger's
        self.taggers = {"" if i == 0 else f"{t.name}_": t for i, t in enumerate(taggers)}
        collections = list(dict.fromkeys(t.collection for t in taggers)) or ["FatJet"]
        if len(collections) > 1:
            raise ConfigError(f"semivisible_jets: the models are of different jets, {' and '.join(collections)}")
        self.collection = collections[0]
        self.corrector = Corrector(config.corrections, self.collection, jet_scale=config.jet_scale)
        certified = ["certified"] if config.corrections.lumi_mask else []
        veto = ["jet veto"] if config.corrections.jet_veto_map else []
        leptons = ["lepton veto"] if config.lepton_pt_min is not None else []
        asked = {"delta eta": config.delta_eta_max, "MET": config.met_min, "RT": config.rt_min, "dphi": config.dphi_max}
        kinematic = ("two jets", *(step for step, cut in asked.items() if cut is not None))
        self.steps = (*certified, "filters", "trigger", *veto, *leptons, *kinematic)
        self.filler = histograms.RegionFiller(self.taggers, self.steps, unblind=config.unblind)
        self.fraction = sum(SPLIT[s] for s in set(config.splits)) or 1.0  # of simulated events, expected

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that are read, for the check before the run; with an empty alternative they may be absent."""
        c = self.config
        branches = (
            *(f"{self.collection}_{k}" for k in ("pt", "eta", "phi", "mass", "msoftdrop")),
            *(f"{c.met}_{k}" for k in ("pt", "phi")),
            *cuts.lepton_branches(c.lepton_pt_min, c.lepton_isolation_max),
        )
        models = {what: ways for tagger in self.taggers.values() for what, ways in tagger.card.reads.items()}
        return {
            **models,
            "the selection": (branches,),
            **cuts.trigger_reads(c.triggers),
            **cuts.filter_reads(c.met_filters),
            **self.corrector.reads(),
        }

    def process(self, events: Any) -> dict[str, Any]:
        """Analyse one chunk."""
        mc, n_events = is_mc(events), len(events)
        if mc and self.config.splits and len(events) > 0:
            events = events[np.isin(split_of(events.run, events.luminosityBlock, events.event), self.config.splits)]
        weights = self.corrector.weights(events)
        by_weight = self.corrector.weight_variations if mc else ()
        by_jets = self.corrector.jet_variations if mc else ()
        out: dict[str, Any] = {
            **weight_sums(generator_weight(events)),  # before any cut and correction: what normalises
            "sumw_variations": self.corrector.sums(weights) if mc else {},
            "variations": self.corrector.variations if mc else {},
            "events": n_events,
            "kind": {"mc" if mc else "data"},
            "undefined": 0,
            "undefined_in": {},
            **self.filler.begin(
                self._axes(), ["nominal", *by_jets, *by_weight], mc=mc, against_score=self.config.against_score
            ),
        }
        if len(events) > 0:
            common = self._select_events(events)
            for variation, jets in self.corrector.jets(events):
                weight = {variation: weights.weight()}
                if variation == "nominal":  # the same events with the same scores: only their weights differ
                    weight |= {name: weights.weight(name) for name in by_weight}
                self._analyse(events, jets, common, weight, out, mc=mc)
        return {events.metadata["dataset"]: out}

    def _axes(self) -> list[Any]:
        return [
            self._mass("mt", "$m_T$ [GeV]"),
            self._mass("mjj", "$m_{JJ}$ [GeV]"),
            hist.axis.Regular(50, 0, 1500, name="met", label="missing momentum [GeV]"),
            hist.axis.Regular(50, 0, 4000, name="ht", label="$p_T$ of both leading jets, summed [GeV]"),
            hist.axis.Regular(50, 0, 400, name="msoftdrop", label="$m_{SD}$ [GeV]"),
        ]

    def _mass(self, name: str, label: str) -> Any:
        c = self.config
        if c.mass_resolution is None and not c.mass_edges:
            return hist.axis.Regular(c.mass_bins, c.mass_min, c.mass_max, name=name, label=label)
        return hist.axis.Variable(self.edges, name=name, label=label)

    def _select_events(self, events: Any) -> dict[str, Any]:
        """Cuts that no variation of the jets touches."""
        c = self.config
        return {
            "certified": self.corrector.certified(events),
            "filters": cuts.met_filters(events, c.met_filters),
            "trigger": cuts.triggered(events, c.triggers),
            "jet veto": self.corrector.outside_veto(events),
            "lepton veto": ~cuts.has_lepton(events, c.lepton_pt_min, c.lepton_isolation_max),
        }

    def _analyse(
        self, events: Any, jets: Any, common: dict[str, Any], weight: Mapping[str, Any], out: dict[str, Any], *, mc: bool
    ) -> None:  # fmt: skip
        """Select events with one set of jets, and fill the histograms with all weights that go with it."""
        c = self.config
        n = len(events)
        leading, without_pt = cuts.leading_jets(jets)
        without_eta = ak.to_numpy(ak.any(~np.isfinite(leading["eta"]), axis=1))
        undefined = without_pt | without_eta
        good = cuts.above(leading["pt"], c.jet_pt_min) & cuts.below(abs(leading["eta"]), c.jet_eta_max)
        if c.corrections.jet_id:
            good = good & leading["passes_id"]
        two = ak.to_numpy(ak.sum(good, axis=1) == 2) & ~undefined
        pair = leading[two]
        met_pt, met_phi = with_shifted_jets(events[c.met][two], pair)
        dijet = cuts.dijet(pair, met_pt, met_phi)

        packed = PackedSelection()
        for name, mask in {**common, "two jets": two}.items():
            packed.add(name, mask)
        for name, mask in {
            "delta eta": cuts.below(dijet.delta_eta, c.delta_eta_max),
            "MET": cuts.above(met_pt, c.met_min),
            "RT": cuts.above(met_pt, None if c.rt_min is None else c.rt_min * dijet.mt),
            "dphi": cuts.below(dijet.dphi_min, c.dphi_max),
        }.items():
            whole = np.zeros(n, bool)
            whole[two] = mask
            packed.add(name, whole)
        mask = packed.all(*self.steps)
        mask[two] &= np.isfinite(dijet.mt)  # whatever cuts are left

        inside = mask[two]
        values = {
            "mt": dijet.mt[inside],
            "mjj": dijet.mjj[inside],
            "met": met_pt[inside],
            "ht": dijet.ht[inside],
        }
        tagged = self.filler.tag(leading[mask], mc=mc, spectators=values)
        values["msoftdrop"] = ak.to_numpy(tagged["msoftdrop"]).reshape(-1, 2)
        lost = self.filler.fill(out, tagged, values, weight, packed, mask, mc=mc)
        if "nominal" not in weight:
            return
        if c.top_events:
            out["event_lists"] = self.filler.rank(
                c.top_events, events[mask], tagged, values, weight["nominal"][mask], mc=mc
            )
        jet, without_mt = self.collection, ~np.isfinite(dijet.mt)
        of_pt = cuts.undefined_numbers(jets, undefined)  # such an event passes no cut, such a jet does not lead
        out["undefined"] += of_pt + int(without_mt.sum()) + sum(lost.values())
        branches = [f"{jet}_{k}" for k in ("phi", "mass")] + [f"{c.met}_{k}" for k in ("pt", "phi")]
        named = {
            f"{jet}_pt": int(without_pt.sum()) + of_pt - int(undefined.sum()),
            f"{jet}_eta": int(without_eta.sum()),
            **cuts.undefined_in(ak.zip({jet: pair, c.met: events[c.met][two]}, depth_limit=1)[without_mt], branches),
            **{f"{jet}_{k}" if k in ak.fields(pair) else k: n for k, n in lost.items()},
        }
        out["undefined_in"] = {branch: n for branch, n in named.items() if n}

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do; normalisation happens when the results are written."""
        return accumulator
