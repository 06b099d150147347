"""Which b tagger, working point and centre-of-mass energy events get: those of their campaign, never of another."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pytest
import uproot
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad.errors import BadFile, ConfigError, MissingBranch
from coffea_ad.features.object_options import AllObjectOptions
from coffea_ad.features.objects import select_objects
from coffea_ad.features.rmm import RMMOptions, cell_names
from coffea_ad.features.spec import feature_spec
from coffea_ad.nanoaod.campaigns import CAMPAIGNS, SIMULATION, campaign_of, energy_in
from coffea_ad.nanoaod.conventions import told_by
from coffea_ad.nanoaod.objects import Objects
from coffea_ad.scoring.card import parse_card, read_card
from coffea_ad.simulation.objects import b_tag_score
from coffea_ad.simulation.processes import resolve

SLOTS = (50, 50, 0, 0, 0)
OURS = "simulation_sqrt_s"


def b_jets(events, **options):
    """Number of b jets among jets of 30 GeV, nothing cleaned."""
    objects = select_objects(Objects.events(events), AllObjectOptions(cleaning=0.0, **options), SLOTS)
    return int((objects.kind == 1).sum())


def above(events, branch, threshold):
    jets = events.Jet[(events.Jet["pt"] > 30) & (abs(events.Jet["eta"]) < 2.4)]
    return int(ak.sum(jets[branch] > np.float32(threshold)))


def foreign(tmp_path, name="foreign.root", rename=None):
    """Our simulated tt̄ as if it were somebody else's, with another tagger's name."""

    def change(columns):
        columns.pop(OURS)
        jets = columns["Jet"]
        for branch in rename or ():
            jets = ak.with_field(jets, jets["btagUParTAK4B"], branch)
        columns["Jet"] = ak.without_field(jets, "btagUParTAK4B") if rename else jets

    return copy_events(DATA / "ttbar_v15.root", tmp_path / name, change=change)


@pytest.mark.parametrize(
    ("metadata", "campaign", "energy"),
    [
        ({"campaign": "2022EE"}, "2022EE", 13600.0),
        ({"campaign": "Run3Summer23BPixNanoAODv12"}, "2023BPix", 13600.0),
        ({"year": 2018}, "2018", 13000.0),
        ({"year": "2018", "era": "Run2018A"}, "2018", 13000.0),
        ({"year": 2016}, None, 13000.0),
        ({"year": 2016, "era": "B"}, "2016preVFP", 13000.0),
        ({"year": "2016_PostVFP"}, "2016postVFP", 13000.0),
        ({"year": "2016APV"}, "2016preVFP", 13000.0),
        ({"year": 2022}, None, 13600.0),
        ({"year": 2022, "era": "D"}, "2022", 13600.0),
        ({"year": "2022_postEE"}, "2022EE", 13600.0),
        ({"year": 2023, "era": "D"}, "2023BPix", 13600.0),
        ({"year": "2023_preBPix"}, "2023", 13600.0),
        ({"year": 2012}, None, 8000.0),
        ({"year": 2011}, None, 7000.0),
        ({}, None, None),
        ({"das_name": "/TTTo4Q/RunIISummer20UL16NanoAODAPVv9-106X_mcRun2_asymptotic_preVFP_v11-v1/NANOAODSIM"}, "2016preVFP", 13000.0),
        ({"das_name": "/TTTo4Q/RunIISummer20UL16NanoAODv9-106X_mcRun2_asymptotic_v17-v1/NANOAODSIM"}, "2016postVFP", 13000.0),
        ({"das_name": "/TTTo4Q/RunIISummer20UL18NanoAODv9-106X_upgrade2018_realistic_v16_L1v1-v1/NANOAODSIM"}, "2018", 13000.0),
        ({"das_name": "/TTTo4Q/RunIIAutumn18NanoAODv7-Nano02Apr2020_102X_upgrade2018-v1/NANOAODSIM", "year": 2018}, None, 13000.0),
        ({"das_name": "/TTto4Q/Run3Summer22EENanoAODv12-130X_mcRun3_2022_realistic_postEE_v6-v2/NANOAODSIM"}, "2022EE", 13600.0),
        ({"das_name": "/TTto4Q/Run3Summer22NanoAODv12-130X_mcRun3_2022_realistic_v5-v2/NANOAODSIM"}, "2022", 13600.0),
        ({"das_name": "/TTto4Q/RunIII2024Summer24NanoAODv15-150X_mcRun3_2024_realistic_v2-v2/NANOAODSIM"}, "2024", 13600.0),
        ({"das_name": "/JetMET/Run2022E-22Sep2023-v1/NANOAOD"}, "2022EE", 13600.0),
        ({"das_name": "/JetHT/Run2016F-HIPM_UL2016_MiniAODv2_NanoAODv9-v2/NANOAOD"}, "2016preVFP", 13000.0),
        ({"das_name": "/JetHT/Run2016F-UL2016_MiniAODv2_NanoAODv9-v1/NANOAOD"}, "2016postVFP", 13000.0),
        ({"das_name": "/JetHT/Run2018A-02Apr2020-v1/NANOAOD"}, None, None),
        ({"year": 2018, "sqrt_s": 13600}, "2018", 13600.0),
    ],
    ids=str,
)  # fmt: skip
def test_metadata_tell_campaign_and_energy_or_nothing_is_guessed(metadata, campaign, energy):
    assert campaign_of(metadata) == campaign
    assert energy_in(metadata) == energy


@pytest.mark.parametrize("value", [13.6, "13600", True, -13000.0, None])
def test_an_energy_that_cannot_be_gev_is_refused(value):
    with pytest.raises(ConfigError, match=r"dataset tt: ecm is .*, but must be a number of GeV such as 13600"):
        energy_in({"ecm": value}, "tt")


def test_working_points_rise_from_loose_to_tight():
    for campaign in CAMPAIGNS.values():
        for points in campaign.taggers.values():
            assert 0 < points[0] < points[1] < points[2] < 1


def test_working_points_of_our_simulation_keep_a_tenth_a_hundredth_and_a_thousandth_of_light_jets():
    rng = np.random.default_rng(1)
    n = 2_000_000
    light, b = b_tag_score(np.zeros(n, np.int64), rng), b_tag_score(np.full(n, 5), rng)
    for points in CAMPAIGNS[SIMULATION].taggers.values():
        for threshold, mistag, efficiency in zip(points, (0.1, 0.01, 0.001), (0.912, 0.767, 0.607), strict=True):
            assert (light > threshold).mean() == pytest.approx(mistag, abs=4 * np.sqrt(mistag / n) + 5e-4 * mistag)
            assert (b > threshold).mean() == pytest.approx(efficiency, abs=0.002)


def test_in_simulated_files_the_default_keeps_one_light_jet_in_a_hundred():
    """Before, the number of another tagger kept one in twenty."""
    light, b, all_light, all_b = 0, 0, 0, 0
    for name in ("qcd_v15", "ttbar_v15", "svj_v15"):
        jets = ak.flatten(open_events(DATA / f"{name}.root").Jet)
        tagged = ak.to_numpy(jets["btagUParTAK4B"]) > CAMPAIGNS[SIMULATION].taggers["btagUParTAK4B"][1]
        flavour = ak.to_numpy(jets["hadronFlavour"])
        light, all_light = light + (tagged & (flavour == 0)).sum(), all_light + (flavour == 0).sum()
        b, all_b = b + (tagged & (flavour == 5)).sum(), all_b + (flavour == 5).sum()
    assert all_light > 1500
    assert light / all_light == pytest.approx(0.01, abs=3 * np.sqrt(0.01 / all_light))
    assert b / all_b == pytest.approx(0.767, abs=3 * np.sqrt(0.767 * 0.233 / all_b))


def test_a_file_of_our_simulation_tells_itself_what_it_is():
    for name, branch in (("ttbar_v15", "btagUParTAK4B"), ("svj_pfnano", "btagDeepFlavB")):
        events = open_events(DATA / f"{name}.root", metadata={"year": 2024})
        assert b_jets(events) == above(events, branch, 0.2789)
        assert b_jets(events, btag_point="loose") == above(events, branch, 0.0791)


@pytest.mark.parametrize(
    ("metadata", "branches", "used", "threshold"),
    [
        ({"campaign": "2024"}, ["btagUParTAK4B"], "btagUParTAK4B", 0.1272),
        ({"year": 2018}, ["btagDeepFlavB", "btagUParTAK4B"], "btagDeepFlavB", 0.2783),
        ({"year": 2022, "era": "C"}, ["btagDeepFlavB", "btagPNetB"], "btagPNetB", 0.2450),
        ({"year": 2022, "era": "C"}, ["btagDeepFlavB"], "btagDeepFlavB", 0.3086),
    ],
    ids=str,
)
def test_the_campaign_decides_on_tagger_and_working_point(tmp_path, metadata, branches, used, threshold):
    path = foreign(tmp_path, rename=[b for b in branches if b != "btagUParTAK4B"]) if branches != ["btagUParTAK4B"] else foreign(tmp_path)  # fmt: skip
    events = open_events(path, metadata=metadata)
    assert b_jets(events) == above(events, used, threshold) > 0


def test_numbers_that_are_asked_for_win(tmp_path):
    events = open_events(foreign(tmp_path), metadata={"year": 2018})
    asked = {"btag": "btagUParTAK4B", "btag_min": 0.5}
    assert b_jets(events, **asked) == above(events, "btagUParTAK4B", 0.5)
    with pytest.raises(
        ConfigError, match="rmm: option set is .*btag_min belongs to one tagger: name its branch with btag"
    ):
        ad.features.get("rmm").resolve({"btag_min": 0.5})


def test_where_the_campaign_is_not_known_one_sentence_asks_for_it(tmp_path):
    path = foreign(tmp_path)
    for metadata in ({}, {"year": 2022}, {"campaign": "mine"}):
        events = open_events(path, metadata={"filename": str(path), **metadata})
        with pytest.raises(
            ConfigError, match=r"foreign.root: the campaign, .* is not known: give campaign, or year and era"
        ):
            b_jets(events)
        assert b_jets(events, btag="btagUParTAK4B", btag_min=0.3) > 0
    with pytest.raises(
        ConfigError, match="no working points of btagUParTAK4B are known for 2018, only of btagDeepFlavB"
    ):
        b_jets(open_events(path, metadata={"year": 2018}), btag="btagUParTAK4B")
    with pytest.raises(MissingBranch, match="branches are missing: Jet_btagDeepFlavB, the b taggers of 2018"):
        b_jets(open_events(path, metadata={"year": 2018}))


def met_cell(events, **options):
    names = cell_names(RMMOptions())
    values, _ = ad.features.compute("rmm", events, btag="btagUParTAK4B", btag_min=0.3, met_min=0.0, **options)
    return values[:, names.index("met")] * 1000 / ak.to_numpy(events.PuppiMET["pt"])


def test_the_energy_is_that_of_the_dataset_unless_the_card_has_a_number(tmp_path):
    path = foreign(tmp_path)
    for metadata, energy in (({"year": 2018}, 13.0), ({"year": "2024"}, 13.6), ({"ecm": 8000.0, "year": 2018}, 8.0)):
        np.testing.assert_allclose(met_cell(open_events(path, metadata=metadata)), 1 / energy, rtol=1e-5)
        np.testing.assert_allclose(met_cell(open_events(path, metadata=metadata), sqrt_s=7000.0), 1 / 7, rtol=1e-5)
    with pytest.raises(ConfigError, match="the centre-of-mass energy is not known: give sqrt_s"):
        met_cell(open_events(path))
    ours = DATA / "ttbar_v15.root"
    np.testing.assert_allclose(met_cell(open_events(ours)), 1 / 13, rtol=1e-5)
    np.testing.assert_allclose(met_cell(open_events(ours, metadata={"year": 2024})), 1 / 13, rtol=1e-5)
    zones, _ = ad.features.compute("rmm_zones", open_events(ours), met_min=0.0)
    np.testing.assert_allclose(zones[:, 0], ak.to_numpy(open_events(ours).PuppiMET["pt"]) / 13000, rtol=1e-5)


def test_files_of_two_energies_in_one_are_refused(tmp_path):
    def change(columns):
        columns[OURS][3:] = 13600.0

    events = open_events(copy_events(DATA / "ttbar_v15.root", tmp_path / "both.root", change=change))
    with pytest.raises(BadFile, match="several centre-of-mass energies"):
        met_cell(events)


def test_a_card_from_before_keeps_its_numbers():
    """Its options are complete: what the model was trained with decides."""
    before = {"btag": "btagUParTAK4B", "btag_min": 0.1272, "sqrt_s": 13600.0}
    spec = feature_spec("rmm", before)
    assert {k: spec.options[k] for k in before} == before
    options = {k: v for k, v in spec.options.items() if k != "btag_point"}  # an option that came later
    data = (DATA / "wnae.onnx").read_bytes()
    card = json.loads(read_card(data).model_dump_json())
    card |= {"level": "event", "quantiles": None, "golden": None, "calibrations": [], "regions": []}
    card["inputs"][0]["features"] = [{**json.loads(spec.model_dump_json()), "options": options}]
    parse_card(json.dumps(card)).check()
    events = open_events(DATA / "ttbar_v15.root")
    assert b_jets(events, btag="btagUParTAK4B", btag_min=0.1272) == above(events, "btagUParTAK4B", 0.1272)


def test_what_a_file_of_our_simulation_tells():
    assert told_by({}) == {}
    now = {"process": "qcd", "signal": False, "sqrt_s": 13600.0, "cross_section": 5.0}
    assert told_by(now) == {"campaign": "simulation", "sqrt_s": 13600.0, "xsec": 5.0}
    before = {"process": "svj", "settings": ["Beams:idA = 2212", "Beams:eCM = 13000."], "cross_section": 5.0}
    assert told_by(before) == {"campaign": "simulation", "sqrt_s": 13000.0, "signal": True}


def test_the_generator_gets_the_energy():
    assert "Beams:eCM = 13000" in resolve("qcd")[1]
    parameters, settings = resolve("svj", {"ecm": 13600, "m_zprime": 1500})
    assert parameters["ecm"] == 13600.0
    assert [s for s in settings if "eCM" in s] == ["Beams:eCM = 13600"]
    for wrong, match in (
        ({"ecm": 13.6}, "svj: ecm is 13.6, but must be the centre-of-mass energy in GeV"),
        ({"m_zprime": "abc"}, "svj: m_zprime is 'abc', but must be a number"),
        ({"n_colour": 2.5}, "svj: n_colour is 2.5, but must be a whole number"),
        ({"r_inv": float("nan")}, "svj: r_inv is nan, but must be a number"),
    ):
        with pytest.raises(ConfigError, match=match):
            resolve("svj", wrong)


def run(fileset, **kwargs):
    return ad.run(
        fileset, "rmm_two_body", overrides=["leading_lepton_pt_min=0"], executor="iterative", progress=False, **kwargs
    )


def test_the_run_says_for_each_dataset_what_was_used(tmp_path):
    foreign_path = foreign(tmp_path)
    ours = tmp_path / "ours.root"
    with uproot.open(DATA / "ttbar_v15.root") as old:  # as files were before they told it with every event
        record = {k: v for k, v in json.loads(str(old["simulation"])).items() if k not in ("sqrt_s", "signal")}
    copy_events(DATA / "ttbar_v15.root", ours, drop=(OURS,))
    with uproot.update(ours) as file:
        file["simulation"] = json.dumps(record)
    report = run({
        "ours": {"files": [str(ours)], "metadata": {"is_mc": True}},
        "run3": {"files": [str(foreign_path)], "metadata": {"is_mc": True, "year": 2024}},
    })  # fmt: skip
    assert "b jets by btagUParTAK4B > 0.2789 (medium of simulation): ours" in report.notes
    assert "b jets by btagUParTAK4B > 0.1272 (medium of 2024): run3" in report.notes
    assert report.datasets["ours"]["metadata"]["sqrt_s"] == 13000.0
    with pytest.raises(
        ConfigError, match="the campaign, which decides on the working point of b tagging, is not known"
    ):
        run({"x": {"files": [str(foreign_path)], "metadata": {"is_mc": True}}})


def test_run_2_and_run_3_go_into_one_skim_with_their_own_energies(tmp_path):
    paths = [foreign(tmp_path, f"{n}.root", rename=["btagDeepFlavB"]) for n in ("a", "b")]
    fileset = {
        "run2": {"files": [str(paths[0])], "metadata": {"is_mc": True, "xsec": 1.0, "year": 2018}},
        "run3": {"files": [str(paths[1])], "metadata": {"is_mc": True, "xsec": 1.0, "campaign": "2022"}},
    }
    overrides = ["leading_lepton_pt_min=0", "n_jets_min=0", "features=[{name: rmm, options: {met_min: 0.0}}]"]
    report = ad.run(
        fileset, "skim_events", overrides=overrides, executor="iterative", output=tmp_path / "s", progress=False
    )
    assert {"√s = 13000 GeV: run2", "√s = 13600 GeV: run3"} <= set(report.notes)
    from coffea_ad.skims.reading import load_skim

    skim = load_skim(tmp_path / "s", "rmm", {"met_min": 0.0})
    for name, energy in (("run2", 13000.0), ("run3", 13600.0)):
        rows = skim.dataset == name
        met = ak.to_numpy(open_events(paths[0]).PuppiMET["pt"])
        np.testing.assert_allclose(np.sort(skim.x[rows, 0]), np.sort(met / energy), rtol=1e-5)
