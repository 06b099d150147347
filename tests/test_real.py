"""The unchanged processor over real CMS files, which are not part of the repository."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from toys import open_events

import coffea_ad as ad
from coffea_ad.errors import MissingBranch
from coffea_ad.nanoaod.constituents import CONSTITUENT_TABLES

pytestmark = pytest.mark.real


def entry(real, name, mc=True):
    metadata = {"is_mc": True, "xsec": 1.0} if mc else {"is_mc": False}
    return {"files": {str(real / f"{name}.root"): "Events"}, "metadata": metadata}


def go(fileset, model, tmp_path, **kwargs):
    kwargs = {"executor": "iterative", "lumi": 1.0, **kwargs}
    return ad.run(fileset, "semivisible_jets", model=model, output=tmp_path / "results", **kwargs)


@pytest.mark.parametrize(("name", "events"), [("nano_tt_v15", 200), ("pfnano", 10)])
def test_constituent_models_run_over_v15_and_pfnano(real, model_file, tmp_path, name, events):
    report = go({"mc": entry(real, name)}, model_file, tmp_path)
    assert report.complete
    assert report.datasets["mc"]["events"] == events


@pytest.mark.parametrize("name", ["nano_tt_v12", "nano_dimuon"])
def test_constituent_models_end_in_missing_branch_where_there_are_none(real, model_file, tmp_path, name):
    with pytest.raises(
        MissingBranch,
        match=rf"{name}.root: feature jet_substructure needs FatJetPFCand_jetIdx.* or FatJetPFCands_jetIdx",
    ):
        go({"x": entry(real, name)}, model_file, tmp_path)


def test_stored_branch_models_run_over_all_of_them_in_one_fileset(real, stored_model, tmp_path):
    fileset = {n: entry(real, n) for n in ("nano_tt_v15", "pfnano", "nano_tt_v12", "nano_dy_empty")}
    fileset["data"] = entry(real, "nano_dimuon", mc=False)
    report = go(fileset, stored_model, tmp_path, executor="futures")
    assert report.complete
    events = {d: e["events"] for d, e in report.datasets.items()}
    assert events == {"nano_tt_v15": 200, "pfnano": 10, "nano_tt_v12": 200, "nano_dy_empty": 0, "data": 40}
    results = ad.load_results(tmp_path / "results")
    assert list(results.histograms["data"]["mt"].axes["variation"]) == ["nominal"]
    assert results.norm("data") == 1.0


def test_two_flavours_in_one_dataset_run(real, model_file, tmp_path):
    both = entry(real, "nano_tt_v15")
    both["files"][str(real / "pfnano.root")] = "Events"
    assert go({"mixed": both}, model_file, tmp_path).datasets["mixed"]["events"] == 210


@pytest.mark.parametrize("which", ["model_file", "stored_model"])
def test_a_file_without_events_runs_with_any_model(real, which, tmp_path, request):
    report = go({"empty": entry(real, "nano_dy_empty")}, request.getfixturevalue(which), tmp_path)
    assert report.complete
    assert report.datasets["empty"]["events"] == 0
    empty = open_events(real / "nano_dy_empty.root")
    assert len(ad.Tagger(request.getfixturevalue(which))(empty)) == 0


def test_all_selected_jets_of_real_events_get_scores(real, model_file, tmp_path):
    """Loose cuts, so that the real files fill histograms."""
    loose = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "jet_pt_min=170", "triggers=[]"]
    report = go({"mc": entry(real, "pfnano")}, model_file, tmp_path, overrides=loose)
    cutflow = report.datasets["mc"]["cutflow"]
    assert cutflow["dphi"]["events"] > 0
    assert report.datasets["mc"]["unscored"] == 0
    mt = ad.load_results(tmp_path / "results").in_regions["mc"]["mt"]
    assert mt[{"region": "inclusive", "variation": "nominal"}].sum(flow=True).value == pytest.approx(
        cutflow["dphi"]["weight"]
    )


def quantiles(got, want):
    ratio = np.abs(got / want - 1)
    return ratio, np.median(ratio), np.quantile(ratio, 0.9)


def test_recomputed_tau_agrees_with_stored_tau(real):
    from coffea_ad.features.substructure import substructure
    from coffea_ad.nanoaod.objects import Objects

    events = open_events(real / "nano_tt_v15.root")
    objects = Objects.of(events)
    c = objects.constituents
    names = ("tau1", "tau2", "tau3", "tau4")
    values = substructure(names, c.offsets, c.pt, c.eta, c.phi, c.mass)
    stored = np.diff(c.offsets) > 0
    assert stored.sum() == 62
    for column, name in enumerate(names):
        want = objects.field(name)[stored]
        ratio, median, ninety = quantiles(values[stored, column], want)
        print(name, "median", median, "90 %", ninety, "outliers above 1 %:", np.round(ratio[ratio > 0.01], 4))
        assert median < 1e-3
        assert ninety < 3e-3


def test_recomputed_soft_drop_mass_agrees_with_the_sum_of_the_raw_subjets(real):
    """Stored msoftdrop is corrected for jet energies, and differs by about 10 %."""
    events = open_events(real / "nano_tt_v15.root")
    values, _ = ad.features.compute("jet_substructure", events)
    subjets = events.FatJet.subjets
    raw = ak.with_field(subjets, subjets["pt"] * (1 - subjets["rawFactor"]), "pt")
    raw = ak.with_field(raw, subjets["mass"] * (1 - subjets["rawFactor"]), "mass")
    want = ak.to_numpy(ak.fill_none(ak.flatten(raw.sum(axis=-1).mass), 0.0))
    two = ak.to_numpy(ak.flatten(ak.num(ak.drop_none(subjets, axis=2), axis=2))) == 2
    keep = np.isfinite(values[:, 5]) & two
    assert keep.sum() > 50
    ratio, median, ninety = quantiles(values[keep, 5], want[keep])
    print("msoftdrop median", median, "90 %", ninety, "outliers above 1 %:", np.round(ratio[ratio > 0.01], 4))
    assert median < 3e-3
    assert ninety < 6e-3


@pytest.mark.parametrize("name", ["nano_tt_v15", "pfnano"])
def test_only_declared_branches_of_real_files_are_read(real, name):
    log = []
    ad.features.compute("jet_substructure", open_events(real / f"{name}.root", access_log=log))
    read = {e.branch for e in log if not e.branch.startswith("n")}
    telling = {"FatJet_pt", "FatJet_eta", "FatJet_rawFactor"} if name == "pfnano" else set()  # whether pT is weighted
    assert any(read - telling == set(t.branches("FatJet")) for t in CONSTITUENT_TABLES)
