"""Skims, results and checkpoints at fsspec URLs: the same as in local folders. In memory here; on real servers in test_servers."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest
from toys import DATA, HERE, assert_identical

import coffea_ad as ad
from coffea_ad import files
from coffea_ad.cli.main import main
from coffea_ad.errors import BadFile, ConfigError, IncompleteRun, NotWritten, SkimError
from coffea_ad.running.checkpoints import Checkpoints
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.reading import load_skim

FILESET = {
    n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
    for n, x in (("svj", 1.0), ("qcd", 1000.0))
}


@pytest.fixture
def memory():
    """A remote storage, empty at the end."""
    storage = fsspec.filesystem("memory")
    yield storage
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Where the counting processor keeps its log."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def search(output, fileset=FILESET, **kwargs):
    return ad.run(
        fileset, HERE / "counting_processor.py", overrides=["folder=."], executor="iterative", output=output,
        progress=False, preflight=False, **kwargs,
    )  # fmt: skip


def skim(output, fileset=FILESET, **kwargs):
    return ad.run(fileset, "skim_jets", executor="iterative", chunksize=100, output=output, progress=False, **kwargs)


def test_a_path_is_a_url_only_with_a_protocol():
    assert [files.is_url(p) for p in ("a/b", "/a", "file:///a", "s3://b/a", "root://h//a", "C:/a")] == [
        False, False, False, True, True, False,
    ]  # fmt: skip
    assert files.join("root://h//a/", "b", "c") == "root://h//a/b/c"
    assert files.join("file:///a", "b") == "/a/b"
    assert files.absolute("s3://b/a/") == "s3://b/a"


@pytest.mark.parametrize("where", ["local", "memory"])
def test_a_file_takes_the_place_of_another_as_a_whole_or_not_at_all(where, tmp_path, memory):
    path = str(tmp_path / "new" / "a.txt") if where == "local" else "memory://new/a.txt"
    files.write(path, b"old")

    def interrupted():
        with files.replacing(path) as file:
            file.write(b"half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert files.read(path) == b"old"
    with files.replacing(path) as file:
        file.write(b"new")
        assert files.read(path) == b"old"
    assert files.read(path) == b"new"
    names = [p.name for p in (tmp_path / "new").iterdir()] if where == "local" else memory.ls("/new", detail=False)
    assert [n.rpartition("/")[2] for n in names] == ["a.txt"]  # nothing temporary is left
    files.remove(path)
    files.remove(path)
    assert not files.exists(path)
    with pytest.raises(BadFile, match=r"a.txt: there is no such file"):
        files.read(path)


def test_what_cannot_be_written_is_one_sentence_with_the_path(tmp_path, memory, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"file/a.txt: cannot be written \(.*file is a file, not a folder\)"):
        files.write(tmp_path / "file" / "a.txt", b"")
    monkeypatch.setattr(
        type(memory), "mv", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(NotWritten, match=r"memory://a/b.txt: cannot be written \(No space left on device\)"):
        files.write("memory://a/b.txt", b"")
    assert memory.find("/a") == []


def test_a_server_that_renames_onto_nothing_only_is_written_to(memory, monkeypatch):
    move = type(memory).mv

    def careful(self, source, target, **kwargs):
        if self.exists(target):
            raise OSError(17, "File exists")
        move(self, source, target, **kwargs)

    monkeypatch.setattr(type(memory), "mv", careful)
    files.write("memory://a/b.txt", b"1")
    files.write("memory://a/b.txt", b"2")
    assert files.read("memory://a/b.txt") == b"2"


@pytest.mark.parametrize(
    ("address", "extra"), [("root://h//a", "xrootd"), ("s3://b/a", "s3"), ("nosuch://a", "a filesystem")]
)
def test_a_missing_package_is_named_with_its_extra(address, extra, monkeypatch):
    def absent(protocol, *_, **__):
        raise ImportError(f"install something for {protocol}. And a remark about root directories")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    for call in (files.read, files.exists, lambda a: Checkpoints(a, "key")):
        with pytest.raises(ConfigError, match=f"{address}: .*needs .*{extra}"):
            call(address)


def test_results_and_checkpoints_at_a_url_are_those_of_a_local_folder(tmp_path, memory):
    search(tmp_path / "local")
    first = search("memory://results", checkpoints="memory://kept")
    again = search("memory://more/results", checkpoints="memory://kept")
    assert (first.throughput["resumed_chunks"], again.throughput["resumed_chunks"]) == (0, 2)
    local, remote = ad.load_results(tmp_path / "local"), ad.load_results("memory://results/")
    assert_identical(local.histograms, remote.histograms)
    assert_identical(local.histograms, ad.load_results("memory://more/results").histograms)
    assert sorted(p.rpartition("/")[2] for p in memory.find("/results")) == [
        "histograms.zip", "report.json",
    ]  # fmt: skip
    assert len(memory.find("/kept")) == 2


def test_a_resubmission_and_a_merge_work_at_urls(tmp_path, memory):
    late = tmp_path / "late.root"
    fileset = {
        **FILESET,
        "svj": {"files": {**FILESET["svj"]["files"], str(late): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}},
    }
    with pytest.raises(IncompleteRun, match=r"late.root"):
        search("memory://results", fileset)
    late.write_bytes((DATA / "svj_pfnano.root").read_bytes())
    assert ad.resubmit("memory://results", executor="iterative", progress=False).complete
    search(tmp_path / "whole", fileset)
    expected = ad.load_results(tmp_path / "whole").histograms
    assert_identical(expected, ad.load_results("memory://results").histograms)
    for name, entry in fileset.items():
        search(f"memory://each/{name}", {name: entry})
    ad.merge([f"memory://each/{name}" for name in sorted(fileset)], "memory://merged")
    assert_identical(expected, ad.load_results("memory://merged").histograms)
    with pytest.raises(ConfigError, match="memory://merged: there are results in it already"):
        ad.merge([f"memory://each/{name}" for name in sorted(fileset)], "memory://merged")


def test_a_skim_at_a_url_is_that_of_a_local_folder(tmp_path, memory):
    skim(tmp_path / "local")
    skim("memory://skims/")
    assert list(Path().iterdir()) == []  # and no folder of the name memory:
    manifests = [json.loads(files.read(f"{folder}/manifest.json")) for folder in (tmp_path / "local", "memory://skims")]
    for key in ("files", "sumw", "rows"):
        assert {d: m[key] for d, m in manifests[0]["datasets"].items()} == {
            d: m[key] for d, m in manifests[1]["datasets"].items()
        }
    local, remote = (load_skim(folder, "jet_substructure") for folder in (tmp_path / "local", "memory://skims"))
    np.testing.assert_array_equal(local.x, remote.x)
    np.testing.assert_array_equal(local.weight, remote.weight)
    assert local.provenance["files"].keys() == remote.provenance["files"].keys()


def test_a_finished_chunk_of_a_skim_is_done_again_only_if_its_remote_file_is_gone(memory):
    options = {"checkpoints": "memory://kept", "fileset": {"svj": FILESET["svj"]}}
    assert skim("memory://skims", **options).throughput["resumed_chunks"] == 0
    assert skim("memory://skims", **options).throughput["resumed_chunks"] == 2
    memory.rm_file(memory.find("/skims/svj")[0])
    assert skim("memory://skims", **options).throughput["resumed_chunks"] == 1
    assert len(memory.find("/skims/svj")) == 2


def test_a_remote_skim_whose_files_change_is_read_anew(memory):
    skim("memory://skims", {"svj": FILESET["svj"]})
    paths = skim_files("memory://skims")["svj"]
    assert len(load_skim("memory://skims", "jet_substructure").x) > 0
    files.write(paths[0], b"no parquet")
    with pytest.raises(SkimError, match=rf"{paths[0]}: not a readable parquet file"):
        load_skim("memory://skims", "jet_substructure")
    files.remove(paths[1])
    files.remove(paths[0])
    with pytest.raises(BadFile, match=rf"{paths[0]}: there is no such file"):
        load_skim("memory://skims", "jet_substructure")
    with pytest.raises(SkimError, match=r"memory://nothing: there is no skim here"):
        load_skim("memory://nothing", "jet_substructure")
    with pytest.raises(BadFile, match=r"memory://nothing: there is no report.json"):
        ad.load_results("memory://nothing")


def test_regions_come_from_remote_results_and_skims_and_go_to_a_remote_file(memory, tmp_path, capsys):
    skim("memory://skims", {"qcd": FILESET["qcd"]})
    model = "memory://models/wnae.onnx"
    files.write(model, (DATA / "wnae.onnx").read_bytes())
    words = ["regions", model, "--from", "memory://skims", "--datasets", "qcd", "--efficiency", "0.5"]
    assert main([*words, "-o", "memory://models/new.onnx"]) == 0, capsys.readouterr().err
    tagger = ad.Tagger("memory://models/new.onnx")
    assert [r.efficiency for r in tagger.card.regions] == [0.5]


@pytest.mark.parametrize("words", [["simulate", "svj", "-o", "root://h//a.root"], ["cp", "skim_jets", "s3://b/skim.py"],
                                   ["evaluate", "m.onnx", "--background", "s", "-o", "s3://b/e"],
                                   ["run", "pca", "-o", "root://h//m.onnx", "data=s"]])  # fmt: skip
def test_what_writes_to_local_paths_only_says_so(words, capsys):
    pytest.importorskip("torch") if words[0] == "run" else None
    assert main(words) == 1
    assert "writes to local paths only" in capsys.readouterr().err
    assert list(Path().iterdir()) == []
