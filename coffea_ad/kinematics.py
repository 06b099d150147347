"""Angles and masses of objects."""

from __future__ import annotations

from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = ["delta_phi", "transverse_mass"]


@np.errstate(invalid="ignore")  # an infinite angle gives NaN
def delta_phi(a: npt.ArrayLike, b: npt.ArrayLike) -> Float64s:
    """Return a − b in (−π, π].

    >>> float(delta_phi(3.0, -3.0).round(4))
    -0.2832
    """
    d = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return np.asarray(np.pi - (np.pi - d) % (2 * np.pi))


@np.errstate(invalid="ignore", over="ignore")
def transverse_mass(dijet: Any, met_pt: npt.ArrayLike, met_phi: npt.ArrayLike) -> Float64s:
    """Return the transverse mass of a dijet and missing momentum, GeV.

    m_T² = m_jj² + 2 MET (√(m_jj² + pT_jj²) − pT_jj cos Δφ)

    Parameters
    ----------
    dijet : (n,) Lorentz vectors
    met_pt, met_phi : (n,)

    Returns
    -------
    (n,) float64, GeV
        NaN where an input is not a finite number.
    """
    mass, pt = np.asarray(ak.to_numpy(dijet.mass), np.float64), np.asarray(ak.to_numpy(dijet.pt), np.float64)
    missing = np.asarray(met_pt, np.float64)
    angle = delta_phi(ak.to_numpy(dijet.phi), met_phi)
    square = mass**2 + 2 * missing * (np.hypot(mass, pt) - pt * np.cos(angle))
    return np.where(np.isfinite(square), np.sqrt(np.maximum(square, 0)), np.nan)
