"""RNTuples of records, as uproot writes awkward arrays, are read as the same events with a branch for each field."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import uproot
from coffea.nanoevents import NanoEventsFactory
from toys import DATA, assert_identical, open_events

import coffea_ad as ad
from coffea_ad.errors import MissingBranch
from coffea_ad.filesets.inspection import inspect_files
from coffea_ad.nanoaod.records import branch_names
from coffea_ad.skims.reading import load_skim

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]
MADE = {"v15": DATA / "svj_v15.root", "pfnano": DATA / "svj_pfnano.root"}


def records(path, source, *, drop=(), n=None):
    """Write the events of a file as uproot does with awkward arrays: one field for each collection."""
    with uproot.open(source) as old:
        tree = old["Events"]
        flat = {k: tree[k].array()[:n] for k in tree.keys() if k not in drop}
    lists = {k.split("_")[0] for k in flat if f"n{k.split('_')[0]}" in flat}
    once = {k.split("_")[0] for k in flat if "_" in k} - lists
    columns = {c: ak.zip({k[len(c) + 1 :]: v for k, v in flat.items() if k.startswith(f"{c}_")}) for c in lists | once}
    columns |= {k: v for k, v in flat.items() if "_" not in k and k[1:] not in lists}
    with uproot.recreate(path) as new:
        new.mkrntuple("Events", {k: ak.type(v).content for k, v in columns.items()}).extend(columns)
        if "Runs" in uproot.open(source):
            runs = uproot.open(source)["Runs"].arrays(library="np")
            new.mktree("Runs", {k: v.dtype for k, v in runs.items()}).extend(runs)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    return {name: records(folder / f"{name}.root", source) for name, source in MADE.items()}


def run(path, output, recipe="semivisible_jets", executor="iterative", **kwargs):
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    if recipe == "semivisible_jets":
        kwargs |= {"model": DATA / "wnae.onnx", "overrides": LOOSE}
    return ad.run(fileset, recipe, executor=executor, progress=False, output=output, **kwargs)


@pytest.mark.parametrize(
    ("flavour", "executor"),
    [("v15", "iterative"), ("pfnano", "iterative"), pytest.param("v15", "dask", marks=pytest.mark.dask)],
)
def test_a_run_gives_the_histograms_of_the_same_events_in_a_ttree(flavour, executor, made, tmp_path, on):
    reports = [
        run(path, tmp_path / name, **on(executor if name == "new" else "iterative"), chunksize=70)
        for name, path in (("old", MADE[flavour]), ("new", made[flavour]))
    ]
    one, two = (report.datasets["svj"] for report in reports)
    assert one["sumw"] == two["sumw"] > 0
    assert one["cutflow"] == two["cutflow"]
    assert_identical(*(ad.load_results(tmp_path / name).histograms for name in ("old", "new")))


def test_a_skim_has_the_rows_of_the_same_events(made, tmp_path):
    for name, path in (("old", MADE["v15"]), ("new", made["v15"])):
        run(path, tmp_path / name, "skim_jets", config="skim_jets.yaml")
    one, two = (load_skim(tmp_path / name, "jet_substructure") for name in ("old", "new"))
    assert len(one.x) == len(two.x) > 0
    assert np.array_equal(one.x, two.x, equal_nan=True)
    assert np.array_equal(one.weight, two.weight)


@pytest.mark.parametrize("flavour", MADE)
def test_collections_are_four_vectors_with_their_places(flavour, made):
    old, new = (open_events(path[flavour]) for path in (MADE, made))
    assert set(ak.fields(new)) == set(ak.fields(old))
    assert new.FatJet.energy.to_list() == old.FatJet.energy.to_list()
    for field in ("eventIdxG", "objectIdxG"):
        assert new.FatJet[field].to_list() == old.FatJet[field].to_list()
    assert new.PuppiMET.pt.to_list() == old.PuppiMET.pt.to_list()
    assert new.FatJet.subjets.pt.to_list() == old.FatJet.subjets.pt.to_list()


def test_masked_and_sorted_jets_are_scored_alike(made, model_file):
    scores = []
    for path in (MADE["v15"], made["v15"]):
        jets = open_events(path).FatJet
        jets = jets[jets.pt > 300][:, ::-1]
        scores.append(ad.Tagger(model_file)(jets)["ad_score"].to_list())
    assert scores[0] == scores[1]


def test_only_columns_that_are_used_are_read(made):
    log = []
    events = NanoEventsFactory.from_root(f"{made['v15']}:Events", schemaclass=ad.NanoAODSchema, access_log=log).events()
    ak.sum(events.FatJet.pt)
    assert {entry.branch for entry in log} == {"FatJet.pt"}


def test_a_fileset_names_the_same_branches(made):
    (old,), (new,) = (
        inspect_files({"svj": {"files": {str(path["v15"]): "Events"}, "metadata": {}}})["svj"].values()
        for path in (MADE, made)
    )
    counters = {b for b in old.branches if b[0] == "n" and b[1:] in {c.split("_")[0] for c in old.branches}}
    assert new.branches == old.branches - counters
    assert new.problems == ()


def test_a_field_that_is_missing_is_named_as_in_a_ttree(tmp_path):
    path = records(tmp_path / "x.root", MADE["v15"], drop=("FatJet_msoftdrop",), n=20)
    with pytest.raises(MissingBranch, match=r"x.root: .*FatJet_msoftdrop"):
        run(path, tmp_path / "out")


def test_classes_and_flat_fields_stay_as_they_are():
    types = {
        "FatJet_pt": "std::vector<float>",
        "Jet": "std::vector<Jet>",
        "Jet.pt": "float",
        "MET": "",
        "MET.pt": "float",
    }
    assert branch_names(types) == {
        "FatJet_pt": "FatJet_pt", "Jet": "Jet", "Jet.pt": "Jet.pt", "MET.pt": "MET_pt",
    }  # fmt: skip
