"""Standard-Model processes: functions of their parameters that return Pythia settings."""

from __future__ import annotations

from coffea_ad.errors import ConfigError

__all__ = ["diboson", "gammajets", "qcd", "single_top", "ttbar", "wjets", "zjets"]


def _pthat(minimum: float, bias_power: float) -> list[str]:
    """Return the settings of the spectrum of pT-hat: from a minimum on, and as pT-hat^bias_power more often."""
    lines = [f"PhaseSpace:pTHatMin = {minimum}"]
    if bias_power > 0:
        if minimum < 10:
            raise ConfigError(f"bias_power is {bias_power}, which needs a pthat_min of at least 10 GeV, not {minimum}")
        lines += [
            "PhaseSpace:bias2Selection = on",
            f"PhaseSpace:bias2SelectionPow = {bias_power}",
            f"PhaseSpace:bias2SelectionRef = {minimum}",
        ]
    return lines


def _with_lepton(minimum: float) -> list[str]:
    """Return the setting of the filter of hard processes, `simulation.filters`; 0 is none."""
    return [f"LeptonFilter:pTMin = {minimum}"] if minimum > 0 else []


def qcd(*, pthat_min: float = 170.0, bias_power: float = 4.0) -> list[str]:
    """QCD dijets, close to flat in pT-hat: generated as pT-hat^bias_power more often, with weights that undo it."""
    return ["HardQCD:all = on", *_pthat(pthat_min, bias_power)]


def ttbar(*, pthat_min: float = 0.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0) -> list[str]:
    """Top pairs, all decays."""
    return [
        "Top:gg2ttbar = on",
        "Top:qqbar2ttbar = on",
        *_pthat(pthat_min, bias_power),
        *_with_lepton(lepton_pt_min),
    ]


def wjets(*, pthat_min: float = 30.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0) -> list[str]:
    """W(→ ℓν) and a parton."""
    return [
        "WeakBosonAndParton:qqbar2Wg = on",
        "WeakBosonAndParton:qg2Wq = on",
        "24:onMode = off",
        "24:onIfAny = 11 13 15",
        *_pthat(pthat_min, bias_power),
        *_with_lepton(lepton_pt_min),
    ]


def zjets(
    *, pthat_min: float = 30.0, m_min: float = 50.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0
) -> list[str]:
    """Z(→ νν, ℓℓ) and a parton."""
    return [
        "WeakBosonAndParton:qqbar2gmZg = on",
        "WeakBosonAndParton:qg2gmZq = on",
        "23:onMode = off",
        "23:onIfAny = 11 12 13 14 15 16",
        f"23:mMin = {m_min}",
        *_pthat(pthat_min, bias_power),
        *_with_lepton(lepton_pt_min),
    ]


def gammajets(*, pthat_min: float = 50.0, bias_power: float = 0.0) -> list[str]:
    """Prompt photon and a parton.

    Raises
    ------
    ConfigError
        pthat_min is below 10 GeV, where the cross-section grows without bound.
    """
    if pthat_min < 10:
        raise ConfigError(f"pthat_min is {pthat_min} GeV, but a photon and a parton need at least 10 GeV")
    return [
        "PromptPhoton:qg2qgamma = on",
        "PromptPhoton:qqbar2ggamma = on",
        "PromptPhoton:gg2ggamma = on",
        *_pthat(pthat_min, bias_power),
    ]


def diboson(
    *, pthat_min: float = 0.0, m_min: float = 50.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0
) -> list[str]:
    """WW, WZ and ZZ, all decays; a Z, or what it mixes with, weighs at least m_min."""
    return [
        "WeakDoubleBoson:all = on",
        "WeakZ0:gmZmode = 0",
        f"23:mMin = {m_min}",
        *_pthat(pthat_min, bias_power),
        *_with_lepton(lepton_pt_min),
    ]


def single_top(*, pthat_min: float = 0.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0) -> list[str]:
    """Single top quark by exchange of a W, in the t- and the s-channel; Pythia has no tW."""
    return [
        "Top:qq2tq(t:W) = on",
        "Top:ffbar2tqbar(s:W) = on",
        *_pthat(pthat_min, bias_power),
        *_with_lepton(lepton_pt_min),
    ]
