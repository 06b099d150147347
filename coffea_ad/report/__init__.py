"""Results, searches, evaluations and trainings as one HTML page that needs nothing else (extra `report`)."""

from __future__ import annotations

from coffea_ad.report.events import Contributions, Display
from coffea_ad.report.page import write_report

__all__ = ["Contributions", "Display", "write_report"]
