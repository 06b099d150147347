"""Files that a skim has emptied: whatever branches they lack, their generated events count, and nothing else changes."""

from __future__ import annotations

import warnings

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoAODSchema, NanoEventsFactory
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad
from coffea_ad.skims.reading import load_skim

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]
IDS = ("run", "luminosityBlock", "event")
SVJ = DATA / "svj_v15.root"
RUNS = {"run": np.array([1], np.uint32), "genEventCount": np.array([80]), "genEventSumw": np.array([80.0])}


def write(path, types, *, rntuple=False, runs=RUNS):
    with uproot.recreate(path) as new:
        (new.mkrntuple if rntuple else new.mktree)("Events", types)
        if runs:
            new.mktree("Runs", {k: v.dtype for k, v in runs.items()}).extend(runs)
    return path


def empty_without_ids(path):
    return copy_events(SVJ, path, stop=0, drop=IDS[1:])


KINDS = {
    "weights only": lambda path: write(path, {"genWeight": np.float32}),
    "ids only": lambda path: write(path, dict.fromkeys(IDS, np.uint32)),
    "one id": lambda path: write(path, {"run": np.uint32, "genWeight": np.float32}),
    "rntuple": lambda path: write(path, {"MET_pt": np.float32}, rntuple=True),
    "all but ids": empty_without_ids,
    "jets without pt": lambda path: write(path, {"nFatJet": np.int32, "FatJet_eta": "var * float32"}),
}


def run(paths, recipe="semivisible_jets", executor="iterative", metadata=None, **kwargs):
    metadata = {"is_mc": True, "xsec": 1.0} if metadata is None else metadata
    fileset = {"svj": {"files": {str(p): "Events" for p in paths}, "metadata": metadata}}
    if recipe == "semivisible_jets":
        kwargs.setdefault("model", DATA / "wnae.onnx")
        kwargs["overrides"] = LOOSE
    return ad.run(fileset, recipe, executor=executor, progress=False, **kwargs)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    return run([SVJ], output=out), ad.load_results(out).histograms


@pytest.fixture(scope="module")
def emptied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emptied")
    return {kind: make(folder / f"{kind.replace(' ', '_')}.root") for kind, make in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_of_nothing_counts_what_was_generated(kind, emptied, tmp_path):
    report = run([emptied[kind]], output=tmp_path)
    assert report.complete
    assert report.datasets["svj"]["events"] == 0
    assert report.datasets["svj"]["sumw"] == (0 if kind == "all but ids" else 80)
    h = ad.load_results(tmp_path).histograms["svj"]
    assert sum(float(x.sum(flow=True).value) for x in h.values()) == 0


@pytest.mark.parametrize(
    ("executor", "first"),
    [("iterative", True), ("iterative", False), pytest.param("dask", True, marks=pytest.mark.dask)],
)
def test_empty_files_change_nothing_but_the_sum_of_weights(executor, first, alone, emptied, tmp_path, on):
    whole, histograms = alone
    files = [*emptied.values(), SVJ] if first else [SVJ, *emptied.values()]
    report = run(files, output=tmp_path, **on(executor))
    assert report.complete
    assert report.datasets["svj"]["sumw"] == whole.datasets["svj"]["sumw"] + 80 * (len(emptied) - 1)
    assert report.datasets["svj"]["cutflow"] == whole.datasets["svj"]["cutflow"]
    assert_identical({"svj": histograms["svj"]}, ad.load_results(tmp_path).histograms)


def test_data_without_events_are_processed(emptied, tmp_path):
    for duplicates in ("note", "drop"):
        report = run([emptied["weights only"], emptied["rntuple"]], metadata={"is_mc": False}, duplicates=duplicates)
        assert report.complete
        assert report.datasets["svj"]["events"] == 0


def test_a_skim_has_the_same_rows(emptied, tmp_path):
    for name, files in {"alone": [SVJ], "with": [*emptied.values(), SVJ]}.items():
        run(files, "skim_jets", config="skim_jets.yaml", output=tmp_path / name)
    one, two = (load_skim(tmp_path / name, "jet_substructure") for name in ("alone", "with"))
    assert len(one.x) == len(two.x) > 0
    assert two.provenance["sumw"]["svj"] == one.provenance["sumw"]["svj"] + 80 * (len(emptied) - 1)


@pytest.mark.parametrize("schema", [NanoAODSchema, ad.NanoAODSchema])
def test_a_tagger_needs_no_ids_where_there_are_no_events(schema, emptied, tagger):
    lenient = type(schema.__name__, (schema,), {"error_missing_event_ids": False})
    for kind in ("weights only", "rntuple", "all but ids"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coffea's, of what its own schema misses
            events = NanoEventsFactory.from_root(f"{emptied[kind]}:Events", schemaclass=lenient).events()
        jets = tagger(events)
        assert len(jets) == 0
        assert "ad_score" in ak.fields(jets)


@pytest.fixture
def tagger(model_file):
    return ad.Tagger(model_file)
