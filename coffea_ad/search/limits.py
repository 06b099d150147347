"""Upper limits at 95 % CLs on signals in a spectrum, by pyhf: in a window, where the background comes from a fit beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import poisson

from coffea_ad.errors import ConfigError, FitFailed
from coffea_ad.search.channels import Channel, Sample, workspace
from coffea_ad.search.fits import Fit, fit
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectrum
from coffea_ad.typing import Float64s

__all__ = ["Limit", "LimitTask", "asymptotic_limit", "channel_of", "counting_limit", "limit_of_task", "tasks_of"]

LEVEL = 0.05
_BANDS = (-2.0, -1.0, 0.0, 1.0, 2.0)
_PART = 0.05  # of the largest bin, from which a signal has a part in a bin
_FEW = 10.0  # events in the window, below which asymptotic formulae are no good
_REFINED, _CLOSE = 3, 0.1  # more strengths at most, until CLs is as close to the level
_SAME = 0.01  # of the largest bin: shapes that differ by less are one
_POINTS = 9
_TRIES = 3  # of strengths: where they are expected, and then below or above
_DRAWS = 2000  # of the background within its error
_RARE = 1e-6  # probability of as few events by the background alone, below which ratios of sums are not exact
_MANY = 500.0  # events, from which counting has the asymptotic form


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


def limit_of_task(task: LimitTask, _shared: Any = None) -> Limit:
    """Return the limit on a signal; a window for which there is none says why."""
    s = task.spectrum
    shape = gaussian(s.edges, task.mass, task.width, task.resolution) if task.shape is None else task.shape
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
    window = shape > _PART * shape.max()
    window[np.flatnonzero(window)[0] : np.flatnonzero(window)[-1] + 1] = True
    try:
        beside = fit(s, task.family, task.order, task.sqrt_s, mask=np.where(window, 0.0, 1.0))
    except FitFailed as problem:
        return empty._replace(said=f"{problem}; its window of {task.mass:g} GeV was left out")
    unit = shape / shape.sum()
    slopes = beside.jacobian[window].sum(axis=0)
    b = float(beside.background[window].sum())
    error = float(np.sqrt(max(slopes @ beside.covariance @ slopes, 0.0)))
    edges = s.edges[:-1][window][0], s.edges[1:][window][-1]
    told = empty._replace(
        low=float(edges[0]), high=float(edges[1]), events=float(s.counts[window].sum()), background=b, error=error
    )
    if b < _FEW:
        part = float(unit[window].sum())
        observed, expected = counting_limit(told.events, b, error, signal_error=_window_error(task, shape, window))
        return told._replace(observed=observed / part, expected=tuple(e / part for e in expected), method="counting")
    try:
        observed, expected = asymptotic_limit(
            channel_of(beside, unit, window, task.relative_error, _per_event(task, shape)), b, error
        )
    except (ConfigError, FitFailed) as problem:
        return told._replace(said=f"spectrum {s.name}, {task.mass:g} GeV: {problem}")
    return told._replace(observed=observed, expected=expected, method="asymptotic")


def _window_error(task: LimitTask, shape: Float64s, window: Float64s) -> float:
    """Return the relative error of the signal in a window, all sources in squares: of one number there is no shape."""
    inside = shape[window].sum()
    shifts = [max(abs(float(v[window].sum() / inside) - 1) for v in pair) for pair in (task.variations or {}).values()]
    return float(np.sqrt(task.relative_error**2 + np.square(shifts).sum()))


def _per_event(task: LimitTask, shape: Float64s) -> dict[str, tuple[Float64s, Float64s]]:
    return {source: (up / shape.sum(), down / shape.sum()) for source, (up, down) in (task.variations or {}).items()}


def channel_of(
    beside: Fit, signal: Float64s, window: Float64s, relative_error: float = 0.0,
    shifted: Mapping[str, tuple[Float64s, Float64s]] | None = None,
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
    """
    b, p = beside.background[window], beside.order
    values, vectors = np.linalg.eigh(beside.covariance[:p, :p])
    variations = {}
    for k in range(p):
        shift = np.sqrt(max(values[k], 0.0)) * (beside.jacobian[window] @ vectors[:, k])
        if np.abs(shift).max() > 1e-9 * b.max():
            variations[f"fit_{k + 1}"] = (np.maximum(b + shift, 1e-6 * b), np.maximum(b - shift, 1e-6 * b))
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


def asymptotic_limit(
    channel: Channel, background: float, error: float, level: float = LEVEL
) -> tuple[float, tuple[float, ...]]:
    """Return the observed and the expected upper limits on the strength, by pyhf with minuit.

    CLs(μ) of q̃_μ is computed at a few strengths around what counting would exclude, all expected bands with it, and log CLs is interpolated; where a limit
    lies outside there are more.

    Raises
    ------
    ConfigError
        As `workspace` raises.
    FitFailed
        pyhf's fits do not converge, or a limit is not bracketed.

    References
    ----------
    G. Cowan et al., "Asymptotic formulae for likelihood-based tests of new physics", arXiv:1007.1727. A. Read, "Presentation of search results: the CLs
    technique", J. Phys. G 28 (2002) 2693.
    """
    import pyhf

    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=0.01), precision="64b")
    in_window = float(next(s for s in channel.samples.values() if s.signal).nominal.sum())
    size = np.sqrt(background + error**2 + max(float(channel.observed.sum()) - background, 0.0))
    excess = max(float(channel.observed.sum()) - background, 0.0)
    low, high = 0.4 * size / in_window, (excess + 5.5 * size + 3.0) / in_window
    spec = workspace([channel])
    spec["measurements"][0]["config"]["parameters"][0]["bounds"] = [[0.0, 20 * high]]
    space = pyhf.Workspace(spec)
    model = space.model()
    data = space.data(model)
    strengths, curves = list[float](), list[list[float]]()
    for _ in range(_TRIES):
        for mu in np.geomspace(low, high, _POINTS):
            strengths.append(float(mu))
            curves.append(_cls(pyhf, model, data, float(mu)))
        table = np.asarray(curves)[np.argsort(strengths)]
        if (table[0] > level).all() and (table[-1] < level).all():
            break
        first, last = min(strengths), max(strengths)
        low, high = (first / 8, 0.9 * first) if (table[0] <= level).any() else (1.1 * last, 4 * last)
    for _ in range(_REFINED):  # far from what is expected, the observed curve falls in a step
        observed = _crossing(np.sort(strengths), np.asarray(curves)[np.argsort(strengths)][:, 0], level)
        if not np.isfinite(observed) or np.isclose(strengths, observed, rtol=1e-3).any():
            break
        strengths.append(observed)
        curves.append(_cls(pyhf, model, data, observed))
        if abs(curves[-1][0] / level - 1) < _CLOSE:
            break
    at, table = np.sort(strengths), np.asarray(curves)[np.argsort(strengths)]
    limits = [_crossing(at, table[:, k], level) for k in range(6)]
    if not np.all(np.isfinite(limits)):
        raise FitFailed(f"no strength between {at[0]:.3g} and {at[-1]:.3g} has CLs = {level:g}")
    return limits[0], tuple(float(v) for v in limits[1:])


def _cls(pyhf: Any, model: Any, data: Any, mu: float) -> list[float]:
    try:
        observed, expected = pyhf.infer.hypotest(mu, data, model, test_stat="qtilde", return_expected_set=True)
    except (pyhf.exceptions.FailedMinimization, ValueError) as error:
        raise FitFailed(f"pyhf's fit at strength {mu:.3g} failed ({' '.join(str(error).split())[:80]})") from None
    return [float(observed), *(float(e) for e in expected)]


def _crossing(strengths: Float64s, cls: Float64s, level: float) -> float:
    """Return where a falling curve crosses a level, by interpolation of its logarithm."""
    from scipy.interpolate import PchipInterpolator

    log = np.log(np.maximum(cls, 1e-12)) - np.log(level)
    below = np.flatnonzero(log < 0)
    if not len(below) or below[0] == 0:
        return float("nan")
    i = below[0]
    near = slice(max(i - 2, 0), i + 2)
    roots = PchipInterpolator(strengths[near], log[near]).roots(extrapolate=False)
    inside = roots[(roots >= strengths[i - 1]) & (roots <= strengths[i])]
    return float(inside[0]) if len(inside) else float("nan")


def counting_limit(
    events: float, background: float, error: float, level: float = LEVEL, *, signal_error: float = 0.0
) -> tuple[float, tuple[float, ...]]:
    """Return the observed and the expected upper limits on a number of signal events, by counting.

        CLs(s) = ⟨P(≤ n | s ε + b)⟩ / ⟨P(≤ n | b)⟩

    where b is averaged over its normal error, cut off at 0, and ε over a log-normal one around 1. This is exact for few events, where asymptotic
    formulae are not. With a large background, and for numbers far below it, the limit is the asymptotic one of one bin.

    Parameters
    ----------
    events, background, error : float
        Observed, and expected without a signal, with its standard deviation.
    level : float
        1 − confidence level.
    signal_error : float
        Relative, of what is expected of a signal.

    Returns
    -------
    observed : float
    expected : tuple of 5 floats
        Median, ∓ 1 and 2 standard deviations, rising.

    Raises
    ------
    ConfigError
        A number is not finite or below 0.
    FitFailed
        As for `asymptotic_limit`, with many events.

    Examples
    --------
    >>> observed, expected = counting_limit(0, 1e-6, 0.0)
    >>> round(observed, 2)
    3.0
    """
    numbers = {"events": events, "background": background, "its error": error, "the signal's error": signal_error}
    for what, value in numbers.items():
        if not (np.isfinite(value) and value >= 0):
            raise ConfigError(f"counting: {what} must be a number of 0 or more, not {value:g}")
    b = np.maximum(background + error * _normal(), 1e-9)
    n = float(np.floor(events))
    efficiency = np.exp(np.log1p(signal_error) * _normal()[_shuffled()])
    many = background > _MANY
    if many or poisson.cdf(n, b).mean() < _RARE:
        observed = asymptotic_limit(_one_bin(n, max(background, 1e-3), error, signal_error), background, error, level)[
            0
        ]
    else:
        observed = _counting(n, b, efficiency, level)
    if many:  # of what is expected before there are data: a fit to data would have its bands move with them
        return observed, asymptotic_limit(
            _one_bin(background, background, error, signal_error), background, error, level
        )[1]
    quantiles = _usual(b)
    limits = {k: _counting(k, b, efficiency, level) for k in set(quantiles)}
    return observed, tuple(limits[k] for k in quantiles)


def _counting(n: float, b: Float64s, efficiency: Float64s, level: float) -> float:
    null = poisson.cdf(n, b).mean()
    low, high = 0.0, (n + 10 * np.sqrt(n + 1) + 10) / float(efficiency.min())
    while high - low > 1e-4 * high:
        s = (low + high) / 2
        low, high = (s, high) if poisson.cdf(n, b + s * efficiency).mean() / null > level else (low, s)
    return float(high)


def _usual(b: Float64s) -> list[float]:
    """Return the quantiles of the number of events without a signal, at the standard deviations of the bands."""
    out = []
    for z in _BANDS:
        wanted = ndtr(z)
        low, high = -1, int(b.max() + 10 * np.sqrt(b.max()) + 10)
        while high - low > 1:
            k = (low + high) // 2
            low, high = (low, k) if poisson.cdf(k, b).mean() >= wanted else (k, high)
        out.append(float(high))
    return out


def _one_bin(events: float, background: float, error: float, signal_error: float) -> Channel:
    b = np.array([background])
    up, down = b + error, np.maximum(b - error, 1e-3 * b)
    norm = {"signal_yield": (1 / (1 + signal_error), 1 + signal_error)} if signal_error > 0 else {}
    samples = {
        "background": Sample(b, np.zeros(1), variations={"background": (up, down)} if error > 0 else {}),
        "signal": Sample(np.ones(1), np.zeros(1), signal=True, norm=norm),
    }
    return Channel("region", np.array([0.0, 1.0]), np.array([events]), samples)


def _normal() -> Float64s:
    """Return the quantiles of a normal distribution at equal parts of it: as draws, without their fluctuation."""
    return np.asarray(ndtri((np.arange(_DRAWS) + 0.5) / _DRAWS))


def _shuffled() -> Any:
    """Return an order in which equal parts of one distribution meet all parts of another: multiples of the golden ratio."""
    return np.argsort(np.arange(_DRAWS) * 0.6180339887498949 % 1.0)


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
