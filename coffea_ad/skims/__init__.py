"""Skims: features of many events as parquet, written by processors and read for training and calibration."""

from __future__ import annotations

from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim, WeightMode

__all__ = ["Skim", "WeightMode", "load_skim"]
