"""Spurious signals: what a function that is not quite the right one makes up, measured in simulation without any signal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from coffea_ad.errors import CoffeaADError, ConfigError
from coffea_ad.results.results import Results
from coffea_ad.search.fits import Fit, fit
from coffea_ad.search.hunting import Hunts, Prepared
from coffea_ad.search.limits import tasks_of
from coffea_ad.search.reading import SpectraRead, cells_of
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectra, Spectrum
from coffea_ad.typing import Float64s

__all__ = ["Spurious", "Templates", "described", "in_spectra", "spurious_signal", "spurious_signals"]

_LARGE = 0.3  # of the error that data have, above which a spurious signal is said
_SURE = 2.0  # errors of simulation by which it must be above
_BLIND = 0.3  # error by the statistics of simulation, in units of that of data, from which nothing is known


class Spurious(NamedTuple):
    """A signal that is fitted where there is none.

    Attributes
    ----------
    mass : float, GeV
    width : float
        σ/m.
    strength, error : float
        Events, and the error that data of this size have.
    template_error : float
        Events, by the statistics of simulation.
    """

    mass: float
    width: float
    strength: float
    error: float
    template_error: float = 0.0

    @property
    def relative(self) -> float:
        """In units of the error."""
        return self.strength / self.error


def spurious_signal(
    template: Spectrum, family: str, order: int, sqrt_s: float, signal: Float64s, mass: float = 0.0, width: float = 0.0
) -> Spurious:
    """Fit a function and a signal to simulated background, as to data of the same size without fluctuations.

    The error by the statistics of simulation is that of a fit whose bins have other errors than those it is weighted by,

        σ² = aᵀ diag(v) a,   a = row of the signal in (Aᵀ W A)⁻¹ Aᵀ W,   W = diag(1/ν),

    with A the derivatives of the expectation, and v the sums of squared weights.

    Parameters
    ----------
    template : Spectrum
        Expected events.
    family, order, sqrt_s
        As for `fits.fit`.
    signal : (n,) float64
        Events of strength 1.
    mass : float, GeV
    width : float
        σ/m. Both are handed on only.

    Raises
    ------
    FitFailed
        With the name of the spectrum.
    """
    asimov = Spectrum.of_events(template.name, template.edges, template.counts, template.label)
    f = fit(asimov, family, order, sqrt_s, signal=signal)
    return Spurious(mass, width, f.strength, f.strength_error, _propagated(f, template.variance))


def _propagated(fitted: Fit, variance: Float64s) -> float:
    slopes = np.column_stack([fitted.jacobian, fitted.signal])  # type: ignore[list-item]  # fitted with one
    weighted = slopes / np.maximum(fitted.expected, 1e-9)[:, None]
    row = np.linalg.pinv(slopes.T @ weighted, hermitian=True)[-1] @ weighted.T
    return float(np.sqrt((row**2 * variance).sum()))


def spurious_signals(
    template: Spectrum,
    family: str,
    order: int,
    sqrt_s: float,
    masses: Sequence[float],
    width: float,
    *,
    resolution: float = 0.0,
) -> list[Spurious]:
    """Return the spurious signals of several masses.

    Parameters
    ----------
    template, family, order, sqrt_s
        As for `spurious_signal`.
    masses : sequence of float, GeV
    width, resolution : float
        σ/m.

    Raises
    ------
    FitFailed
        Of a mass, with its spectrum.
    """
    return [
        spurious_signal(
            template, family, order, sqrt_s, gaussian(template.edges, mass, width, resolution), float(mass), width
        )
        for mass in masses
    ]


class Templates:
    """The simulated background of the spectra of a search, at their luminosity.

    Parameters
    ----------
    read : SpectraRead
        With results.
    era : str or None

    Raises
    ------
    ConfigError
        The results hold no simulated background.
    """

    def __init__(self, read: SpectraRead, era: str | None = None) -> None:
        if read.results is None:
            raise ConfigError("spurious signals are measured in the simulated background of a results folder")
        self._results: Results = read.results
        self._regions = {s.observable: s.regions for s in read.spectra}
        self._part, self._era = read.part, era
        self._of: dict[str, Spectra] = {}

    def of(self, prepared: Prepared) -> Spectrum:
        """Return what simulation expects in the bins of a spectrum.

        Raises
        ------
        ConfigError, NotNormalisable
            It cannot be read.
        """
        name, regions = prepared.observable, self._regions[prepared.observable]
        if name not in self._of:
            cells = cells_of(self._results, name, sorted(set().union(*regions.values())), "simulation", self._era)
            self._of[name] = Spectra(name, cells, regions)
        edges = prepared.spectrum.edges
        whole = self._of[name].region(prepared.region).between(float(edges[0]), float(edges[-1])).merged(edges)
        return Spectrum(
            prepared.spectrum.name, whole.edges, whole.counts * self._part, whole.variance * self._part**2, whole.label
        )


def in_spectra(
    hunts: Hunts, templates: Templates, widths: Sequence[float], masses: Sequence[float], places: int, resolution: float
) -> tuple[dict[str, list[Spurious]], list[str]]:
    """Return the spurious signals of all spectra at equal ratios of masses, and sentences on large ones.

    Parameters
    ----------
    hunts : Hunts
    templates : Templates
    widths, masses, places, resolution
        As for `limits.tasks_of`.
    """
    out, said, blind = dict[str, list[Spurious]](), list[str](), list[str]()
    for name, hunted in hunts.spectra.items():
        p, f = hunted.prepared, hunted.prepared.background.fit
        tasks = tasks_of(
            p.spectrum, f.family, f.order, p.sqrt_s, widths=widths, masses=masses, places=places, resolution=resolution
        )
        try:
            template = templates.of(p)
            out[name] = [
                spurious_signal(template, f.family, f.order, p.sqrt_s, t.signal, t.mass, t.width) for t in tasks
            ]
        except CoffeaADError as error:
            said.append(f"{name}: spurious signals are not known ({error})")
            continue
        said += _sentence(name, f"{f.family} of {f.order} parameters", out[name])
        if any(s.template_error > _BLIND * s.error for s in out[name]):
            blind.append(name)
    if blind:
        said.append(
            f"simulation has too few events to tell spurious signals of {_BLIND:g} standard deviations in {', '.join(blind)}"
        )
    return out, said


def _sentence(name: str, function: str, signals: Sequence[Spurious]) -> list[str]:
    sure = [s for s in signals if abs(s.strength) - _SURE * s.template_error > _LARGE * s.error]
    if not sure:
        return []
    worst = max(sure, key=lambda s: abs(s.relative))
    made_up = f"{worst.relative:+.2g} ± {worst.template_error / worst.error:.2g} standard deviations"
    return [f"{name}: in simulation without a signal {function} makes up {made_up} of one at {worst.mass:.0f} GeV"]


def described(signals: Sequence[Spurious]) -> list[dict[str, Any]]:
    """Return spurious signals in the types of JSON."""
    return [{**s._asdict(), "relative": s.relative} for s in signals]
