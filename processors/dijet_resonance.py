"""Dijet resonances: m_JJ of the two leading AK8 jets in anomaly regions of a window, with what the template leads to expect.

    coffea-ad run dijet_resonance --fileset data.json --model search_*.onnx --executor dask --lumi 138 -o results/

The models are those of `coffea-ad run resonant`, one for each window, each event scored by the member that was trained without
its fold. Regions are nested, at efficiencies of the template; `mjj_expected` has, in the same cells, every scored event with
the part of the template that lies in that cell at its mass. Copy the file with `coffea-ad cp dijet_resonance mine.py`, edit
it, and run it by its path.
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
from coffea_ad.corrections import Corrections, Corrector
from coffea_ad.errors import ConfigError
from coffea_ad.kinematics import pair_mass
from coffea_ad.weights import generator_weight, is_mc, weight_sums


class Config(Frozen):
    """Selection, variations, axes; a cut that is null is none, and needs no branch."""

    jet_pt_min: cuts.Cut = Field(200.0, description="GeV, both leading jets")
    jet_eta_max: cuts.Cut = 2.5
    delta_eta_max: cuts.Cut = Field(1.3, description="between the leading jets; as in the skim that trained the models")
    triggers: cuts.Triggers = Field(
        (), description="any of them, or those of every primary dataset; none: not asked for"
    )
    met_filters: cuts.Names = Field((), description="all of them; campaign: those of the dataset's")
    corrections: Corrections = Corrections()
    jet_scale: float = Field(
        0.02, ge=0, lt=1, description="placeholder, where there is no jec: relative shift of jet pT and masses"
    )
    mass_min: float = Field(1500.0, gt=0, description="GeV, begin of the m_JJ axis")
    mass_max: float = Field(7000.0, gt=0, description="GeV, end of the m_JJ axis")
    mass_bins: int = Field(110, ge=1, description="of equal width")
    mass_resolution: float | None = Field(None, gt=0, lt=1, description="relative; bins as wide as it from mass_min on")
    mass_edges: tuple[float, ...] = Field((), description="GeV, in the place of all of these")
    unblind: bool = Field(False, description="show data in the tightest region")
    top_events: int = Field(
        100, ge=0, description="so many of the most anomalous events are listed, by each model; none of blinded data"
    )


class Processor(processor.ProcessorABC):
    """Fills m_JJ in anomaly regions, and the expectation beside it."""

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:  # noqa: ARG002
        self.config = config
        for tagger in taggers:
            if tagger.card.level != "event":
                raise ConfigError(
                    f"dijet_resonance: {tagger.card.name} is a model of jets, and whole events are scored"
                )
            _refuse_other_dijets(tagger.card, config)
        c = config
        self.edges = histograms.mass_edges(
            c.mass_min, c.mass_max, c.mass_bins, resolution=c.mass_resolution, edges=c.mass_edges
        )
        # regions of the first model have plain names, those of others begin with their tagger's
        self.taggers = {"" if i == 0 else f"{t.name}_": t for i, t in enumerate(taggers)}
        self.corrector = Corrector(config.corrections, "FatJet", jet_scale=config.jet_scale)
        certified = ["certified"] if config.corrections.lumi_mask else []
        veto = ["jet veto"] if config.corrections.jet_veto_map else []
        eta = ["delta eta"] if config.delta_eta_max is not None else []
        self.steps = (*certified, "filters", "trigger", *veto, "two jets", *eta)
        self.filler = histograms.RegionFiller(self.taggers, self.steps, unblind=config.unblind)

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that are read, for the check before the run; with an empty alternative they may be absent."""
        models = {what: ways for tagger in self.taggers.values() for what, ways in tagger.card.reads.items()}
        return {
            **models,
            "the selection": (tuple(f"FatJet_{k}" for k in ("pt", "eta", "phi", "mass", "msoftdrop")),),
            **cuts.trigger_reads(self.config.triggers),
            **cuts.filter_reads(self.config.met_filters),
            **self.corrector.reads(),
        }

    def process(self, events: Any) -> dict[str, Any]:
        """Analyse one chunk."""
        mc = is_mc(events)
        weights = self.corrector.weights(events)
        by_weight = self.corrector.weight_variations if mc else ()
        by_jets = self.corrector.jet_variations if mc else ()
        out: dict[str, Any] = {
            **weight_sums(generator_weight(events)),  # before any cut and correction: what normalises
            "sumw_variations": self.corrector.sums(weights) if mc else {},
            "variations": self.corrector.variations if mc else {},
            "events": len(events),
            "kind": {"mc" if mc else "data"},
            "undefined": 0,
            "undefined_in": {},
            **self.filler.begin(self._axes(), ["nominal", *by_jets, *by_weight], mc=mc),
        }
        if len(events) > 0:
            common = {
                "certified": self.corrector.certified(events),
                "filters": cuts.met_filters(events, self.config.met_filters),
                "trigger": cuts.triggered(events, self.config.triggers),
                "jet veto": self.corrector.outside_veto(events),
            }
            for variation, jets in self.corrector.jets(events):
                weight = {variation: weights.weight()}
                if variation == "nominal":  # the same events with the same scores: only their weights differ
                    weight |= {name: weights.weight(name) for name in by_weight}
                self._analyse(events, jets, common, weight, out, mc=mc)
        return {events.metadata["dataset"]: out}

    def _axes(self) -> list[Any]:
        return [
            hist.axis.Variable(self.edges, name="mjj", label="$m_{JJ}$ [GeV]"),
            hist.axis.Variable(self.edges, name="mjj_expected", label="$m_{JJ}$ [GeV], expected"),
            hist.axis.Regular(50, 0, 500, name="mj1", label="$m_{J1}$ [GeV]"),
            hist.axis.Regular(50, 0, 500, name="delta_mj", label=r"$\Delta m_J$ [GeV]"),
        ]

    def _analyse(
        self, events: Any, jets: Any, common: dict[str, Any], weight: Mapping[str, Any], out: dict[str, Any], *, mc: bool
    ) -> None:  # fmt: skip
        """Select events with one set of jets, and fill the histograms with all weights that go with it."""
        c = self.config
        # as the feature has it: the two of highest pT of those within |η| and above a pT
        good = cuts.above(jets["pt"], c.jet_pt_min) & cuts.below(abs(jets["eta"]), c.jet_eta_max)
        if c.corrections.jet_id:
            good = good & jets["passes_id"]
        leading, undefined = cuts.leading_jets(jets[good])
        undefined |= ak.to_numpy(ak.any(~np.isfinite(jets["pt"] + jets["eta"]), axis=1))
        two = (ak.to_numpy(ak.num(leading, axis=1)) == 2) & ~undefined
        pair = leading[two]
        pt, eta, phi, mass = (
            ak.to_numpy(pair[k]).reshape(-1, 2).astype(np.float64) for k in ("pt", "eta", "phi", "mass")
        )
        mjj = pair_mass(pt, eta, phi, mass)
        delta_eta = abs(eta[:, 0] - eta[:, 1])

        packed = PackedSelection()
        for name, mask in {**common, "two jets": two}.items():
            packed.add(name, mask)
        near = np.zeros(len(events), bool)
        near[two] = cuts.below(delta_eta, c.delta_eta_max)
        packed.add("delta eta", near)
        mask = packed.all(*self.steps)
        mask[two] &= np.isfinite(mjj)
        inside = mask[two]
        masses = np.sort(np.maximum(mass[inside], 0), axis=1)
        values = {
            "mjj": mjj[inside], "mjj_expected": mjj[inside], "mj1": masses[:, 0], "delta_mj": masses[:, 1] - masses[:, 0],
        }  # fmt: skip
        selected = ak.with_field(events[mask], jets[mask], "FatJet")
        tagged = self.filler.tag(selected, mc=mc, spectators=values)
        self.filler.fill(out, tagged, values, weight, packed, mask, mc=mc, expected=("mjj_expected",))
        if "nominal" in weight:
            out["undefined"] += int(undefined.sum())
            out["undefined_in"] = cuts.undefined_in(events[undefined], ("FatJet_pt", "FatJet_eta"))
            if c.top_events:
                out["event_lists"] = self.filler.rank(
                    c.top_events, selected, tagged, values, weight["nominal"][mask], mc=mc
                )

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do; normalisation happens when the results are written."""
        return accumulator


def _refuse_other_dijets(card: ad.ModelCard, config: Config) -> None:
    """Refuse a model of other dijets: its template would not be of the events that are selected here."""
    for feature in (f for spec in card.inputs for f in spec.features if f.name == "dijet"):
        options = ad.features.get("dijet").resolve(feature.options).model_dump()
        ours = {name: getattr(config, name) for name in ("jet_pt_min", "jet_eta_max", "delta_eta_max")}
        for name, here in {"jets": "FatJet", **ours}.items():
            trained = options[name]
            if trained != here:
                hint = f"; say {name}={_word(trained)}" if name in ours else ""
                raise ConfigError(
                    f"dijet_resonance: {card.name} is of dijets with {name} {_word(trained)}, and {_word(here)} is cut on "
                    f"here{hint}"
                )


def _word(value: Any) -> str:
    return "null" if value is None else str(value)
