"""A network made elsewhere, with inputs of its own layout and a vector as output: from a skim to scores of events."""

from __future__ import annotations

import functools
import hashlib
import re
import warnings

import awkward as ak
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import DATA, open_events

torch = pytest.importorskip("torch", reason="not installed: torch", exc_type=ImportError)

import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

import coffea_ad as ad
from coffea_ad import cli, features, nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import BadModel, CardMismatch, ConfigError, SkimError
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.attach import AttachConfig
from coffea_ad.modelfiles.feeding import fed
from coffea_ad.modelfiles.feeds import Feeds
from coffea_ad.modelfiles.formulas import add_formula
from coffea_ad.modelfiles.ranks import Nodes
from coffea_ad.scoring.specs import InputSpec
from coffea_ad.splits import split_of

pytestmark = pytest.mark.torch
SLOTS, WIDTH, LATENT = 12, 8, 6
OPTIONS = {
    "n": SLOTS, "center": "axis",
    "columns": ["pt", "eta", "phi", "energy", "deta", "dphi", "charge", "mask"],
}  # fmt: skip
FEEDS = {
    "variables": {
        "log_pt": "log(500 * pt / sum(pt))", "px": "pt * cos(phi)", "py": "pt * sin(phi)", "pz": "pt * sinh(eta)", "d0": 0,
    },
    "inputs": {
        "pf_features": [["log_pt", 1.7, 0.7], ["deta", 0, 4, -1, 1], "dphi", "charge", ["d0", None, 1, -5, 5, 2]],
        "pf_vectors": ["px", "py", "pz", "energy"],
        "pf_mask": ["mask"],
    },
}  # fmt: skip


class Attention(torch.nn.Module):
    """Particle attention in weaver's layout, biased by the angles and energies of pairs: features (N, F, P), vectors (N, 4, P), mask (N, 1, P)."""

    def __init__(self, ends: str = "latent") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embed = torch.nn.Linear(5, WIDTH)
        self.query, self.key, self.value = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.head, self.ends = torch.nn.Linear(WIDTH, LATENT), ends

    def forward(self, pf_features, pf_vectors, pf_mask):
        pf_features, pf_vectors, pf_mask = (v.to(self.head.weight.dtype) for v in (pf_features, pf_vectors, pf_mask))
        h = self.embed(pf_features.transpose(1, 2))
        unit = pf_vectors[:, :2] / pf_vectors[:, :2].norm(dim=1, keepdim=True).clamp(min=1e-6)
        bias = unit.transpose(1, 2) @ unit + pf_vectors[:, 3:].clamp(min=1.0).log() / 10
        scores = self.query(h) @ self.key(h).transpose(1, 2) / WIDTH**0.5 + bias
        weights = torch.softmax(scores.masked_fill(pf_mask == 0, -1e9), dim=2)
        h = torch.relu(h + weights @ self.value(h)) * pf_mask.transpose(1, 2)
        latent = self.head(h.sum(dim=1) / pf_mask.sum(dim=2))
        if self.ends == "undefined":  # for fewer than six constituents
            latent = latent + 0 * torch.log(pf_mask.sum(dim=2) - 5.5)
        if self.ends == "batch":
            latent = latent - latent.mean(dim=0)
        return {"score": latent[:, 0], "particles": h}.get(self.ends, latent)


def exported(path, network=None, *, opset=15, slots=SLOTS, dtype=torch.float32, dynamo=False):
    """Write a network as weaver does."""
    network = (network or Attention()).to(dtype).eval()
    shapes = {"pf_features": (5, slots), "pf_vectors": (4, slots), "pf_mask": (1, slots)}
    rows = torch.export.Dim("N")
    how = {"dynamic_shapes": ({0: rows},) * 3} if dynamo else {"dynamic_axes": {name: {0: "N"} for name in shapes}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, tuple(torch.ones(2, *shape, dtype=dtype) for shape in shapes.values()), str(path), opset_version=opset,
            input_names=list(shapes), output_names=["latent"], dynamo=dynamo, external_data=False, verbose=False, **how,
        )  # fmt: skip
    return path


def by_hand(x):
    """What FEEDS describe, written out in numpy: {input: array}."""
    c = {name: x[:, :, i].astype(np.float64) for i, name in enumerate(OPTIONS["columns"])}
    real = c["mask"] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        log_pt = np.log(500 * c["pt"] / c["pt"].sum(axis=1, keepdims=True))
    channels = {
        "pf_features": [
            np.clip((log_pt - 1.7) * 0.7, -5, 5), np.clip(4 * c["deta"], -1, 1), c["dphi"], c["charge"], 0 * c["pt"],
        ],
        "pf_vectors": [c["pt"] * np.cos(c["phi"]), c["pt"] * np.sin(c["phi"]), c["pt"] * np.sinh(c["eta"]), c["energy"]],
        "pf_mask": [c["mask"]],
    }  # fmt: skip
    pad = {("pf_features", 4): 2.0}
    return {
        name: np.stack([np.where(real, v, pad.get((name, i), 0)) for i, v in enumerate(values)], axis=1).astype(
            np.float32
        )
        for name, values in channels.items()
    }


def latent_by_hand(path, x):
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(["latent"], by_hand(x))[0]


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent") / "skim"
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for n in ("qcd", "ttbar")
    }
    words = [f"features=[{flow({'name': 'jet_constituents', 'options': OPTIONS})}]", "jets=each"]
    ad.run(fileset, "skim_jets", overrides=words, executor="iterative", output=folder)
    return folder


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("network") / "theirs.onnx")


def flow(value):
    """A value as YAML in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()


def words_of(skim, network_file, **more):
    keys = {
        "data": str(skim), "network": str(network_file), "options": OPTIONS, "weights": "none", "train": {"device": "cpu"},
        "efficiencies": [0.5], **FEEDS, **more,
    }  # fmt: skip
    return [f"{key}={flow(value)}" for key, value in keys.items()]


def configured(skim, network, **more):
    module = recipes.load("latent")
    return module, load_config(module.Config, None, words_of(skim, network, **more))


def front(path, feeds=None, options=None, **more):
    """The graph features → latent of a file."""
    spec = InputSpec(features=(feature_spec("jet_constituents", options or OPTIONS),))
    keys = {"result": "latent", "vector": True, "name": "theirs.onnx", **more}
    return nn.FrozenGraph(fed(path.read_bytes(), Feeds(**{**FEEDS, **(feeds or {})}), spec, **keys), spec.shape)


def heads(scorer):
    """How often the network is in a file."""
    return sum(t.name.endswith("head.weight") for t in onnx.load_from_string(scorer.data).graph.initializer)


def toy_sets(n=40, seed=1):
    """Rows of OPTIONS with one to all slots occupied."""
    rng = np.random.default_rng(seed)
    filled = np.arange(SLOTS) < rng.integers(1, SLOTS + 1, n)[:, None]
    pt = -np.sort(-rng.exponential(20, (n, SLOTS)))
    eta, phi, deta, dphi = rng.normal(0, 0.5, (4, n, SLOTS))
    columns = [pt, eta, phi, pt * np.cosh(eta), deta, dphi, rng.choice([-1, 0, 1], (n, SLOTS)), filled]
    return (np.stack(columns, axis=2) * filled[:, :, None]).astype(np.float32)


# --- the whole way -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(skim, network, tmp_path_factory):
    """A file that the command line has made."""
    out = tmp_path_factory.mktemp("trained") / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert cli.main(["run", "latent", *words_of(skim, network), "-o", str(out)]) == 0
    return out


def test_a_file_scores_rows_and_events_as_both_parts_by_hand(skim, network, trained):
    _, config = configured(skim, network)
    scorer, model, data = ad.OnnxScorer(trained), nn.load(trained.with_suffix("")), config.rows()
    x = np.concatenate([data.x[:200], np.zeros((1, *data.x.shape[1:]), np.float32)])
    x[3, 1, 0] = np.nan
    with np.errstate(invalid="ignore"):
        expected = model.scores(latent_by_hand(network, x))
    expected[3] = np.nan
    np.testing.assert_allclose(scorer(x), expected, rtol=1e-4, atol=1e-5)
    assert np.flatnonzero(np.isnan(expected)).tolist() == [3, 200]  # a row without anything is 0/0 in this network
    card = scorer.card
    assert [f.key for f in card.inputs[0].features] == [data.feature.key]
    assert card.provenance["network_sha256"] == hashlib.sha256(network.read_bytes()).hexdigest()
    assert card.provenance["config"]["inputs"]["pf_features"][0]["center"] == 1.7
    tagged = ad.Tagger(trained)(open_events(DATA / "qcd_v15.root"))
    scores = np.asarray(ak.flatten(tagged["ad_score"], axis=None))
    ours = scorer(data.x[data.dataset == "qcd"])
    assert np.isclose(ours[:, None], scores, rtol=1e-5).any(axis=1).all()


def test_the_search_takes_the_file_as_any_other(trained, tmp_path):
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    report = ad.run(fileset, "semivisible_jets", model=trained, executor="iterative", output=tmp_path / "r")
    assert report.complete
    results = ad.load_results(tmp_path / "r")
    inclusive, inside = (results.scaled("svj", "ad_logp", region).sum() for region in ("inclusive", "eff0.5_1tag"))
    assert 0 < inside.value < inclusive.value


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize("score", ["wnae", "flow"])
def test_scores_of_a_representation_are_ones_of_a_latent_vector(skim, network, score, tmp_path):
    scorer = {"wnae": {"long_steps": 5}, "flow": {"transforms": 1, "hidden": [8]}}[score]
    short = {"device": "cpu", "epochs": 1, "samples_per_epoch": 64, "batch_size": 32}
    module, config = configured(skim, network, score=score, scorer=scorer, train=short)
    module.train(config, tmp_path / "m.onnx")
    x, file = config.rows().x[:50], ad.OnnxScorer(tmp_path / "m.onnx")
    np.testing.assert_allclose(file(x), nn.load(tmp_path / "m").scores(front(network)(x)), rtol=1e-4, atol=1e-4)
    assert file.card.density == ("z" if score == "flow" else None)  # none of x


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_members_of_folds_share_one_network(skim, network, tmp_path, monkeypatch):
    monkeypatch.setattr(nn, "fit_folds", functools.partial(nn.fit_folds, workers=1))
    module, config = configured(skim, network, folds=3)
    module.train(config, tmp_path / "m.onnx")
    scorer, model, data = ad.OnnxScorer(tmp_path / "m.onnx"), nn.load(tmp_path / "m"), config.rows()
    folds = model.folds.of(data.spectators)
    assert len(set(folds.tolist())) == 3
    expected = model.scores(front(network)(data.x), folds)
    np.testing.assert_allclose(scorer(data.x, folds), expected, rtol=1e-4, atol=1e-5)
    assert heads(scorer) == 1


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_a_search_in_a_mass_learns_from_vectors(network, tmp_path, monkeypatch):
    """The file scores jets by the vectors of a network, in the window of a mass that it does not see."""
    data = searched_jets()
    module = recipes.load("resonant")
    monkeypatch.setattr(module.Config, "rows", lambda _: data)
    settings = {"classifier": {"kind": "sklearn", "members": 1, "options": {"max_iter": 30}}}
    keys = {
        "data": "x", "datasets": ["data"], "feature": "jet_constituents", "options": OPTIONS, "method": "cwola", "folds": 3,
        "windows": [{"low": 150, "high": 200, "outer_low": 50, "outer_high": 300}], "mass": "mass", "settings": settings,
        "network": str(network), "template_rows": 1000, "efficiencies": [0.1], **FEEDS,
    }  # fmt: skip

    def config(**more):
        return load_config(module.Config, None, [f"{key}={flow(value)}" for key, value in {**keys, **more}.items()])

    module.train(config(), tmp_path / "m.onnx")
    scorer = ad.OnnxScorer(tmp_path / "m.onnx")
    assert scorer.card.domain[0].spectator == "mass"
    assert scorer.card.inputs[0].shape == (SLOTS, 8)
    folds = scorer.card.folds.of(data.spectators)
    score = scorer(data.x, folds)
    signal = data.spectators["signal"]
    assert (score[signal][:, None] > score[~signal][:1000]).mean() > 0.8
    assert heads(scorer) == 1
    with pytest.raises(ConfigError, match="method anode needs the mass among the inputs"):
        module.train(config(method="anode"), tmp_path / "other.onnx")
    seeing = {**settings, "inputs": ["latent0", "mass"]}
    with pytest.raises(ConfigError, match="the score depends on mass, which the network does not give"):
        module.train(config(settings=seeing), tmp_path / "other.onnx")


def searched_jets(n=3000, n_signal=300):
    """Jets with a falling mass, and some at 175 GeV whose constituents lie aside."""
    x, rng = toy_sets(n + n_signal), np.random.default_rng(1)
    signal = np.arange(len(x)) >= n
    x[signal, :, 5] = 2 * x[signal, :, 7]  # Δφ of all constituents
    mass = np.where(signal, rng.normal(175, 8, len(x)), 50 + rng.exponential(100, len(x)))
    ids = {
        "run": np.ones(len(x), np.uint32),
        "luminosityBlock": np.ones(len(x), np.uint32),
        "event": np.arange(len(x), dtype=np.uint64),
    }
    provenance = {
        "selection": {}, "flavours": ["v15"], "collection": "FatJet", "n_effective": float(len(x)), "files": {},
        "rows": {"data": len(x)}, "asked": ["data"], "signals": [], "negative_weight_fraction": 0.0,
    }  # fmt: skip
    spec = (feature_spec("jet_constituents", OPTIONS),)
    beside = {**ids, "mass": mass.astype(np.float32), "signal": signal}
    return nn.Skim(x, np.ones(len(x)), np.full(len(x), "data"), split_of(*ids.values()), beside, spec, provenance)


def test_rows_without_a_vector_do_not_train_and_are_counted(tmp_path):
    graph, data = front(exported(tmp_path / "theirs.onnx", Attention("undefined"))), searched_jets(200, 0)
    few = data.x[:, :, -1].sum(axis=1) < 6
    vectors = graph.rows(data)
    assert vectors.provenance["rows_without_vector"] == few.sum() > 0
    np.testing.assert_array_equal(vectors.x, graph(data.x)[~few])
    np.testing.assert_array_equal(vectors.spectators["event"], data.spectators["event"][~few])
    assert vectors.columns == [f"latent{i}" for i in range(LATENT)]
    with pytest.raises(SkimError, match=rf"its output is not finite for any of {few.sum()} rows"):
        graph.rows(data.select(few))
    with pytest.raises(SkimError, match="unknown mass 'mas'; did you mean 'mass'"):
        graph.rows(data, "mas")


# --- the graph ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [{"opset": 13}, {"opset": 17}, {"opset": 18, "dynamo": True}, {"dtype": torch.float64}],
    ids=str,
)
def test_networks_of_any_exporter_and_precision_get_the_inputs_that_are_described(how, tmp_path):
    path, x = exported(tmp_path / "theirs.onnx", **how), toy_sets()
    session = ort.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    kind = np.float64 if "dtype" in how else np.float32
    expected = session.run(["latent"], {k: v.astype(kind) for k, v in by_hand(x).items()})[0]
    latent = front(path)(x)
    assert latent.dtype == np.float32
    np.testing.assert_allclose(latent, expected, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_what_stands_in_empty_slots_changes_no_bit(network_graph, seed):
    x = toy_sets(8, seed)
    rng = np.random.default_rng(seed)
    other = np.where(x[:, :, -1:] > 0, x, rng.normal(0, 100, x.shape)).astype(np.float32)
    other[:, :, -1] = x[:, :, -1]
    assert np.array_equal(network_graph(x), network_graph(other))


@pytest.fixture(scope="module")
def network_graph(network):
    return front(network)


@given(seed=st.integers(0, 1000), place=st.integers(0, SLOTS * 8 - 1), wrong=st.sampled_from([np.nan, np.inf, -np.inf]))
@settings(max_examples=15, deadline=None)
def test_a_number_that_is_not_finite_leaves_its_row_alone_without_a_vector(network_graph, seed, place, wrong):
    """Also where the number is in an empty slot, or in a channel that the network does not look at."""
    x = toy_sets(6, seed)
    broken = x.copy()
    broken[2].flat[place] = wrong
    vectors, others = network_graph(broken), network_graph(x)
    assert np.isnan(vectors[2]).all()
    np.testing.assert_allclose(np.delete(vectors, 2, axis=0), np.delete(others, 2, axis=0), rtol=1e-5, atol=1e-6)


FORMULAS = [
    "a * cos(b) - 3", "-a ** 2 / (1 + abs(b))", "log(500 * a / sum(a))", "max(a, 2) + min(b, 0.5)", "(a > b) + 2 * (b <= 0)",
    "tanh(b) + sign(b) + sinh(b) * cosh(b)", "exp(-a) + sqrt(a) + sin(b)", "sum(log(a))", "1e-3", "3 * (a < b) - (a >= b) * (b == b)",
]  # fmt: skip
NUMPY = {
    name: getattr(np, name) for name in ("cos", "abs", "log", "tanh", "sign", "sinh", "cosh", "exp", "sqrt", "sin")
}
NUMPY |= {"max": np.maximum, "min": np.minimum, "sum": lambda v: v.sum(axis=1, keepdims=True)}


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_what_numpy_makes_of_it(text):

    rng = np.random.default_rng(1)
    a, b = rng.exponential(2, (5, 7)).astype(np.float32) + 0.1, rng.normal(size=(5, 7)).astype(np.float32)
    add = Nodes()
    axis = add.constant([1], np.int64)
    result = add_formula(add, text, {"a": "a", "b": "b"}, lambda v: add("ReduceSum", v, axis, keepdims=1))
    graph = helper.make_graph(
        add.nodes, "formula", [helper.make_tensor_value_info(n, 1, [5, 7]) for n in "ab"],
        [onnx.ValueInfoProto(name=result)], [numpy_helper.from_array(v, k) for k, v in add.constants.items()],
    )  # fmt: skip
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    (value,) = ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"a": a, "b": b})
    expected = eval(text, {**NUMPY, "a": a.astype(np.float64), "b": b.astype(np.float64)}) * 1.0
    np.testing.assert_allclose(value, expected, rtol=3e-5, atol=1e-5)


class Flat(torch.nn.Module):
    """Sums and products of flat inputs, (N, 3) and (N, 1); or of a set, (N, slots, channels)."""

    def forward(self, first, second):
        return torch.cat(
            [first.flatten(1).sum(dim=1, keepdim=True), first.flatten(1)[:, :1] * second.flatten(1)[:, :1]], 1
        )


def flat_network(path, one, two):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Flat(), (torch.ones(2, *one), torch.ones(2, *two)), str(path), input_names=["first", "second"],
            output_names=["latent"], dynamo=False, opset_version=13, dynamic_axes={"first": {0: "N"}, "second": {0: "N"}},
        )  # fmt: skip
    return path.read_bytes()


def test_flat_features_and_sets_with_slots_first_are_inputs_too(tmp_path):
    flat = InputSpec(features=(feature_spec("jet_substructure"),))
    a, b, c = flat.features[0].columns[0].name, flat.features[0].columns[3].name, flat.features[0].columns[5].name
    feeds = Feeds(inputs={"first": (a, [b, 1, 2], "one"), "second": (c,)}, variables={"one": 1})
    data = flat_network(tmp_path / "flat.onnx", (3,), (1,))
    graph = nn.FrozenGraph(fed(data, feeds, flat, result="latent", vector=True), flat.shape)
    x = np.random.default_rng(1).normal(size=(9, *flat.shape)).astype(np.float32)
    total = x[:, 0] + np.clip(2 * (x[:, 3] - 1), -5, 5) + 1
    np.testing.assert_allclose(graph(x), np.stack([total, x[:, 0] * x[:, 5]], axis=1), rtol=1e-5, atol=1e-5)

    sets = InputSpec(features=(feature_spec("jet_constituents", {"n": 4}),))
    feeds = Feeds(
        inputs={"first": ("pt", "dphi"), "second": ("mask",)}, variables={"mask": "pt > 0"}, layout="slots_first"
    )
    data = flat_network(tmp_path / "sets.onnx", (4, 2), (4, 1))
    graph = nn.FrozenGraph(fed(data, feeds, sets, result="latent", vector=True), sets.shape)
    x = np.abs(np.random.default_rng(1).normal(size=(9, 4, 3))).astype(np.float32)
    np.testing.assert_allclose(graph(x)[:, 0], x[:, :, [0, 2]].sum(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(graph(x)[:, 1], x[:, 0, 0], rtol=1e-5)


def test_a_part_of_the_output_is_a_vector_too(network, network_graph):
    x = toy_sets()
    np.testing.assert_array_equal(front(network, part=(2, 5))(x), network_graph(x)[:, 2:5])


# --- a network that gives a score needs no training --------------------------------------------------------------------


def test_a_score_of_several_inputs_gets_a_card(skim, tmp_path, capsys):
    plain, described = exported(tmp_path / "theirs.onnx", Attention("score")), tmp_path / "card.yaml"
    features = [{"name": "jet_constituents", "options": OPTIONS}]
    described.write_text(
        yaml.safe_dump({"name": "theirs", "method": "ParT", "features": features, "output": "latent", **FEEDS})
    )
    words = ["card", "attach", str(plain), str(described), "--background", str(skim), "--datasets", "qcd"]
    assert cli.main([*words, "-o", str(tmp_path / "out.onnx")]) == 0
    scorer, x = ad.OnnxScorer(tmp_path / "out.onnx"), toy_sets()
    np.testing.assert_allclose(scorer(x), latent_by_hand(plain, x), rtol=1e-4, atol=1e-5)
    assert scorer.card.calibrations
    assert scorer.card.provenance["feeds"]["inputs"]["pf_features"][0]["center"] == 1.7
    empty = np.concatenate([x, np.zeros_like(x[:1])])
    assert np.flatnonzero(np.isnan(scorer(empty))).tolist() == [len(x)]


# --- refusals ----------------------------------------------------------------------------------------------------------


def without(inputs, name):
    return {k: v for k, v in inputs.items() if k != name}


INPUTS = FEEDS["inputs"]


@pytest.mark.parametrize(
    ("feeds", "options", "sentence"),
    [
        ({"inputs": {**INPUTS, "pf_feature": ["pt"]}}, {}, "inputs: unknown input 'pf_feature'; did you mean 'pf_features'"),
        ({"inputs": without(INPUTS, "pf_mask")}, {}, "inputs: say of which columns pf_mask of the network are made"),
        ({"inputs": {**INPUTS, "pf_vectors": ["px", "py", "pz", "enrgy"]}}, {}, "pf_vectors: unknown column 'enrgy'; did you mean 'energy'"),
        ({"inputs": {**INPUTS, "pf_vectors": ["px", "py", "pz"]}}, {}, r"its input pf_vectors takes rows of the shape (4, 12), but its channels make (3, 12)"),
        ({"layout": "slots_first"}, {}, "its input pf_features takes rows of the shape (5, 12), but its channels make (12, 5); see inputs, layout"),
        ({}, {"n": 20}, "takes rows of the shape (5, 12), but its channels make (5, 20)"),
        ({"variables": {"px": "pt * cosinus(phi)"}}, {}, "variables: px: 'cosinus(phi)' cannot stand in a formula"),
        ({"variables": {"px": "pt * cos(phi"}}, {}, "variables: px: 'pt * cos(phi' is no formula"),
        ({"variables": {"px": "pt * cos(ph)"}}, {}, "variables: px: unknown column 'ph'; did you mean 'phi'"),
        ({"variables": {"pt": "eta"}}, {}, "variables: pt is a column of jet_constituents already"),
        ({}, {"columns": ["pt", "eta", "phi", "energy", "deta", "dphi", "charge"]}, "sum is over the occupied slots of a set"),
        ({"variables": {}, "inputs": {n: ["pt"] for n in INPUTS}}, {"columns": ["pt"]}, "nothing says which slots of jet_constituents are empty"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_one_sentence(network, feeds, options, sentence):
    with pytest.raises((CardMismatch, ConfigError)) as caught:
        front(network, feeds, {**OPTIONS, **options})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("theirs.onnx: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ends", "more", "sentence"),
    [
        (
            "particles",
            {},
            "for 3 rows its output 'latent' has the shape (3, 12, 8), but a latent vector has (rows, numbers)",
        ),
        ("score", {}, "has the shape (3,), but a latent vector has (rows, numbers)"),
        (
            "latent",
            {"vector": False},
            "has the shape (3, 6), but a score is one number a row; coffea-ad run latent makes",
        ),
        ("latent", {"output": "logits"}, "unknown output 'logits'"),
        ("latent", {"part": (4, 8)}, "part: [4, 8] are no numbers of its output 'latent', which has 6"),
    ],
)
def test_an_output_of_another_rank_is_one_sentence(ends, more, sentence, tmp_path):
    with pytest.raises((CardMismatch, ConfigError), match=re.escape(sentence)):
        front(exported(tmp_path / "theirs.onnx", Attention(ends)), **more)


def test_a_network_that_looks_at_the_batch_is_refused_before_anything_is_trained(skim, tmp_path):
    module, config = configured(skim, exported(tmp_path / "theirs.onnx", Attention("batch")))
    with pytest.raises(BadModel, match="its output for a row depends on chance or on the other rows of its batch"):
        module.train(config, tmp_path / "m.onnx")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"network": "nowhere.onnx"}, "nowhere.onnx"),
        ({"score": "direct"}, "direct"),
        ({"scorer": {"shrink": 0.1}}, "scorer: unknown key 'shrink'; did you mean 'shrinkage'"),
        ({"inputs": {**INPUTS, "pf_mask": []}}, "pf_mask has no channels"),
        ({"inputs": {**INPUTS, "pf_mask": [["mask", 0, 1, 2, 1]]}}, "mask: min 2 lies above max 1"),
        ({"inputs": {**INPUTS, "pf_mask": [["mask", None, 2]]}}, "without a center it is neither scaled nor clipped"),
        ({"inputs": {**INPUTS, "pf_mask": [["mask", 0, 1, 0, 1, 0, 0]]}}, "has more than [column, center, scale, min, max, pad]"),
    ],
)  # fmt: skip
def test_wrong_keys_of_the_recipe_are_one_sentence(skim, network, words, sentence, tmp_path, capsys):
    assert cli.main(["run", "latent", *words_of(skim, network, **words), "-o", str(tmp_path / "m.onnx")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert sentence in error


@pytest.mark.parametrize(
    ("more", "sentence"),
    [({"score": "mse"}, "leave out input and score"), ({"input": "x"}, "leave out input and score"), ({"inputs": {}}, "variables are for the channels")],
)  # fmt: skip
def test_a_card_says_inputs_in_one_way(more, sentence):
    described = {"name": "x", "method": "y", "features": ({"name": "jet_constituents"},), **FEEDS, **more}
    with pytest.raises(ValueError, match=sentence):
        AttachConfig(**described)


# --- the shipped configuration -----------------------------------------------------------------------------------------


def test_the_inputs_of_sophon_are_those_of_its_authors(tmp_path):
    """17 features, 4-vectors and a mask of 128 constituents, as its authors make them for C++, written out here in numpy."""
    config = load_config(
        recipes.load("latent").Config, recipes.find_config("latent/sophon.yaml"), ["data=x", "network=y"]
    )
    skim = load_config(recipes.load("skim_jets").Config, recipes.find_config("skim_jets/sophon.yaml"), [])
    assert [(f.name, f.options) for f in skim.features] == [(config.feature, config.options)]
    spec = InputSpec(features=(feature_spec(config.feature, config.options),))
    x, _ = features.compute(config.feature, open_events(DATA / "svj_v15.root"), **config.options)
    x = x[np.isfinite(x).all(axis=(1, 2))]
    names = list(config.options["columns"])
    expected = []
    for jet in x.astype(np.float64):
        c = dict(zip(names, jet[jet[:, names.index("mask")] > 0].T, strict=True))
        px, py, pz = c["pt"] * np.cos(c["phi"]), c["pt"] * np.sin(c["phi"]), c["pt"] * np.sinh(c["eta"])
        jet_pt = np.hypot(px.sum(), py.sum())
        scaled = [
            0.7 * (np.log(500 * c["pt"] / jet_pt) - 1.7), 0.7 * (np.log(500 * c["energy"] / jet_pt) - 2),
            0.7 * (np.log(c["pt"] / jet_pt) + 4.7), 0.7 * (np.log(c["energy"] / c["energy"].sum()) + 4.7),
            4 * (np.hypot(c["deta"], c["dphi"]) - 0.2),
        ]  # fmt: skip
        kinds = [c[f"is_{kind}"] for kind in ("charged_hadron", "neutral_hadron", "photon", "electron", "muon")]
        vectors = [500 * v / jet_pt for v in (px, py, pz, c["energy"])]
        zero = 0 * px
        rows = [
            *np.clip(scaled, -5, 5),
            c["charge"],
            *kinds,
            *[zero] * 4,
            (1 if pz.sum() > 0 else -1) * c["deta"],
            c["dphi"],
            *vectors,
            zero + 1,
        ]
        expected.append([np.sum(row) for row in rows])
    shapes = {"pf_features": (17, 128), "pf_vectors": (4, 128), "pf_mask": (1, 128)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Sums(), tuple(torch.ones(2, *shape) for shape in shapes.values()), str(tmp_path / "sums.onnx"), dynamo=False,
            input_names=list(shapes), output_names=["latent"], dynamic_axes={name: {0: "N"} for name in shapes},
        )  # fmt: skip
    graph = nn.FrozenGraph(
        fed((tmp_path / "sums.onnx").read_bytes(), config, spec, result="latent", vector=True), spec.shape
    )
    np.testing.assert_allclose(graph(x), expected, rtol=1e-4, atol=2e-3)


class Sums(torch.nn.Module):
    """The sum of every channel over slots."""

    def forward(self, *inputs):
        return torch.cat([v.sum(dim=2) for v in inputs], dim=1)
