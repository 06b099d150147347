"""Files by path or fsspec URL: read, written so that a half of one is never seen, and errors that name them."""

from __future__ import annotations

from coffea_ad.files.content import alone, exists, probe, read, remove, replacing, require_writable, sees, write
from coffea_ad.files.copies import local_copy
from coffea_ad.files.names import absolute, as_name, is_name, is_url, join, parted
from coffea_ad.files.systems import PATIENCE, limit_waiting, located, patience, prepare, require_filesystem, why

__all__ = [
    "PATIENCE",
    "absolute",
    "alone",
    "as_name",
    "exists",
    "is_name",
    "is_url",
    "join",
    "limit_waiting",
    "local_copy",
    "located",
    "parted",
    "patience",
    "prepare",
    "probe",
    "read",
    "remove",
    "replacing",
    "require_filesystem",
    "require_writable",
    "sees",
    "why",
    "write",
]
