"""Statistics of weighted rows: negative weights are subtracted, events are drawn whole, differences are paired."""

from __future__ import annotations

import re
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA

from coffea_ad import evaluation
from coffea_ad.errors import ConfigError
from coffea_ad.evaluation import Estimate, Metrics, Sample, difference, directions, evaluate
from coffea_ad.evaluation.curves import MIN_EFFECTIVE, Curve, Ranking
from coffea_ad.evaluation.matching import Matching
from coffea_ad.evaluation.report import as_dict, listings
from coffea_ad.scoring import regions
from coffea_ad.skims.reading import load_skim
from coffea_ad.weights import n_effective

TRUE = NormalDist().cdf(1 / np.sqrt(2))  # of two normal distributions one σ apart


def signed_rows():
    row = st.tuples(st.integers(0, 6), st.integers(-2, 4).filter(bool))  # few values, so that many are tied
    rows = st.lists(row, min_size=2, max_size=30).map(lambda r: np.array(r, float).T)
    return rows.filter(lambda r: r[1].sum() > 0)


def by_pairs(b, s, wb, ws):
    """The area by its definition."""
    wins = (s[None, :] > b[:, None]) + 0.5 * (s[None, :] == b[:, None])
    return float(wb @ wins @ ws) / (wb.sum() * ws.sum())


def next_to_leading(rng, n):
    """A standard normal background of which 40 % of the rows at large x, and none at small x, have weight −1."""
    x = rng.normal(size=8 * n)
    negative = 0.4 / (1 + np.exp(-2 * x))
    x = x[rng.random(8 * n) < 0.2 / (1 - 2 * negative)][:n]  # the sum of signs has the density of a standard normal
    negative = 0.4 / (1 + np.exp(-2 * x))
    return x, np.where(rng.random(len(x)) < negative, -1.0, 1.0)


def test_the_area_of_a_signed_sample_is_the_true_one_and_dropping_negative_rows_misses_it():
    rng = np.random.default_rng(1)
    b, w = next_to_leading(rng, 20_000)
    s = rng.normal(1, 1, 20_000)
    signed = evaluation.auc(b, s, w)
    assert (w < 0).mean() > 0.2
    assert abs(signed.value - TRUE) < 4 * signed.error
    assert signed.error < 0.01
    dropped = evaluation.auc(b[w > 0], s)
    assert TRUE - dropped.value > 10 * dropped.error
    row = evaluate(Sample({"x": b}, w), {"s": Sample({"x": s})}, efficiencies=(0.1, 0.03), n_bootstrap=50).row("x", "s")
    assert row.plain.auc.value == pytest.approx(signed.value)
    for eps in (0.1, 0.03):
        estimate = row.plain.signal_efficiency[eps]
        want = 1 - NormalDist(1, 1).cdf(NormalDist().inv_cdf(1 - eps))
        assert abs(estimate.value - want) < 4 * estimate.error


@given(signed_rows(), signed_rows())
@settings(deadline=None, max_examples=60)
def test_the_area_is_that_of_all_pairs_with_the_signs_of_both(background, signal):
    (b, wb), (s, ws) = background, signal
    assert evaluation.auc(b, s, wb, ws, n_bootstrap=0).value == pytest.approx(by_pairs(b, s, wb, ws))


@given(signed_rows(), signed_rows(), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_rows_that_cancel_change_nothing(background, signal, seed):
    """A signed sample has the answer of the sample that it stands for."""
    rng = np.random.default_rng(seed)
    (b, wb), (s, ws) = background, signal
    wb, ws = np.abs(wb), np.abs(ws)
    more, k = rng.integers(0, 7, 10).astype(float), rng.integers(1, 4, 10).astype(float)
    larger = np.r_[more, b, more], np.r_[s, more, more], np.r_[k, wb, -k], np.r_[ws, k, -k]
    small = b, s, wb, ws
    assert evaluation.auc(*larger, n_bootstrap=0).value == pytest.approx(evaluation.auc(*small, n_bootstrap=0).value)
    first, second = (
        evaluation.signal_efficiency(*x[:2], [0.123, 0.457], *x[2:], n_effective_min=0) for x in (small, larger)
    )
    np.testing.assert_allclose(first, second)
    pt = [rng.integers(0, 4, n).astype(float) for n in (len(b), len(s))]
    w_small = evaluation.match_spectrum(*pt, wb, ws, bins=3)
    if w_small[0].sum() > 0 and w_small[1].sum() > 0:
        matching = Matching(*pt, bins=3)  # the bins of the small sample, with rows that cancel in them
        slot = rng.integers(0, 3, 10)
        matching.background = np.r_[slot, matching.background, slot]
        matching.inside = np.r_[np.ones(10, bool), matching.inside, np.ones(10, bool)]
        matching.signal = np.r_[matching.signal, slot, slot]
        w_large = matching.weights(*larger[2:])
        at_equal = [evaluation.auc(*x[:2], *w, n_bootstrap=0).value for x, w in ((small, w_small), (larger, w_large))]
        assert at_equal[1] == pytest.approx(at_equal[0])


@given(signed_rows(), signed_rows())
@settings(deadline=None, max_examples=60)
def test_half_the_weight_twice_changes_nothing_but_the_effective_numbers(background, signal):
    (b, wb), (s, ws) = background, signal
    b2, s2, wb2, ws2 = np.r_[b, b], np.r_[s, s], np.r_[wb, wb] / 2, np.r_[ws, ws] / 2
    once, twice = Ranking.of(b, s).curve(wb, ws), Ranking.of(b2, s2).curve(wb2, ws2)
    for name in ("eps_b", "eps_s", "eps_s_above", "area"):
        np.testing.assert_allclose(getattr(twice, name), getattr(once, name), atol=1e-12)
    np.testing.assert_allclose(twice.n_effective, 2 * once.n_effective, atol=1e-9)
    np.testing.assert_allclose(evaluation.roc_curve(b2, s2, wb2, ws2), evaluation.roc_curve(b, s, wb, ws), atol=1e-12)
    best = [evaluation.significance_improvement(*x, n_effective_min=0) for x in ((b, s, wb, ws), (b2, s2, wb2, ws2))]
    np.testing.assert_allclose(*best)


@given(signed_rows(), signed_rows())
@settings(deadline=None, max_examples=60)
def test_a_curve_never_falls_and_has_the_area_of_its_weights(background, signal):
    (b, wb), (s, ws) = background, signal
    eps_b, eps_s = evaluation.roc_curve(b, s, wb, ws)
    for eps in (eps_b, eps_s):
        assert (eps[0], eps[-1]) == (0, 1)
        assert (np.diff(eps) >= 0).all()
    eps_b, eps_s = evaluation.roc_curve(b, s, np.abs(wb), np.abs(ws))
    area = evaluation.auc(b, s, np.abs(wb), np.abs(ws), n_bootstrap=0).value
    assert np.trapezoid(eps_s, eps_b) == pytest.approx(area)


@given(signed_rows())
@settings(deadline=None, max_examples=60)
def test_effective_numbers_follow_the_rule_of_regions(background):
    b, w = background
    curve = Ranking.of(b, b).curve(w, np.ones(len(b)))
    want = [regions.n_effective_passing(w, b >= score) for score in np.unique(b)[::-1]]
    np.testing.assert_allclose(curve.n_effective, want, atol=1e-9)


def test_the_guard_is_a_relative_error_of_a_fifth():
    assert 1 / np.sqrt(MIN_EFFECTIVE) == pytest.approx(0.2)
    b = np.arange(1000.0)
    assert evaluation.significance_improvement(b, np.full(10, 980.0))[1] == 0.025
    assert evaluation.sculpting(b, b, cuts=[0.024]).divergence[0.024].n_effective == pytest.approx(24)
    assert np.isnan(evaluation.sculpting(b, b, cuts=[0.024]).divergence[0.024].value)
    assert np.isfinite(evaluation.sculpting(b, b, cuts=[0.025]).divergence[0.025].value)


def test_weights_that_sum_to_nothing_are_refused():
    with pytest.raises(ConfigError, match="do not sum to something positive"):
        evaluation.auc([0.0, 1.0], [1.0], [1, -1])
    with pytest.raises(ConfigError, match="a positive sum of weights"):
        evaluation.sculpting([0.0, 1.0], [0.0, 1.0], [1, -2])


def test_skims_with_negative_weights_are_evaluated_with_them_and_fits_go_without(tmp_path, monkeypatch):
    monkeypatch.setattr(directions, "baselines", lambda *_, **__: {})
    monkeypatch.setattr(directions, "ceiling", lambda *_, **__: lambda x: x[:, 0])
    datasets = {}
    for i, name in enumerate(("qcd", "svj")):
        x, rng = toy_rows(1200, seed=i, shift=0.5 * i)
        weight = np.where(rng.random(1200) < 0.2, -2.0, 2.0)
        datasets[name] = {"x": x, "weight": weight, "pt": rng.uniform(200, 400, 1200) + 30 * x[:, 0], "xsec": 1.0}
    write_skim(tmp_path, datasets)
    compared = evaluation.evaluate_models(
        {"wnae": [DATA / "wnae.onnx"]}, tmp_path, tmp_path, signal_datasets=["svj"], n_bootstrap=2
    )
    b, s = (load_skim(tmp_path, NAME, datasets=[name]) for name in ("qcd", "svj"))
    test, train = b.splits("test"), b.splits("train")
    row = compared.row("pT", "svj").plain
    signed = test.event_weight, s.event_weight
    want = evaluation.auc(test.spectators["pt"], s.spectators["pt"], *signed, n_bootstrap=0).value
    assert row.auc.value == pytest.approx(want)
    assert row.n_effective == pytest.approx(n_effective(test.event_weight))
    negative = int((test.event_weight < 0).sum()), int((train.event_weight < 0).sum())
    assert min(negative) > 0
    assert any(f"background: {negative[0]} rows have negative weights" in note for note in compared.notes)
    without = f"qcd: baselines and ceilings are fitted without the {negative[1]} training rows of negative weight"
    assert without in compared.notes


# --- sculpting ---------------------------------------------------------------------------------------------------------


def test_rows_that_cancel_sculpt_nothing():
    rng = np.random.default_rng(2)
    mass = rng.exponential(50, 600).round()
    score = (mass + 60 * rng.normal(size=600)).round()
    more = rng.integers(0, 600, 300)
    w = np.r_[rng.uniform(0.5, 1.5, 600), np.full(300, 0.7), np.full(300, -0.7)]
    place = np.r_[np.arange(600), more, more]
    a = evaluation.sculpting(score, mass, w[:600], cuts=[0.3])
    b = evaluation.sculpting(score[place], mass[place], w, cuts=[0.3])
    assert b.divergence[0.3].value == pytest.approx(a.divergence[0.3].value)
    assert b.divergence[0.3].n_effective < a.divergence[0.3].n_effective
    assert b.rank_correlation == pytest.approx(a.rank_correlation)
    assert b.distance_correlation == pytest.approx(a.distance_correlation)
    np.testing.assert_allclose(b.edges, a.edges)
    np.testing.assert_allclose(b.before, a.before)
    np.testing.assert_allclose(b.after[0.3], a.after[0.3], atol=1e-12)


def test_a_mass_that_only_signed_weights_make_independent_is_not_sculpted():
    """Rows of negative weight sit where score and mass are both large, and undo a correlation."""
    rng = np.random.default_rng(3)
    score, mass = rng.random(20_000), rng.random(20_000)
    more = rng.random(4000) ** 0.2, rng.random(4000) ** 0.2
    both = [np.r_[x, y, y] for x, y in zip((score, mass), more, strict=True)]
    signed = np.r_[np.ones(24_000), -np.ones(4000)]
    assert abs(evaluation.rank_correlation(*both, signed)) < 4 / np.sqrt(20_000)
    assert evaluation.rank_correlation(*both, np.maximum(signed, 0)) > 0.15


# --- errors ------------------------------------------------------------------------------------------------------------


def test_pairs_of_an_event_have_errors_larger_by_the_root_of_two():
    rng = np.random.default_rng(4)
    b, s, event = np.repeat(rng.normal(size=500), 2), np.repeat(rng.normal(1, 1, 500), 2), np.repeat(np.arange(500), 2)
    by_row = evaluation.auc(b, s, n_bootstrap=600).error
    by_event = evaluation.auc(b, s, n_bootstrap=600, events=(event, event)).error
    assert by_event / by_row == pytest.approx(np.sqrt(2), rel=0.1)


def two_scores(rng, n, models, noise=0.3):
    """Scores `models` times, each with its own smearing, and a blurred one of the same events."""
    b, s = rng.normal(size=n), rng.normal(1, 1, n)
    good, worse = (
        (np.stack([x + noise * rng.normal(size=n) for _ in range(models)]) for x in (b, s)),
        (np.stack([x + rng.normal(size=n) for _ in range(models)]) for x in (b, s)),
    )
    return [dict(zip(("good", "worse"), pair, strict=True)) for pair in zip(good, worse, strict=True)]


def test_differences_are_paired_over_the_events():
    rng = np.random.default_rng(5)
    b, s = two_scores(rng, 1500, 1)
    row = evaluate(Sample(b), {"s": Sample(s)}, n_bootstrap=200).row
    good, worse = row("good", "s").plain, row("worse", "s").plain
    delta = difference(good, worse)
    assert delta.value == pytest.approx(good.auc.value - worse.auc.value)
    assert delta.events < 0.8 * np.hypot(good.auc.error, worse.auc.error)
    assert np.isnan(delta.seeds)
    assert delta.low < delta.value < delta.high
    assert delta.p_value < 0.01
    same = difference(good, good)
    assert (same.value, same.events, same.low, same.high, same.p_value) == (0, 0, 0, 0, 1)
    assert str(delta).startswith("+0.0")


def figures(each, replicas):
    nothing = np.zeros(1)
    curve = Curve(nothing, nothing, nothing, nothing)
    estimate = Estimate(float(np.mean(each)), 0.0, float("nan"), tuple(each))
    return Metrics(estimate, {}, estimate, 0.1, 1.0, 1.0, curve, np.asarray(replicas, float))


def test_the_interval_over_seeds_is_that_of_welch():
    stats = pytest.importorskip("scipy.stats")
    a, b = [0.71, 0.75, 0.73], [0.70, 0.66, 0.64, 0.69, 0.68]
    delta = difference(figures(a, np.full(50, 0.7)), figures(b, np.full(50, 0.6)))
    test = stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (delta.low, delta.high) == pytest.approx((interval.low, interval.high))
    assert delta.p_value == pytest.approx(test.pvalue)
    assert delta.degrees == pytest.approx(test.df)
    assert delta.events == pytest.approx(0, abs=1e-12)


def test_three_seeds_claim_less_than_their_spread_suggests():
    """With two degrees of freedom each, 1.96 standard errors cover far less than 95 %; the interval given covers it."""
    rng = np.random.default_rng(6)
    inside = narrow = 0
    for _ in range(400):
        a, b = rng.normal(0.7, 0.02, 3), rng.normal(0.7, 0.02, 3)
        delta = difference(figures(a, [0.7, 0.7]), figures(b, [0.7, 0.7]))
        inside += delta.low <= 0 <= delta.high
        narrow += abs(delta.value) < 1.96 * delta.seeds
    assert inside / 400 > 0.93
    assert narrow / 400 < 0.91


def test_differences_of_other_samples_are_refused():
    with pytest.raises(ConfigError, match="same bootstrap replicas"):
        difference(figures([0.7], np.zeros(5)), figures([0.7], np.zeros(6)))
    with pytest.raises(ConfigError, match="same signals, not of 2 and 1"):
        difference([figures([0.7], [0])] * 2, figures([0.7], [0]))


@pytest.mark.parametrize(
    ("models", "shown"), [(3, r"0\.\d+ ± 0\.\d+ \[0\.\d+ to 0\.\d+\]"), (5, r"0\.\d+ ± 0\.\d+ ± 0\.\d+$")]
)
def test_a_spread_is_shown_for_five_seeds_and_a_range_for_fewer(models, shown):
    rng = np.random.default_rng(7)
    b, s = two_scores(rng, 600, models)
    compared = evaluate(Sample(b), {"s": Sample(s)}, n_bootstrap=10)
    text = listings(compared)[0].rows[0][1]
    assert re.match(shown, text), text
    few = "good: 3 models are too few for a spread over seeds, which takes 5" in compared.notes
    assert few == (models == 3)
    row = as_dict(compared)["rows"][0]["plain"]["auc"]
    assert len(row["each"]) == models
    assert (row["spread"] is None) == (models == 3)


def test_models_are_compared_with_the_first_one_on_the_same_events():
    rng = np.random.default_rng(8)
    b, s = two_scores(rng, 600, 1)
    pt = rng.exponential(100, 600)
    compared = evaluate(Sample(b, pt=pt), {"s": Sample(s, pt=pt)}, n_bootstrap=20)
    compared = replace(compared, provenance={"models": {"good": [], "worse": []}})
    table = next(t for t in listings(compared) if t.title == "AUC less that of good, on the same events")
    ((signal, score, plain, matched),) = table.rows
    assert (signal, score) == ("s", "worse")
    assert plain.startswith("-0.")
    assert matched.startswith("-0.")
    (entry,) = as_dict(compared)["differences"]
    assert entry["plain"]["value"] == pytest.approx(
        compared.row("worse", "s").plain.auc.value - compared.row("good", "s").plain.auc.value
    )


def test_the_effective_number_counts_signs():
    assert n_effective([1, 1, 1, -1]) == 1.0


@given(signed_rows(), signed_rows(), st.integers(0, 100))
@settings(deadline=None, max_examples=40)
def test_the_areas_of_many_sets_of_weights_are_those_of_single_ones(background, signal, seed):
    (b, wb), (s, ws) = background, signal
    rng = np.random.default_rng(seed)
    sets = wb * rng.integers(0, 3, (6, len(wb))), ws * rng.integers(0, 3, (6, len(ws)))
    ranking = Ranking.of(b, s)
    single = [ranking.curve(*pair, errors=False).area for pair in zip(*sets, strict=True)]
    np.testing.assert_allclose(ranking.areas(*sets), single, atol=1e-9)


@pytest.mark.parametrize("weight", [1.0, 0.3, 0.07, 1e-5])
def test_the_size_of_equal_weights_decides_no_region(weight):
    """A hundred rows carry a region of a tenth on ten of them, whatever sums of their weights are rounded to."""
    score, w = np.arange(100.0), np.full(100, weight)
    table = regions.calibrate(score, w, "toy")
    assert [r.name for r in regions.working_points(table, score, w, (0.25, 0.1, 0.09))] == ["eff0.25", "loose"]
