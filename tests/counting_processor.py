"""A processor for tests: one histogram, and a line in a log for every chunk that it starts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import hist
from coffea import processor
from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    folder: str  # of the log; a file that a configuration names would count as input
    met_min: float = 0.0
    pause: float = 0.0
    deadly: int = -1  # the chunk that begins there kills its process
    once: bool = True
    table: str = ""


class Processor(processor.ProcessorABC):
    def __init__(self, config, taggers=(), output=None):
        self.config = config

    def reads(self):
        return {"MET": (("PuppiMET_pt",),)}

    def process(self, events):
        c, m = self.config, events.metadata
        with (Path(c.folder) / "log").open("a") as log:
            log.write(f"{Path(m['filename']).stem}:{m['entrystart']}\n")
        if c.deadly == m["entrystart"]:
            mark = Path(c.folder) / "dead"
            if not (c.once and mark.exists()):
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(c.pause)
        met = events.PuppiMET["pt"]
        weight = events["genWeight"] if len(events) else []
        h = hist.Hist(
            hist.axis.StrCategory(["inclusive"], name="region"),
            hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Regular(20, 0, 500, name="met"),
            storage=hist.storage.Weight(),
        )
        cut = met > c.met_min
        h.fill(region="inclusive", variation="nominal", met=met[cut], weight=weight[cut])
        return {m["dataset"]: {"events": len(events), "sumw": float(sum(weight)), "histograms": {"met": h}}}

    def postprocess(self, accumulator):
        return accumulator
