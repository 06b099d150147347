"""The choice of the function as an uncertainty: discrete profiling over families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from coffea_ad.errors import FitFailed
from coffea_ad.search.choosing import select_order
from coffea_ad.search.fits import Fit, fit
from coffea_ad.search.minimising import profile
from coffea_ad.search.spectra import Spectrum
from coffea_ad.typing import Float64s

__all__ = ["Envelope", "envelope"]

_STEPS = 61
_REACH = 4.0  # standard deviations on both sides


class Envelope(NamedTuple):
    """The strength of a signal where each function may be the right one.

    Attributes
    ----------
    strength, down, up : float
        Best value, and its errors towards smaller and larger ones.
    family : str
        Of the best value.
    orders : {family: int}
        Parameters of the functions.
    alone : {family: (strength, error)}
        With one function only.
    strengths : (k,) float64
    curves : {family: (k,) float64}
        −2 ln L + number of parameters, less the smallest value of all.
    left_out : {family: sentence}
    """

    strength: float
    down: float
    up: float
    family: str
    orders: Mapping[str, int]
    alone: Mapping[str, tuple[float, float]]
    strengths: Float64s
    curves: Mapping[str, Float64s]
    left_out: Mapping[str, str]


def envelope(
    spectrum: Spectrum,
    families: Sequence[str],
    sqrt_s: float,
    signal: Float64s,
    *,
    alpha: float = 0.05,
    exclude: float = np.inf,
) -> Envelope:
    """Profile the strength of a signal over functions as over any other nuisance parameter.

        Λ(s) = min_f [ −2 ln L_f(s, θ̂̂_f) + p_f ]

    with p_f parameters of function f; the interval is where Λ is at most 1 above its minimum. Each function has as many parameters as its F-test asks for.

    Parameters
    ----------
    spectrum : Spectrum
    families : sequence of str
    sqrt_s : float, GeV
    signal : (n,) float64
        Events of strength 1.
    alpha, exclude : float
        As for `choosing.select_order`.

    Raises
    ------
    FitFailed
        No function can be fitted.

    References
    ----------
    P. Dauncey et al., "Handling uncertainties in background shapes: the discrete profiling method", arXiv:1408.6865.
    """
    fits: dict[str, Fit] = {}
    left_out: dict[str, str] = {}
    for family in families:
        try:
            order = select_order(spectrum, family, sqrt_s, alpha=alpha, exclude=exclude)[0].order
            fits[family] = fit(spectrum, family, order, sqrt_s, signal=signal)
        except FitFailed as error:
            left_out[family] = str(error)
    if not fits:
        raise FitFailed(
            f"spectrum {spectrum.name}: no function describes it with a signal ({'; '.join(left_out.values())})"
        )
    low = min(max(f.strength - _REACH * f.strength_error, _lowest(f, signal)) for f in fits.values())
    high = max(f.strength + _REACH * f.strength_error for f in fits.values())
    strengths = np.linspace(low, high, _STEPS)
    curves = {family: _curve(f, signal, strengths) for family, f in fits.items()}
    for family in [name for name, c in curves.items() if not np.isfinite(c).any()]:
        left_out[family] = f"spectrum {spectrum.name}: {family} has no likelihood at any strength"
        del curves[family], fits[family]
    if not curves:
        raise FitFailed("; ".join(left_out.values()))
    least = min(float(c.min()) for c in curves.values())
    curves = {family: c - least for family, c in curves.items()}
    lowest = np.min(list(curves.values()), axis=0)
    best = int(np.argmin(lowest))
    family = min(curves, key=lambda name: curves[name][best])
    center, left, right = _interval(strengths, lowest)
    alone = {name: (f.strength, f.strength_error) for name, f in fits.items()}
    return Envelope(
        center,
        center - left,
        right - center,
        family,
        {n: f.order for n, f in fits.items()},
        alone,
        strengths,
        curves,
        left_out,
    )


def _lowest(fitted: Fit, signal: Float64s) -> float:
    """Return the strength below which a bin would be negative."""
    under = signal > 1e-3 * signal.max()
    return -0.99 * float((fitted.background[under] / signal[under]).min())


def _curve(fitted: Fit, signal: Float64s, strengths: Float64s) -> Float64s:
    s = fitted.spectrum
    value, valid = profile(s.counts, fitted.function, fitted.theta, signal, strengths, scale=s.scale)
    return np.where(valid & np.isfinite(value), 2 * value + fitted.order, np.inf)


def _interval(x: Float64s, curve: Float64s) -> tuple[float, float, float]:
    """Return where a curve is smallest, by a parabola, and the ends of where it is at most 1 above."""
    i = int(np.argmin(curve))
    least, center = float(curve[i]), float(x[i])
    if 0 < i < len(x) - 1 and np.isfinite(curve[i - 1 : i + 2]).all():
        a, b, c = np.polyfit(x[i - 1 : i + 2], curve[i - 1 : i + 2], 2)
        if a > 0 and x[i - 1] < -b / (2 * a) < x[i + 1] and (vertex := float(c - b**2 / (4 * a))) > least - 1:
            center, least = float(-b / (2 * a)), vertex  # but where a function ends, which is a jump to another one
    inside = np.flatnonzero(curve <= least + 1)
    left, right = int(inside[0]), int(inside[-1])

    def crossing(one: int, other: int) -> float:
        if not 0 <= other < len(x) or not np.isfinite(curve[other]):
            return float(x[one])
        part = (least + 1 - curve[one]) / (curve[other] - curve[one])
        return float(x[one] + part * (x[other] - x[one]))

    return center, crossing(left, left - 1), crossing(right, right + 1)
