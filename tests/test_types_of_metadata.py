"""Whatever types metadata, names and files come in, a run, its report and what reads it later take the same."""

from __future__ import annotations

import datetime as dt
import enum
import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from toys import DATA

import coffea_ad as ad
from coffea_ad.errors import ConfigError
from coffea_ad.filesets import load_fileset
from coffea_ad.weights import is_signal

SVJ = DATA / "svj_v15.root"
LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]


class Year(enum.Enum):
    LAST = 2018


class Number(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    ("value", "right"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(False), False),
        (np.array(2.0), 2.0),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.str_("a"), "a"),
        (np.datetime64("2018-01-02", "ns"), "2018-01-02T00:00:00.000000000"),
        (Decimal("1.5"), 1.5),
        (Year.LAST, 2018),
        (Number.ONE, 1),
        (Path("a/b"), "a/b"),
        (dt.datetime(2018, 1, 2, 3), "2018-01-02 03:00:00"),
        ((1, {"x": (np.bool_(True),)}), [1, {"x": [True]}]),
        ({"b", "a"}, ["a", "b"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_what_json_has_for_them(value, right):
    metadata = load_fileset({"a": {"files": "a.root", "metadata": {"x": value}}})["a"]["metadata"]
    assert metadata["x"] == right
    assert type(metadata["x"]) is type(right)
    assert json.loads(json.dumps(metadata)) == metadata


@pytest.mark.parametrize(
    "value",
    [b"a", 1j, np.float64("nan"), Decimal("Infinity"), object(), {1: "a", "1": "b"}],
    ids=lambda value: type(value).__name__,
)
def test_what_json_has_nothing_for_is_one_sentence(value):
    with pytest.raises(ConfigError, match="^dataset a: x"):
        load_fileset({"a": {"files": "a.root", "metadata": {"x": value}}})


@pytest.mark.parametrize("value", [False, np.bool_(False), 0, 0.0, np.uint8(0), np.array(False), Decimal(0)], ids=repr)
@pytest.mark.parametrize("key", ["is_mc", "isMC"])
def test_data_are_data_in_every_type(key, value):
    assert load_fileset({"a": {"files": "a.root", "metadata": {key: value}}})["a"]["metadata"]["is_mc"] is False


@pytest.mark.parametrize("key", ["is_mc", "isMC", "is_signal"])
@pytest.mark.parametrize("value", ["false", "False", "no", "0", "", 2, None, [False]], ids=repr)
def test_a_text_is_no_truth(key, value):
    with pytest.raises(ConfigError, match=f"dataset a: {key} is .*, but must be true or false"):
        load_fileset({"a": {"files": "a.root", "metadata": {key: value}}})


@pytest.mark.parametrize("value", [np.True_, 1, np.uint8(1)], ids=repr)
def test_a_signal_is_one_in_every_type(value):
    assert is_signal(load_fileset({"a": {"files": "a.root", "metadata": {"is_signal": value}}})["a"]["metadata"])


@pytest.mark.parametrize("name", [2018, np.int64(2018), np.str_("2018"), Path("2018")], ids=repr)
def test_names_of_datasets_are_texts(name):
    (dataset,) = load_fileset({name: {"files": "a.root"}})
    assert type(dataset) is str
    assert dataset == "2018"


@pytest.mark.parametrize(
    "files",
    [
        "a.root",
        "a.root:Events",
        Path("a.root"),
        ["a.root"],
        ("a.root:Events",),
        {Path("a.root")},
        np.array(["a.root"]),
        np.str_("a.root"),
        {Path("a.root"): "Events"},
        {"a.root": np.str_("Events")},
        {"a.root": {"object_path": "Events", "steps": np.array([[0, 4]]).tolist(), "num_entries": 4}},
    ],
    ids=repr,
)
def test_files_in_every_form(files):
    for entry in (files, {"files": files}):
        (read,) = load_fileset({"a": entry}).values()
        assert read["files"] == {"a.root": "Events"}
        assert all(type(text) is str for pair in read["files"].items() for text in pair)


@pytest.mark.parametrize("files", [[["a.root"]], [b"a.root"], 7, [None], [""], [{"a.root": "Events"}]], ids=repr)
def test_files_that_are_none_are_one_sentence(files):
    with pytest.raises(ConfigError, match="^dataset a: "):
        load_fileset({"a": {"files": files}})


def test_results_and_resubmission_know_data_as_the_run_did(tmp_path):
    metadata = {"is_mc": np.bool_(False), "xsec": np.float32(1.0), "when": dt.date(2018, 1, 2)}
    fileset = {np.int64(7): {"files": (SVJ, tmp_path / "none.root"), "metadata": metadata}}
    settings = {"executor": "iterative", "overrides": LOOSE, "lumi": 2.0, "progress": False, "allow_missing": True}
    ad.run(fileset, "semivisible_jets", output=tmp_path / "r", **settings)
    results = ad.load_results(tmp_path / "r")
    assert results.norm("7") == 1.0
    stored = results.report["datasets"]["7"]["metadata"]
    assert {k: stored[k] for k in metadata} == {"is_mc": False, "xsec": 1.0, "when": "2018-01-02"}
    (tmp_path / "none.root").write_bytes((DATA / "svj_pfnano.root").read_bytes())
    report = ad.resubmit(tmp_path / "r", executor="iterative", progress=False, allow_missing=True)
    assert report.datasets["7"]["metadata"]["is_mc"] is False
    assert ad.load_results(tmp_path / "r").norm("7") == 1.0
