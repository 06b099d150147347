"""Lists of the most anomalous events of a run: which they are, and where they stand in their files."""

from __future__ import annotations

from coffea_ad.event_lists.top import TopEvents

__all__ = ["TopEvents"]
