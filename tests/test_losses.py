"""Contrastive losses: their definitions, their bounds, and rows that were drawn twice."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from coffea_ad.errors import ConfigError
from coffea_ad.nn.self_supervised import losses, naive

VIEWS = {"nt_xent": 2, "decoupled_clr": 2, "anom_clr": 3, "anom_clr_plus": 3}
every_loss = pytest.mark.parametrize("name", sorted(VIEWS))
few = settings(max_examples=10, deadline=None)
seeds, sizes, dimensions = st.integers(0, 2**32 - 1), st.integers(3, 7), st.integers(1, 5)
temperatures = st.sampled_from([0.07, 0.1, 0.5, 2.0])


def views(seed, n, d, number=3, dtype=torch.float64):
    """Representations of very different lengths, as an encoder that sums over particles has them."""
    generator = torch.Generator().manual_seed(seed)
    scale = 10 ** (2 * torch.rand(number, n, 1, generator=generator, dtype=torch.float64) - 1)
    z = torch.randn(number, n, d, generator=generator, dtype=torch.float64) * scale
    return [view.to(dtype).requires_grad_() for view in z]


def rows(seed, n):
    """Places of rows of which some were drawn twice, not all."""
    row = torch.randint(0, n, (n,), generator=torch.Generator().manual_seed(seed))
    row[:2] = torch.tensor([0, 1])
    return row


def loss(name, inputs, **options):
    return getattr(losses, name)(*inputs[: VIEWS[name]], **options)


def twin(name, inputs, temperature, row):
    return naive.LOSSES[name](*inputs[: VIEWS[name]], temperature, row)


def gradients(value, inputs):
    return [
        torch.zeros_like(z) if g is None else g
        for z, g in zip(inputs, torch.autograd.grad(value, inputs, allow_unused=True), strict=True)
    ]


# ---- definitions


def test_every_loss_has_a_slow_twin():
    assert naive.LOSSES.keys() == VIEWS.keys()


@every_loss
@few
@given(seeds, sizes, dimensions, temperatures, st.booleans())
def test_it_equals_its_twin_in_value_and_gradient(name, seed, n, d, temperature, twice):
    inputs = views(seed, n, d)
    row = rows(seed, n) if twice else torch.arange(n)
    got = loss(name, inputs, temperature=temperature, row=row if twice else None)
    expected = twin(name, inputs, temperature, row)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(got, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@few
@given(seeds, sizes, dimensions, st.booleans())
def test_uniformity_equals_its_twin(seed, n, d, twice):
    (z,) = views(seed, n, d, 1)
    row = rows(seed, n) if twice else torch.arange(n)
    torch.testing.assert_close(losses.uniformity(z, row), naive.uniformity(z, row), rtol=1e-9, atol=1e-9)


def test_the_positive_is_in_one_denominator_and_not_in_the_other():
    """Two orthogonal rows at τ = 1: e¹ of the positive, and e⁰ of the two views of the other row."""
    z = torch.eye(2, dtype=torch.float64)
    assert losses.nt_xent(z, z, temperature=1.0).item() == pytest.approx(math.log((math.e + 2) / math.e), abs=1e-12)
    assert losses.decoupled_clr(z, z, temperature=1.0).item() == pytest.approx(math.log(2 / math.e), abs=1e-12)


@few
@given(seeds, sizes, temperatures)
def test_an_anomaly_enters_with_the_temperature_and_the_positive_is_no_constant(seed, n, temperature):
    z, positive, anomaly = views(seed, n, 4)
    both = losses.anom_clr(z, positive, anomaly, temperature=temperature)
    one = losses.decoupled_clr(z, positive, temperature=temperature)
    torch.testing.assert_close(both - one, losses.similarity(z, anomaly) / temperature)
    (slope,) = torch.autograd.grad(losses.anom_clr_plus(z, positive, anomaly, temperature=temperature), positive)
    assert slope.abs().max() > 0  # a loss with s(z, z) = 1 in its place would not see the positive view at all


@few
@given(seeds, sizes, dimensions)
def test_the_norm_term_is_the_mean_length(seed, n, d):
    (z,) = views(seed, n, d, 1)
    expected = 1e-3 * sum(math.sqrt(sum(v * v for v in row)) for row in z.tolist()) / n
    assert losses.norm_term(z).item() == pytest.approx(expected, rel=1e-12)
    assert losses.norm_term(2 * z, 0.5).item() == pytest.approx(1000 * expected, rel=1e-12)


# ---- bounds and limits


@every_loss
@few
@given(seeds, sizes, dimensions, temperatures)
def test_it_stays_within_its_bounds(name, seed, n, d, temperature):
    inputs = views(seed, n, d)
    most, sums = 1 / temperature, math.log(2 * n - 2)
    low, high = {
        "nt_xent": (0, math.log(2 * n - 1) + 2 * most),
        "decoupled_clr": (sums - 2 * most, sums + 2 * most),
        "anom_clr": (sums - 3 * most, sums + 3 * most),
        "anom_clr_plus": (-2 * most, 2 * most),
    }[name]
    assert low - 1e-9 <= loss(name, inputs, temperature=temperature).item() <= high + 1e-9


def test_the_bounds_of_the_loss_without_negatives_are_reached():
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(1))
    assert losses.anom_clr_plus(z, 3 * z, -z).item() == pytest.approx(-20, rel=1e-6)
    assert losses.anom_clr_plus(z, -z, z / 7).item() == pytest.approx(20, rel=1e-6)


@few
@given(seeds, sizes)
def test_diagnostics_at_their_ends(seed, n):
    z, other, _ = views(seed, n, 6)
    one_point = z[:1].expand(n, -1) * torch.arange(1, n + 1)[:, None]
    assert losses.alignment(z, 2 * z).item() == pytest.approx(0, abs=1e-12)
    assert losses.alignment(z, -z).item() == pytest.approx(4, abs=1e-12)
    assert losses.alignment(z, other).item() == pytest.approx(2 - 2 * losses.similarity(z, other).item(), abs=1e-9)
    assert losses.uniformity(one_point).item() == pytest.approx(0, abs=1e-9)
    assert losses.uniformity(z).item() < 0
    assert losses.uniformity(z, torch.zeros(n, dtype=torch.int64)).item() == 0  # no pair at all


# ---- invariances


@every_loss
@few
@given(seeds, sizes)
def test_it_sees_directions_only(name, seed, n):
    inputs = views(seed, n, 4)
    lengths = 10 ** torch.linspace(-3, 3, n, dtype=torch.float64)[:, None]
    torch.testing.assert_close(loss(name, [z * lengths for z in inputs]), loss(name, inputs))


@every_loss
@few
@given(seeds, sizes)
def test_the_order_of_rows_does_not_matter(name, seed, n):
    inputs, row = views(seed, n, 4), rows(seed, n)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(loss(name, [z[order] for z in inputs], row=row[order]), loss(name, inputs, row=row))


@pytest.mark.parametrize("name", ["nt_xent", "decoupled_clr"])
@few
@given(seeds, sizes)
def test_both_views_are_anchors(name, seed, n):
    z, positive, _ = views(seed, n, 4)
    torch.testing.assert_close(loss(name, [z, positive]), loss(name, [positive, z]))


# ---- rows drawn twice


@pytest.mark.parametrize("name", ["nt_xent", "decoupled_clr", "anom_clr"])
@few
@given(seeds, sizes)
def test_a_row_drawn_twice_is_no_negative_of_itself(name, seed, n):
    """Views of the same row twice: what belongs to it changes neither its own sums nor, once counted, the others'."""
    inputs = views(seed, n, 4)
    doubled = [torch.cat([z, z[:1]]) for z in inputs]
    row = torch.cat([torch.arange(n), torch.zeros(1, dtype=torch.int64)])
    expected = twin(name, doubled, 0.1, row)
    torch.testing.assert_close(loss(name, doubled, row=row), expected)
    assert abs(loss(name, doubled).item() - expected.item()) > 1e-9  # as if it were another row


@every_loss
@pytest.mark.parametrize("n", [1, 3])
def test_rows_without_any_negative_have_a_finite_loss_and_slope(name, n):
    inputs = views(1, n, 4)
    value = loss(name, inputs, row=torch.zeros(n, dtype=torch.int64))
    z, positive, anomaly = inputs
    expected = {
        "nt_xent": 0 * z.sum(),
        "decoupled_clr": -10 * losses.similarity(z, positive),
    }.get(name, 10 * (losses.similarity(z, anomaly) - losses.similarity(z, positive)))
    torch.testing.assert_close(value, expected)
    for got, right in zip(gradients(value, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(got, right)


# ---- precision


@every_loss
def test_autocast_and_short_numbers_are_computed_in_single_precision(name):
    inputs = views(2, 64, 32, dtype=torch.float32)
    expected = loss(name, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = loss(name, inputs)
        uniformity = losses.uniformity(inputs[0])
    assert got.dtype == expected.dtype == torch.float32
    assert got.item() == expected.item()
    assert uniformity.item() == losses.uniformity(inputs[0]).item()
    short = [z.bfloat16() for z in inputs]
    assert loss(name, short).item() == loss(name, [z.float() for z in short]).item()
    assert loss(name, [z.double() for z in inputs]).dtype == torch.float64
    assert loss(name, [z.double() for z in inputs]).item() == pytest.approx(expected.item(), rel=1e-5)


@every_loss
def test_the_slope_at_a_representation_that_is_zero_is_bounded(name):
    inputs = views(3, 5, 4)
    with torch.no_grad():
        for z in inputs:
            z[2] = 0
    value = loss(name, inputs)
    assert math.isfinite(value.item())
    for slope in gradients(value, inputs):
        assert slope[2].abs().max() < 100  # as of one of length 1


# ---- wrong input


@every_loss
@pytest.mark.parametrize("shapes", [[(4, 3), (5, 3), (4, 3)], [(4,), (4,), (4,)], [(0, 3), (0, 3), (0, 3)]])
def test_wrong_shapes_are_named(name, shapes):
    with pytest.raises(ConfigError, match=r"representations \(N, D\) of equal shape"):
        loss(name, [torch.ones(shape) for shape in shapes])


@every_loss
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_none_is_named(name, temperature):
    with pytest.raises(ConfigError, match="temperature"):
        loss(name, views(1, 4, 3), temperature=temperature)
