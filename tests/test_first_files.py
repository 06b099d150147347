"""First files of datasets: told apart without being parsed, one look for each kind, and nothing missed."""

from __future__ import annotations

import numpy as np
import pytest
import uproot
from toys import DATA, HERE, REAL

import coffea_ad as ad
from coffea_ad.errors import BadFile, ConfigError, IncompleteRun, MissingBranch
from coffea_ad.nanoaod.reading import OPEN_FILES
from coffea_ad.running import first_files as ff
from coffea_ad.running.preflight import check_files

FILES = sorted(str(p) for p in DATA.glob("*.root")) + [
    pytest.param(str(p), marks=pytest.mark.real) for p in (sorted(REAL.glob("*.root")) if REAL.is_dir() else ())
]
COUNTING = str(HERE / "counting_processor.py")


def trees(path):
    with uproot.open(path) as file:
        return [k for k, c in file.classnames(cycle=False).items() if c == "TTree" and "Events" in k]


@pytest.mark.parametrize("path", FILES)
def test_a_stream_has_its_branches_in_order_and_no_others(path):
    for tree in trees(path):
        with uproot.open(path) as file:
            names, stream = file[tree].keys(), ff.streamed(file, tree)
        assert ff.has_branches(stream, names)
        assert ff.has_branches(stream, names[::2], ["Nobody_pt"])
        assert not ff.has_branches(stream, names, [names[0]])
        assert not ff.has_branches(stream, [*names, "Nobody_pt"])
        if len(names) > 1:
            assert not ff.has_branches(stream, [names[-1], names[0]])


def write(path, *, n=30, drop=(), add=(), tree="Events"):
    columns = {
        "run": np.ones(n, "u4"), "luminosityBlock": np.ones(n, "u4"), "event": np.arange(n, dtype="u8"),
        "genWeight": np.ones(n, "f4"), "MET_pt": np.ones(n, "f4"),
    }  # fmt: skip
    columns = {k: v for k, v in columns.items() if k not in drop} | {k: np.ones(n, "f4") for k in add}
    with uproot.recreate(path) as file:
        file.mktree(tree, {k: v.dtype for k, v in columns.items()})
        if n:
            file[tree].extend(columns)
    return str(path)


def fileset(**paths):
    return {name: {"files": {path: "Events"}, "metadata": {}} for name, path in paths.items()}


NEEDS = {"the cut": (("MET_pt",),)}


def test_files_with_the_same_branches_are_parsed_once(tmp_path, monkeypatch):
    parsed = []
    look = ff._look
    monkeypatch.setattr(ff, "_look", lambda path, *a: parsed.append(path) or look(path, *a))
    inputs = fileset(**{f"d{i}": write(tmp_path / f"{i}.root") for i in range(20)})
    inputs |= fileset(data=write(tmp_path / "data.root", drop=["genWeight"]))
    found, like = check_files(inputs, NEEDS, [], tolerant=False)
    assert set(found) == {"d0", "data"}
    assert like == {**dict.fromkeys((f"d{i}" for i in range(20)), "d0"), "data": "data"}
    assert [inputs[d]["metadata"]["is_mc"] for d in ("d0", "d19", "data")] == [True, True, False]
    assert set(parsed) == {next(iter(inputs[d]["files"])) for d in ("d0", "data")}


def test_data_whose_branches_are_all_in_simulation_are_not_taken_for_it(tmp_path):
    """Whichever comes first."""
    data, mc = write(tmp_path / "a.root", drop=["genWeight"]), write(tmp_path / "b.root")
    for order in ({"data": data, "mc": mc}, {"mc": mc, "data": data}):
        inputs = fileset(**order)
        check_files(inputs, NEEDS, [], tolerant=False)
        assert {d: inputs[d]["metadata"]["is_mc"] for d in order} == {"data": False, "mc": True}


def test_every_year_is_looked_at(tmp_path):
    inputs = fileset(**{f"d{i}": write(tmp_path / f"{i}.root") for i in range(4)})
    for i, entry in enumerate(inputs.values()):
        entry["metadata"]["year"] = 2016 + i // 2
    assert set(check_files(inputs, NEEDS, [], tolerant=False)[0]) == {"d0", "d2"}


def test_a_missing_branch_and_a_bad_file_are_named_in_whatever_dataset(tmp_path):
    good = write(tmp_path / "good.root")
    lacking = write(tmp_path / "lacking.root", drop=["MET_pt"])
    (tmp_path / "bad.root").write_bytes(b"no file of ROOT" * 100)
    empty = write(tmp_path / "empty.root", n=0)
    with pytest.raises(MissingBranch, match=r"lacking.root: .*MET_pt"):
        check_files(fileset(a=good, b=lacking), NEEDS, [], tolerant=False)
    with pytest.raises(BadFile, match=r"bad.root: this is not a ROOT file"):
        check_files(fileset(a=good, b=str(tmp_path / "bad.root")), NEEDS, [], tolerant=False)
    with pytest.raises(BadFile, match=r"gone.root: there is no such file"):
        check_files(fileset(a=good, b=str(tmp_path / "gone.root")), NEEDS, [], tolerant=False)
    inputs = fileset(a=good, b=str(tmp_path / "bad.root"), c=lacking)
    assert check_files(inputs, NEEDS, [], tolerant=True) == ({"a": good}, {"a": "a"})
    inputs = fileset(a=empty, b=good)
    inputs["a"]["files"][good] = "Events"
    assert check_files(inputs, NEEDS, [], tolerant=False)[0] == {"a": good}


def test_a_remote_file_is_tried_again(tmp_path, monkeypatch):
    failures = []

    class Flaky:
        def get(self, path, **options):
            if len(failures) < 2:
                failures.append(path)
                raise OSError("[3011] no answer")
            return OPEN_FILES.get(path.removeprefix("root://nobody/"), **options)

        def drop(self, path, **_):
            OPEN_FILES.drop(path.removeprefix("root://nobody/"))

    monkeypatch.setattr(ff, "OPEN_FILES", Flaky())
    monkeypatch.setattr("coffea_ad.nanoaod.reading._PAUSE", 0.0)
    first = ff.first_good({f"root://nobody/{write(tmp_path / 'a.root')}": "Events"}, NEEDS, tolerant=False, retries=3)
    assert len(failures) == 2
    assert "MET_pt" in first.names


def test_without_the_check_nothing_is_opened_here_and_kinds_are_told_by_what_workers_find(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError

    monkeypatch.setattr(ff, "_look", refuse)
    monkeypatch.setattr(ff, "_glance", refuse)
    inputs = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"xsec": 1.0}}}
    options = {"overrides": [f"folder={tmp_path}"], "executor": "iterative", "progress": False, "preflight": False}
    report = ad.run(inputs, COUNTING, output=tmp_path / "out", **options)
    assert report.datasets["svj"]["metadata"]["is_mc"] is True
    del inputs["svj"]["metadata"]["xsec"]
    with pytest.raises(ConfigError, match=r"dataset svj: the metadata gives no xsec"):
        ad.run(inputs, COUNTING, output=tmp_path / "more", **options)
    with pytest.raises(IncompleteRun):
        ad.run(fileset(a=str(tmp_path / "gone.root")), COUNTING, lumi=1.0, **options)
