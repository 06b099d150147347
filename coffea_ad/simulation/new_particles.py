"""New heavy particles that decay to leptons, jets, photons and missing momentum, as Pythia settings."""

from __future__ import annotations

from coffea_ad.errors import ConfigError

__all__ = ["dm_monojet", "dm_zprime", "gluino", "ssm_zprime", "tbhplus", "wkk", "zprime"]

_TOP, _BOTTOM, _W, _Z = 171.0, 4.8, 80.385, 91.188  # GeV, Pythia's
_LOWEST = 0.5  # of the mass of a resonance: what its tail below would add is no search for it


def _resonance(code: int, mass: float) -> list[str]:
    return [f"{code}:m0 = {mass}", f"{code}:mMin = {_LOWEST * mass}"]


def _above(name: str, mass: float, threshold: float, products: str) -> None:
    if mass <= threshold:
        raise ConfigError(f"{name} is {mass} GeV, but must be above the {threshold:g} GeV of {products}")


def tbhplus(*, m_hplus: float = 2000.0, tan_beta: float = 5.0) -> list[str]:
    """Charged Higgs boson with a top, b g → t H⁻ → t t̄ b, in the type-II model.

    The other b of t b H⁺ is the one in the proton: of g g → t b H⁺ Pythia has this part only.

    Raises
    ------
    ConfigError
        The mass is too small for a top and a bottom quark, or tan_beta is not positive.
    """
    _above("m_hplus", m_hplus, _TOP + _BOTTOM, "a top and a bottom quark")
    if not 0.1 <= tan_beta <= 100:
        raise ConfigError(f"tan_beta is {tan_beta}, but must be between 0.1 and 100")
    return [
        "Higgs:useBSM = on",
        "HiggsBSM:bg2H+-t = on",
        f"HiggsHchg:tanBeta = {tan_beta}",
        "HiggsHchg:coup2H1W = 0.",  # alignment: no decay to W h, which would make it as wide as heavy
        *_resonance(37, m_hplus),
        "37:onMode = off",
        "37:onIfMatch = 6 5",
    ]


def wkk(*, m_wprime: float = 2000.0) -> list[str]:
    """Heavy copy of the W, to W Z, like a Kaluza-Klein excitation; W and Z decay as they do.

    Raises
    ------
    ConfigError
        The mass is too small for a W and a Z.
    """
    _above("m_wprime", _LOWEST * m_wprime, _W + _Z, "a W and a Z at half of the mass")
    return [
        "NewGaugeBoson:ffbar2Wprime = on",
        "Wprime:coup2WZ = 1.",
        *_resonance(34, m_wprime),
        "34:onMode = off",
        "34:onIfMatch = 24 23",
    ]


def _zprime(mass: float) -> list[str]:
    if mass < 200:
        raise ConfigError(f"m_zprime is {mass} GeV, but must be at least 200 GeV: below, it is the Z's neighbour")
    # neither photon nor Z: the new boson alone, without interference
    return ["NewGaugeBoson:ffbar2gmZZprime = on", "Zprime:gmZmode = 3", *_resonance(32, mass)]


def zprime(*, m_zprime: float = 2000.0, coupling: float = 0.5) -> list[str]:
    """Z′ with one vector coupling to all quarks and leptons, in units of those of the Z; without interference.

    Raises
    ------
    ConfigError
        The mass is below 200 GeV, or the coupling is none or makes it wider than a tenth of its mass.
    """
    if not 0 < coupling <= 2:
        raise ConfigError(f"coupling is {coupling}, but must be above 0 and at most 2")
    fermions = ("d", "u", "e", "nue")
    return [
        *_zprime(m_zprime),
        *(f"Zprime:v{f} = {coupling}" for f in fermions),
        *(f"Zprime:a{f} = 0." for f in fermions),
    ]


def ssm_zprime(*, m_zprime: float = 2000.0) -> list[str]:
    """Sequential Z′: couplings to fermions as the Z has them, none to W W; without interference.

    Raises
    ------
    ConfigError
        The mass is below 200 GeV.
    """
    return _zprime(m_zprime)


def _mediator(m_zprime: float, m_dm: float, g_q: float, g_dm: float) -> list[str]:
    _above("m_zprime", _LOWEST * m_zprime, 2 * m_dm, "two particles of dark matter at half of the mass")
    for name, value in (("g_q", g_q), ("g_dm", g_dm)):
        if not 0 < value <= 2:
            raise ConfigError(f"{name} is {value}, but must be above 0 and at most 2")
    return [
        *_resonance(55, m_zprime),
        f"52:m0 = {m_dm}",
        "Zp:gZp = 1.",
        *(f"Zp:v{f} = 0." for f in ("u", "d", "l", "v", "X")),
        *(f"Zp:a{f} = 0." for f in ("l", "v")),
        f"Zp:au = {g_q}",
        f"Zp:ad = {g_q}",
        f"Zp:aX = {g_dm}",
    ]


def dm_zprime(*, m_zprime: float = 2000.0, m_dm: float = 100.0, g_q: float = 0.25, g_dm: float = 1.0) -> list[str]:
    """Axial-vector mediator of dark matter, seen in its decays to quarks.

    Raises
    ------
    ConfigError
        Two particles of dark matter are too heavy for it, or a coupling is not between 0 and 2.
    """
    return ["DM:ffbar2Zp2XX = on", "Zp:decayMode = 1", *_mediator(m_zprime, m_dm, g_q, g_dm)]


def dm_monojet(
    *,
    m_zprime: float = 2000.0,
    m_dm: float = 100.0,
    g_q: float = 0.25,
    g_dm: float = 1.0,
    pthat_min: float = 150.0,
) -> list[str]:
    """Axial-vector mediator to dark matter, and a jet it recoils against.

    Raises
    ------
    ConfigError
        Two particles of dark matter are too heavy for it, or a coupling is not between 0 and 2.
    """
    return [
        "DM:ffbar2Zp2XXj = on",
        f"PhaseSpace:pTHatMin = {pthat_min}",
        *_mediator(m_zprime, m_dm, g_q, g_dm),
    ]


def gluino(*, m_gluino: float = 2000.0, m_lsp: float = 100.0, top_fraction: float = 0.0) -> list[str]:
    """Pairs of gluinos, each to q q̄ χ̃⁰ by three-body decays: u, d, s, c and b alike, or with a part of top quarks.

    All other superpartners are too heavy to matter. The last line is not a setting but a spectrum in the format of
    the SUSY Les Houches Accord, which the generator hands to Pythia as a file.

    Raises
    ------
    ConfigError
        The neutralino is too heavy for the decay, or top_fraction is not between 0 and 1.

    References
    ----------
    P. Skands et al., "SUSY Les Houches Accord", hep-ph/0311123.
    """
    if not 0 <= top_fraction <= 1:
        raise ConfigError(f"top_fraction is {top_fraction}, but must lie between 0 and 1")
    quarks = 2 * (_TOP if top_fraction > 0 else _BOTTOM)
    _above("m_gluino", m_gluino, m_lsp + quarks, "the neutralino and its quarks")
    return [
        "SUSY:gg2gluinogluino = on",
        "SUSY:qqbar2gluinogluino = on",
        "SLHA:verbose = 0",
        _spectrum(m_gluino, m_lsp, top_fraction),
    ]


def _spectrum(m_gluino: float, m_lsp: float, top_fraction: float) -> str:
    """Return a simplified model as an SLHA text: bino, gluino, and everything else decoupled."""
    heavy = 20_000.0
    squarks = [code + 1_000_000 * side for side in (1, 2) for code in range(1, 7)]
    others = [code + 1_000_000 for code in (11, 12, 13, 14, 15, 16)] + [2_000_011, 2_000_013, 2_000_015]
    masses = {**dict.fromkeys([*squarks, *others, 1_000_023, 1_000_024, 1_000_025, 1_000_035, 1_000_037], heavy)}
    masses |= {35: heavy, 36: heavy, 37: heavy, 1_000_021: m_gluino, 1_000_022: m_lsp}
    ratios = dict.fromkeys(range(1, 6), (1 - top_fraction) / 5) | {6: top_fraction}
    identity = [f"  {i}  {i}  1.0" for i in range(1, 5)]
    mixing = [f"  {i}  {j}  {1.0 if i == j else 0.0}" for i in (1, 2) for j in (1, 2)]
    return "\n".join(
        [
            "BLOCK MODSEL",
            "  1  0",
            "BLOCK MASS",
            *(f"  {code}  {mass:.8g}" for code, mass in sorted(masses.items())),
            "BLOCK NMIX",
            *identity,
            *(
                line
                for name in ("UMIX", "VMIX", "STOPMIX", "SBOTMIX", "STAUMIX")
                for line in (f"BLOCK {name}", *mixing)
            ),
            "BLOCK ALPHA",
            "  0.0",
            "DECAY 1000022 0.0",
            "DECAY 1000021 1.0",
            *(f"  {ratio:.8g}  3  1000022  {q}  -{q}" for q, ratio in ratios.items() if ratio > 0),
        ]
    )
