"""Displays of single events: η and φ, across the beams, leading jets with subjets, Lund planes, the rapidity-mass matrix."""

from __future__ import annotations

from coffea_ad.plotting.displays.contents import Content, content_of
from coffea_ad.plotting.displays.jets import JetContent, jets_of
from coffea_ad.plotting.displays.rmm_map import RMMContent, rmm_of
from coffea_ad.plotting.displays.views import VIEWS, draw_event

__all__ = ["VIEWS", "Content", "JetContent", "RMMContent", "content_of", "draw_event", "jets_of", "rmm_of"]
