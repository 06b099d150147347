"""The command line: `coffea-ad VERB …`. One verb's code stands where its words are."""

from __future__ import annotations

from coffea_ad.cli.main import main

__all__ = ["main"]
