"""Filesets as coffea's own tools, physicists and Python objects write them."""

from __future__ import annotations

import gzip
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import awkward as ak
import numpy as np
import pytest
import yaml
from coffea.dataset_tools import DataGroupSpec
from coffea.dataset_tools.preprocess import _datagroupspec_to_dict, get_steps
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad.cli.main import main
from coffea_ad.errors import ConfigError
from coffea_ad.filesets import load_fileset
from coffea_ad.filesets.building import build_fileset, write_fileset
from coffea_ad.filesets.metadata import settled_metadata
from coffea_ad.filesets.validation import validate_fileset

DAS = (
    "/SVJ_mMed-2000_TuneCP5_13TeV-pythia8/RunIISummer20UL18NanoAODv9-106X_upgrade2018_realistic_v16_L1v1-v1/NANOAODSIM"
)
SAFE = DAS[1:].replace("/", "__")
SVJ = str(DATA / "svj_v15.root")
MC = {"is_mc": True, "xsec": 1.0}


def search(fileset, **kwargs):
    return ad.run(fileset, "semivisible_jets", executor="iterative", progress=False, **kwargs)


@pytest.fixture
def discovery(monkeypatch):
    """coffea's discovery of datasets, with a catalogue of one dataset instead of rucio's."""
    rucio, client = ModuleType("rucio"), ModuleType("rucio.client")
    client.Client = object
    monkeypatch.setitem(sys.modules, "rucio", rucio)
    monkeypatch.setitem(sys.modules, "rucio.client", client)
    names = ("coffea.dataset_tools.rucio_utils", "coffea.dataset_tools.dataset_query")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    utils, query = (importlib.import_module(name) for name in names)
    primary, processed, tier = DAS[1:].split("/")
    monkeypatch.setattr(utils, "query_dataset", lambda *_, **__: ([DAS], {primary: {processed: [tier]}}))
    monkeypatch.setattr(utils, "get_dataset_files_replicas", lambda *_, **__: ([[SVJ]], [["T2_XY"]], {"T2_XY": 1}))
    cli = query.DataDiscoveryCLI()
    cli.load_dataset_definition({"/SVJ*/*/NANOAODSIM": dict(MC)}, replicas_strategy="first")
    return cli


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_what_coffeas_discovery_saves_runs(discovery, tmp_path, suffix, capsys):
    saved = tmp_path / f"output{suffix}"
    discovery.do_save(str(saved))
    fileset = load_fileset(saved)
    assert fileset == {SAFE: {"files": {SVJ: "Events"}, "metadata": {"das_name": DAS, **MC}}}
    report = search(saved, output=tmp_path / "results")
    assert report.datasets[SAFE]["events"] == 150
    assert ad.load_results(tmp_path / "results").report["datasets"][SAFE]["metadata"]["das_name"] == DAS
    assert main(["run", "skim_jets", "--fileset", str(saved), "-e", "iterative", "-o", str(tmp_path / "skims")]) == 0
    assert len(list((tmp_path / "skims" / SAFE).glob("*.parquet"))) == 1


def preprocessed(path, step_size):
    """A fileset after coffea's preprocessing: its own steps, in its own form."""
    files = ak.Array([{"file": str(path), "object_path": "Events", "steps": None, "num_entries": None, "uuid": None}])
    (entry,) = get_steps(files, step_size=step_size, legacy_form_key=False).to_list()
    entry = {k: entry[k] for k in ("object_path", "steps", "num_entries", "uuid")}
    return DataGroupSpec({"svj": {"files": {str(path): entry}, "metadata": dict(MC)}})


def test_what_coffeas_preprocessing_saves_is_read_as_a_whole(tmp_path):
    spec = preprocessed(SVJ, 40)
    assert len(spec.steps["svj"][SVJ]) == 4
    saved = tmp_path / "output_available.json.gz"
    with gzip.open(saved, "wt") as file:
        json.dump(_datagroupspec_to_dict(spec), file)
    for source in (saved, spec, _datagroupspec_to_dict(spec)):
        assert load_fileset(source) == {"svj": {"files": {SVJ: "Events"}, "metadata": MC}}


def test_steps_that_cover_a_part_are_honoured(tmp_path):
    """Events 0-37 and 76-113 of 150: coffea's own choice of two of its four steps."""
    part = preprocessed(SVJ, 40).limit_steps(slice(None, None, 2))
    steps = [[0, 38], [76, 114]]
    assert part.steps["svj"][SVJ] == steps
    fileset = load_fileset(part)
    assert fileset["svj"]["steps"] == {SVJ: steps}
    for chunksize in (100, 20):
        report = search(part, chunksize=chunksize)
        assert report.datasets["svj"]["events"] == 76
        assert report.complete
        assert "svj: read in part, as its steps say: 76 of the 150 events in its files" in report.notes
    whole = copy_events(
        SVJ, tmp_path / "part.root", change=lambda c: c.update({k: v[np.r_[0:38, 76:114]] for k, v in c.items()})
    )
    same = search({"svj": {"files": [str(whole)], "metadata": MC}}).datasets["svj"]
    assert report.datasets["svj"]["cutflow"] == same["cutflow"]
    assert report.datasets["svj"]["sumw"] == pytest.approx(same["sumw"])
    assert search(part, limit_chunks=1, chunksize=10_000).datasets["svj"]["events"] == 38

    # the command line keeps them, in coffea's form
    (tmp_path / "f.json").write_text(json.dumps(_datagroupspec_to_dict(part)))
    assert main(["fileset", str(tmp_path / "f.json"), "-o", str(tmp_path / "g.json.gz")]) == 0
    assert load_fileset(tmp_path / "g.json.gz")["svj"]["steps"] == {SVJ: steps}
    assert DataGroupSpec(json.loads(gzip.decompress((tmp_path / "g.json.gz").read_bytes()))).steps["svj"][SVJ] == steps


def test_steps_beyond_the_end_of_a_file_are_refused():
    entry = {"object_path": "Events", "steps": [[100, 200]], "num_entries": 200}
    with pytest.raises(ConfigError, match=r"dataset svj: the steps of .*svj_v15.root end at event 200, but it has 150"):
        search({"svj": {"files": {SVJ: entry}, "metadata": MC}})


@pytest.mark.parametrize(
    ("steps", "match"),
    [
        ([[0, 10], [5, 20]], "the steps of .* overlap"),
        ([[10, 5]], "must run forwards, not from 10 to 5"),
        ([[0]], r"must be pairs of whole numbers, not \[0\]"),
        ([[0, 1.5]], "must be pairs of whole numbers"),
        ("0-10", r"must be a list of \[start, stop\]"),
    ],
)
def test_steps_that_cannot_be_are_refused(steps, match):
    with pytest.raises(ConfigError, match=match):
        load_fileset({"svj": {"files": {SVJ: {"object_path": "Events", "steps": steps}}}})


@pytest.mark.parametrize(
    ("entry", "files"),
    [
        (SVJ, {SVJ: "Events"}),
        ([SVJ], {SVJ: "Events"}),
        ((SVJ,), {SVJ: "Events"}),
        ({SVJ: "Events"}, {SVJ: "Events"}),
        ({SVJ: None}, {SVJ: "Events"}),
        ({"files": SVJ}, {SVJ: "Events"}),
        ({"files": Path(SVJ)}, {SVJ: "Events"}),
        ({"files": {Path(SVJ)}}, {SVJ: "Events"}),
        ({"files": [f"{SVJ}:Other"]}, {SVJ: "Other"}),
        ({"files": {f"{SVJ}:Events": None}}, {SVJ: "Events"}),
        ({"files": [SVJ], "treename": "Other", "metadata": None}, {SVJ: "Other"}),
        ({"files": {SVJ: {"object_path": "Events", "steps": None, "num_entries": None}}}, {SVJ: "Events"}),
        (["root://host:1094//store/a.root:Events"], {"root://host:1094//store/a.root": "Events"}),
    ],
    ids=str,
)
def test_files_are_taken_in_every_form(entry, files):
    assert load_fileset({"x": entry})["x"] == {"files": files, "metadata": {}}


@pytest.mark.parametrize(
    ("fileset", "match"),
    [
        ({"x": []}, "dataset x: there are no files"),
        ({"x": {"metadata": {}}}, "dataset x: there are no files"),
        ({"x": [3]}, "dataset x: a file is 3, but must be a path or an address"),
        ({"x": [b"a.root"]}, "dataset x: a file is b'a.root'"),
        ({"x": [SVJ, f"{SVJ}:Events"]}, "is there twice"),
        ({"x": ["a.parquet"]}, "a.parquet is no ROOT file; parquet is not read here"),
        ({"x": [os.fsdecode(b"/data/\xff.root")]}, r"dataset x: file '/data/\\udcff.root': its name holds bytes that are no text"),
        ({os.fsdecode(b"\xff"): [SVJ]}, r"dataset '\\udcff': its name holds bytes that are no text"),
        ({("a", 1): [SVJ]}, r"dataset \('a', 1\): its name must be a text"),
        ({"a/b": [SVJ]}, "dataset 'a/b': its name becomes a folder"),
        ({DAS: [SVJ], SAFE: [SVJ]}, "would have the same name here"),
        ([SVJ], "a fileset is a path or a mapping, not a list"),
    ],
    ids=lambda v: str(v)[:60],
)  # fmt: skip
def test_what_cannot_be_a_fileset_gets_one_sentence(fileset, match):
    with pytest.raises(ConfigError, match=match) as caught:
        load_fileset(fileset)
    assert "\n" not in str(caught.value)


def test_names_of_datasets_become_folders():
    long = "/" + "X" * 90 + "/" + "Y" * 190 + "/NANOAODSIM"
    fileset = load_fileset({2018: SVJ, Path("tt"): SVJ, "tät": SVJ, long: SVJ})
    names = list(fileset)
    assert names[:3] == ["2018", "tt", "tät"]
    assert len(names[3].encode()) <= 200
    assert fileset[names[3]]["metadata"] == {"das_name": long}


def test_files_and_datasets_with_names_in_any_script_run(tmp_path):
    path = tmp_path / "Müller" / "söü.root"
    path.parent.mkdir()
    shutil.copy(SVJ, path)
    report = search({"tät": {"files": [str(path)], "metadata": MC}}, output=tmp_path / "r")
    assert report.datasets["tät"]["events"] == 150
    assert ad.load_results(tmp_path / "r").histograms["tät"]


@pytest.mark.parametrize(
    ("name", "data", "match"),
    [
        ("f.json.gz", b"\x1f\x8bnonsense", "f.json.gz: the fileset is damaged: it cannot be decompressed"),
        ("f.yaml", b"a: [b", r"f.yaml: the fileset is not valid YAML \(line 1"),
        ("f.json", b"\xff\xfe", "f.json: the fileset is not JSON text"),
        ("f.json", b"{", r"f.json: the fileset is not valid JSON \(line 1"),
        ("f.yaml", b"", "f.yaml: a fileset maps datasets to files"),
    ],
)
def test_files_that_are_no_filesets_are_named(tmp_path, name, data, match):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=match):
        load_fileset(tmp_path / name)
    with pytest.raises(ConfigError, match="no.yaml: the fileset cannot be read"):
        load_fileset(tmp_path / "no.yaml")


def test_metadata_become_what_json_has_under_one_name():
    metadata = {
        "isMC": np.bool_(True),
        "cross_section": np.float32(2),
        "ecm": np.int64(13600),
        "eras": ("C", "D"),
        "n": np.arange(2),
    }
    settled = settled_metadata("tt", metadata)
    assert {k: settled[k] for k in ("is_mc", "xsec", "sqrt_s")} == {"is_mc": True, "xsec": 2.0, "sqrt_s": 13600.0}
    assert settled["eras"] == ["C", "D"]
    assert json.loads(json.dumps(settled)) == settled
    assert settled["is_mc"] is True
    assert settled_metadata("tt", {"is_mc": 0}) == {"is_mc": False}
    assert settled_metadata("tt", yaml.safe_load("{day: 2022-07-05}")) == {"day": "2022-07-05"}


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"is_mc": "False"}, "dataset tt: is_mc is 'False', but must be true or false"),
        ({"is_mc": None}, "dataset tt: is_mc is None, but must be true or false"),
        ({"isMC": 2}, "dataset tt: isMC is 2"),
        ({"is_mc": True, "isMC": False}, "is_mc and isMC contradict each other"),
        ({"xsec": 1, "cross_section": 2}, "xsec and cross_section contradict each other"),
        ({"xsec": "many"}, "xsec is 'many', but must be a positive number of pb"),
        ({"sqrt_s": 13.6}, "sqrt_s is 13.6, but must be a number of GeV"),
        ({"weight": float("nan")}, "dataset tt: weight is nan, which is no number"),
        ({2022: "x"}, "dataset tt: 2022 in the metadata is no text"),
        ({"f": print}, "dataset tt: f is a builtin_function_or_method, which JSON has not"),
        ([1], "dataset tt: metadata must be keys and values"),
        ({"filename": None, "uuid": 1}, "dataset tt: coffea sets filename, uuid itself; take another key"),
    ],
)
def test_metadata_that_cannot_be_right_get_one_sentence(metadata, match):
    with pytest.raises(ConfigError, match=match):
        settled_metadata("tt", metadata)


def test_a_name_in_das_may_stand_on_the_command_line(tmp_path):
    out = tmp_path / "f.json"
    words = [f"{DAS}={SVJ}:Events", "--xsec", f"{DAS}=1.5", "--meta", f"{DAS}.era=A", "-o", str(out)]
    assert main(["fileset", *words]) == 0
    ((name, entry),) = load_fileset(out).items()
    assert name == SAFE
    assert entry["files"] == {SVJ: "Events"}
    assert {k: entry["metadata"][k] for k in ("das_name", "xsec", "era")} == {"das_name": DAS, "xsec": 1.5, "era": "A"}


def test_the_cross_section_of_our_own_files_is_taken_over(tmp_path, capsys):
    files = {n: tmp_path / f"{n}.root" for n in ("qcd", "svj", "ttbar")}
    for name, path in files.items():
        shutil.copy(DATA / f"{name}_v15.root", path)
    out = tmp_path / "f.json"
    assert main(["fileset", *(f"{n}={p}" for n, p in files.items()), "--xsec", "ttbar=831.8", "-o", str(out)]) == 0
    shown = capsys.readouterr().out
    written = load_fileset(out)
    record = json.loads(str(__import__("uproot").open(files["qcd"])["simulation"]))
    ours = {"is_mc": True, "campaign": "simulation", "sqrt_s": 13000.0}
    assert written["qcd"]["metadata"] == {**ours, "xsec": record["cross_section"]}
    assert "note: qcd: xsec of 4007.4 pb is taken over from its files" in shown
    assert written["svj"]["metadata"] == {**ours, "signal": True}  # of forced width: Pythia's number means nothing
    assert "note: svj: simulated signal without xsec (pb): the generator's number means nothing for it" in shown
    assert written["ttbar"]["metadata"]["xsec"] == 831.8
    clash = {"qcd": {"files": [str(files["qcd"])], "metadata": {**MC, "year": 2022, "era": "C"}}}
    sentences = [f.sentence for f in validate_fileset(clash)]
    assert "qcd: √s is 13600 GeV by its metadata and 13000 GeV by its files" in sentences
    assert "qcd: its campaign is 2022 by its metadata, but its files were made by coffea-ad simulate" in sentences


def test_files_of_two_processes_have_no_common_cross_section(tmp_path):
    from coffea_ad.filesets.inspection import inspect_files
    from coffea_ad.filesets.validation import with_kinds

    fileset = build_fileset({"both": [str(DATA / "qcd_v15.root"), str(DATA / "ttbar_v15.root")]})
    metadata = with_kinds(fileset, inspect_files(fileset))["both"]["metadata"]
    assert metadata == {"is_mc": True, "campaign": "simulation", "sqrt_s": 13000.0}
    write_fileset(fileset, tmp_path / "f.json")
    assert load_fileset(tmp_path / "f.json") == fileset
