"""Regions with their yields, and the figures of all observables, drawn anew from the histograms."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coffea_ad import files, plotting
from coffea_ad.config import load_config
from coffea_ad.plotting.drawing import overview_figures
from coffea_ad.plotting.styles import STYLE, Style
from coffea_ad.progress import progress
from coffea_ad.report.blocks import Block, Figure, Figures, Section, Sentences, Table
from coffea_ad.report.sources import Sources
from coffea_ad.results.yields import yields
from coffea_ad.tables import Listing

__all__ = ["figure_sections", "regions_section"]


def regions_section(sources: Sources) -> Section | None:
    """Return what the regions are and what they hold; None if there are none."""
    tables, notes = yields(sources.results)
    if (definitions := _definitions(sources.results.report.get("regions", {}))).rows:
        tables.append(definitions)
    blocks: list[Block] = [*map(Table, tables)]
    if notes:
        blocks.append(Sentences(tuple(notes)))
    return Section("Regions", blocks) if blocks else None


def _definitions(regions: Mapping[str, Mapping[str, Any]]) -> Listing:
    rows = tuple(
        (
            name,
            str(about.get("model", "–")),
            _threshold(about),
            _number(about.get("efficiency"), "g"),
            _number(about.get("error"), ".3f"),
            _number(about.get("tags"), "d"),
            ", ".join(about.get("cells", ())),
        )
        for name, about in regions.items()
    )
    columns = ("region", "model", "ad_logp ≥", "ε_B", "± of ad_logp", "tags", "cells")
    return Listing("definitions", columns, rows)


def _threshold(region: Mapping[str, Any]) -> str:
    several = list(region.get("thresholds") or ())
    if len(several) > 1:
        return f"{len(several)} thresholds in {region.get('spectator')}"
    return f"{several[0]:.3g}" if several else "–"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def figure_sections(sources: Sources) -> list[Section]:
    """Return figures of the run as a whole, scores and spectra, a part for each observable with a figure for each region that has entries."""
    results = sources.results
    known = plotting.drawable(results)
    if not known:
        return []
    overviews = []
    place = files.join(sources.folder, "figures", STYLE)
    style = load_config(Style, place if files.exists(place) else None, []).model_copy(update={"formats": ("png",)})
    parts: dict[str, Section] = {}
    with tempfile.TemporaryDirectory() as folder, progress("Drawing", sum(map(len, known.values()))) as advance:
        path = Path(folder) / "figure.png"
        for observable, regions in known.items():
            drawn = []
            for region in regions:
                plotting.stack(results, observable, region, path, style=style)
                drawn.append(Figure(f"{observable}, {region}", path.read_bytes()))
                advance()
            parts[observable] = Section(observable, [Figures(tuple(drawn))])
        for name, draw in overview_figures(results, style).items():
            draw(str(path))
            overviews.append(Figure(name.replace("_", " "), path.read_bytes()))
    taggers = {str(about.get("tagger")) for about in results.report.get("regions", {}).values()}
    of_scores = re.compile(rf"({'|'.join(map(re.escape, sorted(taggers)))})_(logp|score)(_min|_max)?")
    scores = [part for name, part in parts.items() if of_scores.fullmatch(name)]
    others = [part for part in parts.values() if part not in scores]
    first = [Section("Overviews", [Figures(tuple(overviews))])] if overviews else []
    return first + [Section(title, (), listed) for title, listed in (("Scores", scores), ("Spectra", others)) if listed]
