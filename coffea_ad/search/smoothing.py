"""Pseudo-data of a function that was fitted to simulation: for simulation with fewer events than data would have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coffea_ad.errors import ConfigError, FitFailed
from coffea_ad.search.choosing import Background, fit_background
from coffea_ad.search.hunting import HuntSettings
from coffea_ad.search.spectra import Spectra, Spectrum

__all__ = ["smooth"]


def smooth(spectra: Sequence[Spectra], settings: HuntSettings, sqrt_s: float) -> tuple[list[Spectra], list[str]]:
    """Draw events from functions that are fitted to the weighted spectra of each cell.

    All cells of an observable begin where the last of them is described. What such pseudo-data show, significances and expected limits,
    holds for a background of exactly this form: they do not test it.

    Parameters
    ----------
    spectra : sequence of Spectra
        Of simulation, weighted.
    settings : HuntSettings
    sqrt_s : float, GeV

    Returns
    -------
    spectra : list of Spectra
        Of events.
    notes : list of str
        Cells that cannot be described are left out of their regions, and named.

    Raises
    ------
    ConfigError
        No cell can.
    """
    out, notes = list[Spectra](), list[str]()
    for i, several in enumerate(spectra):
        fitted: dict[str, Background] = {}
        for name, cell in several.cells.items():
            try:
                fitted[name] = _described(cell, settings, sqrt_s)
            except FitFailed as error:
                notes.append(f"{several.observable}, cell {name}: left out of pseudo-data ({error})")
        if not fitted:
            continue
        low = max(float(b.fit.spectrum.edges[0]) for b in fitted.values())
        drawn = {}
        for j, (name, background) in enumerate(sorted(fitted.items())):
            s = background.fit.spectrum
            inside = s.inside(low, float(s.edges[-1]))
            rng = np.random.default_rng([settings.seed, 13, i, j])
            part = s.between(low, float(s.edges[-1]))
            drawn[name] = part.with_counts(rng.poisson(background.fit.expected[inside]))
        regions = {r: cells & drawn.keys() for r, cells in several.regions.items() if cells & drawn.keys()}
        out.append(Spectra(several.observable, drawn, {r: frozenset(c) for r, c in regions.items()}))
    if not out:
        raise ConfigError("; ".join(notes) or "there is nothing to draw pseudo-data from")
    notes.append(f"pseudo-data are drawn from functions fitted to the simulated background, with seed {settings.seed}")
    return out, notes


def _described(cell: Spectrum, settings: HuntSettings, sqrt_s: float) -> Background:
    return fit_background(
        cell,
        settings.family,
        sqrt_s,
        orders=settings.orders,
        interval=settings.interval,
        minimum=settings.minimum,
        seed=settings.seed,
    )
