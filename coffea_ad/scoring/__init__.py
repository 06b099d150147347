"""Models in processors: the card, verified bytes, scores, calibrated regions, and the tagger that puts them on objects."""

from __future__ import annotations

from coffea_ad.scoring.card import ModelCard, read_card, write_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.tagger import Tagger, tag

__all__ = ["ModelCard", "OnnxScorer", "Tagger", "read_card", "tag", "write_card"]
