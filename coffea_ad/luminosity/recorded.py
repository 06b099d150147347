"""The luminosity that results are normalised to: one number, one for each era, or that of the processed sections."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.luminosity.account import account
from coffea_ad.luminosity.tables import SectionTable
from coffea_ad.weights import era_of, is_simulation

__all__ = ["Luminosities", "LuminosityLike", "as_given"]


LuminosityLike = float | str | dict[str, float] | None
"""A number of fb⁻¹, the file of a table, or numbers by era."""


def as_given(lumi: Any) -> LuminosityLike:
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
    lumi : float, {era: float}, path or None
        As `as_given` returns it; `lumi` in the metadata of a dataset goes before.

    Raises
    ------
    BadFile
        The file is no table of brilcalc.
    """

    def __init__(self, lumi: LuminosityLike) -> None:
        self.lumi = lumi
        self.table = SectionTable(lumi) if isinstance(lumi, str) else None

    def of(self, metadata: Mapping[str, Any]) -> float | None:
        """Return the number that was given for a dataset, fb⁻¹; None if there is none, or a table tells it."""
        if metadata.get("lumi") is not None:
            return float(metadata["lumi"])
        if isinstance(self.lumi, dict):
            return self.lumi.get(era_of(metadata))
        return self.lumi if isinstance(self.lumi, float) else None

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
                    f"{self.lumi}: the luminosity is that of the data's sections, and there are no data; give it in fb⁻¹"
                )
            eras = {era_of(datasets[name]) for name in data}
            lacking = [n for n, m in datasets.items() if self.of(m) is None and era_of(m) not in eras]
            if lacking and normalise:
                raise ConfigError(
                    f"dataset {lacking[0]}: the luminosity of era {era_of(datasets[lacking[0]]) or '(none)'} is that of its "
                    "data, and it has none"
                )
            return
        if isinstance(self.lumi, dict):
            eras = {era_of(metadata) for metadata in datasets.values()}
            for era in self.lumi:
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
            asked = 1.0 if no_data and self.lumi is None else self.of({k: v for k, v in first.items() if k != "lumi"})
            of_era[era], said = account(entries, self.table, asked)
            notes += said
            for entry in entries.values():
                recorded = entry.get("luminosity", {}).get("recorded")
                stated = entry["metadata"].get("lumi")
                entry["lumi"] = float(stated) if stated is not None else of_era[era] if recorded is None else recorded
        simulated = sorted(
            e for e, of in by_era.items() if any(is_simulation(d["metadata"]) is not False for d in of.values())
        )
        if isinstance(self.lumi, float) and len(simulated) > 1:
            notes.append(
                f"eras {', '.join(e or '(none)' for e in simulated)}: simulation of each is at {self.lumi:g} fb⁻¹; give each era its own "
                f"with --lumi {simulated[0]}=…,{simulated[1]}=…"
            )
        stated = any(entry["metadata"].get("lumi") is not None for entry in datasets.values())
        one = set(of_era.values())
        return (one.pop() if len(one) == 1 and not stated and not isinstance(self.lumi, dict) else None), notes
