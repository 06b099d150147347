"""Versions of packages, as cards, reports and evaluations keep them."""

from __future__ import annotations

import contextlib
import importlib.metadata

from coffea_ad._version import __version__

__all__ = ["versions"]


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed; its own is that of the sources.

    >>> sorted(versions("numpy", "no such package"))
    ['numpy']
    """
    out = {}
    for name in packages:
        # workers that were sent the sources have no installed package
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            out[name] = __version__ if name == "coffea-ad" else importlib.metadata.version(name)
    return out
