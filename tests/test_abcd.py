"""The ABCD estimate: on counts, and from the results of a run."""

from __future__ import annotations

import hist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.evaluation.counting import count_significance
from coffea_ad.histograms import book
from coffea_ad.results import Results
from coffea_ad.scoring import regions
from coffea_ad.scoring.specs import RegionSpec
from coffea_ad.search.abcd import abcd
from coffea_ad.search.abcd_counts import (
    Kappa,
    Plane,
    Yield,
    closure_uncertainty,
    estimate,
    homogeneity,
    kappa,
    twice_log_likelihood,
)
from coffea_ad.search.abcd_likelihood import Ratio, interval, plane_ratio, significance
from coffea_ad.search.abcd_scan import scan_cuts
from coffea_ad.search.channels import Channel, Sample, workspace

POINTS = [
    RegionSpec(name=n, efficiency=e, thresholds=(t,), error=0, n_effective=99, derived_from="toy")
    for n, e, t in (("loose", 0.1, 1.0), ("medium", 0.01, 2.0))
]
CELLS = regions.cell_names(2, jets=True)
PARTS = np.array([0.55, 0.22, 0.08, 0.09, 0.04, 0.02])  # of the events, in the cells with scores
EDGES = np.linspace(0, 1000, 21)


def events(rng, n, *, correlation=0.0, scale=120.0):
    """Return cells and missing momentum of events; correlated, tagged ones have more of it."""
    cell = rng.choice(len(PARTS), n, p=PARTS)
    met = rng.exponential(scale * (1 + correlation * (cell > 0)))
    return cell, met


def filled(cell, met, weight=None, *, jets=True):
    h = book([hist.axis.Variable(EDGES, name="met")], CELLS if jets else ["0", "1", "2", "unscored"], ["nominal"])
    names = np.array(CELLS if jets else ["0", "1", "2"])[cell]
    return h.fill(cell=names, variation="nominal", met=met, weight=np.ones(len(met)) if weight is None else weight)


def results(*, jets=True, hidden=(), **histograms):
    """Results of datasets, by kind: data…, signal…, and any other name for background; a weight is an event."""
    defs = {name: sorted(cells) for name, cells in regions.definitions(POINTS, jets=jets).items()}
    datasets = {
        name: {"metadata": {"is_mc": not name.startswith("data"), "xsec": 1.0, "is_signal": name.startswith("signal")},
               "lumi": 1e-3, "sumw": 1.0, "events": 10, "files": {}, "failed": [], "regions": defs,
               "hidden_cells": list(hidden) if name.startswith("data") else []}
        for name in histograms
    }  # fmt: skip
    content = {name: {"met": h} for name, h in histograms.items()}
    return Results(content, {"datasets": datasets, "lumi": 1e-3, "processor": "p", "models": []})


def simulation(rng, n=6000, events_expected=3000.0, **settings):
    return filled(*events(rng, n, **settings), np.full(n, events_expected / n))


# on counts


def negative_log_likelihood(b, c, d, expected):
    """The smallest 2 (−ln L) + const. with N_A fixed, by brute force over both other parameters."""
    from scipy.optimize import minimize

    def nll(logs):
        lb, lc = np.exp(logs)
        ld = lb * lc / expected
        return 2 * sum(lam - n * np.log(lam) for lam, n in ((lb, b), (lc, c), (ld, d)))

    return minimize(nll, np.log([b + 0.1, c + 0.1]), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).fun


@pytest.mark.parametrize("numbers", [(4, 5, 10), (1, 30, 3), (200, 150, 900)])
def test_the_interval_is_that_of_the_profile_likelihood(numbers):
    e = estimate(*(Yield.of(n) for n in numbers))
    best = 2 * sum(n - n * np.log(n) for n in numbers)
    for end in (e.low, e.high):
        assert negative_log_likelihood(*numbers, float(end)) - best == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize(("lam", "least"), [((4, 5, 10), 0.65), ((10, 12, 40), 0.65), ((100, 80, 400), 0.66)])
def test_one_sigma_covers_about_68_percent(lam, least):
    """Low counts: 0.665 ± 0.003 of 20 000 at 4, 5 and 10 expected events."""
    rng, n = np.random.default_rng(5), 20_000
    e = estimate(*(Yield.of(rng.poisson(x, n)) for x in lam))
    true = lam[0] * lam[1] / lam[2]
    coverage = np.mean((e.low <= true) & (true <= e.high))
    assert least < coverage < 0.70


@given(st.tuples(*[st.integers(1, 500)] * 3), st.floats(0.1, 50))
@settings(deadline=None)
def test_scaling_all_numbers_scales_the_estimate(numbers, factor):
    one = estimate(*(Yield.of(n) for n in numbers))
    scaled = estimate(*(Yield.of(factor * n, factor**2 * n) for n in numbers))
    for a, b in ((one.value, scaled.value), (one.low, scaled.low), (one.high, scaled.high)):
        assert b == pytest.approx(factor * a, rel=1e-6)


@given(st.tuples(*[st.integers(0, 200)] * 2), st.integers(1, 500))
def test_both_variables_count_alike(pair, d):
    one, two = (estimate(Yield.of(b), Yield.of(c), Yield.of(d)) for b, c in (pair, pair[::-1]))
    assert (one.value, one.low, one.high) == (two.value, two.low, two.high)
    assert one.low <= one.value <= one.high


def test_an_empty_d_bounds_from_below_only_and_an_empty_c_from_above():
    e = estimate(Yield.of(3), Yield.of([5, 0]), Yield.of([0, 7]))
    assert np.isnan(e.value[0])
    assert e.low[0] > 0
    assert e.high[0] == np.inf
    assert (e.value[1], e.low[1]) == (0, 0)
    assert 0 < e.high[1] < 1


def test_weighted_events_have_the_error_of_their_effective_number():
    same = estimate(Yield.of(40, 80), Yield.of(60, 120), Yield.of(100, 200))  # weights of 2
    counts = estimate(Yield.of(20), Yield.of(30), Yield.of(50))
    assert same.value == pytest.approx(2 * counts.value)
    assert same.high == pytest.approx(2 * counts.high)
    exact = estimate(Yield.of(40, 0), Yield.of(60), Yield.of(100, 0))  # only C varies
    assert exact.high == pytest.approx(0.4 * estimate(Yield.of(1, 0), Yield.of(60), Yield.of(1, 0)).high, rel=1e-6)


def test_a_bin_that_weights_make_negative_is_taken_as_empty_with_its_error():
    e = estimate(Yield.of(10), Yield.of([-2.0, 5.0], [9.0, 5.0]), Yield.of(20))
    assert (e.value[0], e.low[0]) == (0, 0)
    assert 0.5 < e.high[0] < 2.0


def test_kappa_has_the_error_of_four_numbers():
    k = kappa(Plane(*(Yield.of(n) for n in (150, 100, 100, 100))))
    assert k.value == 1.5
    assert k.error == pytest.approx(1.5 * np.sqrt(1 / 150 + 3 / 100))
    assert np.isnan(kappa(Plane(*(Yield.of(n) for n in (0, 1, 1, 1)))).value)


def test_the_closure_uncertainty_is_that_of_the_best_test_and_what_others_cannot_explain():
    assert closure_uncertainty([Kappa("", 1.5, 0.15)]) == pytest.approx(np.hypot(np.log(1.5), 0.1))
    best = np.hypot(np.log(1.02), 0.1 / 1.02)
    assert closure_uncertainty([Kappa("", 1.02, 0.1), Kappa("", 1.1, 0.3)]) == pytest.approx(best)
    worse = Kappa("", 0.5, 0.1)
    assert closure_uncertainty([Kappa("", 1.02, 0.1), worse]) == pytest.approx(np.sqrt(np.log(2) ** 2 - 0.2**2))
    assert np.isnan(closure_uncertainty([Kappa("", np.nan, np.nan)]))


def test_where_variables_are_correlated_a_test_elsewhere_does_not_replace_that_of_the_plane():
    of_plane, elsewhere = Kappa("simulation", 1.2, 0.36, direct=True), Kappa("below", 1.0, 0.01)
    tests = [of_plane, elsewhere]
    assert closure_uncertainty(tests) == pytest.approx(0.01)
    assert closure_uncertainty(tests, correlated=True) == pytest.approx(np.hypot(np.log(1.2), 0.3))
    assert closure_uncertainty([elsewhere], correlated=True) == pytest.approx(0.01)


@pytest.mark.parametrize("size", [0.0, 1.0, 2.1, 3.0, 5.0])
def test_twice_the_closure_uncertainty_covers_a_non_closure_of_any_size(size):
    """κ is measured within its error, 0.1: 2 × the larger of |ln κ| and σ would cover 84 % where ln κ is 2.1 σ."""
    rng, error = np.random.default_rng(18), 0.1
    measured = np.exp(size * error + error * rng.standard_normal(4000))
    covered = [size * error <= 2 * closure_uncertainty([Kappa("", k, k * error)]) for k in measured]
    assert np.mean(covered) >= 0.954


@pytest.mark.parametrize("weights", ["one", "exponential", "negative"])
def test_p_values_of_the_correlation_are_uniform_without_one(weights):
    rng, p = np.random.default_rng(3), []
    for _ in range(400):
        n = rng.poisson(3000)
        x, tag = rng.exponential(6, n), rng.random(n) < 0.2
        w = {"one": np.ones(n), "exponential": rng.exponential(1, n), "negative": np.where(rng.random(n) < 0.15, -1, 1)}
        content = [
            [np.histogram(x[m], 20, (0, 20), weights=w[weights][m] ** k)[0] for k in (1, 2)] for m in (tag, ~tag)
        ]
        p.append(homogeneity(*(Yield.of(*c) for c in content)).p)
    p = np.array(p)
    assert not np.isnan(p).any()
    assert np.mean(p) == pytest.approx(0.5, abs=3.5 * np.sqrt(1 / 12 / 400))
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=3.5 * np.sqrt(0.05 * 0.95 / 400))


# the likelihood


@pytest.mark.parametrize("numbers", [(3, 40), (0, 40)])
@pytest.mark.parametrize("slope", [-20.0, -2.0, 0.5, 5.0])
def test_a_sum_of_processes_has_the_likelihood_of_its_best_division(numbers, slope):
    """Events of weights 200 and 4: against all divisions of the sum between them."""
    n, weight = np.array(numbers, float), np.array([200.0, 4.0])
    log, fallen = Ratio(np.array([1.0]), n[None], weight[None]).at(slope)
    first = np.linspace(0, np.exp(log) / 200, 200_001)[:-1]
    assert fallen == pytest.approx(
        np.min(
            sum(twice_log_likelihood(m, x) for m, x in zip(n, (first, (np.exp(log) - 200 * first) / 4), strict=True))
        ),
        rel=1e-4,
    )


def test_a_process_that_simulation_has_no_event_of_in_a_region_can_still_be_there():
    """In A no event of weight 200, which the process has elsewhere: its error upwards holds one of them."""
    light = Plane(*(Yield.of(4.0 * n, 16.0 * n) for n in (40, 400, 400, 4000)))
    heavy = Plane(*(Yield.of(200.0 * n, 40_000.0 * n) for n in (0, 60, 60, 600)))
    letters = {"a": 1.0, "d": 1.0, "b": -1.0, "c": -1.0}
    both, alone = (interval(plane_ratio(planes, letters), z=2.0) for planes in ([light, heavy], [light]))
    assert np.exp(both[1]) > (160 + 200) / 160 > np.exp(alone[1])
    assert both[1] > 1.5 * both[0]


def test_heavy_events_of_a_process_may_be_missing_where_only_light_ones_are_seen():
    """A has 15 events of weight 4, and elsewhere most of the process has weights of 200."""
    letters = {"a": 1.0, "d": 1.0, "b": -1.0, "c": -1.0}
    rest = [Yield.of(200.0 * n, 40_000.0 * n) for n in (60, 60, 600)]
    seen, even = (
        interval(plane_ratio([Plane(a, *rest)], letters), z=2.0)
        for a in (Yield.of(60.0, 240.0), Yield.of(3000.0, 600_000.0))
    )
    assert np.exp(seen[1]) > (60 + 200) / 60
    assert seen[1] > 2 * seen[0]
    assert even[1] == pytest.approx(even[0], rel=0.1)  # 15 events of weight 200: nothing is missing


@given(st.tuples(*[st.integers(1, 300)] * 4))
@settings(deadline=None, max_examples=30)
def test_what_is_expected_has_no_significance_and_more_has_more(numbers):
    *plane, more = numbers
    ratio = plane_ratio([Plane(None, *(Yield.of(n) for n in plane))], {"b": 1.0, "c": 1.0, "d": -1.0})
    b, c, d = plane
    assert significance(b * c / d, [ratio], closure=0.2) == pytest.approx(0, abs=1e-5)
    assert 0 < significance(b * c / d + more, [ratio], closure=0.2) < significance(b * c / d + more, [ratio])
    assert significance(b * c / d + more, [ratio]) <= count_significance(b * c / d + more, b * c / d) + 1e-6


# from results


def test_independent_variables_close_in_95_percent_of_pseudo_experiments():
    """Data and simulation of cells, of which none knows of the missing momentum."""
    rng, closes, below = np.random.default_rng(11), 0, 0
    for _ in range(200):
        r = results(qcd=simulation(rng), data=filled(*events(rng, rng.poisson(1500))))
        e = abcd(r, "met", "loose_2tag", 200, unblind=True)
        closes += abs(e.significance) < 2
        down, up = (float(e.estimate.value - e.estimate.low), float(e.estimate.high - e.estimate.value))
        error = np.hypot(up if e.observed > e.expected else down, np.sqrt(e.expected))
        below += abs(e.observed - e.expected) < error
    assert closes >= 190
    # without the uncertainty of closure: one standard deviation of statistics is one
    assert below / 200 == pytest.approx(0.683, abs=3 * np.sqrt(0.683 * 0.317 / 200))


def test_the_numbers_are_those_of_the_regions():
    rng = np.random.default_rng(1)
    cell, met = events(rng, 4000)
    e = abcd(results(data=filled(cell, met)), "met", "loose_1tag", 200, unblind=True)
    tag, high = np.isin(cell, [1, 3]), met > 200
    untagged = cell == 0
    numbers = [np.sum(tag & high), np.sum(tag & ~high), np.sum(untagged & high), np.sum(untagged & ~high)]
    assert [float(y.value) for y in (e.plane.a, e.plane.b, e.plane.c, e.plane.d)] == numbers
    assert e.observed == numbers[0]
    assert e.expected == pytest.approx(numbers[1] * numbers[2] / numbers[3])
    shape = np.histogram(met[untagged & high], EDGES[4:])[0]
    assert e.binned.value == pytest.approx(shape * numbers[1] / numbers[3])
    assert e.edges == pytest.approx(EDGES[4:])
    assert (e.source, e.control) == ("data", "loose_0tag")


def test_what_lies_outside_the_axis_counts():
    cell = np.repeat([2, 2, 0, 0], [20, 30, 40, 60])
    met = np.repeat([1500.0, -5.0, 1500.0, -5.0], [20, 30, 40, 60])
    e = abcd(results(data=filled(cell, met)), "met", "loose_2tag", 200, unblind=True)
    assert [float(y.value) for y in (e.plane.a, e.plane.b, e.plane.c, e.plane.d)] == [20, 30, 40, 60]
    assert e.observed == 20
    assert e.observed_binned.sum() == e.binned.value.sum() == 0
    assert any("40 events of loose_0tag are above the axis of met" in note for note in e.notes)


@pytest.mark.parametrize("observed", [2, 60])
def test_the_significance_is_the_likelihood_ratio_of_four_numbers(observed):
    cell, met = (
        np.repeat([2, 2, 0, 0], [observed, 12, 20, 12]),
        np.repeat([500.0, 20.0, 500.0, 20.0], [observed, 12, 20, 12]),
    )
    e = abcd(results(data=filled(cell, met)), "met", "loose_2tag", 200, unblind=True)
    down, up = e.errors
    assert up > 1.5 * down
    assert (down, up) == pytest.approx((e.estimate.value - e.estimate.low, e.estimate.high - e.estimate.value))
    free = sum(2 * (n * np.log(n)) - 2 * n for n in (observed, 12, 20, 12))
    total = observed + 12 + 20 + 12  # independent: every number is row × column / total
    tied = sum(
        2 * n * np.log(row * column / total) - 2 * row * column / total
        for n, row, column in (
            (observed, observed + 12, observed + 20), (12, observed + 12, 24), (20, 32, observed + 20), (12, 32, 24)
        )
    )  # fmt: skip
    assert e.significance == pytest.approx(np.sign(observed - 20) * np.sqrt(free - tied), rel=1e-6)


def test_correlated_variables_are_said_to_be():
    rng = np.random.default_rng(2)
    r = results(qcd=simulation(rng, 20_000, correlation=0.3), data=filled(*events(rng, 8000, correlation=0.3)))
    e = abcd(r, "met", "loose_2tag", 200)
    assert any(
        s.startswith("loose_2tag and met are correlated in simulation: χ² = ") and "κ = " in s for s in e.sentences()
    )
    of_simulation = next(k for k in e.kappas if k.name == "simulation")
    assert of_simulation.value > 1.2
    assert e.closure > 0.15
    loose = abcd(r, "met", "medium_1tag", 200)
    assert any("loose_1tag and medium_0tag and met are correlated in data" in s for s in loose.sentences())


def test_simulation_corrects_for_a_correlation_that_it_knows():
    """Data have the correlation of simulation: corrected estimates close, others are too low."""
    rng, z, plain = np.random.default_rng(16), [], []
    for _ in range(60):
        r = results(qcd=simulation(rng, correlation=0.3), data=filled(*events(rng, rng.poisson(3000), correlation=0.3)))
        e = abcd(r, "met", "loose_2tag", 200, correct=True, unblind=True)
        z.append(e.significance)
        without = abcd(r, "met", "loose_2tag", 200, unblind=True)
        plain.append(without.observed / without.expected)
    assert np.mean(plain) > 1.2
    assert np.mean(np.abs(z) < 2) >= 0.95
    assert abs(np.mean(z)) < 3 / np.sqrt(60)
    known = next(k for k in without.kappas if k.name == "simulation")
    assert e.correction == pytest.approx(known.value)
    assert float(e.estimate.value) == pytest.approx(known.value * float(without.estimate.value))
    assert e.binned.value == pytest.approx(known.value * without.binned.value)
    assert e.sample().nominal == pytest.approx(e.binned.value)
    down, up = e.correction_errors
    assert 0.5 * (down + up) == pytest.approx(known.error / known.value, rel=0.05)
    assert all(x > y - 1e-9 for x, y in zip(e.closure_errors, (1 - np.exp(-down), np.exp(up) - 1), strict=True))
    assert without.closure_errors > e.closure_errors


def test_a_correction_that_data_contradict_is_no_closure():
    """Simulation has a correlation that data do not have: the validation region says so."""
    rng = np.random.default_rng(17)
    r = results(qcd=simulation(rng, 40_000, correlation=0.5), data=filled(*events(rng, 40_000)))
    e = abcd(r, "met", "medium_1tag", 200, correct=True)
    wrong = next(k for k in e.kappas if k.name.startswith("loose_1tag"))
    assert wrong.value < 0.8
    assert e.closure > 0.2
    with pytest.raises(ConfigError, match="correct=True needs data"):
        abcd(results(qcd=simulation(rng)), "met", "medium_1tag", 200, correct=True)


def test_a_correction_is_not_better_than_its_error():
    """However well closure was tested elsewhere: where simulation is scarce the correction is hardly known."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        mc, data = simulation(rng, 1500), filled(*events(rng, 40_000))
        e = abcd(results(qcd=mc, data=data), "met", "medium_1tag", 200, correct=True)
        known = kappa(abcd(results(qcd=mc), "met", "medium_1tag", 200).plane)
        relative = known.error / known.value
        assert min(k.error / k.value for k in e.kappas) < relative
        assert np.log1p(e.closure_errors[1]) > 0.9 * relative
        assert e.sample().norm["medium_1tag_closure"] == pytest.approx(
            (1 - e.closure_errors[0], 1 + e.closure_errors[1])
        )


def test_correlation_is_seen_in_data_below_the_cut():
    rng = np.random.default_rng(4)
    e = abcd(results(data=filled(*events(rng, 30_000, correlation=0.5))), "met", "loose_2tag", 300)
    assert any("correlated in data below met = 300" in s for s in e.sentences())
    assert all(k.name.startswith("data") for k in e.kappas)
    assert e.closure > 0.1
    assert any("closure of loose_2tag was tested in other planes only, and where variables" in n for n in e.notes)


def test_a_is_not_looked_at_unless_asked():
    """What data hold in A changes nothing: neither the estimate nor a test."""
    rng = np.random.default_rng(6)
    cell, met = events(rng, 3000)
    extra = np.full(500, 2)  # 1-1, above the cut
    signal = (np.r_[cell, extra], np.r_[met, np.full(500, 600.0)])
    mc = simulation(rng)
    one, two = (abcd(results(qcd=mc, data=filled(*d)), "met", "loose_2tag", 200) for d in ((cell, met), signal))
    assert one.sentences() == two.sentences()
    assert one.observed is one.plane.a is None
    assert np.isnan(one.significance)
    shown = abcd(results(qcd=mc, data=filled(*signal)), "met", "loose_2tag", 200, unblind=True)
    assert shown.significance > 5
    assert shown.expected == one.expected


def test_cells_that_data_hide_are_left_out_of_everything():
    rng = np.random.default_rng(7)
    cell, met = events(rng, 3000)
    r = results(hidden=("2-0", "2-1", "2-2"), data=filled(cell[cell < 3], met[cell < 3]), qcd=simulation(rng))
    e = abcd(r, "met", "loose_2tag", 200)
    assert float(e.plane.b.value) == np.sum((cell == 2) & (met < 200))
    assert any("cells 2-1, 2-2 are hidden in data" in note for note in e.notes)
    with pytest.raises(ConfigError, match="region medium_2tag is hidden in data as a whole, below the cut too"):
        abcd(r, "met", "medium_2tag", 200)


def test_looser_working_points_validate():
    rng = np.random.default_rng(8)
    cell, met = events(rng, 8000)
    e = abcd(results(data=filled(cell, met)), "met", "medium_2tag", 200)
    looser = next(k for k in e.kappas if k.name == "loose_2tag and medium_0tag")
    both, none, high = cell == 2, cell == 0, met > 200
    n = [np.sum(both & high), np.sum(both & ~high), np.sum(none & high), np.sum(none & ~high)]
    assert looser.value == pytest.approx(n[0] * n[3] / (n[1] * n[2]))
    without = abcd(results(data=filled(cell, met)), "met", "medium_2tag", 200, validation={})
    assert not [k for k in without.kappas if "loose" in k.name]
    explicit = {"mine": ("loose_1tag", "loose_0tag")}
    named = abcd(results(data=filled(cell, met)), "met", "medium_2tag", 200, validation=explicit)
    assert "loose_1tag" in [k.name for k in named.kappas]


def test_regions_of_whole_events_are_against_all_others():
    rng = np.random.default_rng(9)
    cell, met = rng.choice(3, 6000, p=[0.9, 0.08, 0.02]), rng.exponential(120, 6000)
    e = abcd(results(jets=False, data=filled(cell, met, jets=False)), "met", "medium", 200, unblind=True)
    assert e.control == "not medium"
    assert e.observed == np.sum((cell == 2) & (met > 200))
    assert float(e.plane.d.value) == np.sum((cell < 2) & (met < 200))
    assert "loose without medium" in [k.name for k in e.kappas]


def test_empty_regions_and_bins_are_named_and_the_rest_is_finished():
    cell = np.r_[np.zeros(30, int), np.full(12, 2)]
    met = np.r_[np.full(20, 220.0), np.full(10, 430.0), np.full(12, 20.0)]
    e = abcd(results(data=filled(cell, met)), "met", "loose_2tag", 200, unblind=True)
    assert np.isnan(e.estimate.value)
    assert e.estimate.high == np.inf
    assert any("region D (loose_0tag, met below 200) is empty: the estimate has no upper bound" in n for n in e.notes)
    assert any(
        "region C (loose_0tag), bins of met 250 to 400, 450 to 1000: no events, the estimate is 0" in n for n in e.notes
    )
    assert any("not tested" in n for n in e.notes)
    assert np.isnan(e.significance)
    with pytest.raises(ConfigError, match="B or D is empty"):
        e.sample()
    few = abcd(results(data=filled(np.r_[cell, 0, 0], np.r_[met, 30.0, 30.0])), "met", "loose_2tag", 200)
    assert float(few.estimate.value) == 12 * 30 / 2
    assert any("region D (loose_0tag, met below 200) holds 2 effective events" in n for n in few.notes)


def test_negative_weights_are_named():
    rng = np.random.default_rng(10)
    cell, met = events(rng, 3000)
    n = len(cell)
    cell, met = np.r_[cell, 0], np.r_[met, 990.0]
    e = abcd(results(qcd=filled(cell, met, np.r_[np.ones(n), -40.0])), "met", "loose_2tag", 200)
    assert e.source == "background"
    assert any("bins of met" in note and "950 to 1000: less than no events" in note for note in e.notes)
    assert np.isfinite(e.expected)
    below = abcd(results(qcd=filled(cell, met, np.r_[np.ones(n), -4000.0])), "met", "loose_2tag", 200)
    assert any(
        "region C (loose_0tag, met above 200) holds" in note and "less than none" in note for note in below.notes
    )


def test_other_processes_are_subtracted_and_added_again():
    rng = np.random.default_rng(12)
    cell, met = events(rng, 6000)
    other, other_met = events(rng, 3000, correlation=1.0)
    tt = filled(other, other_met)
    both = filled(np.r_[cell, other], np.r_[met, other_met])
    r = results(qcd=simulation(rng), tt=tt, data=both)
    e = abcd(r, "met", "loose_2tag", 200, subtract={"tt": 0.2}, unblind=True)
    alone = abcd(results(data=filled(cell, met)), "met", "loose_2tag", 200)
    in_a = np.isin(other, [2, 4, 5]) & (other_met > 200)
    assert e.estimate.value == pytest.approx(float(alone.estimate.value))
    assert (
        e.estimate.high - e.estimate.value > alone.estimate.high - alone.estimate.value
    )  # the error of what is subtracted
    assert e.others == in_a.sum()
    assert e.others_binned.sum() == np.sum(in_a & (other_met < 1000))
    assert e.expected == pytest.approx(float(alone.estimate.value) + in_a.sum())
    assert e.observed == np.sum(np.isin(np.r_[cell, other], [2, 4, 5]) & (np.r_[met, other_met] > 200))
    tag = np.isin(other, [2, 4, 5])
    numbers = []
    for sign in (-1, 1):
        b, c, d = (
            float(getattr(alone.plane, x).value) - sign * 0.2 * n
            for x, n in (("b", np.sum(tag & (other_met < 200))), ("c", np.sum((other == 0) & (other_met > 200))),
                         ("d", np.sum((other == 0) & (other_met < 200))))
        )  # fmt: skip
        numbers.append(b * c / d + sign * 0.2 * in_a.sum())
    assert e.subtraction == pytest.approx(abs(numbers[1] - numbers[0]) / 2)
    with pytest.raises(ConfigError, match="process wjets cannot be subtracted: the background is qcd, tt"):
        abcd(r, "met", "loose_2tag", 200, subtract={"wjets": 0.1})


def test_a_scan_of_cuts_needs_no_data():
    rng = np.random.default_rng(13)
    mc, signal = simulation(rng, 20_000), filled(np.full(50, 2), np.full(50, 420.0))
    table = scan_cuts(results(qcd=mc, signal=signal), "met", "loose_2tag", [100, 400, 500])
    single = abcd(results(qcd=mc), "met", "loose_2tag", 400)
    assert [p.cut for p in table] == [100, 400, 500]
    assert [p.signals["signal"] for p in table] == pytest.approx([50, 50, 0])
    assert table[1].expected == pytest.approx(float(single.estimate.value))
    assert table[1].kappa.value == single.kappas[0].value
    assert table[1].kappa.error == pytest.approx(single.kappas[0].error, rel=0.01)  # Gaussian, and of the likelihood
    assert table[1].simulated == pytest.approx(single.observed)
    assert table[0].error / table[0].expected < table[1].error / table[1].expected
    assert len(scan_cuts(results(qcd=mc), "met", "loose_2tag")) == len(EDGES) - 2


def test_an_estimate_is_a_sample_of_a_channel():
    rng = np.random.default_rng(14)
    e = abcd(results(qcd=simulation(rng), data=filled(*events(rng, 6000))), "met", "loose_1tag", 200, unblind=True)
    sample = e.sample()
    transfer = float(e.plane.b.value / e.plane.d.value)
    assert sample.nominal == pytest.approx(e.binned.value)
    assert sample.variance == pytest.approx(transfer**2 * e.shape.variance)
    assert sample.norm["loose_1tag_closure"][1] == pytest.approx(np.exp(e.closure))
    svj = Sample(np.ones(len(sample.nominal)), np.zeros(len(sample.nominal)), signal=True)
    channel = Channel("loose_1tag", e.edges, e.observed_binned, {"qcd": sample, "svj": svj}, "GeV", "MET")
    modifiers = workspace([channel], floor=1e-3)["channels"][0]["samples"][0]["modifiers"]
    assert [m["name"] for m in modifiers] == ["loose_1tag_transfer", "loose_1tag_closure", "staterror_loose_1tag"]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ({"cut": 210}, ConfigError, "the cut met = 210 is at no edge inside its axis; the nearest are 200 and 250"),
        ({"region": "lose_2tag"}, UnknownName, "unknown region 'lose_2tag'; did you mean 'loose_2tag'"),
        ({"region": "loose_0tag"}, ConfigError, "say which region is its untagged one"),
        ({"control": "inclusive"}, ConfigError, "regions loose_2tag and inclusive share the cells 1-1, 2-1, 2-2"),
        ({"validation": {"x": ("lose", "loose_0tag")}}, UnknownName, "unknown region 'lose'"),
        ({"observable": "mt"}, ConfigError, "the results hold no"),
    ],
)
def test_what_is_no_plane_is_refused(wrong, error, words):
    rng = np.random.default_rng(15)
    arguments = {"observable": "met", "region": "loose_2tag", "cut": 200, **wrong}
    with pytest.raises(error, match=words):
        abcd(results(data=filled(*events(rng, 1000))), **arguments)
