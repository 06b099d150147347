"""New particles and the backgrounds of the search with the rapidity-mass matrix: what Pythia makes of their settings."""

from __future__ import annotations

import json
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
from toys import open_events

from coffea_ad.errors import ConfigError
from coffea_ad.simulation.processes import PROCESSES, resolve

TOP, W, Z, PHOTON = 6, 24, 23, 22
COUNTED = (TOP, W, Z, PHOTON, 37, 1000021, 1000022)
QUARKS, LEPTONS, NEUTRINOS = {1, 2, 3, 4, 5}, {11, 13, 15}, {12, 14, 16}
MASSES = {
    "tbhplus": "m_hplus",
    "wkk": "m_wprime",
    "zprime": "m_zprime",
    "ssm_zprime": "m_zprime",
    "dm_zprime": "m_zprime",
    "dm_monojet": "m_zprime",
    "gluino": "m_gluino",
    "gluino_top": "m_gluino",
}


@pytest.mark.parametrize(("name", "mass"), MASSES.items())
def test_a_signal_has_presets_at_one_two_and_four_tev(name, mass):
    for tev in (1, 2, 4):
        entry = PROCESSES[f"{name}_{tev}tev"]
        assert entry.signal
        assert entry.parameters == {**PROCESSES[name].parameters, mass: 1000.0 * tev}
        assert resolve(f"{name}_{tev}tev")[1] == resolve(name, {mass: 1000 * tev})[1]


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("tbhplus", {"m_hplus": 170}, "m_hplus is 170.0 GeV, but must be above"),
        ("tbhplus", {"tan_beta": 0}, "tan_beta is 0.0"),
        ("wkk", {"m_wprime": 300}, "a W and a Z"),
        ("zprime", {"m_zprime": 100}, "at least 200 GeV"),
        ("zprime", {"coupling": 0}, "coupling is 0.0"),
        ("ssm_zprime", {"m_zprime": 100}, "at least 200 GeV"),
        ("dm_zprime", {"m_dm": 600}, "two particles of dark matter"),
        ("dm_zprime", {"g_q": 0}, "g_q is 0.0"),
        ("dm_monojet", {"g_dm": 3}, "g_dm is 3.0"),
        ("gluino", {"m_lsp": 2000}, "the neutralino and its quarks"),
        ("gluino_top", {"m_lsp": 1700}, "the neutralino and its quarks"),
        ("gluino", {"top_fraction": 1.1}, "top_fraction is 1.1"),
        ("gammajets", {"pthat_min": 0}, "at least 10 GeV"),
        ("ttbar", {"bias_power": 2}, "needs a pthat_min of at least 10 GeV"),
    ],
)
def test_parameters_out_of_range_are_refused_in_one_sentence(name, parameters, message):
    with pytest.raises(ConfigError, match=message) as refused:
        resolve(name, parameters)
    assert "\n" not in str(refused.value)


def test_branching_fractions_of_the_gluino_add_up_to_one():
    for fraction in (0.0, 0.3, 1.0):
        spectrum = resolve("gluino", {"top_fraction": fraction})[1][-1]
        decays = [line.split() for line in spectrum.split("DECAY 1000021")[1].splitlines()[1:]]
        assert sum(float(words[0]) for words in decays) == pytest.approx(1)
        assert sum(float(words[0]) for words in decays if words[3] == "6") == pytest.approx(fraction)


def test_the_centre_of_mass_energy_is_a_parameter_of_new_processes_too():
    assert "Beams:eCM = 13600" in resolve("gluino", {"ecm": 13600})[1]


# With Pythia


def made(name, n=20, resonance=0):
    """Return {code: masses} of the hard particles of all events, and by event the codes of what the resonance decays to."""
    from coffea_ad.simulation.generator import _pythia

    pythia, _ = _pythia(resolve(name)[1], 5)
    record = pythia.nextBatch(n, "skip").prt
    assert len(record) == n
    code, status = abs(record.id), abs(record.status)
    hard = (status == 22) | (status == 23)
    masses = {int(c): ak.to_numpy(ak.flatten(record.m[hard & (code == c)])) for c in {*COUNTED, resonance}}
    products = code[(code[record.mother1] == resonance) & (code != resonance)]
    return masses, [set(p) for p in ak.to_list(products)]


@pytest.mark.simulate
@pytest.mark.parametrize(
    ("name", "code", "decays"),
    [
        ("tbhplus_1tev", 37, [{TOP, 5}]),
        ("wkk_2tev", 34, [{W, Z}]),
        ("zprime_2tev", 32, [QUARKS, LEPTONS, NEUTRINOS]),
        ("ssm_zprime_1tev", 32, [QUARKS, LEPTONS, NEUTRINOS]),
        ("dm_zprime_1tev", 55, [QUARKS]),
        ("dm_monojet_2tev", 55, [{52}]),
    ],
)
def test_a_resonance_has_its_mass_and_decays_as_it_should(name, code, decays):
    masses, products = made(name, 40, code)
    wanted = next(v for k, v in resolve(name)[0].items() if k.startswith("m_"))
    assert len(masses[code]) == 40
    assert np.median(masses[code]) == pytest.approx(wanted, rel=0.02)
    for kind in decays:  # each of them somewhere, and a resonance with one of them always
        assert any(kind & p for p in products)
    if len(decays) == 1 and name != "dm_zprime_1tev":
        assert all(decays[0] & p for p in products)
    if name.startswith("wkk"):
        assert all({W, Z} <= p for p in products)
    if name.startswith("dm_zprime"):
        assert set.union(*products) <= QUARKS | {TOP}


@pytest.mark.simulate
@pytest.mark.parametrize(
    ("name", "numbers"),
    [("tbhplus_1tev", {37: 1, TOP: 2}), ("gluino_2tev", {1000021: 2, 1000022: 2, TOP: 0}), ("single_top", {TOP: 1}),
     ("gluino_top_1tev", {1000021: 2, 1000022: 2, TOP: 4}), ("gammajets", {PHOTON: 1})],
)  # fmt: skip
def test_an_event_has_the_hard_particles_of_its_process(name, numbers):
    masses, _ = made(name)
    assert {code: len(masses[code]) / 20 for code in numbers} == numbers


@pytest.mark.simulate
def test_two_bosons_are_in_every_event():
    masses, _ = made("diboson", 30)
    assert len(masses[W]) + len(masses[Z]) == 60
    assert masses[Z].min() > 49


@pytest.mark.simulate
def test_gluinos_weigh_what_was_asked_for_in_a_file_that_says_how_it_was_made(tmp_path):
    from coffea_ad.simulation import simulate

    record = simulate("gluino", 30, tmp_path / "x.root", seed=3, workers=1, parameters={"m_gluino": 1500, "m_lsp": 400})
    gen = open_events(tmp_path / "x.root").GenPart
    for code, mass in ((1000021, 1500), (1000022, 400)):
        true = ak.to_numpy(ak.flatten(gen["mass"][gen["pdgId"] == code]))
        assert len(true) >= 60
        assert np.median(true) == pytest.approx(mass, rel=0.02)
    with uproot.open(tmp_path / "x.root") as file:
        assert json.loads(str(file["simulation"]))["settings"] == record["settings"]
    assert "BLOCK MASS" in record["settings"][-1]
    assert not list(Path.cwd().glob("*.slha"))


@pytest.mark.simulate
@pytest.mark.parametrize(("name", "pthat"), [("wjets", 50.0), ("diboson", 30.0), ("gammajets", 100.0)])
def test_a_bias_towards_hard_events_leaves_the_cross_section_and_the_weighted_spectrum(name, pthat):
    from coffea_ad.simulation.generator import _pythia

    seen = {}
    for power in (0.0, 2.0):
        settings = resolve(name, {"pthat_min": pthat, "bias_power": power})[1]
        pythia, _ = _pythia([*settings, "PartonLevel:all = off"], 7)
        info = pythia.nextBatch(1500, "skip").info
        weight, pt = ak.to_numpy(info.weights[:, 0]), np.sqrt(ak.to_numpy(info.pT2Hat))
        seen[power] = (pythia.infoPython().sigmaGen(), np.average(pt, weights=weight), (pt > 2 * pthat).mean())
        if power:
            # quarks get their masses after the choice of pT-hat, by which it changes a little
            np.testing.assert_allclose(weight, (pthat / pt) ** power, rtol=2e-3)
    assert seen[2.0][0] == pytest.approx(seen[0.0][0], rel=0.1)
    assert seen[2.0][1] == pytest.approx(seen[0.0][1], rel=0.05)
    assert seen[2.0][2] > 1.5 * seen[0.0][2]
