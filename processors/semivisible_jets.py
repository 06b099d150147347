"""Semivisible jets: two AK8 jets and aligned missing momentum, sorted into anomaly regions by tagged jets.

    coffea-ad run semivisible_jets --fileset all.json --model wnae.onnx --executor dask -o results/

The selection follows the shape of the CMS search for resonant semivisible jets (arXiv:2112.11125). Copy the file with
`coffea-ad cp semivisible_jets mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import awkward as ak
import hist
import numpy as np
from coffea import processor
from coffea.analysis_tools import PackedSelection, Weights
from pydantic import BaseModel, ConfigDict, Field

import coffea_ad as ad
from coffea_ad import histograms, regions
from coffea_ad import selection as cuts
from coffea_ad.errors import ConfigError, NoModel
from coffea_ad.weights import SPLIT, generator_weight, is_mc, split_of

Split = Literal["train", "validation", "test"]


class Config(BaseModel):
    """Selection, names of branches, variations."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    met: str = "PuppiMET"
    jet_pt_min: float = Field(200.0, description="GeV, both leading jets")
    jet_eta_max: float = 2.4
    delta_eta_max: float = 1.5
    rt_min: float = Field(0.15, description="MET / m_T")
    met_min: float = Field(100.0, description="GeV")
    dphi_max: float = Field(0.8, description="smallest angle between a leading jet and MET")
    lepton_pt_min: float = Field(10.0, description="GeV; events with an isolated lepton above are vetoed")
    lepton_isolation_max: float = 0.2
    triggers: tuple[str, ...] = Field((), description="any of them; none: no trigger is asked for")
    met_filters: tuple[str, ...] = Field((), description="all of them")
    jet_scale: float = Field(0.02, ge=0, lt=1, description="relative shift of jet pT and masses, propagated to MET")
    mass_max: float = Field(5000.0, gt=0, description="GeV, end of the m_T and m_JJ axes")
    splits: tuple[Split, ...] = Field((), description="simulated events of these parts of a training only; none: all")
    unblind: bool = Field(False, description="show data with a jet in the tightest region")


class Processor(processor.ProcessorABC):
    """Fills histograms of anomaly regions."""

    steps = ("filters", "trigger", "lepton veto", "two jets", "delta eta", "MET", "RT", "dphi")

    def __init__(self, config: Config, taggers: Sequence[ad.Tagger] = (), output: str | Path | None = None) -> None:  # noqa: ARG002
        if len(taggers) != 1:
            raise NoModel(f"semivisible_jets needs exactly one --model, not {len(taggers)}")
        self.config = config
        self.tagger = taggers[0]
        if self.tagger.card.level != "jet":
            raise ConfigError(
                f"semivisible_jets: {self.tagger.card.name} is a model of whole events, and jets are tagged here"
            )
        self.fraction = sum(SPLIT[s] for s in set(config.splits)) or 1.0  # of simulated events, expected

    def reads(self) -> dict[str, tuple[tuple[str, ...], ...]]:
        """Branches that a file must have, for the check before the run."""
        c, collection = self.config, self.tagger.collection
        own = (
            *(f"{collection}_{k}" for k in ("pt", "eta", "phi", "mass", "msoftdrop")),
            *(f"{c.met}_{k}" for k in ("pt", "phi")),
            *(f"Electron_{k}" for k in ("pt", "eta", "cutBased", "miniPFRelIso_all")),
            *(f"Muon_{k}" for k in ("pt", "eta", "looseId", "miniPFRelIso_all")),
            *c.met_filters,
        )
        triggers = {"the trigger": tuple((name,) for name in c.triggers)} if c.triggers else {}
        return {**self.tagger.card.reads, "the selection": (own,), **triggers}

    def process(self, events: Any) -> dict[str, Any]:
        """Analyse one chunk."""
        mc, n_events = is_mc(events), len(events)
        if mc and self.config.splits and len(events) > 0:
            events = events[np.isin(split_of(events.run, events.luminosityBlock, events.event), self.config.splits)]
        weights = Weights(len(events))
        weights.add("generator", generator_weight(events))
        weight = weights.weight()
        variations = ["nominal", *(("jet_scaleUp", "jet_scaleDown") if mc and self.config.jet_scale else ())]
        out: dict[str, Any] = {
            "sumw": float(weight.sum()),
            "events": n_events,
            "kind": {"mc" if mc else "data"},
            "unscored": 0,
            "undefined": 0,
            "cutflow": {},
            "histograms": self._book(variations),
        }
        if len(events) > 0:
            kept = self._select_events(events)
            for variation, jets in self._variations(events, variations):
                self._analyse(events, jets, kept, weight, variation, out, mc=mc)
        return {events.metadata["dataset"]: out}

    def _book(self, variations: Sequence[str]) -> dict[str, hist.Hist]:
        names = regions.region_names(self.tagger.card.regions)
        mass = (50, 0, self.config.mass_max)
        axes = [
            hist.axis.Regular(*mass, name="mt", label="$m_T$ [GeV]"),
            hist.axis.Regular(*mass, name="mjj", label="$m_{JJ}$ [GeV]"),
            hist.axis.Regular(50, 0, 1500, name="met", label="missing momentum [GeV]"),
            hist.axis.Regular(50, 0, 4000, name="ht", label="$H_T$ [GeV]"),
            hist.axis.Regular(50, 0, 400, name="msoftdrop", label="$m_{SD}$ [GeV]"),
            histograms.logp_axis(self.tagger.card, f"{self.tagger.name}_logp"),
            *(hist.axis.Integer(0, 3, name=f"n_{r.name}", label=f"{r.name} jets") for r in self.tagger.card.regions),
        ]
        return {axis.name: histograms.book(axis, names, variations) for axis in axes}

    def _variations(self, events: Any, variations: Sequence[str]) -> Iterator[tuple[str, Any]]:
        jets = events[self.tagger.collection]
        for variation in variations:
            factor = 1 + {"nominal": 0, "jet_scaleUp": 1, "jet_scaleDown": -1}[variation] * self.config.jet_scale
            varied = jets
            if variation != "nominal":
                for field in ("pt", "mass", "msoftdrop"):
                    varied = ak.with_field(varied, jets[field] * np.float32(factor), field)
            yield variation, ak.with_field(varied, varied["pt"] - jets["pt"], "pt_shift")

    @staticmethod
    def _missing_momentum(met: Any, pair: Any) -> tuple[Any, Any]:
        """Take the shift of the two leading jets out of MET again."""
        px, py = (np.asarray(ak.to_numpy(met["pt"]), np.float64) * f(ak.to_numpy(met["phi"])) for f in (np.cos, np.sin))
        shift, phi = (np.asarray(ak.to_numpy(pair[k]), np.float64).reshape(-1, 2) for k in ("pt_shift", "phi"))
        px, py = px - (shift * np.cos(phi)).sum(axis=1), py - (shift * np.sin(phi)).sum(axis=1)
        return np.hypot(px, py), np.arctan2(py, px)

    def _select_events(self, events: Any) -> dict[str, Any]:
        """Cuts that no variation of the jets touches."""
        c = self.config
        return {
            "filters": cuts.met_filters(events, c.met_filters),
            "trigger": cuts.any_trigger(events, c.triggers),
            "lepton veto": ~cuts.has_lepton(events, c.lepton_pt_min, c.lepton_isolation_max),
        }

    def _analyse(
        self,
        events: Any,
        jets: Any,
        kept: dict[str, Any],
        weight: Any,
        variation: str,
        out: dict[str, Any],
        *,
        mc: bool,
    ) -> None:
        c = self.config
        n = len(events)
        order = ak.argsort(jets["pt"], axis=1, ascending=False)
        leading = jets[order][:, :2]
        good = (leading["pt"] > c.jet_pt_min) & (abs(leading["eta"]) < c.jet_eta_max)
        two = ak.to_numpy(ak.sum(good, axis=1) == 2)
        pair = leading[two]
        met_pt, met_phi = self._missing_momentum(events[c.met][two], pair)
        dijet = pair[:, 0] + pair[:, 1]
        mt = cuts.transverse_mass(dijet, met_pt, met_phi)
        phi, eta = (ak.to_numpy(pair[k]).reshape(-1, 2) for k in ("phi", "eta"))
        dphi = np.abs(cuts.delta_phi(phi, met_phi[:, None])).min(axis=1, initial=np.pi)

        chosen = PackedSelection()
        for name, mask in {**kept, "two jets": two}.items():
            chosen.add(name, mask)
        for name, mask in {
            "delta eta": np.abs(eta[:, 0] - eta[:, 1]) < c.delta_eta_max,
            "MET": met_pt > c.met_min,
            "RT": met_pt > c.rt_min * mt,
            "dphi": dphi < c.dphi_max,
        }.items():
            whole = np.zeros(n, bool)
            whole[two] = mask
            chosen.add(name, whole)
        mask = chosen.all(*self.steps)

        tagged = self.tagger(leading[mask])
        masks, unscored = regions.event_regions(tagged[f"{self.tagger.name}_region"], self.tagger.card.regions)
        shown = np.ones(int(mask.sum()), bool)
        grades = ak.to_numpy(ak.fill_none(tagged[f"{self.tagger.name}_region"], -1)).reshape(-1, 2)
        if not mc and not c.unblind:
            shown &= ~histograms.blinded(grades, self.tagger.card.regions)
        if variation == "nominal":
            hidden = np.zeros(n, bool)
            hidden[mask] = ~shown  # they count as failing the first step: any later one would give their number away
            chosen.add("shown", ~hidden)
            out["cutflow"] = cuts.cutflow(chosen, self.steps, weight, and_="shown")
            out["unscored"] += int((unscored & shown).sum())

        inside = mask[two]
        logp = ak.to_numpy(ak.fill_none(tagged[f"{self.tagger.name}_logp"], np.nan)).reshape(-1, 2)
        values = {
            "mt": mt[inside],
            "mjj": ak.to_numpy(dijet.mass)[inside],
            "met": met_pt[inside],
            "ht": ak.to_numpy(ak.sum(pair["pt"], axis=1))[inside],
            "msoftdrop": ak.to_numpy(tagged["msoftdrop"]).reshape(-1, 2),
            f"{self.tagger.name}_logp": logp,
            **{f"n_{r.name}": (grades > i).sum(axis=1) for i, r in enumerate(self.tagger.card.regions)},
        }
        masks = {name: m & shown for name, m in masks.items()}
        for name, column in values.items():
            undefined = histograms.fill(out["histograms"][name], masks, variation, column, weight[mask])
            out["undefined"] += undefined if variation == "nominal" else 0

    def postprocess(self, accumulator: Any) -> Any:
        """Nothing is left to do; normalisation happens when the results are written."""
        return accumulator
