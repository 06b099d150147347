"""A processor of one's own with a tagger in it: nothing of coffea-ad but `Tagger` and the schema.

python examples/own_processor.py wnae.onnx file.root …
"""

from __future__ import annotations

import sys
from typing import Any

import awkward as ak
import hist
from coffea import processor

import coffea_ad as ad


class Anomalous(processor.ProcessorABC):
    def __init__(self, model: str) -> None:
        self.tagger = ad.Tagger(model)

    def process(self, events: Any) -> dict[str, Any]:
        jets = events.FatJet[events.FatJet["pt"] > 300]
        jets = self.tagger(jets[ak.argsort(jets["mass"], axis=1, ascending=False)])
        anomalous = jets[jets["ad_region"] >= 1]
        h = hist.Hist.new.Reg(30, 0, 300, name="mass").Double().fill(ak.flatten(anomalous["mass"]))
        return {events.metadata["dataset"]: {"mass": h, "events": len(events)}}

    def postprocess(self, accumulator: Any) -> Any:
        return accumulator


if __name__ == "__main__":
    runner = processor.Runner(processor.IterativeExecutor(), schema=ad.NanoAODSchema)
    print(runner({"mine": sys.argv[2:]}, Anomalous(sys.argv[1]), treename="Events"))
