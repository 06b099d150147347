"""Masses of a template: drawn from a smooth estimate of those in the signal region."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from coffea_ad.errors import SkimError
from coffea_ad.resonant.windows import Window
from coffea_ad.typing import Float64s

__all__ = ["TiltedExponential", "sample_masses"]

_BANDWIDTH = 0.01
_GRID = 2001


def sample_masses(mass: npt.ArrayLike, window: Window, n: int, seed: int) -> Float64s:
    """Draw masses from a Gaussian kernel estimate in logit(t), t = (m − low)/(high − low), with bandwidth 0.01.

    Parameters
    ----------
    mass : (k,) float, GeV
        Of the data in the signal region; those outside are left out.
    window : Window
    n, seed : int

    Returns
    -------
    (n,) float64, GeV
        All inside the window.

    Raises
    ------
    SkimError
        There are fewer than two masses.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation (CATHODE)", arXiv:2109.00546.

    Examples
    --------
    >>> window = Window(low=3300, high=3700, outer_low=1500, outer_high=5500)
    >>> bool(window.in_signal_region(sample_masses([3400, 3500], window, 100, 1)).all())
    True
    """
    m = np.asarray(mass, np.float64)
    m = m[window.in_signal_region(m)]
    if len(m) < 2:
        raise SkimError(f"window {window.name}: {len(m)} masses lie in its signal region, too few to draw others from")
    width = window.high - window.low
    t = np.clip((m - window.low) / width, 1e-6, 1 - 1e-6)
    rng = np.random.default_rng(seed)
    z = rng.choice(np.log(t / (1 - t)), n) + _BANDWIDTH * rng.standard_normal(n)
    out = window.low + width / (1 + np.exp(-z))
    # rounding to float32, as columns are, must not lead out of the window
    inner = (
        np.nextafter(np.float32(window.low), np.float32(np.inf)),
        np.nextafter(np.float32(window.high), np.float32(0)),
    )
    return np.clip(out, float(inner[0]), float(inner[1]))


class TiltedExponential:
    """p(m) ∝ exp(a t + b t²) inside a window, t = 2 (m − low)/(high − low) − 1: a smooth spectrum of the background.

    Parameters
    ----------
    mass : (n,) float, GeV
    window : Window

    Attributes
    ----------
    a, b, norm : float
        log p(m) = a t + b t² − norm, per GeV.

    Examples
    --------
    >>> window = Window(low=1000, high=2000, outer_low=500, outer_high=3000)
    >>> m = 1000 + 300 * np.random.default_rng(1).exponential(size=50_000)
    >>> density = TiltedExponential(m, window)
    >>> grid = np.linspace(1000, 2000, 10_001)
    >>> round(float(np.trapezoid(np.exp(density.log_prob(grid)), grid)), 4)
    1.0
    """

    def __init__(self, mass: npt.ArrayLike, window: Window) -> None:
        m = np.asarray(mass, np.float64)
        m = m[window.in_signal_region(m)]
        if len(m) < 10:
            raise SkimError(f"window {window.name}: {len(m)} masses are too few for a spectrum")
        self.window = window
        t = self._t(m)
        moments = np.array([t.mean(), (t**2).mean()])
        grid = np.linspace(-1, 1, _GRID)

        def loss(p: Float64s) -> float:
            return float(self._norm(p, grid) - p @ moments)

        self.a, self.b = (float(v) for v in minimize(loss, np.zeros(2), method="BFGS").x)
        self.norm = self._norm(np.array([self.a, self.b]), grid) + float(np.log((window.high - window.low) / 2))

    def _t(self, m: Float64s) -> Float64s:
        return np.asarray(2 * (m - self.window.low) / (self.window.high - self.window.low) - 1)

    @staticmethod
    def _norm(p: Float64s, grid: Float64s) -> float:
        return float(np.log(np.trapezoid(np.exp(p[0] * grid + p[1] * grid**2), grid)))

    def log_prob(self, mass: npt.ArrayLike) -> Float64s:
        """Return log p(m) per GeV, (n,)."""
        t = self._t(np.asarray(mass, np.float64))
        return np.asarray(self.a * t + self.b * t**2 - self.norm)
