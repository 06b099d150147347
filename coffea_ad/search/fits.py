"""Smooth functions fitted to a spectrum by iminuit; what does not work says so, and never ends the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import xlogy
from scipy.stats import chi2

from coffea_ad.errors import FitFailed
from coffea_ad.search.families import FAMILIES, Design, design
from coffea_ad.search.minimising import first_guess, fit_many
from coffea_ad.search.spectra import Spectrum
from coffea_ad.typing import Bools, Float64s

__all__ = ["BINS_TO_SPARE", "Fit", "deviance", "fit", "fittable", "require_fittable"]

BINS_TO_SPARE = 2
"""Bins that a fit has more than parameters, at least."""
_EVENTS_PER_PARAMETER = 5
_AGAIN = 4
_LEAST = 1e-9  # expected events of a bin


@dataclass(frozen=True, repr=False)
class Fit:
    """A function, and perhaps a signal, fitted to a spectrum.

    Attributes
    ----------
    spectrum : Spectrum
        In the fitted range.
    family : str
    function : Design
    theta : (p,) float64
        In the orthonormal basis.
    covariance : (p, p) float64, or (p + 1, p + 1) with a signal, which is the last
    mask : (n,) float64
        0 in bins that did not count.
    strength, strength_error : float
        Of the signal; 0 without one.
    signal : (n,) float64 or None
        Events of strength 1.
    notes : tuple of str
        Such as a parameter at its limit.
    """

    spectrum: Spectrum
    family: str
    function: Design
    theta: Float64s
    covariance: Float64s
    mask: Float64s
    strength: float = 0.0
    strength_error: float = 0.0
    signal: Float64s | None = None
    notes: tuple[str, ...] = ()

    @property
    def order(self) -> int:
        """Number of parameters of the function."""
        return self.function.order

    @property
    def background(self) -> Float64s:
        """(n,) Expected events of the function alone, in all bins."""
        return self.function.expected(self.theta)

    @property
    def expected(self) -> Float64s:
        """(n,) Expected events of function and signal."""
        return np.asarray(self.background + (0.0 if self.signal is None else self.strength * self.signal))

    @property
    def jacobian(self) -> Float64s:
        """(n, p) Derivatives of the background by the parameters."""
        return np.asarray(_slopes(self.function, self.theta))

    @property
    def error(self) -> Float64s:
        """(n,) Standard error of the background by the errors of its parameters."""
        p = self.order
        return np.asarray(
            np.sqrt(np.einsum("ip,pq,iq->i", self.jacobian, self.covariance[:p, :p], self.jacobian).clip(0))
        )

    @property
    def parameters(self) -> Float64s:
        """(p,) Parameters of the formula; the first is p₁ itself, where terms are exponents."""
        values = self.function.published @ self.theta
        if FAMILIES[self.family].terms is None:
            return np.exp(values)
        return np.concatenate([np.exp(values[:1].clip(-700, 700)), values[1:]])

    @property
    def parameter_errors(self) -> Float64s:
        """(p,) Standard errors of `parameters`."""
        p = self.order
        of_values = self.function.published @ self.covariance[:p, :p] @ self.function.published.T
        sigma = np.sqrt(np.diag(of_values).clip(0))
        if FAMILIES[self.family].terms is None:
            return np.asarray(self.parameters * sigma)
        return np.concatenate([self.parameters[:1] * sigma[:1], sigma[1:]])

    @property
    def correlation(self) -> Float64s:
        """(p, p) Correlations of the parameters of the formula."""
        p = self.order
        of_values = self.function.published @ self.covariance[:p, :p] @ self.function.published.T
        sigma = np.sqrt(np.diag(of_values).clip(1e-300))
        return np.asarray(of_values / np.outer(sigma, sigma))

    @property
    def pulls(self) -> Float64s:
        """(n,) (observed − expected) / √expected, at the weight of entries."""
        return np.asarray(
            (self.spectrum.counts - self.expected) / np.sqrt(np.maximum(self.expected * self.spectrum.scale, 1e-12))
        )

    @property
    def deviance(self) -> float:
        """2 Σ (ν − n + n ln(n/ν)) over the bins that count: Baker and Cousins's χ²."""
        return float(deviance(self.spectrum.counts, self.expected, self.spectrum.scale, self.mask))

    @property
    def degrees(self) -> int:
        """Degrees of freedom."""
        return int(self.mask.sum()) - self.order - (self.signal is not None)

    @property
    def p_value(self) -> float:
        """Probability of a larger deviance, where every bin has several events; with few, by pseudo-experiments (`choosing.goodness`)."""
        return float(chi2.sf(self.deviance, max(self.degrees, 1)))


def deviance(counts: Float64s, expected: Float64s, scale: Float64s, mask: Float64s) -> Float64s:
    """Return Baker and Cousins's χ²_λ of counts (…, n) against expectations.

    >>> one = np.ones(2)
    >>> round(float(deviance(np.array([0.0, 4.0]), np.array([1.0, 2.0]), one, one)), 4)
    3.5452
    """
    nu = np.maximum(expected, 1e-12)
    each = nu - counts + xlogy(counts, counts / nu)
    return np.asarray(2 * (each * mask / scale).sum(axis=-1))


def require_fittable(spectrum: Spectrum, order: int, mask: Float64s | None = None) -> None:
    """Refuse what has no likelihood, or cannot tell the parameters.

    Raises
    ------
    FitFailed
        There are no events, too few bins or filled ones, or a negative sum of weights in a bin.
    """
    name, n = spectrum.name, spectrum.counts
    seen = np.ones(len(n), bool) if mask is None else mask > 0
    negative = np.flatnonzero((n < 0) & seen)
    if len(negative):
        i = int(negative[0])
        raise FitFailed(
            f"spectrum {name}, {spectrum.bin_name(i)}: the sum of weights is {n[i]:.3g}, and a negative one has no likelihood; merge "
            "bins, or leave out what has negative weights"
        )
    if not n[seen].sum() > 0:
        raise FitFailed(
            f"spectrum {name}: it has no events between {spectrum.edges[0]:g} and {spectrum.edges[-1]:g} GeV"
        )
    effective = float((n[seen] / spectrum.scale[seen]).sum())
    if effective < _EVENTS_PER_PARAMETER * order:
        raise FitFailed(f"spectrum {name}: {effective:.3g} events are too few for {order} parameters")
    if seen.sum() < order + BINS_TO_SPARE:
        raise FitFailed(f"spectrum {name}: {int(seen.sum())} bins are too few for {order} parameters")
    if (filled := int((n[seen] > 0).sum())) < order:
        raise FitFailed(f"spectrum {name}: {filled} bins have events, too few for {order} parameters")


def fittable(counts: Float64s, scale: Float64s, mask: Float64s, order: int) -> Bools:
    """Return which of many spectra (T, n) `require_fittable` lets pass.

    >>> one = np.ones((1, 5))
    >>> fittable(np.full((1, 5), 4.0), one[0], one, 3), fittable(np.full((1, 5), 4.0), one[0], one, 4)
    (array([ True]), array([False]))
    """
    seen = mask > 0
    events = (counts * seen / scale).sum(axis=1) >= _EVENTS_PER_PARAMETER * order
    bins = seen.sum(axis=1) >= order + BINS_TO_SPARE
    return np.asarray(events & bins & (((counts > 0) & seen).sum(axis=1) >= order) & ~((counts < 0) & seen).any(axis=1))


def fit(
    spectrum: Spectrum, family: str, order: int, sqrt_s: float, *, mask: Float64s | None = None, signal: Float64s | None = None,
    start: Float64s | None = None,
) -> Fit:  # fmt: skip
    """Fit a function, and a signal if there is one, to a spectrum: the largest Poisson likelihood.

        −ln L(θ, s) = Σ_i (ν_i − n_i ln ν_i) / w_i,   ν_i = ∫_i f(m; θ) dm + s S_i

    with w = 1 for events and Σw²/Σw for weighted entries.

    Parameters
    ----------
    spectrum : Spectrum
    family : str
        Of `FAMILIES`.
    order : int
        Number of parameters.
    sqrt_s : float, GeV
    mask : (n,) float64, optional
        0 for bins that do not count, such as a window whose background is interpolated.
    signal : (n,) float64, optional
        Events of strength 1; the strength may become negative.
    start : (p,) float64, optional
        Parameters of a similar fit.

    Returns
    -------
    Fit

    Raises
    ------
    FitFailed
        As for `require_fittable`, or the minimum was not reached; the message names the spectrum.
    UnknownName, ConfigError
        As for `families.design`.

    References
    ----------
    S. Baker, R. Cousins, "Clarification of the use of χ² and likelihood functions in fits to histograms", NIM 221 (1984) 437.
    """
    require_fittable(spectrum, order, mask)
    function = design(family, order, spectrum.edges, sqrt_s)
    seen = np.ones(len(spectrum.counts)) if mask is None else mask
    first = first_guess(spectrum.counts, function, seen) if start is None else start
    warm = fit_many(spectrum.counts, function, first, scale=spectrum.scale, mask=seen).theta[0]
    values, covariance, notes = _minuit(spectrum, function, seen, signal, warm)
    p = order
    strength, error = (0.0, 0.0) if signal is None else (float(values[p]), float(np.sqrt(covariance[p, p])))
    return Fit(spectrum, family, function, values[:p], covariance, seen, strength, error, signal, notes)


def _minuit(
    spectrum: Spectrum, function: Design, seen: Float64s, signal: Float64s | None, warm: Float64s
) -> tuple[Float64s, Float64s, tuple[str, ...]]:
    from iminuit import Minuit

    n, scale, p = spectrum.counts, spectrum.scale, function.order
    shape = np.zeros(len(n)) if signal is None else signal

    def objective(*values: float) -> float:
        nu = np.maximum(
            function.expected(np.asarray(values[:p])) + (values[p] if signal is not None else 0.0) * shape, _LEAST
        )
        return float(
            (seen * (nu - n + xlogy(n, n / nu)) / scale).sum()
        )  # without the constants, which would hide small differences

    def gradient(*values: float) -> Float64s:
        theta = np.asarray(values[:p])
        nu = function.expected(theta) + (values[p] if signal is not None else 0.0) * shape
        residual = seen * (1.0 - n / np.maximum(nu, _LEAST)) / scale
        out = residual @ _slopes(function, theta)
        return np.asarray(out if signal is None else np.append(out, residual @ shape))

    names = [f"θ{k}" for k in range(p)] + ([] if signal is None else ["s"])
    minuit = Minuit(objective, *warm, *([] if signal is None else [0.0]), grad=gradient, name=names)
    minuit.errordef = Minuit.LIKELIHOOD
    for k in range(p):
        minuit.errors[f"θ{k}"] = 0.1
    lowest = -np.inf
    if signal is not None:
        b = function.expected(warm)
        under = (shape > 1e-3 * shape.max()) & (seen > 0)
        lowest = -0.999 * float((b[under] / shape[under]).min())  # no bin may become negative
        minuit.limits["s"] = (lowest, None)
        minuit.errors["s"] = max(float(np.sqrt(spectrum.variance[under].sum())), 1.0) / max(float(shape.sum()), 1e-9)
    minuit.strategy = 1
    minuit.migrad(ncall=20_000)
    if not minuit.fmin.is_valid:
        minuit.simplex().migrad(ncall=20_000)
    limit = _at_limit(spectrum, function, np.asarray(minuit.values[:p]))
    for k in limit:  # what is at its limit has no error, and the others have theirs
        minuit.fixed[f"θ{k}"] = True
    for _ in range(_AGAIN):  # second derivatives tell how far the minimum is, and may find it farther than it seemed
        minuit.hesse()
        if minuit.fmin.is_valid:
            break
        minuit.migrad(ncall=20_000)
    told = minuit.covariance
    if told is None or not np.all(np.isfinite(np.asarray(told))) or not minuit.fmin.is_valid:
        raise FitFailed(f"spectrum {spectrum.name}: the fit of {p} parameters did not converge ({_reason(minuit)})")
    said = tuple(f"spectrum {spectrum.name}: coefficient {k + 1} of {p} is at its limit, 0" for k in limit)
    if signal is not None and minuit.values["s"] < 0.99 * lowest:
        said = (
            *said,
            f"spectrum {spectrum.name}: the strength of the signal is at its limit, {lowest:.3g}, below which a bin would be negative",
        )
    return np.asarray(minuit.values), np.asarray(told), said


def _at_limit(spectrum: Spectrum, function: Design, theta: Float64s) -> list[int]:
    """Return which coefficients of Bernstein polynomials are at 0, their limit."""
    if not np.array_equal(function.basis[0], np.eye(function.order)):
        return []
    at = np.exp(theta) * function.weight.sum(axis=0) < 1e-3 * max(spectrum.scale.max(), 1e-300)
    return [int(k) for k in np.flatnonzero(at)]


def _reason(minuit: Any) -> str:
    fmin = minuit.fmin
    if fmin.has_reached_call_limit:
        return "too many steps"
    if fmin.is_above_max_edm:
        return f"distance to the minimum {fmin.edm:.2g}"
    return "no covariance of its parameters"


def _slopes(function: Design, theta: Float64s) -> Float64s:
    with np.errstate(over="ignore"):
        value = function.weight * np.exp(np.minimum(function.basis @ theta, 600.0))
    return np.asarray((value[..., None] * function.basis).sum(axis=1))
