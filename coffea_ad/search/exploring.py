"""A part of the events to look at, the rest to ask one question: two stages whose trials can be counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from coffea_ad.errors import FitFailed
from coffea_ad.evaluation.counting import count_significance, p_value_of
from coffea_ad.search.choosing import fit_background
from coffea_ad.search.fits import fit
from coffea_ad.search.hunting import Hunts, HuntSettings, Statistic, hunt
from coffea_ad.search.spectra import Spectra, Spectrum

__all__ = ["Confirmed", "explore", "halves"]


class Confirmed(NamedTuple):
    """A place that the first part has selected, in the rest.

    Attributes
    ----------
    spectrum : str
    low, high : float, GeV
    first : float
        Local significance in the first part.
    events, expected, error : float
        In the rest, by a fit without the window.
    significance : float
        Local, in the rest.
    p_value : float
        With the number of places that were asked about: 1 − (1 − p)^places.
    said : str
        Why there is none.
    """

    spectrum: str
    low: float
    high: float
    first: float
    events: float = 0.0
    expected: float = 0.0
    error: float = 0.0
    significance: float = 0.0
    p_value: float = 1.0
    said: str = ""


def halves(spectra: Spectra, fraction: float, seed: int) -> tuple[Spectra, Spectra]:
    """Divide the events of each bin of each exclusive cell at random, by a hash of the spectra and the seed.

    Counts of a Poisson distribution divided so are independent of each other, and nested regions share their events in both parts.
    """
    first, rest = {}, {}
    for name, cell in spectra.cells.items():
        digest = hashlib.sha256(f"{spectra.observable} {name} {seed}".encode() + cell.counts.tobytes()).digest()
        n = np.random.default_rng(int.from_bytes(digest[:16], "little")).binomial(
            cell.counts.astype(np.int64), fraction
        )
        first[name], rest[name] = cell.with_counts(n), cell.with_counts(cell.counts - n)
    return replace(spectra, cells=first), replace(spectra, cells=rest)


def explore(
    spectra: Sequence[Spectra], settings: HuntSettings, sqrt_s: float, fraction: float, places: int, statistic: Statistic, *,
    folder: Path | None = None, cluster: Any = None,
) -> tuple[Hunts, list[Confirmed]]:  # fmt: skip
    """Search a part of the events, and count the rest in the windows of its largest excesses only.

    Parameters
    ----------
    spectra : sequence of Spectra
    settings, sqrt_s, folder, cluster
        As for `hunt`.
    fraction : float
        Part of the events that is searched.
    places : int
        Largest excesses, one of each spectrum, that are looked at in the rest.
    statistic : "windows" or "likelihood"

    Returns
    -------
    hunts : Hunts
        Of the first part.
    confirmed : list of Confirmed
        p-values are right without a look-elsewhere effect but for the number of places.
    """
    pairs = [halves(s, fraction, settings.seed) for s in spectra]
    hunts = hunt([first for first, _ in pairs], settings, sqrt_s, folder=folder, cluster=cluster)
    rests = {rest.region(r).name: rest.region(r) for _, rest in pairs for r in rest.regions}
    excesses = [
        (b.local, name, b) for name, h in hunts.spectra.items() if (b := h.prepared.bumps[statistic]) is not None
    ]
    best = sorted(excesses, key=lambda e: -e[0])[:places]
    out = []
    for local, name, bump in best:
        place = Confirmed(name, bump.low, bump.high, local)
        try:
            out.append(_confirm(place, rests[name], hunts.spectra[name].prepared.spectrum, settings, sqrt_s, len(best)))
        except FitFailed as error:
            out.append(place._replace(said=str(error)))
    return hunts, out


def _confirm(
    place: Confirmed, rest: Spectrum, first: Spectrum, settings: HuntSettings, sqrt_s: float, places: int
) -> Confirmed:
    part = rest.between(float(first.edges[0]), float(first.edges[-1]))
    window = part.inside(place.low, place.high)
    order = fit_background(
        part, settings.family, sqrt_s, orders=settings.orders, interval=(part.edges[0], part.edges[-1])
    ).fit.order
    fitted = fit(part, settings.family, order, sqrt_s, mask=np.where(window, 0.0, 1.0))
    slopes = fitted.jacobian[window].sum(axis=0)
    expected = float(fitted.expected[window].sum())
    error = float(np.sqrt(max(slopes @ fitted.covariance @ slopes, 0.0)))
    events = float(part.counts[window].sum())
    z = count_significance(events, expected, error)
    p = -np.expm1(places * np.log1p(-min(p_value_of(z), 1 - 1e-16)))
    return place._replace(events=events, expected=expected, error=error, significance=z, p_value=float(p))
