"""Networks made elsewhere: reconstructions, double precision, scores that depend on a batch, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from toy_skims import NAME, toy_rows, write_skim

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadModel, CardMismatch, ConfigError
from coffea_ad.modelfiles.attach import AttachConfig, attach, check_rows
from coffea_ad.scoring.card import read_card

pytestmark = pytest.mark.torch  # the onnx package comes with it
WIDTH = 8
LN = {"mse": False, "mae": False, "ln_mse": True, "ln_mae": True, "log_mae": True}


def network(nodes, constants=None, *, dtype=np.float32, row=(WIDTH,), output="score", tail=(), more_outputs=()):
    """A plain ONNX file with the input `features`."""
    import onnx
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made_of = [
        helper.make_node(op, list(inputs), [out] if isinstance(out, str) else list(out), **attributes)
        for op, inputs, out, attributes in nodes
    ]
    constants = {k: v if v.dtype.kind == "i" else v.astype(dtype) for k, v in (constants or {}).items()}
    graph = helper.make_graph(
        made_of, "toy", [helper.make_tensor_value_info("features", kind, ["rows", *row])],
        [helper.make_tensor_value_info(name, kind, ["rows", *shape]) for name, shape in ((output, tail), *more_outputs)],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()


def card(**more):
    return AttachConfig(**{"name": "theirs", "method": "AE", "features": ({"name": NAME},), **more})


SHIFT, SCALE = np.linspace(-1, 1, WIDTH), np.linspace(0.5, 2, WIDTH)
DOWN = np.random.default_rng(3).normal(size=(WIDTH, 3))
AUTOENCODER = [
    ("Sub", ("features", "shift"), "centred", {}),
    ("Div", ("centred", "scale"), "scaled", {}),
    ("MatMul", ("scaled", "down"), "code", {}),
    ("MatMul", ("code", "up"), "decoded", {}),
]
CONSTANTS = {"shift": SHIFT, "scale": SCALE, "down": DOWN, "up": np.linalg.pinv(DOWN)}


def scaled_reconstruction(dtype=np.float32):
    """A network that scales its input and returns the reconstruction of what it has scaled."""
    return network(AUTOENCODER, CONSTANTS, dtype=dtype, output="decoded", tail=(WIDTH,), more_outputs=[("code", (3,))])


def raw_reconstruction(dtype=np.float32):
    """The same with the scaling undone: the reconstruction is of the input as it is."""
    back = [("Mul", ("decoded", "scale"), "wide", {}), ("Add", ("wide", "shift"), "restored", {})]
    return network([*AUTOENCODER, *back], CONSTANTS, dtype=dtype, output="restored", tail=(WIDTH,))


def compared(x, kind, *, raw):
    z = (x.astype(np.float64) - SHIFT) / SCALE
    decoded = z @ DOWN @ np.linalg.pinv(DOWN)
    difference = (decoded * SCALE + SHIFT - x) if raw else decoded - z
    value = (difference**2 if kind.endswith("mse") else np.abs(difference)).mean(axis=1)
    return np.log(value) if LN[kind] else value


@pytest.fixture(scope="module")
def rows():
    return toy_rows(50, seed=5)[0]


# --- reconstructions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LN)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_reconstruction_becomes_a_score_within_the_graph(kind, dtype, rows):
    of_input = attach(raw_reconstruction(dtype), card(output="restored", score=kind))
    of_scaled = attach(scaled_reconstruction(dtype), card(output="decoded", score=kind, target="scaled"))
    for sealed, raw in ((of_input, True), (of_scaled, False)):
        scorer = ad.OnnxScorer(sealed)
        np.testing.assert_allclose(scorer(rows), compared(rows, kind, raw=raw), rtol=2e-4)
        target = "features" if raw else "scaled"
        assert scorer.card.provenance["comparison"] == {"score": kind, "target": target}
        assert [o.name for o in scorer.session.get_outputs()] == [
            scorer.card.output
        ]  # the code is not computed for nothing
        assert scorer(rows).dtype == np.float32


def test_the_terms_of_a_comparison_are_contributions_of_inputs_where_they_are_of_one_each(rows):
    of_input = ad.OnnxScorer(attach(raw_reconstruction(), card(output="restored", score="mae")))
    of_scaled = ad.OnnxScorer(
        attach(scaled_reconstruction(np.float64), card(output="decoded", score="ln_mse", target="scaled"))
    )
    z = (rows.astype(np.float64) - SHIFT) / SCALE
    apart = z @ DOWN @ np.linalg.pinv(DOWN) - z
    assert (of_input.card.contributions.of, of_scaled.card.contributions.of) == ("score", "exp(score)")
    np.testing.assert_allclose(of_input.contributions(rows), np.abs(apart * SCALE) / WIDTH, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(of_scaled.contributions(rows), apart**2 / WIDTH, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(of_scaled.contributions(rows).sum(axis=1), np.exp(of_scaled(rows)), rtol=1e-4)
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(WIDTH, WIDTH)))[0]
    mixed = [("MatMul", ("features", "turn"), "turned", {}), ("Mul", ("turned", "half"), "decoded", {})]
    constants = {"turn": turn, "half": np.array(0.5)}
    graph = network(mixed, constants, output="decoded", tail=(WIDTH,))
    assert ad.OnnxScorer(attach(graph, card(output="decoded", score="mse", target="turned"))).card.contributions is None


def test_shaped_rows_are_compared_number_by_number():
    features = ({"name": "jet_constituents", "options": {"n": 5}},)
    half = network([("Mul", ("features", "half"), "half_of_it", {})], {"half": np.array(0.5)}, row=(5, 3),
                   output="half_of_it", tail=(5, 3))  # fmt: skip
    x = np.random.default_rng(1).random((4, 5, 3), np.float32)
    scorer = ad.OnnxScorer(attach(half, card(features=features, output="half_of_it", score="mae")))
    np.testing.assert_allclose(scorer(x), 0.5 * x.mean(axis=(1, 2)), rtol=1e-5)
    channel = network([("Unsqueeze", ("features", "axis"), "image", {})], {"axis": np.array([1])}, row=(5, 3),
                      output="image", tail=(1, 5, 3))  # fmt: skip
    exact = ad.OnnxScorer(attach(channel, card(features=features, output="image", score="ln_mse")))
    assert exact(x) == pytest.approx(np.full(4, np.log(1e-37)), rel=1e-5)  # a perfect reconstruction has a finite score


def test_a_reconstruction_of_another_shape_is_refused_and_a_target_is_asked_for(rows):
    code = network(AUTOENCODER[:3], CONSTANTS, output="code", tail=(3,))
    with pytest.raises(CardMismatch, match=r"plain.onnx: for 3 rows the reconstruction 'code' has the shape \(3, 3\), but "
                       r"'features', which it is compared with, \(3, 8\); name what is reconstructed with `target:`"):  # fmt: skip
        attach(code, card(output="code", score="mse"), name="plain.onnx")
    turned = network(
        [("Transpose", ("features",), "turned", {"perm": [0, 2, 1]})], row=(5, 3), output="turned", tail=(3, 5)
    )
    features = ({"name": "jet_constituents", "options": {"n": 5}},)
    with pytest.raises(CardMismatch, match=r"has the shape \(3, 3, 5\), but 'features', .* \(3, 5, 3\)"):
        attach(turned, card(features=features, output="turned", score="mse"))
    one = network([("ReduceMean", ("features", "axis"), "mean", {"keepdims": 1})], {"axis": np.array([1])}, output="mean",
                  tail=(1,))  # fmt: skip
    with pytest.raises(CardMismatch, match=r"has the shape \(3, 1\)"):  # it would be broadcast
        attach(one, card(output="mean", score="mse"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"output": "decodde", "score": "mse"}, "plain.onnx: the graph has no output 'decodde'; it has decoded, code"),
        ({"output": "decoded", "score": "mse", "target": "x"}, "the graph has no tensor 'x' that could be the target"),
        ({"output": "decoded", "score": "mse", "input": "x"}, "are not the graph's"),
        (
            {"output": "decoded", "score": "mse", "features": ({"name": "jet_constituents"},)},
            "it cannot be run on features",
        ),
        ({"output": "decoded"}, "has the shape"),
    ],
)
def test_what_does_not_fit_a_reconstruction_is_one_sentence(changes, sentence):
    with pytest.raises((BadModel, CardMismatch)) as caught:
        attach(scaled_reconstruction(), card(**changes), name="plain.onnx")
    assert sentence in str(caught.value)
    assert "plain.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_target_needs_a_comparison_and_its_name_is_checked(tmp_path, capsys):
    (tmp_path / "plain.onnx").write_bytes(scaled_reconstruction())
    described = {"name": "x", "method": "AE", "features": [{"name": NAME}], "output": "decoded"}
    for more, sentence in (
        ({"target": "scaled"}, "say how with score: mse, mae, ln_mse or ln_mae"),
        ({"score": "msr"}, "should be 'mse', 'mae', 'ln_mse', 'ln_mae' or 'log_mae'"),
    ):
        (tmp_path / "card.yaml").write_text(yaml.safe_dump({**described, **more}))
        assert cli.main(["card", "attach", str(tmp_path / "plain.onnx"), str(tmp_path / "card.yaml")]) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1


# --- precision ---------------------------------------------------------------------------------------------------------

SUM = ("ReduceSum", ("features", "axis"), "score", {"keepdims": 0})
AXIS = {"axis": np.array([1])}


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-6), (np.float16, 5e-3)])
def test_inputs_and_scores_of_other_precisions_get_a_cast(dtype, tolerance, rows):
    plain = network([SUM], AXIS, dtype=dtype)
    scorer = ad.OnnxScorer(attach(plain, card()))
    np.testing.assert_allclose(scorer(rows), rows.sum(axis=1), rtol=tolerance, atol=tolerance)
    assert {v.type for v in (*scorer.session.get_inputs(), *scorer.session.get_outputs())} == {"tensor(float)"}


def test_a_float32_network_keeps_its_bytes():
    from coffea_ad.scoring.modelfile import network_digest

    plain = network([SUM], AXIS)
    assert network_digest(attach(plain, card())) == network_digest(plain)


# --- rows must not depend on one another -------------------------------------------------------------------------------

BATCHES = {
    "less the mean of the batch": [SUM, ("ReduceMean", ("score", "rows"), "mean", {"keepdims": 1}), ("Sub", ("score", "mean"), "out", {})],
    "softmax over rows": [SUM, ("Softmax", ("score",), "out", {"axis": 0})],
    "batch normalisation in training": [
        SUM,
        ("ReduceMean", ("score", "rows"), "mean", {"keepdims": 1}), ("Sub", ("score", "mean"), "centred", {}),
        ("Mul", ("centred", "centred"), "square", {}), ("ReduceMean", ("square", "rows"), "variance", {"keepdims": 1}),
        ("Add", ("variance", "small"), "positive", {}), ("Sqrt", ("positive",), "width", {}), ("Div", ("centred", "width"), "out", {}),
    ],
    "its place in the batch": [SUM, ("CumSum", ("score", "first"), "out", {})],
    "the largest of the batch": [SUM, ("ReduceMax", ("score", "rows"), "top", {"keepdims": 1}), ("Div", ("score", "top"), "out", {})],
}  # fmt: skip
FURTHER = {**AXIS, "rows": np.array([0]), "first": np.array(0), "small": np.array([1e-5])}


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("with_skim", [False, True])
def test_a_score_that_depends_on_other_rows_is_refused(kind, with_skim, tmp_path):
    plain = network(BATCHES[kind], FURTHER, output="out")
    background = None
    if with_skim:
        x, _ = toy_rows(300)
        background = write_skim(tmp_path, {"qcd": {"x": x, "weight": np.ones(300), "xsec": 1.0}})
    with pytest.raises(
        BadModel, match=r"^plain.onnx: the score of a row depends on the other rows of its batch: .* scored"
    ) as e:
        attach(plain, card(output="out"), background=background, name="plain.onnx")
    assert "\n" not in str(e.value)


def test_a_score_that_is_drawn_is_refused():
    """As of a variational autoencoder whose latent vector is sampled in the graph."""
    drawn = [SUM, ("RandomNormalLike", ("score",), "noise", {}), ("Add", ("score", "noise"), "out", {})]
    with pytest.raises(BadModel, match=r"^plain.onnx: the same rows get other scores each time, as with dropout"):
        attach(network(drawn, AXIS, output="out"), card(output="out"), name="plain.onnx")


@pytest.mark.parametrize("training", [1, 0])
def test_batch_normalisation_is_taken_in_inference_only(training, rows):
    values = ("features", "gamma", "beta", "mean", "variance")
    outputs = ("normal", "m", "v") if training else ("normal",)
    nodes = [
        ("BatchNormalization", values, outputs, {"training_mode": training}),
        ("ReduceSum", ("normal", "axis"), "score", {"keepdims": 0}),
    ]
    statistics = {"gamma": np.ones(WIDTH), "beta": np.zeros(WIDTH), "mean": np.zeros(WIDTH), "variance": np.ones(WIDTH)}
    plain = network(nodes, {**AXIS, **statistics})
    if training:
        with pytest.raises(BadModel, match=r"^plain.onnx: .* export the network for inference"):
            attach(plain, card(), name="plain.onnx")
    else:
        np.testing.assert_allclose(ad.OnnxScorer(attach(plain, card()))(rows), rows.sum(axis=1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_scores_of_any_size_are_judged_alike(size, rows):
    """A small score hides no dependence, and a large one does not fail for its rounding."""
    scaled = ("Mul", ("out", "size"), "scaled", {})
    plain = network(
        [*BATCHES["less the mean of the batch"], scaled], {**FURTHER, "size": np.array(size)}, output="scaled"
    )
    with pytest.raises(BadModel, match="depends on the other rows"):
        attach(plain, card(output="scaled"))
    good = network([SUM, ("Mul", ("score", "size"), "scaled", {})], {**AXIS, "size": np.array(size)}, output="scaled")
    np.testing.assert_allclose(
        ad.OnnxScorer(attach(good, card(output="scaled")))(rows), size * rows.sum(axis=1), rtol=1e-4
    )


def test_shipped_models_pass_row_by_row(request):
    for name in ("wnae.onnx", "ae_stored.onnx"):
        scorer = ad.OnnxScorer(request.config.rootpath / "tests" / "data" / name)
        check_rows(scorer, np.array(scorer.card.golden.inputs["features"], np.float32))


# --- undefined scores, and the skim ------------------------------------------------------------------------------------


def test_a_model_without_a_finite_score_is_one_sentence(tmp_path):
    minus = [SUM, ("Mul", ("score", "factor"), "less", {}), ("Sqrt", ("less",), "out", {})]
    nothing = network(minus, {**AXIS, "factor": np.array(np.nan)}, output="out")
    with pytest.raises(
        BadModel, match=r"^plain.onnx: its score is no finite number for any of 64 rows of random numbers"
    ):
        attach(nothing, card(output="out"), name="plain.onnx")
    x, _ = toy_rows(100)
    skim = write_skim(tmp_path, {"qcd": {"x": x, "weight": np.ones(100), "xsec": 1.0}})
    with pytest.raises(BadModel, match=r"for any of 100 background rows of "):
        attach(nothing, card(output="out"), background=skim, name="plain.onnx")


@pytest.fixture
def half_defined(tmp_path):
    """The logarithm of a sum that is negative for about half of the rows, and a skim."""
    (tmp_path / "log.onnx").write_bytes(network([SUM, ("Log", ("score",), "out", {})], AXIS, output="out"))
    described = {"name": "log", "method": "sum", "features": [{"name": NAME}], "output": "out"}
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(described))
    x, _ = toy_rows(400)
    write_skim(tmp_path / "skims", {"qcd": {"x": x, "weight": np.ones(400), "xsec": 1.0}})
    return tmp_path, x


def test_rows_without_a_score_are_counted_and_said(half_defined, capsys):
    folder, x = half_defined
    out = folder / "out.onnx"
    words = [
        "card",
        "attach",
        str(folder / "log.onnx"),
        str(folder / "card.yaml"),
        "--background",
        str(folder / "skims"),
    ]
    assert cli.main([*words, "-o", str(out)]) == 0
    undefined = int((x.sum(axis=1, dtype=np.float64) <= 0).sum())
    assert 100 < undefined < 300
    printed = capsys.readouterr().out
    assert f"the score of {undefined} of 400 background rows is no finite number" in printed
    sealed = read_card(out.read_bytes())
    assert sealed.provenance["unscored"] == {"rows": 400, "unscored": undefined}
    assert len(sealed.golden.scores) == 8  # rows that have a score
    assert sealed.calibration.n_effective == pytest.approx(400 - undefined)


def test_golden_rows_are_those_of_the_skim(half_defined):
    folder, _ = half_defined
    sealed = attach((folder / "log.onnx").read_bytes(), card(output="out"), background=folder / "skims")
    rows = np.array(read_card(sealed).golden.inputs["features"], np.float32)
    assert (np.abs(rows) > 1).any()  # not the random numbers between 0 and 1


def test_the_collection_of_the_card_is_that_of_the_skim(half_defined):
    folder, x = half_defined
    skims = write_skim(
        folder / "others", {"qcd": {"x": x, "weight": np.ones(400), "xsec": 1.0}}, collection="FatJetPuppi"
    )
    plain = (folder / "log.onnx").read_bytes()
    with pytest.raises(ConfigError, match=r"log.onnx: its card is for FatJet, but the skim .*/others is of FatJetPuppi; say "
                       "collection: FatJetPuppi in the card's YAML"):  # fmt: skip
        attach(plain, card(output="out"), background=skims, name="log.onnx")
    sealed = attach(plain, card(output="out", collection="FatJetPuppi"), background=skims)
    assert read_card(sealed).collection == "FatJetPuppi"


def test_negative_weights_are_subtracted_in_the_calibration(tmp_path):
    x, rng = toy_rows(2000)
    weight = np.where(rng.random(2000) < 0.2, -1.0, 1.0)
    skim = write_skim(tmp_path, {"qcd": {"x": x, "weight": weight, "xsec": 1.0}})
    sealed = ad.OnnxScorer(attach(network([SUM], AXIS), card(), background=skim))
    score = np.asarray(sealed(x))
    (loose,) = [r for r in sealed.card.regions if r.name == "loose"]
    passed = ad.regions.logp(sealed.card.calibration, score) >= loose.thresholds[0]
    assert weight[passed].sum() / weight.sum() == pytest.approx(0.1, abs=0.02)
