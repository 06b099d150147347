"""Energies, chains, and what is said of how good they are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coffea_ad.nn.model import Batch

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from scipy.stats import truncnorm
from toys import toy_skim

from coffea_ad import nn
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.energy_based.diagnostics import long_run
from coffea_ad.nn.energy_based.samplers import langevin

ACTIVATIONS = ["relu", "silu", "leaky_relu", "prelu"]


def seeded(n=1):
    return torch.Generator().manual_seed(n)


def small(cls=nn.WNAE, features=8, **options):
    torch.manual_seed(1)
    return cls(
        features,
        **{
            "hidden": (6,),
            "latent": 3,
            "transform": torch.nn.Identity(),
            "buffer_size": 300,
            "long_steps": 0,
            **options,
        },
    )


def gaussian(scale):
    return lambda x: (((x / scale) ** 2).sum(1) / 2, x / scale**2)


def chains_on(scale, n=20_000, **options):
    wall = torch.full_like(scale, 9.0)
    known = {"steps": 300, "temperature": 1.0, "low": -wall, "high": wall, "generator": seeded(), **options}
    return langevin(gaussian(scale), torch.zeros(n, len(scale)), **known)


# The energy


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_written_out_gradient_is_that_of_the_energy(activation):
    model = small(activation=activation).double()
    z = torch.randn(20, 8, dtype=torch.float64, generator=seeded(), requires_grad=True)
    energy, gradient = model.energy_and_gradient(z)
    torch.testing.assert_close(energy, model.energy(z))
    torch.testing.assert_close(gradient, torch.autograd.grad(model.energy(z).sum(), z)[0])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_of_the_gradient_reaches_every_weight(activation):
    model = small(activation=activation).double()
    z = torch.randn(20, 8, dtype=torch.float64, generator=seeded(), requires_grad=True)
    weights = [p for n, p in model.named_parameters() if n.endswith("weight")]
    ours = torch.autograd.grad(model.energy_and_gradient(z)[1].square().sum(), weights)
    (slope,) = torch.autograd.grad(model.energy(z).sum(), z, create_graph=True)
    for mine, theirs in zip(ours, torch.autograd.grad(slope.square().sum(), weights), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_an_activation_whose_slope_is_unknown_is_refused():
    model = small()
    model.encoder[1] = torch.nn.Tanh()
    with pytest.raises(ConfigError, match="Tanh"):
        model.energy_and_gradient(torch.zeros(2, 8))


# Chains


@pytest.mark.parametrize("temperature", [1.0, 0.25])
@pytest.mark.parametrize("scaled", [False, True])
def test_mala_has_the_variance_of_the_target(temperature, scaled):
    scale = torch.tensor([1.0, 0.5, 0.3])
    metric = torch.diag(scale) if scaled else None
    noise = (0.8 if scaled else 0.3) * temperature**0.5
    got = chains_on(scale, noise=noise, temperature=temperature, metropolis=True, metric=metric)
    np.testing.assert_allclose(got.points.var(0) / (temperature * scale**2), 1.0, atol=0.03)
    assert 0.5 < got.acceptance < 0.99


def test_without_a_metropolis_step_the_variance_is_off_by_the_known_amount():
    """x′ = (1 − η)x + s n has the variance s²/(1 − (1 − η)²) = 1/(1 − η/2), where the drift is too small to be tamed."""
    noise = 0.5
    got = chains_on(torch.ones(2), noise=noise)
    np.testing.assert_allclose(got.points.var(0), 1 / (1 - noise**2 / 4), rtol=0.04)
    assert got.acceptance == 1


def test_chains_are_accepted_one_by_one():
    got = chains_on(torch.ones(1), n=2000, noise=2.0, steps=1, metropolis=True)
    moved = (got.points[:, 0] != 0).double().mean().item()
    assert 0.2 < moved < 0.9
    assert moved == pytest.approx(got.acceptance.item(), abs=1e-6)


def test_mala_in_a_box_gives_the_truncated_density():
    wall = torch.ones(1)
    got = chains_on(torch.ones(1), noise=0.5, low=-wall, high=wall, metropolis=True)
    assert got.points.var().item() == pytest.approx(truncnorm(-1, 1).var(), rel=0.03)


@pytest.mark.parametrize("metropolis", [False, True])
def test_chains_stay_in_their_box_and_do_not_pile_up_on_its_walls(metropolis):
    wall = torch.full((2,), 0.5)
    points = chains_on(torch.ones(2), n=3000, noise=0.4, steps=30, low=-wall, high=wall, metropolis=metropolis).points
    assert (points.abs() <= 0.5).all()
    assert (points.abs() > 0.4999).double().mean() < 0.005


def test_without_an_energy_the_density_in_the_box_is_flat():
    wall = torch.ones(1)
    points = langevin(
        lambda x: (0 * x.sum(1), 0 * x), torch.zeros(5000, 1), steps=200, noise=0.3, temperature=1.0, low=-wall, high=wall,
        generator=seeded(),
    ).points  # fmt: skip
    counts = np.histogram(points.numpy(), 10, (-1, 1))[0]
    assert counts.min() > 400  # no holes
    assert counts.max() < 600  # no atoms


def test_the_gradient_flows_through_as_many_steps_as_asked_for():
    model = small()
    z = torch.randn(50, 8, generator=seeded())

    def gradient(steps):
        model.zero_grad()
        points = model.run_chains(z, seeded(), steps=4, grad_steps=steps).points
        if not points.requires_grad:
            return None
        points.square().sum().backward()
        return model.encoder[0].weight.grad.clone()

    whole, four, one = gradient(None), gradient(4), gradient(1)
    torch.testing.assert_close(whole, four)
    assert one.abs().sum() > 0
    assert not torch.allclose(one, whole)
    assert gradient(0) is None


def test_the_gradient_flows_through_the_last_step_of_mala():
    model = small(metropolis=True)
    z = torch.randn(50, 8, generator=seeded())
    for steps in (1, 2, None):
        model.zero_grad()
        points = model.run_chains(z, seeded(), steps=4, grad_steps=steps).points
        points.square().sum().backward()
        assert model.encoder[0].weight.grad.abs().sum() > 0, steps


def test_the_points_do_not_depend_on_how_far_the_gradient_flows():
    model = small()
    z = torch.randn(50, 8, generator=seeded())
    ends = [model.run_chains(z, seeded(), steps=5, grad_steps=k).points for k in (None, 0, 2)]
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


def test_a_steep_energy_does_not_throw_chains_out():
    """Without taming the step s²/2 ∇E/T = 50 x would leap further each time."""
    scale = torch.full((2,), 0.01)
    points = chains_on(
        scale, n=500, noise=0.1, steps=300, low=-torch.full((2,), 1e6), high=torch.full((2,), 1e6)
    ).points
    assert points.abs().max() < 3


# Where chains start


@pytest.mark.parametrize("cls", [nn.NAE, nn.WNAE])
@pytest.mark.parametrize("sampling", ["cd", "pcd", "omi"])
def test_every_start_of_the_chains_trains(cls, sampling):
    model = small(cls, sampling=sampling, steps=3, transform=nn.QuantileNormal(8))
    history = nn.fit(
        model, toy_skim(), nn.TrainConfig(epochs=2, samples_per_epoch=512, batch_size=128, validation_rows=200)
    )
    assert all(np.isfinite(list(row.values())).all() for row in history)


@pytest.mark.parametrize(("sampling", "width"), [("pcd", 8), ("omi", 3)])
def test_the_chains_are_part_of_the_state_and_move(sampling, width):
    model = small(sampling=sampling)
    model.start(Batch.of(torch.randn(500, 8, generator=seeded())), seeded())
    before = model.state_dict()["chains"].clone()
    assert before.shape == (300, width)
    model.training_loss(Batch.of(torch.randn(128, 8, generator=seeded())), seeded(2))
    moved = (model.state_dict()["chains"] != before).any(dim=1).sum().item()
    assert moved == 128


def test_chains_that_start_from_data_leave_the_buffer_alone():
    model = small(sampling="cd")
    model.start(Batch.of(torch.randn(500, 8, generator=seeded())), seeded())
    before = model.chains.clone()
    model.training_loss(Batch.of(torch.randn(128, 8, generator=seeded())), seeded(2))
    assert torch.equal(model.chains, before)


def test_chains_get_longer_on_the_way():
    model = small(steps=(2, 10))
    lengths = []
    for epoch in range(5):
        model.begin_epoch(epoch, 5)
        lengths.append(model.steps)
    assert lengths == [2, 4, 6, 8, 10]


def test_the_step_adapts_to_the_acceptance():
    model = small(metropolis=True, noise=3.0)
    model.start(Batch.of(torch.randn(500, 8, generator=seeded())), seeded())
    for k in range(100):
        model.training_loss(Batch.of(torch.randn(64, 8, generator=seeded(k))), seeded(k))
    assert model.noise.item() < 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sampling": "pdc"}, "pcd"), ({"distance": "w2"}, "w2_squared"), ({"buffer_size": 10}, "buffer_size is 10")],
)
def test_wrong_options_end_in_one_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        small(**options).training_loss(Batch.of(torch.zeros(64, 8)), seeded())


def test_a_larger_contrast_of_energies_is_a_larger_loss_of_the_nae():
    """The gradient lowers the energy of data and raises that of chains."""
    model = small(nn.NAE, energy_weight=0.0, sampling="cd", steps=2)
    z = torch.randn(200, 8, generator=seeded())
    figures = model.training_loss(Batch.of(z), seeded())
    assert figures["loss"].item() == pytest.approx(
        (figures["energy_data"] - figures["energy_model"]).item() / model.temperature, rel=1e-4
    )


def test_the_gradient_of_the_nae_does_not_flow_through_the_chain():
    model = small(nn.NAE, energy_weight=0.0, sampling="cd", steps=3)
    z = torch.randn(200, 8, generator=seeded())
    model.training_loss(Batch.of(z), seeded())["loss"].backward()
    got = model.encoder[0].weight.grad.clone()
    model.zero_grad()
    chains = model.run_chains(z, seeded(), grad_steps=0).points
    ((model.energy(z).mean() - model.energy(chains).mean()) / model.temperature).backward()
    torch.testing.assert_close(got, model.encoder[0].weight.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_a_nae_takes_the_weights_of_an_autoencoder_over(spectral_norm):
    torch.manual_seed(3)
    autoencoder = nn.AE(8, hidden=(6,), latent=3, transform=torch.nn.Identity())
    model = small(nn.NAE, spectral_norm=spectral_norm)
    model.load_weights_from(autoencoder)
    ours, theirs = model.encoder[0].weight.detach(), autoencoder.encoder[0].weight.detach()
    torch.testing.assert_close(ours / ours.norm(), theirs / theirs.norm(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.decoder[-1].weight, autoencoder.decoder[-1].weight)
    with pytest.raises(ConfigError, match="other layers"):
        model.load_weights_from(nn.AE(8, hidden=(5,), latent=3, transform=torch.nn.Identity()))


def test_log_cosh_is_finite_where_the_energies_run_away():
    model = small(nn.NAE, log_cosh=True, energy_weight=0.0, sampling="cd", steps=2)
    loss = model.training_loss(Batch.of(1e3 * torch.randn(50, 8, generator=seeded())), seeded())["loss"]
    assert torch.isfinite(loss)


def test_spectral_norm_bounds_the_layers_and_survives_the_export(tmp_path):
    data = toy_skim()
    model = small(nn.NAE, transform=nn.QuantileNormal(8), spectral_norm=True, steps=3)
    history = nn.fit(model, data, nn.TrainConfig(epochs=2, samples_per_epoch=512, validation_rows=200))
    assert torch.linalg.matrix_norm(model.encoder[0].weight.detach(), 2) == pytest.approx(1.0, abs=0.1)
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    assert nn.export(model, tmp_path / "nae.onnx", card).is_file()


def test_a_checkpoint_with_other_settings_is_refused(tmp_path):
    config = nn.TrainConfig(epochs=1, samples_per_epoch=512, validation_rows=200)
    nn.fit(small(transform=nn.QuantileNormal(8), noise=0.2), toy_skim(), config, tmp_path)
    more = config.model_copy(update={"epochs": 2})
    with pytest.raises(ConfigError, match="other settings"):
        nn.fit(small(transform=nn.QuantileNormal(8), contrast=1.0), toy_skim(), more, tmp_path, resume=True)
    same = small(transform=nn.QuantileNormal(8), noise=0.2)
    assert len(nn.fit(same, toy_skim(), more, tmp_path, resume=True)) == 2


def test_averaged_weights_are_judged_and_the_training_goes_on_with_its_own():
    data = toy_skim()
    config = nn.TrainConfig(epochs=2, samples_per_epoch=512, validation_rows=200, average=0.9)
    plain, averaged = small(transform=nn.QuantileNormal(8)), small(transform=nn.QuantileNormal(8))
    one = nn.fit(plain, data, config.model_copy(update={"average": 0.0}))
    two = nn.fit(averaged, data, config)
    assert [row["loss"] for row in one] == [row["loss"] for row in two]
    assert one[1]["reconstruction"] != two[1]["reconstruction"]
    assert two[0]["floor"] == one[0]["floor"] == two[1]["floor"]


def test_an_epoch_that_diverges_is_undone_at_half_the_rate(tmp_path):
    class Leaps(nn.AE):
        """Diverges while the rate is above a quarter of the first."""

        def diverged(self, figures):
            return self.rate() > 3e-4

    model = Leaps(8, transform=nn.QuantileNormal(8))
    rates = iter([1e-3, 5e-4, 1.25e-4, 1.25e-4, 1.25e-4])
    model.rate = lambda: next(rates)
    config = nn.TrainConfig(epochs=2, samples_per_epoch=512, learning_rate=1e-3, validation_rows=200)
    history = nn.fit(model, toy_skim(), config, tmp_path)
    assert [row["epoch"] for row in history] == [0, 1]
    assert history[0]["learning_rate"] < 1e-3
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == history


# The long run


def gaussian_skim(n=4000):
    skim = toy_skim(n=n)
    skim.x[:] = np.random.default_rng(3).normal(size=skim.x.shape)
    skim.weight[:] = 1.0
    return skim


def normal_model(temperature):
    """E(z) = |z|²/d: with T = 2/d the density is that of N(0, 1)."""
    model = small(temperature=temperature, noise=0.15, smear=0.0)
    for layer in (model.decoder[-1],):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    model.low.fill_(-6)
    model.high.fill_(6)
    model.chains.copy_(torch.randn(model.chains.shape, generator=seeded()))
    return model


def test_a_perfect_model_has_no_long_run_excess():
    got = long_run(normal_model(2 / 8), gaussian_skim(), steps=(0, 200), rows=200)
    for name in ("buffer", "data"):
        for value, error in zip(got[name], got[f"{name}_error"], strict=True):
            assert abs(value) < max(4 * error, 0.35), name
    assert abs(got["memory"]) < 0.5
    assert got["floor"] > 1


def test_a_wrong_model_betrays_itself_in_the_long_run_only():
    """Chains that begin at data look right at once, whatever the energy is."""
    got = long_run(normal_model(8 / 8), gaussian_skim(), steps=(0, 200), rows=200)
    assert abs(got["data"][0]) < 0.35
    assert got["data"][1] > 2
    assert got["buffer"][1] > 2


def test_the_long_run_needs_rows():
    with pytest.raises(SkimError, match="60"):
        long_run(normal_model(0.25), toy_skim(n=100), steps=(0, 2), rows=20)
