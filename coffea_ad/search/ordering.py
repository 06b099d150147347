"""How many parameters a function needs: F-tests of many spectra at once, the same for data and for pseudo-experiments."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import f as f_distribution

from coffea_ad.search.families import Design
from coffea_ad.search.fits import deviance, fittable
from coffea_ad.search.minimising import Minimised, fit_many
from coffea_ad.search.windows import window_significances, windows_of
from coffea_ad.typing import Bools, Float64s, Ints

__all__ = ["ALPHA", "Orders", "Selected", "select_orders"]

ALPHA = 0.05
"""p-value of an F-test below which one more parameter is taken."""
_BINS_TO_SPARE = 12
_AGAIN = 4


class Orders(NamedTuple):
    """A function with more and more parameters, of which as many are taken as a spectrum asks for.

    Attributes
    ----------
    functions : tuple of Design
        Each with one parameter more than the one before; of one alone, nothing is selected.
    starts : tuple of (p,) float64
        Parameters to start fits from.
    alpha : float
    exclude : float
        Local significance from which the window of the largest excess (at most a quarter of the bins) does not count.
    """

    functions: tuple[Design, ...]
    starts: tuple[Float64s, ...]
    alpha: float = ALPHA
    exclude: float = np.inf


class Selected(NamedTuple):
    """What F-tests of T spectra say.

    Attributes
    ----------
    place : (T,) int64
        Of the function among `Orders.functions`.
    mask : (T, n) float64
        0 in bins that did not count.
    tests : (T, functions − 1) float64
        p-values of one more parameter; NaN where none was asked for.
    """

    place: Ints
    mask: Float64s
    tests: Float64s


def select_orders(
    counts: Float64s, orders: Orders, *, scale: Float64s | None = None, mask: Float64s | None = None
) -> Selected:
    """Add parameters to the function of each spectrum until one more does not improve its fit.

        F = (χ²_n − χ²_{n+1}) / (χ²_{n+1} / ndf_{n+1}),  with one and ndf_{n+1} degrees of freedom

    and n parameters are enough where the p-value of F is above α. The window of a large excess does not count there: a signal would
    otherwise be described by parameters of the background.

    Parameters
    ----------
    counts : (T, n) float64
    orders : Orders
    scale : (n,) float64, optional
        Σw²/Σw of weighted entries.
    mask : (n,) float64, optional
        Bins that count; then no excess is left out.

    Returns
    -------
    Selected

    References
    ----------
    R. Fisher, "On the interpretation of χ² from contingency tables", J. R. Stat. Soc. 85 (1922) 87.
    """
    rows = np.atleast_2d(np.asarray(counts, np.float64))
    s = np.ones(rows.shape[1]) if scale is None else scale
    last = len(orders.functions) - 1
    place, tests = np.zeros(len(rows), np.int64), np.full((len(rows), last), np.nan)
    seen = np.array(np.broadcast_to(1.0 if mask is None else mask, rows.shape), np.float64)
    going = np.arange(len(rows))
    for k in range(last):
        n = rows[going]
        best, m = _without_excess(n, orders, k, s, mask)
        other = fit_many(n, orders.functions[k + 1], orders.starts[k + 1], scale=s, mask=m)
        p = _f_test(n, orders, k, s, m, best, other)
        usable = other.valid & fittable(n, s, m, orders.functions[k + 1].order)
        tests[going, k] = np.where(usable, p, np.nan)
        place[going], seen[going] = k, m
        going = going[usable & (p <= orders.alpha)]
    if len(going):
        place[going], seen[going] = last, _without_excess(rows[going], orders, last, s, mask)[1]
    return Selected(place, seen, tests)


def _f_test(
    counts: Float64s, orders: Orders, k: int, scale: Float64s, mask: Float64s, best: Minimised, other: Minimised
) -> Float64s:
    chi2 = [
        deviance(counts, f.expected(fits.theta), scale, mask)
        for f, fits in zip(orders.functions[k : k + 2], (best, other), strict=True)
    ]
    rest = np.maximum(mask.sum(axis=1) - orders.functions[k + 1].order, 1)
    better = np.maximum(chi2[0] - chi2[1], 0.0)
    return np.asarray(f_distribution.sf(better / np.maximum(chi2[1] / rest, 1e-12), 1, rest))


def _without_excess(
    counts: Float64s, orders: Orders, k: int, scale: Float64s, mask: Float64s | None
) -> tuple[Minimised, Float64s]:
    """Return fits, and which bins count in them: not those of the window of a large excess."""
    function, start = orders.functions[k], orders.starts[k]
    seen = np.array(np.broadcast_to(1.0 if mask is None else mask, counts.shape), np.float64)
    fits = fit_many(counts, function, start, scale=scale, mask=seen)
    if mask is not None or not np.isfinite(orders.exclude) or counts.shape[1] < _BINS_TO_SPARE:
        return fits, seen
    left = np.arange(len(counts))
    for _ in range(_AGAIN):  # a fit to a large excess may first misplace it
        without, large = _largest_excess(counts[left], function.expected(fits.theta[left]), scale, orders.exclude)
        left, without = left[large], without[large]
        new = (without != seen[left]).any(axis=1)
        left, without = left[new], without[new]
        if not len(left):
            break
        seen[left] = without
        again = fit_many(counts[left], function, start, scale=scale, mask=without)
        fits.theta[left], fits.value[left], fits.valid[left] = again.theta, again.value, again.valid
    return fits, seen


def _largest_excess(counts: Float64s, expected: Float64s, scale: Float64s, exclude: float) -> tuple[Float64s, Bools]:
    """Return the bins without the window of each spectrum's largest excess, and where that is large."""
    windows = windows_of(counts.shape[1], widest=counts.shape[1] // 4)
    z = window_significances(counts / scale, expected / scale, windows)
    best = z.argmax(axis=1)
    bins = np.arange(counts.shape[1])
    inside = (bins >= windows.begin[best][:, None]) & (bins < windows.end[best][:, None])
    return np.where(inside, 0.0, 1.0), z[np.arange(len(z)), best] >= exclude
