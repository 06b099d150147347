"""Models of whole events, and of inputs that are not flat: skim, attach, tag."""

from __future__ import annotations

import shutil

import awkward as ak
import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import DATA, bare_events, open_events

import coffea_ad as ad
from coffea_ad.errors import BadModel, CardMismatch, MissingBranch, SkimError
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.specs import Golden, InputSpec
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.reading import load_skim

pytestmark = pytest.mark.torch  # the onnx package comes with it


def graph(inputs, nodes, weights=()):
    """A plain ONNX file that gives `score`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = helper.make_graph(
        [helper.make_node(op, list(ins), [out], **attributes) for op, ins, out, attributes in nodes], "toy",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in dict(weights).items()],
    )  # fmt: skip
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


@pytest.fixture(scope="module")
def fileset():
    return {
        name: {"files": {str(DATA / f"{name}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for name in ("ttbar", "svj")
    }


@pytest.fixture(scope="module")
def skims(fileset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("skims")
    overrides = ["leading_lepton_pt_min=0", "features=[{name: rmm}, {name: dijet, options: {inputs: extended2}}]"]
    ad.run(fileset, "skim_events", overrides=overrides, executor="iterative", output=folder)
    return folder


@pytest.fixture(scope="module")
def rmm_model():
    """Sum of the 1287 cells."""
    return graph(
        {"features": [1287]}, [("ReduceSum", ("features", "axis"), "score", {"keepdims": 0})], {"axis": np.array([1])}
    )


def of_ttbar(skim, column):
    mine = skim.dataset == "ttbar"
    return {int(e): v for e, v in zip(skim.spectators["event"][mine], column[mine], strict=True)}


def test_a_skim_of_events_holds_the_features_of_those_that_pass(skims):
    skim = load_skim(skims, "rmm")
    events = open_events(DATA / "ttbar_v15.root")
    values, _ = ad.features.compute("rmm", events)
    rows = of_ttbar(skim, skim.x)
    assert 50 < len(rows) <= len(events)
    for number, value in zip(np.asarray(events.event).tolist(), values, strict=True):
        if number in rows:
            np.testing.assert_array_equal(rows[number], value)
    assert {"met", "mjj", "ht", "n_jets", "genWeight"} <= set(skim.spectators)


def test_what_is_not_zero_is_all_that_a_skim_stores_of_a_matrix(skims):
    path = skim_files(skims, ["ttbar"])["ttbar"][0]
    table = pq.read_table(path)
    assert {"rmm.index", "rmm.value"} <= set(table.column_names)
    assert not any(name.startswith("rmm.m") for name in table.column_names)
    assert 0 not in table["rmm.value"].combine_chunks().flatten().to_pylist()


def test_events_with_an_undefined_feature_are_left_out_and_counted(skims):
    options = {"inputs": "extended2"}
    skim = load_skim(skims, "dijet", options)
    everything = sum(skim.provenance["rows"].values())
    assert len(skim.x) + skim.provenance["undefined_rows"] == everything
    assert skim.provenance["undefined_rows"] > 0
    assert np.isfinite(skim.x).all()
    with pytest.raises(SkimError, match=r"unknown feature 'dijet'"):
        load_skim(skims, "dijet")


def test_cuts_are_those_of_the_configuration(fileset, tmp_path):
    report = ad.run(fileset, "skim_events", config="skim_events.yaml", executor="iterative", output=tmp_path / "s")
    skim = load_skim(tmp_path / "s", "rmm", {"preset": "ATLAS"})
    assert (skim.spectators["leading_lepton_pt"] >= 60).all()
    assert (skim.spectators["n_jets"] >= 1).all()
    flow = report.datasets["ttbar"]["cutflow"]
    assert flow["all"]["events"] > flow["lepton"]["events"] >= flow["jets"]["events"] > 0
    assert len(of_ttbar(skim, skim.x)) == flow["jets"]["events"]


def test_a_file_without_events_does_not_spoil_a_skim_of_events(fileset, tmp_path):
    empty = tmp_path / "empty.root"
    bare_events(empty, 0)
    entry = {**fileset["ttbar"], "files": {**fileset["ttbar"]["files"], str(empty): "Events"}}
    ad.run(
        {"ttbar": entry},
        "skim_events",
        overrides=["leading_lepton_pt_min=0"],
        executor="iterative",
        output=tmp_path / "s",
    )
    assert len(skim_files(tmp_path / "s")["ttbar"]) == 2
    assert len(load_skim(tmp_path / "s", "rmm").x) > 50


def test_a_plain_model_gets_a_card_and_tags_events_as_the_skim_was_scored(skims, rmm_model, tmp_path):
    from coffea_ad import cli

    plain, card, made = tmp_path / "plain.onnx", tmp_path / "card.yaml", tmp_path / "rmm.onnx"
    plain.write_bytes(rmm_model)
    card.write_text("name: rmm-sum\nmethod: sum\nfeatures: [{name: rmm}]\n")
    words = [
        "card",
        "attach",
        str(plain),
        str(card),
        "--background",
        str(skims),
        "--datasets",
        "ttbar",
        "-o",
        str(made),
    ]
    assert cli.main(words) == 0
    tagger = ad.Tagger(made)
    assert tagger.card.level == "event"
    events = open_events(DATA / "ttbar_v15.root")
    tagged = tagger(events)
    skim = load_skim(skims, "rmm")
    scores = of_ttbar(skim, np.asarray(tagger.scorer(skim.x)))
    for number, score in zip(np.asarray(events.event).tolist(), tagged["ad_score"].to_list(), strict=True):
        if number in scores:
            assert score == pytest.approx(scores[number], rel=1e-6)
    values = np.asarray(ak.to_numpy(tagged["ad_region"]))
    assert set(values.tolist()) <= {0, 1, 2, 3}
    tight = events[np.asarray(tagged["ad_score"]) > np.median(np.asarray(tagged["ad_score"]))]
    again = tagger(tight)["ad_score"].to_list()
    kept = [s for s in tagged["ad_score"].to_list() if s > np.median(np.asarray(tagged["ad_score"]))]
    np.testing.assert_allclose(again, kept, rtol=1e-6)  # the runtime adds in another order in another batch


def test_events_without_a_branch_or_without_events_are_named_or_empty(rmm_model, svj):
    from coffea_ad.modelfiles.attach import AttachConfig, attach

    config = AttachConfig(name="rmm-sum", method="sum", features=({"name": "rmm", "options": {"met": "MET"}},))
    tagger = ad.Tagger(attach(rmm_model, config))
    with pytest.raises(MissingBranch, match=r"branches are missing: MET_pt, MET_phi \(asked for by rmm-sum\)"):
        tagger(svj)
    assert len(tagger(svj[:0])) == 0


def test_large_rows_reach_the_scorer_in_blocks(rmm_model, svj, monkeypatch):
    """A chunk of matrices is never dense: the scorer sees a thousand rows at a time."""
    from coffea_ad.modelfiles.attach import AttachConfig, attach
    from coffea_ad.scoring import streaming as module

    made = ad.Tagger(attach(rmm_model, AttachConfig(name="rmm-sum", method="sum", features=({"name": "rmm"},))))
    whole = made(svj)["ad_score"].to_list()
    made.scorer.batch = 16
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1)
    seen = []
    call = made.scorer.numpy_call
    monkeypatch.setattr(made.scorer, "numpy_call", lambda batch: seen.append(len(batch["features"])) or call(batch))
    np.testing.assert_allclose(made(svj)["ad_score"].to_list(), whole, rtol=1e-6)
    assert max(seen) == 16
    assert sum(seen) == len(svj)


@pytest.fixture(scope="module")
def two_inputs():
    """Sum of pT over slots times the sum of the mask, from two inputs of one feature."""
    data = graph(
        {"constituents": [20, 3], "mask": [20, 1]},
        [
            ("ReduceSum", ("constituents", "axes"), "sum", {"keepdims": 0}),
            ("ReduceSum", ("mask", "axes"), "number", {"keepdims": 0}),
            ("Mul", ("sum", "number"), "score", {}),
        ],
        {"axes": np.array([1, 2])},
    )
    specs = (
        InputSpec(name="constituents", features=(feature_spec("jet_constituents", {"n": 20}),)),
        InputSpec(name="mask", features=(feature_spec("jet_constituents", {"n": 20, "columns": ["mask"]}),)),
    )
    rows = np.random.default_rng(1).random((4, 20, 3), np.float32), np.ones((4, 20, 1), np.float32)
    golden = Golden(
        inputs={
            spec.name: tuple(tuple(map(float, row.ravel())) for row in r) for spec, r in zip(specs, rows, strict=True)
        },
        scores=tuple(float(r.sum() * 20) for r in rows[0]),
    )
    return data, ModelCard(name="two", method="toy", inputs=specs, golden=golden)


def test_a_model_with_constituents_and_mask_tags_jets(two_inputs, svj):
    data, card = two_inputs
    tagger = ad.Tagger(write_card(data, card))
    jets = tagger(svj)
    values, _ = ad.features.compute("jet_constituents", svj, n=20)
    mask, _ = ad.features.compute("jet_constituents", svj, n=20, columns=["mask"])
    want = values.sum(axis=(1, 2)) * mask.sum(axis=(1, 2))
    got = ak.to_numpy(ak.flatten(jets["ad_score"]))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert np.isnan(want).any()
    assert ak.all(np.isnan(ak.flatten(jets["ad_logp"])))  # the card has no calibration
    first = ak.firsts(svj.FatJet)
    leading = tagger(first)
    np.testing.assert_allclose(
        ak.to_numpy(ak.fill_none(leading["ad_score"], -1)), ak.to_numpy(ak.fill_none(ak.firsts(jets)["ad_score"], -1)), rtol=1e-5
    )  # fmt: skip
    # a jet without a score, or without a rank, keeps all else
    assert leading["pt"].to_list() == first["pt"].to_list()
    assert ak.any(np.isnan(leading["ad_score"]) & ~ak.is_none(leading["pt"]))


def test_rows_of_another_shape_are_refused(two_inputs):
    data, card = two_inputs
    scorer = ad.OnnxScorer(write_card(data, card))
    good = {"constituents": np.zeros((2, 20, 3), np.float32), "mask": np.ones((2, 20, 1), np.float32)}
    assert scorer(good).tolist() == [0.0, 0.0]
    assert scorer({k: v[:0] for k, v in good.items()}).shape == (0,)
    for wrong in (np.zeros((2, 60), np.float32), np.zeros((2, 19, 3), np.float32), np.zeros((2, 20), np.float32)):
        with pytest.raises(CardMismatch, match=r"needs \(n, 20, 3\): .*\.pt, .*\.deta, .*\.dphi"):
            scorer({**good, "constituents": wrong})
    with pytest.raises(CardMismatch, match="pass a numpy array"):
        scorer(ak.Array([{"pt": 1.0}]))


def test_a_card_that_does_not_fit_its_graph_is_refused(two_inputs):
    data, card = two_inputs
    other = InputSpec(name="constituents", features=(feature_spec("jet_constituents", {"n": 21}),))
    with pytest.raises(CardMismatch, match="are not the graph's"):
        ad.OnnxScorer(write_card(data, card.model_copy(update={"inputs": (other, card.inputs[1])}))).session  # noqa: B018
    flat = InputSpec(name="constituents", features=(feature_spec("jet_substructure"),))
    with pytest.raises(CardMismatch, match="are not the graph's"):
        ad.OnnxScorer(write_card(data, card.model_copy(update={"inputs": (flat, card.inputs[1])}))).session  # noqa: B018
    wrong = card.golden.model_copy(update={"scores": (1.0, 2.0, 3.0, 4.0)})
    with pytest.raises(BadModel, match="golden rows do not give their scores"):
        ad.OnnxScorer(write_card(data, card.model_copy(update={"golden": wrong}))).session  # noqa: B018


def test_levels_of_model_and_feature_must_agree(two_inputs):
    data, card = two_inputs
    for level, name in (("event", "jet_constituents"), ("jet", "rmm")):
        inputs = (InputSpec(name="constituents", features=(feature_spec(name),)),)
        with pytest.raises(CardMismatch, match=f"the {level}-level model cannot take the .*-level feature {name}"):
            ad.Tagger(write_card(data, card.model_copy(update={"level": level, "inputs": inputs, "golden": None})))


def test_shaped_features_cannot_stand_beside_others_in_one_input():
    with pytest.raises(ValueError, match="must be an input of its own"):
        InputSpec(features=(feature_spec("jet_images"), feature_spec("jet_substructure")))


def test_images_and_constituents_of_jets_are_skimmed_sparse_and_read_back(tmp_path):
    path = tmp_path / "svj.root"
    shutil.copy(DATA / "svj_v15.root", path)
    fileset = {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    overrides = ["features=[{name: jet_images, options: {pixels: 20}}, {name: jet_constituents, options: {n: 10}}]"]
    ad.run(fileset, "skim_jets", overrides=overrides, executor="iterative", output=tmp_path / "s")
    events = open_events(path)
    for name, options, shape in (("jet_images", {"pixels": 20}, (20, 20)), ("jet_constituents", {"n": 10}, (10, 3))):
        skim = load_skim(tmp_path / "s", name, options)
        assert skim.x.shape[1:] == shape
        values, counts = ad.features.compute(name, events, **options)
        first = np.r_[0, np.cumsum(counts)]
        place = {int(e): i for i, e in enumerate(np.asarray(events.event))}
        rows = [
            first[place[int(e)]] + j
            for e, j in zip(skim.spectators["event"], skim.spectators["objectIdx"], strict=True)
        ]
        np.testing.assert_array_equal(skim.x, values[rows])
