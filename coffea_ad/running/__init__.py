"""Fileset → coffea's Runner → RunReport: `run`, `resubmit` for what a run has not done, and `merge` for several runs."""

from __future__ import annotations

from coffea_ad.running.merging import merge
from coffea_ad.running.reports import RunReport
from coffea_ad.running.resubmission import resubmit
from coffea_ad.running.runs import run

__all__ = ["RunReport", "merge", "resubmit", "run"]
