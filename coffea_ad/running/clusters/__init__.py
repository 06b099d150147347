"""Dask clusters by one word: this machine, an existing scheduler, or jobs of a batch system."""

from __future__ import annotations

from coffea_ad.running.clusters.config import ClusterConfig, TLSFiles, load_cluster
from coffea_ad.running.clusters.connect import connect, describe
from coffea_ad.running.clusters.jobs import job_script

__all__ = ["ClusterConfig", "TLSFiles", "connect", "describe", "job_script", "load_cluster"]
