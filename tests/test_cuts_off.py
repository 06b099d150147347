"""Every cut of the shipped processors can be switched off with null, and then needs no branch."""

from __future__ import annotations

import numpy as np
import pytest
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.errors import MissingBranch
from coffea_ad.features.object_options import AllObjectOptions
from coffea_ad.selection import has_lepton, lepton_branches
from coffea_ad.skims.reading import load_skim

LEPTONS = ("Muon", "nMuon", "Electron", "nElectron")
CUTS = {
    "skim_jets": ("jet_pt_min", "jet_eta_max", "lepton_pt_min", "lepton_isolation_max", "met_filters", "lumi_mask", "jet_veto_map"),
    "skim_events": ("leading_lepton_pt_min", "n_jets_min", "triggers", "met_filters", "lumi_mask", "jet_veto_map"),
    "semivisible_jets": (
        "jet_pt_min", "jet_eta_max", "delta_eta_max", "rt_min", "met_min", "dphi_max", "lepton_pt_min", "lepton_isolation_max",
        "triggers", "met_filters",
    ),
    "rmm_two_body": ("leading_lepton_pt_min", "n_jets_min", "triggers", "met_filters", "training_fraction"),
    "event_anomaly": (
        "leading_lepton_pt_min", "n_jets_min", "ht_min", "met_min", "triggers", "met_filters", "training_fraction",
    ),
}  # fmt: skip


def run(path, recipe, *overrides, **kwargs):
    fileset = {"x": {"files": [str(path)], "metadata": {"is_mc": True, "xsec": 1.0}}}
    return ad.run(fileset, recipe, overrides=overrides, executor="iterative", progress=False, **kwargs).outputs["x"]


@pytest.fixture(scope="module")
def without_leptons(tmp_path_factory):
    """Simulated tt̄ without any branch of leptons or photons."""
    path = tmp_path_factory.mktemp("files") / "slim.root"
    return copy_events(DATA / "ttbar_v15.root", path, drop=(*LEPTONS, "Photon", "nPhoton"))


@pytest.mark.parametrize("recipe", CUTS)
def test_null_is_no_cut(recipe):
    module = recipes.load(recipe)
    for cut in CUTS[recipe]:
        settings = load_config(module.Config, None, [f"{cut}=null"])
        assert not getattr(settings, cut), cut
        assert module.Processor(settings, [], "nowhere").reads()


def test_without_any_cut_every_event_with_two_jets_is_taken(without_leptons):
    off = [f"{cut}=null" for cut in CUTS["semivisible_jets"]]
    out = run(without_leptons, "semivisible_jets", *off, "jet_scale=0")
    assert list(out["cutflow"]) == ["all", "filters", "trigger", "two jets"]
    two = out["cutflow"]["two jets"]["events"]
    assert 50 < two <= 100
    histogram = out["histograms"]["mjj"]
    assert histogram.values(flow=True).sum() == pytest.approx(two)  # of weight 1
    with pytest.raises(MissingBranch, match="the selection needs Electron_pt, .*Muon_miniPFRelIso_all"):
        run(without_leptons, "semivisible_jets")


def test_a_skim_without_a_lepton_veto_needs_no_lepton(without_leptons, tmp_path):
    stored = "features=[{name: jet_substructure, options: {source: stored}}]"
    out = run(without_leptons, "skim_jets", stored, "lepton_pt_min=null", output=tmp_path / "a")
    assert list(out["cutflow"]) == ["all", "filters", "two jets"]
    vetoed = run(DATA / "ttbar_v15.root", "skim_jets", stored, output=tmp_path / "b")
    assert out["cutflow"]["two jets"] == vetoed["cutflow"]["two jets"]
    assert out["rows"] > vetoed["rows"]
    loose = run(
        without_leptons,
        "skim_jets",
        stored,
        "lepton_pt_min=null",
        "jet_pt_min=null",
        "jet_eta_max=null",
        output=tmp_path / "c",
    )
    assert loose["rows"] >= out["rows"]


def test_a_veto_without_isolation_needs_no_isolation(svj):
    assert lepton_branches(10.0, None) == tuple(b for b in lepton_branches(10.0, 0.2) if "Iso" not in b)
    every, isolated = has_lepton(svj, 10.0, None), has_lepton(svj, 10.0, 0.2)
    assert every.sum() > isolated.sum()
    assert not has_lepton(svj, None, 0.2).any()


def test_a_skim_of_events_without_a_cut_on_leptons_needs_none(without_leptons, tmp_path):
    dijet = "features=[{name: dijet, options: {source: stored}}]"
    out = run(without_leptons, "skim_events", dijet, "leading_lepton_pt_min=null", "n_jets_min=null", output=tmp_path)
    assert out["cutflow"] == {k: {"events": 100, "weight": 100.0} for k in ("all", "trigger", "filters")}
    spectators = load_skim(tmp_path, "dijet", {"source": "stored"}).spectators
    assert np.isnan(spectators["n_leptons"]).all()  # not looked at, which is not 0
    with pytest.raises(MissingBranch, match="the selection needs Muon_pt"):
        run(without_leptons, "skim_events", dijet, "leading_lepton_pt_min=0", output=tmp_path / "more")


def test_a_search_without_a_cut_on_leptons_needs_none(tmp_path):
    path = copy_events(DATA / "ttbar_v15.root", tmp_path / "slim.root", drop=LEPTONS)
    out = run(path, "rmm_two_body", "leading_lepton_pt_min=null", "n_jets_min=null", "jet_scale=0")
    assert list(out["cutflow"]) == ["all", "trigger", "filters", "defined"]
    assert out["histograms"]["mjj"].values(flow=True).sum() > 50
    assert out["histograms"]["mjmu"].values(flow=True).sum() == 0


def test_objects_are_cut_on_nothing_with_null():
    off = AllObjectOptions.model_validate(
        {name: None for name in AllObjectOptions.model_fields if name not in ("met", "btag_point")}
    )
    assert (off.jet_pt_min, off.muon_eta_max, off.electron_cuts, off.cleaning, off.met_min) == (0.0, 10.0, (), 0.0, 0.0)


@pytest.mark.parametrize("branch", ["luminosityBlock", "event"])
def test_a_file_without_an_event_id_says_so(tmp_path, branch):
    path = copy_events(DATA / "svj_v15.root", tmp_path / "x.root", drop=(branch,))
    with pytest.raises(MissingBranch, match=rf"x\.root: every event needs {branch}$"):
        run(path, "semivisible_jets")
