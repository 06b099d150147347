"""Upper limits by asymptotic formulae, with pyhf."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from coffea_ad.errors import FitFailed
from coffea_ad.search.channels import Channel, workspace
from coffea_ad.typing import Float64s

__all__ = ["LEVEL", "asymptotic_limit", "cls_at"]

LEVEL = 0.05
_POINTS = 9
_CALLS = 5000  # of −ln L in a fit, which needs some hundred
_TRIES = 3  # of strengths: where they are expected, and then below or above
_REFINED, _CLOSE = 3, 0.1  # more strengths at most, until CLs is as close to the level


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
    asked, low, high = _question(channel, background, error)
    strengths, curves = list[float](), list[list[float]]()
    for _ in range(_TRIES):
        for mu in np.geomspace(low, high, _POINTS):
            strengths.append(float(mu))
            curves.append(asked(float(mu)))
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
        curves.append(asked(observed))
        if abs(curves[-1][0] / level - 1) < _CLOSE:
            break
    at, table = np.sort(strengths), np.asarray(curves)[np.argsort(strengths)]
    limits = [_crossing(at, table[:, k], level) for k in range(6)]
    if not np.all(np.isfinite(limits)):
        raise FitFailed(f"no strength between {at[0]:.3g} and {at[-1]:.3g} has CLs = {level:g}")
    return limits[0], tuple(float(v) for v in limits[1:])


def cls_at(channel: Channel, background: float, error: float, strength: float) -> list[float]:
    """Return CLs of a strength: the observed one, and those without a signal, from −2 to +2 standard deviations of the observation.

    Parameters
    ----------
    channel, background, error
        As for `asymptotic_limit`.
    strength : float
    """
    return _question(channel, background, error)[0](strength)


def _question(channel: Channel, background: float, error: float) -> tuple[Callable[[float], list[float]], float, float]:
    """Return CLs as a function of the strength, and the ends of where a limit is expected."""
    import pyhf

    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(tolerance=0.01, maxiter=_CALLS), precision="64b")
    in_window = float(next(s for s in channel.samples.values() if s.signal).nominal.sum())
    size = np.sqrt(background + error**2 + max(float(channel.observed.sum()) - background, 0.0))
    excess = max(float(channel.observed.sum()) - background, 0.0)
    low, high = 0.4 * size / in_window, (excess + 5.5 * size + 3.0) / in_window
    spec = workspace([channel])
    spec["measurements"][0]["config"]["parameters"][0]["bounds"] = [[0.0, 20 * high]]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "jsonschema.RefResolver", DeprecationWarning)  # of pyhf's checks
        space = pyhf.Workspace(spec)
        model = space.model()
    try:
        with _unlogged():
            fits = _Fits(model, space.data(model))
    except (pyhf.exceptions.FailedMinimization, ValueError) as problem:
        raise FitFailed(f"pyhf's fit failed ({' '.join(str(problem).split())[:80]})") from None
    return lambda mu: _cls(fits, mu), low, high


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep pyhf from printing the fit and a traceback where one fails: the sentence of the limit says it."""
    log = logging.getLogger("pyhf.optimize.mixins")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


class _Fits:
    """The fits that CLs of several strengths need: those that do not depend on the strength are made once.

    Parameters
    ----------
    model : pyhf.Model
    data : list of float
    """

    def __init__(self, model: Any, data: Any) -> None:
        import pyhf

        self._mle, self._model, self._data = pyhf.infer.mle, model, data
        self._best, self._least = self._fit(data)
        without, _ = self._mle.fixed_poi_fit(0.0, data, model, return_fitted_val=True)
        self._asimov = model.expected_data(without)
        _, self._least_asimov = self._fit(self._asimov)
        self._last: dict[str, list[float]] = {}

    def _fit(self, data: Any) -> tuple[Any, float]:
        at, least = self._mle.fit(data, self._model, return_fitted_val=True)
        return at, float(least)

    def roots(self, mu: float) -> tuple[float, float]:
        """Return √q̃_μ of the observation, and of what is expected without a signal."""
        best = float(self._best[self._model.config.poi_index])
        q = self._rise("observed", mu, self._data, self._least) if best <= mu else 0.0
        return float(np.sqrt(q)), float(np.sqrt(self._rise("asimov", mu, self._asimov, self._least_asimov)))

    def _rise(self, which: str, mu: float, data: Any, least: float) -> float:
        at, value = self._mle.fixed_poi_fit(
            mu, data, self._model, init_pars=self._last.get(which), return_fitted_val=True
        )
        self._last[which] = [float(v) for v in at]  # the next strength is not far
        return max(float(value) - least, 0.0)


def _cls(fits: _Fits, mu: float) -> list[float]:
    """Return CLs by the asymptotic distributions of q̃_μ, the observed one and those of −2 to +2 standard deviations."""
    import pyhf

    try:
        with _unlogged():
            root, expected = fits.roots(mu)
    except (pyhf.exceptions.FailedMinimization, ValueError) as error:
        raise FitFailed(f"pyhf's fit at strength {mu:.3g} failed ({' '.join(str(error).split())[:80]})") from None
    if not expected > 0:
        return [1.0] * 6
    statistic = root - expected if root <= expected else (root**2 - expected**2) / (2 * expected)
    signal, background = (pyhf.infer.calculators.AsymptoticTestStatDistribution(shift) for shift in (-expected, 0.0))
    return [float(signal.pvalue(t) / background.pvalue(t)) for t in (statistic, 2.0, 1.0, 0.0, -1.0, -2.0)]


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
