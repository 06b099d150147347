"""Inputs as people have them give the same on this machine and on dask: one cluster for all."""

from __future__ import annotations

import json

import awkward as ak
import hist
import numpy as np
import pytest
import uproot
from coffea import processor
from fuzz_files import EVENTS, OPEN, changed, columns, reference, summary, write
from test_candidates import branches as candidates
from test_duplicates import GENERATED, SVJ, Met, counted, entry, met
from test_outside_bins import THIRD, jec, with_forward_jet
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad.errors import CoffeaADError, IncompleteRun

PLACE = ak.to_numpy(ak.flatten(ak.local_index(columns()["FatJet_pt"])))


@pytest.fixture(scope="module")
def cluster():
    from distributed import Client, LocalCluster

    options = {"n_workers": 1, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as local, Client(local) as client:
        yield client


@pytest.fixture(params=["iterative", pytest.param("dask", marks=pytest.mark.dask)])
def where(request):
    """Where a run works: here, or on the one cluster."""
    if request.param == "iterative":
        return {"executor": "iterative", "progress": False}
    return {"executor": "dask", "cluster": request.getfixturevalue("cluster"), "progress": False}


def search(paths, where, *overrides, metadata=None, **kwargs):
    fileset = {
        "svj": {"files": {str(p): "Events" for p in paths}, "metadata": metadata or {"is_mc": True, "xsec": 1.0}}
    }
    settings = {"overrides": [*OPEN, *overrides], "config": "none", "preflight": False, "chunksize": 15, **kwargs}
    return ad.run(fileset, "semivisible_jets", model=DATA / "wnae.onnx", **where, **settings)


CODECS = {"zlib": uproot.ZLIB(4), "lzma": uproot.LZMA(4), "lz4": uproot.LZ4(4), "zstd": uproot.ZSTD(4), "none": None}


def numbered(i):
    """The events of the i-th file, under numbers of their own."""
    return {**columns(), "event": columns()["event"] + 1000 * i}


def test_every_codec_and_both_formats_are_read_alike(where, tmp_path):
    paths = []
    for i, (name, codec) in enumerate(CODECS.items()):
        path = write(tmp_path / f"{name}.root", numbered(i), compression=codec or uproot.ZLIB(0))
        with uproot.open(path) as file:
            packed = file["Events"].compressed_bytes < file["Events"].uncompressed_bytes
        assert packed == (codec is not None)
        paths.append(path)
    paths.append(write(tmp_path / "flat_rntuple.root", numbered(len(paths)), rntuple=True))
    got, right = summary(search(paths, where, chunksize=100)), reference(tmp_path)
    assert got["sumw"] == len(paths) * right["sumw"]
    assert got["selected"] == [len(paths) * n for n in right["selected"]]
    assert got["cells"] == [len(paths) * n for n in right["cells"]]
    for name, values in right["kinematics"].items():
        np.testing.assert_allclose(got["kinematics"][name], len(paths) * np.array(values), atol=1e-9)


def test_a_trigger_path_may_be_missing_in_a_part_of_the_files(where, tmp_path):
    n = np.arange(EVENTS)
    first = {**numbered(0), "HLT_PFHT1050": ak.Array(n % 2 == 0), "HLT_AK8PFJet500": ak.Array(n % 3 == 0)}
    second = {**numbered(1), "HLT_PFHT1050": ak.Array(n % 5 == 0)}
    paths = [write(tmp_path / "both.root", first), write(tmp_path / "one.root", second)]
    report = search(paths, where, "triggers=[HLT_PFHT1050, HLT_AK8PFJet500]", preflight=True)
    cutflow = report.datasets["svj"]["cutflow"]
    assert cutflow["trigger"]["events"] == ((n % 2 == 0) | (n % 3 == 0)).sum() + (n % 5 == 0).sum()
    neither = write(tmp_path / "neither.root", {k: v for k, v in second.items() if not k.startswith("HLT_")})
    with pytest.raises(CoffeaADError, match=r"neither.root: .*HLT_PFHT1050.*HLT_AK8PFJet500"):
        search([*paths, neither], where, "triggers=[HLT_PFHT1050, HLT_AK8PFJet500]")


def test_candidates_that_are_undefined_cost_their_jets_a_score_and_nothing_else(where, tmp_path):
    right = reference(tmp_path)
    event = 4
    first = int(ak.sum(ak.num(columns()["PFCand_pt"])[:event]))
    places = np.arange(first, first + int(ak.num(columns()["PFCand_pt"])[event]))
    path = write(tmp_path / "x.root", {**columns(), "PFCand_pt": changed("PFCand_pt", places, np.nan)})
    got = summary(search([path], where))
    assert got["selected"] == right["selected"]
    lost = np.subtract(right["cells"], got["cells"])
    assert sorted(lost[:-1]) == [0] * (len(lost) - 2) + [1], "the event is in no region"
    assert lost[-1] == -1, "but in the cell of what has no score"
    assert got["unscored"] > right["unscored"]
    assert got["undefined"] == right["undefined"] + 2, "its two leading jets"


def test_candidates_before_puppi_are_weighted(where, tmp_path):
    path = write(tmp_path / "x.root", candidates(weighted=False, plural=True))
    right = summary(search([write(tmp_path / "right.root", columns())], {"executor": "iterative", "progress": False}))
    assert summary(search([path], where)) == right


def test_undefined_jets_behind_the_leading_ones_decide_nothing(where, tmp_path):
    behind = np.flatnonzero(PLACE >= 2)
    path = write(tmp_path / "x.root", {**columns(), "FatJet_pt": changed("FatJet_pt", behind, np.nan)})
    got, right = summary(search([path], where)), reference(tmp_path)
    assert got["selected"] == right["selected"]
    assert got["cells"] == right["cells"]
    assert got["undefined"] == right["undefined"] + len(behind)


def test_a_jet_outside_of_a_correction_costs_its_chunk_alone(where, tmp_path):
    path = with_forward_jet(tmp_path)
    with pytest.raises(IncompleteRun, match=r"forward\.root.*correction L2 is not defined for JetEta = 5\.3") as caught:
        search([path], where, f"corrections.jec={json.dumps(jec(tmp_path))}", chunksize=10)
    assert caught.value.report.datasets["svj"]["events"] == EVENTS - 10
    at_bound = search([path], where, f"corrections.jec={json.dumps(jec(tmp_path, 'clamp'))}")
    assert summary(at_bound)["selected"] == reference(tmp_path)["selected"]
    assert len(THIRD) == 1


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    mc = [copy_events(SVJ, folder / f"mc{i}.root", stop=40) for i in range(2)]
    return mc, [copy_events(SVJ, folder / f"data{i}.root", stop=40, drop=GENERATED) for i in range(2)]


@pytest.mark.parametrize("mode", ["note", "drop"])
def test_events_that_are_there_twice_are_said_and_those_of_data_dropped(where, mode, twice):
    (mc, same), (data, again) = twice
    fileset = {"mc": entry(mc, mc=True), "mc2": entry(same, mc=True), "a": entry(data), "b": entry(again)}
    report = ad.run(fileset, Met(), lumi=1.0, chunksize=15, duplicates=mode, **where)
    assert counted(report) == {("mc", "mc2"): 40, ("a", "b"): 40}
    assert [met(report, d) for d in fileset] == [40, 40, 40, 40 if mode == "note" else 0]
    ends = "they were left out" if mode == "drop" else "--duplicates drop leaves them out"
    notes = [n for n in report.notes if "as well (" in n]
    assert sorted(n.split(":")[0] for n in notes) == ["b", "mc2"]
    assert [n.endswith(ends) for n in sorted(notes)] == [True, False]


class Categories(processor.ProcessorABC):
    """A histogram whose categories come up one after another."""

    def process(self, events):
        h = hist.Hist(
            hist.axis.StrCategory([], name="kind", growth=True), hist.axis.IntCategory([], name="number", growth=True),
            storage=hist.storage.Weight(),
        )  # fmt: skip
        number = np.asarray(events.event) % 7
        h.fill(kind=[f"kind {n}" for n in number % 3], number=number, weight=2.0)
        if len(events) < 20:
            h.fill(kind="last", number=99, weight=1.0)
        return {events.metadata["dataset"]: {"sumw": float(len(events)), "histograms": {"kinds": h}}}

    def postprocess(self, accumulator):
        return accumulator


def test_categories_that_grow_from_chunk_to_chunk_are_added_by_name(where, tmp_path):
    fileset = {"svj": {"files": {str(SVJ): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(fileset, Categories(), preflight=False, chunksize=20, **where)
    h = report.outputs["svj"]["histograms"]["kinds"]
    with uproot.open(SVJ) as file:
        number = file["Events"]["event"].array(library="np") % 7
    for n in range(7):
        assert h[f"kind {n % 3}", hist.loc(n)].value == 2 * (number == n).sum()
    assert h.sum().value == 2 * 150 + h["last", hist.loc(99)].value
    assert h["last", hist.loc(99)].value > 0
    assert set(h.axes["kind"]) == {"kind 0", "kind 1", "kind 2", "last"}
