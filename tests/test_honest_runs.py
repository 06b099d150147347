"""What could go wrong without a sound: stale code, files that count twice, numbers that are none, work lost at the end."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from pathlib import Path

import hist
import numpy as np
import pytest
from toys import DATA, HERE, bare_events, copy_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadFile, ConfigError, IncompleteRun, MissingBranch, ProcessorFailed

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "lepton_pt_min=1e4"]
SVJ = str(DATA / "svj_v15.root")


def entry(*paths, **metadata):
    return {"files": {str(p): "Events" for p in paths}, "metadata": {"is_mc": True, "xsec": 1.0, **metadata}}


def search(fileset, output=None, **kwargs):
    kwargs.setdefault("model", DATA / "wnae.onnx")
    kwargs.setdefault("config", "none")
    return ad.run(
        fileset, "semivisible_jets", overrides=LOOSE, executor="iterative", output=output, progress=False, **kwargs
    )


RECIPE = '''"""Takes a cut from a module beside it."""
from pydantic import BaseModel
{top}

class Config(BaseModel):
    pass

class Processor:
    def __init__(self, config, taggers=(), output=None):
        pass
    def process(self, events):
        {inside}
        n = int((events.PuppiMET["pt"] > MET_MIN).to_numpy().sum())
        return {{events.metadata["dataset"]: {{"n": n, "sumw": 0.0}}}}
'''


@pytest.mark.parametrize("where", ["top", "inside"])
@pytest.mark.parametrize("executor", ["iterative", "futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_a_constant_of_a_module_beside_the_recipe_is_never_stale(where, executor, tmp_path, on):
    name = f"cuts_{where}_{executor}"
    helper, path = tmp_path / f"{name}.py", tmp_path / "mine.py"
    line = f"from {name} import MET_MIN"
    path.write_text(RECIPE.format(top=line if where == "top" else "", inside=line if where == "inside" else "pass"))
    found, more = [], {"workers": 1} if executor == "futures" else {}
    for cut in (0, 200, 0):
        helper.write_text(f"MET_MIN = {cut}\n")
        report = ad.run(
            {"svj": entry(SVJ)}, path, **on(executor), checkpoints=str(tmp_path / "kept"), progress=False, **more
        )
        found.append((report.outputs["svj"]["n"], report.throughput["resumed_chunks"]))
    assert found[0] == (150, 0)
    assert 0 < found[1][0] < 150
    assert found[1][1] == 0
    assert found[2] == (150, 1)


def counted(events, least=0):
    return {events.metadata["dataset"]: {"n": int((events.PuppiMET["pt"] > least).to_numpy().sum())}}


def test_functions_and_partials_are_told_apart_by_what_they_do(tmp_path):
    def run(processor):
        report = ad.run({"svj": entry(SVJ)}, processor, executor="iterative", checkpoints=str(tmp_path), progress=False)
        return report.outputs["svj"]["n"], report.throughput["resumed_chunks"]

    assert run(counted) == (150, 0)
    assert run(counted) == (150, 1)
    few, again = run(functools.partial(counted, least=200)), run(functools.partial(counted, least=200))
    assert few[0] < 150
    assert (few[1], again[1]) == (0, 1)
    assert run(functools.partial(counted, least=100))[1] == 0


def test_one_file_under_two_names_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(SVJ, tmp_path / "svj.root")
    with pytest.raises(ConfigError, match="svj.root are the same file, and its events would count twice"):
        search({"svj": entry("svj.root", tmp_path / "svj.root")})
    search({"svj": entry(SVJ)}, tmp_path / "a")
    search({"svj": entry("svj.root")}, tmp_path / "b")
    with pytest.raises(ConfigError, match="svj.root are the same file, and count twice"):
        ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "c")


def test_a_dataset_is_not_added_to_itself_under_other_cuts(tmp_path):
    search({"svj": entry(SVJ)}, tmp_path / "a")
    search({"svj": entry(DATA / "svj_pfnano.root")}, tmp_path / "b", model=DATA / "wnae.onnx", lumi=1.0)
    ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    other = {"svj": entry(DATA / "svj_pfnano.root")}
    ad.run(other, "semivisible_jets", model=DATA / "wnae.onnx", overrides=[*LOOSE[1:], "met_min=300"], executor="iterative",
           config="none",
           output=tmp_path / "c", progress=False)  # fmt: skip
    with pytest.raises(ConfigError, match="svj: it was made with different config in both"):
        ad.merge([tmp_path / "a", tmp_path / "c"], tmp_path / "ac")
    report = json.loads((tmp_path / "ab" / "report.json").read_text())
    report["datasets"]["svj"]["failed"] = [
        {"file": "x", "start": -1, "stop": -1, "uuid": "", "error": "E", "cause": "x"}
    ]
    (tmp_path / "ab" / "report.json").write_text(json.dumps(report))
    with pytest.raises(ConfigError, match="several runs were merged into it; resubmit each by itself"):
        ad.resubmit(tmp_path / "ab", executor="iterative")


def test_a_file_that_was_skimmed_to_nothing_still_counts_what_was_generated(tmp_path):
    copy_events(SVJ, tmp_path / "none.root", stop=0, runs=True)
    report = search({"svj": entry(SVJ, tmp_path / "none.root")})
    assert report.datasets["svj"]["events"] == 150
    assert report.datasets["svj"]["sumw"] == 300


def test_a_later_simulated_file_without_weights_is_named(tmp_path):
    copy_events(SVJ, tmp_path / "plain.root", drop=("genWeight",))
    with pytest.raises(
        IncompleteRun, match="plain.root: there is no genWeight, and its dataset is simulation"
    ) as caught:
        search({"svj": entry(SVJ, tmp_path / "plain.root")})
    assert caught.value.report.datasets["svj"]["sumw"] == 150


def test_what_a_dataset_is_is_not_told_from_a_file_without_events(tmp_path):
    bare_events(tmp_path / "none.root", 0)
    fileset = {"svj": {"files": {str(tmp_path / "none.root"): "Events", SVJ: "Events"}, "metadata": {"xsec": 1.0}}}
    report = search(fileset, tmp_path / "r")
    assert report.datasets["svj"]["metadata"]["is_mc"] is True
    late = {
        "svj": {
            "files": {str(tmp_path / "none.root"): "Events", str(tmp_path / "no.root"): "Events"},
            "metadata": {"xsec": 1.0},
        }
    }
    report = search(late, allow_missing=True)
    assert "is_mc" not in report.datasets["svj"]["metadata"]


def test_a_weight_that_is_no_number_fails_its_chunk_and_nothing_else(tmp_path):
    def spoil(columns):
        columns["genWeight"][120] = np.nan

    copy_events(SVJ, tmp_path / "nan.root", change=spoil)
    report = search({"svj": entry(tmp_path / "nan.root")}, tmp_path / "r", chunksize=50, allow_missing=True)
    assert [f["start"] for f in report.failed] == [100]
    assert "genWeight of 1 events is not a finite number" in report.failed[0]["cause"]
    assert report.datasets["svj"]["sumw"] == 100


def test_a_report_is_json_whatever_the_numbers_are(tmp_path):
    def odd(events):
        h = hist.Hist(hist.axis.Regular(2, 0, 1, name="x"))
        return {
            "svj": {"sumw": 1.0, "ratio": float("nan"), "pairs": {(1, 2), (3, 4)}, "names": ["a"], "h": h, "x": object}
        }

    report = ad.run({"svj": entry(SVJ)}, odd, executor="iterative", output=tmp_path, progress=False)
    stored = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert stored["outputs"]["svj"]["ratio"] is None
    assert any("not written, but in the report object: svj: x" in note for note in report.notes)
    assert ad.load_results(tmp_path).histograms["svj"]["h"].axes.name == ("x",)
    assert any("not written" in note for note in stored["notes"])


def pairs(events):
    return {"svj": {"sumw": 1.0, "events": len(events), "lumis": {(1, int(events.metadata["entrystart"]))}}}


def test_sets_of_pairs_are_merged(tmp_path):
    for name, file in (("a", SVJ), ("b", DATA / "svj_pfnano.root")):
        ad.run({"svj": entry(file)}, pairs, executor="iterative", output=tmp_path / name, chunksize=75, progress=False)
    merged = ad.merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    assert merged.report["outputs"]["svj"]["lumis"] == {"set": [{"tuple": [1, 0]}, {"tuple": [1, 75]}]}


def test_histograms_that_no_root_file_can_hold_do_not_cost_the_run(tmp_path):
    def split(events):
        h = hist.Hist(
            hist.axis.StrCategory(["inclusive"], name="region"), hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Regular(2, 0, 1, name="x"), storage=hist.storage.Weight(),
        )  # fmt: skip
        good = {"sumw": 1.0, "histograms": {"x": h, "plain": hist.Hist(hist.axis.Regular(2, 0, 1, name="x"))}}
        return {"svj": good, "svj_b": {"histograms": {"x": h}}}

    ad.run({"svj": entry(SVJ)}, split, executor="iterative", output=tmp_path, progress=False)
    results = ad.load_results(tmp_path)
    assert {group: set(named) for group, named in results.histograms.items()} == {
        "svj": {"x", "plain"}, "all": {"svj_b/histograms/x"},
    }  # fmt: skip
    assert set(results.in_regions) == {"svj"}


class Fails:
    def process(self, events):
        return {"svj": {"sumw": 1.0, "n": 1}}

    def postprocess(self, accumulator):
        accumulator["svj"]["n"] = -1
        return accumulator["svj"]["nothing"]


def test_a_postprocess_that_fails_does_not_cost_what_was_processed(tmp_path):
    report = ad.run({"svj": entry(SVJ)}, Fails(), executor="iterative", output=tmp_path, chunksize=50, progress=False)
    assert report.outputs["svj"]["n"] == 3
    assert any("postprocess failed, and the results are those before it" in n and "KeyError" in n for n in report.notes)


class Counts:
    def __init__(self):
        self.seen = 0

    def process(self, events):
        self.seen += len(events)
        return {"svj": {"sumw": 0.0, "seen": self.seen}}


def test_the_check_before_the_run_leaves_no_trace_in_an_object():
    processor = Counts()
    ad.run({"svj": entry(SVJ)}, processor, executor="iterative", progress=False)
    assert processor.seen == 0


def test_a_tolerant_run_looks_behind_a_file_that_the_processor_cannot_use(tmp_path):
    def process(events):
        return {"svj": {"n": len(ad.Tagger(DATA / "wnae.onnx")(events)), "sumw": 0.0}}

    bad = tmp_path / "without.root"
    copy_events(SVJ, bad, drop=("FatJetPFCand", "PFCand", "nFatJetPFCand", "nPFCand"))
    fileset = {"svj": entry(bad, SVJ)}
    with pytest.raises(MissingBranch, match="without.root"):
        ad.run(fileset, process, executor="iterative", progress=False)
    report = ad.run(fileset, process, executor="iterative", progress=False, allow_missing=True)
    assert report.outputs["svj"]["n"] == 150
    assert [f["error"] for f in report.failed] == ["MissingBranch"]


def test_a_wrong_cross_section_is_refused_before_anything_runs(tmp_path):
    for xsec in ("abc", None, -1):
        with pytest.raises(ConfigError, match="dataset svj: xsec is .*, but must be a positive number of pb"):
            ad.run({"svj": entry(SVJ, xsec=xsec)}, "skim_jets", executor="iterative", output=tmp_path, progress=False)


@pytest.mark.parametrize("content", ["[]", "{}", '{"datasets": {}}', "nonsense"])
def test_a_report_that_is_none_is_named(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(BadFile, match="report.json was not written by coffea-ad run|the results are damaged"):
        ad.load_results(tmp_path)
    with pytest.raises(BadFile):
        ad.resubmit(tmp_path, executor="iterative")


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("undefined_name\n", ConfigError, "broken.py, line 1: cannot be imported .NameError: name 'undefined_name'"),
        ("import no_such_module\n", ConfigError, "No module named 'no_such_module'"),
        (
            (
                "from pydantic import BaseModel\nclass Config(BaseModel):\n    pass\nclass Processor:\n"
                "    def __init__(self, *_):\n        self.x = {}['key']\n"
            ),
            ProcessorFailed,
            r"it cannot be made: the processor raised KeyError: 'key'(.|\n)*broken.py",
        ),
        (
            (
                "from pydantic import BaseModel\nclass Config(BaseModel):\n    pass\nclass Processor:\n"
                "    def __init__(self, *_):\n        pass\n    def reads(self):\n        return self.nothing\n"
                "    def process(self, events):\n        return {}\n"
            ),
            ProcessorFailed,
            r"reads\(\): the processor raised AttributeError",
        ),
    ],
    ids=["name", "module", "init", "reads"],
)
def test_a_recipe_that_cannot_be_used_is_one_sentence_and_its_own_lines(tmp_path, text, error, match):
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(error, match=match):
        ad.run({"svj": entry(SVJ)}, path, executor="iterative", progress=False)
    assert not any("no_such" in m for m in sys.modules)


def test_options_that_would_be_ignored_are_refused(tmp_path, capsys):
    with pytest.raises(ConfigError, match="the iterative executor works on this machine"):
        search({"svj": entry(SVJ)}, cluster="htcondor")
    words = ["run", "--resubmit", str(tmp_path), "-c", "50", "--lumi", "99", "--checkpoints", "x", "--test"]
    assert cli.main(words) == 1
    assert "leave out: lumi, test, chunksize, checkpoints" in capsys.readouterr().err


def test_of_a_fileset_with_steps_their_events_are_read():
    for steps, events in (([[0, 150]], 150), ([[0, 75], [75, 150]], 150), ([[0, 10]], 10), ([[140, 150], [5, 10]], 15)):
        files = {SVJ: {"object_path": "Events", "steps": steps, "num_entries": 150}}
        fileset = {"svj": {"files": files, "metadata": {"is_mc": True, "xsec": 1.0}}}
        assert search(fileset).datasets["svj"]["events"] == events


def test_a_processor_in_a_script_resumes(tmp_path):
    """cloudpickle gives classes of a script another name every time; the key must not follow that."""
    import subprocess

    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport coffea_ad as ad\n"
        "class Mine:\n    def process(self, events):\n        return {'svj': {'sumw': 0.0, 'n': len(events)}}\n"
        "if __name__ == '__main__':\n"
        f"    fileset = {{'svj': {{'files': {{{SVJ!r}: 'Events'}}, 'metadata': {{'is_mc': True, 'xsec': 1.0}}}}}}\n"
        f"    r = ad.run(fileset, Mine(), executor='iterative', checkpoints={str(tmp_path / 'kept')!r}, progress=False)\n"
        "    print(r.throughput['resumed_chunks'])\n"
    )
    out = [
        subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert out == ["0", "1"]


def test_the_counting_processor_is_whole():
    """The helper file of these tests is itself a recipe."""
    assert ad.recipes.kind_of(ad.recipes.load(HERE / "counting_processor.py")) == "processor"
    assert Path(SVJ).is_file()
