from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coffea_ad import histograms
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard
from coffea_ad.scoring.specs import RegionSpec


def weighted(seed, n=40_000):
    rng = np.random.default_rng(seed)
    return rng.exponential(size=n), rng.exponential(size=n) + 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_regions_have_their_nominal_efficiency_on_independent_background(seed):
    score, weight = weighted(seed)
    table = regions.calibrate(score, weight, "toy")
    points = regions.working_points(table, score, weight)
    assert [p.name for p in points] == ["loose", "medium", "tight"]
    other, other_weight = weighted(seed + 100)
    values = regions.logp(table, other)
    for p in points:
        eps, error, _ = regions.efficiency(values, other_weight, p.thresholds[0])
        nominal_error = p.error * p.efficiency * np.log(10)
        assert abs(eps - p.efficiency) < 3 * np.hypot(error, nominal_error)


def test_regions_without_statistics_are_not_written():
    score, weight = weighted(1, 2000)
    table = regions.calibrate(score, weight, "toy")
    assert [p.name for p in regions.working_points(table, score, weight)] == ["loose", "medium"]


def test_efficiency_errors_are_those_of_repeated_experiments():
    measured, errors = [], []
    for seed in range(200):
        score, weight = weighted(seed, 500)
        eps, error, _ = regions.efficiency(score, weight, 1.0)
        measured.append(eps)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(measured), rel=0.15)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 400), st.booleans())
def test_logp_rises_with_the_score_and_is_bounded(seed, n, negative):
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n).round(1)  # with ties
    weight = rng.exponential(size=n) - (0.3 if negative else 0.0)
    if len(np.unique(score)) < 2 or weight.sum() <= 0:
        return
    table = regions.calibrate(score, weight, "toy")
    values = regions.logp(table, np.sort(np.r_[score, -1e9, 1e9]))
    assert (np.diff(values) >= 0).all()
    assert values[0] == 0
    assert values[-1] == pytest.approx(table.max_logp, rel=1e-6)


def test_logp_is_minus_log10_of_the_background_fraction_above():
    score = np.arange(10_000.0)
    table = regions.calibrate(score, np.ones(10_000), "toy")
    for k in (9000, 9900, 9990):
        assert regions.logp(table, np.array([float(k)]))[0] == pytest.approx(-np.log10(1 - k / 10_000), abs=0.005)


def test_undefined_scores_have_no_logp_and_no_region():
    table = regions.calibrate(np.arange(100.0), np.ones(100), "toy")
    values = regions.logp(table, np.array([np.nan, np.inf, -np.inf, 50.0]))
    assert np.isnan(values[:3]).all()
    wp = RegionSpec(name="a", efficiency=0.1, thresholds=(0.0,), error=0, n_effective=99, derived_from="toy")
    assert regions.assign(values, [wp]).tolist() == [-1, -1, -1, 1]


def test_thresholds_may_depend_on_a_spectator():
    wp = RegionSpec(
        name="a",
        efficiency=0.1,
        thresholds=(1.0, 2.0),
        error=0,
        n_effective=99,
        derived_from="toy",
        spectator="pt",
        edges=(500.0,),
    )
    grade = regions.assign(np.array([1.5, 1.5, 2.5]), [wp], {"pt": np.array([300.0, 600.0, 600.0])})
    assert grade.tolist() == [1, 0, 1]


def test_a_calibration_needs_two_scores_and_positive_weight():
    with pytest.raises(ConfigError, match="since all scores are 1"):
        regions.calibrate(np.ones(5), np.ones(5), "toy")
    with pytest.raises(ConfigError, match="their weights sum to -5"):
        regions.calibrate(np.arange(5.0), -np.ones(5), "toy")


def two_regions():
    return [
        RegionSpec(name=n, efficiency=e, thresholds=(t,), error=0, n_effective=99, derived_from="toy")
        for n, e, t in (("loose", 0.1, 1.0), ("tight", 0.001, 3.0))
    ]


def test_regions_are_exclusive_in_tags_and_leave_unscored_events_out():
    grades = np.array([[0, 0], [1, 0], [1, 2], [2, 2], [-1, 2]])
    cells = np.array(regions.cell_names(2, jets=True))[regions.cells_of(grades, 2)]
    assert cells.tolist() == ["0-0", "1-0", "2-1", "2-2", "unscored"]
    inside = {name: [c in of for c in cells] for name, of in regions.definitions(two_regions(), jets=True).items()}
    assert inside["inclusive"] == [True] * 4 + [False]
    assert inside["loose_0tag"] == [True, False, False, False, False]
    assert inside["loose_1tag"] == [False, True, False, False, False]
    assert inside["loose_2tag"] == [False, False, True, True, False]
    assert inside["tight_1tag"] == [False, False, True, False, False]
    assert inside["tight_2tag"] == [False, False, False, True, False]


def test_blinding_takes_out_every_event_with_a_jet_in_the_tightest_region():
    grades = np.array([[1, 0], [1, 2], [2, 2], [2, -1], [-1, 0]])
    assert histograms.hidden(grades, 2).tolist() == [False, True, True, True, False]
    assert not histograms.hidden(grades, 0).any()


def test_tied_scores_make_no_region_of_an_efficiency_that_they_do_not_have():
    rng = np.random.default_rng(1)
    score = rng.poisson(1.0, 20_000).astype(float)  # at least 2: 0.264, at least 3: 0.080
    table = regions.calibrate(score, np.ones(len(score)), "toy")
    for p in regions.working_points(table, score, np.ones(len(score)), (0.264, 0.1, 0.01)):
        eps, error, _ = regions.efficiency(regions.logp(table, score), np.ones(len(score)), p.thresholds[0])
        assert abs(eps - p.efficiency) <= 3 * error


def test_the_logp_axis_closes_above_the_largest_possible_value():
    table = regions.calibrate(np.arange(5000.0), np.ones(5000), "toy")
    card = ModelCard(
        name="t", method="AE", inputs=({"features": (feature_spec("jet_substructure"),)},), calibration=table
    )
    axis = histograms.logp_axis(card)
    assert axis.edges[-1] > table.max_logp
    filled = histograms.book([axis], ["all"], ["nominal"])
    values = {axis.name: regions.logp(table, np.array([1e9, np.nan]))}
    left_out = histograms.fill(filled, np.full(2, "all"), "nominal", values, np.ones(2))
    assert left_out == 1
    assert filled.sum().value == 1  # in a bin, not in overflow
    assert filled.sum(flow=True).value == 1
