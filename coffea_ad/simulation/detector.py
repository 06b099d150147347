"""A parametric detector: stable particles → tracks and calorimeter deposits → PF-like candidates.

Efficiencies and resolutions follow the public DELPHES card for CMS (J. de Favereau et al., arXiv:1307.6346). There is
no pile-up, no magnetic field and no displaced vertex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coffea_ad.typing import Bools, Float64s, Ints

__all__ = ["Candidates", "Particles", "candidates", "missing_momentum"]


_CHARGE = {11: -1, 13: -1, 211: 1, 321: 1, 2212: 1, 3112: -1, 3222: 1, 3312: -1, 3334: -1}
_INVISIBLE = (12, 14, 16, 18, 51, 52, 53, 1000022)
_MASS = {211: 0.13957, 11: 0.000511, 13: 0.10566, 22: 0.0, 130: 0.49761, 1: 0.0, 2: 0.0}


@dataclass(frozen=True)
class Particles:
    """Stable particles, flat: event, pdgId and four-vector, each (n,); GeV."""

    event: Ints
    pdgid: Ints
    px: Float64s
    py: Float64s
    pz: Float64s
    e: Float64s

    def select(self, mask: Bools) -> Particles:
        """Return some of them."""
        return Particles(*(getattr(self, f)[mask] for f in ("event", "pdgid", "px", "py", "pz", "e")))


@dataclass(frozen=True)
class Candidates:
    """PF-like candidates, flat and ordered by event; pT > 0."""

    event: Ints
    pt: Float64s
    eta: Float64s
    phi: Float64s
    mass: Float64s
    pdgid: Ints
    charge: Ints

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.pt)


def _visible(particles: Particles) -> Bools:
    code = np.abs(particles.pdgid)
    return ~np.isin(code, _INVISIBLE) & (code < 4_900_000)


def missing_momentum(particles: Particles, n_events: int) -> tuple[Float64s, Float64s]:
    """Return Σ px and Σ py of what no detector sees, (n_events,) each, GeV."""
    lost = particles.select(~_visible(particles))
    return (
        np.bincount(lost.event, lost.px, n_events).astype(np.float64),
        np.bincount(lost.event, lost.py, n_events).astype(np.float64),
    )


def _track_efficiency(pt: Float64s, eta: Float64s, code: Ints) -> Float64s:
    central = np.abs(eta) < 1.5
    hadron = np.where(pt < 1, np.where(central, 0.70, 0.60), np.where(central, 0.95, 0.85))
    electron = np.where(pt < 1, hadron, np.where(central, 0.95, 0.88))
    efficiency = np.where(code == 13, np.maximum(hadron, 0.98 * (pt > 1)), np.where(code == 11, electron, hadron))
    return np.where(np.abs(eta) < 2.5, efficiency, 0.0)


def _track_resolution(pt: Float64s, eta: Float64s) -> Float64s:
    a = np.abs(eta)
    constant = np.select([a < 0.5, a < 1.5], [0.01, 0.015], 0.025)
    slope = np.select([a < 0.5, a < 1.5], [1e-4, 1.5e-4], 3.5e-4)
    return np.asarray(np.hypot(constant, slope * pt))


def _ecal_resolution(e: Float64s, eta: Float64s) -> Float64s:
    a = np.abs(eta)
    core = np.sqrt((0.008 * e) ** 2 + 0.11**2 * e + 0.40**2) / 2.5  # the card is pessimistic at low energy
    forward = np.sqrt((0.107 * e) ** 2 + 2.08**2 * e)
    return np.asarray(
        np.select(
            [a < 1.5, a < 2.5, a < 3.0],
            [(1 + 0.64 * a**2) * core, (2.16 + 5.6 * (a - 2) ** 2) * core, 5 * core],
            forward,
        )
    )


def _hcal_resolution(e: Float64s, eta: Float64s) -> Float64s:
    inside = np.sqrt((0.05 * e) ** 2 + 1.5**2 * e)
    forward = np.sqrt((0.13 * e) ** 2 + 2.7**2 * e)
    return np.where(np.abs(eta) < 3.0, inside, forward)


def _smear(value: Float64s, sigma: Float64s, rng: np.random.Generator) -> Float64s:
    """Log-normal of the same mean and width, so that nothing becomes negative."""
    width = np.sqrt(np.log1p((sigma / value) ** 2))
    return np.asarray(value * np.exp(width * rng.standard_normal(len(value)) - 0.5 * width**2))


def candidates(particles: Particles, rng: np.random.Generator) -> Candidates:
    """Turn stable particles into PF-like candidates.

    A lost track of a hadron becomes a neutral hadron, that of an electron a photon; a lost muon is lost.

    Parameters
    ----------
    particles : Particles
        Stable particles, ordered by event.
    rng : numpy.random.Generator
        All randomness comes from it.
    """
    pt = np.hypot(particles.px, particles.py)
    with np.errstate(divide="ignore"):
        eta = np.arcsinh(particles.pz / np.maximum(pt, 1e-12))
    keep = _visible(particles) & (np.abs(eta) < 5) & (pt > 0.1)
    p = particles.select(keep)
    pt, eta = pt[keep], eta[keep]
    phi = np.arctan2(p.py, p.px)
    code = np.abs(p.pdgid)
    charge = np.zeros(len(pt), np.int64)
    for species, unit in _CHARGE.items():
        charge[code == species] = unit
    charge *= np.sign(p.pdgid)

    tracked = (charge != 0) & (rng.random(len(pt)) < _track_efficiency(pt, eta, code))
    gone = (charge != 0) & ~tracked & (code == 13)
    electromagnetic = ~tracked & np.isin(code, (11, 22))
    hadronic = ~tracked & ~electromagnetic

    track_pt = _smear(pt, pt * _track_resolution(pt, eta), rng)
    ecal = _smear(p.e, _ecal_resolution(p.e, eta), rng)
    hcal = _smear(p.e, _hcal_resolution(p.e, eta), rng)
    new_pt = np.where(tracked, track_pt, pt * np.where(electromagnetic, ecal, hcal) / p.e)
    spread = np.where(tracked, 3e-4, np.where(electromagnetic, 0.0174, 0.087) / np.sqrt(12))
    new_eta = eta + spread * rng.standard_normal(len(pt))
    new_phi = phi + spread * rng.standard_normal(len(pt))
    new_phi = (new_phi + np.pi) % (2 * np.pi) - np.pi

    forward = np.abs(new_eta) > 3.0
    pdgid = np.select(
        [tracked & (code == 11), tracked & (code == 13), tracked, electromagnetic & forward, electromagnetic, forward],
        [11, 13, 211, 2, 22, 1],
        130,
    )
    sign = np.where(tracked, charge, 0)
    mass = np.zeros(len(pt))
    for species, value in _MASS.items():
        mass[pdgid == species] = value
    # leptons carry the opposite sign of their charge in PDG numbering
    signed = np.where(sign != 0, pdgid * sign * np.where(np.isin(pdgid, (11, 13)), -1, 1), pdgid)
    ok = ~gone & (new_pt > np.where(hadronic, 1.0, 0.5))
    return Candidates(p.event[ok], new_pt[ok], new_eta[ok], new_phi[ok], mass[ok], signed[ok], sign[ok])
