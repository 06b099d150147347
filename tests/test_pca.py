"""PCA and kernel PCA against scikit-learn, against each other, and their laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_ad.nn.model import Batch

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
decomposition = pytest.importorskip("sklearn.decomposition", reason="not installed: scikit-learn")

from test_nn_laws import quick, toy_skim

from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.scoring.scorer import OnnxScorer

MODELS = {
    "pca": lambda transform: nn.PCA(8, components=4, transform=transform),
    "mahalanobis": lambda transform: nn.PCA(8, components=8, score="mahalanobis", transform=transform),
    "rbf": lambda transform: nn.KernelPCA(8, components=10, landmarks=120, transform=transform),
    "polynomial": lambda transform: nn.KernelPCA(
        8, components=10, landmarks=120, kernel="polynomial", transform=transform
    ),
}


@pytest.fixture(scope="module")
def data():
    return toy_skim()


@pytest.fixture(scope="module", params=MODELS, ids=list(MODELS))
def fitted(request, data):
    model = MODELS[request.param](nn.QuantileNormal(8))
    return request.param, model, nn.fit(model, data, quick())


def started(model, z, seed=1):
    z = torch.as_tensor(z)
    model.learn([(z, torch.ones(len(z)))])
    model.start(Batch.of(z), torch.Generator().manual_seed(seed))
    return model


def rows(seed=0, n=400, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def plain(make, **kwargs):
    return make(5, transform=torch.nn.Identity(), **kwargs)


# Against scikit-learn, on the same rows


def test_reconstruction_equals_scikit_learn():
    z = rows()
    model = started(plain(nn.PCA, components=2), z)
    fitted = decomposition.PCA(2).fit(z)
    expected = ((z - fitted.inverse_transform(fitted.transform(z))) ** 2).mean(axis=1)
    np.testing.assert_allclose(model.energy(torch.from_numpy(z)).numpy(), expected, rtol=1e-8)


def test_mahalanobis_equals_scikit_learn():
    covariance = pytest.importorskip("sklearn.covariance")
    z = rows()
    model = started(plain(nn.PCA, components=5, score="mahalanobis"), z)
    expected = covariance.EmpiricalCovariance().fit(z).mahalanobis(z) * (len(z) - 1) / len(z)  # n against n − 1
    np.testing.assert_allclose(model.energy(torch.from_numpy(z)).numpy(), expected, rtol=1e-8)


@pytest.mark.parametrize(("kernel", "name"), [("rbf", "rbf"), ("polynomial", "poly")])
def test_kernel_pca_equals_scikit_learn(kernel, name):
    """|φ̃|² from the centred kernel matrix of all rows, less what scikit-learn's own projection explains."""
    z = rows(n=150)
    model = started(plain(nn.KernelPCA, components=6, kernel=kernel, gamma=0.1, landmarks=150), z)
    landmarks = model.landmarks.double().numpy()
    fitted = decomposition.KernelPCA(6, kernel=name, gamma=0.1, coef0=1, degree=3, eigen_solver="dense").fit(landmarks)
    new = rows(1, 80)
    table, within = fitted._get_kernel(new, landmarks), fitted._get_kernel(landmarks)
    itself = np.array([fitted._get_kernel(row[None])[0, 0] for row in new])
    length = itself - 2 * table.mean(axis=1) + within.mean()
    expected = length - (fitted.transform(new) ** 2).sum(axis=1)
    got = model.energy(torch.from_numpy(new)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * length.max())


def test_kernel_pca_of_degree_one_is_pca():
    """The kernel γ z·l + 1 spans the inputs themselves, scaled by √γ; the mean error is the squared distance over d."""
    z = rows(n=200).astype(np.float32).astype(np.float64)  # landmarks are kept in single precision
    kernel = started(plain(nn.KernelPCA, components=2, kernel="polynomial", degree=1, gamma=0.5, landmarks=200), z)
    linear = started(plain(nn.PCA, components=2), z)
    new = torch.from_numpy(rows(1, 50))
    np.testing.assert_allclose(kernel.energy(new).numpy(), 0.5 * 5 * linear.energy(new).numpy(), rtol=1e-6)


# What must hold


def rotation(seed, d=5):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), components=st.integers(1, 4))
def test_no_score_changes_when_all_rows_are_rotated(seed, components):
    z, turn = rows(seed, 200), rotation(seed)
    models = (
        lambda: plain(nn.PCA, components=components),
        lambda: plain(nn.PCA, components=5, score="mahalanobis"),
        lambda: plain(nn.KernelPCA, components=components, landmarks=50),
    )
    for make in models:
        one = started(make(), z).energy(torch.from_numpy(z)).numpy()
        two = started(make(), z @ turn).energy(torch.from_numpy(z @ turn)).numpy()
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)
    assert np.ptp(one) > 0


@settings(deadline=None, max_examples=15)
@given(scale=st.lists(st.floats(0.1, 10), min_size=5, max_size=5), seed=st.integers(0, 100))
def test_mahalanobis_does_not_depend_on_the_units(scale, seed):
    z = rows(seed)
    one = started(plain(nn.PCA, components=5, score="mahalanobis"), z)
    two = started(plain(nn.PCA, components=5, score="mahalanobis"), z * scale)
    got = two.energy(torch.from_numpy(z * scale)).numpy()
    np.testing.assert_allclose(got, one.energy(torch.from_numpy(z)).numpy(), rtol=1e-6)
    assert got.mean() == pytest.approx(5, rel=0.01)  # the trace of C⁻¹C


def test_all_components_leave_nothing_and_more_of_them_never_leave_more():
    z = torch.from_numpy(rows())
    left = [started(plain(nn.PCA, components=k), z).energy(z).numpy() for k in (1, 2, 3, 4, 5)]
    assert left[-1].max() < 1e-20
    assert (np.diff(left, axis=0) <= 1e-12).all()
    assert left[0].mean() > left[3].mean() > 0


def test_many_rows_are_scored_as_few_are():
    model = started(plain(nn.KernelPCA, landmarks=20, components=3), rows(n=50))
    many = torch.from_numpy(rows(2, 20_000))
    got = model.energy(many)
    assert got.shape == (20_000,)
    torch.testing.assert_close(got[8190:8195], model.energy(many[8190:8195]), rtol=1e-6, atol=1e-9)


def test_landmarks_are_explained_by_all_their_directions():
    model = started(plain(nn.KernelPCA, components=39, landmarks=40), rows(n=100))
    assert model.energy(model.landmarks).max() < 1e-5
    assert model.energy(model.landmarks + 1).min() > 1e-3


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=5, max_size=5))
def test_no_score_is_negative(values):
    z = rows(n=150)
    point = torch.tensor([values])
    for make, kwargs in (
        (nn.PCA, {"components": 2}),
        (nn.PCA, {"components": 5, "score": "mahalanobis"}),
        (nn.KernelPCA, {"landmarks": 60}),
        (nn.KernelPCA, {"landmarks": 60, "kernel": "polynomial"}),
    ):
        assert started(plain(make, **kwargs), z).energy(point).item() >= 0


def test_a_kernel_sees_what_no_line_can():
    """Rows on a ring: its centre lies on every principal line, and is far from the ring."""
    angle = np.random.default_rng(1).uniform(0, 2 * np.pi, 500)
    ring, centre = np.stack([np.cos(angle), np.sin(angle)], 1), torch.zeros(1, 2, dtype=torch.float64)
    line = started(nn.PCA(2, components=1, transform=torch.nn.Identity()), ring)
    curve = started(nn.KernelPCA(2, components=8, landmarks=200, transform=torch.nn.Identity()), ring)
    assert (line.energy(torch.from_numpy(ring)) > line.energy(centre)).double().mean() > 0.9
    assert (curve.energy(torch.from_numpy(ring)) > curve.energy(centre)).double().mean() < 0.1


# In the training loop and in the file


def test_the_score_finds_what_breaks_the_correlations(fitted, data):
    _, model, history = fitted
    assert len(history) == 1
    assert np.isfinite(history[0][model.criterion])
    rng = np.random.default_rng(3)
    broken = np.stack([rng.permutation(column) for column in data.x.T], axis=1)
    score, anomalous = model.scores(data.x), model.scores(broken)
    wins = (anomalous[:, None] > np.quantile(score, np.linspace(0, 1, 101))).mean()
    assert wins > 0.6


def test_undefined_rows_have_no_score_and_do_not_touch_others(fitted, data):
    _, model, _ = fitted
    x = data.x[:4].copy()
    x[1, 0], x[3, 5] = np.nan, np.inf
    got = model.scores(x)
    assert np.isnan(got).tolist() == [False, True, False, True]
    np.testing.assert_allclose(got[[0, 2]], model.scores(data.x[:4])[[0, 2]], rtol=1e-5)
    assert model.scores(x[:0]).shape == (0,)


def test_the_same_seed_gives_the_same_model(fitted, data):
    name, model, history = fitted
    again = MODELS[name](nn.QuantileNormal(8))
    assert nn.fit(again, data, quick()) == history
    np.testing.assert_array_equal(again.scores(data.x), model.scores(data.x))


@pytest.mark.parametrize("kind", ["quantile", "standard", "log"])
@pytest.mark.parametrize("name", ["pca", "mahalanobis", "rbf", "polynomial"])
def test_no_finite_row_loses_its_score(name, kind, data):
    model = MODELS[name](nn.preprocessing(kind, [f"c{i}" for i in range(8)]))
    nn.fit(model, data, quick())
    extreme = np.tile(np.array([[0], [1e-40], [3.4e38], [-3.4e38], [1e12]], np.float32), 8)
    assert np.isfinite(model.scores(extreme)).all()


def test_torch_equals_onnx_and_the_file_is_small(fitted, data, tmp_path):
    _, model, history = fitted
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    path = nn.export(model, tmp_path / "model.onnx", card, data.x[:500])
    scorer = OnnxScorer(path)
    for n in (0, 1, 2, len(data.x)):
        np.testing.assert_allclose(scorer(data.x[:n]), model.scores(data.x[:n]), rtol=1e-5, atol=1e-5)
    assert path.stat().st_size < 200_000
    assert [r.name for r in card.regions][:1] == ["loose"]


def test_a_kernel_on_wide_rows_stays_below_five_megabytes(tmp_path):
    """Landmarks of the rapidity-mass matrix: 500 times 1287 numbers."""
    model = nn.KernelPCA(1287, landmarks=500, transform=torch.nn.Identity())
    z = torch.randn(600, 1287, generator=torch.Generator().manual_seed(1))
    assert len(started(model, z).eval().graph(["score"])) < 5_000_000


# What is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plain(nn.PCA, components=6), "components is 6, but must lie between 1 and the number of columns, 5"),
        (lambda: plain(nn.KernelPCA, components=50, landmarks=50), "components is 50, .* 50 landmarks"),
    ],
)
def test_impossible_numbers_of_components_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_rows_that_cannot_carry_the_model_are_refused():
    z = rows()
    z[:, 1] = z[:, 0]
    with pytest.raises(SkimError, match="do not vary along 1 of 5 directions"):
        started(plain(nn.PCA, components=5, score="mahalanobis"), z)
    assert started(plain(nn.PCA, components=2), z).energy(torch.from_numpy(z)).isfinite().all()
    with pytest.raises(SkimError, match="500 landmarks cannot be drawn from 400 rows"):
        started(plain(nn.KernelPCA), z)
    with pytest.raises(SkimError, match="2 components cannot be fitted to 2 rows"):
        started(plain(nn.PCA, components=2), z[:2])
    with pytest.raises(SkimError, match="pairs of landmarks are equal"):
        started(plain(nn.KernelPCA, landmarks=100), np.repeat(z[:1], 200, axis=0))


# The recipe


def config(*overrides):
    recipe = recipes.load("pca")
    path = Path(recipes.__file__).parent.parent / "training" / "pca" / "svj.yaml"
    return recipe, load_config(recipe.Config, path, ["data=none", *overrides])


def test_the_recipe_makes_what_its_options_say():
    data = toy_skim()
    recipe, usual = config()
    model = recipe.build(usual, data)
    assert (type(model), model.components, type(model.transform)) == (nn.PCA, 4, nn.QuantileNormal)
    model = recipe.build(config("score=mahalanobis", "preprocessing=standard")[1], data)
    assert (model.score_kind, type(model.transform)) == ("mahalanobis", nn.Standard)
    model = recipe.build(config("kind=kernel_pca", "components=16", "kernel=polynomial", "gamma=0.2")[1], data)
    assert (type(model), model.kernel, model.given, len(model.landmarks)) == (nn.KernelPCA, "polynomial", 0.2, 500)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["components=8"], "components is 8: with all 8 columns"),
        (["kind=kernel_pca", "score=mahalanobis"], "kernel_pca has no score 'mahalanobis'"),
    ],
)
def test_options_that_contradict_each_other_are_refused(overrides, message):
    recipe, chosen = config(*overrides)
    with pytest.raises(ConfigError, match=message):
        recipe.build(chosen, toy_skim())


def test_the_recipe_trains_and_writes_a_file(monkeypatch, data, tmp_path):
    recipe, chosen = config("train.validation_rows=200")
    monkeypatch.setattr("coffea_ad.nn.recipe.load_skim", lambda *_, **__: data)
    summary = recipe.train(chosen, tmp_path / "pca.onnx")
    assert summary["regions"][:1] == ["loose"]
    scorer = OnnxScorer(tmp_path / "pca.onnx")
    assert scorer.card.method == "PCA"
    assert scorer.card.provenance["config"]["components"] == 4
    assert np.isfinite(scorer(data.x)).all()
