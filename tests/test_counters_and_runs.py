"""Counters that do not fit their lists, and Runs that do not fit their events, are noticed and never taken silently."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import uproot
from toys import DATA

import coffea_ad as ad
from coffea_ad.errors import BadFile, MissingBranch

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]


@pytest.fixture(scope="module")
def columns():
    with uproot.open(DATA / "svj_v15.root") as old:
        return {k: old["Events"][k].array()[:40] for k in old["Events"].keys()}


def write(path, columns, *, rntuple=True, tree="Events", runs=None, place="Runs"):
    with uproot.recreate(path) as new:
        make = new.mkrntuple if rntuple else new.mktree
        make(tree, {k: ak.type(v).content for k, v in columns.items()}).extend(columns)
        if runs is not None:
            new.mktree(place, {k: v.dtype for k, v in runs.items()}).extend(runs)
    return path


def run(path, tree="Events", **kwargs):
    fileset = {"svj": {"files": {str(path): tree}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    return ad.run(fileset, "semivisible_jets", overrides=LOOSE, executor="iterative", progress=False, **kwargs)


@pytest.mark.parametrize("rntuple", [True, False], ids=["rntuple", "ttree"])
@pytest.mark.parametrize(
    ("counter", "make"),
    [
        ("nFatJet", lambda c: ak.sum(c["FatJet_pt"] > 300, axis=1)),
        ("nFatJet", lambda c: c["nFatJet"] + 1),
        ("nFatJet", lambda c: ak.values_astype(c["nFatJet"] + 256 * (c["nFatJet"] > 2), np.int32)),
        ("nElectron", lambda c: c["nElectron"] + 1),
        ("nMuon", lambda c: c["nMuon"] + (np.arange(40) == 7)),
    ],
    ids=["fewer", "more", "many more", "electrons", "one event"],
)
def test_a_counter_that_does_not_fit_is_one_sentence(columns, counter, make, rntuple, tmp_path):
    path = write(tmp_path / "x.root", {**columns, counter: make(columns)}, rntuple=rntuple)
    with pytest.raises(
        BadFile, match=rf"x.root: {counter} is \d+ in event \d+ .*, but {counter[1:]}_\w+ holds \d+ numbers"
    ):
        run(path)


def test_a_negative_counter_is_one_sentence(columns, tmp_path):
    wrong = ak.values_astype(-1 - columns["nFatJet"], np.int32)
    with pytest.raises(BadFile, match=r"nFatJet is -\d+ in event 0"):
        run(write(tmp_path / "x.root", {**columns, "nFatJet": wrong}))


def test_one_branch_of_other_lengths_is_named(columns, tmp_path, model_file):
    path = write(tmp_path / "x.root", {**columns, "FatJet_msoftdrop": columns["FatJet_msoftdrop"][:, :1]})
    with pytest.raises(BadFile, match=r"nFatJet is 4 in event 0 .* FatJet_msoftdrop holds 1 numbers"):
        run(path, model=model_file)
    links = columns["FatJetPFCand_jetIdx"][:, ::-1][:, 1:]
    path = write(tmp_path / "y.root", {**columns, "FatJetPFCand_jetIdx": links})
    with pytest.raises(BadFile, match=r"nFatJetPFCand is \d+ in event 0 .* FatJetPFCand_jetIdx holds"):
        run(path, model=model_file)


@pytest.mark.parametrize("counter", ["nFatJet", "nElectron", "nMuon"])
def test_a_missing_counter_is_named(columns, counter, tmp_path):
    path = write(tmp_path / "x.root", {k: v for k, v in columns.items() if k != counter})
    with pytest.raises(MissingBranch, match=f"there is no branch {counter}, which counts what {counter[1:]}_"):
        run(path)


def test_a_file_that_fits_gives_the_same_in_both_formats(columns, tmp_path):
    reports = [run(write(tmp_path / f"{r}.root", columns, rntuple=r)) for r in (True, False)]
    steps = [r.datasets["svj"]["cutflow"]["two jets"]["events"] for r in reports]
    assert steps == [26, 26]


def test_the_rest_of_a_run_is_done_if_one_file_does_not_fit(columns, tmp_path):
    good = write(tmp_path / "good.root", columns)
    late = np.asarray(columns["nFatJet"]) + (np.arange(40) == 39)
    bad = write(tmp_path / "bad.root", {**columns, "nFatJet": late})
    fileset = {"svj": {"files": {str(p): "Events" for p in (good, bad)}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    settings = {"overrides": LOOSE, "executor": "iterative", "progress": False, "allow_missing": True, "chunksize": 20}
    report = ad.run(fileset, "semivisible_jets", **settings)
    assert report.datasets["svj"]["sumw"] == 60
    (failed,) = report.datasets["svj"]["failed"]
    assert failed["cause"].startswith(f"{bad}: nFatJet is ")
    assert "in event 39" in failed["cause"]


def runs(count=None, sumw=None):
    out = {} if count is None else {"genEventCount": np.array([count], np.int64)}
    return out | ({} if sumw is None else {"genEventSumw": np.array([sumw], np.float64)}) | {"run": np.array([1])}


@pytest.mark.parametrize(
    ("stored", "sumw", "note"),
    [
        (runs(40, 40.0), 40, ""),
        (runs(80, 80.0), 80, "skimmed before"),
        (runs(20, 20.0), 40, "count 20 generated ones only"),
        (runs(0, 0.0), 40, "count 0 generated ones only"),
        (runs(None, 80.0), 80, "skimmed before"),
        (runs(None, 40.0), 40, ""),
        (runs(None, 20.0), 40, "Runs say 20 only"),
        (runs(80, np.nan), 40, "no genEventSumw that is a number"),
        (runs(80), 40, "no genEventSumw that is a number"),
    ],
)
def test_runs_that_do_not_fit_are_not_believed(columns, stored, sumw, note, tmp_path):
    report = run(write(tmp_path / "x.root", columns, rntuple=False, runs=stored))
    assert report.datasets["svj"]["sumw"] == sumw
    said = [n for n in report.notes if "skimmed" in n or "Runs" in n]
    assert bool(said) == bool(note)
    assert all(note in n for n in said)


@pytest.mark.parametrize(
    ("tree", "place", "sumw"),
    [("nano/Events", "nano/Runs", 80), ("a/b/Events", "a/b/Runs", 80), ("nano/Events", "Runs", 80), ("nano/Events", "other/Runs", 40)],
)  # fmt: skip
def test_runs_stand_beside_the_events(columns, tree, place, sumw, tmp_path):
    path = write(tmp_path / "x.root", columns, rntuple=False, tree=tree, runs=runs(80, 80.0), place=place)
    assert run(path, tree).datasets["svj"]["sumw"] == sumw
