"""A results folder: raw histograms over cells, regions as sums of them, and the report of the run."""

from __future__ import annotations

from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.results import Results

__all__ = ["Results", "load_results", "save_results"]
