"""Preprocessing and back: inverses, Jacobians, boxes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from coffea_ad import nn
from coffea_ad.errors import ConfigError, SkimError

NAMES = ["mass", "ratio", "angle"]
KINDS = ["quantile", "standard", "log", "logit", "minmax", "none"]
SPECS = [*KINDS, {"mass": "log", "ratio": "logit", "angle": "quantile"}]
IDS = [*KINDS, "mixed"]


def rows(n=3000, seed=0):
    """A long tail, a bounded column with an atom at its edge, and one of both signs; and weights."""
    rng = np.random.default_rng(seed)
    ratio = np.where(rng.random(n) < 0.1, 0.0, rng.beta(2, 3, n))
    x = np.stack([rng.lognormal(3, 1, n), ratio, rng.normal(size=n)], axis=1)
    return x.astype(np.float32), rng.exponential(size=n) + 0.01


def fitted(spec):
    x, weight = rows()
    return nn.preprocessing(spec, NAMES).fit(x, weight)


def inner(n=500):
    """Rows of which no value is at an edge of the training rows, or on the atom."""
    x = rows(seed=1)[0]
    low, high = rows()[0].min(axis=0), rows()[0].max(axis=0)
    width = high - low
    good = ((x > low + 1e-4 * width) & (x < high - 1e-4 * width)).all(axis=1)
    return torch.from_numpy(x[good][:n])


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_the_inverse_gives_the_rows_back_up_to_the_rounding_of_float32(spec):
    """A rounding of z moves x by that over the slope."""
    transform, x = fitted(spec), inner()
    z = transform(x)
    off = (transform.inverse(z) - x).abs()
    bound = 2e-6 * (1 + z.abs()) / transform.log_slopes(x).exp() + 1e-6 * x.abs()
    assert bool((off <= bound).all())
    assert float((off / x.abs().clamp_min(0.01)).median()) < 1e-5  # the bound itself means something


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_values_of_z_that_no_row_has_come_back_as_well(spec):
    """Samples fall between rows and beyond them; only a box ends them."""
    transform = fitted(spec)
    z = transform(inner())
    between = 0.5 * (z[1:] + z[:-1])
    torch.testing.assert_close(transform(transform.inverse(between)), between, rtol=1e-3, atol=1e-3)
    far = torch.tensor([[-40.0], [40.0]]).repeat(1, 3)
    assert bool(transform.inverse(far).isfinite().all())


def test_an_atom_comes_back_to_its_value():
    for kind in ("quantile", "logit", "log"):
        x = torch.from_numpy(rows()[0][rows()[0][:, 1] == 0][:20])
        back = fitted(kind).inverse(fitted(kind)(x))[:, 1]
        torch.testing.assert_close(back, torch.zeros(20), rtol=0, atol=1e-7 if kind == "logit" else 2e-6)


@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_log_slopes_are_those_of_autograd_and_log_det_is_their_sum(spec):
    transform = fitted(spec).double()
    x = inner(60).double().requires_grad_()
    (slopes,) = torch.autograd.grad(transform(x).sum(), x)  # every column depends on itself only
    torch.testing.assert_close(transform.log_slopes(x), slopes.log(), rtol=1e-5, atol=1e-5)
    jacobian = torch.autograd.functional.jacobian(lambda row: transform(row[None])[0], x[0].detach())
    torch.testing.assert_close(transform.log_det(x)[0], jacobian.det().abs().log(), rtol=1e-5, atol=1e-5)


def test_the_slope_of_a_logit_is_larger_at_the_edge_than_in_the_middle_and_not_its_inverse():
    transform = fitted("logit").double()
    x = inner(1).double()
    step = 1e-5 * (transform.maximum - transform.minimum)
    numeric = (transform(x + step) - transform(x - step)) / (2 * step)
    torch.testing.assert_close(transform.log_slopes(x).exp(), numeric, rtol=1e-4, atol=1e-6)


# Boxes

column = st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=40).filter(lambda v: max(v) - min(v) > 1e-3)


@settings(max_examples=60, deadline=None)
@given(column, st.sampled_from(["logit", "minmax"]))
def test_all_training_rows_lie_in_the_box_and_the_next_number_beyond_does_not(values, kind):
    x = np.array(values, np.float32)[:, None]
    transform = nn.preprocessing(kind, ["a"]).fit(x, np.ones(len(x)))
    assert bool(transform.inside(torch.from_numpy(x)).all())
    beyond = np.array(
        [[np.nextafter(x.min(), -np.inf)], [np.nextafter(x.max(), np.inf)], [np.nan], [np.inf]], np.float32
    )
    assert not transform.inside(torch.from_numpy(beyond)).any()
    edges = transform(torch.tensor([[x.min()], [x.max()]]))
    assert torch.equal(transform(torch.from_numpy(beyond[:2])), edges)  # as far as the edge
    back = transform.inverse(transform(torch.from_numpy(x))).numpy()
    np.testing.assert_allclose(back, x, rtol=1e-6, atol=3e-6 * float(np.ptp(x)))
    assert back.min() >= x.min()
    assert back.max() <= x.max()


@settings(max_examples=30, deadline=None)
@given(st.floats(-100, 100), st.floats(0.01, 100), st.sampled_from(["logit", "minmax"]))
def test_a_box_does_not_depend_on_the_unit(shift, scale, kind):
    x, weight = rows(300)
    x = x[:, 2:]
    moved = (scale * x.astype(np.float64) + shift).astype(np.float32)
    one = nn.preprocessing(kind, ["a"]).fit(x, weight)(torch.from_numpy(x))
    two = nn.preprocessing(kind, ["a"]).fit(moved, weight)(torch.from_numpy(moved))
    inside = one.abs() < one.abs().max() / 2
    torch.testing.assert_close(two[inside], one[inside], rtol=1e-3, atol=1e-4 * (1 + abs(shift) / scale))


def test_a_logit_has_weighted_mean_0_and_deviation_1():
    x, weight = rows()
    z = fitted("logit")(torch.from_numpy(x)).numpy().astype(np.float64)
    np.testing.assert_allclose(np.average(z, axis=0, weights=weight), 0, atol=1e-4)
    np.testing.assert_allclose(np.average(z**2, axis=0, weights=weight), 1, atol=1e-4)


def test_rows_without_weight_make_no_box():
    x, weight = rows()
    far = nn.Logit(3).fit(np.r_[x, np.full((5, 3), 1e5, np.float32)], np.r_[weight, np.zeros(5)])
    assert torch.equal(far.box, fitted("logit").box)


def test_a_box_of_some_columns_says_nothing_of_the_others():
    transform = fitted({"ratio": "logit", "*": "standard"})
    assert transform.box.isfinite().all(dim=0).tolist() == [False, True, False]
    x = torch.tensor([[1e9, 0.5, -1e9], [1.0, 1.5, 0.0], [float("nan"), 0.5, 0.0]])
    assert transform.inside(x).tolist() == [True, False, False]
    assert fitted("quantile").inside(x).tolist() == [True, True, False]


@pytest.mark.parametrize("kind", ["logit", "minmax"])
def test_what_has_no_box_is_refused_by_name(kind):
    x, weight = rows()
    x[:, 1] = 3
    with pytest.raises(SkimError, match="column ratio takes one value only"):
        nn.preprocessing(kind, NAMES).fit(x, weight)
    x[:2, 1] = [1, 2e38]
    with pytest.raises(SkimError, match=r"column ratio reaches 2e\+38"):
        nn.preprocessing(kind, NAMES).fit(x, weight)


def test_an_encoder_has_no_inverse():
    flat = torch.nn.Linear(3, 2)
    with pytest.raises(ConfigError, match="Representation has no inverse"):
        nn.Representation(flat, nn.Standard(2), row_shape=(3,)).inverse(torch.zeros(1, 2))
