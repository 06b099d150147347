"""What is wrong with a fileset, and what is worth knowing of it: one sentence for each thing, not only for the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.filesize import decimal

from coffea_ad.errors import ConfigError, listed
from coffea_ad.filesets import load_fileset
from coffea_ad.filesets.inspection import InspectedFile, inspect_files
from coffea_ad.nanoaod.campaigns import campaign_of, energy_in
from coffea_ad.nanoaod.conventions import told_by
from coffea_ad.weights import cross_section, has_cross_section, is_simulation

__all__ = ["Finding", "findings_of", "summary", "validate_fileset", "with_kinds", "without_bad_files"]

Fileset = Mapping[str, Mapping[str, Any]]
_TRIGGERS = ("HLT_", "L1_", "DST_")  # menus change from run to run


@dataclass(frozen=True)
class Finding:
    """One sentence about a fileset.

    A "bad file" can be left out of its dataset; of a "duplicate" only the user knows which one should stay; a "note"
    stops nothing.
    """

    kind: Literal["bad file", "duplicate", "note"]
    dataset: str
    sentence: str
    path: str | None = None


def validate_fileset(source: str | Path | Fileset, *, workers: int = 8) -> list[Finding]:
    """Open every file of a fileset and say everything that is wrong.

    Parameters
    ----------
    source : path or mapping
        As `load_fileset` takes it.
    workers : int
        Files that are open at the same time.

    Raises
    ------
    ConfigError
        It is not a fileset, or files are on a storage that nothing installed can read.

    Examples
    --------
    >>> fileset = {"svj": {"files": {str(svj_file): "Events"}, "metadata": {"is_mc": True}}}
    >>> [finding.sentence for finding in validate_fileset(fileset)]
    ["svj: simulated signal without xsec (pb): the generator's number means nothing for it, so give one"]
    """
    fileset = load_fileset(source)
    return findings_of(fileset, inspect_files(fileset, workers=workers))


def _told(files: Iterable[InspectedFile]) -> dict[str, Any]:
    """Return the metadata that the files of a dataset tell of themselves, where all are of one simulation of ours."""
    full = [file for file in files if file.events > 0]
    if not full or not all(file.simulated for file in full):
        return {}
    told = [told_by(file.simulated) for file in full]
    common = {k: v for k, v in told[0].items() if k != "xsec" and all(t.get(k) == v for t in told)}
    alike = {(str(f.simulated.get("process")), str(f.simulated.get("parameters"))) for f in full}
    if len(alike) == 1 and all("xsec" in t for t in told):  # estimates of one cross-section
        events = sum(file.events for file in full)
        common["xsec"] = sum(t["xsec"] * file.events for t, file in zip(told, full, strict=True)) / events
    return common


def findings_of(fileset: Fileset, inspected: Mapping[str, Mapping[str, InspectedFile]]) -> list[Finding]:
    """Say what is wrong and what is worth knowing; `inspected` is empty where no file was opened."""
    out: list[Finding] = []
    good: dict[str, dict[str, InspectedFile]] = {}
    for dataset, entry in fileset.items():
        good[dataset] = {}
        for path, file in inspected.get(dataset, {}).items():
            problems = list(file.problems)
            if not problems and file.events > 0 and _said(entry) and "genWeight" not in file.branches:
                problems.append(f"there is no genWeight, but is_mc of {dataset} is true")
            out += [Finding("bad file", dataset, f"{path}: {problem}", path) for problem in problems]
            if not problems:
                good[dataset][path] = file
    out += _duplicates(good)
    for dataset, entry in fileset.items():
        out += [Finding("note", dataset, f"{dataset}: {note}") for note in _notes(entry, good[dataset])]
    return out


def _duplicates(good: Mapping[str, Mapping[str, InspectedFile]]) -> Iterable[Finding]:
    first: dict[str, tuple[str, str]] = {}
    for dataset, files in good.items():
        for path, file in files.items():
            if file.uuid and file.uuid in first:
                other, where = first[file.uuid]
                both = f"{other} in {where} and {path} in {dataset}"
                yield Finding("duplicate", dataset, f"{both} are the same file (equal ROOT UUIDs)", path)
            elif file.uuid:
                first[file.uuid] = path, dataset


def _said(entry: Mapping[str, Any]) -> bool | None:
    return is_simulation(entry["metadata"])


def _kind(files: Iterable[InspectedFile]) -> bool | None:
    """Say whether files are simulated, by genWeight; None where they disagree or do not tell."""
    full = {"genWeight" in f.branches for f in files if f.events > 0}
    if full:
        return full.pop() if len(full) == 1 else None
    return True if any("genWeight" in f.branches for f in files) else None


def _notes(entry: Mapping[str, Any], files: Mapping[str, InspectedFile]) -> Iterable[str]:
    said, kind = _said(entry), _kind(files.values())
    full = [file for file in files.values() if file.events > 0]
    weights = Counter("with genWeight" if "genWeight" in f.branches else "without" for f in full)
    if len(weights) > 1:
        yield f"simulation and data are mixed: {_counted(weights)}" + ("" if said is False else "; is_mc is not set")
    elif said is None and kind is not None:
        what, presence = ("simulation", "there") if kind else ("data", "not there")
        yield f"taken as {what}, since the metadata has no is_mc and genWeight is {presence}"
    elif said is None:
        yield "is_mc is not set, since " + ("its files hold no events" if files else "none of its files was read")
    elif said is False and kind:
        yield "data by its metadata, but genWeight is there"
    kind = kind if said is None else said
    told = _told(files.values())
    if kind and not has_cross_section(entry["metadata"]):
        if "xsec" in told:
            yield f"xsec of {told['xsec']:.5g} pb is taken over from its files"
        elif "signal" in told:
            yield "simulated signal without xsec (pb): the generator's number means nothing for it, so give one"
        else:
            yield "simulation without xsec (pb), which normalised histograms need"
    yield from _clashes(entry["metadata"], told)
    steps = entry.get("steps", {})
    if steps:
        selected = sum(stop - start for path, ranges in steps.items() if path in files for start, stop in ranges)
        yield f"read in part, as its steps say: {selected} events of {_files(len(steps))} with steps"
    counted = [file for file in files.values() if file.generated is not None]
    lost = sum((file.generated or 0) < file.events for file in counted)
    if kind and lost:
        yield f"Runs of {_files(lost)} count fewer generated events than there are, as after a merge that lost some"
    elif kind and any(file.generated != file.events for file in counted):
        generated, held = sum(file.generated or 0 for file in counted), sum(file.events for file in counted)
        yield f"skimmed before: its Runs trees count {generated} generated events, its files hold {held}"
    layouts = Counter(file.layout for file in full)
    if len(layouts) > 1:
        yield f"layouts are mixed: {_counted(layouts)}"
    branches = Counter(frozenset(b for b in file.branches if not b.startswith(_TRIGGERS)) for file in full)
    if len(branches) > 1:
        yield "its files differ in branches (triggers apart): " + _differences(branches.most_common())
    unsized = sum(file.size is None for file in files.values())
    if unsized:
        yield f"for {_files(unsized)} the server gives no size, so a cut would not have been found"


def _clashes(metadata: Mapping[str, Any], told: Mapping[str, Any]) -> Iterable[str]:
    """Say where metadata and what files tell of themselves cannot both be right."""
    if "sqrt_s" in told and energy_in(metadata) not in (None, told["sqrt_s"]):
        yield f"√s is {energy_in(metadata):g} GeV by its metadata and {told['sqrt_s']:g} GeV by its files"
    if "campaign" in told and campaign_of(metadata) not in (None, told["campaign"]):
        yield f"its campaign is {campaign_of(metadata)} by its metadata, but its files were made by coffea-ad simulate"


def _differences(kinds: list[tuple[frozenset[str], int]]) -> str:
    usual, number = kinds[0]
    texts = [f"{_files(number)} with {len(usual)} branches"]
    for branches, number in kinds[1:4]:
        parts = (("without", usual - branches), ("with", branches - usual))
        texts.append(f"{_files(number)} " + " and ".join(f"{how} {_some(names)}" for how, names in parts if names))
    further = sum(number for _, number in kinds[4:])
    return ", ".join(texts) + (f", {_files(further)} of {len(kinds) - 4} more kinds" if further else "")


def _files(number: int) -> str:
    return f"{number} file" + ("s" if number != 1 else "")


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} ({_files(number)})" for kind, number in kinds.most_common())


def _some(names: Iterable[str]) -> str:
    return listed(sorted(names), 3)


def with_kinds(fileset: Fileset, inspected: Mapping[str, Mapping[str, InspectedFile]]) -> dict[str, dict[str, Any]]:
    """Return the fileset with what its files tell and its metadata do not say.

    That is `is_mc` from genWeight, where the files agree, and what files of `coffea-ad simulate` tell of themselves: campaign,
    √s, whether they are a signal, and else their cross-section.
    """
    out = {}
    for dataset, entry in fileset.items():
        files = inspected.get(dataset, {})
        good = [files[path] for path in entry["files"] if path in files and not files[path].problems]
        kind = _kind(good)
        new = {} if kind is None or _said(entry) is not None else {"is_mc": kind}
        out[dataset] = {**entry, "metadata": {**new, **_told(good), **entry["metadata"]}}
    return out


def without_bad_files(fileset: Fileset, findings: Iterable[Finding]) -> dict[str, dict[str, Any]]:
    """Return the fileset without the bad files.

    Raises
    ------
    ConfigError
        A dataset has no good file.
    """
    bad = {(f.dataset, f.path) for f in findings if f.kind == "bad file"}
    out = {}
    for dataset, entry in fileset.items():
        out[dataset] = {**entry, "files": {p: t for p, t in entry["files"].items() if (dataset, p) not in bad}}
        if "steps" in entry:
            out[dataset]["steps"] = {p: s for p, s in entry["steps"].items() if (dataset, p) not in bad}
        if not out[dataset]["files"]:
            raise ConfigError(f"dataset {dataset}: no good file is left")
    return out


def summary(fileset: Fileset, inspected: Mapping[str, Mapping[str, InspectedFile]]) -> list[tuple[str, ...]]:
    """Return one row per dataset: name, files, events, kind, cross-section, layout, size; "?" for what is not known."""
    rows: list[tuple[str, ...]] = []
    for dataset, entry in fileset.items():
        good = {p: f for p, f in inspected.get(dataset, {}).items() if p in entry["files"] and not f.problems}
        files, steps = list(good.values()), entry.get("steps", {})
        events = sum(sum(b - a for a, b in steps[p]) if p in steps else f.events for p, f in good.items())
        sizes = [f.size for f in files if f.size is not None]
        metadata = entry["metadata"]
        rows.append((
            dataset,
            str(len(entry["files"])),
            str(events) if files else "?",
            {True: "simulation", False: "data", None: "?"}[_said(entry)],
            f"{cross_section(dataset, metadata):g} pb" if has_cross_section(metadata) else "",
            ", ".join(sorted({f.layout for f in files if f.events > 0})) or "?",
            decimal(sum(sizes)) if sizes else "?",
        ))  # fmt: skip
    return rows
