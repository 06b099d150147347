"""How good is a score: AUC, efficiencies and significance with errors, sculpting, and what it has to beat."""

from __future__ import annotations

from coffea_ad.evaluation.argos import Argos, Choice, argos, best_by_argos
from coffea_ad.evaluation.baselines import baselines, ceiling, column_baselines
from coffea_ad.evaluation.comparison import EFFICIENCIES, evaluate
from coffea_ad.evaluation.differences import Difference, difference, difference_of_means
from coffea_ad.evaluation.matching import Matching, match_spectrum
from coffea_ad.evaluation.metrics import AUC, auc, roc_curve, signal_efficiency, significance_improvement
from coffea_ad.evaluation.models import evaluate_models, parse_models
from coffea_ad.evaluation.record import MIN_SEEDS, Estimate, Evaluation, Metrics, Row, Sample, both_directions
from coffea_ad.evaluation.report import listings, write
from coffea_ad.evaluation.sculpting import (
    Sculpting,
    distance_correlation,
    jensen_shannon,
    rank_correlation,
    sculpting,
)
from coffea_ad.evaluation.simple_anomalies import core_and_narrow

__all__ = [
    "AUC",
    "EFFICIENCIES",
    "MIN_SEEDS",
    "Argos",
    "Choice",
    "Difference",
    "Estimate",
    "Evaluation",
    "Matching",
    "Metrics",
    "Row",
    "Sample",
    "Sculpting",
    "argos",
    "auc",
    "baselines",
    "best_by_argos",
    "both_directions",
    "ceiling",
    "column_baselines",
    "core_and_narrow",
    "difference",
    "difference_of_means",
    "distance_correlation",
    "evaluate",
    "evaluate_models",
    "jensen_shannon",
    "listings",
    "match_spectrum",
    "parse_models",
    "rank_correlation",
    "roc_curve",
    "sculpting",
    "signal_efficiency",
    "significance_improvement",
    "write",
]
