"""What is fitted without gradients is exact: PCA from all weighted rows, quantiles with atoms among any number of rows."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from scipy.special import ndtri
from toys import toy_skim

from coffea_ad import nn
from coffea_ad.errors import SkimError
from coffea_ad.nn.reconstruction.pca import moments


def learnt(blocks, **options):
    model = nn.PCA(8, transform=torch.nn.Identity(), **options)
    model.learn([(torch.from_numpy(z), torch.from_numpy(w)) for z, w in blocks])
    return model


def rows(n=600, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8)) + 100, rng.exponential(size=n)


# PCA


def test_the_covariance_is_that_of_numpy_with_the_same_weights():
    z, w = rows()
    mean, covariance, n = moments([(torch.from_numpy(z), torch.from_numpy(w))], 8)
    assert n == 600
    np.testing.assert_allclose(mean, np.average(z, axis=0, weights=w), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(z.T, aweights=w), rtol=1e-10)


def test_blocks_give_what_all_rows_at_once_give():
    z, w = rows()
    whole = learnt([(z, w)], components=3)
    blocks = learnt([(z[:7], w[:7]), (z[7:300], w[7:300]), (z[300:], w[300:])], components=3)
    torch.testing.assert_close(blocks.mean, whole.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(blocks.basis, whole.basis, rtol=0, atol=1e-10)


@pytest.mark.parametrize("score", ["reconstruction", "mahalanobis"])
def test_a_weight_of_two_is_the_row_twice_but_for_the_number_of_rows(score):
    z, _ = rows()
    w = np.where(np.arange(len(z)) % 3, 1.0, 2.0)
    one = learnt([(z, w)], components=8 if score == "mahalanobis" else 3, score=score)
    two = learnt([(np.r_[z, z[::3]], np.ones(len(z) + len(z[::3])))], components=one.components, score=score)
    ratio = (one.energy(torch.from_numpy(z)) / two.energy(torch.from_numpy(z))).numpy()
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-9)
    assert ratio.mean() == pytest.approx(1, abs=0.01)


def test_a_pca_is_that_of_all_weighted_rows_of_a_skim_whatever_the_seed():
    data = toy_skim()
    models = [nn.PCA(8, components=3, transform=nn.Standard(8)) for _ in range(2)]
    for seed, model in enumerate(models):
        nn.fit(model, data, nn.TrainConfig(seed=seed))
    assert torch.equal(models[0].basis, models[1].basis)
    train = data.splits("train")
    z = models[0].transform(torch.from_numpy(train.x)).double().numpy()
    variance, directions = np.linalg.eigh(np.cov(z.T, aweights=train.weight))
    overlap = np.abs(directions[:, ::-1][:, :3].T @ models[0].basis.numpy())
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-6)
    assert variance[-3] > variance[-4]


def test_no_rows_or_too_few_are_refused():
    z, w = rows()
    with pytest.raises(SkimError, match="no rows"):
        learnt([], components=3)
    with pytest.raises(SkimError, match="3 components cannot be fitted to 3 rows"):
        learnt([(z[:3], w[:3])], components=3)


# Quantiles


@pytest.mark.parametrize("n", [2000, 200_000, 1_000_000])
@pytest.mark.parametrize("where", [0.0, 1.3])
def test_an_atom_goes_to_the_middle_of_its_ranks_among_any_number_of_rows(n, where):
    x = np.random.default_rng(1).normal(size=n).astype(np.float32)
    x[: int(0.4 * n)] = where
    transform = nn.QuantileNormal(1).fit(x[:, None], np.ones(n))

    def z(value):
        return transform(torch.tensor([[value]], dtype=torch.float32)).item()

    def expected(value):
        return ndtri(((x < np.float32(value)).sum() + 0.5 * (x == np.float32(value)).sum()) / n)

    assert z(where) == pytest.approx(expected(where), abs=1e-5)
    near = 1e-2
    for value in (where - near, where + near):
        assert z(value) == pytest.approx(expected(value), abs=0.02)


def test_many_atoms_are_all_in_the_middle_of_their_ranks():
    x = np.repeat(np.arange(60, dtype=np.float32), 3000)[:, None]
    transform = nn.QuantileNormal(1).fit(x, np.ones(len(x)))
    inner = np.arange(1, 59)
    z = transform(torch.from_numpy(x[inner * 3000])).numpy()[:, 0]
    np.testing.assert_allclose(z, ndtri((inner + 0.5) / 60), atol=0.03)


COLUMNS = {
    "normal": lambda rng: rng.normal(size=5000),
    "few values": lambda rng: rng.integers(0, 6, 5000),
    "tiny": lambda rng: 1e-30 * rng.normal(size=5000),
    "huge": lambda rng: 1e36 * rng.normal(size=5000),
    "over sixty orders": lambda rng: np.exp(20 * rng.normal(size=5000)),
    "narrow": lambda rng: 1 + 1e-6 * rng.normal(size=5000),
}


@pytest.mark.parametrize("name", list(COLUMNS))
def test_the_largest_numbers_do_not_look_ordinary(name):
    """Anywhere in the range of float32, and never NaN: far from the rows z is far, and goes on in the same direction."""
    x = COLUMNS[name](np.random.default_rng(1)).astype(np.float32)[:, None]
    transform = nn.QuantileNormal(1).fit(x, np.ones(len(x)))
    far = torch.tensor([1e30, 9e36, 1e38, 2.9e38, 3e38, 3.3e38, torch.finfo(torch.float32).max])[:, None]
    far = far[far[:, 0] > 3 * float(np.abs(x).max())]
    assert len(far) >= 4
    highest, lowest = (transform(torch.full((1, 1), float(v))).item() for v in (x.max(), x.min()))
    for sign, edge in ((1, highest), (-1, lowest)):
        z = sign * transform(sign * far)[:, 0]
        assert bool(z.isfinite().all())
        assert bool((z.diff() >= 0).all())
        assert bool((z > max(sign * edge, 2.5)).all())


def test_the_line_beyond_the_rows_goes_on_without_a_step():
    x = np.random.default_rng(1).exponential(size=(20_000, 1)).astype(np.float32)
    transform = nn.QuantileNormal(1).fit(x, np.ones(len(x)))
    reach = torch.linspace(-300, 300, 20_001)[:, None]
    z = transform(reach)[:, 0].double()
    step = z.diff()
    assert bool((step > 0).all())
    beyond = reach[:-1, 0] > float(x.max())
    np.testing.assert_allclose(step[beyond], step[beyond].median(), rtol=0.02)
    below = reach[1:, 0] < float(x.min())
    np.testing.assert_allclose(step[below], step[below].median(), rtol=0.02)
