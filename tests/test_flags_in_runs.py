"""Flags that a producer stores as numbers select the same events in a run, and filters are those that a file can have."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from test_jet_identification import written
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad
from coffea_ad.errors import MissingBranch

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]
SVJ = DATA / "svj_v15.root"
N = 60


def add_vetoed_jets(columns):
    """Put the first jet of each event into a vetoed region, and in every third event a muon of the particle flow on it."""
    jets = columns["Jet"]
    place = ak.local_index(jets["pt"])
    values = {"chEmEF": 0.1, "neEmEF": 0.1, "jetId": 6, "puId": 7}
    for field, value in values.items():
        jets = ak.with_field(jets, ak.full_like(jets["pt"], value), field)
    columns["Jet"] = ak.with_field(jets, ak.where(place == 0, 0.5, -0.5), "eta")
    first = columns["Jet"][:, :1]
    muons = {f: first[f] if f in ("eta", "phi") else ak.full_like(first["pt"], 0) for f in columns["Muon"].fields}
    muons["isPFcand"] = ak.local_index(first["pt"]) + (np.arange(len(first)) % 3 == 0)
    columns["Muon"] = ak.zip(muons)


def flags(dtype):
    def change(columns):
        columns["HLT_PFHT1050"] = (np.arange(N) % 2).astype(dtype)
        columns["Flag_goodVertices"] = (np.arange(N) % 5 > 0).astype(dtype)
        add_vetoed_jets(columns)
        muons = columns["Muon"]
        columns["Muon"] = ak.with_field(muons, ak.values_astype(muons["isPFcand"] > 0, dtype), "isPFcand")

    return change


def run(path, output, maps):
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    overrides = [*LOOSE, "triggers=[HLT_PFHT1050]", "met_filters=[Flag_goodVertices]",
                 f"corrections.jet_veto_map={{file: {maps}, name: Run2, recipe: run2}}"]  # fmt: skip
    return ad.run(fileset, "semivisible_jets", executor="iterative", progress=False, overrides=overrides, output=output)


@pytest.fixture
def maps(tmp_path):
    content = {"nodetype": "binning", "input": "eta", "edges": [-6.0, 0.0, 6.0], "content": [0.0, 1.0], "flow": "clamp"}
    return written(tmp_path / "map.json", "Run2", {"type": "string", "eta": "real", "phi": "real"}, content)


@pytest.fixture
def of_booleans(maps, tmp_path):
    report = run(copy_events(SVJ, tmp_path / "bool.root", stop=N, change=flags(bool)), tmp_path / "bool", maps)
    return report.datasets["svj"]["cutflow"], ad.load_results(tmp_path / "bool").histograms


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_flags_of_numbers_select_as_booleans_do(dtype, of_booleans, maps, tmp_path):
    cutflow, histograms = of_booleans
    path = copy_events(SVJ, tmp_path / "x.root", stop=N, change=flags(dtype))
    report = run(path, tmp_path / "out", maps)
    assert report.datasets["svj"]["cutflow"] == cutflow
    assert_identical(ad.load_results(tmp_path / "out").histograms, histograms)
    steps = [step["events"] for step in cutflow.values()]
    assert steps[0] == N
    assert cutflow["trigger"]["events"] == sum(i % 2 and i % 5 > 0 for i in range(N))
    assert 0 < cutflow["jet veto"]["events"] < cutflow["trigger"]["events"]


def without_dz(columns):
    del columns["Flag_BadPFMuonDzFilter"]


def test_a_file_from_before_ultra_legacy_is_filtered_by_what_it_has(tmp_path):
    path = copy_events(SVJ, tmp_path / "old.root", stop=N, change=without_dz, drop=("simulation",))
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    settings = {"executor": "iterative", "progress": False, "overrides": LOOSE}
    report = ad.run(fileset, "semivisible_jets", **settings)
    assert any("but for Flag_BadPFMuonDzFilter" in note for note in report.notes)
    fileset["svj"]["metadata"]["year"] = "2018"
    with pytest.raises(MissingBranch, match="MET filters are missing: .*Flag_BadPFMuonDzFilter"):
        ad.run(fileset, "semivisible_jets", **settings)
