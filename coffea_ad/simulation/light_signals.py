"""Signals near the threshold of a lepton trigger: light scalars and leptoquarks, as in the ADC2021 data, as Pythia settings."""

from __future__ import annotations

from coffea_ad.errors import ConfigError
from coffea_ad.simulation.standard_model import with_lepton

__all__ = ["a_to_4l", "h0_tautau", "hplus_taunu", "leptoquark"]

_LOWEST, _HIGHEST = 10.0, 160.0  # GeV: below, decays meet thresholds; above, a W pair would make the scalar wide
_LEPTONS = {11: "an electron", 12: "its neutrino", 13: "a muon", 14: "its neutrino", 15: "a tau", 16: "its neutrino"}


def _narrow(code: int, name: str, mass: float) -> list[str]:
    """Return a mass with a width that no detector resolves, within 1 GeV of it."""
    if not _LOWEST <= mass <= _HIGHEST:
        raise ConfigError(f"{name} is {mass} GeV, but must lie between {_LOWEST:g} and {_HIGHEST:g} GeV")
    return [
        f"{code}:m0 = {mass}",
        f"{code}:mWidth = 0.01",
        f"{code}:doForceWidth = on",
        f"{code}:mMin = {mass - 1}",
        f"{code}:mMax = {mass + 1}",
        f"{code}:onMode = off",
    ]


def a_to_4l(*, m_a: float = 50.0, final_lepton_pt_min: float = 0.0) -> list[str]:
    """Neutral scalar A → Z* Z* → four electrons and muons, from two gluons.

    The Higgs boson (25) of another mass and width lends its code and its matrix element, so that the leptons are
    correlated as those of a scalar; photons do not mix with the Z*, whose masses begin at 1 GeV.

    Raises
    ------
    ConfigError
        The mass is not between 10 and 160 GeV.
    """
    return [
        "HiggsSM:gg2H = on",
        *_narrow(25, "m_a", m_a),
        "25:onIfMatch = 23 23",
        "23:mMin = 1.0",
        "23:onMode = off",
        "23:onIfAny = 11 13",
        *with_lepton(final=final_lepton_pt_min),
    ]


def h0_tautau(*, m_h0: float = 60.0, final_lepton_pt_min: float = 0.0) -> list[str]:
    """Neutral scalar h⁰ → τ τ, from two gluons: the Higgs boson (25) of another mass and width.

    Raises
    ------
    ConfigError
        The mass is not between 10 and 160 GeV.
    """
    return [
        "HiggsSM:gg2H = on",
        *_narrow(25, "m_h0", m_h0),
        "25:onIfMatch = 15 -15",
        *with_lepton(final=final_lepton_pt_min),
    ]


def hplus_taunu(*, m_hplus: float = 60.0, leptonic_taus: int = 0, final_lepton_pt_min: float = 0.0) -> list[str]:
    """Charged scalar h± → τ ν, from two quarks, whose masses give its couplings: mostly c s and c b.

    With leptonic_taus=1 all taus decay to e or μ, which leaves out events that have no lepton from the start.

    Raises
    ------
    ConfigError
        The mass is not between 10 and 160 GeV, or leptonic_taus is neither 0 nor 1.
    """
    if leptonic_taus not in (0, 1):
        raise ConfigError(f"leptonic_taus is {leptonic_taus}, but must be 0 or 1")
    return [
        "Higgs:useBSM = on",
        "HiggsBSM:ffbar2H+- = on",
        *_narrow(37, "m_hplus", m_hplus),
        "37:onIfMatch = 15 16",
        *(["15:onMode = off", "15:onIfAny = 11 13"] if leptonic_taus else []),
        *with_lepton(final=final_lepton_pt_min),
    ]


def leptoquark(*, m_lq: float = 80.0, lepton: int = 15, final_lepton_pt_min: float = 0.0) -> list[str]:
    """Pairs of scalar leptoquarks, each to a b quark and the lepton of this PDG code, of which it is made.

    A leptoquark of b and τ has another charge than one of b and ν: no leptoquark has both decays.

    Raises
    ------
    ConfigError
        The mass is below 10 GeV, or the code is none of a lepton.
    """
    if lepton not in _LEPTONS:
        raise ConfigError(
            f"lepton is {lepton}, but must be a PDG code: {', '.join(f'{k} {v}' for k, v in _LEPTONS.items())}"
        )
    if m_lq < _LOWEST:
        raise ConfigError(f"m_lq is {m_lq} GeV, but must be at least {_LOWEST:g} GeV")
    return [
        "LeptoQuark:gg2LQLQbar = on",
        "LeptoQuark:qqbar2LQLQbar = on",
        f"42:0:products = 5 {lepton if lepton % 2 == 0 else -lepton}",
        f"42:m0 = {m_lq}",
        f"42:mMin = {0.9 * m_lq}",
        f"42:mMax = {1.1 * m_lq}",
        *with_lepton(final=final_lepton_pt_min),
    ]
