"""Where the regions of models begin, as lines in figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coffea_ad.results.results import Results

__all__ = ["draw_thresholds", "thresholds_of"]


def thresholds_of(results: Results, observable: str) -> dict[str, float]:
    """Return the thresholds of a model's regions, {region: threshold}, if the observable is its `ad_logp`.

    Those that follow a spectator are no single number, and are left out.
    """
    return {
        region["region"]: float(region["thresholds"][0])
        for region in results.report.get("regions", {}).values()
        if observable in (f"{region.get('tagger')}_logp", f"{region.get('tagger')}_logp_min")
        and len(region.get("thresholds") or ()) == 1
    }


def draw_thresholds(ax: Any, thresholds: Mapping[str, float], *, top: float) -> None:
    """Draw where regions begin, and their names, up to a part of the height."""
    for name, threshold in sorted(thresholds.items(), key=lambda pair: pair[1]):
        ax.axvline(threshold, ymax=top, color="crimson", linewidth=1.2)
        place = ax.get_xaxis_transform()
        ax.text(
            threshold,
            top,
            f" {name}",
            color="crimson",
            fontsize=10,
            rotation=90,
            va="top",
            transform=place,
            clip_on=True,
        )
