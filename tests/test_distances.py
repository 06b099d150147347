"""Laws of the distances between samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
ot = pytest.importorskip("ot", reason="not installed: POT")

from scipy.optimize import linear_sum_assignment

from coffea_ad.errors import ConfigError
from coffea_ad.nn.energy_based.distances import DISTANCES, _assignment, sliced, w1, w2_squared

POWER = {"w1": 1, "w2_squared": 2, "sliced": 2}
every_distance = pytest.mark.parametrize("name", sorted(DISTANCES))
few = settings(max_examples=8, deadline=None)
seeds, sizes, dimensions = st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 4)


def value(name, x, y):
    return DISTANCES[name](x, y, generator=torch.Generator().manual_seed(3))


def sample(seed, n, d, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d)) * rng.uniform(0.3, 3, d) + rng.normal(size=d)).to(dtype)


def close(got, expected, tolerance=1e-9):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=got.dtype), rtol=tolerance, atol=tolerance)


def test_the_loss_has_the_three_distances():
    assert sorted(DISTANCES) == sorted(POWER)


# ---- against other implementations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 6, 200])
@pytest.mark.parametrize(("ours", "metric"), [(w2_squared, "sqeuclidean"), (w1, "euclidean")])
def test_both_exact_distances_equal_pot_in_value_and_gradient(dtype, n, ours, metric):
    got, expected = ([sample(s, n, 8, dtype).requires_grad_() for s in (1, 2)] for _ in range(2))
    mine = ours(*got)
    theirs = ot.emd2(*[torch.full((n,), 1 / n, dtype=dtype)] * 2, ot.dist(*expected, metric=metric))
    mine.backward()
    theirs.backward()
    close(mine.detach(), theirs.detach(), 1e-6)
    for a, b in zip(got, expected, strict=True):
        close(a.grad, b.grad, 2e-6)


@few
@given(seeds, st.integers(1, 30), st.sampled_from(["plain", "ties", "outliers", "tiny", "one point"]))
def test_the_assignment_is_optimal_whatever_its_start(seed, n, kind):
    rng = np.random.default_rng(seed)
    cost = rng.exponential(size=(n, n))
    if kind == "ties":
        cost = np.floor(3 * cost)
    elif kind == "outliers":
        cost[rng.integers(n)] *= 1e12
        cost[:, rng.integers(n)] += 1e6
    elif kind == "tiny":
        cost *= 1e-300
    elif kind == "one point":
        cost[:] = 2.5
    rows, columns = linear_sum_assignment(cost)
    got = _assignment(cost)
    assert sorted(got) == list(range(n))
    np.testing.assert_allclose(cost[rows, got].sum(), cost[rows, columns].sum(), rtol=1e-9)


@few
@given(seeds, sizes)
def test_on_a_line_slices_are_exact(seed, n):
    x, y = sample(seed, n, 1), sample(seed + 1, n, 1)
    close(value("sliced", x, y), w2_squared(x, y))


@few
@given(seeds, sizes, dimensions)
def test_slices_are_never_larger_than_the_exact_distance(seed, n, d):
    x, y = sample(seed, n, d), sample(seed + 1, n, d)
    assert float(value("sliced", x, y)) <= float(w2_squared(x, y)) * (1 + 1e-9) + 1e-12


@few
@given(seeds, sizes, dimensions)
def test_the_first_distance_is_never_larger_than_the_root_of_the_second(seed, n, d):
    x, y = sample(seed, n, d), sample(seed + 1, n, d)
    assert float(w1(x, y)) <= float(w2_squared(x, y)) ** 0.5 * (1 + 1e-9) + 1e-12


# ---- laws


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_it_is_not_negative_and_symmetric(name, seed, n, d):
    x, y = sample(seed, n, d), sample(seed + 1, n, d)
    forth, back = value(name, x, y), value(name, y, x)
    scale = float(w2_squared(x, y)) + 1
    assert float(forth) >= -1e-9 * scale
    close(forth, back, 1e-9 * scale)


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_a_sample_has_no_distance_to_itself(name, seed, n, d):
    x = sample(seed, n, d)
    assert abs(float(value(name, x, x.flip(0)))) < 1e-9


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_the_order_of_points_does_not_matter(name, seed, n, d):
    x, y = sample(seed, n, d), sample(seed + 1, n, d)
    i, j = torch.from_numpy(np.random.default_rng(seed).permutation(n)), torch.arange(n).flip(0)
    close(value(name, x[i], y[j]), value(name, x, y), 1e-7)


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_a_shift_costs_its_length_or_the_square_of_that(name, seed, n, d):
    x, shift = sample(seed, n, d), sample(seed + 1, 1, d)
    close(value(name, x, x + shift), float(shift.norm()) ** POWER[name], 1e-6)


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_it_is_measured_in_units_of_the_points_or_their_squares(name, seed, n, d):
    x, y = sample(seed, n, d), sample(seed + 1, n, d)
    close(value(name, 10 * x, 10 * y), 10 ** POWER[name] * value(name, x, y), 1e-7)


# ---- gradients


@every_distance
def test_the_gradient_is_that_of_finite_differences(name):
    n, d, h = 12, 3, 1e-7  # so small that no two points change places
    x, y = sample(1, n, d).requires_grad_(), (sample(2, n, d) + 4).requires_grad_()
    value(name, x, y).backward()
    for k in range(3):
        u, v = sample(10 + k, n, d), sample(20 + k, n, d)
        with torch.no_grad():
            up, down = value(name, x + h * u, y + h * v), value(name, x - h * u, y - h * v)
        close((x.grad * u).sum() + (y.grad * v).sum(), (up - down) / (2 * h), 1e-5)


@every_distance
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_samples_get_a_gradient_downhill(name, dtype):
    x, y = sample(1, 20, 3, dtype).requires_grad_(), (sample(2, 20, 3, dtype) + 1).requires_grad_()
    distance = value(name, x, y)
    assert distance.dtype == dtype
    assert distance.shape == ()
    distance.backward()
    before = float(distance.detach())
    for moved, other, first in ((x, y, True), (y, x, False)):
        assert moved.grad.dtype == dtype
        assert bool((moved.grad.abs().sum(dim=1) > 0).all()), "a point does not move"
        near = (moved - 0.01 * moved.grad).detach()
        pair = (near, other.detach()) if first else (other.detach(), near)
        assert float(value(name, *pair)) < before


@every_distance
def test_no_other_gradient_is_needed_for_one(name):
    for first in (True, False):
        x, y = sample(1, 20, 3).requires_grad_(first), sample(2, 20, 3).requires_grad_(not first)
        value(name, x, y).backward()
        assert float((x if first else y).grad.abs().sum()) > 0


@every_distance
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at", ["same samples", "all at one point"])
def test_gradients_stay_finite_where_points_coincide(name, dtype, at):
    x = sample(1, 10, 3, dtype) if at == "same samples" else torch.full((10, 3), 2.0, dtype=dtype)
    x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
    distance = value(name, x, y)
    distance.backward()
    assert abs(float(distance.detach())) < 1e-5
    assert bool(torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all())
    assert float(x.grad.abs().max()) < 1e-5


# ---- numbers


@every_distance
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_float32_is_enough(name, far):
    x, y = sample(1, 50, 4) + far, sample(2, 50, 4) + far + 1
    close(value(name, x.float(), y.float()).double(), value(name, x, y), 1e-3)


@every_distance
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_points_that_are_not_finite_have_no_finite_distance(name, bad):
    x, y = sample(1, 10, 3), sample(2, 10, 3)
    x[4, 1] = bad
    for pair in ((x, y), (y, x)):
        assert not torch.isfinite(value(name, *pair))


@every_distance
def test_randomness_comes_from_the_generator_alone(name):
    x, y = sample(1, 30, 4), sample(2, 30, 4)
    before = torch.get_rng_state()
    one, same, other = (DISTANCES[name](x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert one == same
    assert (one != other) == (name == "sliced")


def test_more_dimensions_than_directions_are_right_in_the_mean():
    x, shift = torch.zeros(3, 40, dtype=torch.float64), sample(5, 1, 40)
    g = torch.Generator().manual_seed(1)
    got = torch.stack([sliced(x, x + shift, generator=g, projections=8) for _ in range(400)])
    error = float(got.std()) / 20
    assert error < 0.1 * float(shift.square().sum())
    assert abs(float(got.mean() - shift.square().sum())) < 4 * error


@every_distance
@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4)),
        (torch.zeros(3, 2), torch.zeros(4, 2)),
        (torch.zeros(0, 2), torch.zeros(0, 2)),
        (torch.zeros(3), torch.zeros(3)),
    ],
)
def test_samples_that_are_none_are_refused(name, x, y):
    with pytest.raises(ConfigError, match="needs points"):
        value(name, x, y)


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="needs at least 1"):
        sliced(torch.zeros(3, 2), torch.ones(3, 2), generator=torch.Generator(), projections=0)
