"""The physics processes, one declarative entry each: a function of its parameters that returns Pythia settings."""

from __future__ import annotations

import contextlib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coffea_ad.errors import ConfigError, UnknownName, unknown_text

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

_QUARK_MASS = {1: 0.0048, 2: 0.0022, 3: 0.093, 4: 1.27, 5: 4.18}
# Constituent-like masses decide which decays are open.
_THRESHOLD = {1: 0.33, 2: 0.33, 3: 0.5, 4: 1.5, 5: 4.8}


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


def qcd(*, pthat_min: float = 170.0, bias_power: float = 4.0) -> list[str]:
    """QCD dijets, close to flat in pT-hat: generated as pT-hat^bias_power more often, with weights that undo it."""
    lines = ["HardQCD:all = on", f"PhaseSpace:pTHatMin = {pthat_min}"]
    if bias_power > 0:
        lines += [
            "PhaseSpace:bias2Selection = on",
            f"PhaseSpace:bias2SelectionPow = {bias_power}",
            f"PhaseSpace:bias2SelectionRef = {pthat_min}",
        ]
    return lines


def ttbar(*, pthat_min: float = 0.0) -> list[str]:
    """Top pairs, all decays."""
    return ["Top:gg2ttbar = on", "Top:qqbar2ttbar = on", f"PhaseSpace:pTHatMin = {pthat_min}"]


def wjets(*, pthat_min: float = 30.0) -> list[str]:
    """W(→ ℓν) and a parton."""
    return [
        "WeakBosonAndParton:qqbar2Wg = on",
        "WeakBosonAndParton:qg2Wq = on",
        "24:onMode = off",
        "24:onIfAny = 11 13 15",
        f"PhaseSpace:pTHatMin = {pthat_min}",
    ]


def zjets(*, pthat_min: float = 30.0, m_min: float = 50.0) -> list[str]:
    """Z(→ νν, ℓℓ) and a parton."""
    return [
        "WeakBosonAndParton:qqbar2gmZg = on",
        "WeakBosonAndParton:qg2gmZq = on",
        "23:onMode = off",
        "23:onIfAny = 11 12 13 14 15 16",
        f"23:mMin = {m_min}",
        f"PhaseSpace:pTHatMin = {pthat_min}",
    ]


def _dark_sector(
    r_inv: float, m_dark: float, n_colour: int, lambda_dark: float | None, m_quark: float | None
) -> list[str]:
    """Dark QCD with two flavours; a fraction r_inv of the dark mesons decays invisibly."""
    if not 0 <= r_inv <= 1:
        raise ConfigError(f"r_inv is {r_inv}, but must lie between 0 and 1")
    if m_dark <= 2 * min(_THRESHOLD.values()):
        raise ConfigError(f"m_dark is {m_dark} GeV, but dark hadrons must be able to decay to quarks")
    scale = 3.2 * m_dark**0.8 if lambda_dark is None else lambda_dark
    quark = m_dark / 2 if m_quark is None else m_quark
    open_quarks = [q for q, m in _THRESHOLD.items() if 2 * m < m_dark]
    yukawa = {q: _QUARK_MASS[q] ** 2 for q in open_quarks}
    lines = [f"49001{code}:m0 = {m_dark}" for code in ("11", "13")] + [
        f"49002{code}:m0 = {m_dark}" for code in ("11", "13")
    ]
    lines += [
        f"4900101:m0 = {quark}",
        *(f"{code}:m0 = 0.0" for code in (51, 53)),
        *(f"{code}:isResonance = false" for code in (51, 53)),
        f"HiddenValley:Ngauge = {n_colour}",
        "HiddenValley:nFlav = 2",
        "HiddenValley:spinFv = 0",
        "HiddenValley:FSR = on",
        "HiddenValley:fragment = on",
        "HiddenValley:alphaOrder = 1",
        "HiddenValley:setLambda = on",  # without it Pythia 8.31x ignores Lambda
        f"HiddenValley:Lambda = {scale}",
        f"HiddenValley:pTminFSR = {1.1 * scale}",
        "HiddenValley:probVector = 0.75",
    ]
    for meson in ("4900111", "4900211"):  # pseudoscalars decay by a mass insertion: mostly to the heaviest quark
        lines.append(f"{meson}:oneChannel = 1 {r_inv} 0 51 -51")
        lines += [
            f"{meson}:addChannel = 1 {(1 - r_inv) * w / sum(yukawa.values())} 91 {q} -{q}" for q, w in yukawa.items()
        ]
    for meson in ("4900113", "4900213"):  # vectors decay democratically
        lines.append(f"{meson}:oneChannel = 1 {r_inv} 0 53 -53")
        lines += [f"{meson}:addChannel = 1 {(1 - r_inv) / len(open_quarks)} 91 {q} -{q}" for q in open_quarks]
    return lines


def svj(
    *,
    m_zprime: float = 2000.0,
    r_inv: float = 0.3,
    m_dark: float = 20.0,
    n_colour: int = 2,
    lambda_dark: float | None = None,
    m_quark: float | None = None,
) -> list[str]:
    """Semivisible jets from an s-channel Z′ → dark quarks."""
    return [
        "HiddenValley:ffbar2Zv = on",
        f"4900023:m0 = {m_zprime}",
        f"4900023:mMin = {m_zprime - 1}",
        f"4900023:mMax = {m_zprime + 1}",
        "4900023:mWidth = 0.01",
        "4900023:doForceWidth = on",
        "4900023:oneChannel = 1 0.982 102 4900101 -4900101",
        *(f"4900023:addChannel = 1 0.003 102 {q} -{q}" for q in range(1, 7)),
        *(f"49000{code:02d}:m0 = 5000" for code in (*range(1, 7), *range(11, 17))),
        *_dark_sector(r_inv, m_dark, n_colour, lambda_dark, m_quark),
    ]


def svj_t(*, m_phi: float = 2000.0, r_inv: float = 0.3, m_dark: float = 20.0) -> list[str]:
    """Pairs of bifundamental mediators, each to a quark and a dark quark."""
    flavours = {1: "D", 2: "U", 3: "S", 4: "C", 5: "B"}
    return [
        *(f"HiddenValley:{initial}2{f}v{f}vbar = on" for initial in ("gg", "qqbar") for f in flavours.values()),
        *(
            line
            for code in flavours
            for line in (
                f"490000{code}:m0 = {m_phi}",
                f"490000{code}:mMin = {m_phi - 1}",
                f"490000{code}:mMax = {m_phi + 1}",
            )
        ),
        "4900006:m0 = 50000",
        "4900023:m0 = 50000",
        *_dark_sector(r_inv, m_dark, 2, None, None),
    ]


def resonance(
    *, m_res: float = 3500.0, m_x: float = 500.0, m_y: float = 100.0, prongs: int = 2, width: float = 0.01
) -> list[str]:
    """Decay a resonance to X Y, each to two or three quarks; all have this width over their mass, and stay within ±5 of it.

    Pythia's W′ (34), H⁺ (37) and A⁰ (36) lend their codes: its own Z′ decays to fermions only. Three quarks leave X and Y
    by a junction, so that a baryon number comes out of nothing; it does not matter to jets.
    """
    if prongs not in (2, 3):
        raise ConfigError(f"prongs is {prongs}, but X and Y decay to 2 or 3 quarks")
    if not 0 < width <= 0.1:
        raise ConfigError(f"width is {width}, but must be above 0 and at most 0.1 of the mass")
    open_quarks = [q for q, m in _THRESHOLD.items() if 2 * m < m_y * (1 - 5 * width)]
    narrow = 1 - 5 * width
    if m_x * narrow <= _THRESHOLD[3] + _THRESHOLD[4] or m_y * narrow <= 2 * _THRESHOLD[3]:
        raise ConfigError(f"m_x and m_y are {m_x} and {m_y} GeV, but X and Y must be able to decay to jets")
    if (m_x + m_y) * (1 + 5 * width) >= m_res * (1 - 5 * width):
        raise ConfigError(f"m_res is {m_res} GeV, but must be above m_x + m_y = {m_x + m_y} GeV by ten widths")
    decays = {
        34: ["37 36"],
        37: ["2 -1", "4 -3"] if prongs == 2 else ["2 2 1", "4 2 3"],
        36: [f"{q} -{q}" for q in open_quarks] if prongs == 2 else ["2 1 3"],
    }
    lines = ["NewGaugeBoson:ffbar2Wprime = on"]
    for code, mass in ((34, m_res), (37, m_x), (36, m_y)):
        lines += [
            f"{code}:m0 = {mass}",
            f"{code}:mWidth = {width * mass}",
            f"{code}:doForceWidth = on",
            f"{code}:mMin = {mass * (1 - 5 * width)}",
            f"{code}:mMax = {mass * (1 + 5 * width)}",
        ]
        for i, products in enumerate(decays[code]):
            word = "oneChannel" if i == 0 else "addChannel"
            lines.append(f"{code}:{word} = 1 {1 / len(decays[code])} 100 {products}")
    return lines


PROCESSES: dict[str, Process] = {
    "qcd": Process("QCD dijets, flat in pT-hat with weights", qcd),
    "ttbar": Process("top pairs, all decays", ttbar),
    "ttbar_boosted": Process("top pairs, pT-hat > 300 GeV", ttbar, {"pthat_min": 300.0}),
    "wjets": Process("W(→ ℓν) + jet", wjets),
    "zjets": Process("Z(→ νν, ℓℓ) + jet", zjets),
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
