"""From histograms of regions to statements: background fits, bump hunt, limits."""

from __future__ import annotations
