"""Why a model calls an event or jet anomalous: what each input adds to its score."""

from __future__ import annotations

from coffea_ad.explaining.explanations import Attribution, Explanation, Explanations, Part, Rows, explain
from coffea_ad.explaining.listed import explained, listed_rows
from coffea_ad.explaining.skimmed import skimmed_rows

__all__ = [
    "Attribution",
    "Explanation",
    "Explanations",
    "Part",
    "Rows",
    "explain",
    "explained",
    "listed_rows",
    "skimmed_rows",
]
