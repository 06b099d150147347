"""The files of a fileset opened on the workers: chunks, and what each file says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from coffea.processor.executor import WorkItem

from coffea_ad.errors import ConfigError
from coffea_ad.luminosity.tables import SectionTable
from coffea_ad.running.steps import chunks_in_steps
from coffea_ad.running.weighing import skimmed_signs
from coffea_ad.weights import is_simulation, takes_sign

__all__ = ["Facts", "Fileset", "in_order", "open_files", "refuse_without_sections", "without_opened"]

Fileset = dict[str, dict[str, Any]]
"""{dataset: {"files": {path: tree}, "metadata": {…}}}, as `load_fileset` gives it."""
Facts = Mapping[tuple[str, str], Mapping[str, Any]]
"""{(dataset, path): what a file says of itself}."""


def open_files(
    runner: Any, fileset: Fileset, retries: int, notes: list[str]
) -> tuple[list[WorkItem], dict[tuple[str, str], dict[str, Any]]]:
    """Open all files on the workers.

    Parameters
    ----------
    runner : Runner
    fileset : Fileset
        Its metadata get what only the files tell.
    retries : int
        How often a remote file is tried again.
    notes : list of str
        Takes a sentence for each dataset that is read in part.

    Returns
    -------
    chunks : list of WorkItem
    facts : {(dataset, path): dict}

    Raises
    ------
    ConfigError
        The fileset cannot be used, or events would count twice.
    """
    try:
        chunks = list(runner.preprocess(fileset, uproot_options={"retries": retries}))
    except ValueError as error:
        raise ConfigError(f"the fileset cannot be used: {error}") from None
    facts = {(item.dataset, item.filename): dict(file) for item, file in runner.metadata_cache.items()}
    _refuse_twice(facts)
    _refuse_skimmed_signs(fileset, facts)
    for (dataset, _), told in ((key, file.get("told", {})) for key, file in facts.items()):
        for name in ("campaign", "sqrt_s"):
            if name in told:
                fileset[dataset]["metadata"].setdefault(name, told[name])
    for dataset, entry in fileset.items():  # what the check before the run could not tell
        if is_simulation(entry["metadata"]) is None:
            weighted = [
                file["has_weights"] for (d, _), file in facts.items() if d == dataset and file.get("numentries")
            ]
            if weighted:
                entry["metadata"]["is_mc"] = all(weighted)
    cut = {"chunksize": runner.chunksize, "limit_chunks": runner.maxchunks}
    chunks = chunks_in_steps(chunks, fileset, facts, notes=notes, **cut)
    # facts are not the processor's business: its metadata are those of the fileset
    return [replace(c, usermeta=dict(fileset[c.dataset]["metadata"])) for c in chunks], facts


def _refuse_skimmed_signs(fileset: Fileset, facts: Facts) -> None:
    for (dataset, path), file in facts.items():
        metadata = fileset[dataset]["metadata"]
        events, generated = file.get("numentries"), file.get("generated")
        if is_simulation(metadata) is False or not takes_sign(dataset, metadata) or events is None or generated is None:
            continue
        if generated > events:
            raise ConfigError(skimmed_signs(dataset, path, {"events": events, "generated": generated}))


def _refuse_twice(facts: Facts) -> None:
    seen: dict[tuple[str, Any], str] = {}
    for (dataset, path), file in facts.items():
        if "uuid" in file and any(file["uuid"]):
            other = seen.setdefault((dataset, file["uuid"]), path)
            if other != path:
                raise ConfigError(f"{dataset}: {other} and {path} are the same file, and its events would count twice")


def refuse_without_sections(facts: Facts, table: SectionTable) -> None:
    """Refuse files of data that list no luminosity sections, where a table is to tell the luminosity.

    Raises
    ------
    ConfigError
    """
    for (dataset, path), file in facts.items():
        if "sections" in file and file["sections"] is None:
            raise ConfigError(
                f"{path}: it lists no LuminosityBlocks, so that {table.file} cannot tell the luminosity of {dataset}; give it "
                "in fb⁻¹"
            )


def without_opened(fileset: Fileset, chunks: Iterable[WorkItem]) -> Fileset:
    """Leave out the files of which there are chunks already."""
    known = {(c.dataset, c.filename) for c in chunks}
    return {
        d: {**e, "files": {p: t for p, t in e["files"].items() if (d, p) not in known}} for d, e in fileset.items()
    }  # fmt: skip


def in_order(chunks: Sequence[WorkItem], fileset: Fileset) -> list[WorkItem]:
    """Return chunks in the order of the fileset, whichever file was opened first."""
    place = {(d, p): i for i, (d, p) in enumerate((d, p) for d, entry in fileset.items() for p in entry["files"])}
    return sorted(chunks, key=lambda c: (place[c.dataset, c.filename], c.entrystart))
