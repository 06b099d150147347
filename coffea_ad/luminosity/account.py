"""Which sections of data a run has processed, by what was certified, and what is lacking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coffea_ad.luminosity.sections import Golden, golden, listed, number_of_sections, union, without
from coffea_ad.luminosity.tables import SectionTable
from coffea_ad.weights import is_simulation

__all__ = ["account", "certify"]


def certify(datasets: Mapping[str, Any], mask: Any) -> None:
    """Take the sections that are not certified from those of the files of data.

    Parameters
    ----------
    datasets : {dataset: dict}
        Of a report, changed in place.
    mask : callable or None
        (n,) runs, (n,) sections → (n,) bool; None: all are certified.
    """
    for entry in datasets.values():
        for file in entry["files"].values() if mask is not None else ():
            if file.get("sections"):
                pairs = listed(file["sections"])
                file["sections"] = golden(pairs[mask(pairs[:, 0], pairs[:, 1])])


def _sections(entry: Mapping[str, Any]) -> tuple[Golden, list[tuple[float, Golden]]]:
    """Return the sections of the files that were processed as a whole; of the others, the part of their events, and theirs."""
    whole, parts = [], []
    for file in entry["files"].values():
        sections = file.get("sections")
        if sections is None:
            continue
        if file["processed"] == file["events"]:
            whole.append(sections)
        elif file["events"]:
            parts.append((file["processed"] / file["events"], sections))
    complete = union(whole)
    return complete, [(part, without(sections, complete)) for part, sections in parts]


def account(
    datasets: Mapping[str, dict[str, Any]], table: SectionTable | None, lumi: float | None
) -> tuple[float | None, list[str]]:
    """Say of every dataset of data which of its luminosity sections were processed, and how much luminosity that is.

    A file of which only a part was processed counts by the part of its events. Sections that several datasets share, such as
    those of two primary datasets, count once in the luminosity of the run.

    Parameters
    ----------
    datasets : {dataset: dict}
        Of a report, with the certified `sections` of each file; gets `sections`, as a golden JSON, and `luminosity`.
    table : SectionTable, optional
    lumi : float, optional
        What was given instead, fb⁻¹.

    Returns
    -------
    lumi : float or None
        fb⁻¹, of what was processed if there is a table.
    notes : list of str
    """
    notes: list[str] = []
    data = {name: entry for name, entry in datasets.items() if is_simulation(entry["metadata"]) is False}
    sections = {name: _sections(entry) for name, entry in data.items()}
    for name, (complete, parts) in sections.items():
        entry = data[name]
        files = entry["files"]
        unopened = [path for path, f in files.items() if f["events"] is None]
        silent = [path for path, f in files.items() if f["events"] is not None and f.get("sections") is None]
        known = union(f["sections"] for f in files.values() if f.get("sections") is not None)
        processed = number_of_sections(complete) + sum(part * number_of_sections(s) for part, s in parts)
        entry["sections"] = complete
        entry["luminosity"] = {
            "sections": round(processed, 3), "of": number_of_sections(known), "unopened": len(unopened), "without": len(silent),
            "recorded": None if table is None else _recorded(table, complete, parts),
        }  # fmt: skip
        notes += _said(name, entry["luminosity"], silent, table, lumi)
    if table is None or not data:
        return lumi, notes
    shared = union(complete for complete, _ in sections.values())
    for name, (complete, _) in sections.items():
        lost = [
            o
            for o, (c, _) in sections.items()
            if o != name and number_of_sections(without(c, complete)) < number_of_sections(c)
        ]
        missing = number_of_sections(without(union(sections[o][0] for o in lost), complete)) if lost else 0
        if missing:
            notes.append(
                f"{name}: {missing} luminosity sections of {', '.join(lost)} were not processed in it, and count all the same"
            )
    lacking = table.lacking(shared)
    if lacking:
        notes.append(
            f"{table.file}: {lacking} of the processed luminosity sections are not in it, and count as no luminosity"
        )
    parts = [(part, without(s, shared)) for _, several in sections.values() for part, s in several]
    return _recorded(table, shared, parts), notes


def _recorded(table: SectionTable, complete: Golden, parts: Iterable[tuple[float, Golden]]) -> float:
    return table.recorded(complete) + sum(part * table.recorded(sections) for part, sections in parts)


def _said(
    name: str, facts: Mapping[str, Any], silent: list[str], table: SectionTable | None, lumi: float | None
) -> list[str]:
    notes = []
    if silent:
        notes.append(
            f"{name}: {len(silent)} of its files, such as {silent[0]}, list no LuminosityBlocks: which luminosity sections they "
            "hold is not known"
        )
    unopened = f", and of {facts['unopened']} files that could not be opened none" if facts["unopened"] else ""
    if facts["sections"] < facts["of"] or unopened:
        of = f"{facts['sections']:g} of {facts['of']} luminosity sections that its files list were processed"
        as_stated = (
            f"; {lumi:g} fb⁻¹ is taken as it was given: with a brilcalc table as --lumi, it would be that of what was processed"
            if table is None and lumi is not None else ""
        )  # fmt: skip
        notes.append(f"{name}: {of}{unopened}{as_stated}")
    return notes
