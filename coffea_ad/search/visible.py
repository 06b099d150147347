"""Limits on visible cross-sections in the regions of a search, and on the cross-section of a signal that has some acceptance there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coffea_ad import files
from coffea_ad.errors import BadFile, ConfigError

if TYPE_CHECKING:
    from coffea_ad.search.acceptance import RegionAcceptance

__all__ = ["LIMITS", "SignalLimit", "limit_of", "read_limits"]

LIMITS = "limits.json"
Visible = dict[str, dict[str, float | None]]
"""Of each region the visible cross-sections, pb, that are excluded: observed and expected."""


@dataclass(frozen=True)
class SignalLimit:
    """Excluded cross-section of a signal by one region, σ = σ_vis / (A × ε).

    Attributes
    ----------
    observed, expected : float, optional
        pb.
    relative_error : float
        Of A × ε, by the statistics of the signal.
    """

    observed: float | None
    expected: float | None
    relative_error: float


def read_limits(folder: str | Path) -> Visible:
    """Read the visible cross-sections that a search excludes, {region: {"observed": pb or null, "expected": pb or null}}.

    Raises
    ------
    BadFile
        There are none, or they are damaged.
    """
    path = files.join(folder, LIMITS)
    if not files.exists(path):
        raise BadFile(f"{folder}: there is no {LIMITS}; this is not the folder of a search with limits")
    try:
        content = json.loads(files.read(path))
    except ValueError:
        raise BadFile(f"{path}: this is not valid JSON") from None
    if not isinstance(content, dict) or not content:
        raise BadFile(f"{path}: this must map regions to their limits")
    return {str(region): _visible(entry, f"{path}: region {region}") for region, entry in content.items()}


def _visible(entry: Any, where: str) -> dict[str, float | None]:
    values = {key: entry.get(key) for key in ("observed", "expected")} if isinstance(entry, Mapping) else {}
    for value in values.values():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (number and math.isfinite(value) and value > 0):
            raise BadFile(f"{where}: a limit is {value!r}, but must be a positive number of pb, or null")
    if all(value is None for value in values.values()):
        raise BadFile(f"{where}: there is neither an observed nor an expected limit")
    return values


def limit_of(regions: Mapping[str, RegionAcceptance], limits: Visible, source: str) -> dict[str, SignalLimit]:
    """Return the limits on the cross-section of a signal, in each region with a visible one where the signal is.

    Raises
    ------
    ConfigError
        No region of the search is one of the model.
    """
    both = [name for name in limits if name in regions]
    if not both:
        raise ConfigError(
            f"{source}: its limits are in the regions {', '.join(limits)}, and those of the model are {', '.join(regions)}"
        )
    out = {}
    for name in both:
        value = regions[name].value
        if not value > 0:
            continue
        observed, expected = (
            None if v is None else v / value for v in (limits[name]["observed"], limits[name]["expected"])
        )
        out[name] = SignalLimit(observed, expected, regions[name].error / value)
    return out
