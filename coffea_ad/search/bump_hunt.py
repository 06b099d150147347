"""A scan for bumps: every window, or a signal at every mass, in data as in pseudo-experiments that are fitted the same way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, ndtri

from coffea_ad.search.families import Design
from coffea_ad.search.minimising import fit_many, scan_many
from coffea_ad.search.signals import Signals
from coffea_ad.typing import Float64s, Ints

__all__ = [
    "Hunt",
    "Scanned",
    "Windows",
    "hunt_many",
    "poisson_tail",
    "significance_of",
    "window_significances",
    "windows_of",
]

_LARGEST = 38.0  # significance at which a probability is 0 in double precision


class Windows(NamedTuple):
    """Windows of neighbouring bins.

    Attributes
    ----------
    begin, end : (W,) int64
        First bin, and the one behind the last.
    """

    begin: Ints
    end: Ints


def windows_of(bins: int, narrowest: int = 2, widest: int | None = None) -> Windows:
    """Return all windows of a spectrum, by default of two bins to half of it.

    >>> w = windows_of(4)
    >>> list(zip(w.begin.tolist(), w.end.tolist()))
    [(0, 2), (1, 3), (2, 4)]
    """
    top = max(bins // 2, narrowest) if widest is None else widest
    pairs = [(i, i + n) for n in range(min(narrowest, bins), min(top, bins) + 1) for i in range(bins - n + 1)]
    table = np.asarray(pairs, np.int64)
    return Windows(table[:, 0], table[:, 1])


class Hunt(NamedTuple):
    """What is scanned in a spectrum, the same in data and in pseudo-experiments.

    Attributes
    ----------
    function : Design
    start : (p,) float64
        Parameters to start fits from.
    windows : Windows
    signals : Signals
    masks : (H, n) float64 or None
        Bins that count for each signal; None: all.
    """

    function: Design
    start: Float64s
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
    rows, d = np.atleast_2d(counts), hunt.function
    fits = fit_many(rows, d, hunt.start)
    expected = d.expected(fits.theta)
    window = window_significances(rows, expected, hunt.windows)
    strength, q0, converged = scan_many(rows, d, fits.theta, hunt.signals.shape, masks=hunt.masks)
    return Scanned(expected, window, np.sqrt(q0), strength, fits.value, np.asarray(fits.valid & converged.all(axis=1)))


def window_significances(counts: Float64s, expected: Float64s, windows: Windows) -> Float64s:
    """Return the significance (T, W) of the events (T, n) in each window, −∞ where they are no more than expected."""
    n, b = (np.concatenate([np.zeros((len(v), 1)), np.cumsum(v, axis=1)], axis=1) for v in (counts, expected))
    events, background = n[:, windows.end] - n[:, windows.begin], b[:, windows.end] - b[:, windows.begin]
    more = events > background
    out = np.full(events.shape, -np.inf)
    out[more] = significance_of(poisson_tail(events[more], background[more]))
    return out


def poisson_tail(n: Float64s, b: Float64s) -> Float64s:
    """Return the probability of n or more events where b are expected.

    >>> poisson_tail(np.array([1.0]), np.array([0.5])).round(4)
    array([0.3935])
    """
    return np.asarray(gammainc(np.maximum(n, 1e-300), np.maximum(b, 1e-300)))


def significance_of(p: Float64s) -> Float64s:
    """Return the one-sided significance of probabilities, Z = −Φ⁻¹(p).

    >>> significance_of(np.array([0.1, 2.8665e-07])).round(3)
    array([1.282, 5.   ])
    """
    return np.asarray(np.minimum(-ndtri(np.asarray(p)), _LARGEST))
