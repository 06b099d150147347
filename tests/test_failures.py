"""Files of every kind of badness beside good ones: each is named with its cause, and all else is complete."""

from __future__ import annotations

import json

import pytest
import uproot
from toys import DATA, assert_identical, bare_events, copy_events, damage

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadFile, IncompleteRun, ProcessorFailed

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "lepton_pt_min=1e4"]
CODECS = {
    "zlib": (uproot.ZLIB(1), "error"),
    "lzma": (uproot.LZMA(1), "DecompressionError"),
    "lz4": (uproot.LZ4(1), "ValueError"),
    "zstd": (uproot.ZSTD(1), "DecompressionError"),
}


def entry(*paths, **metadata):
    return {"files": {str(p): "Events" for p in paths}, "metadata": {"is_mc": True, "xsec": 1.0, **metadata}}


def run(fileset, output, executor="iterative", **kwargs):
    return ad.run(
        fileset, "semivisible_jets", model=DATA / "wnae.onnx", overrides=LOOSE, config="none", executor=executor, output=output,
        progress=False, **kwargs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """{path: the error's class, part of its cause}, and the files that are good."""
    root = tmp_path_factory.mktemp("zoo")
    source = DATA / "svj_v15.root"
    whole = source.read_bytes()
    bad = {}

    def add(name, error, cause, content=None):
        path = root / f"{name}.root"
        if content is not None:
            path.write_bytes(content)
        bad[str(path)] = (error, cause)
        return path

    add("missing", "FileNotFoundError", "there is no such file")
    add("empty", "OSError|ValueError", "cannot be read", b"")
    add("text", "ValueError", "this is not a ROOT file", b"hello" * 200)
    with uproot.recreate(add("other_tree", "KeyInFileError|UprootMissTreeError", "there is no tree 'Events'")) as file:
        file.mktree("Other", {"x": "f4"}).extend({"x": [1.0]})
    add("half", ".*", "cannot be read", whole[: len(whole) // 2])
    for codec, (compression, error) in CODECS.items():
        path = add(f"corrupt_{codec}", error, "branch FatJetPFCand_jetIdx cannot be read")
        copy_events(source, path, compression=compression)
        damage(path, "FatJetPFCand_jetIdx")  # compressible; what is stored as it is has no checksum
    copy_events(
        source, add("no_block", "MissingBranch", "every event needs luminosityBlock"), drop=("luminosityBlock",)
    )
    copy_events(source, add("no_branch", "MissingBranch", "the selection needs PuppiMET_phi"), drop=("PuppiMET_phi",))
    constituents = add("no_constituents", "MissingBranch", "feature jet_substructure needs FatJetPFCand_jetIdx")
    copy_events(source, constituents, drop=("FatJetPFCand", "PFCand", "nFatJetPFCand", "nPFCand"))
    none = root / "no_events.root"
    bare_events(none, 0)
    good = [source, none, DATA / "svj_pfnano.root"]
    return bad, good


@pytest.fixture(scope="module")
def reference(zoo, tmp_path_factory):
    out = tmp_path_factory.mktemp("good")
    report = run({"svj": entry(*zoo[1]), "qcd": entry(DATA / "qcd_v15.root", xsec=1000.0)}, out)
    return report, ad.load_results(out)


@pytest.mark.parametrize("executor", ["iterative", "futures", pytest.param("dask", marks=pytest.mark.dask)])
def test_each_bad_file_is_named_with_its_cause_and_all_else_is_complete(zoo, reference, executor, tmp_path, on):
    import re

    bad, good = zoo
    fileset = {
        "svj": entry(good[0], *bad, *good[1:]),
        "qcd": entry(DATA / "qcd_v15.root", xsec=1000.0),
        "dead": entry(next(iter(bad))),
    }
    report = run(fileset, tmp_path, **on(executor), allow_missing=True, chunksize=60)
    assert not report.complete
    found = {f["file"]: f for f in report.datasets["svj"]["failed"]}
    assert found.keys() == bad.keys()
    for path, (error, cause) in bad.items():
        assert re.fullmatch(error, found[path]["error"]), found[path]
        assert found[path]["cause"].startswith(path)
        assert cause in found[path]["cause"]
    assert report.datasets["dead"]["events"] == 0
    assert len(report.datasets["dead"]["failed"]) == 1
    whole, results = reference
    for dataset in ("svj", "qcd"):
        assert report.datasets[dataset]["events"] == whole.datasets[dataset]["events"]
        assert report.datasets[dataset]["sumw"] == pytest.approx(whole.datasets[dataset]["sumw"], rel=1e-12)
        assert report.datasets[dataset]["cutflow"] == whole.datasets[dataset]["cutflow"]
    mine = ad.load_results(tmp_path)
    assert_identical(results.histograms, {d: mine.histograms[d] for d in ("svj", "qcd")})
    assert mine.norm("svj") == results.norm("svj")
    assert any("different sets of branches" in note for note in report.notes)


def test_a_file_with_its_last_bytes_cut_is_whole_or_named(tmp_path):
    """What is behind the last basket may be needed or not; half a file must never count."""
    whole = (DATA / "svj_v15.root").read_bytes()
    for i, cut in enumerate((1, 10, 100, 2000)):
        path = tmp_path / f"cut{i}.root"
        path.write_bytes(whole[:-cut])
        report = run({"svj": entry(path)}, None, allow_missing=True)
        assert report.datasets["svj"]["events"] == (150 if report.complete else 0)


def test_only_the_chunks_of_a_damaged_basket_are_lost(tmp_path):
    """The second basket of three is damaged: what is before and behind it counts, with its own sum of weights."""
    path = tmp_path / "three.root"
    copy_events(DATA / "svj_v15.root", path, baskets=3)
    damage(path, "FatJetPFCand_jetIdx", basket=1)
    report = run({"svj": entry(path)}, tmp_path / "r", chunksize=50, allow_missing=True)
    assert [(f["start"], f["stop"]) for f in report.failed] == [(50, 100)]
    assert report.datasets["svj"]["events"] == report.datasets["svj"]["sumw"] == 100
    assert ad.load_results(tmp_path / "r").norm("svj") == pytest.approx(1000 / 100)


@pytest.mark.usefixtures("undrawn")
def test_an_incomplete_run_keeps_what_it_has_done_and_exits_with_one(tmp_path, capsys):
    bad = tmp_path / "bad.root"
    bad.write_text("hello" * 200)
    fileset = {"svj": entry(DATA / "svj_v15.root", bad)}
    with pytest.raises(IncompleteRun, match="bad.root: this is not a ROOT file") as caught:
        run(fileset, tmp_path / "r")
    assert caught.value.report.datasets["svj"]["events"] == 150
    stored = json.loads((tmp_path / "r" / "report.json").read_text())
    assert stored["complete"] is False
    assert ad.load_results(tmp_path / "r").histograms["svj"]["mt"].sum().value > 0
    (tmp_path / "fileset.json").write_text(json.dumps(fileset))
    words = ["run", "semivisible_jets", *LOOSE, "--config", "none", "--fileset", str(tmp_path / "fileset.json"), "-e", "iterative",
             "--model", str(DATA / "wnae.onnx"), "-o", str(tmp_path / "again")]  # fmt: skip
    assert cli.main(words) == 1
    out = capsys.readouterr()
    assert "bad.root: this is not a ROOT file" in out.err
    assert f"coffea-ad run --resubmit {tmp_path / 'again'}" in out.err
    assert cli.main([*words, "--allow-missing"]) == 0
    assert "missing:" in capsys.readouterr().out


def test_a_bug_is_never_skipped_as_a_bad_file(tmp_path):
    """A processor that fails on a later file only, where the check before the run does not look."""
    path = tmp_path / "late.py"
    path.write_text('''"""Fails on one file."""
from coffea import processor
from pydantic import BaseModel

class Config(BaseModel):
    pass

class Processor(processor.ProcessorABC):
    def __init__(self, config, taggers=(), output=None):
        pass
    def process(self, events):
        if "qcd" in events.metadata["filename"]:
            raise OSError("this is the user's own")
        return {events.metadata["dataset"]: {"events": len(events)}}
    def postprocess(self, accumulator):
        return accumulator
''')
    fileset = {"both": entry(DATA / "svj_v15.root", DATA / "qcd_v15.root")}
    for kwargs in ({}, {"allow_missing": True}):
        with pytest.raises(ProcessorFailed, match="OSError: this is the user's own(.|\n)*raise OSError"):
            ad.run(fileset, path, executor="iterative", progress=False, **kwargs)


def test_a_bug_on_the_first_events_ends_the_run_before_anything_is_sent_out(tmp_path, monkeypatch):
    path = tmp_path / "early.py"
    path.write_text('"""Fails."""\nfrom pydantic import BaseModel\nclass Config(BaseModel):\n    pass\n'
                    "class Processor:\n    def __init__(self, *_):\n        pass\n    def process(self, events):\n"
                    "        return events.NoSuchThing\n")  # fmt: skip
    monkeypatch.setattr("coffea_ad.running.plan.executor_on", None)  # would fail if it were reached
    with pytest.raises(ProcessorFailed, match="svj_v15.root, first events: the processor raised AttributeError"):
        ad.run({"svj": entry(DATA / "svj_v15.root")}, path, executor="iterative", progress=False)


def test_a_file_that_changes_during_the_run_is_not_read(tmp_path, monkeypatch):
    from coffea_ad.running import plan

    path = tmp_path / "changing.root"
    path.write_bytes((DATA / "svj_v15.root").read_bytes())
    before = plan.open_files

    def then_change(*args):
        out = before(*args)
        path.write_bytes((DATA / "qcd_v15.root").read_bytes())
        return out

    monkeypatch.setattr(plan, "open_files", then_change)
    with pytest.raises(IncompleteRun, match="changing.root: it is another file than when the run began"):
        run({"svj": entry(path)}, None)


def test_the_first_file_is_checked_in_the_beginning(tmp_path):
    with pytest.raises(BadFile, match="no.root: there is no such file"):
        run({"svj": entry(tmp_path / "no.root")}, None)
