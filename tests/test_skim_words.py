"""Skims with damaged facts, filters in any spelling, and events without ids of their own: one sentence, or the right rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from toy_skims import toy_rows, write_skim

from coffea_ad.errors import SkimError
from coffea_ad.skims import load_skim


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
        (["pt > 3"], "a column, an operator and a value"),
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


def test_files_without_weights_are_refused(skim):
    path = skim / "qcd" / "toy.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["genWeight"]), path)
    with pytest.raises(SkimError, match="no column genWeight"):
        load_skim(skim, "jet_substructure")
