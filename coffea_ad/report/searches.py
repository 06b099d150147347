"""Searches and evaluations: what they found, with their figures."""

from __future__ import annotations

from collections.abc import Sequence

from coffea_ad import files
from coffea_ad.report.blocks import Block, Figure, Figures, Section, Sentences, Table
from coffea_ad.report.sources import Evaluated, Searched, png_files
from coffea_ad.search.listing import search_sentences, search_tables
from coffea_ad.tables import Listing

__all__ = ["evaluation_section", "search_section"]


def search_section(search: Searched, title: str) -> Section:
    """Return the verdict of a search, its largest excesses, spectra with fits, pulls and scans, and limits."""
    content = search.content
    verdict, *others = search_sentences(content)
    blocks: list[Block] = [Sentences((verdict,)), *map(Table, search_tables(content))]
    if (curves := _gaussian(content["limits"])).rows:
        blocks.append(Table(curves))
    if others:
        blocks.append(Sentences(tuple(others)))
    spectra = {files.as_name(name.replace(" ", "_")): name for name in content["spectra"]}
    limits = {
        f"limits_{files.as_name(limit['spectrum'].replace(' ', '_'))}_{100 * limit['width']:g}": f"limits, {limit['spectrum']}, width {100 * limit['width']:g} %"
        for limit in content["limits"]
        if not limit["signal"]
    }
    summary = {
        "summary": "largest local significance of every spectrum",
        "largest_significance": "largest significance without signal",
    }
    parts = (("Spectra with fits, pulls and scans", spectra), ("Limits", limits), ("Significance", summary))
    sections = [Section(name, [pictures]) for name, titles in parts if (pictures := _pictures(search.folder, titles))]
    return Section(title, blocks, sections)


def _gaussian(limits: Sequence[dict[str, object]]) -> Listing:
    """Return the limits on Gaussian signals, in events."""
    rows = []
    for limit in limits:
        expected, observed = limit["expected"], limit["observed"]
        if isinstance(expected, list) and expected and not limit["signal"]:
            shown = "–" if observed is None else f"{observed:.3g}"
            rows.append((str(limit["spectrum"]), f"{limit['mass']:.0f}", f"{100 * float(str(limit['width'])):g} %", shown, f"{expected[2]:.3g}",
                         f"{expected[1]:.3g} to {expected[3]:.3g}"))  # fmt: skip
    columns = ("spectrum", "mass, GeV", "width", "observed", "expected", "±1σ")
    return Listing("95 % CLs limits on Gaussian signals, events", columns, tuple(rows))


def evaluation_section(evaluation: Evaluated, title: str) -> Section:
    """Return the tables and figures of an evaluation."""
    notes = tuple(map(str, evaluation.content.get("notes", ())))
    blocks: list[Block] = [*map(Table, evaluation.tables), *([Sentences(notes)] if notes else [])]
    signals = dict.fromkeys(str(row["signal"]) for row in evaluation.content.get("rows", ()))
    titles = {"summary": "AUC of every score"}
    for kind, words in (("roc", "background rejection"), ("sic", "significance improvement")):
        titles |= {f"{kind}_{files.as_name(signal)}": f"{words}, {signal}" for signal in signals}
    titles |= {"sculpting": "spectra of the background behind cuts on the scores"}
    titles |= {
        f"latent_{files.as_name(name)}": f"representation of {name}" for name in evaluation.content.get("latent", ())
    }
    pictures = _pictures(evaluation.folder, titles)
    return Section(title, [*blocks, *([pictures] if pictures else [])])


def _pictures(folder: str, titles: dict[str, str]) -> Figures | None:
    """Return the figures of a folder that its content names; others may be of something else."""
    stored = png_files(files.join(folder, "figures"))
    pictures = tuple(Figure(title, files.read(stored[stem])) for stem, title in titles.items() if stem in stored)
    return Figures(pictures) if pictures else None
