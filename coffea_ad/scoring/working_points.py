"""Working points: thresholds on `ad_logp` for nominal efficiencies, and how well they are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.scoring.calibration import _logp
from coffea_ad.scoring.specs import Calibration, RegionSpec
from coffea_ad.typing import Float64s, Ints
from coffea_ad.weights import n_effective

__all__ = [
    "MIN_EFFECTIVE",
    "binned_threshold",
    "derive",
    "efficiency",
    "n_effective_passing",
    "region_label",
    "tied",
    "too_few",
    "working_points",
]


MIN_EFFECTIVE = 10.0
"""A region resting on fewer effective background objects is not written."""
_NAMES = {1e-1: "loose", 1e-2: "medium", 1e-3: "tight"}


def n_effective_passing(weight: npt.ArrayLike, passed: npt.ArrayLike) -> float:
    """Return the effective number of background objects on which an efficiency rests.

    min[(Σ_pass w)² / Σ_pass w², ε N_eff] with ε = Σ_pass w / Σ w and N_eff of all: light objects that pass do not say how
    many heavy ones could have.

    Parameters
    ----------
    weight : (n,)
        Event weights, signed.
    passed : (n,) bool

    Examples
    --------
    >>> weight = np.r_[np.full(1000, 0.01), np.full(10, 1.0)]
    >>> passed = np.arange(1010) < 1000  # 1000 light objects, half of the sum of weights
    >>> round(n_effective_passing(weight, passed), 1)
    19.8
    """
    w, some = np.asarray(weight, np.float64), np.asarray(passed, bool)
    total = float(w.sum())
    if total <= 0:
        return 0.0
    eps = max(float(w[some].sum()) / total, 0.0)
    return min(n_effective(w[some]), eps * n_effective(w))


def efficiency(values: npt.NDArray[Any], weight: npt.ArrayLike, threshold: float) -> tuple[float, float, float]:
    """Return the weighted fraction at or above a threshold, its error, and the effective number it rests on.

    σ² = [(1−ε)² Σ_pass w² + ε² Σ_fail w²] / (Σ w)², the binomial variance of weighted events.
    """
    w = np.asarray(weight, np.float64)
    passed = np.asarray(values) >= threshold
    total = w.sum()
    if total <= 0:
        return 0.0, 0.0, 0.0
    eps = float(w[passed].sum() / total)
    variance = (1 - eps) ** 2 * np.sum(w[passed] ** 2) + eps**2 * np.sum(w[~passed] ** 2)
    return eps, float(np.sqrt(variance) / total), n_effective_passing(w, passed)


def working_points(
    calibration: Calibration,
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
) -> tuple[RegionSpec, ...]:
    """Make nested regions of given background efficiencies, as far as the statistics carry them.

    Parameters
    ----------
    calibration : Calibration
        Gives `ad_logp`; the thresholds are on it.
    score, weight : (n,)
        The background objects.
    efficiencies : sequence of float
        Nominal efficiencies; 0.1, 0.01 and 0.001 are called loose, medium and tight.

    Returns
    -------
    tuple of RegionSpec, loose → tight
        Without those that rest on fewer than `MIN_EFFECTIVE` effective objects, or that ties put off their efficiency.
    """
    return derive((calibration,), score, weight, efficiencies)[0]


def derive(
    calibrations: Sequence[Calibration],
    score: npt.ArrayLike,
    weight: npt.ArrayLike,
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
    folds: Ints | None = None,
) -> tuple[tuple[RegionSpec, ...], tuple[str, ...]]:
    """Make nested regions as `working_points` does, and say of those that are not written why.

    Parameters
    ----------
    calibrations : sequence of Calibration
        One, or one for each fold; then every fold has to carry a region by itself.
    score, weight : (n,)
        The background objects.
    efficiencies : sequence of float
    folds : (n,) int64, optional
        Of the rows, where every fold has a calibration.

    Returns
    -------
    regions : tuple of RegionSpec, loose → tight
    left_out : tuple of str
        A sentence for each efficiency without a region.

    Raises
    ------
    ConfigError
        An efficiency does not lie between 0 and 1.
    """
    s, w = np.asarray(score, np.float64), np.asarray(weight, np.float64)
    keep = np.isfinite(s)
    values, w = _logp(calibrations, s[keep], None if folds is None else folds[keep]), w[keep]
    parts = {"": np.ones(len(w), bool)}
    if folds is not None and len(calibrations) > 1:
        parts |= {f" in fold {f}": folds[keep] == f for f in range(len(calibrations))}
    written, left_out = [], []
    for eps in sorted(efficiencies, reverse=True):
        if not 0 < eps < 1:
            raise ConfigError(f"a background efficiency is {eps:g}, but must lie between 0 and 1")
        threshold = float(np.float32(-np.log10(eps)))
        reasons = [_unfit(values[rows], w[rows], eps, threshold, where) for where, rows in parts.items()]
        if any(reasons):
            left_out.append(f"region {region_label(eps)} is not written: {next(filter(None, reasons))}")
            continue
        _, error, passing = efficiency(values, w, threshold)
        written.append(
            RegionSpec(
                name=region_label(eps),
                efficiency=eps,
                thresholds=(threshold,),
                error=error / (eps * np.log(10)),
                n_effective=passing,
                derived_from=calibrations[0].derived_from.removesuffix(", fold 0"),
            )
        )
    return tuple(written), tuple(left_out)


def _unfit(values: npt.NDArray[Any], weight: Float64s, eps: float, threshold: float, where: str) -> str:
    """Say why a threshold makes no region of an efficiency; nothing if it does."""
    achieved, error, passing = efficiency(values, weight, threshold)
    if passing < MIN_EFFECTIVE * (1 - 1e-9):  # sums of equal weights are not exact
        return too_few(passing, n_effective(weight), eps, where)
    if abs(achieved - eps) > 3 * error:
        return tied(achieved, eps, where)
    return ""


def too_few(passing: float, n_all: float, eps: float, where: str = "") -> str:
    """Say that a region of an efficiency would rest on too few objects, and how many are needed.

    >>> too_few(4.2, 4300, 0.001)
    'it would rest on 4.2 effective background objects, 10 are needed; 4300 are there, an efficiency of 0.001 takes about 10000'
    """
    return (
        f"it would rest on {passing:.1f} effective background objects{where}, {MIN_EFFECTIVE:g} are needed; "
        f"{n_all:.0f} are there, an efficiency of {eps:g} takes about {MIN_EFFECTIVE / eps:.0f}"
    )


def tied(achieved: float, eps: float, where: str = "") -> str:
    """Say that tied scores allow no threshold of an efficiency."""
    return f"scores are tied, so that its threshold keeps {achieved:.3g} of the background{where} instead of {eps:g}"


def binned_threshold(edges: Float64s, values: Float64s, variances: Float64s, eps: float) -> tuple[float, float, float]:
    """Find in a histogram of `ad_logp` where a fraction eps of the content lies above.

    Within a bin the logarithm of that fraction is taken to be linear, as it is by the definition of `ad_logp`.

    Parameters
    ----------
    edges : (n + 1,)
    values, variances : (n,)
        Content and the sum of its squared weights.
    eps : float

    Returns
    -------
    threshold, its statistical error, effective number of entries above
        In units of `ad_logp`.

    Examples
    --------
    >>> edges = np.arange(9.0)
    >>> content = 10 ** -edges[:-1] - 10 ** -edges[1:]
    >>> round(binned_threshold(edges, content, content, 0.005)[0], 2)
    2.3
    """
    above = np.maximum.accumulate(np.r_[0.0, np.cumsum(values[::-1])])[::-1] / values.sum()  # also of negative weights
    filled = above > 0
    if eps >= above[filled][-1]:
        threshold = float(np.interp(-np.log(eps), -np.log(above[filled]), edges[filled]))
    else:  # in the last bin, where the content ends
        threshold = float(np.interp(eps, above[::-1], edges[::-1]))
    inside = edges[:-1] >= threshold
    square = variances[inside].sum()
    passing = values[inside].sum()
    n_eff = passing**2 / square if square > 0 else 0.0  # and by the rule of `n_effective_passing`:
    n_eff = min(n_eff, max(passing, 0.0) * values.sum() / variances.sum()) if square > 0 else 0.0
    error = np.sqrt(square) / values.sum() / (eps * np.log(10))
    return threshold, float(error), float(n_eff)


def region_label(eps: float) -> str:
    """Return the name of the region of a background efficiency.

    >>> region_label(0.01), region_label(0.02)
    ('medium', 'eff0.02')
    """
    return _NAMES.get(eps, f"eff{eps:g}")
