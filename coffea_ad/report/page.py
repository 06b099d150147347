"""The page: sections in their order, made into one HTML file that is small enough."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coffea_ad import files
from coffea_ad._version import __version__
from coffea_ad.errors import ConfigError, listed
from coffea_ad.report.blocks import Block, Figure, Figures, Section, figures_in
from coffea_ad.report.events import Contributions, Display, events_section
from coffea_ad.report.models import models_section
from coffea_ad.report.pictured import Pictured, pictured
from coffea_ad.report.provenance import provenance_section
from coffea_ad.report.running import facts, run_section
from coffea_ad.report.searches import evaluation_section, search_section
from coffea_ad.report.sources import Sources, read_sources
from coffea_ad.report.spectra import figure_sections, regions_section

__all__ = ["LARGEST", "sections_of", "write_report"]

LARGEST = 20_000_000
"""bytes; a larger page opens slowly, and no mail takes it"""
_COLOURS = 128


def write_report(
    results: str | Path, others: Sequence[str | Path] = (), output: str | Path = "report.html", *, title: str | None = None,
    max_events: int = 20, pictures: int = 3, displays: Sequence[Display] = (), contributions: Sequence[Contributions] = (),
) -> list[str]:  # fmt: skip
    """Write results, and what belongs to them, as one HTML page without scripts that loads nothing.

    Figures of results are drawn anew from their histograms; those of searches, evaluations and trainings are those in their folders. Of blinded
    results only what they show themselves is on the page.

    Parameters
    ----------
    results : path or URL
        A results folder.
    others : sequence of path
        Folders of searches, evaluations and models.
    output : path
    title : str, optional
    max_events : int
        So many of each list of events.
    pictures : int
        So many of the best events of each model are drawn, and their scores taken apart.
    displays, contributions : sequence of Display, of Contributions
        More of listed events.

    Returns
    -------
    list of str
        What is not on the page, and why.

    Raises
    ------
    BadFile
        A folder is none of these, or damaged.
    ConfigError
        A package is missing; the page would be larger than 20 MB without any figure.
    """
    template = _template()
    sources = read_sources(results, others)
    best = pictured(sources, pictures)
    sources.notes.extend(best.notes)
    best.displays.extend(displays)
    best.contributions.extend(contributions)
    sections = sections_of(sources, max_events, best)
    name = (
        title
        or f"{sources.results.report.get('processor', 'results')}: {listed(sources.results.report['datasets'], 5)}"
    )
    context = {"title": name, "facts": facts(sources), "state": _state(sources), "version": __version__, "notes": sources.notes,
               "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"}  # fmt: skip
    page, notes = _small_enough(template, context, sections)
    files.write(output, page)
    return [*sources.notes, *notes]


def _template() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError("a report needs jinja2: pip install 'coffea-ad[report]'") from error
    loader = jinja2.PackageLoader("coffea_ad.report", "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html.j2")


def _state(sources: Sources) -> tuple[str, str]:
    """Return what became of the run, and a word for its colour."""
    failed = sum(len(entry.get("failed", ())) for entry in sources.results.report["datasets"].values())
    if not failed:
        return "complete", "good"
    return (f"{failed} files or chunks failed" if failed > 1 else "1 file or chunk failed"), "grave"


def sections_of(sources: Sources, max_events: int, best: Pictured) -> list[Section]:
    """Return all parts of the page that have anything in them."""
    sections = [run_section(sources), models_section(sources), regions_section(sources), *figure_sections(sources)]
    sections += _numbered("Search", [(s.folder, lambda t, s=s: search_section(s, t)) for s in sources.searches])
    sections += _numbered(
        "Evaluation", [(e.folder, lambda t, e=e: evaluation_section(e, t)) for e in sources.evaluations]
    )
    sections += [
        events_section(sources, max_events, best.displays, best.contributions, best.figures),
        provenance_section(sources),
    ]
    return [section for section in sections if section is not None]


def _numbered(word: str, of_folders: Sequence[tuple[str, Any]]) -> Iterator[Section]:
    """Yield sections, with their folders in the title where there are several."""
    for folder, section in of_folders:
        yield section(word if len(of_folders) == 1 else f"{word} {folder}")


def _small_enough(template: Any, context: Mapping[str, Any], sections: Sequence[Section]) -> tuple[bytes, list[str]]:
    """Return the page; one that is too large gets figures of fewer colours, and then loses the last ones."""
    page = _rendered(template, context, sections, [])
    if len(page) <= LARGEST:
        return page, []
    larger = f"since the page would be larger than {LARGEST / 1e6:g} MB"
    sections = _with_figures(sections, {figure.png: _fewer_colours(figure) for figure in figures_in(sections)})
    left_out: list[str] = []
    while True:
        notes = [f"figures have {_COLOURS} colours, {larger}"]
        if left_out:
            notes.append(f"left out, {larger}: {', '.join(reversed(left_out))}")
        page = _rendered(template, context, sections, notes)
        if len(page) <= LARGEST:
            return page, notes
        spare, drop = LARGEST - len(page), dict[bytes, Figure | None]()
        for figure in reversed(list(figures_in(sections))):
            if spare >= 0:
                break
            drop[figure.png] = None
            left_out.append(figure.title)
            spare += len(figure.source)
        if not drop:
            raise ConfigError(
                f"the page would be larger than {LARGEST / 1e6:g} MB without any figure; list fewer events with --max-events"
            )
        sections = _with_figures(sections, drop)


def _rendered(template: Any, context: Mapping[str, Any], sections: Sequence[Section], notes: Sequence[str]) -> bytes:
    text: str = template.render({**context, "notes": [*context["notes"], *notes], "sections": sections})
    return text.encode()


def _with_figures(sections: Sequence[Section], changes: Mapping[bytes, Figure | None]) -> list[Section]:
    """Return sections with other pictures in the place of some, or none."""
    out = []
    for section in sections:
        blocks = list[Block]()
        for block in section.blocks:
            if not isinstance(block, Figures):
                blocks.append(block)
            elif pictures := tuple(new for f in block.figures if (new := changes.get(f.png, f)) is not None):
                blocks.append(Figures(pictures))
        out.append(replace(section, blocks=blocks, parts=_with_figures(section.parts, changes)))
    return out


def _fewer_colours(figure: Figure) -> Figure:
    """Return a picture with a palette, if that makes it smaller."""
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(io.BytesIO(figure.png)) as image:
        image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
    return figure if stream.tell() >= len(figure.png) else Figure(figure.title, stream.getvalue())
