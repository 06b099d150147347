"""Skims with damaged facts, filters in any spelling, and events without ids of their own: one sentence, or the right rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from toy_skims import toy_rows, write_skim

from coffea_ad.errors import CoffeaADError, SkimError
from coffea_ad.skims.reading import load_skim


@pytest.fixture
def skim(tmp_path):
    x, _ = toy_rows(60)
    return write_skim(tmp_path / "skim", {"qcd": {"x": x, "weight": np.ones(60), "xsec": 1.0, "pt": np.arange(60.0)}})


@pytest.mark.parametrize("value", [3e1, "3e1", "30", 30])
def test_numbers_of_filters_may_be_texts_as_yaml_reads_them(skim, value):
    rows = load_skim(skim, "jet_substructure", filters=[["pt", ">", value]])
    assert len(rows.x) == 29


@pytest.mark.parametrize(
    ("filters", "sentence"),
    [
        ([["pt", ">", "many"]], "the filter .* cannot be applied"),
        ([["met", ">", 1e9]], "unknown column 'met'"),
        (["pt 3"], "a column, an operator and a value"),
        ([[]], "a column, an operator and a value"),
        (7, "a column, an operator and a value"),
        ([["pt", "~", 3]], "cannot be applied"),
    ],
)
def test_wrong_filters_are_one_sentence(skim, filters, sentence):
    with pytest.raises(SkimError, match=sentence):
        load_skim(skim, "jet_substructure", filters=filters)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"datasets": 3}, "not what a skim writes"), ([], "no skim here"),
        ({"datasets": {"qcd": {"files": 3, "sumw": 1}}}, r"qcd\.files"),
        ({"datasets": {"qcd": {"files": [], "sumw": "much"}}}, r"qcd\.sumw"), ({"datasets": {}}, "no files"),
    ],
)  # fmt: skip
def test_damaged_manifests_are_one_sentence(skim, content, sentence):
    (skim / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(SkimError, match=sentence):
        load_skim(skim, "jet_substructure")


@pytest.mark.parametrize("key", ["features", "selection", "flavour"])
def test_damaged_facts_of_a_file_are_one_sentence(tmp_path, key):
    x, _ = toy_rows(60)
    folder = write_skim(tmp_path / "skim", {"qcd": {"x": x, "weight": np.ones(60), "xsec": 1.0, key: 3}})
    with pytest.raises(SkimError, match=rf"toy.parquet: this is not what a skim writes \({key}"):
        load_skim(folder, "jet_substructure")


def test_events_without_ids_of_their_own_are_refused(tmp_path):
    x, _ = toy_rows(60)
    folder = write_skim(tmp_path / "skim", {"qcd": {"x": x, "weight": np.ones(60), "xsec": 1.0, "event": np.ones(60)}})
    with pytest.raises(SkimError, match="all 60 rows have the same run, luminosityBlock and event"):
        load_skim(folder, "jet_substructure")


@pytest.mark.parametrize("column", ["genWeight", "run", "luminosityBlock", "event"])
def test_files_without_weights_or_ids_are_refused(column, skim):
    path = skim / "qcd" / "toy.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns([column]), path)
    with pytest.raises(SkimError, match=f"toy.parquet: it has no column {column}; skim again"):
        load_skim(skim, "jet_substructure")


@pytest.mark.parametrize("column", ["run", "pt", "genWeight", "jet_substructure.ptd"])
def test_columns_of_texts_are_refused(column, skim):
    path = skim / "qcd" / "toy.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array(["x"] * len(table))), path)
    with pytest.raises(SkimError, match=f"toy.parquet: its column {column} holds string; skim again"):
        load_skim(skim, "jet_substructure")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda t: t.drop_columns(["pt"]),
            "svj/toy.parquet: its column pt is float, but not there in the files before it",
        ),
        (lambda t: t.append_column("met", t["pt"]), "svj/toy.parquet: its column met is not there, but float in the"),
        (lambda t: t.set_column(0, "run", t["event"]), "svj/toy.parquet: its column run is uint32, but uint64 in the"),
    ],
)
def test_files_with_other_columns_than_those_before_are_refused(change, match, tmp_path):
    x, _ = toy_rows(60)
    entry = {"x": x, "weight": np.ones(60), "xsec": 1.0}
    folder = write_skim(tmp_path / "skim", {"qcd": entry, "svj": entry})
    path = folder / "qcd" / "toy.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    with pytest.raises(SkimError, match=match):
        load_skim(folder, "jet_substructure")


def test_another_order_of_columns_changes_nothing(tmp_path):
    x, _ = toy_rows(60)
    entry = {"x": x, "weight": np.ones(60), "xsec": 1.0}
    folder = write_skim(tmp_path / "skim", {"qcd": entry, "svj": entry})
    before = load_skim(folder, "jet_substructure")
    path = folder / "qcd" / "toy.parquet"
    table = pq.read_table(path)
    pq.write_table(table.select(table.column_names[::-1]), path)
    after = load_skim(folder, "jet_substructure")
    np.testing.assert_array_equal(after.x, before.x)
    np.testing.assert_array_equal(after.spectators["event"], before.spectators["event"])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda entry: entry.update(sumw="60"), r"qcd.sumw: Input should be a valid number"),
        (lambda entry: entry.update(files=["a" * 3000]), "cannot be reached .File name too long"),
    ],
)
def test_a_manifest_that_is_wrong_gets_one_sentence(change, match, skim):
    path = skim / "manifest.json"
    content = json.loads(path.read_text())
    change(content["datasets"]["qcd"])
    path.write_text(json.dumps(content))
    with pytest.raises(CoffeaADError, match=match):
        load_skim(skim, "jet_substructure")
