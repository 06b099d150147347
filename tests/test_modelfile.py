from __future__ import annotations

import json

import numpy as np
import pytest

import coffea_ad as ad
from coffea_ad.errors import BadModel, CardMismatch, CoffeaADError
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring import modelfile
from coffea_ad.scoring.card import ModelCard, parse_card, read_card, write_card
from coffea_ad.scoring.modelfile import CARD_KEY, check_graph, read_texts, seal, verify, with_texts
from coffea_ad.scoring.specs import Golden, InputSpec

needs_onnx = pytest.mark.torch  # the onnx package comes with it


@pytest.fixture(scope="module")
def model(request):
    return (request.config.rootpath / "tests" / "data" / "wnae.onnx").read_bytes()


def resealed(model, change):
    """The same network under an edited card, with a right digest: what a careless tool would write."""
    content = json.loads(read_texts(model)[CARD_KEY])
    change(content)
    return seal(model, json.dumps(content))


def test_a_sound_file_is_accepted_and_texts_round_trip(model):
    assert verify(model) == ad.OnnxScorer(model).digest
    changed = with_texts(model, {"note": "σ"})
    assert read_texts(changed)["note"] == "σ"
    assert with_texts(changed, {"note": "τ"}).count("τ".encode()) == 1


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("given", ["bytes", "path"])
def test_no_single_bit_flip_is_accepted(model, given, seed, tmp_path):
    rng = np.random.default_rng(seed)
    path = tmp_path / "flipped.onnx"
    for position, bit in zip(rng.integers(0, len(model), 250), rng.integers(0, 8, 250), strict=True):
        broken = bytearray(model)
        broken[position] ^= 1 << int(bit)
        path.write_bytes(broken)
        with pytest.raises(CoffeaADError, match="flipped.onnx" if given == "path" else "model"):
            ad.OnnxScorer(path if given == "path" else bytes(broken))


@pytest.mark.parametrize("given", ["bytes", "path"])
def test_truncated_files_are_refused(model, given, tmp_path):
    path = tmp_path / "short.onnx"
    for keep in (0, 1, 10, 1000, 50_000, -100, -1, *np.random.default_rng(9).integers(0, len(model), 100)):
        path.write_bytes(model[:keep])
        with pytest.raises(BadModel):
            ad.OnnxScorer(path if given == "path" else model[:keep])


def test_longer_files_are_refused(model):
    for more in (b"\x00", b"x" * 100, model):
        with pytest.raises(BadModel):
            ad.OnnxScorer(model + more)


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "not.onnx"
    path.write_text("hello")
    with pytest.raises(BadModel, match="not.onnx"):
        ad.OnnxScorer(path)
    with pytest.raises(BadModel, match="nowhere.onnx: cannot be read"):
        ad.OnnxScorer(tmp_path / "nowhere.onnx")


def test_a_plain_model_is_refused_with_the_way_out(model):
    plain = bytes(model)
    for key in (CARD_KEY, "coffea_ad.digest"):
        plain = plain.replace(key.encode(), b"x" * len(key))
    with pytest.raises(BadModel, match="card attach"):
        ad.OnnxScorer(plain)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(schema_version=5), "schema version 5, this coffea-ad reads"),
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c.pop("name"), "name"),
        (lambda c: c["regions"][0].update(thresholds=[]), "regions.0.thresholds"),
        (lambda c: c["calibration"]["score"].reverse(), "score must not decrease"),
        (lambda c: c["regions"].reverse(), "loose to tight"),
    ],
    ids=["version", "unknown key", "missing key", "no threshold", "calibration", "order"],
)
def test_a_wrong_card_is_refused_by_the_name_of_its_key(model, change, match):
    with pytest.raises(BadModel, match=match):
        ad.OnnxScorer(resealed(model, change))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda f: f["columns"].reverse(), "columns of jet_substructure are tau3, tau2"),
        (lambda f: f["columns"][0].update(name="girth"), "girth"),
        (lambda f: f["columns"].pop(), "columns"),
        (lambda f: f.update(version=2), "version 2, this coffea-ad computes version 1"),
        (lambda f: f.update(name="jet_substructures"), "did you mean 'jet_substructure'"),
        (lambda f: f["options"].update(sorce="stored"), "did you mean 'source'"),
    ],
    ids=["permuted", "renamed", "missing", "version", "unknown feature", "unknown option"],
)
def test_a_card_that_disagrees_with_the_feature_table_is_refused(model, change, match):
    edited = resealed(model, lambda c: change(c["inputs"][0]["features"][0]))
    with pytest.raises(CoffeaADError, match=match):
        ad.Tagger(edited)


def test_a_card_that_disagrees_with_its_graph_is_refused(model):
    edited = resealed(model, lambda c: c["inputs"][0].update(name="jets"))
    with pytest.raises(CardMismatch, match="not the graph's"):
        ad.OnnxScorer(edited).session  # noqa: B018
    edited = resealed(model, lambda c: c.update(output="energy"))
    with pytest.raises(CardMismatch, match="no output 'energy'"):
        ad.OnnxScorer(edited).session  # noqa: B018


def test_golden_rows_that_do_not_come_out_are_refused(model):
    edited = resealed(model, lambda c: c["golden"]["scores"].__setitem__(0, 99.0))
    with pytest.raises(BadModel, match="golden"):
        ad.OnnxScorer(edited).session  # noqa: B018


def test_a_card_without_golden_rows_is_accepted(model):
    """They find a wrong card or a wrong runtime; what they would have found is not known without them."""
    assert read_card(model).golden is not None
    bare = ad.OnnxScorer(resealed(model, lambda c: c.pop("golden")))
    rows = np.array(read_card(model).golden.inputs["features"], np.float32)
    np.testing.assert_array_equal(bare(rows), ad.OnnxScorer(model)(rows))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda g: g["inputs"].update(features=[row[:-1] for row in g["inputs"]["features"]]),
            "not rows of input features",
        ),
        (lambda g: g.update(inputs={"jets": g["inputs"]["features"]}), "not rows of input features"),
        (lambda g: g["inputs"]["features"][0].__setitem__(0, 1e300), "not rows of input features"),
        (lambda g: g["scores"].pop(), r"8 golden rows of features need 8 scores \(1 a row\), not 7"),
        (lambda g: g["scores"].clear(), "golden.scores"),
        (lambda g: g["inputs"]["features"].reverse(), "do not give their scores"),
        (lambda g: [row.reverse() for row in g["inputs"]["features"]], "do not give their scores"),
    ],
    ids=["narrow", "other input", "beyond float32", "score missing", "no scores", "other rows", "other columns"],
)
def test_golden_rows_that_do_not_fit_are_refused(model, change, match):
    with pytest.raises(BadModel, match=match):
        ad.OnnxScorer(resealed(model, lambda c: change(c["golden"]))).session  # noqa: B018


# graphs


def toy(
    inputs=(("features", 8),), *, dtype="FLOAT", output=("score", "FLOAT", ("rows",)), rows="rows", axis=1, change=None
):
    """A graph that sums its inputs, under a card that takes eight substructure inputs and gives `score`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = getattr(TensorProto, dtype)
    nodes = [helper.make_node("ReduceSum", [name, "axis"], [f"sum_{name}"], keepdims=0) for name, *_ in inputs]
    total = "sum_" + inputs[0][0]
    for i, (name, *_) in enumerate(inputs[1:]):
        nodes.append(helper.make_node("Add", [total, f"sum_{name}"], [f"total_{i}"]))
        total = f"total_{i}"
    nodes.append(helper.make_node("Cast", [total], [output[0]], to=getattr(TensorProto, output[1])))
    made = helper.make_graph(
        nodes, "toy", [helper.make_tensor_value_info(name, kind, [rows, *shape]) for name, *shape in inputs],
        [helper.make_tensor_value_info(output[0], getattr(TensorProto, output[1]), output[2])],
        [numpy_helper.from_array(np.array([axis]), "axis")],
    )  # fmt: skip
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    if change is None:
        onnx.checker.check_model(proto)
    else:
        change(proto)
    return proto.SerializeToString()


def toy_card(**changes):
    return ModelCard(**{
        "name": "toy", "method": "toy", "inputs": (InputSpec(features=(feature_spec("jet_substructure"),)),), **changes
    })  # fmt: skip


@needs_onnx
@pytest.mark.parametrize(
    ("made", "match"),
    [
        ({"inputs": (("jets", 8),)}, "the card's inputs .*features.* are not the graph's .*jets"),
        ({"inputs": (("features", 7),)}, r"are not the graph's {'features': \(7,\)}"),
        ({"inputs": (("features", 8), ("mask", 8))}, "are not the graph's .*mask"),
        ({"inputs": (("features", 8, 1),)}, r"are not the graph's {'features': \(8, 1\)}"),
        ({"inputs": (("features",),), "axis": 0, "output": ("score", "FLOAT", ())}, r"are not the graph's {'features': \(\)}"),
        ({"dtype": "DOUBLE"}, r"features is tensor\(double\), but inputs and scores must be float32"),
        ({"dtype": "INT64"}, r"features is tensor\(int64\)"),
        ({"rows": 4}, "features has room for 4 rows, not for any number"),
        ({"output": ("energy", "FLOAT", ("rows",))}, "the graph has no output 'score'"),
        ({"output": ("score", "INT64", ("rows",))}, r"score is tensor\(int64\)"),
        ({"output": ("score", "DOUBLE", ("rows",))}, r"score is tensor\(double\)"),
    ],
    ids=["renamed", "narrow", "one more", "rank 3", "rank 1", "float64", "int64", "fixed rows", "other output",
         "integer score", "float64 score"],
)  # fmt: skip
def test_a_graph_that_is_not_that_of_the_card_is_refused(made, match):
    sealed = write_card(toy(**made), toy_card())
    with pytest.raises(CardMismatch, match=match):
        ad.OnnxScorer(sealed).session  # noqa: B018


@needs_onnx
def test_a_graph_without_one_of_the_inputs_is_refused_and_their_order_does_not_matter():
    spec = {"features": (feature_spec("jet_substructure"),)}
    card = toy_card(inputs=(InputSpec(name="a", **spec), InputSpec(name="b", **spec)))
    with pytest.raises(CardMismatch, match="are not the graph's"):
        ad.OnnxScorer(write_card(toy((("a", 8),)), card)).session  # noqa: B018
    scorer = ad.OnnxScorer(write_card(toy((("b", 8), ("a", 8))), card))
    one, two = np.ones((3, 8), np.float32), np.full((3, 8), 2, np.float32)
    np.testing.assert_array_equal(scorer({"a": one, "b": two}), 24)
    with pytest.raises(CardMismatch, match=r"the inputs are \['a', 'b'\]"):
        scorer({"a": one})
    with pytest.raises(CardMismatch, match="the inputs have 2 and 3 rows"):
        scorer({"a": one, "b": two[:2]})


@needs_onnx
def test_a_graph_that_gives_more_than_one_score_a_row_is_refused():
    def no_sum(proto):
        del proto.graph.node[0]
        proto.graph.node[0].input[0] = "features"
        del proto.graph.output[0].type.tensor_type.shape.dim[:]
        proto.graph.output[0].type.tensor_type.ClearField("shape")

    scorer = ad.OnnxScorer(write_card(toy(change=no_sum), toy_card()))
    with pytest.raises(CardMismatch, match=r"output score has the shape \(3, 8\), not one score a row"):
        scorer(np.ones((3, 8), np.float32))


@needs_onnx
def test_a_single_column_of_scores_will_do():
    def keep(proto):
        proto.graph.node[0].attribute[0].i = 1
        proto.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1

    scorer = ad.OnnxScorer(write_card(toy(change=keep), toy_card()))
    np.testing.assert_array_equal(scorer(np.ones((3, 8), np.float32)), [8, 8, 8])


@needs_onnx
def test_a_failing_golden_pair_of_a_toy_is_refused():
    golden = Golden(inputs={"features": ((1.0,) * 8, (2.0,) * 8)}, scores=(8.0, 16.0))
    np.testing.assert_array_equal(
        ad.OnnxScorer(write_card(toy(), toy_card(golden=golden)))(np.ones((1, 8), np.float32)), [8]
    )
    wrong = golden.model_copy(update={"scores": (8.0, 16.1)})
    with pytest.raises(BadModel, match="golden rows do not give their scores"):
        ad.OnnxScorer(write_card(toy(), toy_card(golden=wrong))).session  # noqa: B018


# what must not be in a graph


def outside(tensor):
    import onnx

    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def weights(name="far"):
    from onnx import numpy_helper

    return numpy_helper.from_array(np.ones(3, np.float32), name)


def in_initializer(proto):
    outside(proto.graph.initializer[0])


def only_a_location(proto):
    import onnx

    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def only_an_entry(proto):
    proto.graph.initializer[0].external_data.add().key = "location"


def in_sparse(proto):
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(weights())
    outside(sparse.values)


def in_sparse_indices(proto):
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(weights())
    sparse.indices.CopyFrom(weights())
    outside(sparse.indices)


def in_attribute(proto):
    attribute = proto.graph.node[0].attribute.add()
    attribute.name = "value"
    attribute.t.CopyFrom(weights())
    outside(attribute.t)


def in_attribute_list(proto):
    attribute = proto.graph.node[0].attribute.add()
    attribute.tensors.add().CopyFrom(weights("near"))
    attribute.tensors.add().CopyFrom(weights())
    outside(attribute.tensors[1])


def in_sparse_attribute(proto):
    attribute = proto.graph.node[0].attribute.add()
    attribute.sparse_tensor.values.CopyFrom(weights())
    outside(attribute.sparse_tensor.values)


def in_subgraph(proto):
    inner = proto.graph.node[0].attribute.add()
    inner.g.initializer.add().CopyFrom(weights())
    outside(inner.g.initializer[0])


def in_subgraph_of_a_list_in_a_subgraph(proto):
    inner = proto.graph.node[0].attribute.add().g.node.add().attribute.add().graphs.add()
    inner.initializer.add().CopyFrom(weights())
    outside(inner.initializer[0])


def in_function(proto):
    attribute = proto.functions.add().node.add().attribute.add()
    attribute.t.CopyFrom(weights())
    outside(attribute.t)


def in_default_of_a_function(proto):
    attribute = proto.functions.add().attribute_proto.add()
    attribute.t.CopyFrom(weights())
    outside(attribute.t)


def in_training(proto):
    graph = proto.training_info.add().algorithm
    graph.initializer.add().CopyFrom(weights())
    outside(graph.initializer[0])


@pytest.fixture
def no_runtime(monkeypatch):
    """Fail if a graph reaches the runtime."""
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("the runtime has seen it"))


@needs_onnx
@pytest.mark.parametrize(
    "place",
    [in_initializer, only_a_location, only_an_entry, in_sparse, in_sparse_indices, in_attribute, in_attribute_list,
     in_sparse_attribute, in_subgraph, in_subgraph_of_a_list_in_a_subgraph, in_function, in_default_of_a_function,
     in_training],
    ids=lambda f: f.__name__,
)  # fmt: skip
@pytest.mark.usefixtures("no_runtime")
def test_weights_in_another_file_are_refused_by_name(place):
    sealed = write_card(toy(change=place), toy_card())
    with pytest.raises(BadModel, match=r"the weights '(far|axis)' lie in another file; a model must be one file"):
        ad.OnnxScorer(sealed)


def node_of(domain):
    def change(proto):
        proto.graph.node[0].domain = domain

    return change


def node_in_subgraph(proto):
    proto.graph.node[0].attribute.add().g.node.add().domain = "evil"


def node_in_function(proto):
    proto.functions.add().node.add().domain = "evil"


def function_of(proto):
    proto.functions.add().domain = "evil"


def imported_by_function(proto):
    proto.functions.add().opset_import.add().domain = "evil"


def imported(proto):
    proto.opset_import.add().domain = "evil"


@needs_onnx
@pytest.mark.parametrize(
    "place",
    [node_of("evil"), node_in_subgraph, node_in_function, function_of, imported_by_function, imported],
    ids=["node", "subgraph", "function's node", "function", "function's import", "import"],
)
@pytest.mark.usefixtures("no_runtime")
def test_foreign_operators_are_refused_by_name(place):
    sealed = write_card(toy(change=place), toy_card())
    with pytest.raises(BadModel, match="operators of a foreign domain: evil"):
        ad.OnnxScorer(sealed)


@needs_onnx
@pytest.mark.parametrize("domain", ["", "ai.onnx", "ai.onnx.ml"])
def test_operators_of_onnx_itself_are_not_foreign(domain):
    check_graph(toy(change=node_of(domain)))


def test_a_field_whose_number_another_reader_would_cut_off_is_refused(model):
    """2³² more in the number of a field: some readers keep the lower 32 bits, and would see a graph."""
    at = model.index(b"\x3a")  # field 7 of ModelProto, the graph
    hidden = model[:at] + modelfile._encode(0x3A + (1 << 32)) + model[at + 1 :]
    for data in (hidden, b"\x02\x00", b"\x3b\x3c"):  # field 0; a group
        with pytest.raises(BadModel, match="not an ONNX file"):
            check_graph(data)


@needs_onnx
def test_all_places_of_operators_and_weights_are_walked():
    """The table of messages, against that of the onnx package."""
    import onnx

    names = {
        "ModelProto": "model", "GraphProto": "graph", "NodeProto": "node", "AttributeProto": "attribute",
        "FunctionProto": "function", "TrainingInfoProto": "training", "TensorProto": "tensor",
        "SparseTensorProto": "sparse", "OperatorSetIdProto": "opset",
    }  # fmt: skip
    found, waiting = {}, [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        inner = {f.number: f.message_type for f in message.fields if f.message_type is not None}
        found[message.name] = {n: m.name for n, m in inner.items() if m.name in names}
        others = {m.name for m in inner.values()} - set(names)
        waiting += [m for m in inner.values() if m.name not in found]
        assert not {"TensorProto", "NodeProto", "GraphProto"} & others
    leads = {name for name, inner in found.items() if inner}
    assert leads == {"ModelProto", "GraphProto", "NodeProto", "AttributeProto", "FunctionProto", "TrainingInfoProto",
                     "SparseTensorProto"}  # fmt: skip
    assert {names[m]: {n: names[i] for n, i in found[m].items()} for m in names} == modelfile._MESSAGES
    fields = {f"{m.name}.{f.name}": f.number for m in (onnx.TensorProto.DESCRIPTOR, onnx.NodeProto.DESCRIPTOR,
              onnx.FunctionProto.DESCRIPTOR, onnx.OperatorSetIdProto.DESCRIPTOR) for f in m.fields}  # fmt: skip
    assert fields["TensorProto.external_data"] == modelfile._EXTERNAL_DATA
    assert fields["TensorProto.data_location"] == modelfile._DATA_LOCATION
    assert fields["TensorProto.name"] == modelfile._TENSOR_NAME
    domains = {"node": "NodeProto", "function": "FunctionProto", "opset": "OperatorSetIdProto"}
    assert {k: fields[f"{v}.domain"] for k, v in domains.items()} == modelfile._DOMAIN_FIELD


def test_a_card_survives_json(model):
    card = read_card(model)
    assert parse_card(card.model_dump_json()) == card
    assert ModelCard.model_json_schema()["additionalProperties"] is False
