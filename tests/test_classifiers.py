"""Classifiers of two labels: trees as graphs, bags of trees, a network, and ARGOS."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import coffea_ad as ad
from coffea_ad import nn
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.evaluation import argos, auc, best_by_argos
from coffea_ad.features.spec import ColumnSpec, FeatureSpec, feature_spec
from coffea_ad.nn.classifiers import bagged, boosting
from coffea_ad.nn.classifiers.trees_graph import Sums, Tree, below, lightgbm_trees, scikit_learn_trees, trees_graph
from coffea_ad.nn.ensemble import log_odds_of_mean
from coffea_ad.scoring import regions
from coffea_ad.skims import Skim

lightgbm = pytest.importorskip("lightgbm")
pytestmark = pytest.mark.torch
SPEC = feature_spec("jet_substructure")
QUIET = {"objective": "binary", "verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
FEW = {"lightgbm": {"num_iterations": 12}, "sklearn": {"max_iter": 12}}


def skim_of(x, label, *, seed=1, weight=None):
    n = len(x)
    ids = {k: np.arange(n, dtype=np.int64) + 1 for k in ("run", "luminosityBlock", "event")}
    split = np.random.default_rng(seed).choice(["train", "validation", "test"], n, p=[0.5, 0.3, 0.2])
    provenance = {
        "files": {},
        "rows": {"toy": n},
        "flavours": ["NanoAOD v15"],
        "selection": {},
        "n_effective": float(n),
    }
    data = Skim(x, np.ones(n) if weight is None else weight, np.full(n, "toy"), split, ids, (SPEC,), provenance)
    return data.labelled(np.asarray(label) == 1)


def toy(n=3000, seed=1, shift=1.0):
    """Eight normal columns; label 1 is shifted in the first."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    x[:, 0] += shift * label
    return skim_of(x, label)


def run(graph, x):
    return onnxruntime.InferenceSession(graph).run(None, {"features": x})[0]


def agree(one, other, tolerance=1e-6):
    assert np.array_equal(np.isnan(one), np.isnan(other))
    np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def booster_of(x, y, *, rounds=10, **options):
    rows = lightgbm.Dataset(x, y, params=QUIET | options)
    return lightgbm.train(QUIET | options, rows, num_boost_round=rounds)


def on_thresholds(trees, x):
    """Rows of which one column lies on a threshold, or is the next float32 below or above."""
    rows = []
    for tree in trees:
        for column, threshold in zip(tree.feature, tree.threshold, strict=True):
            near = np.float32(threshold)
            for value in (near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))):
                row = x[len(rows) % len(x)].copy()
                row[max(column, 0)] = value
                rows.append(row)
    return np.array(rows)


# trees as a graph


@pytest.mark.parametrize("missing", ["none", "nan", "zero", "zero and nan"])
def test_trees_of_lightgbm_send_every_value_the_way_the_library_does(missing):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(3000, 3)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0.3).astype(int)
    if "nan" in missing:
        x[rng.random(x.shape) < 0.1] = np.nan
    if "zero" in missing:
        x[rng.random(x.shape) < 0.2] = 0
        y[(x[:, 0] == 0) & (rng.random(3000) < 0.8)] = 1  # so that zeros go another way than numbers near zero
    booster = booster_of(x, y, zero_as_missing="zero" in missing)
    trees = lightgbm_trees(booster.dump_model(), range(3))
    assert any(t.zero_missing for t in trees) == ("zero" in missing)
    edges = np.float32([0, -0.0, 1e-35, -1e-35, 2e-35, -2e-35, 1e-38, np.nan, np.inf, -np.inf, 3e38])
    rows = np.concatenate([x[:500], on_thresholds(trees, x[:100])])
    for value in edges:
        special = x[:60].copy()
        special[np.arange(60), np.arange(60) % 3] = value
        rows = np.concatenate([rows, special])
    agree(run(trees_graph([Sums(trees)], 3, "score", undefined=False), rows), booster.predict(rows, raw_score=True))


def test_trees_of_scikit_learn_send_missing_values_the_way_the_library_does():
    from sklearn.ensemble import HistGradientBoostingClassifier

    rng = np.random.default_rng(4)
    x = rng.normal(size=(2000, 3)).astype(np.float32)
    y = x[:, 0] > 0
    x[rng.random(x.shape) < 0.1] = np.nan
    trees = HistGradientBoostingClassifier(max_iter=10, early_stopping=False).fit(x, y)
    sums = scikit_learn_trees(trees)
    rows = np.concatenate([x, on_thresholds(sums.trees, x[:50])])
    agree(run(trees_graph([sums], 3, "score", undefined=False), rows), trees.decision_function(rows))


@pytest.mark.parametrize("library", ["lightgbm", "sklearn"])
def test_trees_agree_where_all_values_are_neighbouring_floats(library):
    """A threshold of double precision between two neighbours of float32 must not round to the upper one."""
    rng = np.random.default_rng(5)
    ladder = [np.float32(0.1)]
    for _ in range(60):
        ladder.append(np.nextafter(ladder[-1], np.float32(1)))
    x = np.array(ladder)[rng.integers(0, 61, (3000, 2))]
    y = rng.random(3000) < 0.1 + 0.8 * (x[:, 0] > ladder[30])
    data = skim_of(np.concatenate([x, np.zeros((3000, 6), np.float32)], axis=1), y)
    model = nn.BaggedTrees.of(data, library=library, members=3, **FEW[library])
    assert len(np.unique(model.scores(data.x))) > 10
    agree(run(model.graph(["score"]), data.x), model.scores(data.x))


def test_a_tree_that_is_one_leaf_and_a_member_without_trees_are_constants():
    x = np.zeros((500, 2), np.float32)
    booster = booster_of(x, np.arange(500) % 4 == 0, rounds=5)
    trees = lightgbm_trees(booster.dump_model(), range(2))
    assert [len(t.feature) for t in trees] == [1] * len(trees)
    agree(run(trees_graph([Sums(trees)], 2, "score"), x[:3]), booster.predict(x[:3], raw_score=True))
    np.testing.assert_allclose(run(trees_graph([Sums([], 0.25)], 2, "score"), x[:3]), 0.25)


def test_what_cannot_be_a_graph_is_refused():
    rng = np.random.default_rng(1)
    x = np.c_[rng.integers(0, 4, 500), rng.normal(size=500)]
    by_category = lightgbm.Dataset(x, x[:, 0] == 2, categorical_feature=[0], params=QUIET)
    dump = lightgbm.train(QUIET, by_category, num_boost_round=2).dump_model()
    with pytest.raises(ConfigError, match="split by categories"):
        lightgbm_trees(dump, range(2))
    dump = booster_of(x, x[:, 1] > 0, rounds=2, linear_tree=True).dump_model()
    with pytest.raises(ConfigError, match="linear models in their leaves"):
        lightgbm_trees(dump, range(2))
    split = {"feature": np.array([0, -1, -1]), "threshold": np.array([0.5, 0, 0]), "left": np.array([1, 0, 0]),
             "right": np.array([2, 0, 0]), "value": np.array([0, 1.0, 2.0])}  # fmt: skip
    default = Tree(**split, missing_left=np.array([False, False, False]))
    zero = Tree(**split, missing_left=np.array([False, False, False]), zero_missing=True)
    with pytest.raises(ConfigError, match="zeros are missing values for some trees"):
        trees_graph([Sums([default]), Sums([zero])], 1, "score")
    with pytest.raises(ConfigError, match="a tree looks at column 0, but rows have 0"):
        trees_graph([Sums([default])], 0, "score")


@given(st.floats(allow_nan=False, allow_infinity=False, width=64), st.integers(-2, 2))
@settings(max_examples=300, deadline=None)
def test_rounding_down_changes_no_comparison_with_a_float32(threshold, steps):
    with np.errstate(over="ignore"):
        x = np.float32(threshold)
    for _ in range(abs(steps)):
        with np.errstate(over="ignore", under="ignore"):
            x = np.nextafter(x, np.float32(np.inf if steps > 0 else -np.inf))
    assert (x <= below(np.array([threshold]))[0]) == (float(x) <= threshold)


# bags


@pytest.fixture(scope="module", params=["lightgbm", "sklearn"])
def trained(request):
    data = toy()
    return request.param, data, nn.BaggedTrees.of(data, library=request.param, members=4, **FEW[request.param])


def test_bagged_trees_go_through_card_and_scorer(trained, tmp_path):
    _, data, model = trained
    assert isinstance(model, nn.Scorable)
    card = nn.make_card(model, data, name="trees", config={}, metrics={})
    background = data.select((data.split == "test") & (data.label == 0))  # what no member has seen
    assert card.calibration.n_effective == pytest.approx(len(background.weight))
    scorer = ad.OnnxScorer(nn.export(model, tmp_path / "trees.onnx", card, data.x))
    agree(scorer(data.x), model.scores(data.x))
    rows = on_thresholds([t for m in model.trees for t in m.sums().trees], data.x)
    agree(scorer(rows), model.scores(rows))
    assert scorer(data.x[:0]).shape == (0,)
    broken = data.x[:3].copy()
    broken[0, 0], broken[1, 7] = np.nan, np.inf
    assert np.isnan(model.scores(broken)).tolist() == np.isnan(scorer(broken)).tolist() == [True, True, False]
    assert card.method == "bagged trees"
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.scores(data.x), model.scores(data.x))
    assert auc(model.scores(background.x), model.scores(data.splits("test").x)).value > 0.55


def test_the_score_is_the_log_odds_of_the_mean_probability(trained):
    _, data, model = trained
    odds = np.stack([m.log_odds(data.x) for m in model.trees])
    p = (1 / (1 + np.exp(-odds))).mean(axis=0)
    np.testing.assert_allclose(model.scores(data.x), np.log(p / (1 - p)), rtol=1e-5, atol=1e-6)


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_the_mean_of_log_odds_lies_between_them_and_turns_with_the_labels(values):
    each = np.array(values)[:, None]
    mean = float(log_odds_of_mean(each)[0])
    if len(values) > 1:
        each = np.clip(each, -80, 80)
    assert each.min() - 1e-9 <= mean <= each.max() + 1e-9
    np.testing.assert_allclose(log_odds_of_mean(-each), -log_odds_of_mean(each), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("library", ["lightgbm", "sklearn"])
def test_no_member_trains_on_rows_that_stop_it_and_none_on_test_rows(library, monkeypatch):
    data = toy(900)
    data.x[:, 7] = np.arange(900)  # tells the rows apart
    seen = []
    original = boosting.LIBRARIES[library]

    def spy(train, stop, columns, seed, options):
        seen.append((train, stop))
        return original(train, stop, columns, seed, options)

    monkeypatch.setitem(boosting.LIBRARIES, library, spy)
    nn.BaggedTrees.of(data, library=library, members=3, **FEW[library])
    test = set(np.flatnonzero(data.split == "test"))
    firsts = []
    for train, stop in seen:
        first, second = set(train.x[:, 7].astype(int)), set(stop.x[:, 7].astype(int))
        assert not first & second
        assert not (first | second) & test
        assert first | second == set(np.flatnonzero(data.split != "test"))
        for half in (train, stop):
            sums = [half.weight[half.label == value].sum() for value in (0, 1)]
            assert sums[0] == pytest.approx(sums[1])
        firsts.append(first)
    assert firsts[0] != firsts[1]


def test_what_stops_a_member_does_not_reach_its_trees():
    """With the labels of the stopping rows turned round, a member stops at once, and its first tree is the same."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(1000, 2)).astype(np.float32)
    label = (x[:, 0] > 0).astype(np.int64)
    ones, every = np.ones(500), np.arange(2)
    for kind, few in (("lightgbm", {}), ("sklearn", {})):
        make = boosting.LIBRARIES[kind]
        train = boosting.Half(x[:500], label[:500], ones)
        right = make(train, boosting.Half(x[500:], label[500:], ones), every, 1, few).sums().trees
        wrong = make(train, boosting.Half(x[500:], 1 - label[500:], ones), every, 1, few).sums().trees
        assert 9 < len(wrong) < 15 < len(right)  # those grown in vain are kept
        np.testing.assert_allclose(wrong[0].value, right[0].value)
        np.testing.assert_array_equal(wrong[0].threshold, right[0].threshold)


@pytest.mark.parametrize("library", ["lightgbm", "sklearn"])
def test_the_same_seed_gives_the_same_trees_and_another_one_others(library, monkeypatch):
    data = toy(1500)
    one = nn.BaggedTrees.of(data, library=library, members=2, seed=5, **FEW[library]).scores(data.x)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    again = nn.BaggedTrees.of(data, library=library, members=2, seed=5, **FEW[library]).scores(data.x)
    other = nn.BaggedTrees.of(data, library=library, members=2, seed=6, **FEW[library]).scores(data.x)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_columns_that_are_no_inputs_change_nothing():
    data = toy(1500)
    names = data.columns
    model = nn.BaggedTrees.of(data, inputs=names[1:], members=2, **FEW["lightgbm"])
    moved = data.x.copy()
    moved[:, 0] = 1e6
    np.testing.assert_array_equal(model.scores(moved), model.scores(data.x))
    agree(run(model.graph(["score"]), moved), model.scores(data.x))
    with pytest.raises(ConfigError, match="inputs: unknown column 'mas'"):
        nn.BaggedTrees.of(data, inputs=["mas"])
    with pytest.raises(ConfigError, match="none twice"):
        nn.BaggedTrees.of(data, inputs=[names[0], names[0]])


def test_weights_count_as_repeated_rows_would():
    """Rows of weight 0 are as good as absent, and a heavy label does not win."""
    data = toy(3000)
    heavy = skim_of(data.x, data.label, weight=np.where(data.label == 1, 100.0, 1.0))
    names = data.columns[:1]
    one = nn.BaggedTrees.of(data, inputs=names, members=3, **FEW["lightgbm"]).scores(data.x)
    two = nn.BaggedTrees.of(heavy, inputs=names, members=3, **FEW["lightgbm"]).scores(data.x)
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)
    absent = skim_of(data.x, data.label, weight=np.where(data.x[:, 0] > 1, 0.0, 1.0))
    score = nn.BaggedTrees.of(absent, inputs=names, members=3, **FEW["lightgbm"]).scores(data.x)
    assert len(np.unique(score[data.x[:, 0] > 1.1])) == 1 < len(np.unique(one[data.x[:, 0] > 1.1]))


def test_each_member_sees_a_share_of_the_inputs_and_noise_does_little():
    rng = np.random.default_rng(8)
    n = 4000
    label = rng.integers(0, 2, n)
    good, noise = rng.normal(size=(n, 2)) + label[:, None], rng.normal(size=(n, 10))
    spec = FeatureSpec(name="toy", version=1, columns=tuple(ColumnSpec(name=f"c{i}") for i in range(12)))
    data = replace(skim_of(np.concatenate([good, noise], axis=1).astype(np.float32), label), features=(spec,))
    model = nn.BaggedTrees.of(data, inputs=data.columns, members=8, attributes=0.5)
    assert {len(m.columns) for m in model.trees} == {6}
    assert len({tuple(m.columns) for m in model.trees}) > 4
    agree(run(model.graph(["score"]), data.x), model.scores(data.x))
    held_out = data.splits("test")
    score, best = model.scores(held_out.x), held_out.x[:, 0] + held_out.x[:, 1]
    areas = [auc(s[held_out.label == 0], s[held_out.label == 1]).value for s in (score, best)]
    assert areas[0] > areas[1] - 0.05  # the optimum is 0.84, one column alone gives 0.76


def test_folds_of_bagged_trees_export_as_one_file(tmp_path):
    data = toy(1500)
    members = [nn.BaggedTrees.of(data.for_fold(f, 3, "s"), members=2, seed=f, num_iterations=5) for f in range(3)]
    model = nn.CrossTrained(members, "s")
    card = nn.make_card(model, data.select(data.label == 0), name="folded", config={}, metrics={})
    scorer = ad.OnnxScorer(nn.export(model, tmp_path / "folded.onnx", card, data.x))
    folds = model.fold_of(data.spectators)
    agree(scorer(data.x, folds), model.scores(data.x, folds), 2e-6)
    assert len(scorer.card.calibrations) == 3


def test_wrong_arguments_of_bagged_trees_are_one_sentence():
    data = toy(600)
    cases = [
        (ConfigError, "library is 'xgboost', but must be lightgbm or sklearn", data, {"library": "xgboost"}),
        (ConfigError, "members is 0", data, {"members": 0}),
        (ConfigError, "attributes 1.5", data, {"attributes": 1.5}),
        (ConfigError, "num_threads of LightGBM cannot be set here", data, {"num_threads": 4}),
        (ConfigError, "random_state of scikit-learn cannot", data, {"library": "sklearn", "random_state": 4}),
        (SkimError, "labels 0 and 1", skim_of(data.x, np.zeros(600)), {}),
        (SkimError, "of one label there are .* at least 40", skim_of(data.x, np.arange(600) < 20), {}),
    ]
    for error, sentence, rows, options in cases:
        with pytest.raises(error, match=sentence):
            nn.BaggedTrees.of(rows, **options)
    with pytest.raises(ConfigError, match="one member or more"):
        nn.BaggedTrees([], 3)


# nothing to learn


@pytest.mark.parametrize("library", ["lightgbm", "sklearn"])
def test_scores_with_ties_never_make_a_region_larger_than_asked(library, tmp_path):
    """Without signal trees stop early: a few scores for all rows. What has no threshold is left out, and said."""
    data = toy(6000, shift=0.0)
    model = nn.BaggedTrees.of(data, library=library, members=1, max_leaf_nodes=3) if library == "sklearn" else (
        nn.BaggedTrees.of(data, library=library, members=1, num_leaves=3)
    )  # fmt: skip
    score, weight = model.scores(data.x), np.ones(len(data.x))
    assert len(np.unique(score)) < 300
    table = regions.calibrate(score, weight, "toy")
    asked = (0.5, 0.3, 0.1, 0.03, 0.01)
    written, left_out = regions.derive((table,), score, weight, asked)
    assert len(written) + len(left_out) == len(asked)
    assert left_out
    values = regions.logp(table, score)
    for region in written:
        assert (values >= region.thresholds[0]).mean() <= region.efficiency * 10**0.01
    assert all("tied" in sentence or "effective" in sentence for sentence in left_out)
    card = nn.make_card(model, data.select(data.label == 0), name="nothing", config={}, metrics={})
    scorer = ad.OnnxScorer(nn.export(model, tmp_path / "nothing.onnx", card, data.x))
    agree(scorer(data.x), score)


def test_a_constant_score_is_a_graph_and_no_calibration():
    rows = np.zeros((400, 8), np.float32)
    data = skim_of(rows, np.arange(400) % 2)
    model = nn.BaggedTrees.of(data, members=3)
    assert len(np.unique(model.scores(rows))) == 1
    agree(run(model.graph(["score"]), rows), model.scores(rows))
    with pytest.raises(ConfigError, match="all scores are"):
        nn.make_card(model, data, name="constant", config={}, metrics={})


# a network


def test_the_network_learns_the_ratio_of_densities_and_ignores_other_columns(tmp_path):
    torch.manual_seed(1)
    data = toy(6000)
    transform = nn.Selected([0], of=8, then=nn.Standard(1))
    model = nn.MLP(1, hidden=(16,), transform=transform)
    train = nn.TrainConfig(
        epochs=6, samples_per_epoch=6000, batch_size=128, learning_rate=1e-2, validation_rows=1000, keep=2
    )
    history = nn.fit(model, data, train, tmp_path / "m")
    assert history[-1]["validation"] < np.log(2) - 0.05  # 0.69 without learning, 0.59 at best
    ensemble = nn.Ensemble.of_epochs(model, history, "probability")
    x = np.zeros((9, 8), np.float32)
    x[:, 0] = np.linspace(-1, 2, 9)
    np.testing.assert_allclose(ensemble.scores(x), x[:, 0] - 0.5, atol=0.2)  # ln of two normal densities, 1 apart
    moved = x + 100 * (np.arange(8) > 0).astype(np.float32)
    np.testing.assert_array_equal(ensemble.scores(moved), ensemble.scores(x))
    card = nn.make_card(ensemble, data.select(data.label == 0), name="mlp", config={}, metrics=history.best)
    scorer = ad.OnnxScorer(nn.export(ensemble, tmp_path / "mlp.onnx", card, data.x[:500]))
    np.testing.assert_allclose(scorer(data.x), ensemble.scores(data.x), rtol=1e-5, atol=1e-5)
    assert card.method == "MLP classifier, probability of 2"
    p = np.mean([1 / (1 + np.exp(-m.scores(x))) for m in ensemble.members], axis=0)
    np.testing.assert_allclose(ensemble.scores(x), np.log(p / (1 - p)), rtol=1e-4, atol=1e-5)
    again = nn.load(tmp_path / "m")
    np.testing.assert_array_equal(again.members[0].scores(x), ensemble.members[0].scores(x))


def test_the_network_needs_labels():
    data = toy(600)
    model = nn.MLP(8, hidden=(4,), transform=nn.Standard(8))
    short = nn.TrainConfig(epochs=1, samples_per_epoch=128, batch_size=64, validation_rows=64)
    bare = Skim(data.x, data.weight, data.dataset, data.split, data.spectators, data.features, data.provenance)
    with pytest.raises(SkimError, match="needs rows with the labels 0 and 1"):
        nn.fit(model, bare, short)


def test_a_selection_of_columns_says_what_is_wrong():
    with pytest.raises(ConfigError, match="different places from 0 to 2"):
        nn.Selected([0, 3], of=3, then=nn.Standard(2))
    with pytest.raises(ConfigError, match="2 columns are taken, but the transform behind is of 1"):
        nn.Selected([0, 1], of=3, then=nn.Standard(1))
    transform = nn.Selected([1], of=3, then=nn.Standard(1))
    with pytest.raises(SkimError, match=r"rows have the shape \(2,\)"):
        transform.fit(np.zeros((4, 2), np.float32), np.ones(4))
    with pytest.raises(ConfigError, match="no Jacobian"):
        transform.log_det(torch.zeros(2, 3))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(100, 3)).astype(np.float32)
    plain = nn.Standard(1).fit(x[:, 1:2], np.ones(100))
    torch.testing.assert_close(transform.fit(x, np.ones(100))(torch.from_numpy(x)), plain(torch.from_numpy(x[:, 1:2])))
    torch.testing.assert_close(transform.low, plain.low)


# what a classifier of mixtures learns


SHIFT = 1.5


def mixtures(n, fraction_0, fraction_1, seed):
    """Two samples of normal background and shifted signal with known fractions, and pure test rows."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    signal = rng.random(n) < np.where(label == 1, fraction_1, fraction_0)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    x[:, 0] += SHIFT * signal
    x[:, 1] += SHIFT * signal
    return skim_of(x, label), signal


def pure(n=4000, seed=99):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2 * n, 8)).astype(np.float32)
    x[n:, :2] += SHIFT
    return x, np.repeat([0, 1], n)


@pytest.mark.parametrize("library", ["lightgbm", "sklearn"])
def test_a_classifier_of_mixtures_ranks_as_the_ratio_of_the_pure_densities(library):
    data, _ = mixtures(16_000, 0.2, 0.8, seed=1)
    model = nn.BaggedTrees.of(data, inputs=data.columns[:2], members=6, library=library)
    x, label = pure()
    score = model.scores(x)
    got = auc(score[label == 0], score[label == 1])
    best = norm.cdf(SHIFT)  # two columns shifted: √2 · SHIFT apart, over √2
    assert got.value < best + 4 * got.error
    assert got.value > best - 4 * got.error - 0.01
    turned = auc(-score[label == 0], -score[label == 1])
    assert turned.value == pytest.approx(1 - got.value)


def test_the_ratio_of_data_to_background_is_linear_in_that_of_signal_to_background():
    """R(data/background) = f R(signal/background) + 1 − f, with both ratios learnt and f known."""
    fraction = 0.3
    data, _ = mixtures(40_000, 0.0, fraction, seed=2)
    mixed = nn.BaggedTrees.of(data, inputs=data.columns[:2], members=8)
    x, label = pure()
    background = x[label == 0]
    true_ratio = np.exp(SHIFT * background[:, :2].sum(axis=1) - SHIFT**2)
    learnt = np.exp(mixed.scores(background))
    # in bins of the true ratio: trees are steps, and their edges are no part of the law
    order = np.argsort(true_ratio)[::-1]
    bins = np.array_split(order[len(order) // 50 :], 12)
    r = np.array([true_ratio[b].mean() for b in bins])
    y = np.array([learnt[b].mean() for b in bins])
    slope, constant = np.polyfit(r, y, 1)
    assert slope == pytest.approx(fraction, abs=0.06)
    assert constant == pytest.approx(1 - fraction, abs=0.06)
    assert np.corrcoef(r, y)[0, 1] > 0.99


# ARGOS


def test_argos_is_the_largest_excess_over_its_error():
    rng = np.random.default_rng(1)
    template = rng.random(2000)
    region = np.r_[rng.random(1900), np.full(100, 2.0)]
    result = argos(region, template, least=20)
    cuts = np.unique(template)[:-19]
    excess = [(region >= c).mean() / np.sqrt((template >= c).mean()) - np.sqrt((template >= c).mean()) for c in cuts]
    assert result.value == pytest.approx(max(excess))
    assert result.efficiency == pytest.approx((template >= cuts[int(np.argmax(excess))]).mean())
    assert result.efficiency >= 20 / 2000


def test_argos_counts_weights_and_no_tail_of_few_events():
    rng = np.random.default_rng(2)
    template, region = rng.random(1000), np.r_[rng.random(990), np.full(10, 0.9999)]
    assert argos(region, template).efficiency >= 0.02
    twice = argos(np.r_[region, region], template)
    assert argos(region, template, weight_signal_region=np.full(1000, 2.0)) == pytest.approx(twice)
    weight = rng.integers(1, 4, 1000)
    repeated = argos(region, np.repeat(template, weight), least=0.1)
    assert argos(region, template, weight_template=weight, least=0.1) == pytest.approx(repeated)
    with pytest.raises(ConfigError, match="has 10.0 effective events with a score; at least 20"):
        argos(region, template[:10])
    with pytest.raises(ConfigError, match="1000 scores have 3 weights"):
        argos(region, template, weight_template=[1, 2, 3])


def test_argos_of_constant_scores_is_nothing():
    assert argos(np.ones(100), np.ones(200)) == (0.0, 1.0)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
@settings(max_examples=30, deadline=None)
def test_argos_depends_on_the_order_of_scores_only(seed, scale, offset):
    rng = np.random.default_rng(seed)
    region, template = rng.integers(0, 50, 300) / 8, rng.integers(0, 50, 300) / 8
    moved = argos(np.exp(region * scale / 10 + offset), np.exp(template * scale / 10 + offset))
    assert moved == pytest.approx(argos(region, template))


def test_the_choice_by_argos_takes_the_model_that_has_learnt_and_counts_the_trials():
    data, _ = mixtures(8000, 0.0, 0.1, seed=4)
    names = data.columns
    candidates = {
        "noise": nn.BaggedTrees.of(data, inputs=names[2:5], members=2),
        "signal": nn.BaggedTrees.of(data, inputs=names[:2], members=2),
        "more noise": nn.BaggedTrees.of(data, inputs=names[5:], members=2),
    }
    held_out = data.splits("test")
    choice = best_by_argos(candidates, held_out.x[held_out.label == 1], held_out.x[held_out.label == 0])
    assert (choice.name, choice.tried, set(choice.values)) == ("signal", 3, set(candidates))
    assert choice.argos == choice.values["signal"] > choice.values["noise"]
    with pytest.raises(ConfigError, match="no candidate"):
        best_by_argos({}, held_out.x, held_out.x)


def test_halves_are_halves_of_either_label():
    label = np.repeat([0, 1], [101, 40])
    first = bagged.halves(label, np.random.default_rng(1))
    assert (first[label == 0].sum(), first[label == 1].sum()) == (50, 20)
