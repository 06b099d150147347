"""Laws of the distances between samples."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
ot = pytest.importorskip("ot", reason="not installed: POT")

from scipy.optimize import linear_sum_assignment

from coffea_ad.errors import ConfigError
from coffea_ad.nn.distances import DISTANCES, _assignment, exact, max_sliced, sinkhorn, sliced

# Searched and iterated long enough that what remains is rounding.
CONVERGED = {
    **DISTANCES,
    "max_sliced": partial(max_sliced, ascents=25),
    "sinkhorn": partial(sinkhorn, epsilon=0.5, iterations=120),
}
every_distance = pytest.mark.parametrize("name", sorted(DISTANCES))
few = settings(max_examples=8, deadline=None)
seeds, sizes, dimensions = st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 4)


def value(name, x, y, wx=None, wy=None):
    return CONVERGED[name](x, y, wx, wy, generator=torch.Generator().manual_seed(3))


def sample(seed, n, d, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d)) * rng.uniform(0.3, 3, d) + rng.normal(size=d)).to(dtype)


def weights(seed, n):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=n) + 0.01)


def close(got, expected, tolerance=1e-9):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=got.dtype), rtol=tolerance, atol=tolerance)


# ---- against other implementations


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(6, 6), (200, 200), (40, 25)])
@pytest.mark.parametrize("weighted", [False, True])
def test_exact_equals_pot_in_value_and_gradient(dtype, n, m, weighted):
    got, expected = ([sample(s, k, 8, dtype).requires_grad_() for s, k in ((1, n), (2, m))] for _ in range(2))
    w = (
        [weights(s, k).to(dtype) for s, k in ((3, n), (4, m))]
        if weighted
        else [torch.ones(k, dtype=dtype) for k in (n, m)]
    )
    w = [v / v.sum() for v in w]
    mine = exact(*got, *(w if weighted else (None, None)))
    theirs = ot.emd2(*w, ot.dist(*expected))
    mine.backward()
    theirs.backward()
    close(mine.detach(), theirs.detach(), 1e-6)
    for a, b in zip(got, expected, strict=True):
        close(a.grad, b.grad, 1e-6)


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


@pytest.mark.parametrize("name", ["sliced", "max_sliced"])
@few
@given(seeds, sizes, sizes, st.booleans(), st.booleans())
def test_on_a_line_slices_are_exact(name, seed, n, m, weigh_x, weigh_y):
    x, y = sample(seed, n, 1), sample(seed + 1, m, 1)
    wx, wy = weights(seed, n) if weigh_x else None, weights(seed + 1, m) if weigh_y else None
    close(value(name, x, y, wx, wy), exact(x, y, wx, wy))


@few
@given(seeds, sizes, sizes, dimensions)
def test_slices_are_never_larger_than_the_exact_distance(seed, n, m, d):
    x, y = sample(seed, n, d), sample(seed + 1, m, d)
    largest = float(exact(x, y)) * (1 + 1e-9) + 1e-12
    assert float(value("sliced", x, y)) <= largest
    assert float(value("max_sliced", x, y)) <= largest


def test_max_sliced_finds_at_least_the_best_of_many_directions():
    x, y = sample(1, 60, 5), sample(2, 60, 5)
    angles = torch.nn.functional.normalize(
        torch.randn(2000, 5, generator=torch.Generator().manual_seed(8)), dim=1
    ).double()
    on_lines = ((angles @ x.T).sort(1).values - (angles @ y.T).sort(1).values).square().mean(1)
    assert float(value("max_sliced", x, y)) >= float(on_lines.max())


def test_sinkhorn_tends_to_the_exact_distance():
    x, y = sample(1, 30, 3), sample(2, 30, 3)
    target = float(exact(x, y))
    miss = [abs(float(sinkhorn(x, y, epsilon=e, iterations=800)) - target) for e in (0.3, 0.03, 0.003)]
    assert miss[0] > miss[1] > miss[2]
    assert miss[2] < 1e-2 * target


# ---- laws


@every_distance
@few
@given(seeds, sizes, sizes, dimensions)
def test_it_is_not_negative_and_symmetric(name, seed, n, m, d):
    x, y, wx, wy = sample(seed, n, d), sample(seed + 1, m, d), weights(seed, n), weights(seed + 1, m)
    forth, back = value(name, x, y, wx, wy), value(name, y, x, wy, wx)
    scale = float(exact(x, y)) + 1
    assert float(forth) >= -1e-9 * scale
    close(forth, back, 1e-9 * scale)


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_a_sample_has_no_distance_to_itself(name, seed, n, d):
    x, w = sample(seed, n, d), weights(seed, n)
    assert abs(float(value(name, x, x))) < 1e-9
    assert abs(float(value(name, x, x.flip(0), w, w.flip(0)))) < 1e-9


@every_distance
@few
@given(seeds, sizes, sizes, dimensions)
def test_the_order_of_points_does_not_matter(name, seed, n, m, d):
    x, y, wx, wy = sample(seed, n, d), sample(seed + 1, m, d), weights(seed, n), weights(seed + 1, m)
    i, j = torch.from_numpy(np.random.default_rng(seed).permutation(n)), torch.arange(m).flip(0)
    close(value(name, x[i], y[j], wx[i], wy[j]), value(name, x, y, wx, wy), 1e-7)
    close(value(name, x[i], y[j]), value(name, x, y), 1e-7)


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_a_shift_costs_its_square(name, seed, n, d):
    x, shift = sample(seed, n, d), sample(seed + 1, 1, d)
    close(value(name, x, x + shift), float(shift.square().sum()), 1e-6)


@every_distance
@few
@given(seeds, sizes, sizes, dimensions)
def test_it_is_measured_in_squared_units(name, seed, n, m, d):
    x, y = sample(seed, n, d), sample(seed + 1, m, d)
    close(value(name, 10 * x, 10 * y), 100 * value(name, x, y), 1e-7)


@every_distance
@few
@given(seeds, sizes, sizes, dimensions)
def test_a_point_is_two_of_half_its_weight(name, seed, n, m, d):
    x, y, wx, wy = sample(seed, n, d), sample(seed + 1, m, d), weights(seed, n), weights(seed + 1, m)
    split = torch.cat([wx[:1] / 2, wx[1:], wx[:1] / 2])
    close(value(name, torch.cat([x, x[:1]]), y, split, wy), value(name, x, y, wx, wy), 1e-7)


@every_distance
@few
@given(seeds, sizes, sizes, dimensions)
def test_unequal_sizes_equal_repeated_samples(name, seed, n, m, d):
    x, y = sample(seed, n, d), sample(seed + 1, m, d)
    close(value(name, x.repeat(m, 1), y.repeat_interleave(n, 0)), value(name, x, y), 1e-7)


@every_distance
@few
@given(seeds, sizes, dimensions)
def test_a_point_without_weight_is_no_point(name, seed, n, d):
    x, y, w = sample(seed, n, d), sample(seed + 1, n, d), weights(seed, n)
    more = torch.cat([x.mean(0, keepdim=True), x])
    close(value(name, more, y, torch.cat([torch.zeros(1), w]), w), value(name, x, y, w, w), 1e-7)


# ---- gradients


@every_distance
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_finite_differences(name, weighted):
    n, m, d, h = 12, 9 if weighted else 12, 3, 1e-7  # so small that no two points change places
    wx, wy = (weights(3, n), weights(4, m)) if weighted else (None, None)
    x, y = sample(1, n, d).requires_grad_(), (sample(2, m, d) + 4).requires_grad_()
    value(name, x, y, wx, wy).backward()
    for k in range(3):
        u, v = sample(10 + k, n, d), sample(20 + k, m, d)
        with torch.no_grad():
            up, down = value(name, x + h * u, y + h * v, wx, wy), value(name, x - h * u, y - h * v, wx, wy)
        close((x.grad * u).sum() + (y.grad * v).sum(), (up - down) / (2 * h), 1e-5)


@every_distance
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_both_samples_get_a_gradient_downhill(name, dtype, weighted):
    x, y = sample(1, 20, 3, dtype).requires_grad_(), (sample(2, 20, 3, dtype) + 1).requires_grad_()
    w = (weights(3, 20), weights(4, 20)) if weighted else (None, None)
    distance = DISTANCES[name](x, y, *w, generator=torch.Generator().manual_seed(3))
    assert distance.dtype == dtype
    assert distance.shape == ()
    distance.backward()
    before = float(distance.detach())
    for moved, other, first in ((x, y, True), (y, x, False)):
        assert moved.grad.dtype == dtype
        assert bool((moved.grad.abs().sum(dim=1) > 0).all()), "a point does not move"
        near = (moved - 0.01 * moved.grad).detach()
        pair = (near, other.detach()) if first else (other.detach(), near)
        assert float(DISTANCES[name](*pair, *w, generator=torch.Generator().manual_seed(3))) < before


@every_distance
def test_no_other_gradient_is_needed_for_one(name):
    for first in (True, False):
        x, y = sample(1, 20, 3).requires_grad_(first), sample(2, 20, 3).requires_grad_(not first)
        DISTANCES[name](x, y, generator=torch.Generator()).backward()
        assert float((x if first else y).grad.abs().sum()) > 0


@every_distance
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("at", ["same samples", "all at one point"])
def test_gradients_stay_finite_where_points_coincide(name, dtype, at):
    x = sample(1, 10, 3, dtype) if at == "same samples" else torch.full((10, 3), 2.0, dtype=dtype)
    x, y = x.clone().requires_grad_(), x.clone().requires_grad_()
    distance = DISTANCES[name](x, y, generator=torch.Generator())
    distance.backward()
    assert abs(float(distance.detach())) < 1e-5
    assert bool(torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all())
    assert float(x.grad.abs().max()) < 1e-5


# ---- numbers


@every_distance
@pytest.mark.parametrize("far", [0.0, 300.0])
def test_float32_is_enough(name, far):
    x, y = sample(1, 50, 4) + far, sample(2, 50, 4) + far + 1
    close(DISTANCES[name](x.float(), y.float(), generator=torch.Generator()).double(),
          DISTANCES[name](x, y, generator=torch.Generator()), 1e-2 if name == "max_sliced" and far else 1e-3)  # fmt: skip


@every_distance
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_points_that_are_not_finite_have_no_finite_distance(name, bad):
    x, y = sample(1, 10, 3), sample(2, 10, 3)
    x[4, 1] = bad
    for pair in ((x, y), (y, x)):
        assert not torch.isfinite(DISTANCES[name](*pair, generator=torch.Generator()))


@every_distance
def test_randomness_comes_from_the_generator_alone(name):
    x, y = sample(1, 30, 4), sample(2, 30, 4)
    before = torch.get_rng_state()
    one, same, other = (DISTANCES[name](x, y, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert one == same
    assert (one != other) == (name == "sliced") or name == "max_sliced"


def test_more_dimensions_than_directions_are_right_in_the_mean():
    x, shift = torch.zeros(3, 40, dtype=torch.float64), sample(5, 1, 40)
    g = torch.Generator().manual_seed(1)
    got = torch.stack([sliced(x, x + shift, generator=g, projections=8) for _ in range(400)])
    error = float(got.std()) / 20
    assert error < 0.1 * float(shift.square().sum())
    assert abs(float(got.mean() - shift.square().sum())) < 4 * error


@every_distance
@pytest.mark.parametrize(
    ("x", "y", "wx", "sentence"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), None, "needs points"),
        (torch.zeros(0, 2), torch.zeros(3, 2), None, "needs points"),
        (torch.zeros(3), torch.zeros(3), None, "needs points"),
        (torch.zeros(3, 2), torch.zeros(3, 2), torch.ones(2), "3 points has weights of the shape"),
        (torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([1.0, -1.0, 1.0]), "weights ≥ 0"),
        (torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(3), "positive sum"),
        (torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([1.0, float("nan"), 1.0]), "finite weights"),
    ],
)
def test_samples_that_are_none_are_refused(name, x, y, wx, sentence):
    with pytest.raises(ConfigError, match=sentence):
        DISTANCES[name](x, y, wx, generator=torch.Generator())


@pytest.mark.parametrize(
    "call",
    [
        partial(sliced, projections=0, generator=torch.Generator()),
        partial(max_sliced, projections=0, generator=torch.Generator()),
        partial(sinkhorn, epsilon=0.0),
        partial(sinkhorn, iterations=0),
    ],
)
def test_settings_out_of_range_are_refused(call):
    with pytest.raises(ConfigError, match="needs"):
        call(torch.zeros(3, 2), torch.ones(3, 2))
