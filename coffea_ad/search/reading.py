"""Where spectra come from: results folders, ROOT files, histograms in UHI's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import hist
import numpy as np

from coffea_ad import files
from coffea_ad.errors import BadFile, ConfigError, UnknownName
from coffea_ad.results.folder import load_results
from coffea_ad.results.results import Results
from coffea_ad.results.sums import sum_of
from coffea_ad.search.abcd_planes import hidden_cells
from coffea_ad.search.spectra import Spectra, Spectrum, resolution_edges
from coffea_ad.search.templates import regions_with_templates
from coffea_ad.selection import TWO_BODY
from coffea_ad.weights import era_of, kind_of, process_of

__all__ = [
    "Source",
    "SpectraRead",
    "cells_of",
    "pseudo_data",
    "read_spectra",
    "spectra_of_file",
    "spectra_of_results",
    "sqrt_s_of",
]

Source = Literal["data", "pseudo-data", "simulation", "smooth"]
_MASSES = (*TWO_BODY, "mjj", "mt")


class SpectraRead(NamedTuple):
    """Spectra, and what is to be said of them.

    Attributes
    ----------
    spectra : list of Spectra
    notes : list of str
    sqrt_s : float or None
        GeV, by the metadata.
    lumi : float or None
        fb⁻¹.
    source : str
        "data", "pseudo-data" or "simulation".
    part : float
        Of the luminosity of the results, that pseudo-data were drawn for.
    results : Results or None
    """

    spectra: list[Spectra]
    notes: list[str]
    sqrt_s: float | None
    lumi: float | None
    source: Source
    part: float = 1.0
    results: Results | None = None


def read_spectra(
    path: str | Path, *, observables: Sequence[str] = (), regions: Sequence[str] = (), source: Source | None = None,
    era: str | None = None, resolution: float = 0.0, interval: tuple[float, float] | None = None, seed: int = 1,
) -> SpectraRead:  # fmt: skip
    """Read spectra of a results folder, of a ROOT file (`.root`) or of a histogram in UHI's JSON (`.json`).

    Parameters
    ----------
    path : path
    observables, regions : sequence of str
        By default all two-body and dijet masses, and all regions without those of 0 tags.
    source : "data", "pseudo-data", "simulation" or "smooth" (simulation, too), optional
        By default data, where there are any, else pseudo-data.
    era : str, optional
    resolution : float
        σ(m)/m: bins are merged until they are as wide.
    interval : (low, high), GeV, optional
        Bins that lie elsewhere are left aside; there is more pseudo-data where weights at low masses do not count.
    seed : int
        Of pseudo-data.

    Raises
    ------
    BadFile
        It cannot be read.
    UnknownName
        There is no such observable or region.
    ConfigError
        There is nothing of that source.
    """
    suffix = Path(path).suffix
    if suffix in (".root", ".json"):
        read = spectra_of_file(path, observables, interval)
    else:
        read = spectra_of_results(load_results(path), observables, regions, source, era, interval, seed)
    if resolution <= 0:
        return read
    edges = {s.observable: resolution_edges(s.edges, resolution) for s in read.spectra}
    merged = [
        s.changed(lambda cell, e=edges[s.observable]: cell.merged(e))
        for s in read.spectra
        if len(edges[s.observable]) > 1
    ]
    return read._replace(spectra=merged)


def spectra_of_file(
    path: str | Path, names: Sequence[str] = (), interval: tuple[float, float] | None = None
) -> SpectraRead:
    """Read one-dimensional histograms of a ROOT file, or one of UHI's JSON (or several by name).

    Raises
    ------
    BadFile
        It cannot be read, or holds no such histogram.
    UnknownName
        It has none of that name.
    """
    if not files.exists(path):
        raise BadFile(f"{path}: there is no such file")
    histograms = _root_histograms(path) if str(path).endswith(".root") else _json_histograms(path)
    for name in names:
        if name not in histograms:
            raise UnknownName.of(f"histogram of {path}", name, histograms)
    flat = {n: h for n, h in histograms.items() if h.ndim == 1 and (not names or n in names)}
    if not flat:
        raise BadFile(f"{path}: there is no histogram of one axis in it")
    spectra = [Spectra.single(Spectrum.of_histogram(n, h)) for n, h in flat.items()]
    return SpectraRead([_inside(s, interval) for s in spectra], [], None, None, "data")


def _root_histograms(path: str | Path) -> dict[str, hist.Hist]:
    import uproot

    try:
        with uproot.open(path) as file:
            names = [k for k, c in file.classnames(cycle=False).items() if c.startswith(("TH1", "TH2", "TH3"))]
            return {name: file[name].to_hist() for name in names}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{path}: it cannot be read as a ROOT file ({' '.join(str(error).split())[:100]})") from None


def _json_histograms(path: str | Path) -> dict[str, hist.Hist]:
    import uhi.io.json

    try:
        content = json.loads(files.read(path), object_hook=uhi.io.json.object_hook)
        if isinstance(content, dict) and "axes" in content:
            return {Path(path).stem: hist.Hist(content)}
        return {str(name): hist.Hist(of) for name, of in content.items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(f"{path}: it holds no histogram in UHI's JSON ({' '.join(str(error).split())[:100]})") from None


def sqrt_s_of(results: Results, era: str | None = None) -> tuple[float | None, list[str]]:
    """Return the centre-of-mass energy of the datasets, GeV, the largest if there are several, and what is to be said of that."""
    energies = {
        float(e["metadata"]["sqrt_s"])
        for e in results.report["datasets"].values()
        if e["metadata"].get("sqrt_s") is not None and era in (None, era_of(e["metadata"]))
    }
    if len(energies) > 1:
        listed = ", ".join(f"{e:g}" for e in sorted(energies))
        return max(energies), [f"datasets of √s = {listed} GeV are added: functions of x = m/√s take the largest"]
    return (energies.pop() if energies else None), []


def _of_eras(results: Results, era: str | None, lumi: float | None) -> list[str]:
    """Say which luminosities of eras are added, and which signals are not in all of them."""
    eras: dict[str, set[str]] = {}
    for name, entry in results.report["datasets"].items():
        kind = kind_of(entry["metadata"])
        process = process_of(name, entry["metadata"]) if kind == "signal" else ""
        eras.setdefault(era_of(entry["metadata"]), set()).add(process)
    if era is not None or len(eras) < 2:
        return []
    if lumi is None:
        return [f"limits are in events only: the luminosities of the eras {', '.join(sorted(eras))} are not all known"]
    each = ", ".join(f"{results.luminosity(e):.4g} ({e or 'no era'})" for e in sorted(eras))
    notes = [f"{lumi:.4g} fb⁻¹ are the sum of {each}"]
    for process in sorted(set().union(*eras.values()) - {""}):
        lacking = sorted(e or "no era" for e, processes in eras.items() if process not in processes)
        if lacking:
            notes.append(
                f"signal {process} was not simulated for {', '.join(lacking)}: its limits count it as none there"
            )
    return notes


def spectra_of_results(
    results: Results, observables: Sequence[str] = (), regions: Sequence[str] = (), source: Source | None = None,
    era: str | None = None, interval: tuple[float, float] | None = None, seed: int = 1,
) -> SpectraRead:  # fmt: skip
    """Return the spectra of results, by exclusive cells.

    Hidden regions of blinded data are left out, and said. Pseudo-data are drawn from the simulated background (`pseudo_data`).
    """
    kinds = {kind_of(e["metadata"]) for e in results.report["datasets"].values()}
    source = source or ("data" if "data" in kinds else "pseudo-data")
    wanted_kind = "data" if source == "data" else "background"
    if wanted_kind not in kinds:
        raise ConfigError(f"the results hold no {wanted_kind}, and {source} are asked for")
    known = _known(results)
    if not known:
        raise ConfigError("the results hold no histogram of one observable over regions: there is nothing to search in")
    for what, names, of in (
        ("observable", observables, list(known)),
        ("region", regions, list(dict.fromkeys(r for listed in known.values() for r in listed))),
    ):
        for name in names:
            if name not in of:
                raise UnknownName.of(what, name, of)
    templates = regions_with_templates(results)
    picked = list(observables) or [name for name in dict.fromkeys(_MASSES) if name in known]
    if not picked:
        raise ConfigError(f"the results have no mass to search in; say which observable: {', '.join(known)}")
    sqrt_s, notes = sqrt_s_of(results, era)
    spectra, lumi, part = list[Spectra](), results.luminosity(era), 1.0
    notes += _of_eras(results, era, lumi)
    for observable in picked:
        some = [
            r
            for r in known[observable]
            if (r in regions if regions else not r.endswith("_0tag") and r not in templates)
        ]
        read, said = _cells(results, observable, some, source, era)
        notes += said
        if read is not None:
            spectra.append(_inside(read, interval))
    if not spectra and not templates:
        raise ConfigError("; ".join(dict.fromkeys(notes)) or "the results have no region to search in")
    if source == "pseudo-data":
        spectra, part, said = pseudo_data(spectra, seed)
        lumi = None if lumi is None else lumi * part
        notes += said
    return SpectraRead(spectra, list(dict.fromkeys(notes)), sqrt_s, lumi, source, part, results)


def pseudo_data(spectra: Sequence[Spectra], seed: int) -> tuple[list[Spectra], float, list[str]]:
    """Draw events from simulated spectra: of each bin of each cell so many of the simulated ones as there would be data.

    A bin of sum of weights n and sum of squares v is taken for n²/v simulated events of weight w = v/n, each of which becomes an event with the probability f w.
    Such counts fluctuate around what simulation would give with many events, like data, and not around its fluctuations. f is the part of the luminosity
    for which it has enough events: the largest with f w ≤ 1 but for 1 % of the events.

    Parameters
    ----------
    spectra : sequence of Spectra
    seed : int

    Returns
    -------
    spectra : list of Spectra
    part : float
        f
    notes : list of str
    """
    cells = [cell for s in spectra for cell in s.cells.values()]
    weight, events = (
        np.concatenate(parts) for parts in ([c.scale for c in cells], [np.maximum(c.counts, 0) for c in cells])
    )
    order = np.argsort(-weight)
    behind = np.cumsum(events[order]) > 0.01 * events.sum()
    part = min(1.0, 1.0 / float(weight[order][behind][0])) if behind.any() else 1.0
    notes = [f"there are no data in this: pseudo-data are drawn from the simulated background with seed {seed}"]
    if part < 1:
        notes.append(
            f"pseudo-data are those of {part:.2g} of the luminosity: for more the simulation has too few events"
        )
    out, below = [], 0.0
    for i, several in enumerate(spectra):
        drawn = {}
        for j, (name, cell) in enumerate(sorted(several.cells.items())):
            rng = np.random.default_rng([seed, 11, i, j])
            n, w = np.maximum(cell.counts, 0.0), cell.scale
            below += float(np.maximum(-cell.counts, 0.0).sum())
            raw = n / w
            whole = np.floor(raw + rng.uniform(size=len(raw))).astype(np.int64)
            thin = rng.binomial(whole, np.minimum(part * w, 1.0))
            drawn[name] = cell.with_counts(np.where(part * w <= 1, thin, rng.poisson(part * n)))
        out.append(Spectra(several.observable, drawn, several.regions))
    if below > 0:
        notes.append(f"bins with negative sums of weights, {below:.3g} events, are empty in pseudo-data")
    return out, part, notes


def _inside(spectra: Spectra, interval: tuple[float, float] | None) -> Spectra:
    return spectra if interval is None else spectra.changed(lambda cell: cell.between(*interval))


def _known(results: Results) -> dict[str, list[str]]:
    """Return the regions of each observable of one axis."""
    out: dict[str, list[str]] = {}
    for named in results.in_regions.values():
        for observable, histogram in named.items():
            if histogram.ndim == 3 and "cell" not in histogram.axes.name and not observable.endswith("_expected"):
                listed = out.setdefault(observable, [])
                listed += [r for r in histogram.axes["region"] if r not in listed]
    return out


def _cells(
    results: Results, observable: str, regions: Sequence[str], source: Source, era: str | None
) -> tuple[Spectra | None, list[str]]:
    definitions: Mapping[str, frozenset[str]] = results.regions
    notes, usable = [], {}
    for region in regions:
        if region not in definitions:
            notes.append(f"region {region} is another one in some datasets, and is left out")
            continue
        try:
            (results.data if source == "data" else results.background)(observable, region, era=era)
            usable[region] = definitions[region]
        except ConfigError as error:
            if "hidden" not in str(error):
                raise
            notes.append(f"{error}; it is not searched")
    hidden = hidden_cells(results) if source == "data" else frozenset()
    notes += [
        f"region {region} is searched without its hidden cells, {', '.join(sorted(cells & hidden))}"
        for region, cells in usable.items()
        if cells & hidden
    ]
    usable = {region: cells - hidden for region, cells in usable.items() if cells - hidden}
    cells = sorted(set().union(*usable.values())) if usable else []
    if not cells:
        return None, notes
    out = cells_of(results, observable, cells, source, era)
    if hidden:
        _require_all_shown(results, Spectra(observable, out, usable), era)
    return Spectra(observable, out, usable), notes


def cells_of(
    results: Results, observable: str, cells: Sequence[str], source: Source, era: str | None = None
) -> dict[str, Spectrum]:
    """Return the spectra of exclusive cells: of data, or of all simulated background at the luminosity.

    Parameters
    ----------
    results : Results
    observable : str
    cells : sequence of str
    source : "data", or another for simulation
    era : str, optional
    """
    alone = results.with_regions({f"cell.{c}": {c} for c in cells})
    out = {}
    for cell in cells:
        if source == "data":
            histogram = alone.data(observable, f"cell.{cell}", era=era)
            spectrum = Spectrum.of_histogram(observable, histogram)
            out[cell] = spectrum.with_counts(spectrum.counts)
            continue
        parts = [h[{"variation": "nominal"}] for h in alone.background(observable, f"cell.{cell}", era=era).values()]
        out[cell] = Spectrum.of_histogram(observable, sum_of(parts))
    return out


def _require_all_shown(results: Results, spectra: Spectra, era: str | None) -> None:
    """Refuse data that are hidden in some datasets and shown in others: cells would lack what is shown."""
    for region in spectra.regions:
        shown = float(np.asarray(results.data(spectra.observable, region, era=era).values()).sum())
        if abs(shown - spectra.region(region).counts.sum()) > 0.5:
            raise ConfigError(
                f"region {region}: some datasets are blinded and others are not; search them apart, or run all with --unblind"
            )
