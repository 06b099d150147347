"""Results as ROOT histograms at luminosity, under the names that combine looks for; pyhf and others read them too."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hist
import uproot

from coffea_ad import files
from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.results.results import Results
from coffea_ad.results.sums import sum_of
from coffea_ad.weights import kind_of

__all__ = ["DATA", "root_file", "shapes", "write_root"]

DATA = "data_obs"
"""The name that combine gives to data."""


class _Memory(io.BytesIO):
    """Bytes that outlive the file that is written into them."""

    def close(self) -> None:
        pass


def shapes(
    results: Results,
    *,
    observables: Sequence[str] = (),
    regions: Sequence[str] = (),
    era: str | None = None,
    asimov: bool = False,
) -> tuple[dict[str, hist.Hist], list[str]]:
    """Return one-dimensional histograms at luminosity by path, and what is not among them.

    Paths are `observable/region/process` for the nominal, `observable/region/process_sourceUp` for a variation, and
    `observable/region/data_obs` for all data, as in `shapes * * shapes.root mt/$CHANNEL/$PROCESS mt/$CHANNEL/$PROCESS_$SYSTEMATIC`.

    Parameters
    ----------
    results : Results
    observables, regions : sequence of str
        All by default.
    era : str, optional
        One only; without, all are added.
    asimov : bool
        `data_obs` is the sum of the backgrounds, not what was observed.

    Returns
    -------
    histograms : {path: Hist}
    notes : list of str

    Raises
    ------
    UnknownName
        There is no such observable or region.
    ConfigError
        There is no simulation; a process has a name that is taken; eras do not fit.
    NotNormalisable
        The weights of a dataset sum to 0.
    """
    known: dict[str, list[str]] = {}
    for named in results.in_regions.values():
        for name, histogram in named.items():
            if histogram.ndim == 3:
                listed = known.setdefault(name, [])
                listed += [r for r in histogram.axes["region"] if r not in listed]
    for wanted, what, names in (
        (observables, "observable", list(known)),
        (regions, "region", list(dict.fromkeys(r for of in known.values() for r in of))),
    ):
        for name in wanted:
            if name not in names:
                raise UnknownName.of(what, name, names)
    kinds = {kind_of(entry["metadata"]) for entry in results.report["datasets"].values()}
    out: dict[str, hist.Hist] = {}
    notes: list[str] = []
    for observable in observables or known:
        for region in [r for r in known[observable] if not regions or r in regions]:
            path = f"{observable}/{region}"
            processes = results.background(observable, region, era=era) if "background" in kinds else {}
            expected = [h[{"variation": "nominal"}] for h in processes.values()]
            if "signal" in kinds:
                processes = _joined(processes, results.signals(observable, region, era=era))
            for process, histogram in processes.items():
                for variation in histogram.axes["variation"]:
                    name = process if variation == "nominal" else f"{process}_{variation}"
                    _put(out, f"{path}/{name}", histogram[{"variation": variation}])
            try:
                if asimov and expected:
                    _put(out, f"{path}/{DATA}", sum_of(expected))
                elif "data" in kinds and not asimov:
                    _put(out, f"{path}/{DATA}", results.data(observable, region, era=era))
            except ConfigError as error:
                if "hidden" not in str(error):
                    raise
                notes.append(str(error))
    if not out:
        raise ConfigError("the results hold no histogram over regions and one observable")
    if not any(path.endswith(f"/{DATA}") for path in out):
        notes.append(
            f"there are no data, and so no {DATA}, which combine asks for: --asimov takes the sum of the backgrounds"
        )
    return out, list(dict.fromkeys(notes))


def _joined(one: dict[str, hist.Hist], two: dict[str, hist.Hist]) -> dict[str, hist.Hist]:
    twice = sorted(one.keys() & two.keys())
    if twice:
        raise ConfigError(f"process {twice[0]} is both background and signal; name its datasets apart with `process`")
    return {**one, **two}


def _put(out: dict[str, hist.Hist], path: str, histogram: hist.Hist) -> None:
    if path in out:
        raise ConfigError(
            f"two histograms would be {path}: a process is named like another, or like a variation of one"
        )
    if not files.is_name(path.rpartition("/")[2]):
        raise ConfigError(
            f"{path}: a process must be named with letters, digits and _ . + - only; name it with `process`"
        )
    out[path] = histogram


def write_root(results: Results, path: str | Path, **choice: Any) -> tuple[list[str], list[str]]:
    """Write `shapes` as TH1 into a ROOT file.

    Parameters
    ----------
    results : Results
    path : path or fsspec URL
    **choice
        As for `shapes`.

    Returns
    -------
    paths : list of str
        Of the histograms in the file.
    notes : list of str

    Raises
    ------
    UnknownName, ConfigError, NotNormalisable
        As for `shapes`.
    NotWritten
    """
    histograms, notes = shapes(results, **choice)
    files.write(path, root_file(histograms))
    return list(histograms), notes


def root_file(histograms: Mapping[str, hist.Hist]) -> bytes:
    """Return the content of a ROOT file with histograms as TH1, by path; weighted ones keep their sums of squared weights."""
    content = _Memory()
    with uproot.recreate(content) as file:
        for name, histogram in histograms.items():
            file[name] = histogram
    return content.getvalue()
