"""All limits of a search: Gaussian signals at many masses and the simulated signals of the results, in every spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hist
import numpy as np

from coffea_ad.errors import CoffeaADError
from coffea_ad.progress import progress
from coffea_ad.results.results import Results
from coffea_ad.running.dispatch import Failure, dispatch
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.hunting import Hunts, Prepared
from coffea_ad.search.limits import Limit, LimitTask, limit_of_task, tasks_of
from coffea_ad.search.spectra import Spectrum
from coffea_ad.search.spurious import Templates, spurious_signal
from coffea_ad.weights import cross_section, era_of, has_cross_section, kind_of, process_of

__all__ = ["cross_sections_of", "in_pb", "set_limits", "signal_tasks", "with_spurious"]


def set_limits(
    hunts: Hunts,
    config: SearchConfig,
    results: Results | None,
    part: float = 1.0,
    cluster: Any = None,
    templates: Templates | None = None,
) -> tuple[list[Limit], list[str]]:
    """Return all limits, in the order of spectra, signals and masses; those that could not be set say why.

    With them come sentences on spectra whose simulated signals cannot be read.

    Parameters
    ----------
    hunts : Hunts
    config : SearchConfig
    results : Results or None
        Where simulated signals are looked for.
    part : float
        Of the luminosity, that pseudo-data were drawn for.
    cluster : ClusterConfig, distributed.Client or None
    templates : Templates, optional
        Simulated background, in which signals are made up that count as an error.
    """
    tasks, notes = list[LimitTask](), list[str]()
    for hunted in hunts.spectra.values():
        p = hunted.prepared
        f = p.background.fit
        of_spectrum = tasks_of(
            p.spectrum, f.family, f.order, p.sqrt_s, widths=config.limits.widths, masses=config.limits.masses,
            places=config.limits.places, resolution=config.resolution,
        )  # fmt: skip
        if results is not None and config.limits.signals:
            try:
                of_spectrum += signal_tasks(results, p, part, config)
            except CoffeaADError as error:
                notes.append(f"{p.spectrum.name}: no limits on simulated signals ({error})")
        if templates is not None:
            try:
                of_spectrum = with_spurious(of_spectrum, templates.of(p))
            except CoffeaADError as error:
                notes.append(f"{p.spectrum.name}: limits are without an error by spurious signals ({error})")
        tasks += of_spectrum
    out: dict[int, Limit] = {}
    with progress("limits", len(tasks)) as advance:
        for (i, task), result in dispatch(_limit, [((i, t), "") for i, t in enumerate(tasks)], {"": None}, cluster):
            said = Limit(
                task.spectrum.name,
                task.mass,
                task.width,
                task.name,
                said=f"spectrum {task.spectrum.name}, {task.mass:g} GeV: {result}",
            )
            out[i] = said if isinstance(result, Failure) else result
            advance()
    return [out[i] for i in range(len(tasks))], notes


def with_spurious(tasks: list[LimitTask], template: Spectrum) -> list[LimitTask]:
    """Return limits with what their function makes up of their signals in simulated background.

    Raises
    ------
    FitFailed
        The simulated spectrum cannot be fitted.
    """
    out = []
    for task in tasks:
        total = float(task.signal.sum())
        if not total > 0:
            out.append(task)
            continue
        s = spurious_signal(template, task.family, task.order, task.sqrt_s, task.signal / total)
        out.append(task._replace(spurious=abs(s.strength)))
    return out


def _limit(item: tuple[int, LimitTask], _shared: Any) -> Limit:
    return limit_of_task(item[1])


def signal_tasks(results: Results, prepared: Prepared, part: float, config: SearchConfig) -> list[LimitTask]:
    """Return the limits on simulated signals: their events at the luminosity, with statistics and variations."""
    if "signal" not in {kind_of(e["metadata"]) for e in results.report["datasets"].values()}:
        return []
    signals = results.signals(prepared.observable, prepared.region, era=config.era)
    out = []
    f = prepared.background.fit
    for name, histogram in signals.items():
        nominal = _in_bins(histogram, "nominal", prepared.spectrum)
        if not nominal.counts.sum() > 0:  # what sets the limit says so
            none = np.zeros(len(nominal.counts))
            out.append(
                LimitTask(prepared.spectrum, f.family, f.order, prepared.sqrt_s, 0.0, 0.0, shape=none, name=name)
            )
            continue
        counts = np.maximum(nominal.counts, 0.0) * part
        centers = (nominal.edges[:-1] + nominal.edges[1:]) / 2
        mass = float((counts * centers).sum() / counts.sum())
        spread = float(np.sqrt((counts * (centers - mass) ** 2).sum() / counts.sum()))
        statistics = float(np.sqrt(nominal.variance.sum()) / nominal.counts.sum())
        error = float(np.hypot(statistics, config.limits.lumi_error))
        shifted = {k: (u * part, d * part) for k, (u, d) in _variations(histogram, prepared.spectrum).items()}
        out.append(
            LimitTask(
                prepared.spectrum,
                f.family,
                f.order,
                prepared.sqrt_s,
                mass,
                spread / mass,
                0.0,
                counts,
                error,
                shifted,
                name,
            )
        )
    return out


def _in_bins(histogram: hist.Hist, variation: str, spectrum: Spectrum) -> Spectrum:
    of = Spectrum.of_histogram(variation, histogram[{"variation": variation}])
    return of.between(float(spectrum.edges[0]), float(spectrum.edges[-1])).merged(spectrum.edges)


def _variations(histogram: hist.Hist, spectrum: Spectrum) -> dict[str, tuple[Any, Any]]:
    """Return the events of variations that go up and down, {source: (up, down)}."""
    names = list(histogram.axes["variation"])
    out = {}
    for name in names:
        source = name.removesuffix("Up")
        if name.endswith("Up") and f"{source}Down" in names:
            out[source] = tuple(
                np.maximum(_in_bins(histogram, source + way, spectrum).counts, 0.0) for way in ("Up", "Down")
            )
    return out  # type: ignore[return-value]


def cross_sections_of(results: Results, era: str | None = None) -> Mapping[str, float]:
    """Return the cross-sections of processes, pb, that their datasets give; at the largest √s, where there are several."""
    known: dict[str, tuple[float, float]] = {}
    for name, entry in results.report["datasets"].items():
        metadata = entry["metadata"]
        if has_cross_section(metadata) and era in (None, era_of(metadata)):
            process = process_of(name, metadata)
            one = (float(metadata.get("sqrt_s") or 0.0), cross_section(name, metadata))
            known[process] = max(known.get(process, (0.0, 0.0)), one)
    return {process: pb for process, (_, pb) in known.items()}


def in_pb(limit: Limit, lumi: float | None, cross_sections: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return a limit as of JSON.

    Beside the events there are σ × A × ε × B in pb (`cross_section`) where the luminosity is known, and for a simulated signal the excluded multiple of
    what its results expect (`strength`), with the cross-section of the signal itself, pb (`signal_cross_section`).

    Parameters
    ----------
    limit : Limit
    lumi : float, fb⁻¹, or None
    cross_sections : {process: pb}, optional
        As of `cross_sections_of`.
    """
    out: dict[str, Any] = dict(limit._asdict())
    if not limit.expected:
        return out
    if lumi is not None and lumi > 0:
        out["cross_section"] = _times(limit, 1 / (1000 * lumi))
    if limit.signal_events > 0:
        out["strength"] = _times(limit, 1 / limit.signal_events)
        if limit.signal in (cross_sections or {}):
            out["signal_cross_section"] = _times(limit, (cross_sections or {})[limit.signal] / limit.signal_events)
    return out


def _times(limit: Limit, factor: float) -> dict[str, Any]:
    observed = None if limit.observed is None else limit.observed * factor
    return {"observed": observed, "expected": [e * factor for e in limit.expected]}
