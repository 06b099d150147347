"""What every preprocessing must do, and what each must do besides."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

import onnxruntime as ort

from coffea_ad import nn
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError, SkimError

LARGEST = np.finfo(np.float32).max
NAMES = ["mass", "tau2", "count", "atom"]
SPECS = {
    "quantile": "quantile",
    "standard": "standard",
    "log": "log",
    "none": "none",
    "mixed": {"mass": "log", "count": "none", "atom": "standard", "*": "quantile"},
}


def rows(seed=0, n=2000):
    """Long tails of both signs, integers, an atom at zero; and weights."""
    rng = np.random.default_rng(seed)
    x = np.stack(
        [
            rng.lognormal(3, 1, n),
            rng.standard_t(2, n),
            rng.integers(0, 6, n),
            np.maximum(rng.normal(size=n), 0),
        ],
        axis=1,
    )
    return x.astype(np.float32), rng.exponential(size=n) + 0.01


@pytest.fixture(scope="module", params=SPECS, ids=list(SPECS))
def fitted(request):
    x, weight = rows()
    return request.param, nn.preprocessing(SPECS[request.param], NAMES).fit(x, weight)


def extremes():
    """All that float32 has: the ends of its range, both zeros, numbers too small to be normal."""
    values = [0.0, -0.0, 1e-45, -1e-45, 1e-30, 1.0, -1.0, 1e6, -1e20, 1e38, 3e38, 3.2e38, LARGEST, -1e38, -LARGEST]
    return np.repeat(np.array(values, np.float32)[:, None], len(NAMES), axis=1)


def test_every_number_of_float32_gives_a_number(fitted):
    _, transform = fitted
    assert transform(torch.from_numpy(extremes())).isfinite().all()


def test_every_column_rises_with_its_input(fitted):
    _, transform = fitted
    x = np.sort(np.concatenate([rows()[0], extremes()]), axis=0)
    z = transform(torch.from_numpy(x)).numpy()
    assert (np.diff(z, axis=0) >= 0).all()
    inner = np.sort(rows()[0], axis=0)
    assert (z.max(0) > transform(torch.from_numpy(inner)).numpy().max(0)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_the_ends_of_float32_come_out_far_out(fitted, sign):
    """Both models with and without a bound see them as anything but ordinary."""
    _, transform = fitted
    x = torch.tensor([[1e38], [3e38], [3.2e38], [float(LARGEST)]]).repeat(1, len(NAMES)) * sign
    assert (transform(x) * sign > 15).all()


def test_the_range_covers_nearly_all_rows_and_leaves_single_ones_out(fitted):
    _, transform = fitted
    x, weight = rows()
    z = transform(torch.from_numpy(x)).numpy()
    low, high = transform.low.numpy(), transform.high.numpy()
    assert (low < high).all()
    inside = (z >= low - 1e-4) & (z <= high + 1e-4)
    for i in range(len(NAMES)):
        assert np.average(inside[:, i], weights=weight) > 0.99
    # One row more, far away: the range must not follow it.
    far = np.r_[x, np.full((1, 4), 1e5, np.float32)]
    again = nn.preprocessing(SPECS[fitted[0]], NAMES).fit(far, np.r_[weight, weight.mean() / 50])
    assert (again.high.numpy() < again(torch.full((1, 4), 1e5)).numpy()[0] - 1).all()


def test_a_row_is_transformed_alike_alone_and_among_others(fitted):
    _, transform = fitted
    x = torch.from_numpy(rows()[0][:50])
    whole = transform(x)
    assert transform(x[:0]).shape == (0, 4)
    for i in (0, 17, 49):
        torch.testing.assert_close(transform(x[i : i + 1])[0], whole[i], rtol=0, atol=0)


def test_fitted_state_can_be_stored_and_loaded(fitted):
    name, transform = fitted
    other = nn.preprocessing(SPECS[name], NAMES)
    other.load_state_dict(transform.state_dict())
    x = torch.from_numpy(np.r_[rows()[0], extremes()])
    assert torch.equal(other(x), transform(x))


@pytest.mark.parametrize("name", ["quantile", "log", "mixed"])
def test_torch_equals_onnx(name, tmp_path):
    """Above all where the graph searches in another way than torch: at the knots, beyond them, without rows."""
    x, weight = rows()
    transform = nn.preprocessing(SPECS[name], NAMES).fit(x, weight)
    for logger in ("torch.onnx", "onnxscript", "onnx_ir"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    path = str(tmp_path / "transform.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            transform.eval(), (torch.zeros(4, 4),), path, input_names=["x"], output_names=["z"],
            dynamic_shapes=({0: torch.export.Dim("rows")},), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    session = ort.InferenceSession(path)
    knots = nn.QuantileNormal(4).fit(x, weight).x0.reshape(4, -1).T.contiguous().numpy()
    knots = np.where(np.isfinite(knots), knots, 7).astype(np.float32)
    near = [knots, np.nextafter(knots, np.float32(-np.inf)), np.nextafter(knots, np.float32(np.inf))]
    everything = np.concatenate([x, extremes(), *near])
    for batch in (everything, everything[:0], everything[:1], everything[:2]):
        ours = transform(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(session.run(None, {"x": batch})[0], ours, rtol=1e-6, atol=2e-6)


def test_the_search_of_the_graph_and_that_of_torch_find_the_segments_that_counting_finds():
    """The search of the graph, run in torch, against counting knots one by one."""
    x, weight = rows(3)
    transform = nn.QuantileNormal(4).fit(x, weight)
    knots = transform.x0.reshape(4, -1)
    wide = torch.from_numpy(np.r_[x, extremes(), np.nan_to_num(knots.T.numpy(), posinf=0.0)])
    counted = (wide.T[:, :, None] >= knots[:, None, 1:]).sum(-1)
    program = torch.export.export(transform, (wide,))
    assert torch.equal(program.module()(wide), transform(wide))
    assert torch.equal(transform._segment(wide.T.contiguous()), counted + torch.arange(4)[:, None] * 256)


# Standard


def test_standard_has_weighted_mean_0_and_deviation_1():
    x, weight = rows()
    z = nn.Standard(4).fit(x, weight)(torch.from_numpy(x)).numpy().astype(np.float64)
    np.testing.assert_allclose(np.average(z, axis=0, weights=weight), 0, atol=1e-5)
    np.testing.assert_allclose(np.average(z**2, axis=0, weights=weight), 1, atol=1e-5)


def test_standard_equals_scikit_learn():
    preprocessing = pytest.importorskip("sklearn.preprocessing", reason="not installed: scikit-learn")
    x, weight = rows()
    expected = preprocessing.StandardScaler().fit(x.astype(np.float64), sample_weight=weight).transform(x)
    z = nn.Standard(4).fit(x, weight)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
def test_standard_does_not_depend_on_the_unit(shift, scale):
    x, weight = rows(1, 300)
    x = x[:, 1:]  # without the lognormal, whose float32 rounding grows with the shift
    moved = (scale * x.astype(np.float64) + shift).astype(np.float32)
    one = nn.Standard(3).fit(x, weight)(torch.from_numpy(x))
    two = nn.Standard(3).fit(moved, weight)(torch.from_numpy(moved))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5 * (1 + abs(shift) / scale))


def test_a_column_that_is_constant_in_training_keeps_its_unit():
    x, weight = rows()
    x[:, 2] = 7
    transform = nn.Standard(4).fit(x, weight)
    z = transform(torch.tensor([[1.0, 1.0, 7.0, 1.0], [1.0, 1.0, 9.5, 1.0]]))
    assert z[:, 2].tolist() == [0.0, 2.5]
    assert transform.low[2] == transform.high[2] == 0


def test_constant_columns_can_be_refused_and_all_constant_ones_always_are():
    x, weight = rows()
    x[:, 2] = 7
    with pytest.raises(SkimError, match="column count takes one value only"):
        nn.Standard(4, names=NAMES, constant="refuse").fit(x, weight)
    with pytest.raises(SkimError, match="all columns take one value only"):
        nn.Standard(2).fit(np.ones((50, 2), np.float32), np.ones(50))


def test_rows_without_weight_do_not_count():
    x, weight = rows()
    far, none = np.r_[x, np.full((500, 4), 1e4, np.float32)], np.r_[weight, np.zeros(500)]
    for kind in ("standard", "log"):
        one, two = (nn.preprocessing(kind, NAMES).fit(*data) for data in ((x, weight), (far, none)))
        torch.testing.assert_close(one(torch.from_numpy(x)), two(torch.from_numpy(x)), rtol=1e-5, atol=1e-5)


# Log


def test_log_is_the_logarithm_where_x_is_far_above_epsilon():
    x = np.random.default_rng(1).lognormal(0, 3, (5000, 1)).astype(np.float32)
    transform = nn.Log(1).fit(x, np.ones(5000))
    assert 0 < transform.epsilon.item() < 0.01
    z = transform(torch.tensor([[10.0], [100.0], [1000.0]]))[:, 0] * transform.scale
    steps = (z[1:] - z[:-1]).tolist()
    assert steps == pytest.approx([np.log(10)] * 2, rel=1e-3)


def test_log_equals_log_of_x_plus_epsilon_standardised():
    x, weight = rows()
    transform = nn.Log(4).fit(x, weight)
    positive = np.abs(x).astype(np.float64)
    y = np.log(positive + transform.epsilon.numpy()) - np.log(transform.epsilon.numpy())
    expected = (y - transform.mean.numpy()) / transform.scale.numpy()
    np.testing.assert_allclose(transform(torch.from_numpy(np.abs(x))).numpy(), expected, rtol=1e-4, atol=1e-5)
    z = transform(torch.from_numpy(x)).numpy().astype(np.float64)
    np.testing.assert_allclose(np.average(z**2, axis=0, weights=weight), 1, atol=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=30, unique=True))
def test_log_of_any_finite_column_is_finite(values):
    x = np.array(values, np.float32)[:, None]
    if np.ptp(np.sign(x) * np.log1p(np.abs(x.astype(np.float64)))) < 1e-6:
        return
    z = nn.Log(1).fit(x, np.ones(len(x)))(torch.from_numpy(np.r_[x, extremes()[:, :1]]))
    assert z.isfinite().all()


def test_an_atom_at_zero_lies_near_the_smallest_values():
    rng = np.random.default_rng(2)
    x = np.where(rng.random(4000) < 0.3, 0, rng.lognormal(2, 1, 4000)).astype(np.float32)[:, None]
    transform = nn.Log(1).fit(x, np.ones(4000))
    zero = transform(torch.zeros(1, 1)).item()
    assert -4 < zero < transform(torch.tensor([[0.5]])).item()


# What cannot be transformed


@pytest.mark.parametrize("kind", ["quantile", "log"])
def test_a_constant_column_is_named(kind):
    x, weight = rows()
    x[:, 1] = 3
    with pytest.raises(SkimError, match=r"column tau2 .*cannot be transformed"):
        nn.preprocessing(kind, NAMES).fit(x, weight)
    with pytest.raises(SkimError, match="column tau2"):
        nn.preprocessing({"tau2": kind, "*": "standard"}, NAMES).fit(x, weight)


def test_values_near_the_end_of_float32_have_no_quantile_transform():
    x, weight = rows()
    x[5, 0] = 2e38
    with pytest.raises(SkimError, match=r"column mass reaches 2e\+38"):
        nn.preprocessing("quantile", NAMES).fit(x, weight)


@pytest.mark.parametrize("spec", [s for s in SPECS.values() if s != "none"], ids=[s for s in SPECS if s != "none"])
def test_rows_that_are_not_flat_are_refused(spec):
    with pytest.raises(SkimError, match="flat rows"):
        nn.preprocessing(spec, NAMES).fit(np.zeros((20, 3, 4), np.float32), np.ones(20))


def test_none_takes_rows_of_any_shape_and_constant_columns():
    rng = np.random.default_rng(1)
    tracks = rng.random((20, 3, 4)).astype(np.float32)
    transform = nn.preprocessing("none", NAMES).fit(tracks, np.ones(20))
    assert torch.equal(transform(torch.from_numpy(tracks)), torch.from_numpy(tracks))
    np.testing.assert_array_equal(transform.high.numpy(), tracks.max(axis=(0, 1)))
    image = nn.Unchanged(1).fit(rng.random((20, 1, 6, 6)).astype(np.float32), np.ones(20))
    assert image.low.item() < 0.1
    assert image.high.item() > 0.9
    flat = nn.Unchanged(2).fit(np.full((20, 2), 5, np.float32), np.ones(20))
    assert flat.low.tolist() == flat.high.tolist() == [5, 5]


# The option


def test_a_kind_for_each_column_does_what_the_kind_does_alone():
    x, weight = rows()
    z = nn.preprocessing(SPECS["mixed"], NAMES).fit(x, weight)(torch.from_numpy(x))
    for i, kind in enumerate(["log", "quantile", "none", "standard"]):
        alone = nn.preprocessing(kind, NAMES[i : i + 1]).fit(x[:, i : i + 1], weight)
        assert torch.equal(z[:, i], alone(torch.from_numpy(x[:, i : i + 1]))[:, 0])


def test_one_kind_for_all_needs_no_columns():
    assert type(nn.preprocessing({"*": "log"}, NAMES)) is nn.Log
    assert type(nn.preprocessing(dict.fromkeys(NAMES, "none"), NAMES)) is nn.Unchanged


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("quantiles", "unknown preprocessing 'quantiles'; did you mean 'quantile'"),
        ({"*": "logg"}, "unknown preprocessing 'logg'; did you mean 'log'"),
        ({"tau22": "log", "*": "none"}, "unknown column 'tau22'; did you mean 'tau2'"),
        ({"mass": "log", "count": "none"}, "no kind is given for tau2, atom"),
        ({}, "no kind is given for mass, tau2, count, atom"),
    ],
)
def test_a_wrong_option_is_one_sentence(spec, message):
    with pytest.raises(ConfigError, match=message):
        nn.preprocessing(spec, NAMES)


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    preprocessing: nn.Preprocessing = "quantile"


def test_recipes_check_the_option_when_they_read_it():
    assert load_config(Recipe, None, ["preprocessing=log"]).preprocessing == "log"
    assert load_config(Recipe, None, ["preprocessing={mass: log, '*': none}"]).model_dump(mode="json") == {
        "preprocessing": {"mass": "log", "*": "none"}
    }
    with pytest.raises(ConfigError, match="did you mean 'standard'"):
        load_config(Recipe, None, ["preprocessing=standart"])
    with pytest.raises(ConfigError, match="did you mean 'log'"):
        load_config(Recipe, None, ["preprocessing.mass=lg"])
