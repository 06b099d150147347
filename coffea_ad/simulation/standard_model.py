"""Standard-Model processes: functions of their parameters that return Pythia settings."""

from __future__ import annotations

from coffea_ad.errors import ConfigError

__all__ = ["diboson", "gammajets", "qcd", "single_top", "ttbar", "with_lepton", "wjets", "wlnu", "zjets", "zll"]


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


def with_lepton(hard: float = 0.0, final: float = 0.0) -> list[str]:
    """Return the settings of `simulation.filters`: leptons of hard processes, and of whole events; 0 is no filter.

    >>> with_lepton(final=21.0)
    ['LeptonFilter:finalPTMin = 21.0']
    """
    names = {"pTMin": hard, "finalPTMin": final}
    return [f"LeptonFilter:{name} = {minimum}" for name, minimum in names.items() if minimum > 0]


def qcd(
    *, pthat_min: float = 170.0, bias_power: float = 4.0, heavy_quarks: int = 0, final_lepton_pt_min: float = 0.0
) -> list[str]:
    """QCD dijets, close to flat in pT-hat: generated as pT-hat^bias_power more often, with weights that undo it.

    With heavy_quarks=1, a c or b quark comes out of the hard process: pairs of them, and those of the proton that scatter. Those
    of gluons that split in a shower are left out then.

    Raises
    ------
    ConfigError
        heavy_quarks is neither 0 nor 1.
    """
    if heavy_quarks not in (0, 1):
        raise ConfigError(f"heavy_quarks is {heavy_quarks}, but must be 0 or 1")
    heavy = ["LeptonFilter:heavyQuarks = 1"] if heavy_quarks else []
    return ["HardQCD:all = on", *_pthat(pthat_min, bias_power), *heavy, *with_lepton(final=final_lepton_pt_min)]


def ttbar(
    *,
    pthat_min: float = 0.0,
    bias_power: float = 0.0,
    lepton_pt_min: float = 0.0,
    final_lepton_pt_min: float = 0.0,
) -> list[str]:
    """Top pairs, all decays."""
    return [
        "Top:gg2ttbar = on",
        "Top:qqbar2ttbar = on",
        *_pthat(pthat_min, bias_power),
        *with_lepton(lepton_pt_min, final_lepton_pt_min),
    ]


def wlnu(*, lepton_pt_min: float = 0.0, final_lepton_pt_min: float = 0.0) -> list[str]:
    """W → ℓν, e, μ and τ, of any pT: jets come from the showers."""
    return [
        "WeakSingleBoson:ffbar2W = on",
        "24:onMode = off",
        "24:onIfAny = 11 13 15",
        *with_lepton(lepton_pt_min, final_lepton_pt_min),
    ]


def zll(*, m_min: float = 50.0, lepton_pt_min: float = 0.0, final_lepton_pt_min: float = 0.0) -> list[str]:
    """Z and photon → ℓℓ, e, μ and τ, of at least this mass and any pT: jets come from the showers."""
    return [
        "WeakSingleBoson:ffbar2gmZ = on",
        "23:onMode = off",
        "23:onIfAny = 11 13 15",
        f"PhaseSpace:mHatMin = {m_min}",
        *with_lepton(lepton_pt_min, final_lepton_pt_min),
    ]


def wjets(*, pthat_min: float = 30.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0) -> list[str]:
    """W(→ ℓν) and a parton."""
    return [
        "WeakBosonAndParton:qqbar2Wg = on",
        "WeakBosonAndParton:qg2Wq = on",
        "24:onMode = off",
        "24:onIfAny = 11 13 15",
        *_pthat(pthat_min, bias_power),
        *with_lepton(lepton_pt_min),
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
        *with_lepton(lepton_pt_min),
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
        *with_lepton(lepton_pt_min),
    ]


def single_top(*, pthat_min: float = 0.0, bias_power: float = 0.0, lepton_pt_min: float = 0.0) -> list[str]:
    """Single top quark by exchange of a W, in the t- and the s-channel; Pythia has no tW."""
    return [
        "Top:qq2tq(t:W) = on",
        "Top:ffbar2tqbar(s:W) = on",
        *_pthat(pthat_min, bias_power),
        *with_lepton(lepton_pt_min),
    ]
