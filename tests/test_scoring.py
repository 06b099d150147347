from __future__ import annotations

import pickle
import subprocess
import sys

import awkward as ak
import cloudpickle
import numpy as np
import pytest

import coffea_ad as ad
from coffea_ad import scoring
from coffea_ad.errors import CardMismatch


@pytest.fixture(scope="module")
def scorer(request):
    return ad.OnnxScorer(request.config.rootpath / "tests" / "data" / "wnae.onnx")


@pytest.fixture(scope="module")
def rows(scorer):
    golden = np.array(scorer.card.golden.inputs["features"], np.float32)
    return np.tile(golden, (400, 1))


def test_golden_rows_have_their_scores(scorer):
    golden = scorer.card.golden
    np.testing.assert_allclose(scorer(np.array(golden.inputs["features"], np.float32)), golden.scores, rtol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 2, 1023, 1024, 1025, 3200])
def test_scores_do_not_depend_on_how_rows_are_batched(scorer, rows, n):
    np.testing.assert_allclose(scorer(rows[:n]), np.tile(scorer.card.golden.scores, 400)[:n], rtol=1e-5)
    assert scorer(rows[:n]).dtype == np.float32


def test_undefined_rows_have_no_score_and_do_not_touch_others(scorer, rows):
    spoiled = rows[:8].copy()
    spoiled[1, 0], spoiled[3, 7], spoiled[5, 2] = np.nan, np.inf, -np.inf
    got = scorer(spoiled)
    assert np.isnan(got).tolist() == [False, True, False, True, False, True, False, False]
    np.testing.assert_array_equal(got[~np.isnan(got)], scorer(rows[:8])[~np.isnan(got)])


def test_rows_by_input_name_and_awkward_records_score_alike(scorer, rows):
    plain = scorer(rows[:8])
    np.testing.assert_array_equal(scorer({"features": rows[:8]}), plain)
    columns = scorer.card.inputs[0].columns
    records = ak.zip({name: rows[:8, i] for i, name in enumerate(columns)})
    assert ak.to_list(scorer(records)) == plain.tolist()
    backwards = ak.zip({name: rows[:8, i] for i, name in reversed(list(enumerate(columns)))})
    assert ak.to_list(scorer(backwards)) == plain.tolist()  # matched by name


def test_wrong_rows_are_refused_by_name(scorer, rows):
    with pytest.raises(CardMismatch, match="jet_substructure.sigma1"):
        scorer(rows[:, :7])
    with pytest.raises(CardMismatch, match="float64"):
        scorer(rows.astype(np.float64))
    with pytest.raises(CardMismatch, match="the inputs are"):
        scorer({"jets": rows})
    columns = scorer.card.inputs[0].columns
    with pytest.raises(CardMismatch, match="columns missing: jet_substructure.sigma1; unknown: girth"):
        scorer(ak.zip({("girth" if i == 0 else name): rows[:, i] for i, name in enumerate(columns)}))


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_used_scorer_pickles_and_its_session_is_shared_in_a_process(scorer, rows, pickler):
    scorer(rows[:1])
    copy = pickler.loads(pickler.dumps(scorer))
    before = len(scoring._sessions)
    np.testing.assert_array_equal(copy(rows[:8]), scorer(rows[:8]))
    assert len(scoring._sessions) == before
    assert copy.session is scorer.session


def test_neither_torch_nor_tensorflow_nor_xgboost_is_imported_by_scoring(request):
    """coffea.ml_tools imports whatever it finds; a worker must not."""
    code = f"""
import sys
import coffea_ad as ad
from coffea.nanoevents import NanoEventsFactory
root = {str(request.config.rootpath / "tests" / "data")!r}
events = NanoEventsFactory.from_root(root + "/svj_v15.root:Events", schemaclass=ad.NanoAODSchema).events()
jets = ad.Tagger(root + "/wnae.onnx")(events)
assert len(jets["ad_score"]) == len(events)
print(sorted({{"torch", "tensorflow", "xgboost", "matplotlib", "onnx", "sklearn"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.strip() == "[]"
