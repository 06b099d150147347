"""What a search leaves for others: tables of HEPData, workspaces of pyhf and datacards of combine."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import files
from coffea_ad.search.channels import Channel, Sample, workspace
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.exports import LimitTable, SpectrumTable, write_datacard, write_hepdata
from coffea_ad.search.hunting import Hunted, Hunts
from coffea_ad.search.limiting import in_pb, signal_tasks
from coffea_ad.search.limits import Limit, LimitTask, channel_of_task
from coffea_ad.search.reading import SpectraRead

__all__ = ["DATACARDS", "HEPDATA", "WORKSPACES", "export", "limit_tables", "spectrum_table"]

HEPDATA, WORKSPACES, DATACARDS = "hepdata", "workspaces", "datacards"
_LONGEST = 64  # characters of a table's name, by HEPData


def export(
    hunts: Hunts, config: SearchConfig, read: SpectraRead, limits: Sequence[Limit], folder: str | Path
) -> list[str]:
    """Write `hepdata/`, and `workspaces/NAME.json` and `datacards/NAME/` of each simulated signal in each spectrum.

    Parameters
    ----------
    hunts : Hunts
    config : SearchConfig
    read : SpectraRead
        What was searched.
    limits : sequence of Limit
    folder : path
        Of the search.

    Returns
    -------
    list of str
        What could not be written, and why; the search itself stays.
    """
    notes: list[str] = []
    _try("hepdata", lambda: notes.extend(_hepdata(hunts, read, limits, folder)), notes)
    if read.results is None or not config.limits.signals:
        return notes
    strengths = {
        (limit.spectrum, limit.signal): limit.expected[-1] / limit.signal_events
        for limit in limits
        if limit.expected and limit.signal_events > 0
    }
    names: set[str] = set()
    for spectrum, hunted in hunts.spectra.items():
        if not any(spectrum == name for name, _ in strengths):
            continue
        for task in signal_tasks(read.results, hunted.prepared, read.part, config):
            highest = strengths.get((spectrum, task.name))
            if highest is None:  # there is no limit, and a note says why
                continue
            name = files.as_name(f"{spectrum}_{task.name}")
            if name in names:
                notes.append(f"export {name}: another spectrum and signal have this name, and it was left out")
                continue
            names.add(name)
            _try(name, lambda t=task, n=name, h=highest: _statistics(t, n, h, folder), notes)  # type: ignore[misc]
    return notes


def _try(what: str, write: Callable[[], None], notes: list[str]) -> None:
    try:
        write()
    except Exception as error:  # noqa: BLE001 - of a library, perhaps; the search itself is not lost by it
        notes.append(
            f"export {what}: it was not written ({' '.join(str(error).split())[:200] or type(error).__name__})"
        )


def _statistics(task: LimitTask, name: str, highest: float, folder: str | Path) -> None:
    """Write the workspace and the datacard of a signal in a spectrum."""
    window = channel_of_task(task)
    samples = {"background": window.samples["background"], _signal(task.name): window.samples["signal"]}
    channel = replace(window, name=name, samples=samples, unit="GeV", label=task.spectrum.label)
    spec = workspace([channel])
    spec["measurements"][0]["config"]["parameters"][0]["bounds"] = [[0.0, max(10.0, 20 * highest)]]
    files.write(files.join(folder, WORKSPACES, f"{name}.json"), json.dumps(spec, indent=1).encode())
    write_datacard([channel], files.join(folder, DATACARDS, name))


def _signal(name: str) -> str:
    short = files.as_name(name)
    return "signal" if short == "background" else short


def _hepdata(hunts: Hunts, read: SpectraRead, limits: Sequence[Limit], folder: str | Path) -> list[str]:
    seen = read.source == "data"
    tables: list[SpectrumTable | LimitTable] = [spectrum_table(n, h, observed=seen) for n, h in hunts.spectra.items()]
    tables += limit_tables(limits, read.lumi, observed=seen)
    notes, usable = list[str](), dict[str, SpectrumTable | LimitTable]()
    for table in tables:
        if len(table.name) > _LONGEST or table.name.lower() in usable:
            notes.append(f"export hepdata: table {table.name} was left out, since its name is too long or another's")
        else:
            usable[table.name.lower()] = table
    if usable:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # the validator leaves files open
            write_hepdata(list(usable.values()), files.join(folder, HEPDATA), comment="" if seen else _drawn(read))
    return notes


def _drawn(read: SpectraRead) -> str:
    return f"There are no data in this: {read.source}."


def spectrum_table(name: str, hunted: Hunted, *, observed: bool = True) -> SpectrumTable:
    """Return the table of a spectrum: events, and the fitted background with its error.

    Parameters
    ----------
    name : str
        Of the spectrum.
    hunted : Hunted
    observed : bool
        Whether its events are data.
    """
    f = hunted.prepared.background.fit
    b, error = f.background, f.error
    variations = {"fit": (b + error, b - error)}
    background = {"background": Sample(b, np.zeros(len(b)), variations=variations)}
    channel = Channel(
        files.as_name(name), f.spectrum.edges, f.spectrum.counts, background, "GeV", f.spectrum.label or name
    )
    text = f"{name}: events and the fitted function {f.family} of {f.order} parameters."
    return SpectrumTable(files.as_name(f"spectrum_{name}"), text, channel, observed)


def limit_tables(limits: Iterable[Limit], lumi: float | None, *, observed: bool = True) -> list[LimitTable]:
    """Return a table of each spectrum and width: limits on Gaussian signals against their mass, in pb where the luminosity is known."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for limit in limits:
        if not limit.signal and limit.expected and limit.observed is not None:
            groups.setdefault((limit.spectrum, limit.width), []).append(in_pb(limit, lumi))
    out = []
    for (spectrum, width), several in groups.items():
        several.sort(key=lambda one: one["mass"])
        values = [one.get("cross_section", one) for one in several]
        bands = np.array([v["expected"] for v in values]).T
        known = "cross_section" in several[0]
        out.append(LimitTable(
            files.as_name(f"limits_{spectrum}_width_{width:g}"),
            f"{spectrum}: 95% CLs upper limits on Gaussian signals of relative width {width:g}.",
            [one["mass"] for one in several], [v["observed"] for v in values] if observed else None, bands[2],
            {1: (bands[1], bands[3]), 2: (bands[0], bands[4])},
            "95% CL upper limit on " + ("cross section times acceptance times branching" if known else "events"),
            "pb" if known else "events",
        ))  # fmt: skip
    return out
