"""The bump hunt of a set of spectra: backgrounds, scans, pseudo-experiments, and p-values local and global."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coffea_ad.errors import ConfigError, FitFailed
from coffea_ad.search.bump_hunt import Hunt, Scanned, hunt_many
from coffea_ad.search.choosing import Background, fit_background, orders_of
from coffea_ad.search.families import FAMILIES
from coffea_ad.search.fits import Fit
from coffea_ad.search.minimising import fit_many
from coffea_ad.search.ordering import Orders
from coffea_ad.search.signals import Signals, gaussians
from coffea_ad.search.spectra import Spectra, Spectrum
from coffea_ad.search.toys import Block, Null, Region, nested, throw_all
from coffea_ad.search.trials import Global, Trials, fit_trials, global_p
from coffea_ad.search.windows import windows_of
from coffea_ad.typing import Float64s

__all__ = ["Bump", "HuntSettings", "Hunted", "Hunts", "Prepared", "hunt", "prepare"]

Statistic = Literal["windows", "likelihood"]
_MORE_BINS = 6  # than parameters, in a sliding window
_MOST_FAILED = 0.01  # of pseudo-experiments whose fits do not converge


@dataclass(frozen=True)
class HuntSettings:
    """How spectra are fitted and scanned.

    Attributes
    ----------
    family : str
    orders : (lowest, highest) or None
    interval : (low, high) or None, GeV
    minimum : float
        p-value of a range.
    widths : tuple of float
        σ/m of the signals.
    resolution : float
        σ/m, added to each.
    exclude : float
        Local significance from which the window of the largest excess does not count when the number of parameters is selected.
    sliding : float or None
        Each signal is fitted in so many of its widths on both sides only; None: in the whole range.
    toys, seed : int
    """

    family: str = "dijet"
    orders: tuple[int, int] | None = None
    interval: tuple[float, float] | None = None
    minimum: float = 0.05
    widths: tuple[float, ...] = (0.0, 0.03, 0.05, 0.1, 0.15)
    resolution: float = 0.0
    exclude: float = 3.0
    sliding: float | None = None
    toys: int = 1000
    seed: int = 1


@dataclass(frozen=True)
class Bump:
    """The largest excess of a spectrum by one statistic.

    Attributes
    ----------
    local : float
        Significance.
    low, high : float, GeV
        Of the window, or mass ∓ one width.
    mass, width : float
        Of the signal, GeV and σ/m; of a window its centre and half of its length.
    events, expected : float
        In the window; by the fit without a signal, which a signal lifts.
    strength : float
        Events of the signal, in and beside the window, by the fit with it; of a window what is above the expectation.
    """

    local: float
    low: float
    high: float
    mass: float
    width: float
    events: float
    expected: float
    strength: float


@dataclass(frozen=True, repr=False)
class Prepared:
    """A spectrum with its background, ready to be scanned.

    Attributes
    ----------
    observable, region : str
    background : Background
    hunt : Hunt
    scanned : Scanned
        Of the data.
    bumps : {statistic: Bump or None}
    sqrt_s : float, GeV
    """

    observable: str
    region: str
    background: Background
    hunt: Hunt
    scanned: Scanned
    bumps: Mapping[Statistic, Bump | None]
    sqrt_s: float

    @property
    def spectrum(self) -> Spectrum:
        """In the fitted range."""
        return self.background.fit.spectrum


@dataclass(frozen=True, repr=False)
class Hunted:
    """A scanned spectrum with what its excess is worth.

    Attributes
    ----------
    prepared : Prepared
    p_global : {statistic: Global or None}
        Over the positions and widths of this spectrum.
    trials : {statistic: Trials}
    largest : {statistic: (T,) float64}
        Of pseudo-experiments that could be fitted.
    failed : int
        Pseudo-experiments that could not.
    said : tuple of str
    """

    prepared: Prepared
    p_global: Mapping[Statistic, Global | None]
    trials: Mapping[Statistic, Trials]
    largest: Mapping[Statistic, Float64s]
    failed: int
    said: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Hunts:
    """A bump hunt.

    Attributes
    ----------
    spectra : {name: Hunted}
    skipped : {name: sentence}
    p_global : {statistic: Global or None}
        Over all spectra.
    trials : {statistic: Trials or None}
    largest : {statistic: (T,) float64}
        Of all spectra together.
    notes : tuple of str
    resumed : int
    sculpted, unchecked : {name: sentence}
        Spectra in whose largest excess simulation without signal has one as well, and those of which it is not known.
    """

    spectra: dict[str, Hunted]
    skipped: dict[str, str]
    p_global: dict[Statistic, Global | None]
    trials: dict[Statistic, Trials | None]
    largest: dict[Statistic, Float64s]
    notes: tuple[str, ...]
    resumed: int = 0
    sculpted: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    def largest_bump(self, statistic: Statistic) -> tuple[str, Bump] | None:
        """Return the spectrum with the largest local significance, and its bump."""
        bumps = [(name, b) for name, h in self.spectra.items() if (b := h.prepared.bumps[statistic]) is not None]
        return max(bumps, key=lambda pair: pair[1].local, default=None)


def prepare(spectra: Spectra, region: str, settings: HuntSettings, sqrt_s: float) -> Prepared:
    """Fit the background of a spectrum, and scan it.

    Raises
    ------
    FitFailed
        Its name and why.
    """
    spectrum = spectra.region(region)
    if spectrum.weighted:
        raise FitFailed(
            f"spectrum {spectrum.name}: its entries are weighted, and a bump hunt counts events; draw pseudo-data from simulation"
        )
    background = fit_background(
        spectrum, settings.family, sqrt_s, orders=settings.orders, interval=settings.interval, minimum=settings.minimum, exclude=settings.exclude,
        seed=settings.seed,
    )  # fmt: skip
    fitted = background.fit
    edges, expected = fitted.spectrum.edges, fitted.expected
    above = np.cumsum(expected[::-1])[::-1]
    highest = float(edges[1:][above >= 0.5][-1]) if (above >= 0.5).any() else float(edges[1])
    try:
        signals = gaussians(edges, settings.widths, highest=highest, resolution=settings.resolution)
    except ConfigError as error:
        raise FitFailed(f"spectrum {spectrum.name}: {error}") from None
    scan = Hunt(
        _ordered(fitted, settings, sqrt_s), windows_of(len(expected)), signals, _sliding(fitted, signals, settings)
    )
    scanned = hunt_many(fitted.spectrum.counts, scan)
    return Prepared(
        spectra.observable, region, background, scan, scanned, _bumps(fitted.spectrum, scan, scanned), sqrt_s
    )


def _ordered(fitted: Fit, settings: HuntSettings, sqrt_s: float) -> Orders:
    """Return the functions among which data and pseudo-experiments select, with fits of the data to start from.

    Those of fewer parameters than the data ask for are left out: pseudo-experiments have their further parameters as they were fitted, too large on
    average, and where one of them would not ask for these, what is not described would look like a signal.
    """
    high = (settings.orders or FAMILIES[fitted.family].orders)[1]
    orders = orders_of(fitted.spectrum, fitted.family, sqrt_s, orders=(fitted.order, high), exclude=settings.exclude)
    starts = [
        fitted.theta if f.order == fitted.order else fit_many(fitted.spectrum.counts, f, s, mask=fitted.mask).theta[0]
        for f, s in zip(orders.functions, orders.starts, strict=True)
    ]
    return orders._replace(starts=tuple(starts))


def _sliding(fitted: Fit, signals: Signals, settings: HuntSettings) -> Float64s | None:
    """Return which bins count for each signal, if not all: those around it, and so many that the function can be fitted."""
    if settings.sliding is None:
        return None
    edges, n = fitted.spectrum.edges, len(fitted.spectrum.counts)
    centers = (edges[:-1] + edges[1:]) / 2
    fewest = min(fitted.order + _MORE_BINS, n)
    out = np.zeros((len(signals.mass), n))
    for k, (mass, width) in enumerate(zip(signals.mass, signals.width, strict=True)):
        reach = settings.sliding * mass * float(np.hypot(width, settings.resolution))
        near = np.abs(centers - mass)
        out[k, (near <= reach) | (near <= np.sort(near)[fewest - 1])] = 1.0
    return out


def _bumps(spectrum: Spectrum, scan: Hunt, scanned: Scanned) -> dict[Statistic, Bump | None]:
    n, b, edges = spectrum.counts, scanned.expected[0], spectrum.edges
    out: dict[Statistic, Bump | None] = {"windows": None, "likelihood": None}
    i = int(np.argmax(scanned.window[0]))
    if np.isfinite(scanned.window[0, i]):
        begin, end = int(scan.windows.begin[i]), int(scan.windows.end[i])
        low, high, events, of = float(edges[begin]), float(edges[end]), n[begin:end].sum(), b[begin:end].sum()
        mass = (low + high) / 2
        out["windows"] = Bump(
            float(scanned.window[0, i]),
            low,
            high,
            mass,
            (high - low) / 2 / mass,
            float(events),
            float(of),
            float(events - of),
        )
    k = int(np.argmax(scanned.q0[0]))
    if scanned.q0[0, k] > 0:
        mass, width = float(scan.signals.mass[k]), float(scan.signals.width[k])
        near = scan.signals.shape[k] > 0.5 * scan.signals.shape[k].max()  # about ∓ 1.2 standard deviations
        out["likelihood"] = Bump(
            float(scanned.q0[0, k]), float(edges[:-1][near][0]), float(edges[1:][near][-1]), mass, width, float(n[near].sum()),
            float(b[near].sum()), float(scanned.strength[0, k]),
        )  # fmt: skip
    return out


def hunt(
    spectra: Sequence[Spectra],
    settings: HuntSettings,
    sqrt_s: float,
    *,
    folder: Path | None = None,
    cluster: Any = None,
) -> Hunts:
    """Search all regions of several observables for bumps.

    Pseudo-experiments are drawn from the fits of the data, regions of one observable together (an event of a region is in those around it), and
    fitted and scanned like the data. The largest significance of all positions, widths, regions and observables makes the global
    p-value. Observables are drawn independently of each other: those of the same events are correlated, so that there are fewer
    independent places to look at than counted, and the global p-value is too large rather than too small.

    Parameters
    ----------
    spectra : sequence of Spectra
        Of events.
    settings : HuntSettings
    sqrt_s : float, GeV
    folder : path, optional
        Where pseudo-experiments are stored.
    cluster : ClusterConfig, distributed.Client or None

    Returns
    -------
    Hunts
        A spectrum that cannot be fitted is in `skipped`, with the reason; the rest is finished.
    """
    prepared: dict[str, Prepared] = {}
    skipped: dict[str, str] = {}
    nulls, notes = [], list[str]()
    for several in spectra:
        ready = []
        for region in several.regions:
            name = several.region(region).name
            try:
                prepared[name] = prepare(several, region, settings, sqrt_s)
                ready.append((name, region))
            except FitFailed as error:
                skipped[name] = str(error)
        if ready:
            null = _null(several, [(prepared[name], region) for name, region in ready])
            nulls.append(null)
            notes += [
                f"{several.observable} in {r.name}: fits of regions inside exceed its own by {part:.1%} of its events; pseudo-experiments have them"
                for i, r in enumerate(null.regions)
                if (part := null.clipped(i)) > 0.01
            ]
    thrown = throw_all(nulls, settings.toys, settings.seed, folder, cluster)
    blocks = {(n.observable, r.name): (thrown.blocks[n.observable], i) for n in nulls for i, r in enumerate(n.regions)}
    hunted = {name: _worth(p, *blocks[p.observable, p.region]) for name, p in prepared.items()}
    return _together(hunted, skipped, thrown.resumed, notes)


def _null(several: Spectra, ready: Sequence[tuple[Prepared, str]]) -> Null:
    inside = nested([(region, several.regions[region]) for _, region in ready])
    regions = [
        Region(
            region,
            int(np.searchsorted(several.edges, p.spectrum.edges[0] * (1 - 1e-9))),
            p.background.fit.expected,
            p.hunt,
            inner,
        )
        for (p, region), inner in zip(ready, inside, strict=True)
    ]
    return Null(several.observable, len(several.edges) - 1, tuple(regions))


def _worth(prepared: Prepared, block: Block, i: int) -> Hunted:
    valid = block.valid[i].astype(bool)
    failed = int((~valid).sum())
    largest: dict[Statistic, Float64s] = {"windows": block.window[i][valid], "likelihood": block.q0[i][valid]}
    said: tuple[str, ...] = ()
    if refused := failed > _MOST_FAILED * len(valid):
        said = (
            f"{prepared.spectrum.name}: {failed} of {len(valid)} pseudo-experiments could not be fitted, too many for a p-value",
        )
    trials = {s: fit_trials(z) for s, z in largest.items()}
    worth: dict[Statistic, Global | None] = {
        s: None if refused or not len(z) else global_p(_local(prepared, s), z, trials[s]) for s, z in largest.items()
    }
    return Hunted(prepared, worth, trials, largest, failed, said)


def _local(prepared: Prepared, statistic: Statistic) -> float:
    bump = prepared.bumps[statistic]
    return -np.inf if bump is None else bump.local


def _together(hunted: dict[str, Hunted], skipped: dict[str, str], resumed: int, notes: list[str]) -> Hunts:
    p_global: dict[Statistic, Global | None] = {}
    trials: dict[Statistic, Trials | None] = {}
    everything: dict[Statistic, Float64s] = {}
    notes += [
        sentence
        for h in hunted.values()
        for sentence in (*h.prepared.background.doubts, *h.prepared.background.fit.notes, *h.said)
    ]
    for statistic in ("windows", "likelihood"):
        usable = [h for h in hunted.values() if h.p_global[statistic] is not None and len(h.largest[statistic])]
        if not usable:
            p_global[statistic] = trials[statistic] = None
            continue
        n = min(len(h.largest[statistic]) for h in usable)
        everything[statistic] = np.max([h.largest[statistic][:n] for h in usable], axis=0)
        trials[statistic] = fitted = fit_trials(everything[statistic])
        p_global[statistic] = global_p(
            max(_local(h.prepared, statistic) for h in usable), everything[statistic], fitted
        )
    return Hunts(hunted, skipped, p_global, trials, everything, tuple(notes), resumed)
