"""Sets of objects as inputs of plain models: laws of the flattening, and every recipe from a skim to a file."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad import nn, recipes
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.scoring.scorer import OnnxScorer

KINDS = ["quantile", "standard", "log", "minmax", "none"]
COLUMNS = ["pt", "deta", "mask"]


def sets(seed=0, n=200, slots=6):
    """Padded sets of (pt, deta, mask), some of them empty."""
    rng = np.random.default_rng(seed)
    x = np.stack([rng.exponential(20, (n, slots)) + 1, rng.normal(0, 0.3, (n, slots)), np.ones((n, slots))], axis=2)
    x *= (np.arange(slots) < rng.integers(0, slots + 1, n)[:, None])[:, :, None]
    return x.astype(np.float32)


def fitted(x, kind="standard", weight=None):
    then = nn.preprocessing({"mask": "none", "*": kind}, COLUMNS)
    return nn.Slots(x.shape[1], then).fit(x, np.ones(len(x)) if weight is None else weight)


def applied(transform, x):
    return transform(torch.from_numpy(np.ascontiguousarray(x))).numpy()


# Laws


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_slots_are_transformed_alike_and_empty_ones_stay_empty(kind, seed):
    x = sets(seed)
    transform = fitted(x, kind)
    z = applied(transform, x).reshape(x.shape)
    order = np.random.default_rng(seed).permutation(x.shape[1])
    np.testing.assert_allclose(applied(transform, x[:, order]).reshape(x.shape), z[:, order], rtol=1e-6, atol=1e-6)
    empty = x[..., 2] == 0
    assert (z[empty] == 0).all()
    assert (z[~empty][:, 2] == 1).all()  # the flag tells an average object from an empty slot
    expected = transform.then(torch.from_numpy(x[~empty])).numpy()
    np.testing.assert_allclose(z[~empty], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_empty_slots_and_empty_rows_do_not_move_the_preprocessing(kind):
    x, weight = sets(n=300), np.random.default_rng(1).exponential(size=300)
    wider = np.concatenate([x, np.zeros((300, 3, 3), np.float32)], axis=1)
    more = np.concatenate([wider, np.zeros((50, 9, 3), np.float32)])
    one, two = fitted(x, kind, weight), fitted(more, kind, np.r_[weight, np.ones(50)])
    z = applied(two, more).reshape(350, 9, 3)
    np.testing.assert_array_equal(z[:300, :6].reshape(300, -1), applied(one, x))
    assert (z[:, 6:] == 0).all()
    occupied = x[..., 2] > 0
    flat = nn.preprocessing({"mask": "none", "*": kind}, COLUMNS).fit(
        x[occupied], np.repeat(weight, occupied.sum(axis=1))
    )
    for ours, theirs in zip(one.then.buffers(), flat.buffers(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_box_of_chains_holds_occupied_and_empty_slots(kind):
    x = sets(n=2000)
    transform = fitted(x, kind)
    assert (transform.low <= 0).all()
    assert (transform.high >= 0).all()
    z = applied(transform, x)
    inside = (z >= transform.low.numpy() - 1e-5) & (z <= transform.high.numpy() + 1e-5)
    assert inside.mean() > 0.99


def test_an_error_is_the_mean_over_all_slots_of_a_row_whatever_else_is_in_the_batch():
    x = sets()
    torch.manual_seed(1)
    transform = fitted(x)
    model = nn.AE(transform.features, transform=transform).eval()
    assert model.shape == (6, 3)
    scores = model.scores(x)
    np.testing.assert_allclose([model.scores(x[i : i + 1])[0] for i in range(20)], scores[:20], rtol=1e-5)
    with torch.no_grad():
        z = transform(torch.from_numpy(x))
        expected = ((z - model.reconstruct(z)) ** 2).sum(dim=1) / 18
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-5)
    x[2, 5, 0], x[3, 0, 1] = np.nan, np.inf
    assert np.flatnonzero(np.isnan(model.scores(x))).tolist() == [2, 3]


def test_sets_that_cannot_be_learned_from_are_refused():
    with pytest.raises(SkimError, match="all slots of all rows are empty"):
        fitted(np.zeros((20, 6, 3), np.float32))
    with pytest.raises(SkimError, match=r"rows have the shape \(5, 3\), the model takes sets of the shape \(6, 3\)"):
        nn.Slots(6, nn.Standard(3)).fit(sets(slots=5), np.ones(200))
    with pytest.raises(SkimError, match="column mask takes fewer than three"):
        nn.Slots(6, nn.QuantileNormal(3, names=COLUMNS)).fit(sets(), np.ones(200))
    with pytest.raises(ConfigError, match="no Jacobian"):
        fitted(sets()).log_det(torch.zeros(2, 6, 3))


# The recipes


JETS = {"n": 12, "columns": ["pt", "deta", "dphi", "mask"]}
EVENTS = {"leading_lepton_pt_min": 0.0, "columns": ["pt", "eta", "phi", "is_jet"]}
LEVELS = {"jets": ("jet_constituents", JETS, (12, 4)), "events": ("event_objects", EVENTS, (19, 4))}
CHAINS = ["steps=2", "buffer_size=300", "long_steps=2", "long_run=[0, 2]"]
RECIPES = {
    "autoencoder": [],
    "vae": [],
    "nae": [*CHAINS, "warmup.epochs=1"],
    "wnae": CHAINS,
    "svdd": ["network=one"],
    "pca": [],
    "nearest": ["score=mahalanobis"],
}
PUBLISHED = [("autoencoder", "jets"), ("vae", "events"), ("nae", "jets"), ("svdd", "events")]


@pytest.fixture(scope="module")
def skims(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for n in ("qcd", "ttbar")
    }
    for level, (name, options, _) in LEVELS.items():
        overrides = [
            f"features={[{'name': name, 'options': options}]}",
            *["leading_lepton_pt_min=0"] * (level == "events"),
        ]
        ad.run(fileset, f"skim_{level}", overrides=overrides, executor="iterative", output=folder / level)
    return folder


def configured(skims, recipe, level, *more):
    from coffea_ad.config import load_config

    name, options, _ = LEVELS[level]
    module = recipes.load(recipe)
    train = [f"train.{k}" for k in ("epochs=1", "samples_per_epoch=128", "batch_size=64", "validation_rows=60")]
    words = [
        f"data={skims / level}",
        f"feature={name}",
        f"options={options}",
        "weights=none",
        *train,
        *RECIPES[recipe],
        *more,
    ]
    return module, load_config(module.Config, None, words)


def without_figures(module, monkeypatch):
    monkeypatch.setattr("coffea_ad.nn.training.plots.training", lambda *_: None)
    if hasattr(module, "report_chains"):
        monkeypatch.setattr(module, "report_chains", lambda *_, **__: None)


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_takes_sets_as_they_are(skims, recipe, level, tmp_path, monkeypatch):
    module, config = configured(skims, recipe, level)
    without_figures(module, monkeypatch)
    data = config.rows()
    model, history = module.fit(config, data, tmp_path)
    assert tuple(model.shape) == tuple(data.x.shape[1:]) == LEVELS[level][2]
    assert len(history) == 1
    scores = model.scores(data.x)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 0.9 * len(scores)
    empty = model.scores(np.zeros((1, *model.shape), np.float32))
    assert np.isfinite(empty).all()


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize(("recipe", "level"), PUBLISHED)
def test_a_file_scores_sets_as_torch_does(skims, recipe, level, tmp_path, monkeypatch):
    """With the parity check of every export, and by the tagger on events."""
    module, config = configured(skims, recipe, level)
    without_figures(module, monkeypatch)
    module.train(config, tmp_path / "m.onnx")
    data, scorer = config.rows(), OnnxScorer(tmp_path / "m.onnx")
    assert scorer.card.inputs[0].features[0].row_shape == LEVELS[level][2]
    x = np.concatenate([data.x[:40], np.zeros((1, *data.x.shape[1:]), np.float32)])
    x[3, 1, 0] = np.nan
    expected = nn.load(tmp_path / "m").scores(x)
    np.testing.assert_allclose(scorer(x), expected, rtol=1e-5, atol=1e-5)
    assert np.flatnonzero(np.isnan(expected)).tolist() == [3]
    tagged = ad.Tagger(tmp_path / "m.onnx")(open_events(DATA / "qcd_v15.root"))
    scores = np.asarray(ak.flatten(tagged["ad_score"], axis=None))
    ours = scorer(data.x[data.dataset == "qcd"])
    assert np.isclose(ours[:, None], scores, rtol=1e-5, atol=1e-6).any(axis=1).all()


def test_flags_are_left_as_they_are_unless_columns_are_named(skims):
    _, config = configured(skims, "autoencoder", "jets")
    data = config.rows()
    kinds = [type(part).__name__ for part in config.transform(data).then.parts]
    assert kinds == ["QuantileNormal", "Unchanged"]
    _, named = configured(skims, "autoencoder", "jets", "preprocessing={mask: standard, '*': log}")
    kinds = [type(part).__name__ for part in named.transform(data).then.parts]
    assert kinds == ["Log", "Standard"]


def test_what_is_neither_flat_nor_a_set_is_refused_in_one_sentence(skims):
    recipe, config = configured(skims, "autoencoder", "jets")
    with pytest.raises(ConfigError, match="preset rmm takes 1287 inputs, but jet_constituents has 48"):
        recipe.build(config.model_copy(update={"preset": "rmm"}), config.rows())
