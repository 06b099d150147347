"""Histograms of anomaly regions: booking, filling, blinding."""

from __future__ import annotations

from coffea_ad.histograms.booking import book, fill, hidden, logp_axis, mass_edges
from coffea_ad.histograms.filling import RegionFiller

__all__ = ["RegionFiller", "book", "fill", "hidden", "logp_axis", "mass_edges"]
