"""Angles and masses of objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import numpy.typing as npt

from coffea_ad.typing import Float64s

__all__ = ["Dijet", "delta_phi", "dijet", "pair_mass", "transverse_mass"]


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


@np.errstate(invalid="ignore", over="ignore")
def pair_mass(pt: Float64s, eta: Float64s, phi: Float64s, mass: Float64s) -> Float64s:
    """Return the mass of two objects, (n, 2) each → (n,), in double precision; NaN where an input is not finite.

    >>> pair_mass(*np.array([[[300.0, 200.0]], [[0.5, -0.5]], [[0.0, 3.0]], [[0.0, 0.0]]])).round(2)
    array([551.33])
    """
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    square: Float64s = sum(s * a.sum(axis=1) ** 2 for s, a in ((1, e), (-1, px), (-1, py), (-1, pz)))
    return np.asarray(np.sqrt(np.maximum(0, square)))


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
