"""Variational autoencoders: divergences, priors, scores."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad
from scipy.special import digamma, polygamma

from coffea_ad.nn.model import Batch

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
onnx = pytest.importorskip("onnx", reason="not installed: onnx")

from toys import toy_skim

from coffea_ad import nn, recipes
from coffea_ad.errors import ConfigError
from coffea_ad.nn.reconstruction.vae import gaussian_kl
from coffea_ad.scoring.scorer import OnnxScorer

GAUSSIAN = ("reconstruction", "kl", "mu2", "elbo")
DIRICHLET = ("reconstruction", "kl", "elbo", "weight")
number = st.floats(-4, 4)


def quick(**keys):
    return nn.TrainConfig(**{"epochs": 2, "samples_per_epoch": 512, "batch_size": 128, "validation_rows": 200, **keys})


def vae(score="reconstruction", seed=1, **options):
    torch.manual_seed(seed)
    return nn.VAE(8, transform=nn.QuantileNormal(8), score=score, **options)


def dirichlet(score="reconstruction", seed=1, **options):
    torch.manual_seed(seed)
    return nn.DirichletVAE(8, transform=nn.QuantileNormal(8), score=score, **options)


@pytest.fixture(scope="module")
def data():
    return toy_skim()


@pytest.fixture(scope="module")
def states(data):
    """One training of each prior, whose weights serve all scores."""
    out = {}
    for make in (vae, dirichlet):
        model = make()
        nn.fit(model, data, quick(epochs=12, samples_per_epoch=2048, learning_rate=3e-3))
        out[make] = model.state_dict()
    return out


def trained(states, make, score, **options):
    model = make(score, **options)
    model.load_state_dict(states[make])
    return model.eval()


ALL = [(vae, s) for s in GAUSSIAN] + [(dirichlet, s) for s in DIRICHLET]
IDS = [f"{make.__name__}-{s}" for make, s in ALL]

# Divergences


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(number, number, number, number), min_size=1, max_size=5))
def test_the_divergence_is_that_of_torch(values):
    a, b, m, s = torch.tensor(values, dtype=torch.float64).T
    ours = gaussian_kl(a[None], b[None], m, s)
    one = torch.distributions.Normal(a, (0.5 * b).exp())
    two = torch.distributions.Normal(m, (0.5 * s).exp())
    expected = torch.distributions.kl_divergence(one, two).sum()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    assert ours.item() >= -1e-9


def test_the_divergence_is_the_integral_of_its_definition():
    q, p = stats.norm(1.3, 0.4), stats.norm(-0.2, 1.7)
    expected, _ = quad(lambda s: q.pdf(s) * (q.logpdf(s) - p.logpdf(s)), 1.3 - 12 * 0.4, 1.3 + 12 * 0.4)
    tensor = [torch.tensor([v], dtype=torch.float64) for v in (1.3, 2 * np.log(0.4), -0.2, 2 * np.log(1.7))]
    assert gaussian_kl(tensor[0][None], tensor[1][None], *tensor[2:]).item() == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("make", [vae, dirichlet])
def test_a_posterior_equal_to_the_prior_has_no_divergence(make):
    model = make()
    kl = model.divergence(model.prior_mean[None], model.prior_log_variance[None])
    assert kl.item() == pytest.approx(0, abs=1e-6)


# The Dirichlet prior

alphas = st.lists(st.floats(0.05, 50), min_size=2, max_size=6)


@settings(max_examples=40, deadline=None)
@given(alphas)
def test_the_prior_has_the_mean_of_the_dirichlet_distribution(alpha):
    model = nn.DirichletVAE(3, latent=len(alpha), alpha=alpha, transform=torch.nn.Identity())
    mean = torch.softmax(model.prior_mean, 0).numpy()
    np.testing.assert_allclose(mean, stats.dirichlet(alpha).mean(), rtol=1e-4)
    assert model.prior_mean.sum().item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("alpha", [(20.0, 30.0, 80.0), (4.0, 4.0), (60.0, 15.0, 15.0, 40.0)])
def test_prior_moments_are_those_of_dirichlet_samples_within_the_error_of_the_approximation(alpha):
    """For log-ratios the exact moments have ψ(α) for ln α and ψ′(α) for 1/α; ln α − ψ(α) < 1/α, ψ′(α) − 1/α < 1/α²."""
    n, a = 40_000, np.array(alpha)
    r = stats.dirichlet(a).rvs(n, random_state=np.random.default_rng(1))
    s = np.log(r) - np.log(r).mean(axis=1, keepdims=True)
    model = nn.DirichletVAE(3, latent=len(a), alpha=alpha, transform=torch.nn.Identity())
    mean, variance = model.prior_mean.numpy(), model.prior_log_variance.exp().numpy()
    assert (np.abs(s.mean(0) - mean) < 5 * s.std(0) / np.sqrt(n) + (1 / a).max()).all()
    fourth = ((s - s.mean(0)) ** 4).mean(0)
    error = np.sqrt((fourth - s.var(0) ** 2) / n)
    assert (np.abs(s.var(0) - variance) < 5 * error + (1 / a**2).max()).all()
    k = len(a)
    exact = digamma(a) - digamma(a).mean(), polygamma(1, a) * (1 - 2 / k) + polygamma(1, a).sum() / k**2
    assert (np.abs(s.mean(0) - exact[0]) < 5 * s.std(0) / np.sqrt(n)).all()  # the samples are what they should be
    assert (np.abs(s.var(0) - exact[1]) < 5 * error).all()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_diagonal_prior_is_narrower_than_the_dirichlet_distribution_by_one_minus_one_over_r(k):
    """Independent log-ratios of variance (1 − 1/R)/α have differences of 2(1 − 1/R)/α; those of Dirichlet(α) have 2/α."""
    alpha, n = 500.0, 100_000
    model = nn.DirichletVAE(3, latent=k, alpha=alpha, transform=torch.nn.Identity())
    g = torch.Generator().manual_seed(1)
    s = model.prior_mean + (0.5 * model.prior_log_variance).exp() * torch.randn(n, k, generator=g)
    r = torch.softmax(s.double(), 1).numpy()
    exact = stats.dirichlet([alpha] * k)
    np.testing.assert_allclose(r.mean(0), exact.mean(), rtol=5 / np.sqrt(n * alpha / k))
    np.testing.assert_allclose(r.var(0), (1 - 1 / k) * exact.var(), rtol=5 * np.sqrt(2 / n) + 2 * k / alpha)


def test_decoded_rows_of_a_linear_decoder_are_mixtures_of_one_row_a_component():
    model = dirichlet()
    s = torch.randn(20, 3)
    corners = model.decode(60.0 * torch.eye(3))
    torch.testing.assert_close(model.decode(s), torch.softmax(s, 1) @ corners, rtol=1e-4, atol=1e-5)


# Scores


@pytest.mark.parametrize(("make", "score"), ALL, ids=IDS)
def test_scores_are_what_they_are_called(states, data, make, score):
    model = trained(states, make, score)
    z = model.transform(torch.from_numpy(data.x[:200]))
    with torch.no_grad():
        mean, log_variance = model.encode(z)
        error = ((z - model.decode(mean)) ** 2).mean(1)
        prior = torch.distributions.Normal(model.prior_mean, (0.5 * model.prior_log_variance).exp())
        posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        kl = torch.distributions.kl_divergence(posterior, prior).sum(1)
        r = torch.softmax(mean.double(), 1)[:, -1]
        expected = {
            "reconstruction": error,
            "kl": kl,
            "mu2": (mean**2).sum(1),
            "elbo": error + 2 * 0.01 / 8 * kl,
            "weight": torch.log(r / (1 - r)).float(),
        }[score]
        torch.testing.assert_close(model.energy(z), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("make", "score"), ALL, ids=IDS)
def test_scores_depend_on_no_generator(states, data, make, score):
    model = trained(states, make, score)
    torch.manual_seed(1)
    one = model.scores(data.x[:100])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    np.testing.assert_array_equal(model.scores(data.x[:100]), one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("make", [vae, dirichlet])
def test_training_and_validation_draw_from_the_given_generator_only(data, make):
    model = make()
    model.transform.fit(data.x, data.weight)
    z = model.transform(torch.from_numpy(data.x[:64]))
    before = torch.get_rng_state()

    def figures(seed):
        g = torch.Generator().manual_seed(seed)
        return model.training_loss(Batch.of(z), g)["loss"].item(), model.validate(Batch.of(z), g)["negative_elbo"]

    one, same, other = figures(1), figures(1), figures(2)
    assert one == same
    assert one[0] != other[0]
    assert one[1] != other[1]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("make", "score"), [c for c in ALL if c[1] != "weight"], ids=[i for i in IDS if "weight" not in i]
)
def test_rows_far_away_score_higher_than_the_bulk(states, data, make, score):
    model = trained(states, make, score)
    held_out = data.splits("test").x
    centre, width = np.median(data.x, axis=0), data.x.std(axis=0)
    direction = np.sign(np.random.default_rng(1).normal(size=held_out.shape))
    far = (centre + 12 * width * direction).astype(np.float32)
    bulk = model.scores(held_out)
    assert np.median(model.scores(far)) > np.quantile(bulk, 0.99)


def test_the_scores_of_very_far_rows_are_finite_and_ordered(states, data):
    far = np.median(data.x, axis=0) + np.geomspace(1e2, 1e6, 5)[:, None] * data.x.std(axis=0)
    for make, score in ALL:
        scores = trained(states, make, score).scores(far.astype(np.float32))
        assert np.isfinite(scores).all(), (make, score)
        if score in ("reconstruction", "elbo"):
            assert (np.diff(scores) > 0).all()


def test_the_weight_does_not_saturate():
    model = nn.DirichletVAE(3, latent=2, score="weight", transform=torch.nn.Identity())
    with torch.no_grad():
        model.encoder[-1].weight.mul_(100)
    g = torch.Generator().manual_seed(1)
    scores = model.score(200 * torch.randn(50, 3, generator=g))
    weight = torch.softmax(model.encode(200 * torch.randn(50, 3, generator=g))[0], 1)[:, 1]
    assert bool(((weight == 0) | (weight == 1)).any())  # in float32 the weight itself does
    assert len(scores.unique()) == 50


@pytest.mark.parametrize(("make", "score"), [(vae, "kl"), (dirichlet, "elbo"), (dirichlet, "weight")])
def test_other_scores_are_exported_as_they_stand(states, data, tmp_path, make, score):
    model = trained(states, make, score)
    card = nn.make_card(model, data, name="toy", config={}, metrics={})
    scorer = OnnxScorer(nn.export(model, tmp_path / "model.onnx", card, data.x[:200]))
    ours = model.scores(data.x)
    np.testing.assert_allclose(scorer(data.x), ours, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(scorer(data.x), scorer(data.x))
    weights = [w.name for w in onnx.load(tmp_path / "model.onnx").graph.initializer]
    assert any("decoder" in w for w in weights) == (score == "elbo")  # the others do without it


# Training


def test_the_weight_of_the_divergence_rises_during_the_warmup_and_then_is_full(data):
    model = vae(beta=0.5, warmup=4)
    model.transform.fit(data.x, data.weight)
    z = model.transform(torch.from_numpy(data.x[:64]))
    weight = []
    for epoch in range(6):
        model.begin_epoch(epoch, 6)
        out = model.training_loss(Batch.of(z), torch.Generator().manual_seed(1))
        error, kl, _ = model._terms(z, torch.Generator().manual_seed(1))
        weight.append(((out["loss"] - error) / kl).item() * 8 / 2 / 0.5)
    np.testing.assert_allclose(weight, [0.25, 0.5, 0.75, 1, 1, 1], rtol=1e-3)


def test_the_loss_is_the_bound_of_a_gaussian_decoder_with_variance_beta():
    """2β/d times −ln N(z; D(s), β) + KL, less β ln 2πβ."""
    beta, d = 0.3, 4
    torch.manual_seed(1)
    model = nn.VAE(d, hidden=(5,), latent=2, beta=beta, warmup=0, transform=torch.nn.Identity())
    z = torch.randn(10, d)
    mean, log_variance = model.encode(z)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
    decoder = torch.distributions.Normal(model.decode(mean + (0.5 * log_variance).exp() * noise), beta**0.5)
    bound = -decoder.log_prob(z).sum(1) + model.divergence(mean, log_variance)
    expected = 2 * beta / d * bound.mean() - beta * np.log(2 * np.pi * beta)
    got = model.training_loss(Batch.of(z), torch.Generator().manual_seed(3))["loss"]
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_collapsed_posterior_is_said_once_and_counts_no_active_unit(data):
    model = vae(beta=100.0, warmup=0)
    with pytest.warns(UserWarning, match="posterior has collapsed") as caught:
        history = nn.fit(model, data, quick(epochs=12, samples_per_epoch=4096, learning_rate=1e-2))
    assert len(caught) == 1
    assert history[-1]["active"] == 0
    assert history[-1]["kl"] < 0.1


def test_units_that_carry_information_are_active_and_no_warning_is_given(data):
    model = vae(warmup=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = nn.fit(model, data, quick(epochs=8, samples_per_epoch=2048))
    assert history[-1]["active"] > 0.3
    last = history[-1]
    assert last["negative_elbo"] == pytest.approx(last["reconstruction"] + 2 * 0.01 / 8 * last["kl"], rel=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: vae("mu3"), "mu2"),
        (lambda: vae("weight"), "unknown score 'weight'"),
        (lambda: dirichlet("mu2"), "unknown score 'mu2'"),
        (lambda: vae(beta=-1.0), "beta is -1"),
        (lambda: dirichlet(alpha=(1.0, 2.0)), "3 positive numbers"),
        (lambda: dirichlet(alpha=0.0), "positive"),
        (lambda: dirichlet(alpha=float("nan")), "positive"),
        (lambda: dirichlet(latent=1), "two or more"),
        (lambda: dirichlet("weight", component=3), "no component 3 among 3"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


# The recipe


def recipe(monkeypatch, data, name, **keys):
    module = recipes.load(name)
    monkeypatch.setattr("coffea_ad.nn.recipe.load_skim", lambda *_, **__: data)
    return module, module.Config(data="nowhere", train=quick(), **keys)


@pytest.mark.plot
@pytest.mark.parametrize(
    ("keys", "method"),
    [
        ({"score": "elbo", "preprocessing": {"tau2": "standard", "*": "quantile"}}, "VAE"),
        ({"prior": "dirichlet", "latent": 2, "alpha": (1.0, 0.3), "score": "weight"}, "Dirichlet VAE"),
    ],
)
def test_the_recipe_leaves_a_model(monkeypatch, data, tmp_path, keys, method):
    module, config = recipe(monkeypatch, data, "vae", **keys)
    summary = module.train(config, tmp_path / "m.onnx")
    assert {"metrics.jsonl", "checkpoint.pt", "training.png"} <= {p.name for p in (tmp_path / "m").iterdir()}
    scorer = OnnxScorer(tmp_path / "m.onnx")
    assert scorer.card.method == method
    assert scorer.card.provenance["config"]["score"] == keys["score"]
    assert summary["best"]["negative_elbo"] > 0


def test_keys_of_the_dirichlet_prior_are_refused_without_it(monkeypatch, data, tmp_path):
    module, config = recipe(monkeypatch, data, "vae", alpha=2.0)
    with pytest.raises(ConfigError, match="alpha: only prior=dirichlet"):
        module.train(config, tmp_path / "m.onnx")
