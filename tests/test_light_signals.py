"""The mixture and the signals of the ADC2021 data: what Pythia makes of their settings, and events that are filtered by a lepton."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import vector

from coffea_ad.errors import ConfigError, SimulationError
from coffea_ad.simulation.processes import PROCESSES, resolve

E, MU, TAU, NU_TAU, B, C, Z, H, HPLUS, LQ = 11, 13, 15, 16, 5, 4, 23, 25, 37, 42
LIGHT = ("a_to_4l", "h0_tautau", "hplus_taunu", "leptoquark", "leptoquark_bnu")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("a_to_4l", {"m_a": 5}, "m_a is 5.0 GeV, but must lie between 10 and 160 GeV"),
        ("h0_tautau", {"m_h0": 200}, "m_h0 is 200.0 GeV"),
        ("hplus_taunu", {"m_hplus": 0}, "m_hplus is 0.0 GeV"),
        ("leptoquark", {"m_lq": 1}, "m_lq is 1.0 GeV"),
        ("leptoquark", {"lepton": 17}, "lepton is 17, but must be a PDG code: 11 an electron"),
        ("leptoquark", {"lepton": 15.5}, "a whole number"),
        ("qcd", {"heavy_quarks": 2}, "heavy_quarks is 2, but must be 0 or 1"),
        ("hplus_taunu", {"leptonic_taus": 2}, "leptonic_taus is 2, but must be 0 or 1"),
    ],
)
def test_parameters_out_of_range_are_refused_in_one_sentence(name, parameters, message):
    with pytest.raises(ConfigError, match=message) as refused:
        resolve(name, parameters)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [*LIGHT, "wlnu", "zll", "ttbar", "qcd"])
def test_whole_events_are_filtered_by_a_lepton_where_that_is_asked_for(name):
    usual = resolve(name)[1]
    assert not any("LeptonFilter" in line for line in usual)
    assert resolve(name, {"final_lepton_pt_min": 21})[1] == [*usual, "LeptonFilter:finalPTMin = 21.0"]
    assert PROCESSES[name].signal is (name in LIGHT)


# With Pythia


def records(name, n, *more, **parameters):
    """Return the event records of n events without multiparton interactions, which take most of the time."""
    from coffea_ad.simulation.generator import _pythia, _records

    pythia, lepton_filter = _pythia([*resolve(name, parameters)[1], "PartonLevel:MPI = off", *more], 5)
    batches = list(_records(pythia, lepton_filter, n))
    return ak.concatenate([b.prt for b in batches]), ak.concatenate([b.info for b in batches]), lepton_filter


def daughters(record, code):
    """Return what particles of a code decay to in the hard process, by event."""
    mother = record.mother1
    return record[(abs(record.id[mother]) == code) & (abs(record.id) != code) & (abs(record.status) == 23)]


def vectors(particles):
    return vector.zip({k: particles.p[k] for k in ("px", "py", "pz")} | {"E": particles.p["e"]})


@pytest.mark.simulate
def test_a_scalar_of_50_gev_decays_to_four_leptons_by_two_z():
    record, _, _ = records("a_to_4l", 40)
    leptons = daughters(record, Z)
    assert ak.all(ak.num(leptons) == 4)
    assert ak.all(ak.sum(np.sign(leptons.id), axis=1) == 0)
    assert set(ak.flatten(abs(leptons.id)).to_list()) == {E, MU}
    mass = ak.to_numpy(ak.sum(vectors(leptons), axis=1).mass)
    assert np.all(np.abs(mass - 50) < 1.01)
    bosons = record[(abs(record.id) == Z) & (abs(record.status) == 22)].m
    assert ak.all(ak.num(bosons) == 2)
    assert ak.min(bosons) > 1
    assert ak.all(ak.sum(bosons, axis=1) < 51)


@pytest.mark.simulate
@pytest.mark.parametrize(
    ("name", "code", "mass", "products"),
    [("h0_tautau", H, 60, {TAU}), ("hplus_taunu", HPLUS, 60, {TAU, NU_TAU}), ("leptoquark", LQ, 80, {B, TAU}),
     ("leptoquark_bnu", LQ, 80, {B, NU_TAU})],
)  # fmt: skip
def test_a_light_particle_has_its_mass_and_decays_as_it_should(name, code, mass, products):
    record, _, _ = records(name, 40, "HadronLevel:all = off")
    particles = record[(abs(record.id) == code) & (abs(record.status) == 22)]
    number = 2 if code == LQ else 1
    assert ak.all(ak.num(particles) == number)
    masses = ak.to_numpy(ak.flatten(particles.m))
    assert np.median(masses) == pytest.approx(mass, abs=0.3)
    assert np.abs(masses - mass).max() < (8 if code == LQ else 1.01)
    made_of = daughters(record, code)
    assert ak.all(ak.num(made_of) == 2 * number)
    assert all(set(event) == products for event in abs(made_of.id).to_list())
    total = ak.sum(vectors(made_of), axis=1)
    if number == 1:
        assert np.abs(ak.to_numpy(total.mass) - mass).max() < 1.01
    else:
        assert ak.all(ak.sum(particles.id, axis=1) == 0)  # one of them, and one of its antiparticle


@pytest.mark.simulate
def test_taus_of_a_charged_scalar_decay_to_leptons_if_that_is_asked_for():
    record, _, _ = records("hplus_taunu", 40, leptonic_taus=1)
    last = record[(abs(record.id) == TAU) & (record.status < 0)]
    code = abs(record.id)
    direct = (code == E) | (code == MU)
    mothers = abs(record.id[record.mother1])
    assert ak.all(ak.num(last) > 0)
    assert ak.all(ak.any(direct & (mothers == TAU), axis=1))


@pytest.mark.simulate
@pytest.mark.parametrize(("name", "code", "mass"), [("wlnu", 24, 80.4), ("zll", Z, 91.2)])
def test_single_bosons_decay_to_leptons_of_all_flavours(name, code, mass):
    record, _, _ = records(name, 60, "HadronLevel:all = off")
    masses = ak.to_numpy(ak.flatten(record[(abs(record.id) == code) & (abs(record.status) == 22)].m))
    assert len(masses) == 60
    assert np.median(masses) == pytest.approx(mass, rel=0.02)
    products = set(ak.flatten(abs(daughters(record, code).id)).to_list())
    assert products == ({E, MU, TAU, 12, 14, 16} if name == "wlnu" else {E, MU, TAU})
    if name == "zll":
        assert masses.min() > 50


def have_leptons(record, pt_min):
    """A twin of the filter: one event after the other."""
    out = []
    for event in record.to_list():
        final = [p for p in event if p["status"] > 0 and abs(p["id"]) in (E, MU)]
        pt = [np.hypot(p["p"]["px"], p["p"]["py"]) for p in final]
        eta = [np.arcsinh(p["p"]["pz"] / t) for p, t in zip(final, pt, strict=True)]
        out.append(any(t > pt_min and abs(e) < 2.8 for t, e in zip(pt, eta, strict=True)))
    return np.array(out)


@pytest.mark.simulate
def test_whole_events_without_a_lepton_are_left_out_and_the_cross_section_is_that_of_the_others():
    """Weighted events: that hard ones are made more often must not matter."""
    usual = {"pthat_min": 20.0, "bias_power": 2.0}
    record, info, everything = records("ttbar", 150, **usual)
    passes, weight = have_leptons(record, 30.0), ak.to_numpy(info.weights[:, 0])
    part = weight[passes].sum() / weight.sum()
    filtered, _, lepton_filter = records("ttbar", 60, **usual, final_lepton_pt_min=30)
    assert len(filtered) == 60
    assert have_leptons(filtered, 30.0).all()
    assert 0.2 < passes.mean() < 0.7
    ratio = lepton_filter.cross_section() / everything.cross_section()
    assert ratio == pytest.approx(part, abs=3 * np.sqrt(part * (1 - part) / 60))


@pytest.mark.simulate
def test_heavy_quarks_are_asked_of_what_comes_out_of_the_hard_process():
    only_hard = ("PartonLevel:ISR = off", "PartonLevel:FSR = off", "HadronLevel:all = off")
    usual = {"pthat_min": 35.0, "bias_power": 2.0}

    def heavy(record):
        out = abs(record.id[abs(record.status) == 23])
        return ak.to_numpy(ak.any((out == C) | (out == B), axis=1))

    record, info, everything = records("qcd", 6000, *only_hard, **usual)
    weight = ak.to_numpy(info.weights[:, 0])
    part = weight[heavy(record)].sum() / weight.sum()
    filtered, _, lepton_filter = records("qcd", 1000, *only_hard, **usual, heavy_quarks=1)
    assert heavy(filtered).all()
    assert 0.03 < part < 0.12
    assert lepton_filter.cross_section() / everything.cross_section() == pytest.approx(part, rel=0.2)


@pytest.mark.simulate
def test_a_filter_of_whole_events_that_nothing_passes_ends_in_a_sentence(monkeypatch):
    from coffea_ad.simulation import filters

    monkeypatch.setattr(filters, "_FINAL_TRIES", 300)
    with pytest.raises(SimulationError, match="of 300 events none has a lepton above final_lepton_pt_min = 6000 GeV"):
        records("wlnu", 10, "HadronLevel:all = off", final_lepton_pt_min=6000)


@pytest.mark.simulate
def test_reconstructed_leptons_weigh_as_much_as_the_scalar():
    from coffea_ad.simulation.generator import _reconstruct

    record, _, _ = records("a_to_4l", 60, final_lepton_pt_min=21)
    tables, _ = _reconstruct(record, np.random.default_rng(1))
    leptons = {
        k: np.concatenate([tables[c][k] for c in ("Electron", "Muon")]) for k in ("event", "pt", "eta", "phi", "mass")
    }
    order = np.argsort(leptons["event"], kind="stable")
    event = leptons.pop("event")[order]
    number = np.bincount(event, minlength=60)
    all_of_them = ak.unflatten(vector.zip({k: v[order] for k, v in leptons.items()}), number)
    assert (ak.to_numpy(ak.max(all_of_them.pt, axis=1, mask_identity=False)) > 18).mean() > 0.8
    four = all_of_them[number == 4]
    assert len(four) > 6
    assert np.median(ak.to_numpy(ak.sum(four, axis=1).mass)) == pytest.approx(50, abs=1)


@pytest.mark.simulate
def test_events_without_any_fat_jet_are_events_as_well():
    from coffea_ad.simulation.generator import _reconstruct

    record, _, _ = records("wlnu", 3)
    tables, columns = _reconstruct(record, np.random.default_rng(1))
    assert len(tables["FatJet"]["pt"]) == len(tables["PFCand"]["pt"]) == 0
    assert len(columns["MET_pt"]) == 3
