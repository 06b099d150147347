"""Upper limits at 95 % CLs on signals in a spectrum, by pyhf: in a window, where the background comes from a fit beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from coffea_ad.errors import ConfigError, FitFailed
from coffea_ad.search.asymptotic import asymptotic_limit
from coffea_ad.search.channels import Channel, Sample
from coffea_ad.search.counting import counting_limit
from coffea_ad.search.fits import Fit, fit
from coffea_ad.search.minimising import first_guess, fit_many
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectrum
from coffea_ad.typing import Bools, Float64s

__all__ = [
    "Limit",
    "LimitTask",
    "asymptotic_limit",
    "channel_of",
    "channel_of_task",
    "counting_limit",
    "limit_of_task",
    "tasks_of",
]

_PART = 0.05  # of the largest bin, from which a signal has a part in a bin
_FEW = 10.0  # events in the window, below which asymptotic formulae are no good
_UNLIKE = 10.0  # times more events by a fit to all bins, which a signal does not make
_UNKNOWN = 0.5  # relative error of the background, from which what lies beside a window says too little about it
_SAME = 0.01  # of the largest bin: shapes that differ by less are one


class Limit(NamedTuple):
    """Limits on the events of a signal.

    Attributes
    ----------
    spectrum : str
    mass, width : float
        GeV and σ/m.
    signal : str
        Name of a simulated one.
    low, high : float, GeV
        The window.
    events, background, error : float
        In the window; the background is that of the fit to what lies beside it.
    observed : float
        Events of the signal in the whole spectrum, excluded at 95 % CLs.
    expected : tuple of 5 floats
        Without a signal: median, ∓ 1 and 2 standard deviations, rising.
    method : "asymptotic" or "counting"
    said : str
        Why there is none.
    signal_events : float
        Of a simulated signal at its cross-section, in the whole spectrum; 0 for a Gaussian one.
    """

    spectrum: str
    mass: float
    width: float
    signal: str = ""
    low: float = 0.0
    high: float = 0.0
    events: float = 0.0
    background: float = 0.0
    error: float = 0.0
    observed: float | None = None
    expected: tuple[float, ...] = ()
    method: str = ""
    said: str = ""
    signal_events: float = 0.0


class LimitTask(NamedTuple):
    """One limit: a signal in a spectrum.

    Attributes
    ----------
    spectrum : Spectrum
        In the fitted range.
    family : str
    order : int
    sqrt_s : float, GeV
    mass, width, resolution : float
    shape : (n,) float64 or None
        Events of the signal in place of a Gaussian one, such as a simulated signal's.
    relative_error : float
        Of its number of events.
    variations : {source: (up, down)} of (n,) float64
        Its events at ±1σ of sources that change its shape.
    name : str
        Of a simulated signal.
    spurious : float
        Events of the signal that the function makes up: one more error of the background.
    """

    spectrum: Spectrum
    family: str
    order: int
    sqrt_s: float
    mass: float
    width: float
    resolution: float = 0.0
    shape: Float64s | None = None
    relative_error: float = 0.0
    variations: Mapping[str, tuple[Float64s, Float64s]] | None = None
    name: str = ""
    spurious: float = 0.0

    @property
    def signal(self) -> Float64s:
        """(n,) Events of the signal in all bins: one in all for a Gaussian one."""
        return (
            gaussian(self.spectrum.edges, self.mass, self.width, self.resolution) if self.shape is None else self.shape
        )


def limit_of_task(task: LimitTask, _shared: Any = None) -> Limit:
    """Return the limit on a signal; a window for which there is none says why."""
    s = task.spectrum
    shape = task.signal
    empty = Limit(s.name, task.mass, task.width, task.name)
    if not shape.sum() > 0:
        what = (
            f"signal {task.name} has no events in it"
            if task.name
            else f"a signal of {task.mass:g} GeV is outside of it"
        )
        return empty._replace(said=f"spectrum {s.name}: {what}")
    if task.name:
        empty = empty._replace(signal_events=float(shape.sum()))
    try:
        window, beside = _beside(task, shape)
    except FitFailed as problem:
        return empty._replace(said=f"{problem}; its window of {task.mass:g} GeV was left out")
    unit = shape / shape.sum()
    slopes = beside.jacobian[window].sum(axis=0)
    b = float(beside.background[window].sum())
    inside = float(unit[window].sum())
    error = float(np.sqrt(max(slopes @ beside.covariance @ slopes, 0.0) + (task.spurious * inside) ** 2))
    edges = s.edges[:-1][window][0], s.edges[1:][window][-1]
    told = empty._replace(
        low=float(edges[0]), high=float(edges[1]), events=float(s.counts[window].sum()), background=b, error=error
    )
    everything = _everywhere(beside)[window].sum()
    if everything > max(_UNLIKE * (b + 3 * error), _UNLIKE):  # an extrapolation that went astray, and does not know it
        return told._replace(
            said=f"{_beside_of(task, told)} {b:.3g} ± {error:.3g} events, where the function that is fitted to all bins has {everything:.3g}"
        )
    if b < _FEW:
        observed, expected = counting_limit(told.events, b, error, signal_error=_window_error(task, shape, window))
        return told._replace(
            observed=observed / inside, expected=tuple(e / inside for e in expected), method="counting"
        )
    if error > _UNKNOWN * b:
        return told._replace(said=f"{_beside_of(task, told)} {b:.3g} ± {error:.3g} events")
    try:
        observed, expected = asymptotic_limit(
            channel_of(beside, unit, window, task.relative_error, _per_event(task, shape), task.spurious * unit),
            b,
            error,
        )
    except (ConfigError, FitFailed) as problem:
        return told._replace(said=f"spectrum {s.name}, {task.mass:g} GeV: {problem}")
    return told._replace(observed=observed, expected=expected, method="asymptotic")


def _beside_of(task: LimitTask, told: Limit) -> str:
    what = f"signal {task.name}" if task.name else f"a signal of {task.mass:g} GeV"
    return (
        f"spectrum {told.spectrum}: what lies beside the window of {what}, {told.low:g} to {told.high:g} GeV, says of the background there "
        "only that it is"
    )


def _everywhere(beside: Fit) -> Float64s:
    """Return what the same function expects when it is fitted to all bins."""
    s, function = beside.spectrum, beside.function
    return function.expected(fit_many(s.counts, function, first_guess(s.counts, function), scale=s.scale).theta[0])


def _beside(task: LimitTask, shape: Float64s) -> tuple[Bools, Fit]:
    """Return the window of a signal and the fit to what lies beside it."""
    window = shape > _PART * shape.max()
    window[np.flatnonzero(window)[0] : np.flatnonzero(window)[-1] + 1] = True
    mask = np.where(window, 0.0, 1.0)
    return window, fit(task.spectrum, task.family, task.order, task.sqrt_s, mask=mask)


def channel_of_task(task: LimitTask) -> Channel:
    """Return the window of a simulated signal, as its limit is set in it: strength 1 is what is expected of the signal.

    Raises
    ------
    FitFailed
        The background cannot be fitted.
    ConfigError
        The signal has no events.
    """
    if task.shape is None or not task.shape.sum() > 0:
        raise ConfigError(f"spectrum {task.spectrum.name}: signal {task.name} has no events in it")
    window, beside = _beside(task, task.shape)
    made_up = task.spurious * task.shape / task.shape.sum()
    return channel_of(beside, task.shape, window, task.relative_error, task.variations, made_up)


def _window_error(task: LimitTask, shape: Float64s, window: Bools) -> float:
    """Return the relative error of the signal in a window, all sources in squares: of one number there is no shape."""
    inside = shape[window].sum()
    shifts = [max(abs(float(v[window].sum() / inside) - 1) for v in pair) for pair in (task.variations or {}).values()]
    return float(np.sqrt(task.relative_error**2 + np.square(shifts).sum()))


def _per_event(task: LimitTask, shape: Float64s) -> dict[str, tuple[Float64s, Float64s]]:
    return {source: (up / shape.sum(), down / shape.sum()) for source, (up, down) in (task.variations or {}).items()}


def channel_of(
    beside: Fit, signal: Float64s, window: Bools, relative_error: float = 0.0,
    shifted: Mapping[str, tuple[Float64s, Float64s]] | None = None, spurious: Float64s | None = None,
) -> Channel:  # fmt: skip
    """Return the bins of a window with its background, whose error has one independent source for each parameter of the fit.

    The covariance of the parameters, from what lies outside of the window, is C = Σ_k λ_k u_k u_kᵀ; source k shifts the expected
    events by ± √λ_k J u_k, J being their derivatives.

    Parameters
    ----------
    beside : Fit
        Of the bins outside.
    signal : (n,) float64
        Events of strength 1, in all bins.
    window : (n,) bool
    relative_error : float
        Of the signal's number of events.
    shifted : {source: (up, down)}, optional
        The signal at ±1σ of sources that change its shape, in all bins.
    spurious : (n,) float64, optional
        Events of a signal that the function makes up, in all bins: the background at +1σ has them more.
    """
    b, p = beside.background[window], beside.order
    values, vectors = np.linalg.eigh(beside.covariance[:p, :p])
    variations = {}
    for k in range(p):
        shift = np.sqrt(max(values[k], 0.0)) * (beside.jacobian[window] @ vectors[:, k])
        if np.abs(shift).max() > 1e-9 * b.max():
            variations[f"fit_{k + 1}"] = (np.maximum(b + shift, 1e-6 * b), np.maximum(b - shift, 1e-6 * b))
    if spurious is not None and (extra := np.abs(spurious[window])).max() > 0:
        variations["spurious_signal"] = (b + extra, np.maximum(b - extra, 1e-6 * b))
    norm, shapes = _sources(signal[window], {k: (u[window], d[window]) for k, (u, d) in (shifted or {}).items()})
    if relative_error > 0:
        norm["signal_yield"] = (1 / (1 + relative_error), 1 + relative_error)
    edges = np.append(beside.spectrum.edges[:-1][window], beside.spectrum.edges[1:][window][-1])
    n = len(b)
    samples = {
        "background": Sample(b, np.zeros(n), variations=variations),
        "signal": Sample(signal[window], np.zeros(n), signal=True, norm=norm, variations=shapes),
    }
    return Channel("window", edges, beside.spectrum.counts[window], samples, "GeV")


def _sources(
    nominal: Float64s, shifted: Mapping[str, tuple[Float64s, Float64s]]
) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[Float64s, Float64s]]]:
    """Return the sources that change only the number of events, as factors down and up, and those that change the shape.

    Factors are powers: a signal never becomes 0 by them, where no strength would be excluded any more.
    """
    norm, shapes = dict[str, tuple[float, float]](), dict[str, tuple[Float64s, Float64s]]()
    for source, pair in shifted.items():
        up, down = (float(v.sum() / nominal.sum()) for v in pair)
        same = all(np.abs(v - f * nominal).max() < _SAME * nominal.max() for v, f in zip(pair, (up, down), strict=True))
        if same and up > 0 and down > 0:
            norm[source] = (down, up)
        else:
            shapes[source] = pair
    return norm, shapes


def tasks_of(
    spectrum: Spectrum, family: str, order: int, sqrt_s: float, *, widths: Sequence[float], masses: Sequence[float] = (), places: int = 10,
    resolution: float = 0.0,
) -> list[LimitTask]:  # fmt: skip
    """Return the limits that are asked of a spectrum: Gaussian signals of every width, at equal ratios of masses up to the last event."""
    out: list[LimitTask] = []
    edges = spectrum.edges
    filled = np.flatnonzero(spectrum.counts > 0)
    top = edges[filled[-1] + 1] if len(filled) else edges[-1]
    for width in widths:
        total = float(np.hypot(width, resolution))
        low, high = edges[0] * (1 + total), max(float(top) * (1 - total / 2), edges[0] * (1 + total))
        places_of = masses or np.geomspace(low, high, places).tolist()
        out += [LimitTask(spectrum, family, order, sqrt_s, float(mass), float(width), resolution) for mass in places_of]
    return out
