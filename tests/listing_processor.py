"""A processor for tests: lists of events by rounded missing momentum, so that many are equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from coffea import processor
from pydantic import BaseModel, ConfigDict

from coffea_ad.event_lists import TopEvents


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    top_events: int = 7
    by: str = "met"
    deep: bool = False
    flat: bool = False
    blinded: bool = False
    differ: bool = False
    only: str = ""


class Processor(processor.ProcessorABC):
    def __init__(self, config, taggers=(), output=None):
        self.config = config

    def process(self, events):
        c, dataset = self.config, events.metadata["dataset"]
        events = events[events.event % 3 > 0] if len(events) else events
        met = np.asarray(events.PuppiMET["pt"] // 20) if len(events) else np.zeros(0)
        shown = {"phi": events.PuppiMET["phi"]} if len(events) else {}
        if c.differ and events.metadata["entrystart"]:
            shown = {}
        top = TopEvents.of(events, c.top_events, {c.by: met}, observables=shown)
        out = {"events": len(events), "blinded": {c.blinded}}
        if not Path(events.metadata["filename"]).name.startswith(c.only):
            return {dataset: out}
        if c.flat:
            return {dataset: out, "best": top}
        return {dataset: out | ({"of": {"mine": {"met": top}}} if c.deep else {"event_lists": {"met": top}})}

    def postprocess(self, accumulator):
        return accumulator
