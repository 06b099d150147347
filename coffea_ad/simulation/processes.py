"""The physics processes, one declarative entry each: a function of its parameters that returns Pythia settings."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coffea_ad.errors import ConfigError, UnknownName, unknown_text
from coffea_ad.simulation.jet_signals import resonance, svj, svj_t
from coffea_ad.simulation.light_signals import a_to_4l, h0_tautau, hplus_taunu, leptoquark
from coffea_ad.simulation.new_particles import dm_monojet, dm_zprime, gluino, ssm_zprime, tbhplus, wkk, zprime
from coffea_ad.simulation.standard_model import diboson, gammajets, qcd, single_top, ttbar, wjets, wlnu, zjets, zll

__all__ = ["COMMON", "ECM", "PROCESSES", "Process", "resolve"]

ECM = 13000.0
"""Centre-of-mass energy of a process that is not given another, GeV."""

COMMON = (
    "Beams:idA = 2212",
    "Beams:idB = 2212",
    "Tune:pp = 14",
    # K_S, Λ, Σ, Ξ and Ω live long enough to reach the calorimeter, as in CMS.
    "ParticleDecays:limitTau0 = on",
    "ParticleDecays:tau0Max = 10.",
)


@dataclass(frozen=True)
class Process:
    """A process that `coffea-ad simulate` can make.

    Attributes
    ----------
    title : str
        One line for `coffea-ad simulate --list`.
    settings : function
        Keyword parameters with defaults → lines for Pythia 8.3.
    presets : {parameter: value}
        Other defaults than the function's own.
    signal : bool
        Whether the process is new physics.
    """

    title: str
    settings: Callable[..., list[str]]
    presets: Mapping[str, Any] = field(default_factory=dict)
    signal: bool = False

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters and their defaults; `ecm`, GeV, is one of every process."""
        defaults = {name: p.default for name, p in inspect.signature(self.settings).parameters.items()}
        return {**defaults, **self.presets, "ecm": ECM}


def _at_masses(
    name: str,
    title: str,
    settings: Callable[..., list[str]],
    mass: str,
    tev: tuple[int, ...] = (1, 2, 4),
    **others: Any,
) -> dict[str, Process]:
    """Return the entry of a signal, and one for each of these masses."""
    return {name: Process(title, settings, others, signal=True)} | {
        f"{name}_{m}tev": Process(f"{title}, {m} TeV", settings, {mass: 1000.0 * m, **others}, signal=True) for m in tev
    }


PROCESSES: dict[str, Process] = {
    "qcd": Process("QCD dijets, flat in pT-hat with weights", qcd),
    "ttbar": Process("top pairs, all decays", ttbar),
    "ttbar_boosted": Process("top pairs, pT-hat > 300 GeV", ttbar, {"pthat_min": 300.0}),
    "wjets": Process("W(→ ℓν) + jet", wjets),
    "zjets": Process("Z(→ νν, ℓℓ) + jet", zjets),
    "wlnu": Process("W → ℓν of any pT", wlnu),
    "zll": Process("Z → ℓℓ of any pT", zll),
    "gammajets": Process("prompt photon + jet", gammajets),
    "diboson": Process("WW, WZ, ZZ, all decays", diboson),
    "single_top": Process("single top, t- and s-channel, all decays", single_top),
    "svj": Process("semivisible jets, s-channel Z′, CMS-like point", svj, signal=True),
    "svj_aachen": Process(
        "semivisible jets, s-channel Z′, 'Aachen' point: light dark mesons",
        svj,
        {"r_inv": 0.75, "m_dark": 5.0, "n_colour": 3, "lambda_dark": 5.0, "m_quark": 0.5},
        signal=True,
    ),
    "svj_t": Process("semivisible jets from pairs of bifundamental mediators (t-channel model)", svj_t, signal=True),
    "lhco_qcd": Process(
        "QCD dijets above about 1.8 TeV, as in the LHC Olympics, with weights", qcd, {"pthat_min": 900.0}
    ),
    "lhco_wprime": Process("resonance → XY, each to two quarks, as in the LHC Olympics", resonance, signal=True),
    "lhco_3prong": Process("resonance → XY, each to three quarks", resonance, {"prongs": 3}, signal=True),
    "a_to_4l": Process("light neutral scalar A → Z* Z* → 4 ℓ", a_to_4l, signal=True),
    "h0_tautau": Process("light neutral scalar h⁰ → τ τ", h0_tautau, signal=True),
    "hplus_taunu": Process("light charged scalar h± → τ ν", hplus_taunu, signal=True),
    "leptoquark": Process("pairs of leptoquarks → b τ each", leptoquark, signal=True),
    "leptoquark_bnu": Process("pairs of leptoquarks → b ν each", leptoquark, {"lepton": 16}, signal=True),
    **_at_masses("tbhplus", "charged Higgs with a top, H⁺ → t b", tbhplus, "m_hplus"),
    **_at_masses("wkk", "W′ → W Z, all decays", wkk, "m_wprime"),
    **_at_masses("zprime", "Z′ → all fermions alike", zprime, "m_zprime"),
    **_at_masses("ssm_zprime", "sequential Z′, couplings of the Z", ssm_zprime, "m_zprime"),
    **_at_masses("dm_zprime", "axial-vector mediator of dark matter → quarks", dm_zprime, "m_zprime"),
    **_at_masses("dm_monojet", "axial-vector mediator → dark matter, and a jet", dm_monojet, "m_zprime"),
    **_at_masses("gluino", "gluino pairs → q q̄ χ̃⁰ each", gluino, "m_gluino"),
    **_at_masses("gluino_top", "gluino pairs → t t̄ χ̃⁰ each", gluino, "m_gluino", top_fraction=1.0),
}


def resolve(name: str, parameters: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[str]]:
    """Return all parameters of a process and its Pythia settings.

    Raises
    ------
    UnknownName
        No such process.
    ConfigError
        No such parameter, or its value is no number.

    Examples
    --------
    >>> parameters, settings = resolve("svj", {"r_inv": 0.6})
    >>> parameters["m_zprime"], parameters["r_inv"], parameters["ecm"]
    (2000.0, 0.6, 13000.0)
    >>> "HiddenValley:setLambda = on" in settings
    True
    """
    if name not in PROCESSES:
        raise UnknownName.of("process", name, PROCESSES)
    process = PROCESSES[name]
    values = process.parameters
    for key, value in (parameters or {}).items():
        if key not in values:
            raise ConfigError(f"{name}: " + unknown_text("parameter", key, values))
        values[key] = _checked(name, key, value, values[key])
    ecm = values["ecm"]
    if not 1000 <= ecm <= 1e6:
        raise ConfigError(f"{name}: ecm is {ecm:g}, but must be the centre-of-mass energy in GeV, such as 13600")
    arguments = {key: value for key, value in values.items() if key != "ecm"}
    return values, [*COMMON, f"Beams:eCM = {ecm:.10g}", *process.settings(**arguments)]


def _checked(name: str, key: str, value: Any, usual: Any) -> Any:
    """Return a number of the kind of the default; None where the default is."""
    if value is None and usual is None:
        return None
    if isinstance(value, str):  # YAML takes 1e3 for a text, and 1.0e3 for a number
        with contextlib.suppress(ValueError):
            value = float(value)
    whole = isinstance(usual, int) and not isinstance(usual, bool)
    right = isinstance(value, int) if whole else isinstance(value, (int, float))
    if not right or isinstance(value, bool) or not math.isfinite(value):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"{name}: {key} is {value!r}, but must be {kind}")
    if value < 0:
        raise ConfigError(f"{name}: {key} is {value!r}, but must not be negative")
    return value if whole else float(value)
