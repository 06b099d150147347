"""Any coffea processor with any histograms, by path or as an object: run, kept in the folder, given back, merged."""

from __future__ import annotations

from pathlib import Path

import hist
import numpy as np
import pytest
from coffea import processor
from coffea.processor import column_accumulator, defaultdict_accumulator
from hist import axis, storage
from toys import DATA, assert_identical

import coffea_ad as ad
from coffea_ad import cli, recipes
from coffea_ad.errors import ConfigError, NotNormalisable, ProcessorFailed

EXAMPLE = Path(ad.__file__).parent.parent / "examples" / "own_processor.py"
FILES = {"svj": DATA / "svj_v15.root", "qcd": DATA / "qcd_v15.root"}


def fileset(*names, **metadata):
    return {n: {"files": {str(FILES[n]): "Events"}, "metadata": {"is_mc": True, **metadata}} for n in names or FILES}


class Flat(processor.ProcessorABC):
    """One histogram of all datasets, with many axes and no weights; numbers beside it."""

    def process(self, events):
        dataset = events.metadata["dataset"]
        h = hist.Hist(
            axis.StrCategory([], growth=True, name="dataset"), axis.Regular(5, 0, 1000, name="met"), axis.Integer(0, 9, name="n"),
            axis.Variable([0, 1, 3], name="y"), storage=storage.Int64(),
        )  # fmt: skip
        met = events.PuppiMET["pt"].to_numpy()
        h.fill(dataset=dataset, met=met, n=events.event.to_numpy() % 9, y=1.5)
        return {"table": h, "n": len(events), "runs": set(np.unique(events.run).tolist())}

    def postprocess(self, accumulator):
        return accumulator


class Nested(processor.ProcessorABC):
    """Histograms anywhere under the dataset's name, and coffea's own accumulators."""

    def process(self, events):
        met = events.PuppiMET["pt"].to_numpy()
        plain = hist.Hist.new.Reg(5, 0, 1000, name="met").Double().fill(met)
        mean = hist.Hist(axis.Regular(5, 0, 1000, name="met"), storage=storage.Mean()).fill(met, sample=met)
        counted = defaultdict_accumulator(int)
        counted["events"] += len(events)
        return {events.metadata["dataset"]: {
            "met": plain, "jets": {"deep": {"profile": mean}}, "counted": counted, "met_values": column_accumulator(met[:3]),
        }}  # fmt: skip

    def postprocess(self, accumulator):
        return accumulator


def run(which, output=None, data=None, **kwargs):
    return ad.run(data or fileset(), which, executor="iterative", output=output, progress=False, **kwargs)


def test_flat_accumulators_are_kept_and_given_back(tmp_path):
    report = run(Flat(), tmp_path, chunksize=60)
    results = ad.load_results(tmp_path)
    assert set(results.histograms) == {"all"}
    table = results.histograms["all"]["table"]
    assert sorted(table.axes["dataset"]) == ["qcd", "svj"]
    assert table.sum(flow=True) == report.outputs["table"].sum(flow=True) == 350
    assert results.report["outputs"]["n"] == 350
    assert "not written" not in "".join(report.notes)


def test_nested_accumulators_are_kept_under_the_keys_that_lead_to_them(tmp_path):
    report = run(Nested(), tmp_path, chunksize=50)
    results = ad.load_results(tmp_path)
    assert set(results.histograms["svj"]) == {"met", "jets/deep/profile"}
    assert results.histograms["svj"]["met"] == report.outputs["svj"]["met"]
    profile = results.histograms["qcd"]["jets/deep/profile"]
    np.testing.assert_allclose(profile.counts(), report.outputs["qcd"]["jets"]["deep"]["profile"].counts())
    assert results.report["outputs"]["svj"]["counted"] == {"events": 150}
    assert len(results.report["outputs"]["svj"]["met_values"]["column"]) == 9  # columns are joined, not added


@pytest.mark.parametrize("which", [Flat, Nested])
def test_merging_adds_them(which, tmp_path):
    run(which(), tmp_path / "whole")
    for name in FILES:
        run(which(), tmp_path / name, fileset(name))
    merged = ad.merge([tmp_path / n for n in FILES], tmp_path / "both")
    whole = ad.load_results(tmp_path / "whole")
    assert set(merged.histograms) == set(whole.histograms)
    for group, named in whole.histograms.items():
        for name, h in named.items():
            other = ad.load_results(tmp_path / "both").histograms[group][name]
            assert other.sum(flow=True) == h.sum(flow=True)
    if which is Flat:
        one, two = (r.histograms["all"]["table"] for r in (merged, whole))
        for dataset in FILES:
            assert one[{"dataset": dataset}] == two[{"dataset": dataset}]


def test_normalisation_is_asked_for_only_where_it_is_used(tmp_path):
    run(Nested(), tmp_path / "a", fileset("svj"))  # no cross-section, no sumw
    results = ad.load_results(tmp_path / "a")
    with pytest.raises(NotNormalisable, match="dataset svj: its processor returned no sumw"):
        results.scaled("svj", "met")
    data = {"met": {"files": {str(FILES["svj"]): "Events"}, "metadata": {"is_mc": False}}}
    assert run(Nested(), tmp_path / "b", data).lumi is None


class Weighted(Flat):
    def process(self, events):
        out = super().process(events)
        return out | {events.metadata["dataset"]: {"sumw": float(len(events))}}


def test_the_part_of_a_dataset_in_a_common_histogram_is_scaled(tmp_path):
    run(Weighted(), tmp_path, fileset(xsec=3.0), lumi=2.0)
    results = ad.load_results(tmp_path)
    assert results.scaled("svj", "table").sum(flow=True) == pytest.approx(3000 * 2.0)


def test_the_example_runs_by_its_path(tmp_path, capsys):
    import json

    (tmp_path / "f.json").write_text(json.dumps(fileset("svj")))
    words = ["run", str(EXAMPLE), "--fileset", str(tmp_path / "f.json"), "-e", "iterative", "-o"]
    assert cli.main([*words, str(tmp_path / "a"), "--model", str(DATA / "wnae.onnx")]) == 0
    assert cli.main([*words, str(tmp_path / "b"), f"model={DATA / 'wnae.onnx'}"]) == 0
    one, two = (ad.load_results(tmp_path / n) for n in "ab")
    assert one.histograms["svj"]["mass"].sum(flow=True) > 10
    assert one.histograms["svj"]["mass"] == two.histograms["svj"]["mass"]
    assert cli.main([*words, str(tmp_path / "c")]) == 1
    err = capsys.readouterr().err
    assert "own_processor.py: the arguments of its processor, key=value, are model; " in err
    assert "'model' is missing" in err


CLASS = '''"""A processor with arguments."""
from coffea import processor

class Cut(processor.ProcessorABC):
    def __init__(self, least: float = 0.0, names: tuple[str, ...] = ("a",)):
        self.least, self.names = least, names
    def process(self, events):
        met = events.PuppiMET["pt"].to_numpy()
        return {events.metadata["dataset"]: {"n": int((met > self.least).sum())}}
    def postprocess(self, accumulator):
        return accumulator
'''


def test_arguments_are_the_configuration(tmp_path):
    path = tmp_path / "cut.py"
    path.write_text(CLASS)
    one = run(path, data=fileset("svj"))
    two = run(path, data=fileset("svj"), overrides=["least=200"])
    assert one.outputs["svj"]["n"] == 150
    assert 0 < two.outputs["svj"]["n"] < 150
    assert two.config == {"least": 200.0, "names": ["a"]}
    (tmp_path / "cut.yaml").write_text("least: 200\n")  # beside it: its configuration
    assert run(path, data=fileset("svj")).outputs == two.outputs
    assert run(path, data=fileset("svj"), config="none").outputs == one.outputs
    with pytest.raises(ConfigError, match=r"unknown key 'leest'; did you mean 'least'"):
        run(path, data=fileset("svj"), overrides=["leest=3"])
    with pytest.raises(ConfigError, match="its processor takes no --model; its arguments are least, names"):
        run(path, data=fileset("svj"), model=DATA / "wnae.onnx")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (CLASS + CLASS.split("\n\n", 1)[1].replace("Cut", "Other"), r"several processors \(Cut, Other\); name the one to run Processor"),
        ("x = 1\n", "there is nothing to run: neither a class Processor"),
    ],
    ids=["two", "none"],
)  # fmt: skip
def test_a_file_without_one_processor_is_refused(tmp_path, text, match):
    path = tmp_path / "odd.py"
    path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        recipes.kind_of(recipes.load(path))


class Wrong:
    def __init__(self, out):
        self.out = out

    def process(self, events):
        return self.out


@pytest.mark.parametrize(
    ("out", "error", "match"),
    [
        ([1], ProcessorFailed, "process returned list, but must return a dictionary"),
        ({"svj": {"sumw": "many"}}, ProcessorFailed, "returned 'many' as sumw of svj"),
        ({"h": hist.Hist(axis.Regular(2, 0, 1, name="x"), storage=storage.MultiCell(2))}, ConfigError, "histogram h of all: a results folder cannot hold it"),
        ({"svj": {"histograms": {"x": hist.Hist(axis.StrCategory(["a"], name="region"), axis.StrCategory(["nominal"], name="variation"), axis.Regular(2, 0, 1, name="x"))}}}, ConfigError, "dataset svj: the metadata gives no xsec"),
    ],
    ids=["list", "sumw", "storage", "xsec"],
)  # fmt: skip
def test_what_would_be_refused_later_is_refused_before_the_run(out, error, match, tmp_path, monkeypatch):
    from coffea_ad.running import plan

    monkeypatch.setattr(plan, "open_files", lambda *_: pytest.fail("the run has begun"))
    with pytest.raises(error, match=match):
        run(Wrong(out), tmp_path / "r", fileset("svj"))
    assert not (tmp_path / "r" / "report.json").exists()


@pytest.mark.dask
def test_executors_give_the_same(tmp_path, on):
    run(Flat(), tmp_path / "one")
    ad.run(fileset(), Flat(), **on("dask"), chunksize=40, output=tmp_path / "two", progress=False)
    one, two = (ad.load_results(tmp_path / n).histograms["all"]["table"] for n in ("one", "two"))
    for dataset in FILES:
        assert one[{"dataset": dataset}] == two[{"dataset": dataset}]


def test_searches_keep_their_form(tmp_path):
    """Region and variation are what is normalised and written to ROOT; nothing else changed for them."""
    report = ad.run(fileset("svj", xsec=1.0), "semivisible_jets", executor="iterative", output=tmp_path, progress=False)
    results = ad.load_results(tmp_path)
    assert set(results.in_regions["svj"]) == set(results.histograms["svj"]) == {"mt", "mjj", "met", "ht", "msoftdrop"}
    assert_identical({"svj": report.outputs["svj"]["histograms"]}, results.histograms)


def test_the_processor_of_the_page_runs(tmp_path):
    import re

    page = (EXAMPLE.parent.parent / "docs" / "processors.md").read_text()
    path = tmp_path / "mine.py"
    path.write_text(re.search(r"```python\n(.*?)```", page, re.DOTALL)[1])
    report = run(path, tmp_path / "r", fileset("svj"), overrides=[f"model={DATA / 'wnae.onnx'}", "pt_min=400"])
    assert report.config["pt_min"] == 400
    assert ad.load_results(tmp_path / "r").histograms["svj"]["mass"].sum(flow=True) > 10
