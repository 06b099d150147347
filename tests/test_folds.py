"""Models of several members, of which every event is scored by the one that never saw it."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from toys import DATA, listed, open_events

import coffea_ad as ad
from coffea_ad.errors import BadModel, CardMismatch, ConfigError, MissingBranch
from coffea_ad.features import FEATURES, Column, Feature, at_once
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring.card import ModelCard, read_card, write_card
from coffea_ad.scoring.modelfile import output_names, part_for, seal
from coffea_ad.scoring.specs import Folds, Golden, InputSpec
from coffea_ad.splits import fold_of

needs_onnx = pytest.mark.torch  # the onnx package comes with it
SALT = "toy folds"
ROWS = np.random.default_rng(1).random((4, 8)).astype(np.float32)


def graph(members=3, columns=8, outputs=None):
    """Member f gives f, or f plus what the columns add up to times 0; the first layer is common to all."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    outputs = outputs or [f"score_{f}" for f in range(members)]
    nodes = [
        helper.make_node("ReduceSum", ["features", "axis"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["base"]),
    ]
    weights = {"axis": np.array([1]), "nothing": np.float32(0)}
    for f, output in enumerate(outputs):
        weights[f"value_{f}"] = np.float32(f)
        nodes.append(helper.make_node("Add", ["base", f"value_{f}"], [output]))
    made = helper.make_graph(
        nodes, "toy", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", columns])],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, ["rows"]) for o in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()],
    )  # fmt: skip
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def toy_card(k=3, scores=None, **changes):
    rows = tuple(tuple(map(float, row)) for row in ROWS)
    scores = np.repeat(np.arange(k), len(rows)) if scores is None else scores
    entries = {
        "name": "folded", "method": "toy", "folds": Folds(k=k, salt=SALT),
        "inputs": (InputSpec(features=(feature_spec("jet_substructure"),)),),
        "golden": Golden(inputs={"features": rows}, scores=tuple(map(float, scores))),
    }  # fmt: skip
    return ModelCard(**{**entries, **changes})


@pytest.fixture(scope="module")
def folded():
    return write_card(graph(), toy_card())


def ids(events):
    return [np.asarray(events[name]) for name in ("run", "luminosityBlock", "event")]


# the folds of events


def test_folds_are_even_and_follow_the_ids_alone():
    rng = np.random.default_rng(2)
    run, block, event = rng.integers(1, 10**6, (3, 60_000))
    for k in (2, 3, 5, 7):
        fold = fold_of("folds", k, run, block, event)
        assert fold.dtype == np.int64
        np.testing.assert_allclose(np.bincount(fold, minlength=k) / len(fold), 1 / k, atol=0.01)
        order = rng.permutation(len(event))
        np.testing.assert_array_equal(fold_of("folds", k, run[order], block[order], event[order]), fold[order])
    other = fold_of("other", 3, run, block, event)
    assert np.mean(other == fold_of("folds", 3, run, block, event)) == pytest.approx(1 / 3, abs=0.01)
    assert fold_of("folds", 3, [], [], []).shape == (0,)


def test_the_largest_number_below_one_is_in_the_last_fold(monkeypatch):
    monkeypatch.setattr("coffea_ad.splits.event_uniform", lambda *_: np.array([0.0, 1 - 2.0**-53]))
    for k in range(2, 101):
        assert fold_of("folds", k, [1, 1], [1, 1], [1, 2]).tolist() == [0, k - 1]


# the scorer


@needs_onnx
def test_every_row_is_scored_by_the_member_of_its_fold(folded):
    scorer = ad.OnnxScorer(folded, batch=16)
    rng = np.random.default_rng(3)
    for n in (0, 1, 2, 47, 48, 49, 500):
        rows, folds = rng.random((n, 8)).astype(np.float32), rng.integers(0, 3, n)
        got = scorer(rows, folds)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, folds)
        if n:
            rows[::3, 1] = np.nan
            got = scorer(rows, folds)
            assert np.isnan(got[::3]).all()
            np.testing.assert_array_equal(got[1::3], folds[1::3])
    np.testing.assert_array_equal(scorer(rng.random((40, 8)).astype(np.float32), np.full(40, 2)), 2)
    records = ak.zip({c: ROWS[:, i] for i, c in enumerate(scorer.card.inputs[0].columns)})
    assert scorer(records, np.array([0, 1, 2, 1])).to_list() == [0, 1, 2, 1]


@needs_onnx
def test_only_the_members_that_are_asked_are_computed(folded, monkeypatch):
    scorer = ad.OnnxScorer(folded)
    assert len(scorer.sessions) == 3
    assert scorer.session is scorer.sessions[0]
    rows = []
    run = ad.OnnxScorer._run
    monkeypatch.setattr(
        ad.OnnxScorer, "_run", lambda self, s, o, b, *c: rows.append((o, len(b["features"]))) or run(self, s, o, b, *c)
    )
    scorer(np.tile(ROWS, (3, 1)), np.array([0, 2] * 6))
    assert rows == [("score_0", 6), ("score_2", 6)]


@needs_onnx
@pytest.mark.parametrize(
    "folds",
    [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, -1], [0.0, 1.0, 2.0, 0.0], [[0, 1], [2, 0]]],
    ids=["too few", "too large", "negative", "not integer", "shape"],
)
def test_wrong_folds_are_refused(folded, folds):
    with pytest.raises(CardMismatch, match="folds must be 4 integers from 0 to 2, one for every row"):
        ad.OnnxScorer(folded)(ROWS, np.array(folds))


@needs_onnx
def test_folds_are_needed_where_the_card_has_some_and_refused_where_not(folded, model_file):
    with pytest.raises(CardMismatch, match=r"has 3 members; give the fold of every row \(weights.fold_of\)"):
        ad.OnnxScorer(folded)(ROWS)
    with pytest.raises(CardMismatch, match="the card has no folds"):
        ad.OnnxScorer(model_file)(ROWS, np.zeros(4, int))


@needs_onnx
@pytest.mark.parametrize("wrong", [0, 5, 11])
def test_golden_scores_of_a_single_member_are_checked(wrong):
    scores = np.repeat(np.arange(3.0), 4)
    scores[wrong] += 0.01
    with pytest.raises(BadModel, match="golden rows do not give their scores"):
        ad.OnnxScorer(write_card(graph(), toy_card(scores=scores))).sessions  # noqa: B018


@needs_onnx
def test_members_in_the_wrong_order_are_refused():
    with pytest.raises(BadModel, match="golden rows do not give their scores"):
        ad.OnnxScorer(write_card(graph(outputs=["score_1", "score_0", "score_2"]), toy_card())).sessions  # noqa: B018


@needs_onnx
@pytest.mark.parametrize(
    "outputs", [["score_0", "score_1"], [f"score_{f}" for f in range(4)], ["score"], ["score_0", "score_1", "energy"]]
)
def test_another_number_of_members_than_folds_is_refused(outputs):
    sealed = write_card(graph(outputs=outputs), toy_card())
    with pytest.raises(CardMismatch, match=f"the card has 3 folds, but the graph the outputs {', '.join(outputs)}"):
        ad.OnnxScorer(sealed).sessions  # noqa: B018


def test_wrong_numbers_in_the_card_are_refused():
    with pytest.raises(ValueError, match=r"4 golden rows of features need 12 scores \(3 a row\), not 4"):
        toy_card(scores=np.zeros(4))
    with pytest.raises(ValueError, match=r"4 golden rows of features need 4 scores \(1 a row\), not 12"):
        toy_card(folds=None)
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        Folds(k=1, salt="folds")


# parts of a graph


@needs_onnx
def test_the_part_of_a_member_is_a_sound_graph_without_the_others():
    import onnx

    whole = graph()
    assert output_names(whole) == ["score_0", "score_1", "score_2"]
    part = onnx.load_from_string(part_for(whole, "score_1"))
    onnx.checker.check_model(part)
    assert [o.name for o in part.graph.output] == ["score_1"]
    assert [n.op_type for n in part.graph.node] == ["ReduceSum", "Mul", "Add"]
    assert {i.name for i in part.graph.initializer} == {"axis", "nothing", "value_1"}


@needs_onnx
def test_what_a_subgraph_takes_from_outside_stays():
    """An If whose branch reads a value, and whose other branch only passes one on."""
    import onnx
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    def info(name, shape=("rows",)):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    then = helper.make_graph([helper.make_node("Add", ["x", "one"], ["t"])], "then", [], [info("t")])
    other = helper.make_graph([helper.make_node("Identity", ["two"], ["e"])], "else", [], [info("e")])
    nodes = [
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("v", TensorProto.BOOL, [], [True])),
        helper.make_node("Add", ["x", "c"], ["one"]),
        helper.make_node("Mul", ["x", "c"], ["two"]),
        helper.make_node("Mul", ["x", "d"], ["unused"]),
        helper.make_node("If", ["yes"], ["score_0"], then_branch=then, else_branch=other),
        helper.make_node("Neg", ["unused"], ["score_1"]),
    ]
    weights = [numpy_helper.from_array(np.float32(v), k) for k, v in (("c", 2), ("d", 3))]
    made = helper.make_graph(nodes, "toy", [info("x")], [info("score_0"), info("score_1")], weights)
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    x = np.arange(3, dtype=np.float32)
    for output, want in (("score_0", 2 * x + 2), ("score_1", -3 * x)):
        part = part_for(whole, output)
        onnx.checker.check_model(onnx.load_from_string(part))
        session = ort.InferenceSession(part, providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(session.run(None, {"x": x})[0], want)
    assert len(onnx.load_from_string(part_for(whole, "score_0")).graph.node) == 4
    assert len(onnx.load_from_string(part_for(whole, "score_1")).graph.node) == 2


def test_the_part_of_the_only_output_scores_as_the_whole(model_file):
    data = model_file.read_bytes()
    whole, part = ad.OnnxScorer(data), ad.OnnxScorer(seal(part_for(data, "score"), read_card(data).model_dump_json()))
    rows = np.array(whole.card.golden.inputs["features"], np.float32)
    np.testing.assert_array_equal(whole(rows), part(rows))
    with pytest.raises(BadModel, match="it holds 2 graphs"):
        part_for(data + data, "score")


# the tagger


@needs_onnx
@pytest.mark.parametrize(
    "view",
    [
        lambda e: e,
        lambda e: e[np.asarray(e.event) % 3 > 0],
        lambda e: e[::-1],
        lambda e: e[np.random.default_rng(1).permutation(len(e))],
        lambda e: e.FatJet[e.FatJet["pt"] > 300],
        lambda e: e.FatJet[ak.argsort(e.FatJet["mass"], axis=1)],
        lambda e: e[np.random.default_rng(2).permutation(len(e))].FatJet[:, :1],
        lambda e: e.FatJet[ak.num(e.FatJet) > 0][:, 0],
        lambda e: ak.firsts(e.FatJet),
        lambda e: ak.pad_none(e.FatJet, 2, clip=True),
        lambda e: ak.with_field(e.FatJet, e.FatJet["pt"] * 2, "pt"),
    ],
    ids=["all", "masked", "reversed", "permuted", "jets", "sorted", "permuted jets", "leading", "firsts", "padded",
         "varied"],
)  # fmt: skip
@pytest.mark.parametrize("kept", [False, True])
def test_every_jet_is_scored_with_the_fold_of_its_event(folded, svj, view, kept):
    tagger = ad.Tagger(folded)
    if kept:
        tagger(svj.FatJet[:, :1])
    fold = fold_of(SALT, 3, *ids(svj))
    jets = tagger(view(svj))
    event = ak.to_numpy(ak.flatten(jets["eventIdxG"], axis=None))
    score = ak.to_numpy(ak.flatten(jets["ad_score"], axis=None))
    defined = np.isfinite(score)
    assert len(event) > 50
    np.testing.assert_array_equal(score[defined], fold[event][defined])
    assert set(score[defined]) == {0, 1, 2}


@needs_onnx
def test_permuting_the_events_changes_no_score(folded, svj):
    tagger = ad.Tagger(folded)
    order = np.random.default_rng(5).permutation(len(svj))
    there = tagger(svj)["ad_score"]
    assert listed(tagger(svj[order])["ad_score"]) == listed(there[order])


@needs_onnx
def test_chunks_score_as_the_whole(folded, svj_file):
    tagger = ad.Tagger(folded)
    whole = listed(tagger(open_events(svj_file))["ad_score"])
    parts = [open_events(svj_file, entry_start=start, entry_stop=start + 50) for start in (0, 50, 100)]
    assert [x for part in parts for x in listed(tagger(part)["ad_score"])] == whole


@needs_onnx
def test_a_model_of_events_is_scored_by_folds_too(svj, monkeypatch):
    columns = tuple(Column(f"x{i}") for i in range(8))
    met = Feature(
        name="met_copies", version=1, level="event", columns=lambda _: columns, reads=lambda *_: (("PuppiMET_pt",),),
        rows=at_once(lambda o, _: np.repeat(np.asarray(o.array.PuppiMET["pt"], np.float32)[:, None], 8, axis=1)),
        convention="toy", reference="",
    )  # fmt: skip
    monkeypatch.setitem(FEATURES, "met_copies", met)
    tagger = ad.Tagger(
        write_card(graph(), toy_card(level="event", inputs=(InputSpec(features=(feature_spec("met_copies"),)),)))
    )
    some = svj[np.asarray(svj.PuppiMET["pt"]) > 100][::-1]
    np.testing.assert_array_equal(np.asarray(tagger(some)["ad_score"]), fold_of(SALT, 3, *ids(some)))


@needs_onnx
def test_folded_and_plain_models_share_a_call(folded, svj_file, model_file):
    folds, plain = ad.Tagger(folded, name="folded"), ad.Tagger(model_file)
    both = ad.tag(open_events(svj_file), [folds, plain])
    assert listed(both["ad_score"]) == listed(plain(open_events(svj_file))["ad_score"])
    assert listed(both["folded_score"]) == listed(folds(open_events(svj_file))["folded_score"])


@needs_onnx
def test_the_ids_of_events_are_asked_for_before_a_run_and_named_if_missing(folded, svj):
    from coffea_ad.scoring.streaming import _folds
    from coffea_ad.scoring.tagger import _objects

    tagger = ad.Tagger(folded)
    assert tagger.card.reads["the folds"] == (("run", "luminosityBlock", "event"),)
    objects = _objects(svj, tagger.card)
    object.__setattr__(objects, "source", ak.without_field(svj, "luminosityBlock"))
    with pytest.raises(MissingBranch, match="the folds of folded need luminosityBlock"):
        _folds(objects, tagger.card)


# training


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    from coffea_ad.skims.reading import load_skim

    fileset = {"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    folder = tmp_path_factory.mktemp("skim")
    ad.run(fileset, "skim_jets", config="skim_jets.yaml", executor="iterative", output=folder)
    return folder, load_skim(folder, "jet_substructure")


def members(data, k=3):
    import torch

    from coffea_ad import nn

    torch.manual_seed(1)
    transform = nn.QuantileNormal(8).fit(data.x, np.abs(data.weight))
    return [nn.AE(8, hidden=(4,), latent=2, transform=transform) for _ in range(k)]


@pytest.mark.torch
def test_members_are_exported_into_one_file_with_a_calibration_each(skim, tmp_path):
    from coffea_ad import nn
    from coffea_ad.nn.cross_training import CrossTrained

    folder, data = skim
    model = CrossTrained(members(data), SALT)
    card = nn.make_card(model, data, name="folded", config={}, metrics={})
    path = nn.export(model, tmp_path / "folded.onnx", card, data.x)
    scorer = ad.OnnxScorer(path)
    assert scorer.card.folds == Folds(k=3, salt=SALT)
    assert len(scorer.card.golden.scores) == 3 * len(scorer.card.golden.inputs["features"])
    fold = fold_of(SALT, 3, *(data.spectators[k] for k in ("run", "luminosityBlock", "event")))
    score = scorer(data.x, fold)
    for f, member in enumerate(model.members):
        mine = fold == f
        np.testing.assert_allclose(score[mine], member.scores(data.x[mine]), rtol=1e-4, atol=1e-6)
    assert len({tuple(m.scores(data.x[:3]).tolist()) for m in model.members}) == 3
    # every calibration is that of the out-of-fold scores of its member
    rows = "out-of-fold rows of qcd, each weighing genWeight · xsec / sumw"
    out_of_fold = model.scores(data.x, fold)
    assert scorer.card.calibrations == ad.regions.calibrate_folds(out_of_fold, data.event_weight, rows, fold, 3)
    events = open_events(DATA / "qcd_v15.root")
    jets = ad.Tagger(path)(events.FatJet[events.FatJet["pt"] > 200])
    place = {
        (int(e), int(i)): s
        for e, i, s in zip(data.spectators["event"], data.spectators["objectIdx"], score, strict=True)
    }
    offsets = np.r_[0, np.cumsum(ak.to_numpy(ak.num(events.FatJet)))]
    checked = 0
    for event, index, got in zip(
        *(ak.to_list(ak.flatten(jets[f])) for f in ("eventIdxG", "objectIdxG", "ad_score")), strict=True
    ):
        key = int(events.event[event]), int(index - offsets[event])
        if key in place:
            assert got == pytest.approx(place[key], rel=1e-5)
            checked += 1
    assert checked == len(data.x)

    from coffea_ad.modelfiles.thresholds import new_regions

    moved = ad.OnnxScorer(new_regions(path.read_bytes(), folder, efficiencies=[0.2]))
    assert moved.card.folds == scorer.card.folds
    assert [r.efficiency for r in moved.card.regions] == [0.2]
    np.testing.assert_array_equal(moved(data.x, fold), score)
    values = ad.regions.card_logp(moved.card, score, fold)
    passed = values >= moved.card.regions[0].thresholds[0]
    assert np.average(passed, weights=data.weight) == pytest.approx(0.2, abs=0.02)


@pytest.mark.torch
def test_members_that_do_not_go_together_are_refused(skim, tmp_path):
    import torch

    from coffea_ad import nn
    from coffea_ad.nn.cross_training import CrossTrained

    _, data = skim
    one, two = members(data, 2)
    with pytest.raises(ConfigError, match="two or more, of one method and the same columns"):
        CrossTrained([one], SALT)
    with pytest.raises(ConfigError, match="same columns"):
        CrossTrained([one, nn.AE(7, transform=torch.nn.Identity())], SALT)
    model = CrossTrained([one, two], SALT)
    with pytest.raises(ConfigError, match="depends on the folds"):
        model.scores(data.x)
    card = nn.make_card(model, data, name="folded", config={}, metrics={})
    for wrong in (one, CrossTrained([one, two], "other salt"), CrossTrained([one, two, one], SALT)):
        with pytest.raises(BadModel, match="are not those of the model"):
            nn.export(wrong, tmp_path / "x.onnx", card, data.x)
    assert not list(tmp_path.iterdir())
