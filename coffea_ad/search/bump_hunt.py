"""A scan for bumps: every window, or a signal at every mass, in data as in pseudo-experiments that are fitted the same way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from coffea_ad.search.minimising import fit_many, scan_many
from coffea_ad.search.ordering import Orders, select_orders
from coffea_ad.search.signals import Signals
from coffea_ad.search.windows import Windows, window_significances
from coffea_ad.typing import Float64s, Ints

__all__ = ["Hunt", "Scanned", "hunt_many"]


class Hunt(NamedTuple):
    """What is scanned in a spectrum, the same in data and in pseudo-experiments.

    Attributes
    ----------
    orders : Orders
        The function, and how its number of parameters is selected.
    windows : Windows
    signals : Signals
    masks : (H, n) float64 or None
        Bins that count for each signal; None: all.
    """

    orders: Orders
    windows: Windows
    signals: Signals
    masks: Float64s | None = None


class Scanned(NamedTuple):
    """What came of scans of T spectra.

    Attributes
    ----------
    expected : (T, n) float64
        By the fit without signal.
    window : (T, W) float64
        Significance of each window, −∞ where there are no more events than expected.
    q0 : (T, H) float64
        Significance √q₀ of each signal, 0 without an excess.
    strength : (T, H) float64
        Events.
    value : (T,) float64
        −ln L without signal.
    valid : (T,) bool
        All fits have converged.
    """

    expected: Float64s
    window: Float64s
    q0: Float64s
    strength: Float64s
    value: Float64s
    valid: Ints


def hunt_many(counts: Float64s, hunt: Hunt) -> Scanned:
    """Fit and scan spectra of events.

    The significance of a window of n events where b are expected is that of the Poisson probability of n or more,

        p = P(≥ n | b) = Γ(n, 0…b)/Γ(n),

    after BumpHunter; that of a signal is √q₀ of the likelihood ratio, in which the function is fitted with and without it. A large
    signal lifts what a function expects in its window, so that of the two the likelihood ratio sees more of it.

    Parameters
    ----------
    counts : (T, n) float64
    hunt : Hunt

    Returns
    -------
    Scanned

    References
    ----------
    G. Choudalakis, "On hypothesis testing, trials factor, hypertests and the BumpHunter", arXiv:1101.0390. G. Cowan et al., "Asymptotic formulae
    for likelihood-based tests of new physics", arXiv:1007.1727.
    """
    rows = np.atleast_2d(counts)
    place = select_orders(rows, hunt.orders).place if len(hunt.orders.functions) > 1 else np.zeros(len(rows), np.int64)
    groups = [np.flatnonzero(place == k) for k in np.unique(place)]
    parts = [_scanned(rows[g], hunt, int(place[g[0]])) for g in groups]
    back = np.argsort(np.concatenate(groups), kind="stable")
    return Scanned(*(np.concatenate(column)[back] for column in zip(*parts, strict=True)))


def _scanned(rows: Float64s, hunt: Hunt, k: int) -> Scanned:
    """Scan spectra whose functions have the same number of parameters."""
    function = hunt.orders.functions[k]
    fits = fit_many(rows, function, hunt.orders.starts[k])
    expected = function.expected(fits.theta)
    window = window_significances(rows, expected, hunt.windows)
    strength, q0, converged = scan_many(rows, function, fits.theta, hunt.signals.shape, masks=hunt.masks)
    return Scanned(expected, window, np.sqrt(q0), strength, fits.value, np.asarray(fits.valid & converged.all(axis=1)))
