"""Model files as other tools write them: too new for the runtime, with a ZipMap behind a classifier, with two inputs."""

from __future__ import annotations

import numpy as np
import pytest
from test_attach import AXIS, SUM, WIDTH, card, network
from test_event_models import two_inputs  # noqa: F401  a fixture
from toys import open_events

import coffea_ad as ad
from coffea_ad.errors import BadModel, CardMismatch
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.attach import attach
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.modelfile import runtime_reason
from coffea_ad.scoring.specs import InputSpec

pytestmark = pytest.mark.torch  # the onnx package comes with it
SPEC = InputSpec(features=(feature_spec("jet_substructure"),))


def changed(ir_version=9, opset=18):
    import onnx

    model = onnx.load_from_string(network([SUM], AXIS))
    model.ir_version, model.opset_import[0].version = ir_version, opset
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("versions", "what"),
    [({"ir_version": 99}, "IR version 99"), ({"opset": 99}, "opset 99 of ai.onnx"), ({"ir_version": 99, "opset": 99}, "IR version 99")],
)  # fmt: skip
def test_a_model_that_is_too_new_is_one_sentence(versions, what):
    """With a card, and without one."""
    sentence = (
        rf"^new.onnx: onnxruntime cannot load it: it is of {what}, but this onnxruntime knows those up to \d+; export it for an "
        "older one, or install a newer onnxruntime$"
    )
    with pytest.raises(BadModel, match=sentence):
        attach(changed(**versions), card(), name="new.onnx")
    sealed = write_card(changed(**versions), ModelCard(name="new", method="toy", inputs=(SPEC,)))
    with pytest.raises(BadModel, match=sentence):
        ad.OnnxScorer(sealed, name="new.onnx").session  # noqa: B018


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("[ONNXRuntimeError] : 1 : FAIL : Load model failed: no such operator", "Load model failed: no such operator"),
        ("/src/a.h:46 void f(std::map<int (*)(int), int>&, bool) const No (good) reason", "No (good) reason"),
        ("/src/a.cc:9 x::operator()(const T&) Bad", "Bad"),
        ("/src/a.cc:9 without a signature", "without a signature"),
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : first\nsecond", "first"),
        ("anything else", "anything else"),
    ],
)
def test_the_source_of_the_runtime_is_left_out(said, reason):
    assert runtime_reason(RuntimeError(said)) == reason


def classifier(zipmap):
    """A tree of two leaves, as converters of scikit-learn write it."""
    from onnx import helper

    tree = helper.make_node(
        "TreeEnsembleClassifier", ["features"], ["label", "probabilities"], domain="ai.onnx.ml", post_transform="NONE",
        nodes_treeids=[0] * 3, nodes_nodeids=[0, 1, 2], nodes_featureids=[0] * 3, nodes_values=[0.5, 0.0, 0.0],
        nodes_hitrates=[1.0] * 3, nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0], nodes_missing_value_tracks_true=[0] * 3, class_treeids=[0] * 4,
        class_nodeids=[1, 1, 2, 2], class_ids=[0, 1, 0, 1], class_weights=[0.8, 0.2, 0.1, 0.9], classlabels_int64s=[0, 1],
    )  # fmt: skip
    if zipmap:
        last = helper.make_node("ZipMap", ["probabilities"], ["out"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])
        table = helper.make_map_type_proto(7, helper.make_tensor_type_proto(1, None))
        out = helper.make_value_info("out", helper.make_sequence_type_proto(table))
        rest = [last]
    else:
        rest = [helper.make_node("ArrayFeatureExtractor", ["probabilities", "one"], ["out"], domain="ai.onnx.ml")]
        out = helper.make_tensor_value_info("out", 1, ["rows", 1])
    from onnx import numpy_helper

    graph = helper.make_graph(
        [tree, *rest], "tree", [helper.make_tensor_value_info("features", 1, ["rows", WIDTH])],
        [helper.make_tensor_value_info("label", 7, ["rows"]), out],
        [] if zipmap else [numpy_helper.from_array(np.array([1]), "one")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


def test_a_zipmap_and_a_label_are_no_scores_and_the_probability_is_one():
    for output, kind in (("out", r"seq\(map\(int64,tensor\(float\)\)\)"), ("label", r"tensor\(int64\)")):
        sentence = f"^tree.onnx: {output} is {kind}, but inputs and scores must be float32$"
        with pytest.raises(CardMismatch, match=sentence):
            attach(classifier(zipmap=True), card(output=output), name="tree.onnx")
    scorer = ad.OnnxScorer(attach(classifier(zipmap=False), card(output="out")))
    rows = np.zeros((2, WIDTH), np.float32)
    rows[1, 0] = 0.7
    np.testing.assert_allclose(scorer(rows), [0.2, 0.9], rtol=1e-6)


def test_a_model_of_two_inputs_needs_a_card_of_two_and_runs_with_it(two_inputs, svj_file, tmp_path):  # noqa: F811
    data, both = two_inputs
    one = both.model_copy(update={"inputs": both.inputs[:1], "golden": None})
    with pytest.raises(
        CardMismatch, match=r"^two.onnx: the card's inputs .*'constituents'.* are not the graph's .*'mask'"
    ):
        ad.OnnxScorer(write_card(data, one), name="two.onnx").session  # noqa: B018
    sealed = write_card(data, both)
    events = open_events(svj_file, metadata={"dataset": "svj"})
    scores = np.concatenate(ad.Tagger(sealed)(events)["ad_score"].to_list())
    assert (np.isfinite(scores) & (scores > 0)).any()
    (tmp_path / "two.onnx").write_bytes(sealed)
    fileset = {"svj": {"files": {str(svj_file): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(
        fileset, "semivisible_jets", model=tmp_path / "two.onnx", config="none", executor="iterative", progress=False, preflight=False,
        overrides=["met_min=null", "rt_min=null", "dphi_max=null", "jet_pt_min=100", "jet_scale=0"],
    )  # fmt: skip
    assert report.complete
    (seen,) = report.inputs.values()
    assert seen["datasets"]["svj"]["rows"] > 0
    inclusive = report.outputs["svj"]["histograms"]["mt"][{"cell": "0-0", "variation": "nominal"}]
    assert inclusive.sum(flow=True).value > 0, "its card has no calibration, and so no other cell for what has a score"
