"""Processors say in which branches the numbers are that cannot be used, and how many events each of them costs."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from test_undefined import OPEN, poison
from toys import DATA, copy_events, open_events

import coffea_ad as ad

QCD = DATA / "qcd_v15.root"
LEPTONS = ["leading_lepton_pt_min=0", "n_jets_min=1"]


def first_objects(columns, collection, n):
    """Places of the leading object of n events, in the flat collection."""
    counts = np.asarray([len(event) for event in columns[collection]])
    return np.r_[0, np.cumsum(counts)[:-1]][counts > 1][:n]


def run(path, recipe, output, overrides, *, mc=True, **how):
    metadata = {"is_mc": True, "xsec": 1.0} if mc else {"is_mc": False, "year": "2018"}
    fileset = {"qcd": {"files": {str(path): "Events"}, "metadata": metadata}}
    report = ad.run(fileset, recipe, overrides=overrides, config="none", executor="iterative", progress=False,
                    preflight=False, output=output, **how)  # fmt: skip
    return report.datasets["qcd"], report.notes


@pytest.mark.parametrize(("chunksize", "value"), [(40, np.nan), (100_000, np.inf)])
def test_a_search_for_jets_names_the_branch_of_jets_and_of_missing_momentum(chunksize, value, tmp_path):
    def poisoned(columns):
        places = first_objects(columns, "FatJet", 7)
        poison(columns, "FatJet_pt", places[:3], np.nan)
        poison(columns, "FatJet_eta", places[3:4], value)
        poison(columns, "FatJet_mass", places[4:6], value)
        columns["PuppiMET_phi"][-3:] = value

    copy_events(QCD, tmp_path / "x.root", change=poisoned)
    open_cuts = [*OPEN, "jet_pt_min=0", "jet_eta_max=20"]
    entry, notes = run(tmp_path / "x.root", "semivisible_jets", tmp_path / "r", open_cuts, chunksize=chunksize)
    expected = {"FatJet_pt": 3, "FatJet_eta": 1, "FatJet_mass": 2, "PuppiMET_phi": 3}
    assert entry["undefined_in"] == expected
    assert entry["undefined"] == sum(expected.values())
    assert any("(FatJet_eta 1, FatJet_mass 2, FatJet_pt 3, PuppiMET_phi 3)" in note for note in notes), notes


def test_a_value_that_is_in_no_histogram_is_named_by_its_branch(tmp_path):
    copy_events(
        QCD,
        tmp_path / "x.root",
        change=lambda columns: poison(columns, "FatJet_msoftdrop", first_objects(columns, "FatJet", 4), np.nan),
    )
    open_cuts = [*OPEN, "jet_pt_min=0", "jet_eta_max=20"]
    entry, _ = run(tmp_path / "x.root", "semivisible_jets", tmp_path / "r", open_cuts)
    assert entry["undefined_in"] == {"FatJet_msoftdrop": 4}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("recipe", ["rmm_two_body", "skim_events", "event_anomaly"])
def test_searches_for_events_name_the_branch_of_objects_that_are_none(recipe, value, tmp_path):
    def poisoned(columns):
        poison(columns, "Jet_phi", first_objects(columns, "Jet", 5), value)
        columns["PuppiMET_phi"][-2:] = value

    copy_events(QCD, tmp_path / "x.root", change=poisoned)
    entry, notes = run(tmp_path / "x.root", recipe, tmp_path / "r", LEPTONS, chunksize=50)
    assert entry["undefined_in"] == {"Jet_phi": 5, "PuppiMET_phi": 2}
    assert entry["undefined"] == 7
    assert any("(Jet_phi 5, PuppiMET_phi 2)" in note for note in notes), notes


@pytest.mark.parametrize("unblind", [False, True])
def test_numbers_of_hidden_events_are_in_no_count_of_branches(unblind, tmp_path):
    """Every jet of the tightest region has no soft-drop mass, all others have one; the model does not read it."""
    model = DATA / "wnae.onnx"
    tagger = ad.Tagger(model)
    grade = ak.flatten(tagger(open_events(DATA / "svj_v15.root"))["ad_region"])
    tightest = np.flatnonzero(ak.to_numpy(grade) >= len(tagger.card.regions))
    copy_events(
        DATA / "svj_v15.root",
        tmp_path / "x.root",
        change=lambda columns: poison(columns, "FatJet_msoftdrop", tightest, np.nan),
    )
    entry, _ = run(tmp_path / "x.root", "semivisible_jets", tmp_path / "r", [*OPEN, f"unblind={unblind}"], mc=False,
                   model=model, lumi=1.0)  # fmt: skip
    assert ("FatJet_msoftdrop" in entry["undefined_in"]) is unblind
