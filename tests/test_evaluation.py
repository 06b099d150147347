"""Scores are compared rightly: against other implementations, analytic errors, and what must come out by construction."""

from __future__ import annotations

import csv
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import DATA

import coffea_ad as ad
from coffea_ad import cli, evaluation
from coffea_ad.errors import BadModel, ConfigError, SkimError
from coffea_ad.evaluation import Sample, evaluate
from coffea_ad.evaluation.curves import Ranking, resamplings
from coffea_ad.evaluation.processes import Process
from coffea_ad.evaluation.report import as_dict, write_csv
from coffea_ad.evaluation.scaling import ZScores
from coffea_ad.scoring.card import write_card
from coffea_ad.skims.reading import load_skim
from coffea_ad.splits import fold_of, split_of
from coffea_ad.weights import n_effective

NAME = "jet_substructure"


def weighted_scores(largest=40):
    row = st.tuples(st.integers(0, 6), st.integers(1, 5))  # few values, so that many are tied
    return st.lists(row, min_size=1, max_size=largest).map(lambda rows: np.array(rows, float).T)


def gaussian(rng, n, shift=0.0):
    return rng.normal(shift, 1.0, n)


# --- one score ---------------------------------------------------------------------------------------------------------


@given(weighted_scores(), weighted_scores())
@settings(deadline=None)
def test_the_area_is_that_of_scikit_learn_with_weights_and_ties(background, signal):
    metrics = pytest.importorskip("sklearn.metrics")
    (b, wb), (s, ws) = background, signal
    curve = Ranking.of(b, s).curve(wb, ws)
    label, w = np.r_[np.zeros(len(b)), np.ones(len(s))], np.r_[wb / wb.sum(), ws / ws.sum()]
    assert curve.auc() == pytest.approx(metrics.roc_auc_score(label, np.r_[b, s], sample_weight=w))
    eps = np.array([0.0537, 0.3011, 0.7019])  # at none of the vertical steps
    fpr, tpr, _ = metrics.roc_curve(label, np.r_[b, s], sample_weight=w, drop_intermediate=False)
    np.testing.assert_allclose(curve.at(eps)[0], np.interp(eps, fpr, tpr), atol=1e-9)


@given(weighted_scores(), weighted_scores())
@settings(deadline=None)
def test_a_whole_number_as_weight_is_as_many_rows(background, signal):
    (b, wb), (s, ws) = background, signal
    weighted = Ranking.of(b, s).curve(wb, ws)
    b, s = np.repeat(b, wb.astype(int)), np.repeat(s, ws.astype(int))
    repeated = Ranking.of(b, s).curve(np.ones(len(b)), np.ones(len(s)))
    assert weighted.auc() == pytest.approx(repeated.auc())
    np.testing.assert_allclose(weighted.at([0.1, 0.5])[0], repeated.at([0.1, 0.5])[0], atol=1e-12)


def test_scores_that_are_not_finite_and_rows_without_weight_do_not_count():
    b, s = [0.0, 1.0, np.nan, 9.0], [2.0, 3.0, np.inf]
    assert evaluation.auc(b, s, [1, 1, 1, 0]).value == 1.0
    with pytest.raises(ConfigError, match="there is no signal with a score and a positive weight"):
        evaluation.auc(b, [np.nan])
    with pytest.raises(ConfigError, match="there is no background with a score"):
        evaluation.auc(b, s, [0, 0, 1, 0])


def test_the_error_of_the_area_is_that_of_hanley_and_mcneil():
    """Exact for exponential scores: Radiology 143 (1982) 29."""
    n_b, n_s, scale = 1500, 900, 3.0
    rng = np.random.default_rng(3)
    found = evaluation.auc(rng.exponential(1, n_b), rng.exponential(scale, n_s), n_bootstrap=400)
    a = scale / (1 + scale)
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    sigma = np.sqrt((a * (1 - a) + (n_s - 1) * (q1 - a * a) + (n_b - 1) * (q2 - a * a)) / (n_b * n_s))
    assert found.error == pytest.approx(sigma, rel=0.15)
    assert abs(found.value - a) < 4 * sigma


def test_the_signal_efficiency_of_a_shift_and_its_error_are_the_analytic_ones():
    from statistics import NormalDist

    normal, shift, n_b, n_s, eps = NormalDist(), 1.5, 20_000, 5_000, 0.01
    rng = np.random.default_rng(4)
    samples = Sample({"x": gaussian(rng, n_b)}), {"s": Sample({"x": gaussian(rng, n_s, shift)})}
    found = evaluate(*samples, efficiencies=[eps], n_bootstrap=300).row("x", "s").plain.signal_efficiency[eps]
    cut = normal.inv_cdf(1 - eps)
    true = 1 - normal.cdf(cut - shift)
    slope = normal.pdf(cut - shift) / normal.pdf(cut)  # the threshold is where the background puts it
    sigma = np.sqrt(true * (1 - true) / n_s + slope**2 * eps * (1 - eps) / n_b)
    assert abs(found.value - true) < 4 * sigma
    assert found.error == pytest.approx(sigma, rel=0.2)
    assert evaluation.signal_efficiency(samples[0].scores["x"], samples[1]["s"].scores["x"], eps)[0] == found.value


def test_a_working_point_that_rests_on_too_little_background_is_hidden():
    b, s = np.arange(1000.0), np.arange(500.0, 1500.0)
    shown = evaluation.signal_efficiency(b, s, [0.1, 0.025, 0.024])
    np.testing.assert_allclose(shown, [0.6, 0.525, np.nan])
    assert np.isfinite(evaluation.signal_efficiency(b, s, [0.024], n_effective_min=24)[0])
    row = evaluate(Sample({"x": b}), {"s": Sample({"x": s})}, n_bootstrap=5).row("x", "s")
    assert [np.isfinite(e.value) for e in row.plain.signal_efficiency.values()] == [True, False, False, False]
    assert np.isnan(row.plain.signal_efficiency[1e-3].error)


def test_light_rows_do_not_stand_in_for_heavy_ones():
    """Forty rows of weight 0.001 pass, but one more of the heavy ones would be 25 times as much background."""
    b, w = np.r_[np.zeros(1000), np.ones(40)], np.r_[np.ones(1000), np.full(40, 1e-3)]
    assert n_effective(w[b > 0.5]) == pytest.approx(40)
    eps = w[b > 0.5].sum() / w.sum()
    assert np.isnan(evaluation.signal_efficiency(b, np.ones(10), [eps], w)[0])
    assert evaluation.significance_improvement(b, np.ones(10), w)[0] == pytest.approx(1.0)


def test_the_largest_significance_improvement_is_taken_among_points_that_count():
    rng = np.random.default_rng(5)
    b, s, w = gaussian(rng, 500), gaussian(rng, 300, 1.0), rng.uniform(0.5, 2, 500)
    best = 0.0
    for threshold in b:
        passed = w[b >= threshold]
        effective = min(n_effective(passed), n_effective(w) * passed.sum() / w.sum())
        if effective >= 25:
            best = max(best, (s >= threshold).mean() / np.sqrt(passed.sum() / w.sum()))
    found, eps = evaluation.significance_improvement(b, s, w)
    assert found == pytest.approx(best)
    assert evaluation.significance_improvement(b, s, w, n_effective_min=0)[0] > found
    assert eps >= 25 / n_effective(w) * (1 - 1e-9)
    assert np.isnan(evaluation.significance_improvement(b[:5], s)[0])


# --- tables ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spectra():
    """A score that knows nothing, and pT, which differs between background and signal."""
    rng = np.random.default_rng(6)
    n, m = 8000, 3000
    pt_b, pt_s = 200 + rng.exponential(150, n), 300 + rng.exponential(200, m)
    b = Sample({"pT": pt_b, "noise": gaussian(rng, n)}, rng.uniform(0.5, 1.5, n), pt_b, pt_b / 4)
    return b, Sample({"pT": pt_s, "noise": gaussian(rng, m)}, None, pt_s)


def test_at_equal_spectra_pt_itself_separates_nothing(spectra):
    background, signal = spectra
    found = evaluate(background, {"s": signal}, n_bootstrap=300)
    pt, noise = found.row("pT", "s"), found.row("noise", "s")
    assert pt.plain.auc.value > 0.7
    assert pt.matched.auc.value == pytest.approx(0.5, abs=0.01)
    assert pt.matched.n_effective < pt.plain.n_effective
    assert pt.plain.n_effective == pytest.approx(n_effective(background.weight))
    for metrics in (noise.plain, noise.matched):
        assert abs(metrics.auc.value - 0.5) < 4 * metrics.auc.error
    assert noise.matched.auc.error > noise.plain.auc.error  # fewer effective rows
    matched, _ = evaluation.match_spectrum(background.pt, signal.pt, background.weight, np.ones(len(signal.pt)))
    assert pt.matched.n_effective == pytest.approx(n_effective(matched))


def test_without_a_spectrum_only_that_is_left_out(spectra):
    background, signal = spectra
    bare = Sample(signal.scores)
    found = evaluate(background, {"s": bare}, n_bootstrap=2)
    assert found.row("pT", "s").matched is None
    assert "s: only one sample has a pT, so nothing is shown at equal spectra" in found.notes
    undefined = Sample(signal.scores, None, np.r_[np.nan, signal.pt[1:]])
    assert any("pT is not defined" in note for note in evaluate(background, {"s": undefined}, n_bootstrap=2).notes)


def test_models_that_differ_by_their_seed_give_a_mean_and_a_spread():
    rng = np.random.default_rng(7)
    b, s = rng.normal(size=(5, 2000)), np.stack([gaussian(rng, 1000, shift) for shift in (0.8, 0.9, 1.0, 1.1, 1.2)])
    row = evaluate(Sample({"m": b}), {"s": Sample({"m": s})}, n_bootstrap=40).row("m", "s")
    each = [evaluation.auc(*pair, n_bootstrap=0).value for pair in zip(b, s, strict=True)]
    assert row.models == 5
    assert row.plain.auc.each == pytest.approx(each)
    assert row.plain.auc.value == pytest.approx(np.mean(each))
    assert row.plain.auc.spread == pytest.approx(np.std(each, ddof=1))
    assert 0 < row.plain.auc.error < row.plain.auc.spread
    one = evaluate(Sample({"m": b[0]}), {"s": Sample({"m": s[0]})}, n_bootstrap=40).row("m", "s")
    assert one.plain.auc.value == pytest.approx(each[0])
    assert np.isnan(one.plain.auc.spread)


def test_the_same_seed_gives_the_same_errors_whatever_else_is_in_the_table():
    rng = np.random.default_rng(8)
    b, s = {k: gaussian(rng, 500) for k in "xy"}, {k: gaussian(rng, 400, 1) for k in "xy"}
    both = evaluate(Sample(b), {"s": Sample(s)}, n_bootstrap=20)
    alone = evaluate(Sample({"y": b["y"]}), {"s": Sample({"y": s["y"]})}, n_bootstrap=20)
    for field in ("value", "error"):
        assert getattr(both.row("y", "s").plain.auc, field) == getattr(alone.row("y", "s").plain.auc, field)
    other = evaluate(Sample(b), {"s": Sample(s)}, n_bootstrap=20, seed=2)
    assert other.row("y", "s").plain.auc.value == both.row("y", "s").plain.auc.value
    assert other.row("y", "s").plain.auc.error != both.row("y", "s").plain.auc.error


def test_rows_of_one_event_are_drawn_together():
    """Every row twice: as rows the error shrinks by √2, as events it stays."""
    rng = np.random.default_rng(9)
    b, s = gaussian(rng, 600), gaussian(rng, 600, 1)
    twice, event = np.repeat(b, 2), np.repeat(np.arange(600), 2)
    once = evaluate(Sample({"x": b}), {"s": Sample({"x": s})}, n_bootstrap=300).rows[0].plain.auc.error
    signal = Sample({"x": np.repeat(s, 2)}, event=event)
    together = evaluate(Sample({"x": twice}, event=event), {"s": signal}, n_bootstrap=300).rows[0].plain.auc.error
    apart = evaluate(Sample({"x": twice}), {"s": Sample(signal.scores)}, n_bootstrap=300).rows[0].plain.auc.error
    assert together == pytest.approx(once, rel=0.15)
    assert apart == pytest.approx(once / np.sqrt(2), rel=0.15)
    (counts,) = resamplings([6], 4, 1, [np.array([3, 3, 5, 5, 5, 9])])
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 2] == counts[:, 4]).all()


def test_rows_without_a_score_and_negative_weights_are_counted_and_said():
    b = Sample({"x": np.r_[np.nan, np.arange(99.0)]}, np.r_[np.ones(98), -1.0, 1.0])
    found = evaluate(b, {"s": Sample({"x": np.r_[np.arange(50.0), np.nan, np.inf]})}, n_bootstrap=2)
    row = found.row("x", "s")
    assert (row.undefined_background, row.undefined_signal) == (1, 2)
    assert "x: 1 of 100 background rows and 2 of 52 rows of s have no score, and are left out for it" in found.notes
    assert "background: 1 rows have negative weights, 0.01 of all |weights|; they are subtracted" in found.notes


@pytest.mark.parametrize(
    ("background", "signal", "message"),
    [
        (
            Sample({"x": np.zeros(3)}, np.ones(2)),
            Sample({"x": np.zeros(3)}),
            "one number for every row, but: score x 3",
        ),
        (Sample({}), Sample({"x": np.zeros(3)}), "no score at all"),
        (Sample({"x": np.zeros(3)}, np.zeros(3)), Sample({"x": np.zeros(3)}), "no row with a positive weight"),
        (
            Sample({"x": np.zeros(3)}, [1, -1, -1]),
            Sample({"x": np.zeros(3)}),
            "background: the weights sum to -1, so that no efficiency can be given",
        ),
        (
            Sample({"x": [0.0, 1.0, np.nan]}, [1, -1, 1]),
            Sample({"x": np.zeros(3)}),
            "x: the weights of the rows of the background that have a score sum to 0",
        ),
        (Sample({"x": np.zeros(2)}, [1, np.nan]), Sample({"x": np.zeros(3)}), "1 weights are not finite"),
        (Sample({"x": np.full(3, np.nan)}), Sample({"x": np.zeros(3)}), "x: no row of the background has a score"),
        (Sample({"x": np.zeros(3)}), Sample({"x": np.zeros((2, 3))}), "1 models scored the background, but 2 scored s"),
    ],
)
def test_samples_that_do_not_fit_are_refused_in_one_sentence(background, signal, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate(background, {"s": signal}, n_bootstrap=2)


def test_efficiencies_lie_between_zero_and_one():
    x = Sample({"x": np.arange(3.0)})
    with pytest.raises(ConfigError, match="must lie between 0 and 1"):
        evaluate(x, {"s": x}, efficiencies=[1.5])
    with pytest.raises(ConfigError, match="y was not evaluated against s"):
        evaluate(x, {"s": x}, n_bootstrap=2).row("y", "s")


# --- sculpting ---------------------------------------------------------------------------------------------------------


@given(weighted_scores(12), weighted_scores(12))
@settings(deadline=None)
def test_the_divergence_is_that_of_scipy(first, second):
    distance = pytest.importorskip("scipy.spatial.distance")
    n = min(first.shape[1], second.shape[1])
    p, q = first[1, :n], second[1, :n]
    assert evaluation.jensen_shannon(p, q) == pytest.approx(distance.jensenshannon(p, q, base=2) ** 2, abs=1e-12)


def test_a_random_score_sculpts_nothing_and_the_mass_itself_everything():
    distance = pytest.importorskip("scipy.spatial.distance")
    rng = np.random.default_rng(10)
    mass, w = rng.exponential(50, 6000), rng.uniform(0.5, 1.5, 6000)
    noise = evaluation.sculpting(gaussian(rng, 6000), mass, w)
    for cut in noise.divergence.values():
        assert abs(cut.value - cut.random) < 4 * cut.random_error
    assert abs(noise.distance_correlation - noise.distance_correlation_random) < 0.02
    assert abs(noise.rank_correlation) < 4 / np.sqrt(6000)
    itself = evaluation.sculpting(mass, mass, w)
    flat, top = np.full(20, 0.05), np.r_[np.zeros(18), 0.5, 0.5]
    assert itself.divergence[0.1].value == pytest.approx(distance.jensenshannon(flat, top, base=2) ** 2, abs=0.01)
    assert itself.divergence[0.1].value > 20 * itself.divergence[0.1].random
    assert itself.distance_correlation == pytest.approx(1)
    assert itself.rank_correlation == pytest.approx(1)
    assert evaluation.sculpting(-mass, mass, w).rank_correlation == pytest.approx(-1)


def test_the_expectation_of_a_random_cut_is_that_of_random_cuts():
    rng = np.random.default_rng(11)
    mass = rng.exponential(50, 2000)
    values = [evaluation.sculpting(rng.random(2000), mass, cuts=[0.1], rows=10).divergence[0.1] for _ in range(40)]
    mean, spread = np.mean([v.value for v in values]), np.std([v.value for v in values])
    assert values[0].random == pytest.approx(mean, abs=4 * spread / np.sqrt(40))
    assert values[0].random_error == pytest.approx(spread, rel=0.5)


def test_a_rising_function_of_the_score_changes_nothing():
    rng = np.random.default_rng(12)
    mass = rng.exponential(50, 3000)
    score = mass + 30 * gaussian(rng, 3000)
    a, b = evaluation.sculpting(score, mass), evaluation.sculpting(np.exp(score / 100), mass)
    assert a.divergence == b.divergence
    assert a.distance_correlation == b.distance_correlation


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_correlations_are_those_of_other_implementations(seed):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    x, w = rng.integers(0, 8, 30).astype(float), rng.integers(1, 4, 30)
    y = x + rng.integers(0, 8, 30)
    assert evaluation.rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    repeated = [np.repeat(a, w) for a in (x, y)]
    assert evaluation.rank_correlation(x, y, w) == pytest.approx(stats.spearmanr(*repeated).statistic)
    assert evaluation.distance_correlation(x, y, w) == pytest.approx(slow_distance_correlation(*repeated))


def slow_distance_correlation(x, y):
    """By the definition with three expectations of products of distances."""

    def product(a, b):
        n = len(a)
        da = [[abs(p - q) for q in a] for p in a]
        db = [[abs(p - q) for q in b] for p in b]
        joint = sum(da[i][j] * db[i][j] for i in range(n) for j in range(n)) / n**2
        means = sum(map(sum, da)) / n**2 * sum(map(sum, db)) / n**2
        mixed = sum(sum(da[i]) * sum(db[i]) for i in range(n)) / n**3
        return joint + means - 2 * mixed

    return np.sqrt(product(x, y) / np.sqrt(product(x, x) * product(y, y)))


def test_a_constant_correlates_with_nothing():
    assert np.isnan(evaluation.rank_correlation(np.ones(5), np.arange(5)))
    assert np.isnan(evaluation.distance_correlation(np.ones(5), np.arange(5)))
    flat = evaluation.sculpting(np.arange(300.0), np.ones(300))
    assert flat.divergence[0.1].value == 0
    assert len(flat.before) == len(flat.edges) - 1 == 1
    with pytest.raises(ConfigError, match="sculpting needs two rows"):
        evaluation.sculpting([np.nan, 1.0], [1.0, 2.0])


# --- baselines ---------------------------------------------------------------------------------------------------------


def test_single_columns_come_from_the_inputs_before_the_spectators():
    x = np.array([[0.2, 0.5, 0.0], [0.4, 0.6, 1.2]])
    found = evaluation.column_baselines(
        x, ["f.ptd", "f.tau2", "f.tau1"], {"pt": np.array([1.0, 2.0]), "ptd": np.zeros(2), "mass": np.array([3.0, 4.0])}
    )
    assert list(found) == ["pTD (reversed)", "mass", "tau21 (reversed)", "pT"]
    np.testing.assert_array_equal(found["pTD (reversed)"], [-0.2, -0.4])
    np.testing.assert_array_equal(found["tau21 (reversed)"], [np.nan, -0.5])
    assert list(evaluation.column_baselines(x, [], {"mjj": np.ones(2)}, level="event")) == ["mjj"]
    ready = evaluation.column_baselines(x, ["f.tau21", "f.a", "f.b"], {})
    np.testing.assert_array_equal(ready["tau21 (reversed)"], [-0.2, -0.4])


def test_fitted_baselines_use_weights_and_know_what_is_far():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(13)
    x = rng.normal(size=(800, 3)) * [1, 10, 1] + [0, 5, 0]
    x[:, 2] = x[:, 0]  # a direction without variance
    far = np.array([[6.0, 5.0, 6.0], [0.0, 80.0, 0.0]])
    junk = np.full((200, 3), 1e3)  # without weight, it must not count
    fitted = evaluation.baselines(np.r_[x, junk], np.r_[np.ones(800), np.zeros(200)])
    for name, score in fitted.items():
        # a forest sees one column at a time, and what is far in one of three only is not far for it
        assert score(far)[: 1 if name == "IsolationForest" else 2].min() > np.quantile(score(x), 0.98), name
        assert np.isfinite(score(x)).all()
    again = evaluation.baselines(np.r_[x, junk], np.r_[np.ones(800), np.zeros(200)])
    np.testing.assert_array_equal(fitted["IsolationForest"](x), again["IsolationForest"](x))
    with pytest.raises(ConfigError, match="ten background rows to be fitted to, there are 3"):
        evaluation.baselines(x[:3], np.ones(3))


def test_a_whole_number_as_weight_is_as_many_rows_for_a_distance():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(14)
    x, w = rng.normal(size=(60, 2)), rng.integers(1, 5, 60)
    name = "Mahalanobis (standardised)"
    a, b = (evaluation.baselines(*rows)[name](x) for rows in ((x, w), (np.repeat(x, w, axis=0), np.ones(w.sum()))))
    np.testing.assert_allclose(a / a[0], b / b[0])  # the normalisation of a covariance is a convention


def test_normal_coordinates_do_not_saturate():
    pytest.importorskip("scipy")
    rng = np.random.default_rng(15)
    x = rng.exponential(1.0, (5000, 1))
    z = ZScores(x, np.ones(5000))
    inside = z(x)
    assert abs(inside.mean()) < 0.05
    assert inside.std() == pytest.approx(1, abs=0.05)
    beyond = z(np.array([[50.0], [100.0], [200.0]]))[:, 0]
    assert (np.diff(beyond) > 1).all()
    with_atom = np.r_[np.zeros((600, 1)), rng.random((400, 1))]
    values = ZScores(with_atom, np.ones(1000))(with_atom)
    assert len(np.unique(values[:600])) == 1
    assert np.isfinite(values).all()


def test_the_ceiling_knows_the_signal():
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(16)
    b, s = rng.normal(size=(400, 2)), rng.normal([1.5, 0.0], 1.0, (300, 2))
    score = evaluation.ceiling(b[:200], s[:150], np.ones(200), np.ones(150))
    assert evaluation.auc(score(b[200:]), score(s[150:]), n_bootstrap=0).value > 0.75
    with pytest.raises(ConfigError, match="ten rows of each class to train on, there are 5"):
        evaluation.ceiling(b, s[:5], np.ones(400), np.ones(5))


def test_core_lies_inside_the_background_and_narrow_beside_its_centre():
    rng = np.random.default_rng(17)
    x = (rng.normal(size=(4000, 2)) * [1, 20] + [3, -7]).astype(np.float32)
    made = evaluation.core_and_narrow(x, x, np.ones(4000))
    for name, width, centre in (("core", 0.35, 0.0), ("narrow", 0.1, 1.0)):
        z = (made[name] - [3, -7]) / [1, 20]
        np.testing.assert_allclose(z.std(axis=0), width, rtol=0.1)
        np.testing.assert_allclose(z.mean(axis=0), centre, atol=0.1)
    with pytest.raises(ConfigError, match="only flat inputs"):
        evaluation.core_and_narrow(np.zeros((4, 2, 2)), np.zeros((4, 2, 2)), np.ones(4))


# --- files -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skims(tmp_path_factory):
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
        for n, x in (("svj", 1.0), ("qcd", 1000.0), ("ttbar", 30.0))
    }
    out = tmp_path_factory.mktemp("skims")
    ad.run(fileset, "skim_jets", config="skim_jets.yaml", executor="iterative", output=out)
    return out


@pytest.fixture(scope="module")
def models():
    return {"wnae": [DATA / "wnae.onnx"], "stored": [DATA / "ae_stored.onnx"]}


@pytest.fixture(scope="module")
def compared(skims, models):
    pytest.importorskip("sklearn")
    return evaluation.evaluate_models(
        {**models, "twice": [DATA / "wnae.onnx"] * 2}, skims, skims, datasets=["ttbar", "qcd"], signal_datasets=["svj"],
        reverse=dict.fromkeys("abc", models["wnae"]), untrained=[DATA / "wnae.onnx"], n_bootstrap=10,
    )  # fmt: skip


def test_models_and_baselines_stand_in_one_table(compared):
    scores = [row.score for row in compared.rows if row.signal == "svj"]
    assert scores[:4] == ["wnae", "stored", "twice", "untrained"]
    assert {"multiplicity", "pTD (reversed)", "mass", "pT", "Mahalanobis (standardised)", "IsolationForest"} <= set(
        scores
    )
    assert {"supervised ceiling", "supervised ceiling, equal spectra"} <= set(scores)
    assert set(compared.sculpting) == set(scores) - {"supervised ceiling", "supervised ceiling, equal spectra"}
    twice, once = compared.row("twice", "svj"), compared.row("wnae", "svj")
    assert twice.models == 2
    assert twice.plain.auc.value == once.plain.auc.value
    assert twice.plain.auc.error == pytest.approx(once.plain.auc.error)
    assert twice.plain.auc.each == (once.plain.auc.value,) * 2
    assert np.isnan(twice.plain.auc.spread)  # two are too few
    assert "twice: 2 models are too few for a spread over seeds, which takes 5" in compared.notes


def test_only_rows_that_trained_nothing_are_evaluated(compared, skims):
    rows = load_skim(skims, NAME, datasets=["qcd", "ttbar"])
    test = rows.splits("test")
    assert compared.row("mass", "svj").plain.n_effective == pytest.approx(n_effective(test.weight))
    svj = load_skim(skims, NAME, datasets=["svj"])
    assert compared.row("mass", "svj").plain.n_effective_signal == pytest.approx(len(svj.x))
    ceiling = compared.row("supervised ceiling", "svj")
    assert ceiling.plain.n_effective_signal == pytest.approx((svj.split == "test").sum())
    expected = evaluation.auc(
        test.spectators["mass"], svj.spectators["mass"], test.weight, svj.weight, n_bootstrap=0
    ).value
    assert compared.row("mass", "svj").plain.auc.value == pytest.approx(expected)


def test_a_model_of_another_feature_scores_the_same_jets(compared, skims, models):
    stored = load_skim(skims, NAME, {"source": "stored"}, datasets=["qcd", "ttbar"]).splits("test")
    svj = load_skim(skims, NAME, {"source": "stored"}, datasets=["svj"])
    scorer = ad.OnnxScorer(models["stored"][0])
    row = compared.row("stored", "svj")
    assert (row.undefined_background, row.undefined_signal) == (0, 0)
    expected = evaluation.auc(scorer(stored.x), scorer(svj.x), stored.weight, svj.weight, n_bootstrap=0).value
    assert row.plain.auc.value == pytest.approx(expected, abs=1e-9)


def test_rows_where_another_models_inputs_are_undefined_are_counted(skims, models, tmp_path):
    copy = shutil.copytree(skims, tmp_path / "skims")
    path = next((copy / "svj").glob("*.parquet"))
    table = pq.read_table(path)
    place = table.column_names.index(f"{NAME}[source=stored].tau1")
    spoiled = np.array(table.column(place).to_numpy())
    spoiled[:7] = np.nan
    pq.write_table(table.set_column(place, table.field(place), [spoiled]), path)
    found = evaluation.evaluate_models(
        models, copy, copy, datasets=["qcd"], signal_datasets=["svj"], with_baselines=False, n_bootstrap=2
    )
    assert found.row("stored", "svj").undefined_signal == 7
    assert found.row("wnae", "svj").undefined_signal == 0
    assert any(re.search(r"stored: 0 of \d+ background rows and 7 of \d+ rows of svj", note) for note in found.notes)


def test_both_directions_stand_side_by_side_with_the_smaller(compared):
    rows = {name: values for name, *values in evaluation.both_directions(compared)}
    assert "untrained" not in rows
    assert {"wnae", "stored", "twice", "mass", "supervised ceiling"} <= set(rows)
    for forward, reverse, smaller in rows.values():
        assert smaller.value == min(forward.value, reverse.value)
    here, there, _ = rows["wnae"]
    assert there == compared.reverse.row("wnae", "ttbar+qcd").plain.auc
    assert here == compared.row("wnae", "svj").plain.auc
    with pytest.raises(ConfigError, match="only one direction"):
        evaluation.both_directions(compared.reverse)


def test_anomalies_that_are_made_have_the_inputs_of_background_only(compared):
    for name in ("core", "narrow"):
        scores = {row.score for row in compared.rows if row.signal == name}
        assert {"wnae", "stored", "pTD (reversed)", "IsolationForest"} <= scores
        assert not {"multiplicity", "pT", "supervised ceiling"} & scores
    assert compared.row("Mahalanobis (standardised)", "core").plain.auc.value < 0.3


def test_what_is_written_can_be_read(compared, tmp_path):
    paths = evaluation.write(compared, tmp_path)

    def refuse(name):
        raise AssertionError(name)

    content = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=refuse)
    assert content["settings"]["seed"] == 1
    assert content["provenance"]["models"]["wnae"][0]["digest"] == ad.OnnxScorer(DATA / "wnae.onnx").digest
    assert content["provenance"]["background"]["files"]
    assert "coffea-ad" in content["provenance"]["versions"]
    assert (
        content["both_directions"]["wnae"]["smaller"]["value"] <= content["both_directions"]["wnae"]["forward"]["value"]
    )
    assert len(content["rows"]) == len(compared.rows)
    with (tmp_path / "evaluation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["Signal", "Model", "Chan", "AUC", "1e-2", "1e-3", "1e-4"]
    assert {row["Chan"] for row in rows} == {"ttbar+qcd"}
    wnae = next(row for row in rows if (row["Signal"], row["Model"]) == ("svj", "wnae"))
    assert float(wnae["AUC"]) == pytest.approx(compared.row("wnae", "svj").plain.auc.value, rel=1e-5)
    assert wnae["1e-4"] == ""
    text = (tmp_path / "table.md").read_text()
    assert "| wnae |" in text
    assert "twice (2 models)" in text
    assert "both directions" in text
    assert all(path.is_file() for path in paths)


def test_the_columns_are_those_of_the_dark_machines_also_for_plain_scores(tmp_path):
    rng = np.random.default_rng(18)
    b, s = Sample({"x": gaussian(rng, 3000)}), {"s": Sample({"x": gaussian(rng, 500, 1)})}
    write_csv(evaluate(b, s, n_bootstrap=2), tmp_path / "a.csv", channel="chan1")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[0] == "Signal,Model,Chan,AUC,1e-2,1e-3,1e-4"
    assert re.fullmatch(r"s,x,chan1,0\.\d+,0\.\d+,,", lines[1])
    write_csv(evaluate(b, s, n_bootstrap=2, efficiencies=[0.5]), tmp_path / "b.csv", channel="chan1")
    assert (tmp_path / "b.csv").read_text().splitlines()[1].endswith(",,,")


@pytest.mark.plot
def test_figures_are_drawn_for_every_signal(tmp_path, spectra):
    background, signal = spectra
    paths = evaluation.write(evaluate(background, {"b/c": signal}, n_bootstrap=2), tmp_path)
    drawn = {p.name for p in paths if p.suffix == ".png"}
    assert drawn == {"roc_b_c.png", "sic_b_c.png", "summary.png", "sculpting.png"}
    assert all(p.stat().st_size > 5000 for p in paths if p.suffix == ".png")


def test_the_dictionary_holds_null_for_what_could_not_be_measured():
    x = Sample({"x": np.arange(50.0)})
    row = as_dict(evaluate(x, {"s": x}, n_bootstrap=2))["rows"][0]
    assert row["plain"]["signal_efficiency"]["0.001"]["value"] is None
    assert row["matched"] is None


def words(skims, *more):
    return [
        "evaluate",
        str(DATA / "wnae.onnx"),
        "--background",
        str(skims),
        "--bootstrap",
        "2",
        "--no-baselines",
        *more,
    ]


def test_the_verb_prints_tables_and_writes_them(skims, tmp_path, capsys):
    out = tmp_path / "evaluation"
    code = cli.main([*words(skims, "--datasets", "qcd", "--signal-datasets", "svj", "ttbar"), "-o", str(out)])
    printed = capsys.readouterr().out
    assert code == 0
    assert "svj" in printed
    assert "sculpting" in printed
    assert "was trained on ttbar, which is a signal here" in printed
    assert {p.name for p in out.iterdir()} >= {"evaluation.json", "evaluation.csv", "table.md"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "say which datasets are signals"),
        (["--signal-datasets", "svjj"], "unknown dataset 'svjj'; did you mean 'svj'?"),
        (["--signal-datasets", "svj", "--datasets", "qcd", "svj"], "svj is background and signal at once"),
        (["--signal-datasets", "svj", "--splits", "tset"], "unknown split 'tset'; did you mean 'test'?"),
        (["--signal-datasets", "svj", "--mass", "msd"], "unknown spectator 'msd'"),
        (["--signal-datasets", "svj", "--match", "ptt"], "unknown spectator 'ptt'; did you mean"),
        (["--signal-datasets", "svj", "qcd", "--reverse", str(DATA / "wnae.onnx")], "needs one signal dataset"),
        (["--signal-datasets", "svj", "--reverse", "a=x.onnx", "b=y.onnx"], "there are 1 models, but 2 for the other"),
        (["--signal-datasets", "svj", "--reverse", "a="], "'a=' is not of the form FILE or LABEL=FILE,FILE"),
    ],
)
def test_what_does_not_fit_ends_in_one_sentence(skims, more, message, capsys, tmp_path):
    assert cli.main([*words(skims, *more), "-o", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_of_other_features_than_the_skim_is_named(skims, tmp_path):
    fileset = {"svj": {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    ad.run(fileset, "skim_jets", config="none", executor="iterative", output=tmp_path)  # constituents only
    with pytest.raises(SkimError, match=r"ae_stored.onnx cannot be evaluated on this skim: .*unknown feature"):
        evaluation.evaluate_models({"ae": [DATA / "ae_stored.onnx"]}, skims, tmp_path, datasets=["qcd"])


def test_a_skim_without_test_rows_says_so(skims, models, tmp_path):
    copy = shutil.copytree(skims, tmp_path / "skims")
    for path in (copy / "qcd").glob("*.parquet"):
        table = pq.read_table(path)
        split = split_of(*(table[k].to_numpy() for k in ("run", "luminosityBlock", "event")))
        pq.write_table(table.filter(pa.array(split != "test")), path)
    with pytest.raises(ConfigError, match="qcd has no test rows with a positive weight"):
        evaluation.evaluate_models(models, copy, copy, datasets=["qcd"], signal_datasets=["svj"])


def test_labels_name_models_and_may_not_repeat():
    assert evaluation.parse_models(["a/x.onnx", "y=b,c"]) == {"x": ("a/x.onnx",), "y": ("b", "c")}
    with pytest.raises(ConfigError, match="two models are called x"):
        evaluation.parse_models(["a/x.onnx", "b/x.onnx"])
    for wrong in ("=a", "y=a,,b"):
        with pytest.raises(ConfigError, match="is not of the form"):
            evaluation.parse_models([wrong])
    with pytest.raises(BadModel, match="cannot be read"):
        evaluation.evaluate_models({"x": ["nowhere.onnx"]}, DATA, DATA, datasets=["a"], signal_datasets=["b"])


@pytest.mark.torch  # the onnx package comes with it
def test_events_have_no_pt_and_so_only_the_spectra_are_left_out(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    from coffea_ad.modelfiles.attach import AttachConfig, attach

    node = helper.make_node("ReduceSum", ["features", "axis"], ["score"], keepdims=0)
    made = helper.make_graph(
        [node], "toy", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", 5])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
        [onnx.numpy_helper.from_array(np.array([1]), "axis")],
    )  # fmt: skip
    plain = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9).SerializeToString()
    card = AttachConfig(name="sum", method="sum", features=({"name": "dijet"},))
    (tmp_path / "sum.onnx").write_bytes(attach(plain, card))
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for n in ("ttbar", "svj")
    }
    overrides = ["leading_lepton_pt_min=0", "features=[{name: dijet}]"]
    ad.run(fileset, "skim_events", overrides=overrides, executor="iterative", output=tmp_path / "skims")

    def compare(**more):
        skim = tmp_path / "skims"
        return evaluation.evaluate_models(
            {"sum": [tmp_path / "sum.onnx"]}, skim, skim, signal_datasets=["svj"], n_bootstrap=2, **more
        )

    found = compare()
    assert found.row("sum", "svj").matched is None
    assert any("there is no column pt, so nothing is shown at equal spectra" in note for note in found.notes)
    assert {"mjj", "HT", "MET", "number of jets"} <= {row.score for row in found.rows}
    assert found.provenance["mass"] == "mjj"
    by_ht = compare(match="ht", mass="ht")
    assert by_ht.row("HT", "svj").matched.auc.value == pytest.approx(0.5, abs=0.1)
    assert by_ht.sculpting["HT"].rank_correlation == pytest.approx(1)
    with pytest.raises(ConfigError, match="cannot stand in one table"):
        evaluation.evaluate_models({"a": [tmp_path / "sum.onnx"], "b": [DATA / "wnae.onnx"]}, tmp_path / "skims",
                                   tmp_path / "skims", signal_datasets=["svj"])  # fmt: skip


@pytest.mark.torch
def test_cross_trained_models_score_each_event_by_the_member_that_never_saw_it(skims, tmp_path):
    from test_folds import SALT, graph, toy_card

    (tmp_path / "folded.onnx").write_bytes(write_card(graph(), toy_card()))  # member f gives f
    model = ad.OnnxScorer(tmp_path / "folded.onnx")
    process = Process(skims, ["qcd"], model)
    chosen = process.in_splits("test")
    ids = (process.rows.spectators[k][chosen] for k in ("run", "luminosityBlock", "event"))
    expected = fold_of(SALT, 3, *ids)
    np.testing.assert_array_equal(process.score(model, process.inputs(model.card, "folded"), chosen), expected)
    found = evaluation.evaluate_models(
        {"folded": [tmp_path / "folded.onnx"]}, skims, skims, datasets=["qcd"], signal_datasets=["svj"], n_bootstrap=2
    )
    assert found.row("folded", "core").plain.auc.value == pytest.approx(0.5)  # the same events, the same members
