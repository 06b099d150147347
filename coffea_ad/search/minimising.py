"""Many Poisson likelihoods minimised at once: pseudo-experiments that are fitted like the data, signals at every mass.

One fit by iminuit takes milliseconds, and a search needs millions of them. What is kept of a spectrum is fitted by iminuit
(`fits`); this is for the rest, and the tests compare both.
"""

from __future__ import annotations

import numpy as np

from coffea_ad.features.jit import contiguous, exact, exact_kernel
from coffea_ad.search.families import Design
from coffea_ad.typing import Float64s, Ints

__all__ = ["Minimised", "first_guess", "fit_many", "scan_many"]

_STEPS = 200
_SCORING = 8  # steps by the expected second derivatives, before those by the observed ones, which are surer to end
_PRECISION = 1e-7  # of −ln L, where the errors of parameters change it by 0.5
_STAGNANT = 5  # steps that gain less, after which a fit has come as near as rounding lets it
_LOWEST = 1e-12  # expected events of a bin
_Work = tuple[Float64s, Float64s, Float64s, Float64s, Float64s]


@exact
def _predict(
    weight: Float64s, basis: Float64s, signal: Float64s, theta: Float64s, strength: float, nu: Float64s,
    slopes: Float64s,
) -> None:  # pragma: no cover  # fmt: skip
    n, q, p = basis.shape
    for i in range(n):
        total = 0.0
        for k in range(p):
            slopes[i, k] = 0.0
        for j in range(q):
            exponent = 0.0
            for k in range(p):
                exponent += basis[i, j, k] * theta[k]
            value = weight[i, j] * np.exp(min(exponent, 600.0))
            total += value
            for k in range(p):
                slopes[i, k] += value * basis[i, j, k]
        slopes[i, p] = signal[i]
        nu[i] = total + strength * signal[i]


@exact
def _objective(counts: Float64s, scale: Float64s, mask: Float64s, nu: Float64s) -> float:  # pragma: no cover
    out = 0.0
    for i in range(len(counts)):
        if mask[i] > 0:
            if not nu[i] > _LOWEST:
                if counts[i] > 0 or nu[i] < 0:
                    return np.inf
                continue
            out += (nu[i] - counts[i] * np.log(nu[i])) / scale[i]
    return out


@exact
def _solve(matrix: Float64s, vector: Float64s, m: int) -> bool:  # pragma: no cover
    """Solve a symmetric system in place by Cholesky's method; False if the matrix is not positive."""
    for a in range(m):
        for b in range(a + 1):
            total = matrix[a, b]
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            if a == b:
                if not total > 0:
                    return False
                matrix[a, a] = np.sqrt(total)
            else:
                matrix[a, b] = total / matrix[b, b]
    for a in range(m):
        for c in range(a):
            vector[a] -= matrix[a, c] * vector[c]
        vector[a] /= matrix[a, a]
    for a in range(m - 1, -1, -1):
        for c in range(a + 1, m):
            vector[a] -= matrix[c, a] * vector[c]
        vector[a] /= matrix[a, a]
    return True


@exact
def _bend(
    matrix: Float64s, weight: Float64s, basis: Float64s, theta: Float64s, pull: float
) -> None:  # pragma: no cover
    """Add the second derivatives of a bin's expectation."""
    q, p = basis.shape
    for j in range(q):
        exponent = 0.0
        for k in range(p):
            exponent += basis[j, k] * theta[k]
        value = pull * weight[j] * np.exp(min(exponent, 600.0))
        for a in range(p):
            for b in range(a + 1):
                matrix[a, b] += value * basis[j, a] * basis[j, b]


@exact
def _minimise(
    counts: Float64s, scale: Float64s, mask: Float64s, weight: Float64s, basis: Float64s, signal: Float64s,
    theta: Float64s, strength: Float64s, free: bool, work: _Work,
) -> tuple[float, bool]:  # pragma: no cover  # fmt: skip
    """Minimise in place by Fisher's scoring, then Newton's method, with damping; return −ln L, and whether it has converged."""
    nu, slopes, matrix, step, trial = work
    n, _, p = basis.shape
    m = p + 1 if free else p
    damping, stagnant, fisher = 1e-6, 0, True
    _predict(weight, basis, signal, theta, strength[0], nu, slopes)
    value = _objective(counts, scale, mask, nu)
    for iteration in range(_STEPS):
        for a in range(m):
            step[a] = 0.0
            for b in range(m):
                matrix[a, b] = 0.0
        for i in range(n):
            if mask[i] > 0:
                inverse = 1.0 / max(nu[i], _LOWEST)
                pull = (1.0 - counts[i] * inverse) / scale[i]
                second = (inverse if fisher else counts[i] * inverse * inverse) / scale[i]
                for a in range(m):
                    step[a] += pull * slopes[i, a]
                    for b in range(a + 1):
                        matrix[a, b] += slopes[i, a] * slopes[i, b] * second
                if not fisher:
                    _bend(matrix, weight[i], basis[i], theta, pull)
        gradient = step[:m].copy()
        for a in range(m):
            matrix[a, a] = matrix[a, a] * (1.0 + damping) + 1e-300
        if not _solve(matrix, step, m):
            if not fisher:
                fisher = True
                continue
            damping = max(damping, 1e-6) * 10.0
            if damping > 1e8:
                return value, False
            continue
        fisher = iteration < _SCORING
        predicted = 0.0
        for a in range(m):
            predicted += 0.5 * gradient[a] * step[a]
        for k in range(p):
            trial[k] = theta[k] - step[k]
        shifted = strength[0] - step[p] if free else strength[0]
        _predict(weight, basis, signal, trial, shifted, nu, slopes)
        other = _objective(counts, scale, mask, nu)
        if other <= value + 1e-12 * abs(value):
            for k in range(p):
                theta[k] = trial[k]
            strength[0] = shifted
            stagnant = stagnant + 1 if value - other < _PRECISION else 0
            value = other
            damping = max(damping * 0.1, 1e-9)
            if damping < 1e-3 and (predicted < _PRECISION or (stagnant >= _STAGNANT and predicted < 1e3 * _PRECISION)):
                return value, True
        else:
            damping *= 10.0
            _predict(weight, basis, signal, theta, strength[0], nu, slopes)
            if damping > 1e8:
                return value, predicted < 1e3 * _PRECISION
    return value, False


@exact
def _workspace(n: int, p: int) -> _Work:  # pragma: no cover
    return np.empty(n), np.empty((n, p + 1)), np.empty((p + 1, p + 1)), np.empty(p + 1), np.empty(p + 1)


@exact_kernel
def _fit_kernel(
    counts: Float64s, scale: Float64s, mask: Float64s, weight: Float64s, basis: Float64s, start: Float64s,
    theta: Float64s, value: Float64s, valid: Ints,
) -> None:  # pragma: no cover  # fmt: skip
    n, _, p = basis.shape
    work = _workspace(n, p)
    none, strength = np.zeros(n), np.zeros(1)
    for t in range(len(counts)):
        theta[t] = start
        value[t], ok = _minimise(counts[t], scale, mask[t], weight, basis, none, theta[t], strength, False, work)
        valid[t] = ok and value[t] < np.inf


@exact_kernel
def _scan_kernel(
    counts: Float64s, scale: Float64s, masks: Float64s, local: Ints, weight: Float64s, basis: Float64s,
    signals: Float64s, start: Float64s, strength: Float64s, q: Float64s, valid: Ints,
) -> None:  # pragma: no cover  # fmt: skip
    n, _, p = basis.shape
    work = _workspace(n, p)
    theta, s = np.empty(p), np.zeros(1)
    for t in range(len(counts)):
        for h in range(len(signals)):
            theta[:] = start[t]
            s[0] = 0.0
            ok = True
            mask, signal = masks[h], signals[h]
            if local[h]:
                null, ok = _minimise(counts[t], scale, mask, weight, basis, signal, theta, s, False, work)
            else:
                _predict(weight, basis, signal, theta, 0.0, work[0], work[1])
                null = _objective(counts[t], scale, mask, work[0])
            # −ln L is convex but for little: if it rises with the strength at 0, the best one is not above 0
            _predict(weight, basis, signal, theta, 0.0, work[0], work[1])
            rise = 0.0
            for i in range(n):
                if mask[i] > 0:
                    rise += signal[i] * (1.0 - counts[t, i] / max(work[0][i], _LOWEST)) / scale[i]
            if rise >= 0 or not ok:
                strength[t, h], q[t, h], valid[t, h] = 0.0, 0.0, ok
                continue
            best, ok = _minimise(counts[t], scale, mask, weight, basis, signal, theta, s, True, work)
            strength[t, h], q[t, h], valid[t, h] = s[0], max(2.0 * (null - best), 0.0), ok


@exact_kernel
def _profile_kernel(
    counts: Float64s, scale: Float64s, mask: Float64s, weight: Float64s, basis: Float64s, signal: Float64s, start: Float64s,
    strengths: Float64s, value: Float64s, valid: Ints,
) -> None:  # pragma: no cover  # fmt: skip
    n, _, p = basis.shape
    work = _workspace(n, p)
    theta, s = start.copy(), np.zeros(1)
    for k in range(len(strengths)):
        s[0] = strengths[k]
        value[k], ok = _minimise(counts, scale, mask, weight, basis, signal, theta, s, False, work)
        valid[k] = ok
        if not ok:
            theta[:] = start


class Minimised:
    """Fits of many spectra with the same bins.

    Attributes
    ----------
    theta : (T, p) float64
    value : (T,) float64
        −ln L without the terms that do not depend on parameters.
    valid : (T,) bool
    """

    def __init__(self, theta: Float64s, value: Float64s, valid: Ints) -> None:
        self.theta, self.value, self.valid = theta, value, valid.astype(bool)


def first_guess(counts: Float64s, function: Design, mask: Float64s | None = None) -> Float64s:
    """Return parameters to start from: a linear fit of the logarithm of counts.

    Parameters
    ----------
    counts : (n,) float64
    function : Design
    mask : (n,) float64, optional
        Bins with 0 do not count.

    Returns
    -------
    (p,) float64
    """
    width = function.weight.sum(axis=1)
    seen = np.ones(len(counts)) if mask is None else mask
    positive = np.maximum(counts, 0.0)
    if np.array_equal(function.basis[0], np.eye(function.order)):  # the same density everywhere
        density = max(float((positive * seen).sum()), 0.5) / float((width * seen).sum())
        return np.full(function.order, np.log(density))
    terms = (function.basis * function.weight[..., None]).sum(axis=1) / width[:, None]
    y = np.log((positive + 0.1) / width)
    root = np.sqrt((positive + 0.1) * seen)
    out = np.linalg.lstsq(terms * root[:, None], y * root, rcond=None)[0]
    return np.asarray(out, np.float64)


def fit_many(
    counts: Float64s, function: Design, start: Float64s, *, scale: Float64s | None = None, mask: Float64s | None = None
) -> Minimised:
    """Fit a function to many spectra: from `first_guess`, if there are events where none are expected at the start.

        −ln L(θ) = Σ_i (ν_i(θ) − n_i ln ν_i(θ)) / s_i

    with s = 1 for events, and s_i = Σw²/Σw for weighted entries, as if so many were counted that have the weight s_i.

    Parameters
    ----------
    counts : (T, n) float64
    function : Design
    start : (p,) float64
    scale : (n,) float64, optional
    mask : (n,) or (T, n) float64, optional
        Bins with 0 do not count.

    Returns
    -------
    Minimised

    References
    ----------
    G. Bohm, G. Zech, "Statistics of weighted Poisson events and its applications", arXiv:1309.1287.
    """
    rows = contiguous(np.atleast_2d(counts), np.float64)
    n = rows.shape[1]
    theta, value, valid = np.empty((len(rows), function.order)), np.empty(len(rows)), np.zeros(len(rows), np.int64)
    s = np.ones(n) if scale is None else scale
    m = np.broadcast_to(np.ones(n) if mask is None else mask, rows.shape)
    rest = (contiguous(function.weight, np.float64), contiguous(function.basis, np.float64))

    def fit(at: slice, start: Float64s) -> None:
        _fit_kernel(
            rows[at], contiguous(s, np.float64), contiguous(m[at], np.float64), *rest, contiguous(start, np.float64),
            theta[at], value[at], valid[at],
        )  # fmt: skip

    fit(slice(None), start)
    nowhere = function.expected(start[None])[0] <= _LOWEST
    for t in np.flatnonzero((rows * m)[:, nowhere].any(axis=1)):
        fit(slice(t, t + 1), first_guess(rows[t], function, m[t]))
    return Minimised(theta, value, valid)


def scan_many(
    counts: Float64s, function: Design, theta: Float64s, signals: Float64s, *, scale: Float64s | None = None,
    masks: Float64s | None = None,
) -> tuple[Float64s, Float64s, Float64s]:  # fmt: skip
    """Fit signals of every place and width beside the function, each alone, to many spectra.

        q₀ = 2 (ln L(ŝ, θ̂̂) − ln L(0, θ̂))  where ŝ > 0, else 0

    Parameters
    ----------
    counts : (T, n) float64
    function : Design
    theta : (T, p) float64
        Of the fits without signal.
    signals : (H, n) float64
        Expected events of a signal of strength 1.
    scale : (n,) float64, optional
    masks : (H, n) float64, optional
        Bins that count for each of them, as in a sliding window; the fit without signal is then made in these.

    Returns
    -------
    strength, q0 : (T, H) float64
    valid : (T, H) bool
    """
    rows = contiguous(np.atleast_2d(counts), np.float64)
    n, h = rows.shape[1], len(signals)
    shape = (len(rows), h)
    strength, q, valid = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
    s = np.ones(n) if scale is None else scale
    every = np.ones((h, n)) if masks is None else masks
    local = np.asarray((every != 1).any(axis=1), np.int64)
    _scan_kernel(
        rows, contiguous(s, np.float64), contiguous(every, np.float64), local, contiguous(function.weight, np.float64),
        contiguous(function.basis, np.float64), contiguous(signals, np.float64), contiguous(theta, np.float64), strength, q, valid,
    )  # fmt: skip
    return strength, q, valid.astype(bool)


def profile(
    counts: Float64s,
    function: Design,
    theta: Float64s,
    signal: Float64s,
    strengths: Float64s,
    *,
    scale: Float64s | None = None,
) -> tuple[Float64s, Float64s]:
    """Return −ln L of one spectrum at strengths of a signal, each with the best parameters of the function.

    Parameters
    ----------
    counts : (n,) float64
    function : Design
    theta : (p,) float64
        Parameters to start from.
    signal : (n,) float64
        Events of strength 1.
    strengths : (k,) float64
        In an order in which neighbours are close.
    scale : (n,) float64, optional

    Returns
    -------
    value, valid : (k,) float64 and bool
    """
    value, valid = np.empty(len(strengths)), np.zeros(len(strengths), np.int64)
    s = np.ones(len(counts)) if scale is None else scale
    _profile_kernel(
        contiguous(counts, np.float64), contiguous(s, np.float64), np.ones(len(counts)), contiguous(function.weight, np.float64),
        contiguous(function.basis, np.float64), contiguous(signal, np.float64), contiguous(theta, np.float64),
        contiguous(strengths, np.float64), value, valid,
    )  # fmt: skip
    return value, valid.astype(bool)
