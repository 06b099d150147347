"""Windows of neighbouring bins, and the significance of more events in them than expected."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import gammainc, ndtri

from coffea_ad.typing import Float64s, Ints

__all__ = ["Windows", "poisson_tail", "significance_of", "window_significances", "windows_of"]

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
