"""coffea-ad: anomaly detection for coffea.

A model knows its own inputs: `Tagger("model.onnx")(events)` computes the features named in the file's card, scores them
with onnxruntime, and adds `ad_score`, `ad_logp` and `ad_region` to the objects.
"""

from __future__ import annotations

from coffea_ad import errors, features, histograms, recipes, selection, weights
from coffea_ad._version import __version__
from coffea_ad.nanoaod.schema import NanoAODSchema
from coffea_ad.results.folder import load_results
from coffea_ad.running import RunReport, resubmit, run
from coffea_ad.running.merging import merge
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.tagger import Tagger, tag

__all__ = [
    "ModelCard",
    "NanoAODSchema",
    "OnnxScorer",
    "RunReport",
    "Tagger",
    "__version__",
    "errors",
    "features",
    "histograms",
    "load_results",
    "merge",
    "recipes",
    "regions",
    "resubmit",
    "run",
    "selection",
    "tag",
    "weights",
]


def __dir__() -> list[str]:
    return __all__
