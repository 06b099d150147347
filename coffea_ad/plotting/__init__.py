"""Figures, by mplhep and matplotlib (extra `plot`)."""

from __future__ import annotations

from coffea_ad.plotting.canvas import canvas
from coffea_ad.plotting.scores import (
    auc_summary,
    roc,
    score_and_mass,
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
    "drawable",
    "roc",
    "score_and_mass",
    "score_distribution",
    "sculpted_spectra",
    "significance_improvement",
    "stack",
    "thresholds_of",
]
