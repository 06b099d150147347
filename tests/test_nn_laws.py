"""One test per law, over all models."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from coffea_ad.nn.described import describe, remake
from coffea_ad.nn.model import Batch
from coffea_ad.nn.scorable import contributions_in

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import toy_skim

from coffea_ad import nn
from coffea_ad.errors import BadModel, SkimError
from coffea_ad.nn.energy_based.distances import DISTANCES
from coffea_ad.scoring.scorer import OnnxScorer

MODELS = [nn.AE, lambda *a, **k: nn.AE(*a, sparse=0.01, score="log_mae", activation="leaky_relu", **k)]
NAMES = ["AE", "sparse AE"]
MODELS += [lambda *a, m=m, **k: m(*a, buffer_size=500, steps=3, long_steps=5, **k) for m in (nn.NAE, nn.WNAE)]
NAMES += ["NAE", "WNAE"]
MODELS += [nn.VAE, nn.DirichletVAE]
NAMES += ["VAE", "DirichletVAE"]
MODELS += [lambda *a, latent=8, **k: nn.Flow(*a, kind="maf", hidden=(latent,), transforms=2, **k)]
NAMES += ["Flow"]
MODELS += [
    lambda *a, latent=8, **k: nn.DeepSVDD(*a, outputs=latent, **k),
    lambda *a, latent=8, **k: nn.DeepSVDDEnsemble(*a, dimensions=(5, latent), hidden=(16,), **k),
]
NAMES += ["DeepSVDD", "DeepSVDDEnsemble"]
# those that have no gradients, and are fitted once
FITTED = {
    "Neighbours": lambda *a, latent=5, **k: nn.Neighbours(*a, k=latent, bank=600, **k),
    "Mahalanobis": lambda *a, latent=5, **k: nn.Mahalanobis(*a, shrinkage=latent / 100, **k),
    "GaussianMixture": lambda *a, latent=3, **k: nn.GaussianMixture(*a, components=latent, **k),
}
by_gradients = pytest.mark.parametrize("trained", MODELS, ids=NAMES, indirect=True)


@pytest.fixture(scope="module")
def data():
    return toy_skim()


def build(make, seed=1):
    torch.manual_seed(seed)
    return make(8, transform=nn.QuantileNormal(8))


def quick(**kwargs):
    return nn.TrainConfig(
        **{"epochs": 2, "samples_per_epoch": 512, "batch_size": 128, "validation_rows": 200, **kwargs}
    )


@pytest.fixture(scope="module", params=[*MODELS, *FITTED.values()], ids=[*NAMES, *FITTED])
def trained(request, data):
    model = build(request.param)
    history = nn.fit(model, data, quick())
    return request.param, model, history


def test_a_model_can_be_made_again_from_what_its_checkpoint_says(trained, data):
    _, model, _ = trained
    description = json.loads(json.dumps(describe(model)))
    again = remake(description, {}, "checkpoint.pt")
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.eval().scores(data.x[:50]), model.scores(data.x[:50]))


def test_score_has_one_value_per_row(trained, data):
    _, model, _ = trained
    for n in (0, 1, 2, 50):
        assert model.scores(data.x[:n]).shape == (n,)


@by_gradients
def test_every_parameter_gets_a_gradient(trained, data):
    _, model, _ = trained
    z = model.transform(torch.from_numpy(data.x[:256]))
    model.zero_grad()
    model.training_loss(Batch.of(z), torch.Generator().manual_seed(1))["loss"].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_undefined_rows_have_no_score_and_do_not_touch_others(trained, data):
    _, model, _ = trained
    x = data.x[:6].copy()
    x[1, 0], x[3, 5], x[4, 7] = np.nan, np.inf, -np.inf
    got = model.scores(x)
    assert np.isnan(got).tolist() == [False, True, False, True, True, False]
    np.testing.assert_allclose(got[[0, 2, 5]], model.scores(data.x[:6])[[0, 2, 5]], rtol=1e-6)


def test_the_same_seed_gives_the_same_model(trained, data):
    make, model, history = trained
    again = build(make)
    assert nn.fit(again, data, quick()) == history
    np.testing.assert_array_equal(again.scores(data.x), model.scores(data.x))
    other = build(make, seed=2)
    nn.fit(other, data, quick(seed=2))
    no_seed = isinstance(model, nn.Mahalanobis)  # of all rows
    assert np.array_equal(other.scores(data.x), model.scores(data.x)) == no_seed


def test_two_and_two_epochs_are_four_epochs_to_the_bit(trained, data, tmp_path):
    make, _, _ = trained
    whole = build(make)
    four = nn.fit(whole, data, quick(epochs=4), tmp_path / "whole")
    half = build(make)
    nn.fit(half, data, quick(epochs=2), tmp_path / "half")
    resumed = build(make, seed=99)  # its own start must not matter
    two = nn.fit(resumed, data, quick(epochs=4), tmp_path / "half", resume=True)
    assert two == four
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    for name in ("metrics.jsonl",):
        assert (tmp_path / "whole" / name).read_text() == (tmp_path / "half" / name).read_text()


def test_resuming_without_a_checkpoint_is_refused(trained, data, tmp_path):
    make, _, _ = trained
    with pytest.raises(nn_error("ConfigError"), match="no checkpoint"):
        nn.fit(build(make), data, quick(), tmp_path, resume=True)


def test_a_checkpoint_of_something_else_is_refused(trained, data, tmp_path):
    make, _, _ = trained
    nn.fit(build(make), data, quick(), tmp_path)
    with pytest.raises(nn_error("ConfigError"), match="other data"):
        nn.fit(build(make), toy_skim(seed=5), quick(epochs=4), tmp_path, resume=True)
    with pytest.raises(nn_error("ConfigError"), match="other data"):
        nn.fit(build(lambda *a, **k: make(*a, latent=2, **k)), data, quick(epochs=4), tmp_path, resume=True)
    with pytest.raises(nn_error("ConfigError"), match="other data"):
        nn.fit(build(make), data, quick(epochs=4, learning_rate=0.1), tmp_path, resume=True)


@by_gradients
def test_divergence_is_said_in_one_sentence(trained, data):
    make, _, _ = trained
    with pytest.raises(nn_error("ConfigError"), match="diverged in epoch 0"):
        nn.fit(build(make), data, quick(learning_rate=1e20))


def test_a_second_fit_starts_afresh(trained, data):
    make, _, history = trained
    model = build(make)
    nn.fit(model, data, quick(validation_rows=20))
    again = nn.fit(model, data, quick())
    if "floor" in history[0]:
        assert again[0]["floor"] == history[0]["floor"]


def nn_error(name):
    from coffea_ad import errors

    return getattr(errors, name)


def test_the_best_epoch_is_kept(trained, data):
    """A training that ends with the best epoch of a longer one gives the same model."""
    make, _, _ = trained
    model, shorter = build(make), build(make)
    history = nn.fit(model, data, quick(epochs=5, learning_rate=0.05))
    best = int(np.argmin([row[model.criterion] for row in history]))
    again = nn.fit(shorter, data, quick(epochs=best + 1, learning_rate=0.05))
    assert again == history[: best + 1]
    kept = model.scores(data.x)
    assert np.isfinite(kept).all()
    np.testing.assert_array_equal(kept, shorter.scores(data.x))


@pytest.fixture(scope="module")
def graphs():
    """Graphs that a test has exported, which takes seconds, by the description of their model."""
    return {}


def test_torch_equals_onnx_at_any_number_of_rows_and_with_undefined_ones(trained, data, tmp_path, graphs, monkeypatch):
    _, model, history = trained
    outputs = ["score", *(["contributions"] if contributions_in(model) else [])]
    graphs[json.dumps(describe(model))] = graph = model.graph(outputs)
    monkeypatch.setattr(model, "graph", lambda _: graph)
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    path = nn.export(model, tmp_path / "model.onnx", card, data.x[:500])
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]  # one file, no external data
    assert path.stat().st_size < 5_000_000
    scorer = OnnxScorer(path)
    x = data.x.copy()
    x[7, 3] = np.nan
    for n in (0, 1, 2, 1000, len(x)):
        ours, theirs = model.scores(x[:n]), scorer(x[:n])
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
    if card.contributions is not None:
        parts, total = scorer.contributions(x), np.exp(theirs) if card.contributions.of == "exp(score)" else theirs
        np.testing.assert_allclose(parts, model.contributions_of(x), rtol=1e-3, atol=1e-4)
        size = np.nansum(np.abs(parts), axis=1)
        assert np.nanmax(np.abs(parts.sum(axis=1, dtype=float) - total) / np.maximum(size, 1e-6)) < 1e-5
        assert np.isnan(parts).all(axis=1).tolist() == np.isnan(theirs).tolist()
    assert card.calibration.n_effective > 100
    assert [r.name for r in card.regions][:1] == ["loose"]
    assert set(card.quantiles.values) == set(card.inputs[0].columns)


@pytest.mark.parametrize("trained", [MODELS[0], MODELS[-1]], ids=[NAMES[0], NAMES[-1]], indirect=True)
def test_an_export_that_disagrees_is_not_written(trained, data, tmp_path, graphs, monkeypatch):
    _, model, history = trained
    if (graph := graphs.get(json.dumps(describe(model)))) is not None:
        monkeypatch.setattr(model, "graph", lambda _: graph)
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    monkeypatch.setattr(sys.modules["coffea_ad.nn.export"], "_TOLERANCE", -1.0)
    with pytest.raises(BadModel, match="differ"):
        nn.export(model, tmp_path / "model.onnx", card, data.x[:100])
    assert list(tmp_path.iterdir()) == []


def test_too_few_rows_are_refused(trained, data):
    make, _, _ = trained
    with pytest.raises(SkimError, match="at least 10"):
        nn.fit(build(make), data.select(np.arange(len(data.x)) < 12), quick())


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_negative_weights_are_left_out_of_training(trained, data):
    """A block of rows far away, with negative weights only, must not move the transform."""
    make, _, _ = trained
    spoiled = toy_skim()
    spoiled.x[:500] = 1e4
    spoiled.weight[:500] *= -1
    model = build(make)
    nn.fit(model, spoiled, quick())
    assert model.transform.x0.reshape(8, -1)[:, 1:200].max() < 1e4


# The parts


def test_quantile_normal_makes_every_column_standard_normal(data):
    transform = nn.QuantileNormal(8).fit(data.x, data.weight)
    z = transform(torch.from_numpy(data.x)).numpy()
    for i in (0, 3, 7):
        mean = np.average(z[:, i], weights=data.weight)
        assert abs(mean) < 0.02
        assert np.sqrt(np.average((z[:, i] - mean) ** 2, weights=data.weight)) == pytest.approx(1, abs=0.03)


def test_quantile_normal_is_increasing_and_does_not_saturate(data):
    transform = nn.QuantileNormal(8).fit(data.x, data.weight)
    reach = torch.from_numpy(np.linspace(data.x.min(0) - 50, data.x.max(0) + 50, 4001).astype(np.float32))
    z = transform(reach).numpy()
    assert (np.diff(z, axis=0) > 0).all()
    assert (z[-1] > z[-200] + 0.01).all()


def test_quantile_normal_treats_both_tails_alike(data):
    one = nn.QuantileNormal(8).fit(data.x, data.weight)
    two = nn.QuantileNormal(8).fit(-data.x, data.weight)
    x = torch.from_numpy(np.r_[data.x, 3 * data.x])
    np.testing.assert_allclose(two(-x).numpy(), -one(x).numpy(), rtol=0, atol=0.02)
    torch.testing.assert_close(two.low, -one.high, rtol=0, atol=1e-3)


def test_quantile_normal_keeps_training_rows_in_reach(data):
    """Rows of little weight beyond the last quantile lie on the tails, which must not be steep."""
    transform = nn.QuantileNormal(8).fit(data.x, data.weight)
    assert transform(torch.from_numpy(data.x)).abs().max() < 8


def test_tied_values_share_the_middle_of_their_ranks():
    x = np.r_[np.zeros(400), np.linspace(1, 2, 600)].astype(np.float32)[:, None]
    transform = nn.QuantileNormal(1).fit(x, np.ones(1000))
    from scipy.special import ndtri

    assert transform(torch.zeros(1, 1)).item() == pytest.approx(ndtri(0.2), abs=0.02)


def test_a_constant_column_is_refused():
    with pytest.raises(SkimError, match="column 0"):
        nn.QuantileNormal(1).fit(np.ones((50, 1), np.float32), np.ones(50))


def test_the_wasserstein_gradient_reaches_the_network_through_the_chain():
    """A gradient that is cut somewhere is exactly zero; finite differences say what it should be."""
    torch.manual_seed(0)
    model = nn.WNAE(2, hidden=(4,), latent=1, transform=torch.nn.Identity(), buffer_size=64, steps=4).double()
    model.start(Batch.of(torch.randn(64, 2, dtype=torch.float64)), torch.Generator().manual_seed(1))
    model.chains = model.chains.double()
    z = torch.randn(32, 2, dtype=torch.float64)
    start = torch.randn(32, 2, dtype=torch.float64)

    def loss():
        g = torch.Generator().manual_seed(5)
        return DISTANCES["w2_squared"](z, model.run_chains(start, g, steps=4, grad_steps=None).points, generator=g)

    weight = model.decoder[0].weight
    loss().backward()
    gradient = weight.grad[0, 0].item()
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0] += sign * step
        values.append(loss().item())
        with torch.no_grad():
            weight[0, 0] -= sign * step
    assert gradient != 0
    assert gradient == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-9)


def test_more_chains_than_rows_of_a_batch_are_needed(data):
    with pytest.raises(nn_error("ConfigError"), match="buffer_size is 100, but a batch has 128"):
        nn.fit(build(lambda *a, **k: nn.WNAE(*a, buffer_size=100, **k)), data, quick())


def test_rows_are_drawn_in_proportion_to_their_weights():
    from coffea_ad.nn.training.batches import sample_rows

    weight = torch.tensor([0.0, 1.0, 3.0, 0.0], dtype=torch.float64)
    drawn = sample_rows(weight, 40_000, torch.Generator().manual_seed(1))
    counts = np.bincount(drawn.numpy(), minlength=4)
    assert counts[0] == counts[3] == 0
    assert counts[2] / counts[1] == pytest.approx(3, rel=0.05)


def test_the_excess_falls_while_the_chains_approach_the_data(data):
    model = build(lambda *a, **k: nn.WNAE(*a, buffer_size=2000, long_steps=0, **k))
    history = nn.fit(model, data, quick(epochs=12, samples_per_epoch=2048, learning_rate=2e-3))
    assert history[-1]["excess"] < 0.7 * history[0]["excess"]
    assert history[0]["floor"] > 0
    for row in history:
        assert row["excess"] == pytest.approx(row["wasserstein"] - (row["floor"] + row["floor_model"]) / 2)
