"""The excess over the distance of finite samples: 0 for a perfect model, with an error, and never better than that."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import toy_skim

from coffea_ad import nn
from coffea_ad.nn.energy_based.distances import w2_squared
from coffea_ad.nn.energy_based.excess import GROUPS, excess, floors, groups, repeated_like
from coffea_ad.nn.training.batches import sample_evenly


def seeded(n=1):
    return torch.Generator().manual_seed(n)


def gaussians(n, generator, *, scale=1.0, repeated=False):
    """Groups of rows, as they are or drawn from themselves with replacement."""
    out = [scale * torch.randn(n, 8, generator=generator) for _ in range(GROUPS)]
    return [x[torch.randint(n, (n,), generator=generator)] for x in out] if repeated else out


def repeats(n, times, **options):
    """Excess and error of many independent pairs of data and model."""
    g = seeded()
    scale = options.pop("scale", 1.0)
    found = []
    for _ in range(times):
        data = gaussians(n, g, **options)
        found.append(excess(data, gaussians(n, g, scale=scale), floors(data)))
    return np.array([f.value for f in found]), np.array([f.error for f in found])


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("n", [20, 100])
def test_a_perfect_model_has_no_excess_in_the_mean_and_the_error_is_right(n, repeated):
    """Rows that come several times put two samples of data further apart; a model is not to gain by that."""
    value, error = repeats(n, 60, repeated=repeated)
    spread = value.std(ddof=1)
    assert abs(value.mean()) < 3 * spread / 60**0.5
    assert 0.6 * spread < np.sqrt((error**2).mean()) < 3 * spread


@pytest.mark.parametrize("scale", [0.7, 1.4])
@pytest.mark.parametrize("n", [20, 100])
def test_neither_a_narrower_nor_a_wider_model_seems_better_than_a_perfect_one(scale, n):
    value, error = repeats(n, 20, scale=scale)
    assert value.mean() > 3 * error.mean() / 20**0.5
    assert value.mean() == pytest.approx(8 * (1 - scale) ** 2, rel=0.6)


def test_the_distance_alone_would_prefer_a_narrower_model():
    """Why half of the model's own distance is taken off."""
    g = seeded()
    data, perfect, narrow = gaussians(100, g), gaussians(100, g), gaussians(100, g, scale=0.7)
    table = floors(data)
    assert excess(data, narrow, table).distance < excess(data, perfect, table).distance
    assert excess(data, narrow, table).value > excess(data, perfect, table).value


def test_excess_is_made_of_the_distances_that_it_reports():
    g = seeded()
    data, model = gaussians(50, g), gaussians(50, g, scale=2.0)
    got = excess(data, model, floors(data))
    pairs = [(i, j) for i in range(GROUPS) for j in range(i)]
    assert got.distance == pytest.approx(np.mean([w2_squared(x, y).item() for x, y in zip(data, model, strict=True)]))
    assert got.floor == pytest.approx(np.mean([w2_squared(data[i], data[j]).item() for i, j in pairs]))
    assert got.floor_model == pytest.approx(np.mean([w2_squared(model[i], model[j]).item() for i, j in pairs]))
    assert got.value == pytest.approx(got.distance - 0.5 * (got.floor + got.floor_model))


def test_several_samples_of_the_model_lower_the_error():
    g = seeded()
    one, many = [], []
    for _ in range(30):
        data, model = gaussians(10, g), gaussians(160, g)
        table = floors(data)
        one.append(excess(data, [y[:10] for y in model], table).value)
        many.append(excess(data, model, table).value)
    assert np.std(many) < 0.8 * np.std(one)
    assert abs(np.mean(many)) < 4 * np.std(many) / 30**0.5


def test_points_are_repeated_as_rows_are():
    rows = torch.tensor([[1.0], [2.0], [1.0], [3.0], [2.0], [1.0]])
    points = torch.arange(6.0)[:, None]
    assert repeated_like(points, rows)[:, 0].tolist() == [0, 1, 0, 3, 1, 0]


# Held-out rows


def test_no_row_is_drawn_twice_if_all_weigh_alike():
    drawn = sample_evenly(torch.ones(500, dtype=torch.float64), 500, seeded())
    assert sorted(drawn.tolist()) == list(range(500))


def test_rows_are_drawn_as_often_as_their_weight_says_or_once_more_or_less():
    weight = torch.from_numpy(np.random.default_rng(1).exponential(size=300))
    expected = (200 * weight / weight.sum()).numpy()
    counts = np.array([np.bincount(sample_evenly(weight, 200, seeded(k)).numpy(), minlength=300) for k in range(400)])
    assert (np.abs(counts - expected) < 1 + 1e-9).all()
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.12)


class Normal(nn.WNAE):
    """E(u) = |u|²/d: at T = 2/d the density is that of independent standard normal inputs."""

    def __init__(self, temperature=0.25, **options):
        super().__init__(8, hidden=(4,), latent=2, transform=torch.nn.Identity(), temperature=temperature, steps=1,
                         smear=0.0, long_steps=0, buffer_size=10_000, **options)  # fmt: skip
        torch.nn.init.zeros_(self.decoder[-1].weight)
        torch.nn.init.zeros_(self.decoder[-1].bias)
        self.low.fill_(-8)
        self.high.fill_(8)


def normal_skim(n, weight, seed):
    skim = toy_skim(n=n)
    skim.x[:] = np.random.default_rng(seed).normal(size=skim.x.shape)
    skim.weight[:] = weight
    return skim


@pytest.mark.parametrize("uneven", [False, True])
def test_a_perfect_model_has_no_excess_on_the_held_out_rows_of_a_training(uneven):
    from coffea_ad.nn.training.batches import TrainingRows, held_out_rows

    model, values = Normal(), []
    for seed in range(8):
        weight = np.random.default_rng(seed).exponential(size=2400) ** 1.5 if uneven else 1.0
        rows = TrainingRows(normal_skim(2400, weight, seed), "validation", torch.device("cpu"))
        rows.transform(model)
        held_out = held_out_rows(rows, 2000, seeded(seed))
        model.chains.copy_(torch.randn(model.chains.shape, generator=seeded(100 + seed)))
        model.floors.zero_()
        values.append(model.validate(held_out, seeded(seed))["excess"])
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / 8**0.5
    assert abs(np.mean(values)) < 0.06 if not uneven else abs(np.mean(values)) < 0.15


def test_few_effective_rows_are_said_and_the_error_stands_in_the_metrics():
    weight = np.random.default_rng(1).exponential(size=2400) ** 4
    config = nn.TrainConfig(epochs=1, samples_per_epoch=256, validation_rows=2000)
    with pytest.warns(UserWarning, match=r"validation rows have an effective number of \d+: below 500"):
        history = nn.fit(Normal(), normal_skim(2400, weight, 1), config)
    assert history[0]["excess_error"] > 0.02
    few = nn.long_run(Normal(), normal_skim(2400, weight, 1), steps=(0, 2))
    assert few["rows"] < 100
    assert min(few["data_error"]) > 0.02


def test_enough_rows_are_not_warned_of():
    nn.fit(Normal(), normal_skim(2400, 1.0, 1), nn.TrainConfig(epochs=1, samples_per_epoch=256, validation_rows=400))


def test_the_long_run_uses_all_rows_that_count():
    assert nn.long_run(Normal(), normal_skim(2400, 1.0, 1), steps=(0,))["rows"] == pytest.approx(2400 / 3 / 4, abs=15)


def test_groups_are_disjoint_and_of_one_size():
    z = torch.arange(41.0)[:, None]
    parts = groups(z)
    assert [len(p) for p in parts] == [10] * GROUPS
    assert len(torch.unique(torch.cat(parts))) == 40
