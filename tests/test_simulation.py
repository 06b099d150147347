from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pytest
import uproot
from toys import DATA, open_events

from coffea_ad.errors import ConfigError, SimulationError, UnknownName
from coffea_ad.simulation.processes import PROCESSES, resolve
from coffea_ad.simulation.writer import truncate


def columns(path):
    with uproot.open(path) as file:
        tree = file["Events"]
        return {k: tree[k].array() for k in tree.keys()}


def test_every_process_is_one_declarative_entry():
    wanted = {
        "qcd",
        "ttbar",
        "ttbar_boosted",
        "wjets",
        "zjets",
        "svj",
        "svj_aachen",
        "svj_t",
        "lhco_qcd",
        "lhco_wprime",
        "lhco_3prong",
    }
    assert wanted <= set(PROCESSES)
    for name in PROCESSES:
        parameters, settings = resolve(name)
        assert parameters == PROCESSES[name].parameters
        assert all("=" in line or line.startswith("BLOCK") for line in settings)  # or a spectrum
    background = {
        "qcd", "ttbar", "ttbar_boosted", "wjets", "zjets", "wlnu", "zll", "gammajets", "diboson", "single_top", "lhco_qcd",
    }  # fmt: skip
    assert {n for n, p in PROCESSES.items() if not p.signal} == background


def test_unknown_processes_and_parameters_get_the_nearest_right_name():
    with pytest.raises(UnknownName, match="did you mean 'ttbar'"):
        resolve("ttba")
    with pytest.raises(ConfigError, match="did you mean 'r_inv'"):
        resolve("svj", {"r_in": 0.3})
    with pytest.raises(ConfigError, match="between 0 and 1"):
        resolve("svj", {"r_inv": 1.3})


def test_settings_that_would_mean_something_else_are_refused():
    with pytest.raises(ConfigError, match="must be able to decay"):
        resolve("svj", {"m_dark": 0.5})
    for parameters, message in (
        ({"prongs": 4}, "prongs is 4"),
        ({"prongs": 2.5}, "a whole number"),
        ({"width": 0.0}, "width is 0.0"),
        ({"width": 0.2}, "width is 0.2"),
        ({"m_y": 0.9}, "able to decay to jets"),
        ({"m_x": 1.0}, "able to decay to jets"),
        ({"m_x": 3300.0}, "above m_x [+] m_y"),
        ({"m_res": 600.0}, "above m_x [+] m_y"),
    ):
        with pytest.raises(ConfigError, match=message):
            resolve("lhco_wprime", parameters)


def test_only_processes_that_can_have_a_hard_lepton_can_be_filtered_by_it():
    for name in ("ttbar", "ttbar_boosted", "wjets", "zjets", "wlnu", "zll", "diboson", "single_top"):
        usual = resolve(name)[1]
        assert not any("LeptonFilter" in line for line in usual), name
        assert resolve(name, {"lepton_pt_min": 45})[1] == [*usual, "LeptonFilter:pTMin = 45.0"]
        with pytest.raises(ConfigError, match=f"{name}: lepton_pt_min is -1, but must not be negative"):
            resolve(name, {"lepton_pt_min": -1})
        with pytest.raises(ConfigError, match="lepton_pt_min is 'high', but must be a number"):
            resolve(name, {"lepton_pt_min": "high"})
    for name in ("qcd", "gammajets", "lhco_qcd"):
        with pytest.raises(ConfigError, match=f"{name}: unknown parameter 'lepton_pt_min'"):
            resolve(name, {"lepton_pt_min": 45})


def test_dijets_of_the_olympics_are_the_hard_part_of_all():
    parameters, settings = resolve("lhco_qcd")
    assert parameters == resolve("qcd")[0] | {"pthat_min": 900.0}
    assert settings == resolve("qcd", {"pthat_min": 900})[1]


def test_a_resonance_decays_to_the_asked_number_of_quarks():
    for process, number in (("lhco_wprime", 2), ("lhco_3prong", 3)):
        _, settings = resolve(process, {"m_x": 300.0, "m_y": 8.0, "width": 0.02})
        for code in (37, 36):
            channels = [s.split(" = ")[1].split() for s in settings if s.startswith(f"{code}:") and "Channel" in s]
            assert all(len(c) == 3 + number for c in channels)
            assert sum(float(c[1]) for c in channels) == pytest.approx(1)
            # an electric charge of +1 and of 0
            charge = sum((2 if int(q) % 2 == 0 else -1) * (1 if int(q) > 0 else -1) for q in channels[0][3:]) / 3
            assert charge == (1 if code == 37 else 0)
        assert "34:mMin = 3150.0" in settings
        assert not any(" 5 -5" in s for s in settings)  # 8 GeV are too few for two b quarks


def test_generator_particles_have_hepmc_status_and_flags():
    gen = open_events(DATA / "ttbar_v15.root").GenPart
    leptons = gen[abs(gen["pdgId"]) == 13]
    assert ak.any(ak.flatten(leptons["status"]) == 1)
    tops = gen[(abs(gen["pdgId"]) == 6) & gen.hasFlags("isLastCopy")]
    assert ak.all(ak.num(tops) == 2)
    prompt = gen[gen.hasFlags("isPrompt") & (gen["status"] == 1) & (abs(gen["pdgId"]) == 13)]
    assert ak.sum(ak.num(prompt)) < ak.sum(ak.num(leptons[leptons["status"] == 1]))


def test_samples_of_different_seeds_have_different_event_ids():
    runs = [set(ak.to_list(open_events(DATA / f"{n}_v15.root").run)) for n in ("svj", "qcd", "ttbar")]
    assert runs == [{11}, {12}, {13}]


def test_dark_branching_fractions_add_up_to_one():
    for name in ("svj", "svj_aachen", "svj_t"):
        _, settings = resolve(name)
        for meson in ("4900111", "4900211", "4900113", "4900213"):
            fractions = [float(s.split()[3]) for s in settings if s.startswith(meson) and "Channel" in s]
            assert sum(fractions) == pytest.approx(1)


def test_truncation_rounds_to_the_nearest_value_of_the_mantissa():
    rng = np.random.default_rng(1)
    x = rng.lognormal(3, 2, 10_000).astype(np.float32)
    for bits in (8, 10, 12):
        kept = truncate(x, bits)
        assert np.abs(kept / x - 1).max() <= 2.0 ** -(bits + 1)
        np.testing.assert_array_equal(truncate(kept, bits), kept)


# The committed fixtures are simulated files: what follows needs no Pythia.


def test_the_layout_is_that_of_nanoaod_v15():
    events = open_events(DATA / "svj_v15.root")
    assert {"FatJet", "SubJet", "Jet", "Electron", "Muon", "Photon", "Tau", "GenPart", "PFCand", "FatJetPFCand", "PuppiMET", "PFMET",
            "HLT", "Flag", "PV", "genWeight", "run", "luminosityBlock", "event"} <= set(events.fields)  # fmt: skip
    assert {"tau1", "tau2", "tau3", "tau4", "msoftdrop", "nConstituents", "subJetIdx1", "rawFactor"} <= set(
        events.FatJet.fields
    )
    assert "btagUParTAK4B" in events.Jet.fields
    assert "MET" not in events.fields
    pf = open_events(DATA / "svj_pfnano.root")
    assert {"PFCands", "FatJetPFCands", "MET"} <= set(pf.fields)
    assert "puppiWeight" in pf.PFCands.fields


def test_both_layouts_hold_the_same_events():
    v15, pf = (open_events(DATA / f"svj_{layout}.root") for layout in ("v15", "pfnano"))
    for collection, field in (
        ("FatJet", "pt"),
        ("Jet", "mass"),
        ("Muon", "eta"),
        ("SubJet", "phi"),
        ("PuppiMET", "pt"),
    ):
        assert ak.to_list(v15[collection][field]) == ak.to_list(pf[collection][field])
    assert ak.to_list(v15.PFCand["pt"]) == ak.to_list(pf.PFCands["pt"] * pf.PFCands["puppiWeight"])
    assert (ak.flatten(pf.PFCands["puppiWeight"]) < 1).to_numpy().any()


def test_the_file_says_how_it_was_made_and_runs_holds_the_sums():
    with uproot.open(DATA / "qcd_v15.root") as file:
        record = json.loads(str(file["simulation"]))
        runs = {k: v[0] for k, v in file["Runs"].arrays(library="np").items()}
        weight = file["Events/genWeight"].array(library="np").astype(np.float64)
    assert record["process"] == "qcd"
    assert record["parameters"]["pthat_min"] == 350.0
    assert record["seed"] == 12
    assert record["cross_section"] > 0
    assert runs["genEventSumw"] == pytest.approx(weight.sum()) == pytest.approx(record["sumw"])
    assert runs["genEventSumw2"] == pytest.approx((weight**2).sum())
    assert runs["genEventCount"] == 200
    assert len(np.unique(weight.round(9))) > 150  # flat in pT-hat, with weights that undo it


def test_subjets_sum_to_the_soft_drop_mass():
    jets = ak.flatten(open_events(DATA / "svj_v15.root").FatJet)
    mass = ak.to_numpy(ak.fill_none(jets.subjets.sum(axis=-1).mass, 0))
    stored = ak.to_numpy(jets["msoftdrop"])
    keep = stored > 5
    assert np.median(np.abs(mass[keep] / stored[keep] - 1)) < 2e-3


def test_semivisible_jets_carry_missing_momentum_and_many_particles():
    svj, qcd = (open_events(DATA / f"{n}_v15.root") for n in ("svj", "qcd"))
    assert np.median(svj.PuppiMET["pt"]) > 3 * np.median(qcd.PuppiMET["pt"])
    leading = [ak.to_numpy(ak.drop_none(ak.firsts(e.FatJet)["nConstituents"])) for e in (svj, qcd)]
    assert np.median(leading[0]) > 1.3 * np.median(leading[1])
    dark = ak.sum(abs(svj.GenPart["pdgId"]) == 4900101, axis=1)
    assert ak.mean(dark >= 2) > 0.95  # the rest: Z′ → quarks, 1.8 %


# With Pythia


@pytest.mark.simulate
def test_a_sample_depends_on_its_seed_and_not_on_the_number_of_processes(tmp_path, monkeypatch):
    from coffea_ad import simulation
    from coffea_ad.simulation import simulate

    monkeypatch.setattr(simulation, "BLOCK", 30)
    files = {}
    for name, workers, seed in (("one", 1, 5), ("two", 2, 5), ("other", 1, 6)):
        simulate("ttbar", 50, tmp_path / f"{name}.root", seed=seed, workers=workers)  # two blocks
        files[name] = columns(tmp_path / f"{name}.root")
    assert files["one"].keys() == files["two"].keys()
    for key, value in files["one"].items():
        assert ak.array_equal(value, files["two"][key]), key
    assert not ak.array_equal(files["one"]["FatJet_pt"], files["other"]["FatJet_pt"])
    assert len(files["one"]["run"]) == 50


@pytest.mark.simulate
def test_the_fixtures_are_what_the_simulation_makes(tmp_path):
    from coffea_ad.simulation import simulate

    record = simulate("ttbar", 100, tmp_path / "again.root", seed=13, parameters={"pthat_min": 250.0})
    assert record["n_events"] == 100
    old, new = columns(DATA / "ttbar_v15.root"), columns(tmp_path / "again.root")
    assert old.keys() == new.keys()
    for key in ("FatJet_pt", "PuppiMET_pt", "genWeight", "PFCand_pt"):
        np.testing.assert_allclose(
            ak.flatten(new[key], axis=None), ak.flatten(old[key], axis=None), rtol=1e-4, err_msg=key
        )


@pytest.mark.simulate
@pytest.mark.parametrize("process", ["wjets", "zjets", "svj_aachen", "svj_t"])
def test_other_processes_run(tmp_path, process):
    from coffea_ad.simulation import simulate

    record = simulate(process, 40, tmp_path / "x.root", seed=2)
    events = open_events(tmp_path / "x.root")
    assert len(events) == record["n_events"] == 40
    assert record["cross_section"] > 0
    if process == "zjets":
        assert ak.all(ak.sum(abs(events.GenPart["pdgId"]) == 23, axis=1) >= 1)


@pytest.mark.simulate
@pytest.mark.parametrize("process", ["lhco_wprime", "lhco_3prong"])
def test_a_resonance_of_three_masses_shows_all_of_them(tmp_path, process):
    """Masses at which jets of R = 0.8 hold all products: m_X = 300 GeV at a pT of 1.2 TeV."""
    import coffea_ad as ad
    from coffea_ad.simulation import simulate

    masses = {"m_res": 2600.0, "m_x": 300.0, "m_y": 120.0}
    record = simulate(process, 100, tmp_path / "x.root", seed=4, parameters=masses)
    assert record["signal"]
    events = open_events(tmp_path / "x.root")
    for code, mass in ((34, 2600), (37, 300), (36, 120)):
        true = ak.to_numpy(ak.flatten(events.GenPart["mass"][abs(events.GenPart["pdgId"]) == code]))
        assert len(true) == 100
        assert np.abs(true / mass - 1).max() < 0.051
        assert true.mean() == pytest.approx(mass, rel=0.005)
    mjj, mj1, delta = ad.features.compute("dijet", events, source="stored")[0][:, :3].T
    assert np.isfinite(mjj).mean() > 0.9
    for values, mass in ((mjj, 2600), (mj1 + delta, 300), (mj1, 120)):
        below, at, above = ((np.abs(values / (mass * f) - 1) < 0.1).mean() for f in (0.8, 1.0, 1.25))
        assert at > 0.4 > 1.5 * max(below, above), mass
    if process == "lhco_3prong":
        tau2, tau3 = (ak.to_numpy(ak.flatten(events.FatJet[f"tau{n}"][:, :2])) for n in (2, 3))
        assert np.median(tau3 / tau2) < 0.7


def hard_lepton_cross_section(path, pt_min):
    """Return the cross-section of events with an isolated lepton above pt_min, and its statistical error, pb."""
    events, record = open_events(path), json.loads(str(uproot.open(path)["simulation"]))
    leptons = [c[c["miniPFRelIso_all"] < 0.1]["pt"] for c in (events.Electron, events.Muon)]
    passes = ak.to_numpy(ak.any(ak.concatenate(leptons, axis=1) > pt_min, axis=1))
    weight = ak.to_numpy(events.genWeight).astype(np.float64) * record["cross_section"] / record["sumw"]
    # for a fixed number of events the error of what passes is that of a fraction
    part = weight[passes].sum() / weight.sum()
    return weight[passes].sum(), np.sqrt(((weight * (passes - part)) ** 2).sum())


@pytest.mark.simulate
def test_a_filtered_sample_has_the_selected_cross_section_of_all_events_in_fewer_of_them(tmp_path):
    from coffea_ad.simulation import simulate

    values, records = {}, {}
    for pt_min, n in ((0.0, 400), (40.0, 200)):
        parameters = {"pthat_min": 60.0, "bias_power": 1.0, "lepton_pt_min": pt_min}
        path = tmp_path / f"{pt_min:g}.root"
        records[pt_min] = simulate("wjets", n, path, seed=3, parameters=parameters, workers=1)
        values[pt_min] = hard_lepton_cross_section(path, 60.0)
    assert records[40.0]["parameters"]["lepton_pt_min"] == 40.0
    assert "LeptonFilter:pTMin = 40.0" in records[40.0]["settings"]
    assert records[40.0]["cross_section"] < 0.75 * records[0.0]["cross_section"]
    (usual, error), (filtered, other) = values[0.0], values[40.0]
    assert max(error / usual, other / filtered) < 0.15
    assert abs(filtered - usual) < 3 * np.hypot(error, other)


@pytest.mark.simulate
def test_the_filtered_cross_section_does_not_follow_how_often_hard_events_are_made():
    from coffea_ad.simulation.generator import _pythia, _records

    sigma, by_number = [], []
    for power in (0.0, 2.0):
        settings = resolve("wjets", {"pthat_min": 50.0, "bias_power": power, "lepton_pt_min": 60.0})[1]
        pythia, lepton_filter = _pythia([*settings, "PartonLevel:all = off"], 9)
        assert sum(len(batch) for batch in _records(pythia, lepton_filter, 6000)) == 6000
        sigma.append(lepton_filter.cross_section())
        by_number.append(pythia.infoPython().sigmaGen() * 1e9)
    assert sigma[1] == pytest.approx(sigma[0], rel=0.05)  # each has an error of 1 to 2 %
    assert by_number[1] > 1.2 * by_number[0]  # what Pythia says


@pytest.mark.simulate
def test_a_filter_that_nothing_passes_ends_in_a_sentence(monkeypatch):
    from coffea_ad.simulation import filters
    from coffea_ad.simulation.generator import _pythia, _records

    monkeypatch.setattr(filters, "_TRIES", 300)
    pythia, lepton_filter = _pythia(resolve("ttbar", {"lepton_pt_min": 6000})[1], 9)
    with pytest.raises(SimulationError, match="of 300 hard processes none has a lepton above lepton_pt_min = 6000 GeV"):
        next(_records(pythia, lepton_filter, 10))


@pytest.mark.simulate
def test_a_failed_simulation_leaves_no_file(tmp_path):
    from coffea_ad.simulation import simulate

    with pytest.raises(SimulationError, match="svj_t with m_phi=0: Pythia cannot start"):
        simulate("svj_t", 2, tmp_path / "x.root", parameters={"m_phi": 0})
    with pytest.raises(ConfigError, match="must be positive"):
        simulate("svj", 0, tmp_path / "x.root")
    assert list(tmp_path.iterdir()) == []
