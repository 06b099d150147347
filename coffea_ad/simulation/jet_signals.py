"""Signals of jets: semivisible jets, and resonances to X Y as in the LHC Olympics, as Pythia settings."""

from __future__ import annotations

from coffea_ad.errors import ConfigError

__all__ = ["resonance", "svj", "svj_t"]

_QUARK_MASS = {1: 0.0048, 2: 0.0022, 3: 0.093, 4: 1.27, 5: 4.18}
# Constituent-like masses decide which decays are open.
_THRESHOLD = {1: 0.33, 2: 0.33, 3: 0.5, 4: 1.5, 5: 4.8}


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
