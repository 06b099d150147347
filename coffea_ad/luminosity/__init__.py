"""Luminosity sections of data: which a file holds, which were processed, and the luminosity of those."""

from __future__ import annotations

from coffea_ad.luminosity.account import account, certify
from coffea_ad.luminosity.recorded import Luminosities, as_given
from coffea_ad.luminosity.sections import golden, golden_files, listed, number_of_sections, sections_in, union
from coffea_ad.luminosity.tables import SectionTable

__all__ = [
    "Luminosities",
    "SectionTable",
    "account",
    "as_given",
    "certify",
    "golden",
    "golden_files",
    "listed",
    "number_of_sections",
    "sections_in",
    "union",
]
