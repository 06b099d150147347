"""coffea-ad: anomaly detection for coffea.

A model knows its own inputs: `Tagger("model.onnx")(events)` computes the features named in the file's card, scores them
with onnxruntime, and adds `ad_score`, `ad_logp` and `ad_region` to the objects.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coffea_ad._version import __version__

if TYPE_CHECKING:
    from coffea_ad import errors, features, histograms, recipes, selection, weights
    from coffea_ad.nanoaod import NanoAODSchema
    from coffea_ad.results import load_results
    from coffea_ad.running import RunReport, merge, resubmit, run
    from coffea_ad.scoring import ModelCard, OnnxScorer, Tagger, regions, tag

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

# Where a name comes from. It is imported when it is asked for: `coffea-ad ls` needs neither awkward nor onnxruntime.
_HOME = {
    "ModelCard": "coffea_ad.scoring",
    "NanoAODSchema": "coffea_ad.nanoaod",
    "OnnxScorer": "coffea_ad.scoring",
    "RunReport": "coffea_ad.running",
    "Tagger": "coffea_ad.scoring",
    "load_results": "coffea_ad.results",
    "merge": "coffea_ad.running",
    "regions": "coffea_ad.scoring.regions",
    "resubmit": "coffea_ad.running",
    "run": "coffea_ad.running",
    "tag": "coffea_ad.scoring",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'coffea_ad' has no attribute {name!r}")
    module = importlib.import_module(_HOME.get(name, f"coffea_ad.{name}"))
    return module if module.__name__.endswith(f".{name}") else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
