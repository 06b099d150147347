"""NanoAOD of every flavour: schema, columns, objects with the way back to their file, constituents, files on workers."""

from __future__ import annotations

from coffea_ad.nanoaod.columns import EVENT_ID, as_mask, event_columns, flat_columns, missing_branches, require, where
from coffea_ad.nanoaod.constituents import CONSTITUENT_TABLES, Constituents, ConstituentTables, constituent_branches
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.nanoaod.schema import NanoAODSchema

__all__ = [
    "CONSTITUENT_TABLES",
    "EVENT_ID",
    "ConstituentTables",
    "Constituents",
    "NanoAODSchema",
    "Objects",
    "as_mask",
    "constituent_branches",
    "event_columns",
    "flat_columns",
    "missing_branches",
    "require",
    "where",
]
