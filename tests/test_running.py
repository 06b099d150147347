from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import uproot
from toys import DATA, assert_identical, bare_events, copy_events

import coffea_ad as ad
from coffea_ad.errors import BadFile, ConfigError, IncompleteRun, MissingBranch, ProcessorFailed
from coffea_ad.results.root_export import write_root

SEARCH = "semivisible_jets"
LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "lepton_pt_min=1e4"]


def search(fileset, model_file, tmp_path, executor="iterative", **kwargs):
    kwargs.setdefault("overrides", LOOSE)
    kwargs.setdefault("config", "none")  # the defaults of the code: no triggers, no filters
    return ad.run(fileset, SEARCH, model=model_file, executor=executor, output=tmp_path / "results", **kwargs)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One run in one piece, with the iterative executor."""
    folder = tmp_path_factory.mktemp("reference")
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
        for n, x in (("svj", 1.0), ("qcd", 1000.0))
    }
    report = search(fileset, DATA / "wnae.onnx", folder)
    return fileset, report, ad.load_results(folder / "results")


def test_a_run_fills_every_region_and_says_what_it_did(reference):
    _, report, results = reference
    assert report.complete
    assert {d: e["events"] for d, e in report.datasets.items()} == {"svj": 150, "qcd": 200}
    assert report.datasets["svj"]["sumw"] == 150
    mt = results.in_regions["svj"]["mt"]
    assert list(mt.axes["variation"]) == ["nominal", "jet_scaleUp", "jet_scaleDown"]
    nominal = {r: mt[{"region": r, "variation": "nominal"}].sum(flow=True).value for r in mt.axes["region"]}
    assert nominal["inclusive"] > 50
    for wp in ("loose", "medium"):
        assert sum(nominal[f"{wp}_{n}tag"] for n in range(3)) == pytest.approx(nominal["inclusive"])
    steps = report.datasets["svj"]["cutflow"]
    counts = [s["events"] for s in steps.values()]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 150
    assert nominal["inclusive"] == steps["dphi"]["events"] - report.datasets["svj"]["unscored"]


def test_jet_scale_variations_move_the_selection(reference):
    _, _, results = reference
    ht = results.in_regions["qcd"]["ht"]
    mean = {}
    for v in ("jet_scaleDown", "nominal", "jet_scaleUp"):
        h = ht[{"region": "inclusive", "variation": v}]
        mean[v] = (h.values() * h.axes[0].centers).sum() / h.values().sum()
    assert mean["jet_scaleDown"] < mean["nominal"] < mean["jet_scaleUp"]


@pytest.mark.parametrize("executor", ["futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_executors_give_identical_histograms(reference, executor, tmp_path):
    fileset, _, results = reference
    search(fileset, DATA / "wnae.onnx", tmp_path, executor, chunksize=70)
    assert_identical(results.histograms, ad.load_results(tmp_path / "results").histograms)


def test_chunk_size_does_not_matter(reference, tmp_path):
    fileset, report, results = reference
    few = {d: {**e} for d, e in fileset.items() if d == "svj"}
    again = search(few, DATA / "wnae.onnx", tmp_path, chunksize=33)
    assert_identical({"svj": results.histograms["svj"]}, ad.load_results(tmp_path / "results").histograms)
    assert again.datasets["svj"]["cutflow"] == report.datasets["svj"]["cutflow"]


def test_chunks_may_be_single_events(tmp_path):
    path = copy_events(DATA / "svj_v15.root", tmp_path / "few.root", stop=15)
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    whole, single = (search(fileset, DATA / "wnae.onnx", tmp_path / str(n), chunksize=n) for n in (15, 1))
    assert_identical(*(ad.load_results(tmp_path / str(n) / "results").histograms for n in (15, 1)))
    assert whole.datasets["svj"]["cutflow"] == single.datasets["svj"]["cutflow"]
    assert whole.datasets["svj"]["cutflow"]["all"]["events"] == 15


def test_results_are_exported_as_normalised_root_histograms(reference, tmp_path):
    fileset, _, _ = reference
    search(fileset, DATA / "wnae.onnx", tmp_path, lumi=2.0)
    results = ad.load_results(tmp_path / "results")
    norm = 1000.0 * 1000.0 * 2.0 / results.report["datasets"]["qcd"]["sumw"]
    raw = results.in_regions["qcd"]["met"][{"region": "inclusive", "variation": "nominal"}]
    write_root(results, tmp_path / "shapes.root")
    with uproot.open(tmp_path / "shapes.root") as file:
        stored = file["met/inclusive/qcd"].to_hist()
    np.testing.assert_allclose(stored.values(), raw.values() * norm)
    np.testing.assert_allclose(stored.variances(), raw.variances() * norm**2)
    np.testing.assert_allclose(results.scaled("qcd", "met").sum().value, raw_total(results, norm))


def raw_total(results, norm):
    return results.in_regions["qcd"]["met"].sum().value * norm


def as_data(source, path):
    """The same events without generator information."""
    return copy_events(source, path, drop=("gen", "Gen"))


def test_data_in_the_tightest_region_is_written_nowhere_without_unblinding(tmp_path):
    path = as_data(DATA / "svj_v15.root", tmp_path / "data.root")
    fileset = {"data": {"files": {str(path): "Events"}, "metadata": {}}}
    shown, hidden = (
        search(fileset, DATA / "wnae.onnx", tmp_path / name, overrides=[*LOOSE, f"unblind={flag}"], lumi=1.0)
        for name, flag in (("open", "true"), ("blind", "false"))
    )
    assert "taken as data" in hidden.notes[0]
    full, blind = (ad.load_results(tmp_path / name / "results").in_regions["data"] for name in ("open", "blind"))
    tight = sum(full["mt"][{"region": f"medium_{n}tag"}].sum(flow=True).value for n in (1, 2))
    assert tight > 0
    for name, h in blind.items():
        for n in (1, 2):
            assert h[{"region": f"medium_{n}tag"}].sum(flow=True).value == 0
        if not name.startswith(("msoftdrop", "ad_")):
            missing = (
                full[name][{"region": "inclusive"}].sum(flow=True).value
                - h[{"region": "inclusive"}].sum(flow=True).value
            )
            assert missing == tight
    logp = blind["ad_logp"][{"region": "inclusive", "variation": "nominal"}]
    threshold = ad.Tagger(DATA / "wnae.onnx").card.regions[-1].thresholds[0]
    assert logp.values()[logp.axes[0].edges[:-1] >= threshold].sum() == 0
    one, two = (r.datasets["data"]["cutflow"] for r in (shown, hidden))
    assert list(two) == ["all", "dphi"]  # any other line would tell more of the events that fail
    assert one["all"] == two["all"]
    assert one["dphi"]["events"] - two["dphi"]["events"] == tight
    assert hidden.blinded
    assert not shown.blinded


def test_files_that_were_skimmed_before_are_normalised_by_their_runs_trees(model_file, tmp_path):
    """A skim of NanoAOD has fewer events than were generated; Runs still holds all weights."""
    path = tmp_path / "skimmed.root"
    copy_events(DATA / "svj_v15.root", path, stop=60, runs=True)
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = search(fileset, model_file, tmp_path)
    assert any("1 files were skimmed before" in note for note in report.notes)
    assert report.datasets["svj"]["events"] == 60
    assert report.datasets["svj"]["sumw"] == 150
    assert ad.load_results(tmp_path / "results").norm("svj") == pytest.approx(1000 / 150)
    half = search(fileset, model_file, tmp_path / "half", overrides=[*LOOSE, "splits=[train]"])
    assert half.datasets["svj"]["sumw"] == 75  # the part of all generated events that the hash keeps, as expected
    part = search(fileset, model_file, tmp_path / "part", test=True, chunksize=30)
    assert part.datasets["svj"]["sumw"] == 75  # half of its events, half of what Runs counts
    assert any("1 of them in part" in note for note in part.notes)


def test_the_split_of_a_training_can_be_left_out_of_a_run(reference, tmp_path):
    fileset, whole, _ = reference
    parts = [
        search(fileset, DATA / "wnae.onnx", tmp_path / name, overrides=[*LOOSE, f"splits=[{name}]"])
        for name in ("train", "validation", "test")
    ]
    for dataset in fileset:
        kept = [p.datasets[dataset]["cutflow"]["dphi"]["events"] for p in parts]
        assert sum(kept) == whole.datasets[dataset]["cutflow"]["dphi"]["events"]
        assert min(kept) > 0
        assert sum(p.datasets[dataset]["sumw"] for p in parts) == pytest.approx(whole.datasets[dataset]["sumw"])


def test_pfnano_and_v15_of_the_same_events_give_identical_results(tmp_path, model_file):
    runs = []
    for layout in ("v15", "pfnano"):
        fileset = {
            "svj": {"files": {str(DATA / f"svj_{layout}.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1}}
        }
        search(fileset, model_file, tmp_path / layout)
        runs.append(ad.load_results(tmp_path / layout / "results").histograms)
    assert_identical(*runs)


def test_the_shipped_configuration_asks_for_triggers_and_filters_that_the_simulation_has(fileset, model_file, tmp_path):
    report = search(fileset, model_file, tmp_path, config=None, overrides=[])
    assert report.config["triggers"]
    steps = report.datasets["svj"]["cutflow"]
    assert steps["filters"]["events"] == 150
    assert 0 < steps["trigger"]["events"] < 150


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda p: p.unlink(), "qcd.root: there is no such file"),
        (lambda p: p.write_text("hello" * 200), "qcd.root: this is not a ROOT file"),
        (lambda p: p.write_bytes(b""), "qcd.root: cannot be read"),
        (lambda p: shutil.copy(p.with_name("empty_tree.root"), p), "qcd.root: there is no tree 'Events'"),
    ],
    ids=["missing", "not ROOT", "0 byte", "no tree"],
)
@pytest.mark.parametrize("place", ["first", "second"])
def test_a_bad_file_is_named_with_its_cause(fileset, model_file, tmp_path, spoil, match, place):
    with uproot.recreate(tmp_path / "empty_tree.root") as file:
        file.mktree("Other", {"x": np.dtype("f4")}).extend({"x": np.zeros(1, np.float32)})
    bad = tmp_path / "qcd.root"
    spoil(bad)
    if place == "second":  # behind a good one, where the check before the run does not look
        good = {str(tmp_path / "svj.root"): "Events"}
        fileset = {"svj": {**fileset["svj"], "files": {**good, str(bad): "Events"}}}
    with pytest.raises(BadFile if place == "first" else IncompleteRun, match=match):
        search(fileset, model_file, tmp_path)


def test_an_incomplete_run_can_be_allowed_and_stays_normalised(fileset, model_file, tmp_path):
    bad = tmp_path / "bad.root"
    bad.write_text("hello" * 200)
    files = {**fileset["svj"]["files"], str(bad): "Events"}
    report = search({"svj": {**fileset["svj"], "files": files}}, model_file, tmp_path, allow_missing=True)
    assert not report.complete
    assert [f["cause"] for f in report.datasets["svj"]["failed"]] == [f"{bad}: this is not a ROOT file"]
    results = ad.load_results(tmp_path / "results")
    assert results.report["datasets"]["svj"]["sumw"] == 150
    assert results.norm("svj") == pytest.approx(1000 / 150)


def test_missing_branches_are_named_before_anything_runs(fileset, model_file, tmp_path):
    path = next(iter(fileset["svj"]["files"]))
    slim = tmp_path / "slim.root"
    with uproot.open(path) as old, uproot.recreate(slim) as new:
        x = old["Events/PuppiMET_pt"].array(library="np")
        new.mktree("Events", {"PuppiMET_pt": x.dtype}).extend({"PuppiMET_pt": x})
    fileset["svj"]["files"] = {str(slim): "Events"}
    with pytest.raises(
        MissingBranch,
        match=r"slim.root: .*feature jet_substructure needs FatJetPFCand_jetIdx.*; the selection needs FatJet_pt",
    ):
        search(fileset, model_file, tmp_path)


def test_a_file_without_events_needs_no_branches(fileset, model_file, tmp_path):
    empty = tmp_path / "none.root"
    bare_events(empty, 0)
    fileset["none"] = {"files": {str(empty): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
    report = search(fileset, model_file, tmp_path)
    assert report.datasets["none"]["events"] == 0
    assert report.complete


def test_an_instance_takes_neither_model_nor_configuration(fileset, model_file):
    module = ad.recipes.load(SEARCH)
    own = module.Processor(module.Config(), [ad.Tagger(model_file)])
    assert ad.run(fileset, own, executor="iterative").complete
    with pytest.raises(ConfigError, match="takes no model"):
        ad.run(fileset, own, model=model_file, executor="iterative")


def test_wrong_configurations_and_filesets_are_refused(fileset, model_file, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'met_min'"):
        search(fileset, model_file, tmp_path, overrides=["met_mn=3"])
    with pytest.raises(ConfigError, match="met_min=high: should be a valid number"):
        search(fileset, model_file, tmp_path, overrides=["met_min=high"])
    with pytest.raises(ConfigError, match="dataset svj: there are no files"):
        search({"svj": {"files": {}}}, model_file, tmp_path)
    with pytest.raises(ConfigError, match="no xsec"):
        search({"svj": {"files": fileset["svj"]["files"], "metadata": {"is_mc": True}}}, model_file, tmp_path)
    files = fileset["svj"]["files"]
    for entry, match in (
        ({"files": files, "metadata": {"is_mc": "false"}}, "is_mc is 'false', but must be true or false"),
        ({"files": files, "metadata": {"is_mc": True, "isMC": False}}, "contradict"),
        ({"files": files, "metadata": [1]}, "metadata must be keys and values"),
        ({"files": files, "metadata": {"is_mc": True, "xsec": "abc"}}, "xsec is 'abc'"),
        ({"files": {next(iter(files)): {"object_path": ""}}}, "has no tree name"),
    ):
        with pytest.raises(ConfigError, match=match):
            search({"svj": entry}, model_file, tmp_path)
    with pytest.raises(ConfigError, match="becomes a folder"):
        search({"../svj": fileset["svj"]}, model_file, tmp_path)
    for wrong in ({"chunksize": 0}, {"workers": 0}, {"lumi": float("nan")}, {"lumi": -1.0}):
        with pytest.raises(ConfigError, match="but must be"):
            search(fileset, model_file, tmp_path, **wrong)
    with pytest.raises(ConfigError, match="finite number"):
        search(fileset, model_file, tmp_path, overrides=["met_min=.nan"])
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises(ConfigError, match="results cannot be written there"):
        ad.run(fileset, SEARCH, model=model_file, executor="iterative", output=blocked, force=True)
    broken = tmp_path / "fileset.json"
    broken.write_bytes(b"\xff\xfe{")
    with pytest.raises(ConfigError, match="not JSON text"):
        search(broken, model_file, tmp_path)
    broken.write_text('{"svj": ')
    with pytest.raises(ConfigError, match=r"fileset.json: the fileset is not valid JSON \(line 1"):
        search(broken, model_file, tmp_path)


BUGGY = '''"""A processor with a bug."""
from coffea import processor
from pydantic import BaseModel

class Config(BaseModel):
    pass

class Processor(processor.ProcessorABC):
    def __init__(self, config, taggers=(), output=None):
        pass
    def process(self, events):
        wrong = {}["key"]  # the user's own line
    def postprocess(self, accumulator):
        return accumulator
'''


@pytest.mark.parametrize("executor", ["iterative", "futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_bug_in_a_processor_shows_the_users_own_line(fileset, tmp_path, executor, on):
    path = tmp_path / "buggy.py"
    path.write_text(BUGGY)
    with pytest.raises(ProcessorFailed, match=r"KeyError: 'key'(.|\n)*the user's own line"):
        ad.run(fileset, path, **on(executor))


def test_coffeas_preprocessed_filesets_are_taken(fileset, model_file, tmp_path):
    path = next(iter(fileset["svj"]["files"]))
    entry = {"files": {path: {"object_path": "Events", "steps": [[0, 150]]}}, "metadata": fileset["svj"]["metadata"]}
    assert search({"svj": entry}, model_file, tmp_path).datasets["svj"]["events"] == 150


def test_an_os_error_of_the_processors_own_is_no_bad_file(fileset, tmp_path):
    path = tmp_path / "buggy.py"
    path.write_text(BUGGY.replace('{}["key"]', 'open("/nowhere/weights.json")'))
    with pytest.raises(ProcessorFailed, match="FileNotFoundError"):
        ad.run(fileset, path, executor="iterative", allow_missing=True)


def test_simulation_without_weights_is_refused(tmp_path, model_file):
    path = as_data(DATA / "svj_v15.root", tmp_path / "data.root")
    fileset = {"mc": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    with pytest.raises(MissingBranch, match="no genWeight"):
        search(fileset, model_file, tmp_path)


def test_a_branch_that_a_later_file_lacks_is_named(fileset, model_file, tmp_path):
    slim = tmp_path / "slim.root"
    bare_events(slim, 3)
    fileset["svj"]["files"][str(slim)] = "Events"
    with pytest.raises(IncompleteRun, match="slim.root: .*feature jet_substructure needs") as caught:
        search(fileset, model_file, tmp_path)
    assert caught.value.report.datasets["svj"]["events"] == 150  # nothing that was done is lost


def test_test_mode_runs_one_file_and_one_chunk(fileset, model_file, tmp_path):
    report = search(fileset, model_file, tmp_path, test=True, chunksize=50)
    assert {d: e["events"] for d, e in report.datasets.items()} == {"svj": 50, "qcd": 50}


def test_a_folder_without_a_report_is_no_results_folder(tmp_path):
    with pytest.raises(BadFile, match=r"there is no report.json"):
        ad.load_results(tmp_path)


def test_incomplete_is_an_error_by_default(monkeypatch, fileset, model_file, tmp_path):
    """A worker that loses a chunk without an exception must not go unnoticed."""
    from coffea.processor import Runner

    whole = Runner.run
    monkeypatch.setattr(Runner, "run", lambda self, chunks, p: whole(self, chunks[1:], p))
    with pytest.raises(IncompleteRun, match="1 files or chunks are missing"):
        search(fileset, model_file, tmp_path)


def test_report_is_json_with_versions_and_model_digest(reference, tmp_path):
    _fileset, report, results = reference
    assert results.report["versions"]["coffea"]
    assert results.report["models"][0]["digest"] == ad.OnnxScorer(DATA / "wnae.onnx").digest
    assert results.report["config"]["met_min"] == 0
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    assert Path(results.report["models"][0]["file"]).name == "wnae.onnx"
