"""Nearest neighbours, Mahalanobis distance and Gaussian mixture against slow twins and scikit-learn, and their laws."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
pytest.importorskip("sklearn", reason="not installed: scikit-learn")

from sklearn import covariance, mixture, neighbors
from toys import toy_skim

from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.scoring.scorer import OnnxScorer

PLAIN = torch.nn.Identity()
EACH = {
    "mean": lambda transform, d=8: nn.Neighbours(d, k=7, bank=300, transform=transform),
    "cosine": lambda transform, d=8: nn.Neighbours(d, k=7, bank=300, how="kth", metric="cosine", transform=transform),
    "logsumexp": lambda transform, d=8: nn.Neighbours(d, how="logsumexp", bank=300, transform=transform),
    "mahalanobis": lambda transform, d=8: nn.Mahalanobis(d, transform=transform),
    "full": lambda transform, d=8: nn.GaussianMixture(d, components=2, transform=transform),
    "diag": lambda transform, d=8: nn.GaussianMixture(d, components=2, covariance="diag", transform=transform),
}


def rows(seed=0, n=400, d=5):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)).astype(np.float32)


def fitted(model, z, weight=None, seed=1):
    z = torch.as_tensor(z)
    model.learn([(z, torch.ones(len(z)) if weight is None else torch.as_tensor(weight))])
    model.start(nn.Batch.of(z), torch.Generator().manual_seed(seed))
    return model.eval()


def energies(model, z):
    return model.energy(torch.as_tensor(z)).numpy()


# Neighbours


def slow(z, bank, how, metric, k, temperature):
    """One row of the bank after another."""
    out = []
    for row in z.astype(np.float64):
        cosines = [float(row @ b / np.linalg.norm(row) / np.linalg.norm(b)) for b in bank.astype(np.float64)]
        if how == "logsumexp":
            out.append(-math.log(np.mean([math.exp(c / temperature) for c in cosines])))
            continue
        distances = [1 - c for c in cosines] if metric == "cosine" else [float(np.linalg.norm(row - b)) for b in bank]
        nearest = sorted(distances)[:k]
        out.append(nearest[-1] if how == "kth" else sum(nearest) / k)
    return np.array(out)


@pytest.mark.parametrize(
    ("how", "metric"),
    [("mean", "euclidean"), ("kth", "euclidean"), ("mean", "cosine"), ("kth", "cosine"), ("logsumexp", "euclidean")],
)
def test_distances_are_those_of_a_loop_over_the_bank(how, metric):
    model = nn.Neighbours(5, how=how, metric=metric, k=6, bank=120, temperature=0.2, transform=PLAIN)
    z, new = rows(n=120), rows(1, 40)
    got = energies(fitted(model, z), new)
    np.testing.assert_allclose(got, slow(new, z, how, metric, 6, 0.2), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_are_those_of_scikit_learn(metric):
    z, new = rows(n=2000, d=30), rows(1, 3000, d=30)
    model = fitted(nn.Neighbours(30, metric=metric, transform=PLAIN), z)
    expected, _ = neighbors.NearestNeighbors(n_neighbors=30, metric=metric, algorithm="brute").fit(z).kneighbors(new)
    np.testing.assert_allclose(energies(model, new), expected.mean(axis=1), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_distances_do_not_change_when_space_is_turned(seed, shift, scale):
    z, new = rows(seed, 100), rows(seed + 1, 30)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0].astype(np.float32)

    def score(z, new, **options):
        return energies(fitted(nn.Neighbours(5, k=5, transform=PLAIN, **options), z), new)

    one = score(z, new)
    np.testing.assert_allclose(score(z @ turn + np.float32(shift), new @ turn + np.float32(shift)), one, rtol=1e-3)
    np.testing.assert_allclose(score(z[::-1].copy(), new), one, rtol=1e-5)  # the order of the bank is of no matter
    for options in ({"metric": "cosine"}, {"how": "logsumexp"}):  # lengths are of none here
        turned = score(z @ turn, np.float32(scale) * new @ turn, **options)
        np.testing.assert_allclose(turned, score(z, new, **options), rtol=1e-4, atol=1e-5)


def test_a_row_of_the_bank_has_the_distance_0_and_a_far_one_keeps_its_digits():
    z = rows(n=200) + 50
    model = fitted(nn.Neighbours(5, how="kth", k=1, transform=PLAIN), z)
    assert (energies(model, z) == 0).all()
    assert (energies(model, rows(1, 200) + 50) > 0).all()
    far = np.eye(5, dtype=np.float32)[:1] * 1e6
    assert energies(model, far)[0] == pytest.approx(np.linalg.norm(far - z.astype(np.float64), axis=1).min(), rel=1e-6)


def test_a_row_of_zeros_has_no_direction_and_the_cosine_0():
    model = fitted(nn.Neighbours(5, k=5, metric="cosine", transform=PLAIN), rows())
    assert energies(model, np.zeros((1, 5), np.float32))[0] == 1
    model = fitted(nn.Neighbours(5, how="logsumexp", transform=PLAIN), rows())
    assert energies(model, np.zeros((1, 5), np.float32))[0] == pytest.approx(0, abs=1e-5)


def test_the_bank_holds_training_rows_in_proportion_to_their_weights():
    data = toy_skim()
    data.weight[:] = np.where(data.x[:, 0] > 0, 3.0, 1.0)
    model = nn.Neighbours(8, bank=500, transform=nn.Standard(8))
    nn.fit(model, data, nn.TrainConfig(validation_rows=200))
    bank = {row.tobytes() for row in model.bank.numpy()}
    placed = {
        split: {row.tobytes() for row in model.transform(torch.from_numpy(data.splits(split).x)).numpy()}
        for split in ("train", "validation", "test")
    }
    assert len(model.bank) == 500
    assert bank <= placed["train"]
    assert not bank & (placed["validation"] | placed["test"])
    positive = (model.bank @ torch.diag(model.transform.scale) + model.transform.mean)[:, 0] > 0
    train = data.splits("train")
    expected = train.weight[train.x[:, 0] > 0].sum() / train.weight.sum()
    assert positive.float().mean().item() == pytest.approx(expected, abs=0.07)


def test_of_few_rows_the_bank_has_no_more_and_comes_back_from_its_folder(tmp_path):
    data = toy_skim(n=600)
    model = nn.Neighbours(8, how="logsumexp", transform=nn.Standard(8))
    nn.fit(model, data, nn.TrainConfig(validation_rows=100), tmp_path)
    assert len(model.bank) == (data.split == "train").sum() < 300
    np.testing.assert_array_equal(nn.load(tmp_path).scores(data.x), model.scores(data.x))


# Mahalanobis


def test_the_shrunk_distance_is_that_of_scikit_learn():
    for n, d in ((60, 5), (400, 5), (40, 64)):  # fewer rows than columns, too
        z = rows(n=n, d=d)
        model = fitted(nn.Mahalanobis(d, transform=PLAIN), z)
        twin = covariance.LedoitWolf().fit(z.astype(np.float64))
        assert 0 < twin.shrinkage_ < 1
        # the same α, on the covariance over n − 1
        unbiased = twin.covariance_ * n / (n - 1)
        c = z.astype(np.float64) - twin.location_
        expected = np.einsum("ni,ij,nj->n", c, np.linalg.inv(unbiased), c)
        np.testing.assert_allclose(energies(model, z), expected, rtol=1e-4)


def test_shrinkage_of_weighted_rows_is_that_of_a_loop_in_any_blocks():
    z, weight = rows(n=50).astype(np.float64) + 30, np.random.default_rng(1).exponential(size=50)
    share = weight / weight.sum()
    c = z - share @ z
    s = sum(w * np.outer(row, row) for w, row in zip(share, c, strict=True))
    noise = sum(w**2 * ((np.outer(row, row) - s) ** 2).sum() for w, row in zip(share, c, strict=True))
    alpha = min(1.0, noise / ((s - np.trace(s) / 5 * np.eye(5)) ** 2).sum())
    assert 0.01 < alpha < 0.9
    unbiased = s / (1 - (share**2).sum())
    shrunk = (1 - alpha) * unbiased + alpha * np.trace(s) / (1 - (share**2).sum()) / 5 * np.eye(5)
    expected = np.einsum("ni,ij,nj->n", c, np.linalg.inv(shrunk), c)
    for edges in ([], [1], [7, 8, 30]):
        model = nn.Mahalanobis(5, transform=PLAIN)
        parts = zip(np.split(z, edges), np.split(weight, edges), strict=True)
        model.learn([(torch.from_numpy(a), torch.from_numpy(w)) for a, w in parts])
        np.testing.assert_allclose(energies(model, z), expected, rtol=1e-7)


def test_without_shrinkage_it_is_the_distance_of_the_pca_and_with_all_of_it_the_length():
    z = rows()
    none = fitted(nn.Mahalanobis(5, shrinkage=0.0, transform=PLAIN), z)
    pca = fitted(nn.PCA(5, components=5, score="mahalanobis", transform=PLAIN), z)
    np.testing.assert_array_equal(energies(none, z), energies(pca, z))
    whole = energies(fitted(nn.Mahalanobis(5, shrinkage=1.0, transform=PLAIN), z), z)
    length = ((z - z.mean(axis=0)) ** 2).sum(axis=1)
    np.testing.assert_allclose(whole / length, (whole / length).mean(), rtol=1e-4)


def test_columns_that_do_not_vary_need_shrinkage():
    z = rows()
    z[:, 1] = z[:, 0]
    with pytest.raises(SkimError, match="do not vary along 1 of 5 directions"):
        fitted(nn.Mahalanobis(5, shrinkage=0.0, transform=PLAIN), z)
    assert np.isfinite(energies(fitted(nn.Mahalanobis(5, transform=PLAIN), z), z)).all()


# The mixture


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_the_mixture_is_that_of_scikit_learn(kind):
    z = np.concatenate([rows(0, 300), rows(1, 200) + 8])
    model = fitted(nn.GaussianMixture(5, components=2, covariance=kind, transform=PLAIN), z)
    twin = mixture.GaussianMixture(2, covariance_type=kind, reg_covar=1e-4, tol=1e-6, max_iter=500, random_state=1)
    twin.fit(z.astype(np.float64))
    new = np.concatenate([rows(2, 50), 30 * rows(3, 50)])
    expected = -twin.score_samples(new.astype(np.float64))
    np.testing.assert_allclose(energies(model, new), expected, rtol=0.02, atol=0.02)  # where the iterations have ended


def test_a_density_of_x_is_normalised_in_x_and_one_behind_an_encoder_is_of_z():
    x = np.random.default_rng(1).exponential(size=(3000, 1)).astype(np.float32) + 1
    model = nn.GaussianMixture(1, components=3, transform=nn.Log(1).fit(x, np.ones(len(x))))
    fitted(model, model.transform(torch.from_numpy(x)))
    points = np.geomspace(1e-3, 1e3, 200_001)[:, None].astype(np.float32)
    density = np.exp(-model.scores(points).astype(np.float64))
    assert np.trapezoid(density, points[:, 0]) == pytest.approx(1, abs=1e-3)
    assert model.density == "x"
    behind = nn.Representation(torch.nn.Linear(1, 2), nn.Standard(2), row_shape=(1,))
    assert nn.GaussianMixture(2, transform=behind).density == "z"


# What holds for all of them


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("kind", ["quantile", "standard", "log"])
def test_no_finite_row_loses_its_score(name, kind):
    model = EACH[name](nn.preprocessing(kind, [f"c{i}" for i in range(8)]))
    nn.fit(model, toy_skim(), nn.TrainConfig(validation_rows=200))
    extreme = np.tile(np.array([[0], [1e-40], [3.4e38], [-3.4e38], [1e12]], np.float32), 8)
    assert np.isfinite(model.scores(extreme)).all()
    extreme[1, 3] = np.nan
    assert np.isnan(model.scores(extreme)).tolist() == [False, True, False, False, False]


class DeepSets(torch.nn.Module):
    """Sets of constituents to six numbers."""

    def __init__(self):
        super().__init__()
        self.shape = (12, 3)
        self.inner, self.outer = torch.nn.Linear(3, 16), torch.nn.Linear(16, 6)

    def forward(self, x):
        present = (x != 0).any(dim=2, keepdim=True).to(x.dtype)
        return self.outer((torch.relu(self.inner(x)) * present).sum(dim=1))


def test_they_stand_behind_an_encoder_of_sets():
    """In one graph for the nearest rows; the others differ in nothing that the encoder could see."""
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 12, 3)).astype(np.float32)
    x[rng.random((500, 12)) < 0.4] = 0
    for name, make in EACH.items():
        model = make(nn.Representation(DeepSets(), nn.Standard(6)).fit(x, np.ones(500)), 6)
        fitted(model, model.transform(torch.from_numpy(x)))
        assert model.shape == (12, 3)
        expected = model.scores(x)
        assert np.isfinite(expected).all()
        assert np.ptp(expected) > 0
        np.testing.assert_allclose(model.scores(x[:, ::-1].copy()), expected, rtol=1e-3, atol=1e-4)
        if name != "mean":
            continue
        import onnxruntime

        graph = model.graph(["score"])
        assert 300 * 6 * 4 < len(graph) < 300 * 6 * 4 + 60_000
        session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        broken = x.copy()
        broken[3, 5, 1], broken[4] = np.nan, 0
        for n in (1, 5, 500):
            (got,) = session.run(["score"], {"features": broken[:n]})
            np.testing.assert_allclose(got, model.scores(broken[:n]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Neighbours(5, k=0, transform=PLAIN), "k is 0, but must lie between 1 and the 20000 rows"),
        (lambda: nn.Neighbours(5, how="median", transform=PLAIN), "unknown how 'median'"),
        (lambda: nn.Neighbours(5, metric="euclidian", transform=PLAIN), "did you mean 'euclidean'"),
        (lambda: nn.Neighbours(5, temperature=0.0, transform=PLAIN), "temperature is 0.0"),
        (lambda: nn.Mahalanobis(5, shrinkage=1.5, transform=PLAIN), "shrinkage is 1.5, but must be ledoit_wolf, or"),
        (lambda: nn.GaussianMixture(5, components=0, transform=PLAIN), "components is 0"),
        (lambda: nn.GaussianMixture(5, covariance="tied", transform=PLAIN), "unknown covariance 'tied'"),
        (lambda: nn.GaussianMixture(5, floor=0.0, transform=PLAIN), "floor is 0.0"),
    ],
)
def test_impossible_settings_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_too_few_rows_are_refused():
    with pytest.raises(SkimError, match="30 neighbours cannot be taken from 20 rows; lower k"):
        fitted(nn.Neighbours(5, transform=PLAIN), rows(n=20))
    with pytest.raises(SkimError, match="4 components cannot be fitted to 3 rows"):
        fitted(nn.GaussianMixture(5, transform=PLAIN), rows(n=3))
    with pytest.raises(SkimError, match="a covariance cannot be fitted to one row"):
        fitted(nn.Mahalanobis(5, transform=PLAIN), rows(n=1))


# The recipe


def config(*overrides):
    recipe = recipes.load("nearest")
    path = Path(recipes.__file__).parent.parent / "training" / "nearest" / "svj.yaml"
    return recipe, load_config(recipe.Config, path, ["data=none", *overrides])


def test_the_recipe_makes_what_its_options_say():
    data, recipe = toy_skim(), recipes.load("nearest")

    def built(*overrides):
        return recipe.build(recipe.Config(data="none", **dict(overrides)), data)

    model = recipe.build(config("metric=cosine", "k=5")[1], data)
    assert (model.how, model.metric, model.k, model.most) == ("mean", "cosine", 5, 20_000)
    assert type(model.transform) is nn.Standard
    model = built(("score", "cosine"), ("temperature", 0.3), ("bank", 20))
    assert (type(model), model.how, model.temperature, model.most) == (nn.Neighbours, "logsumexp", 0.3, 20)
    model = built(("score", "mahalanobis"), ("shrinkage", 0.1))
    assert (type(model), model.shrinkage) == (nn.Mahalanobis, 0.1)
    model = built(("score", "mixture"), ("components", 3), ("covariance", "diag"))
    assert (type(model), model.components, model.covariance) == (nn.GaussianMixture, 3, "diag")
    with pytest.raises(ConfigError, match="k, shrinkage: score=mixture has no use for this key"):
        built(("score", "mixture"), ("k", 3), ("shrinkage", 0.1))


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_folds_do_not_know_the_rows_they_score(monkeypatch, tmp_path):
    recipe, settings_of = config("train.validation_rows=100", "bank=100", "k=1", "how=kth", "folds=3")
    skim = toy_skim(n=900)
    ids = {"run": np.ones(900, np.int64), "luminosityBlock": np.ones(900, np.int64), "event": np.arange(900)}
    data = dataclasses.replace(skim, spectators=ids)
    monkeypatch.setattr("coffea_ad.nn.recipe.load_skim", lambda *_, **__: data)
    monkeypatch.setattr(nn, "fit_folds", functools.partial(nn.fit_folds, workers=1))
    recipe.train(settings_of, tmp_path / "nearest.onnx")
    scorer = OnnxScorer(tmp_path / "nearest.onnx")
    assert scorer.card.method == "nearest neighbours"
    folds = scorer.card.folds.of(ids)
    scores = scorer(data.x, folds)
    assert (scores > 1e-3).all()  # no row is its own neighbour
    of_trained = scorer(data.x, (folds + 1) % 3)  # as it would be in the member that trained on it
    assert 150 < (of_trained < 1e-5).sum() < 300
