"""The training contract: encoders, flows, trees and folds go through card, scorer, tagger, run, regions, combine and quantise."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="not installed: torch")
pytest.importorskip("onnx", reason="not installed: onnx")

import onnxruntime
from toy_skims import NAME, toy_rows
from toys import DATA, open_events, toy_skim

import coffea_ad as ad
from coffea_ad import nn, recipes
from coffea_ad.cli import main
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.features.spec import feature_spec
from coffea_ad.nn.graph import torch_graph
from coffea_ad.nn.model import Batch
from coffea_ad.nn.training.batches import TrainingRows, balanced
from coffea_ad.scoring.card import parse_card, read_card
from coffea_ad.scoring.modelfile import CARD_KEY, network_digest, read_texts
from coffea_ad.skims import Skim
from coffea_ad.splits import fold_of

pytestmark = pytest.mark.torch
SHORT = {"epochs": 2, "samples_per_epoch": 512, "batch_size": 64, "validation_rows": 200}
SETS = "jet_constituents"
COLUMNS = ["pt", "deta", "dphi"]


def quick(**more):
    return nn.TrainConfig(**{**SHORT, **more})


class SetEncoder(torch.nn.Module):
    """Deep sets: the sum over the slots that are not padding; slots hold (pt, eta, phi), padding is 0."""

    def __init__(self, slots=50, width=16):
        super().__init__()
        self.shape = (slots, 3)
        self.inner = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Dropout(0.5))
        self.outer = torch.nn.Linear(width, 6)

    def forward(self, x):
        there = (x != 0).any(dim=2, keepdim=True).to(x.dtype)
        return self.outer((self.inner(x) * there).sum(dim=1) / there.sum(dim=1).clamp_min(1))


def sets(n=600, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 50, 3)).astype(np.float32)
    x[np.arange(50)[None, :] >= rng.integers(0, 50, n)[:, None]] = 0  # some rows are padding throughout
    return x


def skim_of(x, spec, seed=1, **more):
    n, rng = len(x), np.random.default_rng(seed)
    ids = {k: np.arange(n, dtype=np.int64) + 1 for k in ("run", "luminosityBlock", "event")}
    split = rng.choice(["train", "validation", "test"], n)
    provenance = {
        "files": {},
        "rows": {"toy": n},
        "flavours": ["NanoAOD v15"],
        "selection": {},
        "n_effective": float(n),
    }
    return Skim(x, rng.exponential(size=n) + 0.1, np.full(n, "toy"), split, ids, spec, provenance, **more)


# an encoder and an autoencoder in one graph


@pytest.fixture(scope="module")
def encoded():
    torch.manual_seed(1)
    data = skim_of(sets(), feature_spec(SETS, {"n": 50, "columns": COLUMNS}))
    model = nn.AE(6, hidden=(8,), latent=2, transform=nn.Representation(SetEncoder(), nn.Standard(6)))
    before = {k: v.clone() for k, v in model.transform.encoder.state_dict().items()}
    history = nn.fit(model, data, quick())
    return data, model, history, before


def test_the_raw_shape_is_not_the_width_behind_the_encoder(encoded):
    data, model, *_ = encoded
    assert (model.shape, model.features) == ((50, 3), 6)
    assert model.transform(torch.from_numpy(data.x[:4])).shape == (4, 6)
    assert model.scores(data.x[:5]).shape == (5,)


def test_a_representation_is_frozen_and_never_in_training_mode(encoded):
    _, model, _, before = encoded
    assert all(torch.equal(before[k], v) for k, v in model.transform.encoder.state_dict().items())
    assert not any(p.requires_grad for p in model.transform.parameters())
    model.train()
    assert model.training
    assert not any(m.training for m in model.transform.modules())
    model.eval()


@pytest.fixture(scope="module")
def exported(encoded, tmp_path_factory):
    data, model, history, _ = encoded
    x = data.x.copy()
    x[0] = 0  # padding throughout
    card = nn.make_card(model, data, name="sets", config={}, metrics=history.best)
    return x, ad.OnnxScorer(nn.export(model, tmp_path_factory.mktemp("sets") / "sets.onnx", card, x))


@pytest.mark.parametrize("n", [1, 2, 3, 600])
def test_the_graph_of_an_encoder_with_an_autoencoder_scores_as_torch_does(encoded, exported, n):
    model, (x, scorer) = encoded[1], exported
    x = x.copy()
    expected = model.scores(x[:n])
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(scorer(x[:n]), expected, rtol=1e-5, atol=1e-6)
    x[0, 3, 1] = np.nan
    assert np.isnan(scorer(x[:n])[0])


def test_an_encoder_is_fitted_and_applied_in_blocks():
    class Counting(SetEncoder):
        def __init__(self):
            super().__init__()
            self.sizes = []

        def forward(self, x):
            self.sizes.append(len(x))
            return super().forward(x)

    encoder = Counting()
    transform = nn.Representation(encoder, nn.Standard(6))
    x = sets(5000)
    transform.fit(x, np.ones(len(x)))
    with torch.no_grad():
        whole = transform(torch.from_numpy(x))
    assert max(encoder.sizes) <= 1024
    assert len(whole) == 5000
    assert whole.mean(dim=0).abs().max() < 1e-4
    with pytest.raises(SkimError, match=r"rows have the shape \(50, 2\), the encoder takes \(50, 3\)"):
        transform.fit(x[:, :, :2], np.ones(len(x)))
    with pytest.raises(ConfigError, match="does not say the shape of its rows"):
        nn.Representation(torch.nn.Linear(3, 2), nn.Standard(2))


# batches with labels and places


class Watching(nn.AE):
    """An AE that remembers its batches."""

    seen: tuple = ()

    def training_loss(self, batch, generator):
        self.__dict__.setdefault("_batches", []).append(batch)
        return super().training_loss(batch, generator)


def test_a_batch_says_labels_and_which_rows_were_sampled_twice():
    data = toy_skim()
    data = data.labelled(np.arange(len(data.x)) % 10 == 0)
    model = Watching(8, transform=nn.QuantileNormal(8))
    nn.fit(model, data, quick(epochs=1, samples_per_epoch=4096, batch_size=1024))
    for batch in model._batches:
        np.testing.assert_array_equal(batch.label.numpy(), data.label[batch.row.numpy()])
        with torch.no_grad():
            z = model.transform(torch.from_numpy(data.x[batch.row.numpy()]))
        torch.testing.assert_close(batch.z, z)
        assert set(data.split[batch.row.numpy()]) == {"train"}
    rows = torch.cat([b.row for b in model._batches])
    assert len(rows.unique()) < len(rows)
    labels = torch.cat([b.label for b in model._batches]).double()
    assert abs(labels.mean().item() - 0.5) < 5 * 0.5 / np.sqrt(len(labels))  # a tenth of the rows, half of the batches


def test_weights_are_balanced_by_label_and_negative_ones_left_out():
    weight, label = np.array([1.0, 3.0, 2.0, 2.0, 1.0]), np.array([0, 0, 1, 1, 1])
    out = balanced(weight, label)
    assert [out[label == k].sum() for k in (0, 1)] == pytest.approx([1, 1])
    data = toy_skim()
    data.weight[:50] *= -1
    rows = TrainingRows(data.labelled(data.x[:, 0] > 0), "train", torch.device("cpu"))
    assert rows.weight.sum().item() == pytest.approx(2)
    assert (data.weight[rows.index] > 0).all()


def test_labels_belong_to_the_training_that_is_resumed(tmp_path):
    data = toy_skim()
    nn.fit(nn.AE(8, transform=nn.QuantileNormal(8)), data, quick(), tmp_path)
    torch.manual_seed(1)
    with pytest.raises(ConfigError, match="belongs to other data"):
        nn.fit(nn.AE(8, transform=nn.QuantileNormal(8)), data.labelled(data.x[:, 0] > 0), quick(epochs=3), tmp_path,
               resume=True)  # fmt: skip


def test_data_and_a_template_are_joined_and_generated_rows_take_their_place():
    one = skim_of(toy_rows(300)[0], feature_spec(NAME))
    made = one.replaced(toy_rows(200, seed=2)[0], dataset="template", seed=3)
    assert set(made.split) == {"train", "validation", "test"}
    assert (made.provenance["rows"], set(made.spectators)) == ({"template": 200}, set(one.spectators))
    both = one.labelled(np.ones(300, bool)).joined(made.labelled(np.zeros(200, bool)))
    assert len(both.x) == 500
    assert both.label.sum() == 300
    assert both.provenance["rows"] == {"toy": 300, "template": 200}
    assert len(both.select(both.label == 0).x) == 200
    with pytest.raises(SkimError, match="all or none must have labels"):
        one.joined(made.labelled(np.zeros(200, bool)))
    with pytest.raises(SkimError, match="cannot be joined"):
        one.joined(skim_of(sets(20), feature_spec(SETS, {"n": 50, "columns": COLUMNS})))
    with pytest.raises(SkimError, match=r"finite and of the shape \(8,\), not \(7,\)"):
        one.replaced(np.zeros((3, 7), np.float32), dataset="t")
    with pytest.raises(SkimError, match="a value for each of 300 rows"):
        one.labelled(np.ones(3, bool))


# trees


def test_trees_go_through_card_and_scorer(tmp_path):
    data = toy_skim(n=4000)
    data = data.labelled(data.x[:, 0] + np.random.default_rng(1).normal(size=4000) > 1)
    trees = nn.Trees.of(data, max_iter=30)
    assert isinstance(trees, nn.Scorable)
    card = nn.make_card(trees, data, name="trees", config={}, metrics={})
    scorer = ad.OnnxScorer(nn.export(trees, tmp_path / "trees.onnx", card, data.x))
    np.testing.assert_allclose(scorer(data.x), trees.scores(data.x), rtol=1e-5, atol=1e-6)
    thresholds = np.unique(np.concatenate([p.nodes["num_threshold"] for (p,) in trees.classifier._predictors]))
    edge = np.tile(data.x[:1], (len(thresholds), 1))
    for column in range(8):  # on a threshold, as near as float32 gets
        rows = edge.copy()
        rows[:, column] = thresholds
        np.testing.assert_allclose(scorer(rows), trees.scores(rows), rtol=1e-5, atol=1e-6)
    assert card.method == "boosted trees"
    held_out = data.splits("test")
    score = scorer(held_out.x)
    assert np.median(score[held_out.label == 1]) > np.median(score[held_out.label == 0]) + 0.5
    with pytest.raises(SkimError, match="two labels"):
        nn.Trees.of(toy_skim())
    from sklearn.ensemble import HistGradientBoostingClassifier

    with pytest.raises(ConfigError, match="not fitted"):
        nn.Trees(HistGradientBoostingClassifier())


def test_trees_fold_as_networks_do(tmp_path):
    data = skim_of(toy_rows(1500)[0], feature_spec(NAME))
    noise = np.random.default_rng(1).normal(size=len(data.x))  # the background, label 0, has scores of all kinds
    data = data.labelled(data.x[:, 0] + noise > 0.5)
    parts = [data.for_fold(f, 3, "s") for f in range(3)]
    model = nn.CrossTrained([nn.Trees.of(part, max_iter=5, seed=f) for f, part in enumerate(parts)], "s")
    card = nn.make_card(model, data, name="folded", config={}, metrics={})
    scorer = ad.OnnxScorer(nn.export(model, tmp_path / "folded.onnx", card, data.x))
    folds = fold_of("s", 3, *(data.spectators[k] for k in ("run", "luminosityBlock", "event")))
    np.testing.assert_allclose(scorer(data.x, folds), model.scores(data.x, folds), rtol=1e-5, atol=1e-6)
    assert len(scorer.card.calibrations) == 3


# a conditional flow


class Flow(nn.Model):
    """p(features | mass) by a neural spline flow; the last column is the mass, which is its context."""

    method = "NSF"
    density = "x"

    def __init__(self, features, *, transform):
        super().__init__((features,), transform)
        import zuko

        self.flow = zuko.flows.NSF(features - 1, context=1, transforms=1, hidden_features=(16,))

    def energy(self, z):
        return -self.flow(z[:, -1:]).log_prob(z[:, :-1])

    def score(self, x):
        defined = (x - x == 0).all(dim=1)
        x = torch.where(defined[:, None], x, torch.zeros_like(x))
        # the context is given, and so its Jacobian is no part of the density
        slopes = self.transform._log_slopes(x)[:, :-1].sum(dim=1)
        return torch.where(defined, self.energy(self.transform(x)) - slopes, torch.nan)

    def training_loss(self, batch, generator):
        return {"loss": self.energy(batch.z).mean()}


def test_a_conditional_flow_is_a_density_of_x_and_says_so(tmp_path):
    torch.manual_seed(1)
    data = toy_skim()
    model = Flow(8, transform=nn.Standard(8))
    history = nn.fit(model, data, quick(epochs=3, learning_rate=3e-3))
    assert history[-1]["validation"] < history[0]["validation"]
    card = nn.make_card(model, data, name="flow", config={}, metrics=history.best)
    path = nn.export(model, tmp_path / "flow.onnx", card, data.x[:500])
    scorer = ad.OnnxScorer(path)
    assert scorer.card.density == "x"
    np.testing.assert_allclose(scorer(data.x[:300]), model.scores(data.x[:300]), rtol=1e-4, atol=1e-4)
    # a change of units changes log p(x) by the logarithm of their ratio
    scaled = Flow(8, transform=nn.Standard(8))
    scaled.load_state_dict(model.state_dict())
    scaled.transform.mean *= 10
    scaled.transform.scale *= 10
    np.testing.assert_allclose(scaled.scores(10 * data.x[:50]) - model.scores(data.x[:50]), 7 * np.log(10), rtol=1e-4)


@pytest.mark.parametrize("kind", ["standard", "log", "quantile", "none"])
def test_log_det_is_the_jacobian(kind):
    x = toy_skim().x
    x = torch.from_numpy(x[(x != 0).all(axis=1)][:40])  # a logarithm has a corner at 0
    transform = nn.preprocessing(kind, [str(i) for i in range(8)]).fit(toy_skim().x, np.ones(3000)).double()
    jacobians = [torch.autograd.functional.jacobian(lambda r: transform(r[None])[0], row.double()) for row in x]
    expected = torch.stack([j.det().abs().log() for j in jacobians])
    torch.testing.assert_close(transform.log_det(x.double()), expected, rtol=1e-5, atol=1e-5)


def test_log_det_by_column_is_the_sum_and_an_encoder_has_none():
    x = toy_skim().x
    x = x[(x != 0).all(axis=1)]
    kinds = {"0": "log", "3": "quantile", "*": "standard"}
    transform = nn.preprocessing(kinds, [str(i) for i in range(8)]).fit(x, np.ones(len(x))).double()
    rows = torch.from_numpy(x[:20]).double()
    jacobians = [torch.autograd.functional.jacobian(lambda r: transform(r[None])[0], row) for row in rows]
    expected = torch.stack([j.det().abs().log() for j in jacobians])
    torch.testing.assert_close(transform.log_det(rows), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match="no Jacobian"):
        nn.Representation(SetEncoder(), nn.Standard(6)).log_det(torch.zeros(2, 50, 3))


# ensembles of epochs


@pytest.mark.parametrize("how", ["mean", "logmeanexp", "rank"])
def test_an_ensemble_scores_as_its_rule_says_in_torch_and_onnx(how, tmp_path):
    data = toy_skim()
    torch.manual_seed(2)
    model = nn.AE(8, transform=nn.QuantileNormal(8))
    history = nn.fit(model, data, quick(epochs=6, keep=3, learning_rate=1e-2))
    members = history.models(model)
    assert len(members) == 3
    assert [e.value for e in history.epochs] == sorted(row["reconstruction"] for row in history)[:3]
    if how == "rank":
        held_out = data.splits("validation")
        ensemble = nn.Ensemble.with_ranks(members, held_out.x, held_out.weight)
    else:
        ensemble = nn.Ensemble(members, how)
        each = np.stack([m.scores(data.x) for m in members])
        expected = each.mean(axis=0) if how == "mean" else -np.log(np.exp(-each).mean(axis=0))
        np.testing.assert_allclose(ensemble.scores(data.x), expected, rtol=1e-4)
    card = nn.make_card(ensemble, data, name="e", config={}, metrics=history.best)
    scorer = ad.OnnxScorer(nn.export(ensemble, tmp_path / "e.onnx", card, data.x[:500]))
    np.testing.assert_allclose(scorer(data.x), ensemble.scores(data.x), rtol=1e-5, atol=1e-6)
    assert card.method == f"AE, {how} of 3"


def test_one_kept_epoch_is_the_model_itself():
    model = nn.AE(8, transform=nn.QuantileNormal(8))
    history = nn.fit(model, toy_skim(), quick())
    assert nn.Ensemble.of_epochs(model, history) is model
    assert history.best == min(history, key=lambda row: row["reconstruction"])
    with pytest.raises(ConfigError, match="how is 'median'"):
        nn.Ensemble([model], "median")
    with pytest.raises(ConfigError, match="need a calibration"):
        nn.Ensemble([model], "rank")
    with pytest.raises(ConfigError, match="of the same columns"):
        nn.Ensemble([model, nn.AE(7, transform=torch.nn.Identity())])


# trained models come back


@pytest.mark.parametrize("keep", [1, 2])
def test_a_trained_model_comes_back_from_its_folder(tmp_path, keep):
    data = toy_skim()
    model = nn.VAE(
        8,
        hidden=(6,),
        latent=2,
        transform=nn.preprocessing({"c0": "log", "*": "standard"}, [f"c{i}" for i in range(8)]),
    )
    history = nn.fit(model, data, quick(keep=keep), tmp_path)
    again = nn.load(tmp_path)
    np.testing.assert_array_equal(again.scores(data.x), nn.Ensemble.of_epochs(model, history).scores(data.x))


def test_classes_of_ones_own_are_given_and_nothing_else_is_imported(tmp_path):
    data = skim_of(sets(), feature_spec(SETS, {"n": 50, "columns": COLUMNS}))
    model = nn.AE(6, transform=nn.Representation(SetEncoder(), nn.Standard(6)))
    nn.fit(model, data, quick(), tmp_path)
    with pytest.raises(
        ConfigError, match=r"it holds a test_contract.SetEncoder; give that class with classes=\[SetEncoder\]"
    ):
        nn.load(tmp_path)
    np.testing.assert_array_equal(nn.load(tmp_path, classes=[SetEncoder]).scores(data.x), model.scores(data.x))

    nn.fit(Watching(8, transform=nn.QuantileNormal(8)), toy_skim(), quick(), tmp_path / "own")
    with pytest.raises(
        ConfigError, match=r"it holds a test_contract.Watching; give that class with classes=\[Watching\]"
    ):
        nn.load(tmp_path / "own")
    assert isinstance(nn.load(tmp_path / "own", classes=[Watching]), Watching)
    with pytest.raises(ConfigError, match="no trained model in this folder"):
        nn.load(tmp_path / "nothing")


# folds through everything


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    """An AE with five folds, trained by the command line, and the skim it was trained on."""
    folder = tmp_path_factory.mktemp("folds")
    fileset = {"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    ad.run(fileset, "skim_jets", executor="iterative", output=folder / "skims", progress=False)
    words = [f"{k}={v}" for k, v in SHORT.items()]
    words = ["train." + w for w in words] + [
        f"data={folder / 'skims'}",
        "hidden=[6]",
        "latent=2",
        "preprocessing=standard",
    ]
    assert main(["run", "autoencoder", "--folds", "5", *words, "-o", str(folder / "ae.onnx")]) == 0
    return folder, fileset


def test_every_recipe_takes_folds(crossed):
    for recipe in recipes.available():
        if recipe.kind == "training":
            assert issubclass(recipes.load(recipe.name).Config, nn.RecipeConfig)


def test_a_cross_training_leaves_a_checkpoint_a_fold_and_comes_back(crossed):
    folder, _ = crossed
    data = nn.load_skim(folder / "skims", NAME)
    scorer = ad.OnnxScorer(folder / "ae.onnx")
    assert (scorer.card.folds.k, len(scorer.card.calibrations)) == (5, 5)
    assert len(scorer.card.provenance["metrics"]["folds"]) == 5
    for f in range(5):
        assert (folder / "ae" / f"fold_{f}" / "checkpoint.pt").is_file()
        assert (folder / "ae" / f"fold_{f}" / "training.png").is_file()
    model = nn.load(folder / "ae")
    folds = fold_of("folds", 5, *(data.spectators[k] for k in ("run", "luminosityBlock", "event")))
    np.testing.assert_allclose(scorer(data.x, folds), model.scores(data.x, folds), rtol=1e-5, atol=1e-6)


def raw_scores(graph, x, output):
    return onnxruntime.InferenceSession(graph).run([output], {"features": x})[0].reshape(-1)


@pytest.fixture
def exports(monkeypatch):
    """Counts how often a torch module is exported."""
    counted = []

    def export(module, outputs):
        counted.append(module)
        return torch_graph(module, outputs)

    monkeypatch.setattr("coffea_ad.nn.model.torch_graph", export)
    return counted


def test_the_graph_of_folds_has_the_scores_of_each_member_by_one_export(exports):
    """Members that differ in their preprocessing as well, and of which each is a mean of epochs."""
    data = skim_of(toy_rows(1200)[0], feature_spec(NAME))
    members = []
    for f in range(3):
        torch.manual_seed(f)
        model = nn.AE(8, transform=nn.Log(8))
        history = nn.fit(model, data.for_fold(f, 3, "s"), quick(keep=2))
        members.append(nn.Ensemble.of_epochs(model, history))
    outputs = ["a", "b", "c"]
    graph = nn.CrossTrained(members, "s").graph(outputs)
    assert len(exports) == 1
    for member, output in zip(members, outputs, strict=True):
        np.testing.assert_allclose(raw_scores(graph, data.x, output), member.scores(data.x), rtol=1e-6, atol=1e-6)


class Scaled(nn.AE):
    """An AE with a constant that the exporter may compute beforehand, or with a number that is no buffer."""

    def __init__(self, columns, shift=0.0):
        super().__init__(columns, transform=torch.nn.Identity())
        self.shift = shift
        self.register_buffer("size", torch.ones(1))

    def score(self, x):
        return super().score(x) * self.size + self.size.log() + self.shift


def test_members_that_differ_in_more_than_their_weights_are_exported_by_themselves(exports):
    torch.manual_seed(1)
    members = [Scaled(8), Scaled(8), Scaled(8, shift=1e-4)]
    members[1].size.fill_(1.0001)
    outputs = ["a", "b", "c"]
    graph = nn.CrossTrained(members, "s").graph(outputs)
    assert len(exports) == 3
    x = toy_rows(200)[0]
    for member, output in zip(members, outputs, strict=True):
        np.testing.assert_allclose(raw_scores(graph, x, output), member.scores(x), rtol=1e-6, atol=1e-6)


def test_folds_are_the_same_on_any_number_of_processes(tmp_path):
    data = skim_of(toy_rows(600)[0], feature_spec(NAME))
    recipe = recipes.load("autoencoder")
    config = recipe.Config(data="none", hidden=(4,), latent=2, train=quick())
    one, histories = nn.fit_folds(recipe.fit, config, data, tmp_path / "one", k=3, workers=1)
    two, others = nn.fit_folds(recipe.fit, config, data, tmp_path / "two", k=3, workers=2)
    folds = one.fold_of(data.spectators)
    np.testing.assert_array_equal(one.scores(data.x, folds), two.scores(data.x, folds))
    assert [list(h) for h in histories] == [list(h) for h in others]
    with pytest.raises(SkimError, match="folds is 2, but must be at least 3"):
        nn.fit_folds(recipe.fit, config, data, tmp_path / "three", k=2)


def test_no_fold_trains_on_what_it_scores():
    data = skim_of(toy_rows(2000)[0], feature_spec(NAME))
    fold = fold_of("s", 4, *(data.spectators[k] for k in ("run", "luminosityBlock", "event")))
    for f in range(4):
        split = data.for_fold(f, 4, "s").split
        assert set(fold[split == "test"]) == {f}
        assert set(fold[split == "validation"]) == {(f + 1) % 4}
        assert f not in fold[split == "train"]


def test_folds_go_through_tagger_run_regions_combine_and_quantise(crossed, tmp_path):
    folder, fileset = crossed
    model, skims = folder / "ae.onnx", folder / "skims"
    jets = ad.Tagger(model)(open_events(DATA / "qcd_v15.root").FatJet)
    assert "ad_region" in jets.fields
    loose = ["lepton_pt_min=null", "delta_eta_max=null", "met_min=null", "rt_min=null", "dphi_max=null"]
    report = ad.run(fileset, "semivisible_jets", model=model, overrides=loose, executor="iterative", output=tmp_path / "r",
                    progress=False)  # fmt: skip
    assert report.datasets["qcd"]["events"] == 200
    assert (
        main(["regions", str(model), "--from", str(skims), "--efficiency", "0.3", "-o", str(tmp_path / "moved.onnx")])
        == 0
    )
    moved = read_card((tmp_path / "moved.onnx").read_bytes())
    assert (len(moved.calibrations), [r.efficiency for r in moved.regions]) == (5, [0.3])
    assert network_digest((tmp_path / "moved.onnx").read_bytes()) == network_digest(model.read_bytes())
    other = tmp_path / "pca.onnx"
    assert main(["run", "pca", "--folds", "5", f"data={skims}", "-o", str(other)]) == 0
    assert main(["combine", str(model), str(other), "-o", str(tmp_path / "both.onnx"), "--background", str(skims)]) == 0
    both = ad.OnnxScorer(tmp_path / "both.onnx").card
    assert (both.folds.k, len(both.calibrations)) == (5, 5)
    assert main(["quantise", str(model), "--calibration", str(skims), "-o", str(tmp_path / "int8.onnx")]) in (0, 1)


def test_folds_of_a_processor_are_refused(tmp_path, capsys):
    assert main(["run", "skim_jets", "--folds", "4", "--fileset", "x.json", "-o", str(tmp_path / "o")]) == 1
    assert "--folds is for trainings" in capsys.readouterr().err


def test_the_verdict_judges_every_fold_by_itself():
    from coffea_ad.nn.recipe import _means
    from coffea_ad.nn.training.verdict import verdict

    data = toy_skim()
    far = {"steps": [0, 500], "buffer": [0.1, 1e6], "buffer_error": [0.1, 0.1]}
    folds = [{"epoch": 3.0, "long_run": far if f == 1 else {}} for f in range(3)]
    members = [nn.AE(8, transform=torch.nn.Identity()) for _ in folds]
    score = members[0].scores(data.x)
    doubts = verdict(members, data, score, [], {"epoch": 3.0, "folds": folds}, epochs=5)
    assert next(d for d in doubts if "does not model the data" in d).startswith("fold 1: the energy does not model")
    assert _means([{"loss": 1.0, "share": 2.0}, {"loss": 3.0}]) == {"loss": 2.0}


def test_folds_mean_nothing_for_a_resubmission(tmp_path, capsys):
    assert main(["run", "--resubmit", str(tmp_path), "--folds", "4"]) == 1
    assert "leave out: folds" in capsys.readouterr().err


# several features as one flat input


def test_several_features_stand_side_by_side(tmp_path):
    events = ["leading_lepton_pt_min=0", "features=[dijet, rmm_zones]"]
    fileset = {"ttbar": {"files": {str(DATA / "ttbar_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    ad.run(fileset, "skim_events", overrides=events, executor="iterative", output=tmp_path / "s", progress=False)
    one, two = (nn.load_skim(tmp_path / "s", name) for name in ("dijet", "rmm_zones"))
    both = nn.load_skim(tmp_path / "s", ["dijet", "rmm_zones"])
    assert both.x.shape[1] == one.x.shape[1] + two.x.shape[1]
    assert [f.name for f in both.features] == ["dijet", "rmm_zones"]
    assert len(set(both.columns)) == both.x.shape[1]
    with pytest.raises(SkimError, match="several features: dijet, rmm_zones"):
        both.feature  # noqa: B018
    words = [
        "train.epochs=1",
        "train.samples_per_epoch=128",
        "train.batch_size=32",
        "preprocessing=standard",
        "hidden=[4]",
    ]
    code = main(["run", "autoencoder", f"data={tmp_path / 's'}", "features=[dijet, rmm_zones]", *words, "latent=2",
                 "-o", str(tmp_path / "m.onnx")])  # fmt: skip
    assert code == 0
    card = read_card((tmp_path / "m.onnx").read_bytes())
    assert [f.name for f in card.inputs[0].features] == ["dijet", "rmm_zones"]
    tagged = ad.Tagger(tmp_path / "m.onnx")(open_events(DATA / "ttbar_v15.root"))
    ids = {int(e): float(s) for e, s in zip(tagged.event, tagged.ad_score, strict=True)}
    scores = ad.OnnxScorer(tmp_path / "m.onnx")(both.x)
    for event, score in zip(both.spectators["event"], scores, strict=True):
        assert ids[int(event)] == pytest.approx(float(score), rel=1e-4)


# cards of before


def test_cards_of_schemas_1_and_2_are_read():
    import json

    text = json.loads(read_texts((DATA / "wnae.onnx").read_bytes())[CARD_KEY])
    assert text["schema_version"] == 1  # a file of before stays as it is
    card = parse_card(json.dumps(text))
    two = card.model_dump(mode="json") | {"schema_version": 2}
    del two["density"]
    assert parse_card(json.dumps(two)) == card
    assert card.density is None


def test_a_model_of_ones_own_needs_five_names():
    class Constant:
        method, shape, folds, density = "constant", (8,), None, None

        def scores(self, x, folds=None):
            return np.zeros(len(x), np.float32)

        def graph(self, outputs):
            return b""

    assert isinstance(Constant(), nn.Scorable)
    assert isinstance(nn.AE(8, transform=torch.nn.Identity()), nn.Scorable)
    assert Batch.of(torch.zeros(3, 2)).label is None
