"""Model files in int8, and a linear preprocessing in the first layer."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

import pyarrow as pa
import pyarrow.parquet as pq

import coffea_ad as ad
from coffea_ad import cli, nn
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.fidelity import fidelity, refuse_unfaithful
from coffea_ad.modelfiles.int8 import dense_layers, int8_network
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import read_card, write_card
from coffea_ad.scoring.modelfile import network_digest, part_for
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.skims.files import SKIM_KEY

SPEC = feature_spec("jet_substructure")


def rows(seed, n, scale=1.0):
    """Eight columns on a curved surface of three dimensions, with noise; `scale` stretches them away from it."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n, 3))
    x = np.tanh(t @ np.random.default_rng(0).normal(size=(3, 8))) + rng.normal(0, 0.1 * scale, (n, 8))
    return x.astype(np.float32)


def write_skim(folder, datasets):
    manifest = {}
    for i, (name, x) in enumerate(datasets.items()):
        n = len(x)
        columns = {f"{SPEC.key}.{c.name}": x[:, j] for j, c in enumerate(SPEC.columns)}
        ids = {"run": np.ones(n, np.uint32), "luminosityBlock": np.full(n, i + 1, np.uint32)}
        others = {"event": np.arange(n, dtype=np.uint64), "objectIdx": np.zeros(n, np.int32)}
        weight = {"genWeight": np.random.default_rng(i).exponential(size=n).astype(np.float32) + 0.1}
        stored = {"version": SPEC.version, "options": SPEC.options, "columns": [c.name for c in SPEC.columns]}
        metadata = {
            "features": {SPEC.key: stored},
            "flavour": "NanoAOD v15",
            "is_mc": True,
            "xsec": 1.0,
            "selection": {},
        }
        table = pa.table({**columns, **ids, **others, **weight}).replace_schema_metadata(
            {SKIM_KEY: json.dumps(metadata)}
        )
        (folder / name).mkdir(parents=True)
        pq.write_table(table, folder / name / "a.parquet")
        manifest[name] = {"files": [f"{name}/a.parquet"], "sumw": float(weight["genWeight"].sum())}
    (folder / "manifest.json").write_text(json.dumps({"datasets": manifest}))
    return folder


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    return write_skim(tmp_path_factory.mktemp("skim"), {"qcd": rows(1, 4000), "svj": rows(2, 800, scale=3.0)})


class Latent(nn.AE):
    """The encoder only, as a trigger would have it."""

    method = "latent"

    def energy(self, z):
        return (self.encoder(z) ** 2).sum(dim=1)


class NoBias(nn.AE):
    """Layers without bias, which the export writes as MatMul."""

    def __init__(self, features, **kwargs):
        super().__init__(features, **kwargs)
        for part in (self.encoder, self.decoder):
            for layer in part:
                if isinstance(layer, torch.nn.Linear):
                    layer.register_parameter("bias", None)


def train(skim, folder, model, name="model", epochs=4):
    data = nn.load_skim(skim, SPEC.name, datasets=["qcd"])
    torch.manual_seed(1)
    made = model()
    nn.fit(made, data, nn.TrainConfig(epochs=epochs, samples_per_epoch=2048, validation_rows=200, learning_rate=3e-3))
    card = nn.make_card(made, data, name=name, config={}, metrics={})
    return nn.export(made, folder / f"{name}.onnx", card, data.splits("validation").x)


@pytest.fixture(scope="module")
def model(skim, tmp_path_factory):
    return train(skim, tmp_path_factory.mktemp("model"), lambda: nn.AE(8, transform=nn.QuantileNormal(8)))


@pytest.fixture(scope="module")
def small(skim, model):
    return nn.quantise(model.read_bytes(), skim, signal=skim)


def held_out(skim, dataset="qcd"):
    return nn.load_skim(skim, SPEC.name, datasets=[dataset]).splits("validation")


def test_the_int8_file_loads_everywhere_and_all_its_layers_are_int8(small, model):
    import onnx

    ad.Tagger(small)
    assert ad.OnnxScorer(small).session.get_inputs()[0].type == "tensor(float)"
    graph = onnx.load_from_string(small).graph
    assert {node.domain for node in graph.node} == {""}
    from_int8 = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    layers = [node for node in graph.node if node.op_type == "Gemm"]
    assert len(layers) == 6 == len(dense_layers(onnx.load(str(model))))
    assert all({node.input[0], node.input[1]} <= from_int8 for node in layers)


def test_scores_stay_close_and_the_card_says_how_close(small, model, skim):
    data = held_out(skim)
    before, after = ad.OnnxScorer(str(model))(data.x), ad.OnnxScorer(small)(data.x)
    assert np.corrcoef(before, after)[0, 1] > 0.99
    assert not np.array_equal(before, after)
    made = read_card(small).provenance["int8"]
    assert made["rank_correlation"] > 0.98
    change = [regions.logp(regions.calibrate(s, data.weight, ""), s) for s in (before, after)]
    assert made["largest_change_of_ad_logp"] == pytest.approx(np.abs(change[0] - change[1]).max())
    assert made["auc"]["float32"] > 0.6
    assert abs(made["auc"]["loss"]) < 0.02
    assert made["auc"]["error"] > 0


def test_the_card_names_the_float_file_and_carries_the_rest_over(small, model):
    old, new = read_card(model.read_bytes()), read_card(small)
    made = new.provenance["int8"]
    assert made["of"] == ad.OnnxScorer(str(model)).digest
    assert made["network_of"] == network_digest(model.read_bytes()) != network_digest(small)
    assert new.method == "AE, int8"
    for same in ("inputs", "quantiles", "selection", "flavours", "collection", "level", "output"):
        assert getattr(new, same) == getattr(old, same), same
    anew = {"int8", "regions_left_out"}
    assert new.provenance.keys() == old.provenance.keys() | anew
    assert all(new.provenance[k] == old.provenance[k] for k in old.provenance.keys() - anew)


def test_calibration_and_regions_are_those_of_the_int8_scores(small, model, skim):
    old, new = read_card(model.read_bytes()), read_card(small)
    assert new.calibration_digest != old.calibration_digest
    assert [(r.name, r.efficiency) for r in new.regions] == [(r.name, r.efficiency) for r in old.regions]
    data = held_out(skim)
    logp = regions.logp(new.calibration, ad.OnnxScorer(small)(data.x))
    for region in new.regions:
        reached, error, _ = regions.efficiency(logp, data.weight, region.thresholds[0])
        assert abs(reached - region.efficiency) < 3 * error, region.name


def test_rows_beyond_the_calibration_keep_their_order(small, model):
    """What is rounded and cut off goes into the layers only: the score compares with the row itself."""
    far = np.zeros((6, 8), np.float32)
    far[:, 0] = [5, 10, 20, 40, 80, 160]
    for data in (str(model), small):
        assert np.all(np.diff(ad.OnnxScorer(data)(far)) > 0)


def test_a_score_does_not_depend_on_the_batch_it_stands_in(small, skim):
    x = held_out(skim).x[:50]
    scorer = ad.OnnxScorer(small)
    np.testing.assert_array_equal(scorer(x), np.concatenate([scorer(row[None]) for row in x]))


def test_undefined_rows_have_no_score(small, skim):
    x = held_out(skim).x[:4].copy()
    x[0, 0], x[1, 7], x[2, 3] = np.nan, np.inf, -np.inf
    raw = ad.OnnxScorer(small).session.run(None, {"features": x})[0].reshape(-1)
    assert np.isnan(raw).tolist() == [True, True, True, False]
    assert ad.OnnxScorer(small)(x[:0]).shape == (0,)


def test_golden_rows_stand_off_the_edges_of_the_rounding(small):
    """Inputs that differ in the last digits, as another machine's would, give the golden scores."""
    golden = read_card(small).golden
    x, scores = np.array(golden.inputs["features"], np.float32), np.array(golden.scores)
    assert len(x) == 8
    for factor in (1 - 1e-6, 1 + 1e-6):
        got = ad.OnnxScorer(small)(x * np.float32(factor))
        assert np.max(np.abs(got - scores) / (1 + np.abs(scores))) < 5e-5


def test_quantising_twice_gives_the_same_bytes(small, model, skim):
    assert nn.quantise(model.read_bytes(), skim, signal=skim) == small


def test_the_transform_is_not_quantised(small, model):
    """The tables of the preprocessing stand in both files unchanged."""
    import onnx
    from onnx import numpy_helper

    tables = [
        {numpy_helper.to_array(t).tobytes() for t in onnx.load_from_string(data).graph.initializer if t.data_type == 1}
        for data in (part_for(model.read_bytes(), "score"), small)
    ]
    layers = {numpy_helper.to_array(t).tobytes() for t in onnx.load(str(model)).graph.initializer if "coder" in t.name}
    assert tables[0] - layers <= tables[1]


def test_layers_without_bias_are_quantised(skim, tmp_path):
    path = train(skim, tmp_path, lambda: NoBias(8, transform=nn.Standard(8)))
    made = read_card(nn.quantise(path.read_bytes(), skim)).provenance["int8"]
    assert made["layers"] == 6
    assert made["rank_correlation"] > 0.95
    assert "auc" not in made


def test_what_cannot_be_quantised_ends_in_one_sentence(model, skim, tmp_path):
    import onnx
    from onnx import helper

    graph = helper.make_graph(
        [helper.make_node("ReduceSum", ["features"], ["summed"], keepdims=1)],
        "sum",
        [helper.make_tensor_value_info("features", 1, ["rows", 8])],
        [helper.make_tensor_value_info("summed", 1, ["rows", 1])],
    )
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(plain)
    with pytest.raises(BadModel, match=r"^sum\.onnx: it has no dense layer"):
        int8_network(plain.SerializeToString(), rows(1, 10), "sum.onnx")


def test_members_of_a_cross_training_are_quantised_each_for_itself(skim, tmp_path):
    data = nn.load_skim(skim, SPEC.name, datasets=["qcd"])
    torch.manual_seed(1)
    members = [nn.AE(8, transform=nn.Standard(8)) for _ in range(2)]
    for member in members:
        member.transform.fit(data.x, data.weight)
    folded = nn.CrossTrained(members, salt="test")
    card = nn.make_card(folded, data, name="folded", config={}, metrics={})
    path = nn.export(folded, tmp_path / "folded.onnx", card, data.x[:50])
    sealed = nn.quantise(path.read_bytes(), skim, signal=skim, name="folded.onnx")
    old, new = ad.OnnxScorer(str(path)), ad.OnnxScorer(sealed)
    assert new.card.folds == old.card.folds
    assert len(new.card.calibrations) == 2
    assert new.card.provenance["int8"]["layers"] == 12
    folds = new.card.folds.of(data.spectators)
    for f in range(2):
        rows = data.x[folds == f]
        pair = [np.asarray(scorer(rows, np.full(len(rows), f))) for scorer in (old, new)]
        other = np.asarray(new(rows, np.full(len(rows), 1 - f)))
        assert np.corrcoef(*pair)[0, 1] > 0.99
        assert np.abs(pair[0] - pair[1]).mean() < 0.2 * np.abs(pair[0] - other).mean()


def test_an_int8_form_that_scores_differently_is_refused(model, skim, monkeypatch):
    """Ranges of rows that are far too small cut off what a layer gets."""
    draw = nn.quantise.__globals__["_draw"]
    monkeypatch.setitem(nn.quantise.__globals__, "_draw", lambda rows: np.float32(0.1) * draw(rows))
    with pytest.raises(
        BadModel,
        match=r"^ae\.onnx: nothing is written, since the int8 form scores the background differently: ad_logp of 1 %",
    ):
        nn.quantise(model.read_bytes(), skim, name="ae.onnx")


def test_each_bound_refuses_by_itself():
    rng = np.random.default_rng(1)
    score, weight = rng.normal(size=4000).astype(np.float32), np.ones(4000)
    tail = np.argsort(score)[-80:]
    shuffled, lost = score.copy(), score.copy()
    shuffled[tail] = shuffled[tail[::-1]]
    lost[7] = np.nan
    wrong = {
        "the correlation of ranks": rng.normal(size=4000).astype(np.float32),
        "scores are shifted by 0.5": score + np.float32(0.5),
        "ad_logp of 1 % of the rows": shuffled,
        "1 rows have lost": lost,
        "the correlation of ranks is 0.0000": np.zeros_like(score),
    }
    for reason, after in wrong.items():
        with pytest.raises(BadModel, match=reason):
            refuse_unfaithful(fidelity(score, after, weight), "toy", "it")
    refuse_unfaithful(
        fidelity(score, score + np.float32(0.05) * rng.normal(size=4000).astype(np.float32), weight), "toy", "it"
    )


def test_of_folds_the_worst_counts():
    score = np.random.default_rng(1).normal(size=2000).astype(np.float32)
    folds, after = np.arange(2000) % 2, score.copy()
    after[folds == 1] = -after[folds == 1]
    assert fidelity(score, after, np.ones(2000), folds)["rank_correlation"] == pytest.approx(-1)
    # a shift between folds is none of the order in each
    moved = score + np.float32(100) * folds.astype(np.float32)
    assert fidelity(moved, moved, np.ones(2000), folds)["shift"] == 0
    assert fidelity(score, moved, np.ones(2000), folds)["rank_correlation"] == pytest.approx(1)


def test_an_encoder_of_sets_in_int8_takes_any_number_of_slots_and_keeps_its_order():
    torch.manual_seed(1)
    encoder = nn.SetEncoder(
        10, nn.Tokens(["pt", "deta", "dphi"], scale="log"), width=16, heads=2, layers=1, feedforward=16
    )
    model = nn.CLR(encoder).eval()
    rng = np.random.default_rng(1)
    filled = np.arange(10) < rng.integers(2, 11, 600)[:, None]
    pt = -np.sort(-rng.exponential(20, (600, 10)) * filled, axis=1)
    x = np.stack([pt, *(rng.normal(0, 0.2, (2, 600, 10)) * filled)], axis=2).astype(np.float32)
    import onnxruntime as ort

    session = ort.InferenceSession(int8_network(model.graph(["score"]), x), providers=["CPUExecutionProvider"])
    scores = session.run(None, {"features": x})[0].reshape(-1)
    few = filled.sum(axis=1) <= 6
    trimmed = session.run(None, {"features": np.ascontiguousarray(x[few, :6])})[0].reshape(-1)
    assert fidelity(model.scores(x), scores, np.ones(600))["rank_correlation"] > 0.98
    np.testing.assert_allclose(trimmed, scores[few], atol=0.02 * scores.std())


def test_it_is_asked_what_the_background_or_the_signal_is(model, skim):
    data = model.read_bytes()
    card = read_card(data)
    unknown = write_card(data, card.model_copy(update={"provenance": {}}))
    with pytest.raises(ConfigError, match="say which datasets are the background"):
        nn.quantise(unknown, skim)
    with pytest.raises(ConfigError, match="it holds background only"):
        nn.quantise(data, skim, datasets=["qcd", "svj"], signal=skim)


def test_regions_over_a_spectator_are_named_as_left_out(model, skim):
    data = model.read_bytes()
    card = read_card(data)
    over_pt = RegionSpec(
        name="over_pt", efficiency=0.05, thresholds=(1.2, 1.4), error=0.1, n_effective=50, derived_from="toy",
        spectator="pt", edges=(500.0,),
    )  # fmt: skip
    changed = write_card(data, card.model_copy(update={"regions": (card.regions[0], over_pt)}))
    new = read_card(nn.quantise(changed, skim))
    assert [r.name for r in new.regions] == [card.regions[0].name]
    assert new.provenance["int8"]["regions_left_out"] == ["over_pt"]


@pytest.mark.parametrize("make", [nn.AE, Latent])
def test_folding_standardisation_into_the_first_layer_keeps_the_scores(make, skim, tmp_path):
    import onnx

    path = train(skim, tmp_path, lambda: make(8, transform=nn.Standard(8)), epochs=2)
    folded = nn.fuse_linear(path.read_bytes())
    x = rows(5, 500, scale=5.0)
    before, after = ad.OnnxScorer(str(path))(x), ad.OnnxScorer(folded)(x)
    assert np.max(np.abs(before - after) / (1 + np.abs(before))) < 1e-5
    graphs = [onnx.load_from_string(part_for(data, "score")).graph for data in (path.read_bytes(), folded)]
    divisions = [sum(node.op_type == "Div" for node in graph.node) for graph in graphs]
    assert divisions == [1, 0 if make is Latent else 1]  # a reconstruction is still compared with the transformed row
    card = read_card(folded)
    assert card.calibration_digest == read_card(path.read_bytes()).calibration_digest
    assert card.provenance["fused"]["of"] == network_digest(path.read_bytes())


def test_a_preprocessing_that_is_not_linear_is_not_folded(model):
    with pytest.raises(BadModel, match="no dense layer stands behind a linear preprocessing"):
        nn.fuse_linear(model.read_bytes(), "model.onnx")


def test_the_command_line_writes_both_forms(model, skim, tmp_path, capsys):
    out = tmp_path / "small.onnx"
    assert cli.main(["quantise", str(model), "--calibration", str(skim), "--signal", str(skim), "-o", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "6 layers in int8" in printed
    assert "half-widths, golden rows by up to 0." in printed
    assert "AUC 0." in printed
    assert read_card(out.read_bytes()).method == "AE, int8"
    assert cli.main(["quantise", str(model)]) == 1
    assert "needs --calibration" in capsys.readouterr().err
    assert cli.main(["quantise", str(model), "--fuse-linear"]) == 1
    assert "nothing can be fused" in capsys.readouterr().err
