"""Angles and masses of objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = ["Dijet", "delta_phi", "dijet", "transverse_mass"]


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


class Dijet(NamedTuple):
    """Two jets and missing momentum, (n,) each; GeV and radians.

    Attributes
    ----------
    mjj, mt : mass of both jets, and their transverse mass with missing momentum (`kinematics.transverse_mass`)
    ht : sum of the jets' pT
    dphi_min : smallest angle between a jet and missing momentum
    delta_eta : |η₁ − η₂|
    """

    mjj: Float64s
    mt: Float64s
    ht: npt.NDArray[Any]
    dphi_min: Float64s
    delta_eta: npt.NDArray[Any]


def dijet(jets: Any, met_pt: npt.ArrayLike, met_phi: npt.ArrayLike) -> Dijet:
    """Return what searches for dijet resonances with missing momentum cut on.

    Parameters
    ----------
    jets : (n, 2) Lorentz vectors
    met_pt, met_phi : (n,)

    Examples
    --------
    >>> import vector
    >>> vector.register_awkward()
    >>> jets = ak.zip({k: [[x, y]] for k, (x, y) in {
    ...     "pt": (300.0, 200.0), "eta": (0.5, -0.5), "phi": (0.0, 3.0), "mass": (0.0, 0.0)}.items()}, with_name="Momentum4D")
    >>> [float(column[0].round(2)) for column in dijet(jets, [100.0], [0.4])]
    [551.33, 628.7, 500.0, 0.4, 1.0]
    """
    both = jets[:, 0] + jets[:, 1]
    phi, eta = (ak.to_numpy(jets[k]).reshape(-1, 2) for k in ("phi", "eta"))
    return Dijet(
        mjj=np.asarray(ak.to_numpy(both.mass)),
        mt=transverse_mass(both, met_pt, met_phi),
        ht=np.asarray(ak.to_numpy(ak.sum(jets["pt"], axis=1))),
        dphi_min=np.abs(delta_phi(phi, np.asarray(met_phi)[:, None])).min(axis=1, initial=np.pi),
        delta_eta=np.abs(eta[:, 0] - eta[:, 1]),
    )
