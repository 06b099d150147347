"""A search: spectra read, fitted, scanned and weighed against pseudo-experiments, into one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import files
from coffea_ad.errors import CoffeaADError, ConfigError, FitFailed
from coffea_ad.outputs import clear_figures
from coffea_ad.results.folder import finite
from coffea_ad.search.abcd import abcd
from coffea_ad.search.config import AbcdConfig, SearchConfig
from coffea_ad.search.envelope import envelope
from coffea_ad.search.exploring import Confirmed, explore
from coffea_ad.search.exporting import export
from coffea_ad.search.hunting import Bump, Hunted, Hunts, Prepared, hunt
from coffea_ad.search.injected import StrengthLimit, strength_limits
from coffea_ad.search.limiting import cross_sections_of, in_pb, set_limits
from coffea_ad.search.limits import Limit
from coffea_ad.search.listing import SCHEMA, SearchResults
from coffea_ad.search.reading import SpectraRead, read_spectra
from coffea_ad.search.region_limits import write_visible
from coffea_ad.search.sculpting import sculpting
from coffea_ad.search.signals import gaussian
from coffea_ad.search.smoothing import smooth
from coffea_ad.search.spurious import Templates, in_spectra
from coffea_ad.search.spurious import described as described_signals
from coffea_ad.search.templates import TemplateCount, count_templates
from coffea_ad.search.trials import Global, Trials
from coffea_ad.search.windows import significance_of
from coffea_ad.versions import versions
from coffea_ad.weights import kind_of

__all__ = ["described", "search"]

_PACKAGES = ("coffea-ad", "iminuit", "pyhf", "numpy", "scipy", "hist")


def search(
    path: str | Path,
    output: str | Path,
    config: SearchConfig | None = None,
    *,
    cluster: Any = None,
    figures: bool = True,
) -> SearchResults:
    """Search the spectra of a results folder (or ROOT or UHI file) for bumps, and write what came of it.

    Parameters
    ----------
    path : path
        A results folder, a `.root` file or a `.json` of UHI.
    output : path
        Folder for `search.json` with all numbers, `limits.json` with visible cross-sections, `figures/`, `hepdata/`, `workspaces/`, `datacards/`,
        and `toys/`, from which an interrupted search goes on.
    config : SearchConfig, optional
    cluster : ClusterConfig, distributed.Client or None
        Where pseudo-experiments are made; None: in this process.
    figures : bool

    Returns
    -------
    SearchResults
        The content of `search.json`, a dictionary.

    Raises
    ------
    BadFile, ConfigError, UnknownName
        As for `read_spectra`; √s is not known.
    """
    config = config or SearchConfig()
    folder = Path(output)
    read = read_spectra(
        path, observables=config.observables, regions=config.regions, source=config.source, era=config.era,
        resolution=config.resolution, interval=config.settings.interval, seed=config.seed,
    )  # fmt: skip
    sqrt_s = config.sqrt_s or read.sqrt_s
    if sqrt_s is None:
        raise ConfigError(f"{path}: its metadata give no centre-of-mass energy; say sqrt_s=13000")
    if read.source == "simulation":
        raise ConfigError("a bump hunt counts events: take source=pseudo-data in place of source=simulation")
    if read.source == "smooth":
        drawn, said = smooth(read.spectra, config.settings, sqrt_s)
        read = read._replace(spectra=drawn, notes=[*read.notes, *said])
    templates = Templates(read, config.era) if _simulated(read) else None
    if config.limits.spurious and templates is None:
        raise ConfigError("limits.spurious: spurious signals are measured in simulated background, and there is none")
    folder.mkdir(parents=True, exist_ok=True)
    confirmed: list[Confirmed] = []
    if config.explore_fraction is None:
        hunts = hunt(read.spectra, config.settings, sqrt_s, folder=folder / "toys", cluster=cluster)
    else:
        hunts, confirmed = explore(
            read.spectra, config.settings, sqrt_s, config.explore_fraction, config.explore_places, config.statistic,
            folder=folder / "toys", cluster=cluster,
        )  # fmt: skip
    _mark_sculpted(hunts, read, config)
    spurious, said = _spurious(hunts, templates, config)
    read.notes.extend(said)
    limits, counts, estimates = list[Limit](), list[TemplateCount](), list[dict[str, Any]]()
    strengths = list[StrengthLimit]()
    if (
        config.explore_fraction is not None
    ):  # all of this would count events that are not to be looked at, or only a part of them
        read.notes.append(
            "two stages: limits, counts against templates and ABCD estimates are those of a search of all events, and left out"
        )
    else:
        limits, said = set_limits(
            hunts, config, read.results, read.part, cluster, templates if config.limits.spurious else None
        )
        read.notes.extend(said)
        if read.results is not None and read.source == "data":
            counts, said = count_templates(read.results, config.era)
            read.notes.extend(said)
            if config.limits.injected is not None:
                strengths, said = strength_limits(read.results, counts, config.limits.injected, read.lumi)
                read.notes.extend(said)
        estimates = [_abcd(read, asked, config.era) for asked in config.abcd]
    content = described(hunts, config, read, sqrt_s, path, confirmed, limits, counts)
    content["abcd"] = estimates
    for name, signals in spurious.items():
        content["spectra"][name]["spurious"] = signals
    content["strengths"] = [s._asdict() for s in strengths]
    _write(content, folder)  # before exports, which others' libraries make
    if config.explore_fraction is None and (
        added := [
            *write_visible(read, config, folder),
            *(export(hunts, config, read, limits, folder) if config.exports else ()),
        ]
    ):
        content["notes"] += added
        _write(content, folder)
    for suffix in ("png", "pdf"):  # those of an earlier search
        clear_figures(folder, f"figures/*.{suffix}")
    if figures:
        from coffea_ad.search import figures as drawing

        drawing.draw_all(hunts, folder / "figures", config, read.lumi, limits)
    return SearchResults(content)


def _simulated(read: SpectraRead) -> bool:
    """Return whether there is simulated background."""
    return read.results is not None and "background" in {
        kind_of(e["metadata"]) for e in read.results.report["datasets"].values()
    }


def _spurious(
    hunts: Hunts, templates: Templates | None, config: SearchConfig
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Return the signals that the functions make up in simulation, and what is to be said of them."""
    if templates is None or not config.spurious or config.explore_fraction is not None:
        return {}, []
    of = config.limits
    signals, said = in_spectra(hunts, templates, of.widths, of.masses, of.places, config.resolution)
    return {name: described_signals(several) for name, several in signals.items()}, said


def _abcd(read: SpectraRead, asked: AbcdConfig, era: str | None) -> dict[str, Any]:
    """Return an ABCD estimate, or why there is none."""
    out = {"observable": asked.observable, "region": asked.region, "cut": asked.cut}
    if read.results is None:
        return {**out, "sentences": [f"{asked.region}, {asked.observable}: an ABCD estimate needs a results folder"]}
    try:
        e = abcd(
            read.results, asked.observable, asked.region, asked.cut, control=asked.control, subtract=asked.subtract or None,
            correct=asked.correct, era=era, unblind=asked.unblind,
        )  # fmt: skip
    except CoffeaADError as error:
        return {**out, "sentences": [f"{asked.region}, {asked.observable} above {asked.cut:g}: no estimate ({error})"]}
    return {
        **out, "control": e.control, "source": e.source, "expected": e.expected, "errors": e.errors, "observed": e.observed,
        "significance": e.significance, "closure": e.closure, "correction": e.correction, "edges": e.edges, "binned": e.binned.value,
        "sentences": e.sentences(),
    }  # fmt: skip


def _write(content: dict[str, Any], folder: Path) -> None:
    files.write(folder / "search.json", json.dumps(finite(content), indent=1, allow_nan=False).encode())


def _mark_sculpted(hunts: Hunts, read: SpectraRead, config: SearchConfig) -> None:
    """Note where simulation without signal has an excess in a region's shape at the place of a spectrum's largest one."""
    if read.results is None or not _simulated(read):
        return
    for name, hunted in hunts.spectra.items():
        p = hunted.prepared
        bump = p.bumps[config.statistic]
        if bump is None or p.region == "inclusive":
            continue
        try:
            shape = sculpting(read.results, p.observable, p.region, era=config.era, seed=config.seed)
        except CoffeaADError as error:
            hunts.unchecked[name] = f"{name}: whether the region sculpts it is not known ({error})"
            continue
        if shape.sculpts and shape.excess.low < bump.high and shape.excess.high > bump.low:
            hunts.sculpted[name] = shape.verdict


def described(
    hunts: Hunts,
    config: SearchConfig,
    read: SpectraRead,
    sqrt_s: float,
    path: str | Path,
    confirmed: list[Confirmed],
    limits: list[Limit],
    templates: list[TemplateCount],
) -> dict[str, Any]:
    """Return all numbers of a search, in the types of JSON."""
    positions = {
        n: {"windows": len(h.prepared.hunt.windows.begin), "signals": len(h.prepared.hunt.signals.mass)}
        for n, h in hunts.spectra.items()
    }
    of = config.statistic
    pb = None if read.results is None else cross_sections_of(read.results, config.era)
    return {
        "schema_version": SCHEMA,
        "input": {"path": str(path), "sha256": _digest(read), "histograms": _histograms(read)},
        "config": config.model_dump(mode="json"),
        "versions": versions(*_PACKAGES),
        "source": read.source,
        "sqrt_s": sqrt_s,
        "lumi": read.lumi,
        "statistic": of,
        "counted": {
            "spectra": len(hunts.spectra), "positions": positions,
            "statistics": "one, selected before: " + of, "observables": "independent of each other",
        },
        "global": {s: _global(hunts.p_global.get(s), hunts.trials.get(s)) for s in ("windows", "likelihood")},
        "largest": None if (top := hunts.largest_bump(of)) is None else {"spectrum": top[0], **top[1].__dict__},
        "spectra": {name: _spectrum(hunted, config) for name, hunted in hunts.spectra.items()},
        "limits": [in_pb(limit, read.lumi, pb) for limit in limits],
        "templates": [c._asdict() for c in templates],
        "sculpted": hunts.sculpted,
        "skipped": hunts.skipped,
        "confirmed": [c._asdict() for c in confirmed],
        "notes": [*read.notes, *hunts.notes, *hunts.unchecked.values(), *(limit.said for limit in limits if limit.said)],
        "verdict": verdict(hunts, config, templates),
    }  # fmt: skip


def verdict(hunts: Hunts, config: SearchConfig, templates: Sequence[TemplateCount] = ()) -> str:
    """Return what a search has found, in a sentence, or one for spectra and one for counts against templates."""
    counted = [_of_templates(templates)] if templates else []
    return "; ".join(counted if templates and not hunts.spectra else [_of_spectra(hunts, config), *counted])


def _of_templates(templates: Sequence[TemplateCount]) -> str:
    best = max(templates, key=lambda c: c.significance)
    p = -float(np.expm1(len(templates) * np.log1p(-min(best.p_value, 1 - 1e-16))))
    return (
        f"largest excess over templates: {best.region}, {best.spectator} from {best.low:g} to {best.high:g} ({best.events:g} events, {best.expected:.1f} ± "
        f"{best.error:.1f} expected), {best.significance:.1f}σ, p-value {p:.2g} with {len(templates)} regions counted"
    )


def _of_spectra(hunts: Hunts, config: SearchConfig) -> str:
    top, worth = hunts.largest_bump(config.statistic), hunts.p_global.get(config.statistic)
    if top is None:
        return "no spectrum has an excess anywhere" if hunts.spectra else "no spectrum could be searched"
    name, bump = top
    counted = f"{bump.events:g} events, {bump.expected:.1f} expected"
    if config.statistic == "likelihood":  # the two fits whose ratio counts; a signal lifts the first one
        counted += f" by the fit without a signal; the fit with one has {bump.strength:.1f} events of it"
    where = f"{name}, {bump.low:.0f} to {bump.high:.0f} GeV ({counted}), {bump.local:.1f}σ local"
    if worth is None:
        return f"largest excess: {where}; without pseudo-experiments its global significance is not known"
    z = float(significance_of(np.asarray(worth.p_value)))
    seen = f"{z:.1f}σ global" if z > 0 else "less than what is usual without a signal"
    sentence = f"largest excess: {where}, global p-value {worth.p_value:.2g} ({seen}, {len(hunts.spectra)} spectra)"
    if name in hunts.sculpted:
        sentence += (
            f"; simulation without signal has one there too, so that it is no sign of one: {hunts.sculpted[name]}"
        )
    return sentence


def _spectrum(hunted: Hunted, config: SearchConfig) -> dict[str, Any]:
    p, statistic = hunted.prepared, config.statistic
    fitted, spectrum, scan = p.background.fit, p.spectrum, p.hunt
    return {
        "observable": p.observable, "region": p.region, "edges": spectrum.edges, "counts": spectrum.counts,
        "fit": {
            "family": fitted.family, "order": fitted.order, "parameters": fitted.parameters, "errors": fitted.parameter_errors,
            "correlation": fitted.correlation, "expected": fitted.expected, "expected_error": fitted.error, "pulls": fitted.pulls,
            "deviance": fitted.deviance, "degrees": fitted.degrees, "goodness": p.background.goodness._asdict(),
            "f_tests": {str(k): v for k, v in p.background.f_tests.items()}, "notes": [*fitted.notes, *p.background.said],
        },
        "bumps": {s: None if (b := p.bumps[s]) is None else _bump(b) for s in ("windows", "likelihood")},
        "global": {s: _global(hunted.p_global[s], hunted.trials[s]) for s in ("windows", "likelihood")},
        "statistic": statistic,
        "scan": {
            "mass": scan.signals.mass, "width": scan.signals.width, "significance": p.scanned.q0[0], "strength": p.scanned.strength[0],
        },
        "envelope": _envelope(p, config),
        "toys_failed": hunted.failed,
    }  # fmt: skip


def _envelope(p: Prepared, config: SearchConfig) -> dict[str, Any] | None:
    """Return the strength of the largest excess, as a Gaussian signal, whichever function is the right one."""
    bump = p.bumps["likelihood"]
    if bump is None or not config.fit.envelope:
        return None
    signal = gaussian(p.spectrum.edges, bump.mass, bump.width, config.resolution)
    try:
        e = envelope(p.spectrum, config.fit.envelope, p.sqrt_s, signal, exclude=config.exclude)
    except FitFailed as error:
        return {"said": str(error)}
    return {
        "mass": bump.mass, "width": bump.width, "strength": e.strength, "down": e.down, "up": e.up, "family": e.family,
        "orders": dict(e.orders), "alone": dict(e.alone), "left_out": dict(e.left_out),
    }  # fmt: skip


def _bump(bump: Bump) -> dict[str, float]:
    return dict(bump.__dict__)


def _global(worth: Global | None, trials: Trials | None) -> dict[str, Any] | None:
    if worth is None or trials is None:
        return None
    z = float(significance_of(np.asarray(worth.p_value)))
    local = trials.local_for(5.0)
    return {
        **worth._asdict(), "significance": z, "local_for_5_sigma": local, "trials_at_5_sigma": trials.number(local) if trials.u > 0 else 1.0,
        "tail": {"u": trials.u, "c": trials.c, "above": trials.above, "ks_p": trials.ks_p},
    }  # fmt: skip


def _histograms(read: SpectraRead) -> str:
    """Return the digest of the histograms in the results folder, which tells whose search this is."""
    return "" if read.results is None else str(read.results.report.get("histograms", ""))


def _digest(read: SpectraRead) -> str:
    out = hashlib.sha256()
    for spectra in read.spectra:
        for cell, spectrum in sorted(spectra.cells.items()):
            out.update(f"{spectra.observable} {cell}".encode())
            for array in (spectrum.edges, spectrum.counts, spectrum.variance):
                out.update(np.ascontiguousarray(array).tobytes())
    return out.hexdigest()
