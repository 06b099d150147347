"""Deep SVDD: centres, collapse, pre-training, ensembles."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from coffea_ad.nn.model import Batch

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import toy_skim

from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError
from coffea_ad.scoring.scorer import OnnxScorer


def quick(**keys):
    return nn.TrainConfig(**{"epochs": 2, "samples_per_epoch": 512, "batch_size": 128, "validation_rows": 200, **keys})


@pytest.fixture(scope="module")
def data():
    return toy_skim()


def one(seed=1, **options):
    torch.manual_seed(seed)
    return nn.DeepSVDD(8, transform=nn.QuantileNormal(8), **options)


def ensemble(seed=1, **options):
    torch.manual_seed(seed)
    return nn.DeepSVDDEnsemble(8, transform=nn.QuantileNormal(8), **{"dimensions": (5, 13), "hidden": (16,), **options})


def autoencoder(seed=1, **options):
    torch.manual_seed(seed)
    return nn.BiasFreeAE(8, transform=nn.QuantileNormal(8), **options)


@pytest.fixture(scope="module")
def fitted(data):
    """Trained models, and their histories."""
    out = {}
    for name, model in (
        ("mean", one()),
        ("constant", one(centre=3.0, outputs=5)),
        ("silu", one(activation="silu")),
        ("ensemble", ensemble(centres=(1.0, 10.0))),
    ):
        out[name] = model, nn.fit(model, data, quick(epochs=10, samples_per_epoch=2048))
    return out


KINDS = ["mean", "constant", "silu", "ensemble"]

# Networks and centres


@pytest.mark.parametrize("activation", ["leaky_relu", "relu", "silu"])
def test_no_layer_has_a_bias_so_that_the_origin_stays_where_it_is(activation):
    for model in (one(activation=activation), ensemble(activation=activation)):
        assert not [n for n, _ in model.named_parameters() if "bias" in n]
        for member in getattr(model, "members", [model]):
            assert torch.equal(member.network(torch.zeros(1, 8)), torch.zeros(1, len(member.centre)))


@pytest.mark.parametrize("make", [one, ensemble])
def test_bounded_activations_are_refused(make):
    with pytest.raises(ConfigError, match="unknown unbounded activation 'tanh'"):
        make(activation="tanh")


@pytest.mark.parametrize("centre", [0.0, -0.0, float("nan"), float("inf")])
def test_a_centre_that_all_weights_zero_would_reach_is_refused(centre):
    with pytest.raises(ConfigError, match="other than 0"):
        one(centre=centre)
    with pytest.raises(ConfigError, match="other than 0"):
        ensemble(centres=(1.0, centre))


def test_the_centre_is_the_first_mean_pushed_away_from_zero_with_its_sign():
    torch.manual_seed(0)
    model = nn.DeepSVDD(2, hidden=(), outputs=4, transform=torch.nn.Identity())
    with torch.no_grad():
        model.network[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.01, 0.0], [-0.01, 0.0], [-3.0, 0.0]]))
    z = torch.tensor([[1.0, 5.0], [3.0, -5.0]])
    model.start(Batch.of(z), torch.Generator())
    torch.testing.assert_close(model.centre, torch.tensor([2.0, 0.1, -0.1, -6.0]))


def test_a_given_centre_stays(fitted, data):
    model, _ = fitted["constant"]
    assert torch.equal(model.centre, torch.full((5,), 3.0))
    whole = one(centre=2)
    assert whole.centre.dtype == torch.float32


@pytest.mark.parametrize("kind", ["mean", "constant", "silu"])
def test_the_score_is_the_mean_squared_distance_from_the_centre(fitted, data, kind):
    model, _ = fitted[kind]
    with torch.no_grad():
        phi = model.network(model.transform(torch.from_numpy(data.x[:50]))).numpy()
    expected = np.sum((phi - model.centre.numpy()) ** 2, axis=1) / phi.shape[1]
    np.testing.assert_allclose(model.scores(data.x[:50]), expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_far_away_score_higher_than_the_bulk(fitted, data, kind):
    model, history = fitted[kind]
    far = np.median(data.x, axis=0) + 12 * data.x.std(axis=0) * np.sign(np.random.default_rng(1).normal(size=(200, 8)))
    bulk = model.scores(data.splits("test").x)
    assert np.median(model.scores(far.astype(np.float32))) > np.quantile(bulk, 0.99)
    assert history[-1]["validation"] < history[0]["validation"]


# Collapse


@pytest.mark.parametrize("make", [one, ensemble])
def test_a_network_that_has_become_constant_is_noticed(data, make):
    """A constant input is a bias in disguise: with it a network can leave all others out."""
    model = make()
    model.transform.fit(data.x, data.weight)
    z = model.transform(torch.from_numpy(data.x[:500]))
    z[:, 7] = 1.0
    model.start(Batch.of(z), torch.Generator())
    before = model.validate(Batch.of(z), torch.Generator())
    assert before["spread"] == pytest.approx(1, rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not model.diverged(before)
    with torch.no_grad():
        for member in getattr(model, "members", [model]):
            member.network[0].weight[:, :7] *= 1e-5
    after = model.validate(Batch.of(z), torch.Generator())
    with pytest.warns(UserWarning, match="has collapsed"):
        assert model.diverged(after)


def test_a_training_that_collapses_keeps_the_last_epoch_that_had_not(data, monkeypatch):
    """Two columns that hardly vary are all the network sees; its best loss is to leave out what they say."""
    monkeypatch.setattr("coffea_ad.nn.one_class.svdd._COLLAPSED", 0.02)
    torch.manual_seed(1)
    model = nn.DeepSVDD(8, transform=_NearlyConstant(), centre=1.0)
    with pytest.warns(UserWarning, match="has collapsed"), pytest.warns(UserWarning, match="is kept"):
        history = nn.fit(model, data, quick(epochs=60, samples_per_epoch=2048, learning_rate=3e-3))
    assert len(history) < 60
    assert min(row["spread"] for row in history) >= 0.02
    z = model.transform(torch.from_numpy(data.splits("validation").x))
    assert model.spread(z) > 0.01


class _NearlyConstant(torch.nn.Module):
    """Seven columns that vary, and one that is always 3."""

    def forward(self, x):
        z = x / (1 + x.abs())
        return torch.cat([z[:, :7], torch.full_like(z[:, 7:], 3.0)], dim=1)


def test_the_spread_does_not_depend_on_the_size_of_the_centre():
    z = torch.randn(400, 8, generator=torch.Generator().manual_seed(1)) + 1
    spreads = []
    for size in (1.0, 25.0):
        model = one(centre=size)
        model.start(Batch.of(z), torch.Generator())
        with torch.no_grad():
            model.network[-1].weight.mul_(size)
            model.network[0].weight[:, :4] *= 0.1
        spreads.append(model.spread(z))
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-4)
    assert abs(spreads[0] - 1) > 0.01


def test_a_network_that_is_dead_at_the_start_is_refused():
    model = one()
    with torch.no_grad():
        model.network[0].weight.zero_()
    with pytest.raises(ConfigError, match="do not vary"):
        model.start(Batch.of(torch.randn(10, 8)), torch.Generator())


# Starting from an autoencoder


def test_the_encoder_of_an_autoencoder_becomes_the_network(data):
    source = autoencoder(hidden=(16, 12), latent=4, activation="silu")
    nn.fit(source, data, quick())
    model = nn.DeepSVDD.from_autoencoder(source)
    z = model.transform(torch.from_numpy(data.x[:30]))
    torch.testing.assert_close(model.network(z), source.encoder(z), rtol=0, atol=0)
    before = [p.detach().clone() for p in source.encoder.parameters()]
    nn.fit(model, data, quick())
    assert all(torch.equal(a, b) for a, b in zip(before, source.encoder.parameters(), strict=True))  # a copy
    mean = source.encoder(source.transform(torch.from_numpy(data.splits("train").x))).mean(0)
    assert bool((torch.sign(model.centre) == torch.sign(mean))[mean.abs() > 0.1].all())


def test_an_encoder_with_biases_is_refused():
    with pytest.raises(ConfigError, match="has biases"):
        nn.DeepSVDD.from_autoencoder(nn.AE(8, transform=torch.nn.Identity()))


def test_an_encoder_with_other_layers_is_refused():
    source = autoencoder()
    source.encoder[1] = torch.nn.Tanh()
    with pytest.raises(ConfigError, match="one kind of activation"):
        nn.DeepSVDD.from_autoencoder(source)


# Ensembles


def test_there_is_a_member_for_every_dimension_and_centre():
    model = nn.DeepSVDDEnsemble(8, transform=torch.nn.Identity(), centres=(1.0, 4.0))
    found = [(len(m.centre), m.centre[0].item()) for m in model.members]
    assert found == [(k, c) for k in (5, 8, 13, 21, 34, 55, 89, 144, 233, 377) for c in (1.0, 4.0)]
    with pytest.raises(ConfigError, match="at least one"):
        ensemble(dimensions=())


def test_the_score_is_the_mean_of_the_members_each_over_its_mean(fitted, data):
    model, _ = fitted["ensemble"]
    rows = data.x[:300]
    members = []
    for member, scale in zip(model.members, model.scale, strict=True):
        alone = nn.DeepSVDD(8, hidden=(16,), outputs=len(member.centre), transform=model.transform, centre=1.0)
        alone.network.load_state_dict(member.network.state_dict())
        alone.centre.copy_(member.centre)
        members.append(alone.eval().scores(rows) / scale.item())
    np.testing.assert_allclose(model.scores(rows), np.mean(members, axis=0), rtol=1e-5)


def test_no_member_counts_more_than_another(fitted, data):
    model, _ = fitted["ensemble"]
    train = data.splits("train")
    with torch.no_grad():
        relative = model.energies(model.transform(torch.from_numpy(train.x))).numpy() / model.scale.numpy()
    means = np.average(relative, axis=0, weights=train.weight)
    np.testing.assert_allclose(means, 1, atol=0.3)  # they move on while the means are taken
    energies = relative * model.scale.numpy()
    assert energies[:, 1].mean() > 10 * energies[:, 0].mean()  # the centre at 10 would have outvoted the one at 1


def test_members_train_as_they_would_alone(data):
    """They share the transform only, and Adam takes no notice of a common factor in front of a member's loss."""
    both = ensemble(centres=(1.0,))
    alone = ensemble(centres=(1.0,), dimensions=(5,))
    alone.members[0].load_state_dict(both.members[0].state_dict())
    for model in (both, alone):
        nn.fit(model, data, quick(epochs=2, validation_rows=50, average=0.0))
    # The best epoch is common to the ensemble; here the loss falls in both, so it is the last in both.
    one_, two = (m.members[0].network[0].weight for m in (both, alone))
    torch.testing.assert_close(one_, two, rtol=1e-3, atol=1e-4)


def test_scores_need_no_training_rows_and_change_only_by_training(fitted, data):
    model, _ = fitted["ensemble"]
    before = model.scores(data.x[:20])
    z = model.transform(torch.from_numpy(data.x[:200]))
    model.training_loss(Batch.of(z), torch.Generator())
    model.validate(Batch.of(z), torch.Generator())
    np.testing.assert_array_equal(model.scores(data.x[:20]), before)


def test_the_whole_ensemble_is_one_small_file(data, tmp_path):
    torch.manual_seed(1)
    model = nn.DeepSVDDEnsemble(8, transform=nn.QuantileNormal(8))
    history = nn.fit(model, data, quick())
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    path = nn.export(model, tmp_path / "model.onnx", card, data.x[:100])
    assert path.stat().st_size < 5e6
    np.testing.assert_allclose(OnnxScorer(path)(data.x), model.scores(data.x), rtol=1e-4)


def test_the_transform_is_evaluated_once_for_all_members(data):
    model, calls = ensemble(), []
    model.transform.fit(data.x, data.weight)
    model.transform.register_forward_hook(lambda *_: calls.append(1))
    model.scores(data.x[:5])
    assert len(calls) == 1


# The recipe


def recipe(monkeypatch, data, **keys):
    module = recipes.load("svdd")
    monkeypatch.setattr("coffea_ad.nn.recipe.load_skim", lambda *_, **__: data)
    return module, module.Config(data="nowhere", train=quick(), **keys)


@pytest.mark.plot
@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({"dimensions": (5, 8), "centres": (1.0, 3.0), "hidden": (16,)}, "Deep SVDD ensemble"),
        ({"network": "one", "pretrain_epochs": 2, "outputs": 4, "preprocessing": "standard"}, "Deep SVDD"),
    ],
)
def test_the_recipe_leaves_a_model_and_resumes(monkeypatch, data, tmp_path, keys, method):
    module, config = recipe(monkeypatch, data, **keys)
    summary = module.train(config, tmp_path / "m.onnx")
    assert {"metrics.jsonl", "checkpoint.pt", "training.png"} <= {p.name for p in (tmp_path / "m").iterdir()}
    scores = OnnxScorer(tmp_path / "m.onnx")(data.x)
    assert OnnxScorer(tmp_path / "m.onnx").card.method == method
    resumed = module.train(config.model_copy(update={"resume": True}), tmp_path / "m.onnx")
    assert resumed["best"] == summary["best"]
    np.testing.assert_array_equal(OnnxScorer(tmp_path / "m.onnx")(data.x), scores)


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"centre": 2.0}, "centre: network=ensemble"),
        ({"network": "one", "dimensions": (5,)}, "dimensions: network=one"),
    ],
)
def test_keys_of_the_other_kind_of_network_are_refused(monkeypatch, data, tmp_path, keys, match):
    module, config = recipe(monkeypatch, data, **keys)
    with pytest.raises(ConfigError, match=match):
        module.train(config, tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["svj", "reduced", "one"])
def test_the_configurations_give_a_model(data, tmp_path, name):
    module = recipes.load("svdd")
    config = load_config(module.Config, recipes.find_config(f"svdd/{name}.yaml"), ["data=x"])
    if name == "one":
        config = config.model_copy(update={"pretrain_epochs": 0})
    model = module.build(config, data, tmp_path)
    assert len(getattr(model, "members", [model])) == {"svj": 10, "reduced": 4, "one": 1}[name]
