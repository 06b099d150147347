"""What the settings of energy models do: units, walls, smearing, terms of the loss, schedules."""

from __future__ import annotations

import json

import numpy as np
import pytest

from coffea_ad.nn.model import Batch

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import toy_skim

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.nn.training.loop import _record, _Training


def seeded(n=1):
    return torch.Generator().manual_seed(n)


def quick(**options):
    return nn.TrainConfig(
        **{"epochs": 2, "samples_per_epoch": 512, "batch_size": 128, "validation_rows": 400, **options}
    )


def small(cls=nn.WNAE, transform=None, **options):
    torch.manual_seed(1)
    defaults = {"hidden": (8,), "latent": 3, "steps": 4, "long_steps": 5, "buffer_size": 600}
    return cls(8, transform=transform or nn.Standard(8), **{**defaults, **options})


def smooth_skim():
    """Rows without an atom or outliers."""
    skim = toy_skim()
    rng = np.random.default_rng(2)
    skim.x[:] = rng.normal(size=skim.x.shape) @ rng.normal(size=(8, 8))
    return skim


# Units


@pytest.mark.parametrize("metric", ["data", "unit"])
@pytest.mark.parametrize("factor", [2.0**-10, 2.0**10])
@pytest.mark.parametrize("sampling", ["pcd", "cd", "omi"])
def test_a_training_does_not_depend_on_the_unit_of_its_inputs(metric, factor, sampling):
    one, two = smooth_skim(), smooth_skim()
    two.x[:] *= np.float32(factor)
    options = {"metric": metric, "sampling": sampling}
    histories = [nn.fit(small(transform=nn.Unchanged(8), **options), data, quick()) for data in (one, two)]
    assert histories[0] == histories[1]  # to the bit: the factor is a power of 2


@pytest.mark.parametrize("cls", [nn.WNAE, nn.NAE])
@pytest.mark.parametrize(("factor", "shift"), [(1e3, 5e3), (1e-3, -0.5)])
def test_inputs_far_from_unit_variance_do_not_diverge(cls, factor, shift):
    data = smooth_skim()
    data.x[:] = factor * data.x + np.float32(shift)
    history = nn.fit(small(cls, transform=nn.Unchanged(8)), data, quick(epochs=4, learning_rate=5e-3))
    assert [row["epoch"] for row in history] == [0, 1, 2, 3]  # none undone until it gave up
    assert history[-1]["learning_rate"] == 5e-3
    assert history[-1]["excess"] < 8


def test_constant_columns_of_one_among_wide_ones_are_no_obstacle():
    data = smooth_skim()
    data.x[:, 3] = 2.5
    history = nn.fit(small(transform=nn.Unchanged(8)), data, quick())
    assert np.isfinite(history[-1]["excess"])


def test_a_nae_goes_on_from_the_autoencoder_whatever_the_units():
    torch.manual_seed(3)
    z = 40 * torch.randn(500, 8, generator=seeded()) + 100
    autoencoder = nn.AE(8, hidden=(8,), latent=3, activation="silu", transform=torch.nn.Identity())
    model = small(nn.NAE, transform=torch.nn.Identity())
    model.load_weights_from(autoencoder)
    model.start(Batch.of(z), seeded())
    np.testing.assert_allclose((model.energy(z) * model.unit**2).detach(), autoencoder.energy(z).detach(), rtol=1e-3)
    torch.testing.assert_close(model.reconstruct(z), autoencoder.reconstruct(z), rtol=1e-3, atol=1e-2)


def test_samples_come_in_transformed_units():
    z = 40 * torch.randn(2000, 8, generator=seeded()) + 100
    model = small(transform=torch.nn.Identity())
    model.start(Batch.of(z), seeded())
    points = model.sample(500, seeded())
    assert points.mean().item() == pytest.approx(100, abs=3)
    assert points.std().item() == pytest.approx(40, rel=0.05)
    torch.testing.assert_close(model.sample(50, seeded(), z=z), z[:50], rtol=1e-5, atol=1e-3)


def test_fresh_latent_chains_begin_where_data_are_encoded():
    model = small(sampling="omi", transform=torch.nn.Identity())
    with torch.no_grad():
        model.encoder[-1].weight.mul_(30)
        model.encoder[-1].bias.add_(100)
    z = torch.randn(2000, 8, generator=seeded())
    model.start(Batch.of(z), seeded())
    latent = model.encoder(model.scaled(z)).detach()
    torch.testing.assert_close(model.chains.mean(0), latent.mean(0), rtol=0, atol=0.2 * latent.std().item())
    torch.testing.assert_close(model.chains.std(0), latent.std(0), rtol=0.15, atol=0)


# Walls


def test_chains_stay_within_the_bounds_that_are_set():
    model = small(transform=nn.QuantileNormal(8), bounds=(-0.5, 0.5), long_steps=0)
    nn.fit(model, smooth_skim(), quick(epochs=1))
    assert model.sample(500, seeded(), steps=20).abs().max() <= 0.5 + 1e-5
    free = small(transform=nn.QuantileNormal(8), long_steps=0)
    nn.fit(free, smooth_skim(), quick(epochs=1))
    assert free.sample(500, seeded(), steps=20).abs().max() > 1


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match="bounds are 3 and -3; the lower one must come first"):
        small(bounds=(3, -3))


# Terms of the loss


@pytest.mark.parametrize(
    ("cls", "options", "names"),
    [
        (nn.WNAE, {}, {"wasserstein"}),
        (nn.WNAE, {"contrast": 1.0, "energy_weight": 1e-3}, {"wasserstein", "contrast", "energy"}),
        (nn.NAE, {}, {"contrast", "energy"}),
        (nn.NAE, {"energy_weight": 0.0, "smear": 0.2}, {"contrast"}),
    ],
)
def test_the_metrics_have_the_share_of_each_term_in_the_gradient(cls, options, names, tmp_path):
    nn.fit(small(cls, **options), smooth_skim(), quick(), tmp_path)
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        shares = {k.removeprefix("share_"): v for k, v in json.loads(line).items() if k.startswith("share_")}
        assert set(shares) == names
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert min(shares.values()) > 0


def test_shares_are_those_of_the_gradients():
    model = small(contrast=2.0, energy_weight=0.1, sampling="cd", smear=0.0)
    z = torch.randn(200, 8, generator=seeded())
    shares = model.training_loss(Batch.of(z), seeded())
    terms, _ = model.terms(model.scaled(z), seeded())
    sizes = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(model.parameters()), retain_graph=True, allow_unused=True)
        sizes[name] = torch.cat([g.flatten() for g in gradients if g is not None]).norm()
    for name, size in sizes.items():
        assert shares[f"share_{name}"].item() == pytest.approx((size / sum(sizes.values())).item(), rel=1e-4)


def test_the_loss_of_the_shipped_wnae_is_the_distance_and_nothing_else():
    model = small(sampling="cd", smear=0.0)
    z = torch.randn(100, 8, generator=seeded())
    loss = model.training_loss(Batch.of(z), seeded())["loss"]
    chains = model.run_chains(z, seeded()).points
    torch.testing.assert_close(loss, nn.DISTANCES["w2_squared"](z, chains, generator=seeded()))


def test_a_wnae_with_the_contrast_alone_is_a_nae_on_smeared_data():
    """What makes the settings that were once shipped as a WNAE those of `nae/smeared.yaml`."""
    wnae, nae = small(contrast=1.0, energy_weight=1e-3), small(nn.NAE, smear=0.2, energy_weight=1e-3)
    z = torch.randn(128, 8, generator=seeded())
    for model in (wnae, nae):
        model.start(Batch.of(z), seeded())
    terms = [model.terms(model.smeared(model.scaled(z), g), g)[0] for model, g in ((wnae, seeded(2)), (nae, seeded(2)))]
    for name in ("contrast", "energy"):
        torch.testing.assert_close(terms[0][name], terms[1][name])


# Smearing


@pytest.mark.parametrize("cls", [nn.WNAE, nn.NAE])
def test_the_excess_is_measured_against_data_and_against_smeared_data(cls):
    history = nn.fit(small(cls, smear=0.4), smooth_skim(), quick())
    assert small(cls, smear=0.4).criterion == "long_run_excess_smeared"
    assert small(cls, smear=0.0).criterion == "long_run_excess"
    assert small(cls, smear=0.4, long_steps=0).criterion == "excess_smeared"
    for prefix in ("", "long_run_"):
        for kind in ("", "_smeared"):
            assert history[0][f"{prefix}excess{kind}_error"] > 0


def test_smeared_data_have_no_excess_against_smeared_data():
    """Data with smearing for chains: a perfect model of what is trained on, and not of the data."""
    model = small(transform=torch.nn.Identity(), smear=0.5, steps=1, long_steps=0, noise=1e-4)
    g = seeded(4)
    narrow = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1])
    data, more = (narrow * torch.randn(2000, 8, generator=g) for _ in range(2))
    model.start(Batch.of(data), seeded())
    model.low.fill_(-9)
    model.high.fill_(9)
    model.chains.copy_(model.smeared(model.scaled(more), g)[torch.randint(2000, (600,), generator=g)])
    figures = model.validate(Batch.of(data[:400]), seeded())
    assert abs(figures["excess_smeared"]) < 4 * figures["excess_smeared_error"] + 0.05
    assert figures["excess"] > figures["excess_smeared"] + 0.2


# Schedules


@pytest.mark.parametrize("offset", [0.0, -5.0, -1.0])
def test_a_plateau_is_seen_whatever_the_sign_of_the_criterion(offset):
    """Ten epochs of steady progress keep the rate; then noise of less than a thousandth lowers it."""
    config = quick(schedule="plateau", plateau_patience=3, learning_rate=1.0, epochs=100)
    training = _Training(small(), config, torch.device("cpu"))
    name = training.model.criterion
    values = [1.0 - 0.1 * k + offset for k in range(10)]
    for value in values:
        _record(training, {"epoch": 0.0, name: value})
    assert training.optimizer.param_groups[0]["lr"] == 1.0
    for k in range(6):
        _record(training, {"epoch": 0.0, name: values[-1] - 1e-4 * abs(values[-1]) * (k % 2)})
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.8)


def test_no_autoencoder_is_trained_before_a_nae_that_wants_none(tmp_path):
    from coffea_ad import recipes
    from coffea_ad.config import load_config

    module = recipes.load("nae")
    smeared = load_config(module.Config, recipes.find_config("nae/smeared.yaml"), ["data=x"])
    assert smeared.warmup is None
    assert load_config(module.Config, recipes.find_config("nae/svj.yaml"), ["data=x"]).warmup.epochs == 20
    assert smeared.smear == 0.2
