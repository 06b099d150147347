"""Jets that training and search share, identified jets, missing momentum that follows its jets, filters by campaign."""

from __future__ import annotations

import json

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from test_corrections import correction, formula, write
from test_event_models import graph
from toys import DATA, copy_events, open_events

import coffea_ad as ad
from coffea_ad import selection as cuts
from coffea_ad.config import load_config
from coffea_ad.corrections import Corrections, Corrector, with_jets, with_shifted_jets
from coffea_ad.errors import ConfigError, MissingBranch
from coffea_ad.features.object_options import AllObjectOptions
from coffea_ad.modelfiles.attach import AttachConfig, attach
from coffea_ad.nanoaod.campaigns import CAMPAIGNS
from coffea_ad.skims.files import skim_files

LEVEL = 1.04


def enrich(columns):
    """Add what files of these tests lack: raw factors and energy fractions of jets."""
    for name in ("Jet", "FatJet"):
        jets = columns[name]
        index = ak.local_index(jets["pt"])
        for field, values in (("rawFactor", 0.0), ("chEmEF", 0.1), ("neEmEF", 0.1), ("muonSubtrFactor", 0.0)):
            jets = ak.with_field(jets, ak.values_astype(jets["pt"] * 0 + values, np.float32), field)
        # an electron in one jet of three, and a jet of a muon
        jets = ak.with_field(jets, ak.values_astype(ak.where(index % 3 == 1, 0.95, 0.1), np.float32), "chEmEF")
        columns[name] = ak.with_field(
            jets, ak.values_astype(ak.where(index % 3 == 2, 0.99, 0.0), np.float32), "muonSubtrFactor"
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    made = {n: copy_events(DATA / f"{n}.root", folder / f"{n}.root", change=enrich) for n in ("svj_v15", "ttbar_v15")}
    jerc = write(
        folder / "jerc.json.gz", correction("MC_L2", LEVEL, JetPt="real"), correction("DATA_L2", 1.01, JetPt="real")
    )
    identity = correction("Tight", formula("1.0*(x < 0.9)", "chEmEF"), eta="real", chEmEF="real")
    return {**made, "jerc": str(jerc), "id": str(write(folder / "jetid.json.gz", identity))}


def entry(path, **metadata):
    return {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0, **metadata}}


def settings(tmp_path, name, **content):
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(content))
    return path


def go(what, data, output=None, config="none", overrides=(), **kwargs):
    return ad.run(
        data,
        what,
        config=config,
        overrides=list(overrides),
        executor="iterative",
        output=output,
        progress=False,
        **kwargs,
    )


# Missing momentum


def test_electrons_photons_and_muons_among_the_jets_do_not_move_missing_momentum(files):
    events = open_events(files["ttbar_v15"], metadata={"is_mc": True})
    jets = dict(Corrector(Corrections(), "Jet", jet_scale=0.1).jets(events))["jet_scaleUp"]
    pt, phi = with_shifted_jets(events.PuppiMET, jets)
    index = ak.local_index(jets["pt"])
    rest = 1 - jets["muonSubtrFactor"]
    counted = (index % 3 != 1) & (rest * jets["pt"] > 15)
    for f in (np.cos, np.sin):
        moved = ak.sum(ak.where(counted, rest * jets["pt_shift"] * f(jets["phi"]), 0), axis=1)
        wanted = events.PuppiMET["pt"] * f(events.PuppiMET["phi"]) - moved
        np.testing.assert_allclose(pt * f(phi), ak.to_numpy(wanted), atol=1e-3)
    alone = jets[index % 3 == 1]
    np.testing.assert_array_equal(with_shifted_jets(events.PuppiMET, alone)[0], ak.to_numpy(events.PuppiMET["pt"]))


def test_both_searches_follow_their_jets_by_the_same_function(files, tmp_path):
    """By hand: of AK8 jets the two leading ones, of which only the first is neither an electron nor a muon here."""
    config = settings(
        tmp_path, "s", corrections={"jec": {"file": files["jerc"], "level": "MC_L2", "level_data": "DATA_L2"}}
    )
    loose = [
        f"{k}=null"
        for k in ("met_min", "rt_min", "dphi_max", "delta_eta_max", "lepton_pt_min", "jet_pt_min", "jet_eta_max")
    ]
    report = go("semivisible_jets", {"svj": entry(files["svj_v15"])}, config=config, overrides=loose)
    met = report.outputs["svj"]["histograms"]["met"][{"cell": "all", "variation": "nominal"}]
    events = open_events(files["svj_v15"])
    jets = events.FatJet
    first = jets[ak.num(jets) >= 2][:, 0]
    missing = events.PuppiMET[ak.num(jets) >= 2]
    x, y = (missing["pt"] * f(missing["phi"]) - (LEVEL - 1) * first["pt"] * f(first["phi"]) for f in (np.cos, np.sin))
    expected, _ = np.histogram(np.hypot(x, y), met.axes[0].edges)
    np.testing.assert_array_equal(met.values(), expected)


def test_events_that_no_jet_has_moved_stay_as_they_are_to_the_last_bit():
    met = ak.Array({"pt": np.array([12.345678], np.float32), "phi": np.array([2.1], np.float32)})
    jets = ak.Array([[{"pt": 90.0, "phi": 1.0, "pt_shift": 0.0}]])
    assert with_shifted_jets(met, jets) == (np.float64(met["pt"][0]), np.float64(met["phi"][0]))


# Identification


def test_jets_that_fail_the_identification_are_none(files, tmp_path):
    asked = {"file": files["id"], "name": "Tight"}
    events = open_events(files["ttbar_v15"], metadata={"is_mc": True})
    _, jets = next(Corrector(Corrections(jet_id=asked), "Jet").jets(events))
    passes = ak.to_list((ak.local_index(jets["pt"]) % 3 != 1) & (abs(jets["eta"]) <= 5))
    assert ak.to_list(jets["passes_id"]) == passes
    assert ak.to_list(ak.num(with_jets(events, jets, "PuppiMET").Jet)) == [sum(p) for p in passes]
    counts = {}
    for name, more in (("without", {}), ("with", {"corrections": {"jet_id": asked}})):
        report = go(
            "semivisible_jets", {"svj": entry(files["svj_v15"])}, config=settings(tmp_path, name, jet_scale=0, **more)
        )
        counts[name] = report.datasets["svj"]["cutflow"]["two jets"]["events"]
    assert counts["without"] > 0 == counts["with"]  # every second leading jet is an electron here
    for search in ("skim_jets", "skim_events"):
        config = settings(tmp_path, search, jet_id=asked)
        report = go(search, {"svj": entry(files["svj_v15"], campaign="2024")}, tmp_path / search, config=config)
        assert report.outputs["svj"]["rows"] == 0 or search == "skim_events"


def test_a_file_without_the_inputs_of_the_identification_is_named(files, tmp_path):
    config = settings(tmp_path, "s", corrections={"jet_id": {"file": files["id"], "name": "Tight"}})
    with pytest.raises(MissingBranch, match="svj_v15.root: .*FatJet_chEmEF"):
        go("semivisible_jets", {"svj": entry(DATA / "svj_v15.root")}, config=config)


# Training and search


def test_a_skim_corrects_its_jets_and_says_so_and_a_search_says_when_it_differs(files, tmp_path):
    jec = {"file": files["jerc"], "level": "MC_L2", "level_data": "DATA_L2"}
    data = {"ttbar": entry(files["ttbar_v15"], campaign="2024")}
    for name, more in (("stored", {}), ("corrected", {"jec": jec})):
        config = settings(tmp_path, name, leading_lepton_pt_min=0, n_jets_min=0, **more)
        go("skim_events", data, tmp_path / "skim" / name, config=config)
    tables = {n: pq.read_table(skim_files(tmp_path / "skim" / n)["ttbar"][0]) for n in ("stored", "corrected")}
    one, two = (t["leading_jet_pt"].to_numpy() for t in tables.values())
    both = (one > 40) & (two > 40)
    np.testing.assert_allclose(two[both], LEVEL * one[both], rtol=1e-5)
    assert not np.array_equal(*(t["met"].to_numpy() for t in tables.values()))
    plain = graph(
        {"features": [1287]}, [("ReduceSum", ("features", "axis"), "score", {"keepdims": 0})], {"axis": np.array([1])}
    )
    attached = AttachConfig(name="sum", method="sum", features=({"name": "rmm"},))
    said = {}
    for name in tables:
        (tmp_path / f"{name}.onnx").write_bytes(
            attach(plain, attached, background=tmp_path / "skim" / name, efficiencies=(0.5,))
        )
        for search, more in (("stored", {}), ("corrected", {"corrections": {"jec": jec}})):
            config = settings(tmp_path, "search", jet_scale=0, leading_lepton_pt_min=0, **more)
            report = go("rmm_two_body", data, config=config, model=tmp_path / f"{name}.onnx")
            said[name, search] = [n for n in report.notes if "trained on jets with other energies" in n]
    assert said["stored", "stored"] == said["corrected", "corrected"] == []
    assert said["stored", "corrected"] == [
        (
            "ad was trained on jets with other energies (stored energies) than those of this run (file: jerc.json.gz, level: MC_L2, "
            "level_data: DATA_L2); skim with its jec"
        )
    ]
    assert len(said["corrected", "stored"]) == 1


def test_a_jet_skim_sees_the_jets_of_the_search(files, tmp_path):
    jec = {"file": files["jerc"], "level": "MC_L2", "level_data": "stored"}
    config = settings(tmp_path, "skim_jets", jec=jec, jet_pt_min=None, jet_eta_max=None, lepton_pt_min=None)
    go("skim_jets", {"svj": entry(files["svj_v15"])}, tmp_path / "skim", config=config)
    table = pq.read_table(skim_files(tmp_path / "skim")["svj"][0])
    jets = open_events(files["svj_v15"]).FatJet
    stored = ak.to_numpy(ak.flatten(jets[ak.num(jets) >= 2][:, :2]["pt"]))
    np.testing.assert_allclose(np.sort(table["pt"].to_numpy()), np.sort(LEVEL * stored), rtol=1e-5)
    told = json.loads(table.schema.metadata[b"coffea_ad"])["selection"]
    assert told["jec"] == {"file": "jerc.json.gz", "level": "MC_L2", "level_data": "stored"}


def test_a_shift_that_nobody_measured_is_marked(files, tmp_path):
    report = go("semivisible_jets", {"svj": entry(files["svj_v15"])}, tmp_path / "r")
    assert (
        report.placeholders
        == ad.load_results(tmp_path / "r").report["placeholders"]
        == ["jet_scaleUp", "jet_scaleDown"]
    )
    assert any("are placeholders, a shift of 0.02 that nobody has measured" in n for n in report.notes)
    assert go("semivisible_jets", {"svj": entry(files["svj_v15"])}, overrides=["jet_scale=0"]).placeholders == []


# Filters and taggers


@pytest.mark.parametrize(
    ("campaign", "noise", "calib"), [("2016preVFP", True, False), ("2018", True, True), ("2022EE", False, True)]
)
def test_filters_are_those_of_the_campaign(campaign, noise, calib):
    names = CAMPAIGNS[campaign].met_filters
    assert ("Flag_HBHENoiseFilter" in names, "Flag_ecalBadCalibFilter" in names) == (noise, calib)
    assert ("Flag_hfNoisyHitsFilter" in names) == campaign.startswith("2022")
    assert {"Flag_goodVertices", "Flag_eeBadScFilter"} <= set(names)


def test_events_are_filtered_by_their_campaign(tmp_path):
    def noise(columns):
        columns["Flag_HBHENoiseFilter"] = np.arange(len(columns["event"])) % 2 == 0

    path = copy_events(DATA / "svj_v15.root", tmp_path / "x.root", change=noise)
    for metadata, n in (({"campaign": "2018"}, 75), ({}, 150)):
        assert cuts.met_filters(open_events(path, metadata=metadata), ["campaign"]).sum() == n
    with pytest.raises(MissingBranch, match="MET filters are missing: Flag_hfNoisyHitsFilter"):
        cuts.met_filters(open_events(path, metadata={"campaign": "2022"}), ["campaign"])
    report = ad.run({"svj": entry(path, campaign="2018")}, "semivisible_jets", executor="iterative", progress=False)
    assert report.config["met_filters"] == ["campaign"]
    assert "MET filters of 2018: svj" in report.notes
    assert report.datasets["svj"]["cutflow"]["filters"]["events"] == 75


def test_a_number_of_another_tagger_is_never_taken(tmp_path):
    config = settings(tmp_path, "s", objects={"btag": "btagUParTAK4B", "btag_min": 0.1272})
    module = ad.recipes.load("rmm_two_body")
    with pytest.raises(
        ConfigError, match="btag=btagPNetB: btag_min=0.1272 is that of btagUParTAK4B; give btag_min too"
    ):
        load_config(module.Config, config, ["objects.btag=btagPNetB"])
    read = load_config(module.Config, config, ["objects.btag=btagPNetB", "objects.btag_min=null"])
    assert read.objects == AllObjectOptions(btag="btagPNetB")
    assert load_config(module.Config, config, ["objects.btag=btagUParTAK4B"]).objects.btag_min == 0.1272
