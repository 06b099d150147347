"""What a worker does with a chunk: which branches it opens, which files it keeps open, what it falls back to."""

from __future__ import annotations

import gc
import shutil
import weakref

import pytest
import uproot
from coffea.processor import Runner as CoffeaRunner
from toys import DATA, assert_identical, copy_events

import coffea_ad as ad
from coffea_ad.errors import IncompleteRun, ProcessorFailed
from coffea_ad.nanoaod import reading
from coffea_ad.nanoaod.reading import OPEN_FILES, BranchFilter, build_events, layout
from coffea_ad.running import runner

FILESET = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}


def test_coffeas_work_function_is_the_one_that_is_known():
    """When it moves, the own one has to be read against it again."""
    assert runner.runner_class() is runner.OpenFileRunner
    known = ["xrootdtimeout", "align_clusters", "uproot_options", "item"]
    assert runner._signature(CoffeaRunner, "metadata_fetcher_root") == known


@pytest.fixture
def moved(monkeypatch):
    """coffea's work function, with one more parameter."""
    inner = CoffeaRunner.__dict__["_work_function"].__func__

    def another(*args, new=None, **kwargs):
        return inner(*args, **kwargs)

    monkeypatch.setattr(CoffeaRunner, "_work_function", staticmethod(another))


def test_another_work_function_of_coffea_is_used_as_it_is(moved, tmp_path):
    assert runner.runner_class() is runner.Runner
    report = ad.run(
        FILESET, "semivisible_jets", model=DATA / "wnae.onnx", executor="iterative", output=tmp_path, progress=False
    )
    assert report.complete
    assert any("another work function" in note for note in report.notes)
    path = tmp_path / "buggy.py"
    path.write_text('"""."""\nfrom pydantic import BaseModel\nclass Config(BaseModel):\n    pass\nclass Processor:\n'
                    "    def __init__(self, *_):\n        pass\n    def process(self, events):\n        return {}['key']\n")  # fmt: skip
    with pytest.raises(ProcessorFailed, match="KeyError: 'key'"):
        ad.run(FILESET, path, executor="iterative", progress=False, preflight=False)


def opened(path, branches, tree="Events"):
    found = OPEN_FILES.get(str(path))
    _, names = found.tree(tree)
    return found, names, BranchFilter(frozenset(branches)).of(names)


def test_wanted_branches_come_with_ids_counters_and_four_vectors():
    _, names, wanted = opened(DATA / "svj_v15.root", ["FatJet_tau1", "PuppiMET_pt"])
    assert wanted < set(names)
    assert {"run", "luminosityBlock", "event", "genWeight", "nFatJet", "FatJet_eta", "PuppiMET_phi"} <= wanted
    assert not any(n.startswith(("Muon", "PFCand")) for n in wanted)


def test_only_wanted_branches_are_built_and_hold_the_same():
    path = DATA / "svj_v15.root"
    found, _, wanted = opened(path, ["FatJet_tau1", "PuppiMET_pt"])
    metadata = {"treename": "Events", "filename": str(path), "entrystart": 0, "entrystop": 20}
    few, log = build_events(found, metadata, ad.NanoAODSchema, wanted)
    all_, _ = build_events(found, metadata, ad.NanoAODSchema)
    assert "Muon" not in few.fields
    assert "Muon" in all_.fields
    assert few.FatJet["tau1"].to_list() == all_.FatJet["tau1"].to_list()
    assert {e.branch for e in log} == {"nFatJet", "FatJet_tau1"}


def test_traced_branches_hold_for_files_with_the_same_branches_only():
    with uproot.open(DATA / "svj_v15.root") as file:
        names = list(file["Events"].keys())
    traced = BranchFilter(frozenset({"FatJet_pt"}), frozenset({layout(names)}))
    assert traced.of(names) >= {n for n in names if n.startswith("FatJet_")}  # the whole collection, not one branch
    assert traced.of([*names, "FatJet_new"]) is None


UNDECLARED = '''"""Reads what it does not declare, on one file only."""
import awkward as ak
from pydantic import BaseModel

class Config(BaseModel):
    declared: bool = False

class Processor:
    def __init__(self, config, taggers=(), output=None):
        if config.declared:
            self.reads = lambda: {"jets": (("FatJet_pt",),)}

    def process(self, events):
        n = len(events) + 0 * int(ak.sum(events.Muon["looseId"])) if "qcd" in events.metadata["filename"] else 0
        return {events.metadata["dataset"]: {"met": n, "sumw": float(events.genWeight.to_numpy().sum()), "jets": len(events.FatJet["pt"])}}
'''


@pytest.mark.parametrize("declared", [True, False])
def test_an_undeclared_branch_works_and_is_said(tmp_path, declared):
    path = tmp_path / "mine.py"
    path.write_text(UNDECLARED)
    second = copy_events(DATA / "svj_v15.root", tmp_path / "qcd.root", stop=150)
    first = copy_events(DATA / "svj_v15.root", tmp_path / "svj.root", stop=150)  # the same branches
    both = {"svj": {**FILESET["svj"], "files": {str(p): "Events" for p in (first, second)}}}
    report = ad.run(both, path, executor="iterative", progress=False, overrides=[f"declared={declared}"])
    assert report.outputs["svj"]["met"] == 150
    assert report.datasets["svj"]["events"] == 300
    assert any("1 chunks were processed a second time" in n and "Muon_looseId" in n for n in report.notes)


def test_branches_that_the_first_events_show_are_opened_and_said(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(UNDECLARED)
    qcd = {"svj": {**FILESET["svj"], "files": {str(DATA / "qcd_v15.root"): "Events"}}}
    report = ad.run(qcd, path, executor="iterative", progress=False, overrides=["declared=true"])
    assert report.outputs["svj"]["met"] == 200
    assert any("its reads() does not name: Muon_looseId" in n for n in report.notes)
    assert not any("second time" in n for n in report.notes)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("semivisible_jets", "svj_v15"),
        ("semivisible_jets", "svj_pfnano"),
        ("skim_jets", "svj_v15"),
        ("skim_jets", "svj_pfnano"),
        ("skim_events", "svj_v15"),
    ],
)
def test_shipped_processors_declare_all_that_they_read(recipe, name, tmp_path):
    fileset = {"svj": {"files": {str(DATA / f"{name}.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    loose = ["met_min=0", "rt_min=0"] if recipe == "semivisible_jets" else []
    model = DATA / "wnae.onnx" if recipe == "semivisible_jets" else None
    for preflight in (True, False):
        report = ad.run(fileset, recipe, model=model, overrides=loose, executor="iterative", output=tmp_path / str(preflight),
                        progress=False, preflight=preflight)  # fmt: skip
        assert not any("reads()" in n for n in report.notes), report.notes


def test_results_do_not_depend_on_which_branches_are_opened(tmp_path, monkeypatch):
    def search(output):
        ad.run(
            FILESET, "semivisible_jets", model=DATA / "wnae.onnx", executor="iterative", output=output, progress=False
        )
        return ad.load_results(output).histograms

    few = search(tmp_path / "few")
    monkeypatch.setattr(BranchFilter, "of", lambda *_: None)
    assert_identical(few, search(tmp_path / "all"))


def test_a_file_stays_open_between_chunks_and_the_oldest_is_closed(tmp_path):
    OPEN_FILES.close()
    paths = [shutil.copy(DATA / "svj_v15.root", tmp_path / f"{i}.root") for i in range(6)]
    files = [OPEN_FILES.get(str(p)) for p in paths]
    assert OPEN_FILES.get(str(paths[-1])) is files[-1]
    assert len(OPEN_FILES.files) == reading._KEEP_OPEN
    assert [f.file.closed for f in files] == [True, True, False, False, False, False]
    OPEN_FILES.close()
    assert all(f.file.closed for f in files)


def test_a_file_that_was_replaced_is_opened_anew(tmp_path):
    path = tmp_path / "one.root"
    shutil.copy(DATA / "svj_v15.root", path)
    first = OPEN_FILES.get(str(path))
    shutil.copy(DATA / "qcd_v15.root", path)
    second = OPEN_FILES.get(str(path))
    assert first.file.closed
    assert second.file["Events"].num_entries == 200


def test_nothing_of_a_chunk_outlives_it():
    path = DATA / "svj_v15.root"
    found, _, wanted = opened(path, ["FatJet_pt"])
    metadata = {"treename": "Events", "filename": str(path), "entrystart": 0, "entrystop": 20}
    events, _ = build_events(found, metadata, ad.NanoAODSchema, wanted)
    column = weakref.ref(events.layout)
    del events
    gc.collect()
    assert column() is None


def test_the_collector_is_on_again_when_events_are_built():
    found, _, wanted = opened(DATA / "svj_v15.root", ["FatJet_pt"])
    metadata = {"treename": "Events", "filename": "x", "entrystart": 0, "entrystop": 1}
    for on in (True, False):
        (gc.enable if on else gc.disable)()
        try:
            build_events(found, metadata, ad.NanoAODSchema, wanted)
            assert gc.isenabled() is on
        finally:
            gc.enable()


def test_a_remote_file_is_tried_again_and_a_local_one_is_not(monkeypatch):
    pauses = []
    monkeypatch.setattr(reading.time, "sleep", pauses.append)
    assert list(reading.attempts("root://host//file.root", 3)) == [3, 2, 1, 0]
    assert pauses == [1.0, 2.0, 4.0]
    assert list(reading.attempts("/a/file.root", 3)) == [0]


def test_a_remote_file_that_comes_back_is_read(monkeypatch, tmp_path):
    """A server that fails once: through fsspec's memory file system, which stands for any remote one."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/svj.root", (DATA / "svj_v15.root").read_bytes())
    fileset = {"svj": {"files": {"memory://svj.root": "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    monkeypatch.setattr(reading.time, "sleep", lambda _: None)
    inner, failures = reading.OpenFiles.get, []

    def sometimes(self, path, **options):
        if options and len(failures) < 2:
            failures.append(path)
            raise OSError("the server is busy")
        return inner(self, path, **options)

    monkeypatch.setattr(reading.OpenFiles, "get", sometimes)
    report = ad.run(fileset, "semivisible_jets", model=DATA / "wnae.onnx", executor="iterative", progress=False)
    assert report.complete
    assert len(failures) == 2
    failures.clear()
    with pytest.raises(IncompleteRun, match="the server is busy"):
        ad.run(fileset, "semivisible_jets", model=DATA / "wnae.onnx", executor="iterative", progress=False, retries=0)

    def never(self, path, **options):
        if options:
            raise OSError("the server is busy")
        return inner(self, path)

    monkeypatch.setattr(reading.OpenFiles, "get", never)
    with pytest.raises(IncompleteRun, match="memory://svj.root: cannot be read .OSError: the server is busy"):
        ad.run(fileset, "semivisible_jets", model=DATA / "wnae.onnx", executor="iterative", progress=False)
    memory.rm("/svj.root")


def test_a_chunk_reads_no_more_than_the_processor_uses(tmp_path):
    """Columns of the report: what was read, not what was declared."""
    copy_events(DATA / "svj_v15.root", tmp_path / "few.root", stop=5)
    fileset = {"svj": {**FILESET["svj"], "files": {str(tmp_path / "few.root"): "Events"}}}
    report = ad.run(fileset, "semivisible_jets", model=DATA / "ae_stored.onnx", executor="iterative", progress=False)
    assert not any(c.startswith("PFCand") for c in report.throughput["columns"])
    assert "FatJet_pt" in report.throughput["columns"]
