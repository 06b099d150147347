"""Figures, by mplhep and matplotlib (extra `plot`)."""

from __future__ import annotations

from coffea_ad.plotting.canvas import canvas
from coffea_ad.plotting.drawing import draw_results
from coffea_ad.plotting.overviews import cutflow, efficiencies, efficiency_against, inputs, planes, score_against
from coffea_ad.plotting.scores import (
    auc_summary,
    roc,
    score_distribution,
    sculpted_spectra,
    significance_improvement,
)
from coffea_ad.plotting.stacks import drawable, stack
from coffea_ad.plotting.styles import Style
from coffea_ad.plotting.thresholds import thresholds_of

__all__ = [
    "Style",
    "auc_summary",
    "canvas",
    "cutflow",
    "draw_results",
    "drawable",
    "efficiencies",
    "efficiency_against",
    "inputs",
    "planes",
    "roc",
    "score_against",
    "score_distribution",
    "sculpted_spectra",
    "significance_improvement",
    "stack",
    "thresholds_of",
]
