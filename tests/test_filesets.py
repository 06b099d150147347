"""Filesets from every kind of source, the sentence for everything that is wrong, and what a run makes of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import uproot
from coffea import processor
from toys import DATA, bare_events, copy_events

import coffea_ad as ad
from coffea_ad.cli.main import main
from coffea_ad.errors import ConfigError
from coffea_ad.filesets import load_fileset
from coffea_ad.filesets.building import build_fileset, parse_metadata, write_fileset
from coffea_ad.filesets.inspection import InspectedFile, inspect_files
from coffea_ad.filesets.sources import parse_sources
from coffea_ad.filesets.validation import findings_of, validate_fileset

MC = {"is_mc": True, "xsec": 1.0}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with a few files, none of which has to be opened."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "qcd/b.root",
        "qcd/a.root",
        "qcd/deep/c.root",
        "qcd/.part.root",
        "qcd/log.txt",
        "tt/t1.root",
        "odd=x/o.root",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "none").mkdir()
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "qcd.txt").write_text(
        "# made by hand\n\n../qcd/a.root  # the first\r\n../qcd/deep\n../t*/t?.root\nroot://host//store/x.root?a#b\n"
    )
    (tmp_path / "lists" / "empty.txt").write_text("\n  # nothing\n")
    (tmp_path / "lists" / "binary.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "link").symlink_to(tmp_path / "qcd")
    return tmp_path


@pytest.fixture
def memory():
    """A remote storage that needs no network."""
    storage = fsspec.filesystem("memory")
    for name in ("svj", "qcd"):
        storage.pipe(f"/store/{name}.root", (DATA / f"{name}_v15.root").read_bytes())
    yield storage
    storage.rm("/store", recursive=True)


def paths_of(fileset, dataset, folder):
    return [p.removeprefix(f"{folder}/") for p in fileset[dataset]["files"]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("qcd/a.root", ["qcd/a.root"]),
        ("file://{}/qcd/a.root", ["qcd/a.root"]),
        ("./tt/../qcd/a.root", ["qcd/a.root"]),
        ("qcd", ["qcd/a.root", "qcd/b.root", "qcd/deep/c.root"]),
        ("link/", ["qcd/a.root", "qcd/b.root", "qcd/deep/c.root"]),
        ("{}/qcd/*.root", ["qcd/a.root", "qcd/b.root"]),
        ("*/[ab].root", None),
        ("qcd/*", ["qcd/a.root", "qcd/b.root", "qcd/deep/c.root", "qcd/log.txt"]),
        ("qcd/**", ["qcd/a.root", "qcd/b.root", "qcd/deep/c.root", "qcd/log.txt"]),
        ("@lists/qcd.txt", ["qcd/a.root", "qcd/deep/c.root", "root://host//store/x.root?a#b", "tt/t1.root"]),
        ("nowhere.root", ["nowhere.root"]),
        ("root://host//store/a.root", ["root://host//store/a.root"]),
        ("https://host/a.root?token=x[1]", ["https://host/a.root?token=x[1]"]),
    ],
)
def test_every_kind_of_source(files, source, expected):
    if expected is None:  # through a link and without it: one file, two names
        with pytest.raises(ConfigError, match=r"qcd/a.root is in x twice; .*qcd/b.root is in x twice"):
            build_fileset({"x": [source]})
        return
    fileset = build_fileset({"x": [source.format(files)]})
    assert sorted(paths_of(fileset, "x", files)) == expected
    assert list(fileset["x"]["files"]) == sorted(fileset["x"]["files"])
    assert set(fileset["x"]["files"].values()) == {"Events"}


def test_a_file_whose_name_looks_like_a_glob_is_that_file(files):
    (files / "a[1].root").write_text("")
    assert paths_of(build_fileset({"x": ["a[1].root"]}), "x", files) == ["a[1].root"]


def test_sources_of_a_name_add_up_and_datasets_are_sorted(files):
    fileset = build_fileset({"tt": ["tt"], "qcd": ["qcd/a.root", "qcd/deep"]}, tree="Other")
    assert list(fileset) == ["qcd", "tt"]
    assert paths_of(fileset, "qcd", files) == ["qcd/a.root", "qcd/deep/c.root"]
    assert fileset["tt"]["files"][str(files / "tt/t1.root")] == "Other"


def test_remote_globs_are_expanded_where_a_filesystem_is_installed(memory):
    fileset = build_fileset({"x": ["memory://store/*.root"]})
    assert list(fileset["x"]["files"]) == ["memory:///store/qcd.root", "memory:///store/svj.root"]
    with pytest.raises(ConfigError, match=r"memory://store/\*.txt: there is no such file"):
        build_fileset({"x": ["memory://store/*.txt"]})


def test_words_of_a_command_line(files):
    assert parse_sources(["old.json", "tt=", "tt/t1.root", "odd=x/o.root", "qcd=@l.txt", "new.json", "tt=root://h//a=b"]) == (
        ["old.json", "new.json"],
        {"tt": ["tt/t1.root", "odd=x/o.root", "root://h//a=b"], "qcd": ["@l.txt"]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["qcd/a.root"], "qcd/a.root: say to which dataset it belongs, as in NAME=qcd/a.root"),
        (["x="], "dataset x: no files are given for it"),
        (["a b=qcd/a.root"], "dataset 'a b': its name becomes a folder"),
        (["x=none"], "none: there is no *.root file in this folder"),
        (["x=qcd/*.txtt"], "qcd/*.txtt: nothing matches"),
        (["x=@lists/no.txt"], "lists/no.txt: the list of files cannot be read (No such file or directory)"),
        (["x=@lists/empty.txt"], "lists/empty.txt: the list holds no files"),
        (["x=@lists/binary.txt"], "lists/binary.txt: the list of files is not a text file"),
        (["x=lists/qcd.txt"], "lists/qcd.txt: this is no ROOT file; a list is given as @lists/qcd.txt"),
        (["x=old.json"], "old.json: this is no ROOT file; a fileset takes no NAME="),
        (["x=~nobody-of-this-name/a.root"], "~nobody-of-this-name/a.root: Could not determine home directory"),
        (["x=@~nobody-of-this-name/a.txt"], "~nobody-of-this-name/a.txt: Could not determine home directory"),
        (["x=root://host//store/"], "folders are not searched over the network; give a glob, such as root://host//store/*.root"),
        (["x=davs://host/*.root"], "davs://host/*.root: davs:// needs a filesystem (Protocol not known: davs)"),
        (["x=http://127.0.0.1:9/*.root"], "http://127.0.0.1:9/*.root: cannot be listed"),
        (["no.json"], "no.json: the fileset cannot be read"),
        (["x=qcd/a.root", "x=qcd"], "events would count twice: {}/qcd/a.root is in x twice"),
        (["x=qcd/a.root", "y=link/a.root"], "events would count twice: {}/qcd/a.root is in x and in y"),
        (["x=qcd", "y=link", "-o", "no/f.json"], "no/f.json: there is no folder no"),
        (["x=qcd", "-o", "none"], "none: this is a folder"),
        (["x=qcd", "-o", "qcd/log.txt"], "qcd/log.txt exists already; choose another name, or overwrite it with --force"),
        (["x=qcd", "--no-validate", "--skip-bad"], "--skip-bad needs the files opened"),
        (["x=qcd", "--workers", "0"], "workers is 0, but must be positive"),
        (["x=qcd", "--xsec", "y=1"], "metadata: unknown dataset 'y'. Known: x"),
        (["qcd=qcd", "--xsec", "qdc=1"], "unknown dataset 'qdc'; did you mean 'qcd'?"),
        (["x=qcd", "--xsec", "1000"], "--xsec 1000: the form is NAME=PB"),
        (["x=qcd", "--xsec", "x=many"], "dataset x: xsec is 'many', but must be a positive number of pb"),
        (["x=qcd", "--xsec", "x=-1"], "dataset x: xsec is '-1', but must be a positive number of pb"),
        (["x=qcd", "--meta", "x.xsec=0"], "dataset x: xsec is 0, but must be a positive number of pb"),
        (["x=qcd", "--meta", "x.cross_section=1", "--xsec", "x=1"], "--meta x.cross_section=1: cross_section of x is given twice"),
        (["x=qcd", "--meta", "x.is_mc=true", "--data", "x"], "--meta x.is_mc=true: is_mc of x is given twice"),
        (["x=qcd", "--meta", "x.is_mc=perhaps"], "dataset x: is_mc is 'perhaps', but must be true or false"),
        (["x=qcd", "--meta", "year=2022"], "--meta year=2022: the form is NAME.key=value"),
        (["x=qcd", "--meta", "x.year"], "--meta x.year: the form is NAME.key=value"),
        (["x=qcd", "--meta", "x.year=[2022"], "--meta x.year=[2022: the value cannot be read"),
        (["x=qcd", "--meta", "x.uuid=1", "--meta", "x.dataset=1"], "dataset x: coffea sets dataset, uuid itself; take another key"),
    ],
)  # fmt: skip
def test_wrong_words_end_in_one_sentence(files, capsys, words, sentence):
    assert main(["fileset", *words]) == 1
    err = capsys.readouterr().err
    assert sentence.format(files) in err.replace("\n", " ")
    assert "Traceback" not in err


def test_from_python_one_text_is_no_list_of_sources(files):
    with pytest.raises(ConfigError, match="dataset x: its sources are a list, not one text"):
        build_fileset({"x": "qcd"})
    with pytest.raises(ConfigError, match="dataset x: no files are given for it"):
        build_fileset({"x": []})


def test_many_duplicates_are_counted(files):
    for n in range(9):
        (files / f"{n}.root").touch()
    with pytest.raises(ConfigError, match=r"4.root is in x and in y; 4 more$"):
        build_fileset({"x": ["?.root"], "y": ["?.root"]})


def test_metadata_is_yaml_and_what_json_lacks_stays_text():
    assert parse_metadata(["QCD.HT=2.5"], ["met"], ["QCD.HT.tags=[a, 1]", "met.day=2022-07-05", "met.x=.nan", "met.w=a=b"]) == {
        "QCD.HT": {"xsec": 2.5, "tags": ["a", 1]},
        "met": {"is_mc": False, "day": "2022-07-05", "x": ".nan", "w": "a=b"},
    }  # fmt: skip


def test_what_json_does_not_have_is_not_written(files):
    fileset = build_fileset({"x": ["tt"]}, metadata={"x": {"when": np.float32(1)}})
    assert fileset["x"]["metadata"] == {"when": 1.0}
    with pytest.raises(ConfigError, match="dataset x: by is a Figure, which JSON has not"):
        build_fileset({"x": ["tt"]}, metadata={"x": {"by": type("Figure", (), {})()}})
    fileset["x"]["metadata"]["when"] = np.float32(1)
    with pytest.raises(ConfigError, match="f.json: metadata that JSON does not have"):
        write_fileset(fileset, files / "f.json")
    assert not list(files.glob("f.json*"))


def test_existing_filesets_are_added_to_and_new_metadata_wins(files):
    old = {
        "qcd": {
            "files": ["qcd/a.root"],
            "treename": "Other",
            "metadata": {"isMC": True, "cross_section": 3, "year": 2022},
        }
    }
    Path("old.json").write_text(json.dumps(old))
    new = build_fileset({"qcd": ["qcd/b.root"], "tt": ["tt"]}, metadata={"qcd": {"xsec": 2.0}}, existing=["old.json"])
    assert new["qcd"] == {
        "files": {str(files / "qcd/a.root"): "Other", str(files / "qcd/b.root"): "Events"},
        "metadata": {"isMC": True, "is_mc": True, "year": 2022, "xsec": 2.0},
    }
    with pytest.raises(ConfigError, match=r"qcd/a.root is in qcd twice"):
        build_fileset({"qcd": ["qcd"]}, existing=["old.json"])
    with pytest.raises(ConfigError, match="dataset qcd: year is 2022 and 2023 in two filesets"):
        build_fileset({}, existing=[old, {"qcd": {"files": ["qcd/b.root"], "metadata": {"year": 2023}}}])
    steps = {"files": {"tt/t1.root": {"object_path": "Events", "steps": [[0, 1]]}}}
    part = build_fileset({}, existing=[{"tt": steps}])["tt"]
    assert part["files"] == {str(files / "tt/t1.root"): "Events"}
    assert part["steps"] == {str(files / "tt/t1.root"): [[0, 1]]}


def half(source, path, fraction=0.5):
    content = Path(source).read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


def write_tree(path, name="Events", **columns):
    columns = {k: np.asarray(v) for k, v in columns.items()}
    with uproot.recreate(path) as new:
        new.mktree(name, {k: v.dtype for k, v in columns.items()}).extend(columns)
    return path


def damage(path):
    """Zeros where the tree's own record stands."""
    with uproot.open(DATA / "svj_v15.root") as file:
        key = file.key("Events")
    content = bytearray((DATA / "svj_v15.root").read_bytes())
    start, stop = key.fSeekKey + key.fKeylen, key.fSeekKey + key.fNbytes
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def histogram(path):
    with uproot.recreate(path) as new:
        new["Events"] = np.histogram([1.0, 2.0])


IDS = {"run": [1, 1], "luminosityBlock": [1, 1], "event": [1, 2]}
ZOO = {
    "missing": (lambda _: None, "there is no such file"),
    "folder": (lambda p: p.mkdir(), "this is a folder"),
    "empty": (lambda p: p.touch(), "the file is empty (0 bytes)"),
    "short": (lambda p: p.write_text("hello"), "this is not a ROOT file (5 bytes)"),
    "text": (lambda p: p.write_text("hello" * 200), "this is not a ROOT file"),
    "damaged": (damage, "cannot be read ("),
    "other_tree": (lambda p: write_tree(p, "Other", x=[1.0]), "there is no tree 'Events'"),
    "histogram": (histogram, "'Events' is no tree, but TH1D"),
    "half": (lambda p: half(DATA / "svj_v15.root", p), "the file is cut: 214877 of 429755 bytes are there, and 8 of 115 branches end behind the last byte, "),
    "no_keys": (lambda p: p.write_bytes(b"root" + bytes(2000)), "there is no tree 'Events'"),
    "tenth": (lambda p: half(DATA / "svj_v15.root", p, 0.1), "the file is cut: 42975 of 429755 bytes are there"),
    "tail": (lambda p: half(DATA / "svj_v15.root", p, 0.995), "the file is cut: 427606 of 429755 bytes are there; the events are complete"),
    "no_blocks": (lambda p: write_tree(p, run=[1], event=[1], x=[1.0]), "there is no branch luminosityBlock, by which events are told apart"),
    "no_ids": (lambda p: write_tree(p, x=[1.0]), "there is no branch run and no luminosityBlock and no event, by which"),
    "no_weights": (lambda p: write_tree(p, **IDS), "there is no genWeight, but is_mc of zoo is true"),
}  # fmt: skip


@pytest.fixture
def zoo(tmp_path):
    folder = tmp_path / "zoo"
    folder.mkdir()
    for name, (make, _) in ZOO.items():
        make(folder / f"{name}.root")
    shutil.copy(DATA / "svj_v15.root", folder / "good.root")
    bare_events(folder / "no_events.root", 0)
    names = ["good", "no_events", *ZOO]
    return {"zoo": {"files": {str(folder / f"{n}.root"): "Events" for n in names}, "metadata": MC}}, folder


def test_every_bad_file_is_named_with_its_cause(zoo):
    fileset, folder = zoo
    findings = [f for f in validate_fileset(fileset, workers=3) if f.kind == "bad file"]
    assert [f.path for f in findings] == [str(folder / f"{name}.root") for name in ZOO]
    for finding, (name, (_, cause)) in zip(findings, ZOO.items(), strict=True):
        assert finding.dataset == "zoo"
        assert finding.sentence.startswith(f"{folder / name}.root: {cause}"), finding.sentence


def test_one_file_may_have_several_causes(tmp_path):
    whole = copy_events(DATA / "svj_v15.root", tmp_path / "whole.root", drop=("luminosityBlock",))
    path = half(whole, tmp_path / "x.root", 0.9999)
    cut, lacking = (f.sentence for f in validate_fileset({"x": entry(path, **MC)}))
    assert cut.startswith(f"{path}: the file is cut: ")
    assert lacking == f"{path}: there is no branch luminosityBlock, by which events are told apart"


def test_rntuples_are_read_without_looking_for_baskets(tmp_path):
    with uproot.recreate(tmp_path / "x.root") as new:
        new.mkrntuple("Events", {k: np.dtype("u4") for k in IDS}).extend(
            {k: np.array(v, np.uint32) for k, v in IDS.items()}
        )
    fileset = {"x": entry(tmp_path / "x.root", is_mc=False)}
    assert notes(fileset) == []
    assert inspect_files(fileset)["x"][str(tmp_path / "x.root")].events == 2


def test_a_basket_behind_the_end_is_found_where_the_header_does_not_tell(tmp_path):
    """A header that agrees with what is left of the file."""
    content = bytearray(half(DATA / "svj_v15.root", tmp_path / "x.root").read_bytes())
    content[12:16] = len(content).to_bytes(4, "big")
    (tmp_path / "x.root").write_bytes(content)
    fileset = {"x": {"files": {str(tmp_path / "x.root"): "Events"}, "metadata": MC}}
    (finding,) = validate_fileset(fileset)
    assert "x.root: 8 of 115 branches end behind the last byte, PFCand_pt for one" in finding.sentence


def test_logical_names_of_cms_get_a_hint():
    fileset = {"x": {"files": {"/store/mc/a.root": "Events"}, "metadata": MC}}
    (finding,) = validate_fileset(fileset)
    assert (
        "there is no such file; before a logical name of CMS put a redirector, as in root://host//store/"
        in finding.sentence
    )


def test_files_on_a_storage_that_nothing_can_read_are_refused_once(monkeypatch):
    def absent(protocol):
        raise ImportError(f"install a file system for {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    files = dict.fromkeys([f"root://host//store/{n}.root" for n in range(5)], "Events")
    with pytest.raises(
        ConfigError, match=r"0.root: root:// needs more packages: pip install 'coffea-ad\[xrootd\]'; without"
    ):
        inspect_files({"x": {"files": files, "metadata": {}}})


def test_remote_files_are_checked_like_local_ones(memory, tmp_path):
    memory.pipe("/store/half.root", half(DATA / "ttbar_v15.root", tmp_path / "x.root").read_bytes())
    fileset = build_fileset({"x": ["memory://store/*.root", "memory://store/no.root"]}, metadata={"x": MC})
    cut, missing = (f for f in validate_fileset(fileset) if f.kind == "bad file")
    assert "memory:///store/half.root: the file is cut: 118233 of 236467 bytes are there" in cut.sentence
    assert missing.sentence.startswith("memory://store/no.root: cannot be read (")


def test_the_same_file_under_two_names_is_refused_by_both(tmp_path):
    for name in ("a", "b"):
        shutil.copy(DATA / "svj_v15.root", tmp_path / f"{name}.root")
    a, b = str(tmp_path / "a.root"), str(tmp_path / "b.root")
    for fileset in (
        {"x": {"files": {a: "Events", b: "Events"}, "metadata": MC}},
        {"x": {"files": {a: "Events"}, "metadata": MC}, "y": {"files": {b: "Events"}, "metadata": MC}},
    ):
        (finding,) = validate_fileset(fileset)
        assert finding.kind == "duplicate"
        assert finding.sentence == f"{a} in x and {b} in {list(fileset)[-1]} are the same file (equal ROOT UUIDs)"


def notes(fileset):
    findings = validate_fileset(fileset)
    assert {f.kind for f in findings} <= {"note"}
    return [f.sentence for f in findings]


def entry(*paths, **metadata):
    return {"files": dict.fromkeys(map(str, paths), "Events"), "metadata": metadata}


def test_the_kind_follows_from_gen_weight_where_it_is_not_said(tmp_path):
    bare_events(tmp_path / "d.root", 3)
    assert notes({"x": entry(DATA / "svj_v15.root", xsec=1)}) == [
        "x: taken as simulation, since the metadata has no is_mc and genWeight is there"
    ]
    assert notes({"x": entry(tmp_path / "d.root")}) == ["x: taken as data, since the metadata has no is_mc and genWeight is not there"]  # fmt: skip
    assert notes({"x": entry(tmp_path / "d.root", isMC=False)}) == []
    assert notes({"x": entry(DATA / "svj_v15.root", is_mc=False)}) == [
        "x: data by its metadata, but genWeight is there"
    ]
    bare_events(tmp_path / "e.root", 0)
    assert notes({"x": entry(tmp_path / "e.root")}) == ["x: is_mc is not set, since its files hold no events"]


def test_simulation_and_data_in_one_dataset_get_no_kind(tmp_path, capsys):
    bare_events(tmp_path / "d.root", 3)
    sentences = notes({"x": entry(tmp_path / "d.root", DATA / "svj_v15.root")})
    assert (
        sentences[0] == "x: simulation and data are mixed: without (1 file), with genWeight (1 file); is_mc is not set"
    )
    out = tmp_path / "f.json"
    assert main(["fileset", f"x={tmp_path}", str(DATA / "svj_v15.root"), "-o", str(out)]) == 0
    assert load_fileset(out)["x"]["metadata"] == {}


def test_two_layouts_and_two_sets_of_branches_are_told_with_numbers(tmp_path):
    for name in ("svj", "qcd"):
        copy_events(DATA / f"{name}_v15.root", tmp_path / f"{name}.root", drop=("SubJet", "nSubJet"))
    sentences = notes({"x": entry(*(DATA / f"{n}.root" for n in ("svj_v15", "qcd_v15", "svj_pfnano")), **MC)})
    assert sentences[0] == "x: layouts are mixed: NanoAOD v15 (2 files), PFNano (1 file)"
    assert sentences[1].startswith("x: its files differ in branches (triggers apart): 2 files with 111 branches, 1 file without FatJetPFCand_jetIdx, ")  # fmt: skip
    (sentence,) = notes({"x": entry(*tmp_path.glob("*.root"), DATA / "ttbar_v15.root", **MC)})
    assert "2 files with 105 branches, 1 file with SubJet_eta, SubJet_mass, SubJet_phi, … (6)" in sentence


def test_trigger_menus_and_files_without_events_may_differ(tmp_path):
    bare_events(tmp_path / "none.root", 0)
    write_tree(tmp_path / "a.root", **IDS, HLT_A=[1, 0])
    write_tree(tmp_path / "b.root", **IDS, HLT_B=[1, 0], L1_C=[1, 0], DST_D=[0, 0])
    assert notes({"x": entry(*tmp_path.glob("*.root"), is_mc=False)}) == []


def test_many_sets_of_branches_are_counted(tmp_path):
    for n in range(6):
        write_tree(tmp_path / f"{n}.root", **IDS, **{f"x{n}": [0, 0]})
    (sentence,) = notes({"x": entry(*sorted(tmp_path.glob("*.root")), is_mc=False)})
    assert "1 file with 4 branches, 1 file without x0 and with x1, " in sentence
    assert sentence.endswith("2 files of 2 more kinds")


def test_files_that_were_skimmed_before_and_simulation_without_xsec_are_said(tmp_path):
    copy_events(DATA / "svj_v15.root", tmp_path / "s.root", stop=60, runs=True)
    assert notes({"x": entry(tmp_path / "s.root", is_mc=True)}) == [
        "x: simulation without xsec (pb), which normalised histograms need",
        "x: skimmed before: its Runs trees count 150 generated events, its files hold 60",
    ]


def test_a_server_that_gives_no_size_is_said():
    branches = frozenset({*IDS, "genWeight"})
    opened = InspectedFile(events=3, uuid="1", branches=branches, layout="NanoAOD v15")
    findings = findings_of({"x": entry("https://host/a.root", **MC)}, {"x": {"https://host/a.root": opened}})
    assert [f.sentence for f in findings] == [
        "x: for 1 file the server gives no size, so a cut would not have been found"
    ]


def test_the_command_line_writes_a_fileset_that_runs(fileset, model_file, tmp_path, capsys):
    out = tmp_path / "fileset.json"
    bare_events(tmp_path / "d.root", 3)
    svj, qcd = (tmp_path / f"{n}.root" for n in ("svj", "qcd"))
    words = [f"svj={svj}", "--xsec", "svj=1.5", f"qcd={tmp_path}/q*.root", f"data={tmp_path}/d.root", "-o", str(out),
             "--data", "data", "--xsec", "qcd=1000", "--meta", "qcd.year=2022"]  # fmt: skip
    assert main(["fileset", *words]) == 0
    shown = capsys.readouterr().out
    for word in ("svj", "200", "NanoAOD v15", "simulation", "data", "1000 pb", "429.8 kB", "fileset.json"):
        assert word in shown
    assert "note: svj: taken as simulation" in shown
    written = json.loads(out.read_text())
    ours = {"is_mc": True, "campaign": "simulation", "sqrt_s": 13000.0}
    assert written == {
        "data": {"files": {str(tmp_path / "d.root"): "Events"}, "metadata": {"is_mc": False}},
        "qcd": {"files": {str(qcd): "Events"}, "metadata": {**ours, "xsec": 1000.0, "year": 2022}},
        "svj": {"files": {str(svj): "Events"}, "metadata": {**ours, "signal": True, "xsec": 1.5}},
    }
    assert load_fileset(out) == written
    items = processor.Runner(processor.IterativeExecutor(status=False)).preprocess(str(out), treename="Events")
    assert sum(len(item) for item in items) == 353

    # what is there is neither overwritten nor left in pieces
    assert main(["fileset", f"svj={svj}", "-o", str(out)]) == 1
    assert "exists already; choose another name, or overwrite it with --force" in capsys.readouterr().err
    assert json.loads(out.read_text()) == written

    # an existing fileset is checked again, added to, and written over by force only
    assert main(["fileset", str(out)]) == 0
    assert "nothing was written; say where with -o" in capsys.readouterr().out
    shutil.copy(DATA / "ttbar_v15.root", tmp_path / "tt.root")
    assert main(["fileset", str(out), f"tt={tmp_path}/tt.root", "--xsec", "tt=831.8", "-o", str(out), "--force"]) == 0
    again = load_fileset(out)
    assert {k: again[k] for k in written} == written
    assert again.pop("tt")["metadata"] == {**ours, "xsec": 831.8}
    assert not out.with_name(out.name + ".part").exists()
    qcd.unlink()
    assert main(["fileset", str(out)]) == 1
    assert f"error: {qcd}: there is no such file" in capsys.readouterr().err


def test_a_run_takes_what_was_built(fileset, model_file, tmp_path):
    sources = {name: list(entry["files"]) for name, entry in fileset.items()}
    built = build_fileset(sources, metadata={name: entry["metadata"] for name, entry in fileset.items()})
    write_fileset(built, tmp_path / "f.json")
    report = ad.run(tmp_path / "f.json", "semivisible_jets", model=model_file, executor="iterative")
    assert report.complete
    assert {d: e["events"] for d, e in report.datasets.items()} == {"svj": 150, "qcd": 200}


def test_bad_files_keep_a_fileset_from_being_written_unless_they_are_left_out(zoo, tmp_path, capsys):
    fileset, folder = zoo
    out = tmp_path / "f.json"
    sources = [f"zoo={next(iter(fileset['zoo']['files']))}", *list(fileset["zoo"]["files"])[1:]]
    words = [*sources, "--meta", "zoo.is_mc=true", "--xsec", "zoo=2", "-o", str(out)]
    folder.joinpath("folder.root").rmdir()  # on the command line it would be searched
    words.remove(str(folder / "folder.root"))
    bad = [n for n in ZOO if n != "folder"]
    assert main(["fileset", *words]) == 1
    err = capsys.readouterr().err
    for name in bad:
        assert f"error: {folder / name}.root: " in err
    assert "error: nothing was written; --skip-bad leaves bad files out" in err
    assert not out.exists()
    assert main(["fileset", *words, "--skip-bad"]) == 0
    shown = capsys.readouterr().out
    for name in bad:
        assert f"left out: {folder / name}.root: " in shown
    assert list(load_fileset(out)["zoo"]["files"]) == [str(folder / "good.root"), str(folder / "no_events.root")]
    assert main(["fileset", f"x={folder}/text.root", "--skip-bad"]) == 1
    assert "error: dataset x: no good file is left" in capsys.readouterr().err


def test_of_duplicates_only_the_user_knows_which_one_stays(tmp_path, capsys):
    for name in ("a", "b"):
        shutil.copy(DATA / "svj_v15.root", tmp_path / f"{name}.root")
    assert main(["fileset", f"x={tmp_path}", "--skip-bad", "-o", str(tmp_path / "f.json")]) == 1
    err = capsys.readouterr().err
    assert "are the same file (equal ROOT UUIDs)" in err
    assert "error: nothing was written\n" in err
    assert not (tmp_path / "f.json").exists()


def test_without_validation_nothing_is_opened(files, capsys):
    words = ["x=root://host//store/a.root", "davs://host/a.root", "y=qcd", "--no-validate", "--meta", "y.isMC=true"]
    assert main(["fileset", *words, "-o", "f.json"]) == 0
    shown = capsys.readouterr().out
    assert "note: x: is_mc is not set, since none of its files was read" in shown
    assert "note: y: simulation without xsec" in shown
    assert list(load_fileset("f.json")["x"]["files"]) == ["davs://host/a.root", "root://host//store/a.root"]


def test_paths_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    folder = tmp_path / "[bold]"
    folder.mkdir()
    (folder / "x.root").touch()
    shutil.copy(DATA / "svj_v15.root", folder / "good.root")
    assert main(["fileset", f"x={folder}", "--skip-bad", "--xsec", "x=1"]) == 0
    assert f"left out: {folder}/x.root: the file is empty" in capsys.readouterr().out


def test_a_file_without_permission_is_named(monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("coffea_ad.filesets.inspection.ReadOnlyFile", refuse)  # a superuser reads everything
    path = DATA / "svj_v15.root"
    (finding,) = validate_fileset({"x": entry(path, **MC)})
    assert finding.sentence == f"{path}: cannot be read (Permission denied)"


@pytest.mark.real
def test_real_files_of_every_flavour(real, capsys):
    words = [
        f"{n}={real}/{n}.root"
        for n in ("nano_tt_v15", "pfnano", "nano_tt_v12", "nano_dy_empty", "nano_dimuon", "nano_tree")
    ]
    assert main(["fileset", *words, "--workers", "2"]) == 0
    shown = capsys.readouterr().out
    assert "nano_dimuon: taken as data" in shown
    assert "nano_tt_v15: taken as simulation" in shown
    assert "nano_dy_empty: taken as simulation" in shown
    assert "nano_tree: skimmed before: its Runs trees count 49919 generated events, its files hold 10" in shown
    inspected = inspect_files(build_fileset({"x": [f"{real}/nano_tt_*.root", f"{real}/pfnano.root"]}))["x"]
    layouts = {Path(p).stem: file.layout for p, file in inspected.items()}
    assert layouts == {"nano_tt_v12": "without constituents", "nano_tt_v15": "NanoAOD v15", "pfnano": "PFNano"}


@pytest.mark.real
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["nano_tt_v15", "nano_tt_v12", "nano_dy", "pfnano"])
def test_real_files_that_are_cut_are_found(real, tmp_path, name, fraction):
    path = half(real / f"{name}.root", tmp_path / "x.root", fraction)
    findings = validate_fileset({"x": entry(path, **MC)})
    assert "x.root: the file is cut: " in findings[0].sentence
    assert findings[0].kind == "bad file"
