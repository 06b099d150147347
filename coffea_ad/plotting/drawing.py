"""All figures of a results folder, in its style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from coffea_ad import files
from coffea_ad.config import load_config
from coffea_ad.errors import UnknownName
from coffea_ad.plotting import overviews
from coffea_ad.plotting.stacks import drawable, stack
from coffea_ad.plotting.styles import STYLE, Style
from coffea_ad.progress import progress
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results

__all__ = ["draw_results", "keep_style", "overview_figures", "style_of"]


def style_of(path: str | None, words: Sequence[str] = ()) -> Style:
    """Read a style, of a file and of words that go before it."""
    return load_config(Style, path, words)


def keep_style(folder: str | Path, style: Style) -> None:
    """Leave a style beside the figures of a results folder, where it is taken again."""
    text = yaml.safe_dump(style.model_dump(mode="json", exclude_defaults=True))
    files.write(files.join(str(folder), "figures", STYLE), text.encode())


def draw_results(
    folder: str | Path, *, style: str | None = None, words: Sequence[str] = (), observables: Sequence[str] = (), regions: Sequence[str] = ()
) -> int:  # fmt: skip
    """Draw every observable in every region, and, where none are asked for by name, the overviews; return how many.

    Parameters
    ----------
    folder : path
        Of results.
    style : path, optional
        By default the one that was left beside the figures.
    words : sequence of str
        Keys of the style that are other than in the file.
    observables, regions : sequence of str
        By default all.

    Raises
    ------
    UnknownName
        There is no such observable, or no such region with entries.
    """
    results = load_results(folder)
    if not results.in_regions:
        return 0
    place = files.join(str(folder), "figures", STYLE)
    look = style_of(style or (place if files.exists(place) else None), words)
    known = drawable(results)
    for what, asked, has in (
        ("observable", observables, list(known)),
        ("region with entries", regions, list(dict.fromkeys(r for of in known.values() for r in of))),
    ):
        for name in asked:
            if name not in has:
                raise UnknownName.of(what, name, has)
    figures: dict[str, Callable[[str], None]] = {}
    for observable, of in known.items():
        if not observables or observable in observables:
            for region in of:
                if not regions or region in regions:
                    figures[f"{observable}_{region}"] = _stack(results, observable, region, look)
    if not (observables or regions):
        figures |= overview_figures(results, look)
    if style or words:
        keep_style(folder, look)
    with progress("Drawing", len(figures)) as advance:
        for name, draw in figures.items():
            draw(files.join(str(folder), "figures", f"{files.as_name(name)}.{look.formats[0]}"))
            advance()
    return len(figures)


def _stack(results: Results, observable: str, region: str, style: Style) -> Callable[[str], None]:
    return lambda path: stack(results, observable, region, path, style=style)


def overview_figures(results: Results, style: Style) -> dict[str, Callable[[str], None]]:
    """Return the figures of the run as a whole, {name: what draws it to a path}, where it has what they show."""
    out: dict[str, Callable[[str], None]] = {}
    if overviews.cutflows(results, style):
        out["cutflow"] = lambda path: overviews.cutflow(results, path, style=style)
    for name in overviews.planes(results):
        out[f"score_against_{name}"] = _with(overviews.score_against, results, name, style)
    for name in overviews.divisible(results):
        out[f"efficiency_against_{name}"] = _with(overviews.efficiency_against, results, name, style)
    for tagger, seen in results.report.get("inputs", {}).items():
        if any(seen.get("drift", {}).values()):
            out[f"inputs_{tagger}"] = _inputs(seen["drift"], style)
    return out


def _with(draw: Any, results: Results, name: str, style: Style) -> Callable[[str], None]:
    return lambda path: draw(results, name, path, style=style)


def _inputs(drifts: Any, style: Style) -> Callable[[str], None]:
    return lambda path: overviews.inputs(drifts, path, formats=style.formats[1:])
