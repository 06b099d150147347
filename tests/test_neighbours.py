"""Scores that depend on what else is in a batch, or on how much: of networks made elsewhere, of trained ones, of files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from test_attach import AXIS, SUM, WIDTH, card, network
from test_folds import graph as folded_graph
from test_folds import toy_card
from toy_skims import NAME, toy_rows, write_skim
from toys import toy_skim

import coffea_ad as ad
from coffea_ad.errors import BadModel
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.attach import attach, check_rows
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.neighbours import rescored
from coffea_ad.scoring.specs import Golden, InputSpec

pytestmark = pytest.mark.torch  # the onnx package comes with it
DEPENDS = r"the score of a row depends on the other rows of its batch: .* (scored|among|beside) .*export the network for inference$"

# --- graphs ------------------------------------------------------------------------------------------------------------

SIZE = [("Shape", ("score",), "n", {}), ("Cast", ("n",), "size", {"to": 1})]
MANY = [("Greater", ("size", "many"), "crowded", {})]
CENTRED = [("ReduceMean", ("score", "rows"), "mean", {"keepdims": 1}), ("Sub", ("score", "mean"), "other", {})]
COLUMN, ROW = np.array([1]), np.array([0])

DEPENDENT = {
    "its distance to the tenth of the batch": [
        ("TopK", ("score", "ten"), ("top", "places"), {}), ("ReduceMin", ("top", "rows"), "tenth", {"keepdims": 1}),
        ("Sub", ("score", "tenth"), "out", {}),
    ],
    "the place after sorting": [
        *SIZE, ("TopK", ("score", "n"), ("top", "places"), {}), ("Cast", ("places",), "place", {"to": 1}),
        ("Add", ("score", "place"), "out", {}),
    ],
    "its rank in the batch": [
        ("Unsqueeze", ("score", "columns"), "one", {}), ("Unsqueeze", ("score", "rows"), "all", {}),
        ("Greater", ("one", "all"), "above", {}), ("Cast", ("above",), "counted", {"to": 1}),
        ("ReduceSum", ("counted", "columns"), "out", {"keepdims": 0}),
    ],
    "its rank, as a part of the batch": [
        *SIZE, ("Unsqueeze", ("score", "columns"), "one", {}), ("Unsqueeze", ("score", "rows"), "all", {}),
        ("Greater", ("one", "all"), "above", {}), ("Cast", ("above",), "counted", {"to": 1}),
        ("ReduceSum", ("counted", "columns"), "rank", {"keepdims": 0}), ("Div", ("rank", "size"), "out", {}),
    ],
    "its part of the largest": [("ReduceMax", ("score", "rows"), "top", {"keepdims": 1}), ("Div", ("score", "top"), "out", {})],
    "its part of the largest beyond all that is tried": [
        ("ReduceMax", ("score", "rows"), "top", {"keepdims": 1}), ("Max", ("top", "hundred"), "bound", {}),
        ("Div", ("score", "bound"), "out", {}),
    ],
    "columns by the largest of the batch": [
        ("Abs", ("features",), "size_of", {}), ("ReduceMax", ("size_of", "rows"), "top", {"keepdims": 1}),
        ("Div", ("features", "top"), "scaled", {}), ("ReduceSum", ("scaled", "axis"), "out", {"keepdims": 0}),
    ],
    "the number of rows": [*SIZE, ("Add", ("score", "size"), "out", {})],
    "the number of rows, as a mean": [*SIZE, ("Div", ("score", "size"), "out", {})],
    "the first row": [("Gather", ("score", "rows"), "front", {}), ("Sub", ("score", "front"), "out", {})],
    "the rows before": [("CumSum", ("score", "first"), "out", {})],
    "the row before": [
        ("Slice", ("score", "rows", "minus"), "without", {}), ("Slice", ("score", "rows", "columns"), "front", {}),
        ("Concat", ("front", "without"), "shifted", {"axis": 0}), ("Sub", ("score", "shifted"), "out", {}),
    ],
    "the mean of a large batch": [*SIZE, *MANY, *CENTRED, ("Where", ("crowded", "other", "score"), "out", {})],
    "the rows before, of a large batch": [
        *SIZE, *MANY, ("CumSum", ("score", "first"), "other", {}), ("Where", ("crowded", "other", "score"), "out", {}),
    ],
    "the sign of a row that is not there": [
        ("ReduceMax", ("score", "rows"), "top", {"keepdims": 1}), ("Greater", ("top", "hundred"), "loud", {}),
        ("Neg", ("score",), "turned", {}), ("Where", ("loud", "turned", "score"), "out", {}),
    ],
    "integers of a scale that the batch sets": [
        ("DynamicQuantizeLinear", ("features",), ("whole", "scale", "zero"), {}),
        ("DequantizeLinear", ("whole", "scale", "zero"), "again", {}), ("ReduceSum", ("again", "axis"), "out", {"keepdims": 0}),
    ],
    "attention between rows": [
        ("Transpose", ("features",), "turned", {}), ("MatMul", ("features", "turned"), "pairs", {}),
        ("Softmax", ("pairs",), "attention", {"axis": 1}), ("MatMul", ("attention", "features"), "mixed", {}),
        ("ReduceSum", ("mixed", "axis"), "out", {"keepdims": 0}),
    ],
}  # fmt: skip
CONSTANTS = {
    **AXIS, "rows": ROW, "columns": COLUMN, "first": np.array(0), "ten": np.array([10]), "minus": np.array([-1]),
    "many": np.array(200.0), "hundred": np.array([100.0]),
}  # fmt: skip


def graph(kind):
    """One of them, with the constants that it uses: the checker of onnx takes others for a fault."""
    nodes = [SUM, *DEPENDENT[kind]]
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    return network(nodes, {k: v for k, v in CONSTANTS.items() if k in used}, output="out")


@pytest.fixture(scope="module")
def background(tmp_path_factory):
    x, _ = toy_rows(300)
    return write_skim(tmp_path_factory.mktemp("skim") / "s", {"qcd": {"x": x, "weight": np.ones(300), "xsec": 1.0}})


@pytest.mark.parametrize("kind", DEPENDENT)
def test_a_network_whose_score_depends_on_its_batch_gets_no_card(kind, background):
    """With rows of random numbers, and with those of a skim."""
    for skim in (None, background):
        with pytest.raises(BadModel) as caught:
            attach(graph(kind), card(output="out"), background=skim, name="plain.onnx")
        assert str(caught.value).startswith("plain.onnx: ")
        assert "\n" not in str(caught.value)
        if "tenth" not in kind:  # ten rows are not to be had of one
            assert "depends on the other rows of its batch" in str(caught.value)


def test_a_batch_that_is_too_small_for_the_graph_is_one_sentence():
    """As of the hundred largest of a batch: the chunks of a run have any number of rows."""
    nodes = [
        SUM,
        ("TopK", ("score", "k"), ("top", "places"), {}),
        ("ReduceMin", ("top", "rows"), "least", {"keepdims": 1}),
        ("Sub", ("score", "least"), "out", {}),
    ]
    plain = network(nodes, {**AXIS, "rows": ROW, "k": np.array([100])}, output="out")
    with pytest.raises(BadModel, match=r"^plain.onnx: onnxruntime cannot run it on 64 rows: .*TopK") as caught:
        attach(plain, card(output="out"), name="plain.onnx")
    assert "\n" not in str(caught.value)


SHUT = {
    "the number of rows, unused": [*SIZE, ("Mul", ("size", "nothing"), "none", {}), ("Add", ("score", "none"), "out", {})],
    "softmax over columns": [("Softmax", ("features",), "part", {"axis": 1}), ("ReduceMax", ("part", "axis"), "out", {"keepdims": 0})],
    "sorted columns": [("TopK", ("features", "three"), ("top", "places"), {}), ("ReduceSum", ("top", "axis"), "out", {"keepdims": 0})],
    "columns one after another": [("CumSum", ("features", "last"), "along", {}), ("ReduceMax", ("along", "axis"), "out", {"keepdims": 0})],
}  # fmt: skip


@pytest.mark.parametrize("kind", SHUT)
def test_the_same_operators_within_a_row_are_taken(kind, background):
    nodes = [SUM, *SHUT[kind]]
    used = {name for _, inputs, _, _ in nodes for name in inputs}
    values = {**AXIS, "nothing": np.array([0.0]), "three": np.array([3]), "last": np.array(1)}
    plain = network(nodes, {k: v for k, v in values.items() if k in used}, output="out")
    scorer = ad.OnnxScorer(attach(plain, card(output="out"), background=background))
    assert np.isfinite(scorer(toy_rows(20)[0])).all()


def test_rows_out_of_a_table_do_not_count_as_neighbours():
    """An integer in a column that looks up a table cannot be a thousand times as large."""
    nodes = [
        ("Gather", ("features", "first"), "column", {"axis": 1}), ("Cast", ("column",), "entry", {"to": 7}),
        ("Gather", ("table", "entry"), "out", {}),
    ]  # fmt: skip
    plain = network(nodes, {"first": np.array(0), "table": np.arange(5.0)}, output="out")
    assert ad.OnnxScorer(attach(plain, card(output="out"))).card.golden is not None


# --- torch -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["left in training mode", "without running statistics", "for inference"])
def test_a_torch_model_whose_batch_normalisation_uses_the_batch_gets_no_card(how, tmp_path):
    import torch

    normal = torch.nn.BatchNorm1d(4, track_running_stats=how != "without running statistics")
    made_of = torch.nn.Sequential(torch.nn.Linear(WIDTH, 4), normal, torch.nn.Linear(4, 1))
    options = {"dynamo": False, "dynamic_axes": {"features": {0: "rows"}, "score": {0: "rows"}}}
    if how == "without running statistics":
        options = {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("rows")},), "external_data": False}
    if how == "left in training mode":
        made_of.train()
        options["training"] = torch.onnx.TrainingMode.TRAINING
    else:
        made_of.eval()
    path = tmp_path / "left.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the older one, and warns of the mode
        torch.onnx.export(
            made_of, (torch.randn(4, WIDTH),), str(path), input_names=["features"], output_names=["score"], **options
        )
    if how == "for inference":
        assert ad.OnnxScorer(attach(path.read_bytes(), card())).card.name == "theirs"
    else:
        with pytest.raises(BadModel, match=r"^left.onnx: .* training mode.*; export the network for inference"):
            attach(path.read_bytes(), card(), name="left.onnx")


def energies():
    import torch

    def rank(z):
        return (z[:, None, 0] > z[None, :, 0]).float().sum(dim=1)

    def crowded(z):
        size = z.square().sum(dim=1)
        return torch.where(torch.scalar_tensor(z.shape[0]) > 200, size - size.mean(), size)

    return {
        "normalised by its batch": lambda z: torch.nn.functional.batch_norm(z, None, None, training=True).square().sum(dim=1),
        "its rank": rank,
        "part of the largest": lambda z: z.square().sum(dim=1) / z.square().sum(dim=1).amax(dim=0),
        "the rows before": lambda z: z.square().sum(dim=1).cumsum(dim=0),
        "the number of rows": lambda z: z.square().sum(dim=1) * z.shape[0],
        "the mean of many": crowded,
    }  # fmt: skip


@pytest.fixture(scope="module")
def skim():
    return toy_skim(n=600)


@pytest.mark.parametrize("kind", ["normalised by its batch", "its rank", "part of the largest", "the rows before",
                                  "the number of rows", "the mean of many"])  # fmt: skip
def test_a_trained_model_whose_score_depends_on_its_batch_is_not_written(kind, skim, tmp_path):
    from coffea_ad import nn

    class Dependent(nn.Model):
        method = "toy"

        def energy(self, z):
            return energies()[kind](z)

    model = Dependent((8,), nn.Standard(8))
    made = nn.make_card(model, skim, name="toy", config={}, metrics={})
    with pytest.raises(BadModel) as caught:
        nn.export(model, tmp_path / "m.onnx", made, skim.x[:50])
    assert f"{tmp_path / 'm.onnx'}: the score of a row depends on the other rows of its batch" in str(caught.value)
    assert not (tmp_path / "m.onnx").exists()


# --- files that have a card --------------------------------------------------------------------------------------------


def carded(kind, scores, rows):
    """A file that nothing has checked: its golden scores are what the graph gives for all of its rows at once."""
    spec = InputSpec(features=(feature_spec(NAME),))
    golden = Golden(inputs={"features": [[float(v) for v in row] for row in rows]}, scores=[float(s) for s in scores])
    return write_card(graph(kind), ModelCard(name="theirs", method="toy", inputs=(spec,), output="out", golden=golden))


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("the number of rows", lambda s: s + len(s)),
        ("the rows before", np.cumsum),
        ("its part of the largest", lambda s: s / s.max()),
        ("the mean of a large batch", lambda s: s),
        ("its rank in the batch", lambda s: np.argsort(np.argsort(s)).astype(float)),
    ],
)
def test_a_file_whose_golden_rows_depend_on_one_another_does_not_load(kind, scores):
    """As one with a card that something else has written: its golden rows come out, but only together."""
    rows = toy_rows(8)[0] + np.arange(8, dtype=np.float32)[:, None]
    sealed = carded(kind, scores(rows.astype(np.float64).sum(axis=1)), rows)
    with pytest.raises(BadModel, match=r"^theirs.onnx: " + DEPENDS):
        ad.OnnxScorer(sealed, name="theirs.onnx").session  # noqa: B018


def test_the_member_of_a_fold_is_found():
    """One of three outputs counts the rows of its batch."""
    import onnx
    from onnx import helper

    proto = onnx.load_from_string(folded_graph())
    last = next(node for node in proto.graph.node if "score_2" in node.output)
    last.output[0] = "before"
    proto.graph.node.extend([
        helper.make_node("Shape", ["sum"], ["n"]), helper.make_node("Cast", ["n"], ["size"], to=1),
        helper.make_node("Add", ["before", "size"], ["score_2"]),
    ])  # fmt: skip
    n = len(toy_card().golden.inputs["features"])
    sealed = write_card(proto.SerializeToString(), toy_card(scores=[0.0] * n + [1.0] * n + [2.0 + n] * n))
    with pytest.raises(BadModel, match=DEPENDS):
        ad.OnnxScorer(sealed).sessions  # noqa: B018
    without = write_card(proto.SerializeToString(), toy_card(golden=None))
    with pytest.raises(BadModel, match=DEPENDS):
        check_rows(ad.OnnxScorer(without), toy_rows(5)[0])


# --- the batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7, 1024])
def test_rows_come_back_in_their_order_from_every_batch(size):
    rows = {"a": np.arange(6, dtype=np.float32).reshape(3, 2), "b": np.arange(3, dtype=np.float32).reshape(3, 1)}
    sizes = []

    def score(batch):
        sizes.append(len(batch["a"]))
        return batch["a"][:, 0] + 10 * batch["b"][:, 0]

    for scores, how in rescored(score, rows, size, extremes=True):
        np.testing.assert_array_equal(scores, [0, 12, 24], err_msg=how)
    assert set(sizes) == {1, 3, max(size, 3)}


def test_neighbours_are_larger_by_far_and_finite():
    seen = []
    rows = {"a": np.array([[3e38], [1.0]], np.float32)}
    for _ in rescored(lambda batch: seen.append(batch["a"]) or batch["a"][:, 0], rows, 64, extremes=True):
        pass
    assert np.isfinite(seen[-1]).all()
    assert np.abs(seen[-1]).max() > 3.4e38
    assert {1000.0, -1000.0, 0.0} <= set(seen[-1].ravel().tolist())
