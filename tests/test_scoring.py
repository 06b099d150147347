from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import time
import tracemalloc

import awkward as ak
import cloudpickle
import numpy as np
import pytest

import coffea_ad as ad
from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.scoring import scorer as module
from coffea_ad.scoring.card import read_card, write_card


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


def test_records_are_matched_by_name_and_must_be_float32(scorer, rows):
    columns = scorer.card.inputs[0].columns
    table = {name: rows[:8, i] for i, name in enumerate(columns)}
    want = scorer(rows[:8])

    def refused(changes, match):
        with pytest.raises(CardMismatch, match=match):
            scorer(ak.Array({**table, **changes}))

    refused({columns[0]: rows[:8, 0].astype(np.float64)}, "column jet_substructure.sigma1 is float64, but must be")
    refused({columns[0]: np.arange(8)}, "sigma1 is int64")
    refused({columns[0]: ["1.0"] * 8}, "sigma1 is string")
    refused({columns[0]: [[np.float32(1)]] * 8}, r"sigma1 is var \* float")
    refused({columns[0]: rows[:8, :2]}, r"sigma1 is 2 \* float32")
    refused({"girth": rows[:8, 0]}, "columns missing: none; unknown: girth")
    with pytest.raises(CardMismatch, match="columns missing: jet_substructure.tau3; unknown: none"):
        scorer(ak.Array({k: v for k, v in table.items() if k != columns[-1]}))
    with pytest.raises(CardMismatch, match="columns missing: .*sigma1"):
        scorer(ak.Array(rows[:8]))
    holes = ak.Array({**table, columns[2]: ak.mask(ak.Array(table[columns[2]]), np.arange(8) != 3)})
    got = scorer(holes)
    assert np.isnan(got[3])  # None is no number
    np.testing.assert_array_equal(np.delete(ak.to_numpy(got), 3), np.delete(want, 3))


def test_a_score_that_is_not_finite_is_none(scorer, rows):
    huge = np.full((2, 8), 2e38, np.float32)
    assert np.isnan(scorer(np.concatenate([huge, rows[:1]]))).tolist() == [True, True, False]


def test_scores_of_batches_do_not_depend_on_what_comes_before(scorer, rows):
    """A batch is a fixed part of the rows, whatever else is undefined."""
    spoiled = rows[:3000].copy()
    spoiled[:700, 0] = np.nan
    np.testing.assert_array_equal(scorer(spoiled)[1024:], scorer(rows[:3000])[1024:])


def test_no_copy_of_the_rows_is_made(scorer):
    """Neither of all rows, nor in float64."""
    rows = np.random.default_rng(3).random((200_000, 8)).astype(np.float32)
    rows[::1000, 3] = np.nan
    scorer(rows[:1])
    tracemalloc.start()
    scores = scorer(rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scores.dtype == np.float32
    assert peak < scores.nbytes + 0.15 * rows.nbytes


def test_a_provider_that_is_not_there_is_named_with_those_that_are(model_file):
    tagger = ad.Tagger(model_file, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises(ConfigError, match=r"onnxruntime has no CUDAExecutionProvider; it has .*CPUExecutionProvider"):
        tagger.scorer(np.zeros((1, 8), np.float32))


def test_a_provider_that_does_not_start_is_not_replaced_in_silence(model_file, monkeypatch):
    """As where the driver of a GPU is missing: onnxruntime would go on without it."""
    real = module.ort.InferenceSession
    monkeypatch.setattr(
        module.ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        module.ort, "InferenceSession", lambda data, options, providers: real(data, options, providers=providers[1:])
    )
    scorer = ad.OnnxScorer(model_file, providers=("CUDAExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises(ConfigError, match="CUDAExecutionProvider was asked for, but could not start here, and the model "
                       "would run on CPUExecutionProvider"):  # fmt: skip
        scorer.session  # noqa: B018


def test_a_tagger_passes_threads_and_batch_on(model_file):
    tagger = ad.Tagger(model_file, threads=2, batch=64)
    assert (tagger.scorer.threads, tagger.scorer.batch, tagger.scorer.step) == (2, 64, 64)
    assert tagger.scorer.session.get_session_options().intra_op_num_threads == 2
    assert ad.Tagger(model_file).scorer.session.get_session_options().intra_op_num_threads == 1


def test_the_cache_of_sessions_is_bounded(model_file):
    data = model_file.read_bytes()
    first = ad.OnnxScorer(data)
    kept = first.session
    for i in range(module._CACHE_SIZE + 3):
        other = read_card(data).model_copy(update={"name": f"model_{i}"})
        ad.OnnxScorer(write_card(data, other)).session  # noqa: B018
    assert len(module._sessions) == module._CACHE_SIZE
    assert first.session is not kept


def test_threads_share_a_session_and_other_models_do_not_wait_for_it(model_file, monkeypatch):
    data = model_file.read_bytes()
    slow, fast = (
        ad.OnnxScorer(write_card(data, read_card(data).model_copy(update={"name": n}))) for n in ("slow", "fast")
    )
    made, started, go = [], threading.Event(), threading.Event()
    load = ad.OnnxScorer._load

    def loading(self, data):
        made.append(self.card.name)
        if self.card.name == "slow":
            started.set()
            assert go.wait(20)
        return load(self, data)

    monkeypatch.setattr(ad.OnnxScorer, "_load", loading)
    got = []
    threads = [threading.Thread(target=lambda: got.append(slow.session)) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    fast.session  # noqa: B018  while the other is still being made
    time.sleep(0.05)
    go.set()
    for thread in threads:
        thread.join()
    assert made == ["slow", "fast"]
    assert got == [slow.session] * 3


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_a_used_scorer_pickles_and_its_session_is_shared_in_a_process(scorer, rows, pickler):
    scorer(rows[:1])
    copy = pickler.loads(pickler.dumps(scorer))
    before = len(module._sessions)
    np.testing.assert_array_equal(copy(rows[:8]), scorer(rows[:8]))
    assert len(module._sessions) == before
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
