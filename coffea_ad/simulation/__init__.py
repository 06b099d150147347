"""Pythia 8 → parametric detector → NanoAOD, for demos, closure tests and benchmarks (extra `simulate`)."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coffea_ad import files
from coffea_ad.errors import ConfigError, SimulationError
from coffea_ad.progress import progress
from coffea_ad.simulation.generator import BLOCK, generate
from coffea_ad.simulation.processes import PROCESSES, Process, resolve
from coffea_ad.simulation.writer import Layout, NanoAODWriter

__all__ = ["PROCESSES", "Process", "simulate"]


def _changed(name: str, values: Mapping[str, Any]) -> str:
    """Return the parameters that are not the usual ones, in words."""
    usual = PROCESSES[name].parameters
    changed = ", ".join(f"{key}={value:g}" for key, value in values.items() if value != usual[key])
    return f" with {changed}" if changed else ""


@contextmanager
def _pool(workers: int) -> Iterator[Any]:
    """Yield worker processes, which the next sample takes over if it comes within seconds: to start them takes as long as many events."""
    from loky import get_reusable_executor

    pool = get_reusable_executor(max_workers=workers, timeout=10)
    try:
        yield pool
    except BaseException:
        pool.shutdown(kill_workers=True)
        raise


def simulate(
    name: str,
    n_events: int,
    output: str | Path,
    *,
    seed: int = 1,
    layout: Layout = "v15",
    parameters: Mapping[str, Any] | None = None,
    workers: int | None = None,
) -> dict[str, Any]:
    """Simulate one process and write it in NanoAOD layout.

    The events depend on the process, its parameters and the seed, not on the number of workers.

    Parameters
    ----------
    name : str
        A key of `PROCESSES`.
    n_events : int
        How many.
    output : path
        The ROOT file to make.
    seed : int
        Fixes everything random, and is the run number of the events.
    layout : "v15" or "pfnano"
        Central NanoAOD v15, or the same events under PFNano's names.
    parameters : mapping, optional
        Parameters of the process other than its defaults; `ecm`, the centre-of-mass energy in GeV, is one of all.
    workers : int, optional
        Processes; all cores by default.

    Returns
    -------
    dict
        What also stands in the file under `simulation`: process, parameters, settings, seed, sqrt_s (GeV), cross_section
        (pb), sumw, and whether it is a signal. `coffea-ad fileset` takes it over.

    Raises
    ------
    UnknownName, ConfigError, SimulationError

    References
    ----------
    C. Bierlich et al., "A comprehensive guide to the physics and usage of PYTHIA 8.3", arXiv:2203.11601.
    """
    values, settings = resolve(name, parameters)
    if n_events < 1:
        raise ConfigError(f"the number of events is {n_events}, but must be positive")
    if workers is not None and workers < 1:
        raise ConfigError(f"workers is {workers}, but must be at least 1")
    if not 1 <= seed < 2**32:
        raise ConfigError(f"the seed is {seed}, but must be positive and below 2³²")
    if layout not in ("v15", "pfnano"):
        raise ConfigError(f"layout is {layout!r}, but must be 'v15' or 'pfnano'")
    try:
        pythia_version = importlib.metadata.version("pythia8mc")
    except importlib.metadata.PackageNotFoundError as error:
        raise SimulationError("simulation needs Pythia 8: pip install 'coffea-ad[simulate]'") from error
    sizes = [min(BLOCK, n_events - start) for start in range(0, n_events, BLOCK)]
    with files.replacing(output) as file:
        writer = NanoAODWriter(file, layout, seed, values["ecm"])
        with (
            _pool(min(workers or os.cpu_count() or 1, len(sizes))) as pool,
            progress(f"simulate {name}", n_events) as advance,
        ):
            futures = [pool.submit(generate, settings, seed, i, size) for i, size in enumerate(sizes)]
            for i, size in enumerate(sizes):
                try:
                    writer.add(futures[i].result())
                except SimulationError as error:  # Pythia does not say which of its settings it dislikes
                    raise SimulationError(f"{name}{_changed(name, values)}: {error}") from None
                futures[i] = None  # what is written need not stay in memory
                advance(size)
        record = {
            "process": name,
            "title": PROCESSES[name].title,
            "signal": PROCESSES[name].signal,
            "sqrt_s": values["ecm"],
            "parameters": values,
            "settings": settings,
            "seed": seed,
            "layout": layout,
            "n_events": writer.n_events,
            "cross_section": writer.cross_section,
            "sumw": writer.sumw,
            "pythia8mc": pythia_version,
        }
        writer.close(record)
    return record
