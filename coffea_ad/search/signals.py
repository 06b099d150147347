"""Shapes of signals in the bins of a spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s

__all__ = ["Signals", "gaussian", "gaussians"]


class Signals(NamedTuple):
    """Signals at several places.

    Attributes
    ----------
    mass, width : (H,) float64, GeV and σ/m
    shape : (H, n) float64
        Part of a signal in each bin.
    """

    mass: Float64s
    width: Float64s
    shape: Float64s


def gaussian(edges: Float64s, mass: float, width: float, resolution: float = 0.0) -> Float64s:
    """Return the part of a Gaussian signal in each bin; of one without a width all is in one bin.

    Parameters
    ----------
    edges : (n + 1,) float64, GeV
    mass : float, GeV
    width, resolution : float
        σ/m, added in squares.

    Examples
    --------
    >>> gaussian(np.array([900.0, 1000.0, 1100.0, 1200.0]), 1050.0, 0.0)
    array([0., 1., 0.])
    """
    sigma = mass * float(np.hypot(width, resolution))
    if sigma <= 0:
        return np.diff((edges >= np.nextafter(mass, np.inf)).astype(np.float64))
    return np.asarray(np.diff(ndtr((edges - mass) / sigma)))


def gaussians(
    edges: Float64s, widths: Sequence[float], *, highest: float, resolution: float = 0.0, masses: Sequence[float] = ()
) -> Signals:
    """Return Gaussian signals all over a spectrum: their places are half a width apart, or a bin if that is more.

    Parameters
    ----------
    edges : (n + 1,) float64, GeV
    widths : sequence of float
        σ/m, 0 to 0.15.
    highest : float, GeV
        Largest mass.
    resolution : float
        σ/m, that is added to each width in squares.
    masses : sequence of float, GeV, optional
        In the place of these.

    Raises
    ------
    ConfigError
        A width is negative or above 0.5, or there is no place for any.
    """
    out: list[tuple[float, float, Float64s]] = []
    for width in widths:
        if not 0 <= width <= 0.5:
            raise ConfigError(f"a width of {width:g} of the mass is none of a signal; give 0 to 0.15")
        for mass in masses or _places(edges, float(np.hypot(width, resolution)), highest):
            shape = gaussian(edges, mass, width, resolution)
            if shape.sum() > 0.6:  # most of it is inside
                out.append((mass, width, shape))
    if not out:
        raise ConfigError(
            f"no signal of the widths {', '.join(f'{w:g}' for w in widths)} fits into {edges[0]:g} to {highest:g} GeV"
        )
    return Signals(np.array([o[0] for o in out]), np.array([o[1] for o in out]), np.stack([o[2] for o in out]))


def _places(edges: Float64s, width: float, highest: float) -> list[float]:
    centers = (edges[:-1] + edges[1:]) / 2
    out, last = [], -np.inf
    for mass in centers[centers <= max(highest, centers[0])]:
        if mass - last >= 0.5 * width * mass:
            out.append(float(mass))
            last = mass
    return out
