"""Corrections and their uncertainties: certified data, event weights, jet veto maps, jet energies.

`Corrections` is the configuration, `Corrector` what a processor holds: it reads all files when it is made, on the
client, and pickles with what is needed of them. Only simulated events get weights and variations. coffea's `Weights`
multiplies, correctionlib evaluates, and coffea's `LumiMask` looks luminosity sections up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import awkward as ak
import numpy as np
from coffea.analysis_tools import Weights
from pydantic import BaseModel, Field, model_validator

from coffea_ad.config import Frozen
from coffea_ad.corrections.files import CorrectionFiles, LumiMask, Reads
from coffea_ad.corrections.jet_veto import JetIdConfig, JetIdentification, JetVetoMap, JetVetoMapConfig
from coffea_ad.corrections.jets import JetEnergy, JetEnergyConfig, scale_jets
from coffea_ad.corrections.met import propagation_reads, with_jets, with_shifted_jets
from coffea_ad.corrections.weights import (
    SCALES,
    Columns,
    CorrectionWeight,
    EventWeight,
    PdfWeights,
    Pileup,
    ScaleWeights,
    column_weight,
    correctionlib_weight,
    pdf_weights,
    pileup_weight,
    scale_weights,
)
from coffea_ad.errors import BadFile, MissingBranch, UnknownName
from coffea_ad.nanoaod.columns import flat_columns, where
from coffea_ad.scoring.card import ModelCard
from coffea_ad.typing import Bools
from coffea_ad.weights import generator_weight, is_mc

__all__ = [
    "Corrections",
    "Corrector",
    "EventWeight",
    "differing_jets",
    "nominal_jets",
    "placeholders",
    "scale_jets",
    "with_jets",
    "with_shifted_jets",
]

_DIRECTIONS = ("Up", "Down")


class Corrections(Frozen):
    """What is corrected; everything is off by default."""

    lumi_mask: str = Field("", description="golden JSON; data only")
    jet_veto_map: JetVetoMapConfig | None = Field(None, description="data and simulation")
    jet_id: JetIdConfig | None = Field(None, description="jets that fail are none; data and simulation")
    pileup: Pileup | None = None
    columns: dict[str, Columns] = Field({}, description="weights by the name of their variation")
    scale: ScaleWeights | None = None
    pdf: PdfWeights | None = None
    correctionlib: dict[str, CorrectionWeight] = Field({}, description="weights by the name of their variation")
    jec: JetEnergyConfig | None = None
    shape_only: tuple[str, ...] = Field(
        (), description="weight variations, without Up and Down, that keep the cross-section of the nominal"
    )
    uncorrelated: tuple[str, ...] = Field(
        (), description="variations, without Up and Down, that are independent of each other in different eras"
    )

    @model_validator(mode="after")
    def _names(self) -> Corrections:
        taken = ["generator", "nominal", "pileup", "pdf", "alphaS", "jer", "jet_scale", *SCALES]
        for name in (*self.columns, *self.correctionlib, *(self.jec.uncertainties if self.jec else ())):
            if name in taken:
                raise ValueError(f"{name!r} is the name of another variation")
            if not re.fullmatch(r"\w+", name) or name.endswith(_DIRECTIONS):
                raise ValueError(
                    f"{name!r} cannot name a variation: letters, digits and _ only, and no Up or Down at its end"
                )
            taken.append(name)
        return self


class Corrector:
    """Corrections with what they need of their files: made on the client, applied on workers.

    Parameters
    ----------
    config : Corrections
    collection : str
        The jets whose energies are corrected.
    jet_scale : float
        Without `jec`: the relative shift of jet pT and masses in the variations `jet_scaleUp` and `jet_scaleDown`.
    more : sequence of EventWeight
        Weights of a processor's own.

    Attributes
    ----------
    weight_variations, jet_variations : tuple of str
        Names of the variations of simulated events: by weights, and by other jets.
    variations : {variation: set of str}
        What is to be known of each: of "weights" or "jets", "shape_only", "uncorrelated".

    Raises
    ------
    BadFile
        A file is missing or not what it should be.
    ConfigError
        A file lacks a correction, or the correction an input.
    UnknownName
        There is no variation that `shape_only` or `uncorrelated` names.
    """

    def __init__(
        self,
        config: Corrections,
        collection: str = "FatJet",
        jet_scale: float = 0.0,
        more: Sequence[EventWeight] = (),
    ) -> None:
        files = CorrectionFiles()
        self.collection, self.jet_scale = collection, jet_scale
        self.lumi_mask = LumiMask(config.lumi_mask) if config.lumi_mask else None
        self.veto_map = JetVetoMap(config.jet_veto_map, files) if config.jet_veto_map else None
        asked = config.jet_id
        self.identity = JetIdentification(asked.file, asked.name, files, asked.outside) if asked else None
        self.energy = JetEnergy(config.jec, collection, files) if config.jec else None
        self.event_weights = (
            *([pileup_weight(config.pileup, files)] if config.pileup else []),
            *(column_weight(name, columns) for name, columns in config.columns.items()),
            *(correctionlib_weight(name, weight, files) for name, weight in config.correctionlib.items()),
            *([scale_weights(config.scale)] if config.scale else []),
            *([pdf_weights(config.pdf)] if config.pdf else []),
            *more,
        )
        self.weight_variations = tuple(
            f"{n}{d}" for weight in self.event_weights for n in weight.varied for d in _DIRECTIONS
        )
        scaled = tuple(f"jet_scale{d}" for d in _DIRECTIONS) if jet_scale else ()
        self.jet_variations = self.energy.variations if self.energy else scaled
        self.variations = self._described(config)

    def _described(self, config: Corrections) -> dict[str, set[str]]:
        """Return what is to be known of each variation: of "weights" or "jets", "shape_only", "uncorrelated"."""
        out = {name: {"weights"} for name in self.weight_variations} | {name: {"jets"} for name in self.jet_variations}
        sources = {name.removesuffix("Up").removesuffix("Down") for name in out}
        by_weight = {name.removesuffix("Up").removesuffix("Down") for name in self.weight_variations}
        for mark, named, known in (
            ("shape_only", config.shape_only, by_weight), ("uncorrelated", config.uncorrelated, sources)
        ):  # fmt: skip
            for source in named:
                if source not in known:
                    raise UnknownName.of(f"variation in corrections.{mark}", source, sorted(known))
                for direction in _DIRECTIONS:
                    out[source + direction].add(mark)
        return out

    def reads(self) -> Reads:
        """Branches, for the check before a run; those of simulation are optional, and missed only where they are read."""
        out: Reads = {f"weight {weight.label}": (weight.branches, ()) for weight in self.event_weights}
        for part in (self.veto_map, self.energy):
            out |= part.reads() if part else {}
        if self.identity is not None:
            out["the jet identification"] = (tuple(f"{self.collection}_{f}" for f in self.identity.fields),)
        if self.energy is not None or self.jet_scale:
            out |= propagation_reads(self.collection)
        return out

    def certified(self, events: Any) -> Bools:
        """Return which events are of certified luminosity sections, (n_events,) bool; all of simulation."""
        if self.lumi_mask is None or is_mc(events):
            return np.ones(len(events), bool)
        return self.lumi_mask(ak.to_numpy(events["run"]), ak.to_numpy(events["luminosityBlock"]))

    def outside_veto(self, events: Any) -> Bools:
        """Return which events have no jet in a vetoed region, (n_events,) bool."""
        return np.ones(len(events), bool) if self.veto_map is None else self.veto_map(events)

    def weights(self, events: Any) -> Weights:
        """Return coffea's Weights: genWeight, and of simulated events all corrections with their variations.

        `weight()` is the product of all, `weight("pileupUp")` the same with one of them varied. Where a nominal weight
        is 0, its variations are 0 too.

        Raises
        ------
        MissingBranch
            A file lacks what a weight is made of; the message names both.
        BadFile
            A weight is not finite.
        """
        weights = Weights(len(events))
        weights.add("generator", generator_weight(events))
        if len(events) == 0 or not is_mc(events):  # a file without events may lack every branch
            return weights
        for weight in self.event_weights:
            try:
                variations = weight.make(events)
            except MissingBranch as error:
                raise MissingBranch(f"{error} (asked for by the weight {weight.label})") from None
            for name, varied_weights in variations.items():
                # copies, since coffea divides the variations in place
                triple = [np.array(ak.to_numpy(values), np.float64) for values in varied_weights]
                if not np.isfinite(triple).all():
                    raise BadFile(f"{where(events)}the weight {name} is not finite in all events")
                weights.add(name, *(triple if name in weight.varied else triple[:1]))
        return weights

    def sums(self, weights: Weights) -> dict[str, float]:
        """Return the sum of weights, before any cut, of the nominal and of every weight variation.

        A histogram of a variation, times sums["nominal"] / sums[variation], has the cross-section of the nominal: what
        is left is the change of acceptance and shape.
        """
        varied = weights.variations  # none in data, and without events
        out = {"nominal": float(weights.weight().sum())}
        return out | {v: float(weights.weight(v).sum()) if v in varied else 0.0 for v in self.weight_variations}

    def jets(self, events: Any) -> Iterator[tuple[str, Any]]:
        """Yield what `varied` does, with more fields of the jets.

        `pt_shift` is how far their pT is from the stored one, GeV, to be taken out of MET by `with_shifted_jets`;
        `passes_id` says whether they pass `jet_id`, where it is asked for.
        """
        stored = events[self.collection]
        passes = None if self.identity is None else self._identified(events)
        for variation, jets in self.varied(events):
            with np.errstate(invalid="ignore"):  # an infinite pT, which processors count as undefined
                shift = jets["pt"] - stored["pt"]
            shifted = ak.with_field(jets, shift, "pt_shift")
            yield variation, shifted if passes is None else ak.with_field(shifted, passes, "passes_id")

    def _identified(self, events: Any) -> Any:
        assert self.identity is not None
        try:
            offsets, jet = flat_columns(events, self.collection, ["eta", *self.identity.fields])
        except MissingBranch as error:
            raise MissingBranch(f"{error} (asked for by jet_id)") from None
        return ak.unflatten(self.identity(jet, where(events)), np.diff(offsets))

    def varied(self, events: Any) -> Iterator[tuple[str, Any]]:
        """Yield ("nominal", jets), and of simulated events every variation with its jets."""
        if self.energy is not None:
            yield from self.energy(events)
            return
        jets = events[self.collection]
        yield "nominal", jets
        if is_mc(events) and self.jet_scale:
            for direction, sign in zip(_DIRECTIONS, (1, -1), strict=True):
                yield f"jet_scale{direction}", scale_jets(jets, np.float32(1 + sign * self.jet_scale))


def nominal_jets(jec: Any) -> dict[str, str]:
    """Return what of a jec decides on the energies of nominal jets, without the folders of its files; nothing without one.

    Parameters
    ----------
    jec : JetEnergyConfig, mapping or None

    Examples
    --------
    >>> nominal_jets({"file": "a/jerc.json.gz", "level": "MC_L1L2L3Res", "uncertainties": {"jes": "Total"}})
    {'file': 'jerc.json.gz', 'level': 'MC_L1L2L3Res'}
    """
    keys = ("file", "level", "level_data", "resolution", "resolution_scale", "resolution_file")
    content = jec.model_dump() if isinstance(jec, BaseModel) else dict(jec or {})
    files = {k: str(content[k]).rpartition("/")[2] for k in keys if content.get(k)}
    return files if {"level", "level_data", "resolution"} & set(files) else {}


def differing_jets(config: Any, cards: Mapping[str, ModelCard]) -> list[str]:
    """Say which models were trained on jets with other energies than those of a configuration.

    Parameters
    ----------
    config : pydantic model or None
        Of a processor, with `corrections`, or without.
    cards : {name: ModelCard}
        What a card does not tell, since its model was trained elsewhere, is not compared.
    """
    corrections = getattr(config, "corrections", None)
    if not isinstance(corrections, Corrections):
        return []
    now, out = nominal_jets(corrections.jec), []
    for name, card in cards.items():
        then = nominal_jets(card.selection.get("jec")) if card.selection else now
        if then != now:
            one, two = (", ".join(f"{k}: {v}" for k, v in jec.items()) or "stored energies" for jec in (then, now))
            out.append(
                f"{name} was trained on jets with other energies ({one}) than those of this run ({two}); skim with its jec"
            )
    return out


def placeholders(config: Any) -> list[str]:
    """Return the variations of a configuration that stand for an uncertainty which nobody has measured."""
    corrections = getattr(config, "corrections", None)
    scale = getattr(config, "jet_scale", 0)
    if not scale or not isinstance(corrections, Corrections) or corrections.jec is not None:
        return []
    return [f"jet_scale{d}" for d in _DIRECTIONS]
