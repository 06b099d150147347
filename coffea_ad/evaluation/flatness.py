"""Whether the background efficiency of a region is the same at all values of a spectator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.scoring.domains import binned
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.scoring.working_points import MIN_EFFECTIVE, efficiency
from coffea_ad.typing import Float64s

__all__ = ["Flatness", "equal_bins", "flatness", "quantile_edges"]

_MOST_BINS = 20
_BANDWIDTH = 0.1  # of ad_logp, for its density at the threshold; it falls by e in 0.43


@dataclass(frozen=True)
class Flatness:
    """Efficiency in bins of a spectator, and how well one number describes it.

    Attributes
    ----------
    spectator : str
    edges : (bins − 1,)
        Inner edges, in the unit of the spectator.
    efficiency, error : (bins,)
        With the statistical error of these rows, and of the thresholds if that was given.
    mean : float
        The one efficiency that describes all bins best.
    chi2 : float
        Of the bins about it, with `bins − 1` degrees of freedom.
    p_value : float
    """

    spectator: str
    edges: Float64s
    efficiency: Float64s
    error: Float64s
    mean: float
    chi2: float
    p_value: float

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.efficiency)

    def __str__(self) -> str:
        how = "flat within errors" if self.p_value >= 0.01 else "not flat"
        return (
            f"{how} in {self.spectator}: χ² = {self.chi2:.1f} of {self.bins} bins about one efficiency, {self.mean:.3g} "
            f"(p = {self.p_value:.2g})"
        )


def equal_bins(values: npt.ArrayLike, weight: npt.ArrayLike, bins: int) -> Float64s:
    """Return inner edges of bins with equal parts of the sum of |weight|; fewer, where values are tied.

    Parameters
    ----------
    values, weight : (n,)
    bins : int

    Returns
    -------
    (≤ bins − 1,)
        Rising; each is a value of the rows, and begins its bin.

    Examples
    --------
    >>> equal_bins([1, 2, 3, 4, 5, 6], np.ones(6), 3), equal_bins([1, 1, 1, 2], np.ones(4), 4)
    (array([3., 5.]), array([2.]))
    """
    return quantile_edges(values, weight, np.arange(1, bins) / bins)


def quantile_edges(values: npt.ArrayLike, weight: npt.ArrayLike, parts: Float64s) -> Float64s:
    """Return values below which these parts of the sum of |weight| lie, rising, each once and none the smallest.

    Parameters
    ----------
    values, weight : (n,)
    parts : (k,)
        Between 0 and 1.

    Returns
    -------
    (≤ k,)
    """
    values, weight = np.asarray(values, np.float64), np.asarray(weight, np.float64)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(np.abs(weight[order]))
    place = np.searchsorted(reached, parts * reached[-1] * (1 + 1e-12), side="right")
    edges = np.unique(values[order][np.minimum(place, len(order) - 1)])
    return np.asarray(edges[edges > values[order[0]]])


def flatness(
    ad_logp: npt.ArrayLike,
    weight: npt.ArrayLike,
    spectator: npt.ArrayLike,
    region: RegionSpec,
    *,
    name: str = "",
    bins: int | None = None,
    uncertainty: npt.ArrayLike | None = None,
) -> Flatness:
    """Measure the efficiency of a region in bins of a spectator, on rows that did not derive its thresholds.

    The efficiency of a bin has the variance ε(1 − ε) Σw²/(Σw)² with the efficiency ε of all rows, so that a bin in which few
    rows pass by chance does not count more than others. An uncertainty of the thresholds moves the efficiencies of several bins
    together, in proportion to the density of `ad_logp` at the threshold.

    Parameters
    ----------
    ad_logp, weight, spectator : (n,)
        Rows of the background; those where ad_logp or the spectator is undefined are left out.
    region : RegionSpec
        Its thresholds may be in bins of the spectator, or there is one for all rows.
    name : str
        The spectator, where the region has none.
    bins : int, optional
        Of equal weight; as many as have twice `MIN_EFFECTIVE` effective rows that pass, and at most 20, by default.
    uncertainty : (thresholds, k), optional
        Of the thresholds: their covariance is uncertainty @ uncertainty.T. Without, they count as exact.

    Raises
    ------
    ConfigError
        The rows do not carry two bins.
    """
    v, w, s = (np.asarray(a, np.float64) for a in (ad_logp, weight, spectator))
    defined = np.isfinite(v) & np.isfinite(s)
    v, w, s = v[defined], w[defined], s[defined]
    fine = binned(s, region.edges) if region.edges else np.zeros(len(s), np.int64)
    above = v - np.asarray(region.thresholds)[fine]
    mean, _, passing = efficiency(above, w, 0.0) if len(w) else (0.0, 0.0, 0.0)
    n = min(int(passing / (2 * MIN_EFFECTIVE)), _MOST_BINS) if bins is None else bins
    edges = equal_bins(s, w, n) if n > 1 else np.zeros(0)
    if not len(edges):
        raise ConfigError(
            f"region {region.name}: {passing:.1f} effective rows pass its thresholds, and flatness in {region.spectator or name} "
            f"takes two bins of {2 * MIN_EFFECTIVE:g}"
        )
    place = binned(s, edges.tolist())
    n = len(edges) + 1
    total = np.bincount(place, w, n)
    eff = np.bincount(place, np.where(above >= 0, w, 0.0), n) / total
    covariance = np.diag(mean * (1 - mean) * np.bincount(place, w * w, n) / total**2)
    if uncertainty is not None:
        modes = np.asarray(uncertainty, np.float64)[fine]
        density = w * np.exp(-0.5 * (above / _BANDWIDTH) ** 2) / (_BANDWIDTH * np.sqrt(2 * np.pi))
        shifts = np.stack([np.bincount(place, density * mode, n) for mode in modes.T], axis=1) / total[:, None]
        covariance = covariance + shifts @ shifts.T
    return _about_one_number(region.spectator or name, edges, eff, covariance)


def _about_one_number(spectator: str, edges: Float64s, eff: Float64s, covariance: Float64s) -> Flatness:
    """Fit one efficiency to all bins."""
    from scipy.special import gammaincc

    inverse = np.linalg.inv(covariance)
    mean = float(inverse.sum(axis=0) @ eff / inverse.sum())
    chi2 = float((eff - mean) @ inverse @ (eff - mean))
    p_value = float(gammaincc(0.5 * (len(eff) - 1), 0.5 * chi2))
    return Flatness(spectator, edges, eff, np.sqrt(np.diag(covariance)), mean, chi2, p_value)
