"""Luminosity sections of data: which a file holds, which were processed, and the luminosity of those.

A golden JSON {run: [[first, last], …]} stands for a set of sections, as everywhere at CMS.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import BadFile, ConfigError, UnknownName
from coffea_ad.files import as_name
from coffea_ad.weights import era_of, is_simulation

__all__ = [
    "Given",
    "Golden",
    "Luminosities",
    "SectionTable",
    "account",
    "as_given",
    "certify",
    "golden",
    "golden_files",
    "listed",
    "number_of_sections",
    "sections_in",
    "union",
]

Golden = dict[str, list[list[int]]]
"""{run: [[first, last], …]}, both ends included."""
Given = float | str | dict[str, float] | None
"""A number of fb⁻¹, the file of a table, or numbers by era."""
Pairs = npt.NDArray[np.uint32]

_IN_FB = {"fb": 1.0, "pb": 1e-3, "nb": 1e-6, "ub": 1e-9, "mb": 1e-12, "b": 1e-15}
_UNIT = re.compile(r"recorded\(/(\w+)\)")


def golden(pairs: npt.ArrayLike) -> Golden:
    """Return (n, 2) runs and sections as a golden JSON.

    >>> golden([[7, 2], [7, 1], [7, 2], [7, 5], [3, 1]])
    {'3': [[1, 1]], '7': [[1, 2], [5, 5]]}
    """
    table = np.unique(np.asarray(pairs, np.int64).reshape(-1, 2), axis=0)
    out: Golden = {}
    for run in np.unique(table[:, 0]):
        blocks = table[table[:, 0] == run, 1]
        for part in np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1):
            out.setdefault(str(run), []).append([int(part[0]), int(part[-1])])
    return out


def listed(sections: Mapping[str, Iterable[Iterable[int]]]) -> Pairs:
    """Return the (n, 2) runs and sections of a golden JSON.

    >>> listed({"7": [[1, 2], [5, 5]]}).tolist()
    [[7, 1], [7, 2], [7, 5]]
    """
    parts = [
        np.column_stack([np.full(last - first + 1, int(run)), np.arange(first, last + 1)])
        for run, ranges in sections.items() for first, last in ranges
    ]  # fmt: skip
    return np.concatenate([np.zeros((0, 2), np.int64), *parts]).astype(np.uint32)


def union(several: Iterable[Golden]) -> Golden:
    """Return the sections that are in any of several.

    >>> union([{"7": [[1, 2]]}, {"7": [[2, 3]]}])
    {'7': [[1, 3]]}
    """
    return golden(np.concatenate([np.zeros((0, 2), np.uint32), *map(listed, several)]))


def number_of_sections(sections: Mapping[str, Iterable[Iterable[int]]]) -> int:
    """Return how many sections a golden JSON names.

    >>> number_of_sections({"7": [[1, 2], [5, 5]]})
    3
    """
    return sum(last - first + 1 for ranges in sections.values() for first, last in ranges)


def sections_in(file: Any) -> Golden | None:
    """Return the sections that a ROOT file lists in `LuminosityBlocks`, or None if it has no such list.

    One that is there and cannot be read is an error, as that of any other part of the file: it may come from the network.
    """
    try:
        columns = [file["LuminosityBlocks"][name] for name in ("run", "luminosityBlock")]
    except KeyError:
        return None
    return golden(np.column_stack([column.array(library="np") for column in columns]))


class SectionTable:
    """The recorded luminosity of sections, of a CSV file of brilcalc; coffea looks them up.

    Parameters
    ----------
    file : path
        What `brilcalc lumi --byls --output-style csv` writes; its unit is that of its header.

    Raises
    ------
    BadFile
        It is none.
    """

    def __init__(self, file: str | Path) -> None:
        from coffea.lumi_tools import LumiData  # noqa: PLC0415  compiles when it is imported, and few runs need it

        try:
            found = _UNIT.search(Path(file).expanduser().read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise BadFile(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
        if found is None or found[1] not in _IN_FB:
            raise BadFile(f"{file}: no table of brilcalc by luminosity section: its header names no recorded(/unit)")
        self.file, self.unit = str(file), _IN_FB[found[1]]
        try:
            self.table = LumiData(str(Path(file).expanduser()))
        except (ValueError, IndexError) as error:
            raise BadFile(f"{file}: no table of brilcalc by luminosity section ({str(error)[:100]})") from None
        known = np.atleast_2d(self.table._lumidata)[:, :2]  # noqa: SLF001
        self.table._lumidata = np.atleast_2d(self.table._lumidata)  # noqa: SLF001  a table of one section
        self.known = golden(known)

    def recorded(self, sections: Golden) -> float:
        """Return the recorded luminosity of sections, fb⁻¹; what the table does not name has none."""
        return float(self.table.get_lumi(listed(sections))) * self.unit

    def lacking(self, sections: Golden) -> int:
        """Return how many of some sections the table does not name."""
        wanted, known = (set(map(tuple, listed(s).tolist())) for s in (sections, self.known))
        return len(wanted - known)


def as_given(lumi: Any) -> Given:
    """Return a luminosity as it may stand in a report: a number of fb⁻¹, numbers by era, or the file of a table.

    Parameters
    ----------
    lumi : float, mapping, path, str or None
        A text is a number, `2022=8.0,2023=17.8`, or a file.

    Raises
    ------
    ConfigError

    Examples
    --------
    >>> as_given("59.8"), as_given("2022=8,2023=17.8")
    (59.8, {'2022': 8.0, '2023': 17.8})
    """
    if isinstance(lumi, Mapping):
        return {str(era): _positive(value, f"lumi of era {era}") for era, value in lumi.items()}
    if lumi is None or isinstance(lumi, (int, float)):
        return None if lumi is None else _positive(lumi, "lumi")
    try:
        return _positive(float(str(lumi)), "lumi")
    except ValueError:
        pass
    path = Path(lumi).expanduser()
    if path.is_file():
        return str(path.resolve())
    pairs = [pair.partition("=") for pair in str(lumi).split(",")]
    if all(era and sign for era, sign, _ in pairs):
        if len({era for era, *_ in pairs}) < len(pairs):
            raise ConfigError(f"lumi is {lumi}, which names an era twice")
        return {era.strip(): _positive(value, f"lumi of era {era}") for era, _, value in pairs}
    raise ConfigError(
        f"lumi is {lumi}, but must be a positive number of fb⁻¹, numbers of eras as in 2022=8.0,2023=17.8, or a brilcalc table "
        "that is there"
    )


def _positive(value: Any, what: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        raise ConfigError(f"{what} is {value}, but must be a positive number of fb⁻¹")
    return number


class Luminosities:
    """What was given as luminosity, and which datasets it is that of.

    Parameters
    ----------
    given : float, {era: float}, path or None
        As `as_given` returns it; `lumi` in the metadata of a dataset goes before.

    Raises
    ------
    BadFile
        The file is no table of brilcalc.
    """

    def __init__(self, given: Given) -> None:
        self.given = given
        self.table = SectionTable(given) if isinstance(given, str) else None

    def of(self, metadata: Mapping[str, Any]) -> float | None:
        """Return the number that was given for a dataset, fb⁻¹; None if there is none, or a table tells it."""
        if metadata.get("lumi") is not None:
            return float(metadata["lumi"])
        if isinstance(self.given, dict):
            return self.given.get(era_of(metadata))
        return self.given if isinstance(self.given, float) else None

    def check(self, datasets: Mapping[str, Mapping[str, Any]], *, normalise: bool) -> None:
        """Refuse what some datasets cannot be normalised with.

        Parameters
        ----------
        datasets : {dataset: metadata}
        normalise : bool
            Something will be brought to a luminosity.

        Raises
        ------
        ConfigError
            Data, or datasets of an era, have no luminosity; a table comes without data; an era is of no dataset.
        """
        data = [name for name, metadata in datasets.items() if is_simulation(metadata) is False]
        if self.table is not None:
            if not data:
                raise ConfigError(
                    f"{self.given}: the luminosity is that of the data's sections, and there are no data; give it in fb⁻¹"
                )
            eras = {era_of(datasets[name]) for name in data}
            lacking = [n for n, m in datasets.items() if self.of(m) is None and era_of(m) not in eras]
            if lacking and normalise:
                raise ConfigError(
                    f"dataset {lacking[0]}: the luminosity of era {era_of(datasets[lacking[0]]) or '(none)'} is that of its "
                    "data, and it has none"
                )
            return
        if isinstance(self.given, dict):
            eras = {era_of(metadata) for metadata in datasets.values()}
            for era in self.given:
                if era not in eras:
                    raise UnknownName.of("era", era, sorted(eras - {""}))
            for name, metadata in datasets.items():
                if self.of(metadata) is None and normalise:
                    where = f"of era {era_of(metadata)}" if era_of(metadata) else "its metadata name no era"
                    raise ConfigError(f"dataset {name}: the luminosity is given by era, and none is for it ({where})")
        missing = [name for name in data if self.of(datasets[name]) is None]
        if missing and normalise:
            raise ConfigError(
                f"dataset {missing[0]}: these are data; give their luminosity in fb⁻¹ with --lumi (lumi=…)"
            )

    def settle(self, datasets: Mapping[str, dict[str, Any]]) -> tuple[float | None, list[str]]:
        """Say at which luminosity every dataset is: what was given, or what was recorded in the processed sections of its era.

        Simulation alone is at 1 fb⁻¹ where nothing was given.

        Parameters
        ----------
        datasets : {dataset: dict}
            Of a report; gets `lumi`, and of data what `account` adds.

        Returns
        -------
        lumi : float or None
            fb⁻¹, the one of all datasets; None if they have several, or none.
        notes : list of str
        """
        no_data = all(is_simulation(entry["metadata"]) is not False for entry in datasets.values())
        notes: list[str] = []
        by_era: dict[str, dict[str, dict[str, Any]]] = {}
        for name, entry in datasets.items():
            by_era.setdefault(era_of(entry["metadata"]), {})[name] = entry
        of_era: dict[str, float | None] = {}
        for era, entries in by_era.items():
            first = next(iter(entries.values()))["metadata"]
            asked = 1.0 if no_data and self.given is None else self.of({k: v for k, v in first.items() if k != "lumi"})
            of_era[era], said = account(entries, self.table, asked)
            notes += said
            for entry in entries.values():
                recorded = entry.get("luminosity", {}).get("recorded")
                stated = entry["metadata"].get("lumi")
                entry["lumi"] = float(stated) if stated is not None else of_era[era] if recorded is None else recorded
        simulated = sorted(
            e for e, of in by_era.items() if any(is_simulation(d["metadata"]) is not False for d in of.values())
        )
        if isinstance(self.given, float) and len(simulated) > 1:
            notes.append(
                f"eras {', '.join(e or '(none)' for e in simulated)}: simulation of each is at {self.given:g} fb⁻¹; give each era its own "
                f"with --lumi {simulated[0]}=…,{simulated[1]}=…"
            )
        stated = any(entry["metadata"].get("lumi") is not None for entry in datasets.values())
        one = set(of_era.values())
        return (one.pop() if len(one) == 1 and not stated and not isinstance(self.given, dict) else None), notes


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


def _without(sections: Golden, others: Golden) -> Golden:
    one, two = (listed(s).astype(np.uint64) @ np.array([2**32, 1], np.uint64) for s in (sections, others))
    return golden(listed(sections)[~np.isin(one, two)])


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
    return complete, [(part, _without(sections, complete)) for part, sections in parts]


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
    found = {name: _sections(entry) for name, entry in data.items()}
    for name, (complete, parts) in found.items():
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
    shared = union(complete for complete, _ in found.values())
    for name, (complete, _) in found.items():
        lost = [
            o
            for o, (c, _) in found.items()
            if o != name and number_of_sections(_without(c, complete)) < number_of_sections(c)
        ]
        missing = number_of_sections(_without(union(found[o][0] for o in lost), complete)) if lost else 0
        if missing:
            notes.append(
                f"{name}: {missing} luminosity sections of {', '.join(lost)} were not processed in it, and count all the same"
            )
    lacking = table.lacking(shared)
    if lacking:
        notes.append(
            f"{table.file}: {lacking} of the processed luminosity sections are not in it, and count as no luminosity"
        )
    parts = [(part, _without(s, shared)) for _, several in found.values() for part, s in several]
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
        given = (
            f"; {lumi:g} fb⁻¹ is taken as it was given: with a brilcalc table as --lumi, it would be that of what was processed"
            if table is None and lumi is not None else ""
        )  # fmt: skip
        notes.append(f"{name}: {of}{unopened}{given}")
    return notes


def golden_files(datasets: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Return {file name: content} of the golden JSON of every dataset of data.

    >>> golden_files({"met": {"sections": {"7": [[1, 2]]}}, "tt": {}})
    {'met.json': b'{"7": [[1, 2]]}'}
    """
    return {
        f"{as_name(name)}.json": json.dumps(entry["sections"]).encode()
        for name, entry in datasets.items()
        if entry.get("sections")
    }
