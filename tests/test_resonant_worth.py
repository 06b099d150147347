"""What an excess is worth: counting, searches without signal, goodness of fit, efficiencies at injected strengths."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

resonant = pytest.importorskip("coffea_ad.resonant")
import resonant_toys as toys

from coffea_ad.errors import ConfigError
from coffea_ad.evaluation.counting import count_significance, p_value_of
from coffea_ad.resonant import ClassifierConfig, Settings, Window
from coffea_ad.resonant.calibrating import Permutations, calibrated_p, excess_of, permuted_excesses
from coffea_ad.resonant.goodness import goodness_of_fit
from coffea_ad.resonant.injection import signal_efficiencies, study
from coffea_ad.resonant.search import search, tasks_of
from coffea_ad.resonant.worth import calibrated, draw_worth, in_words, worth

pytestmark = pytest.mark.torch
WINDOW = Window(low=3300, high=3700, outer_low=2900, outer_high=4500)
SETTINGS = Settings(classifier=ClassifierConfig(members=1, options={"num_iterations": 30}), oversampling=1)
K = 3


@given(n=st.integers(0, 500), b=st.floats(1, 400), error=st.floats(0.1, 30))
def test_an_error_of_the_expectation_makes_no_excess_more_significant(n, b, error):
    exact, wide = count_significance(n, b), count_significance(n, b, error)
    assert np.sign(exact) == np.sign(wide) or abs(wide) < 1e-6
    assert abs(wide) <= abs(exact) + 1e-9


@pytest.mark.parametrize(("n", "b"), [(120, 100.0), (30, 20.0), (1200, 1000.0)])
def test_significances_are_those_of_a_poisson_count(n, b):
    exact = stats.norm.isf(stats.poisson.sf(n - 1, b))
    assert count_significance(n, b) == pytest.approx(exact, abs=0.12)
    assert p_value_of(count_significance(n, b)) == pytest.approx(stats.poisson.sf(n - 1, b), rel=0.5)


def test_a_significance_needs_an_expectation():
    assert np.isnan(count_significance(3, 0.0))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=50), st.floats(-5, 5))
def test_a_calibrated_p_value_is_never_zero_and_falls_with_the_statistic(null, observed):
    p, error = calibrated_p(observed, null)
    assert 1 / (len(null) + 1) <= p <= 1
    assert calibrated_p(observed + 1, null)[0] <= p
    assert error >= 0


def test_no_p_value_without_searches():
    with pytest.raises(ConfigError, match="hold no signal"):
        calibrated_p(1.0, [np.nan])


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    data = toys.data(30_000, 500, seed=5)
    tasks = tasks_of("cwola", SETTINGS, [WINDOW], k=K, salt="s", seed=1, template_rows=2000)
    trained, _ = search(tasks, {"data": data}, tmp_path_factory.mktemp("worth"))
    return tasks, trained.members, data


def test_a_signal_is_counted_as_an_excess_of_all_folds(searched):
    tasks, members, _ = searched
    loose, tight = excess_of([members[t.name] for t in tasks], (0.2, 0.05))
    assert tight.observed < loose.observed
    assert tight.significance > 4
    for e in (loose, tight):
        n = sum(len(members[t.name].score) for t in tasks)
        assert e.expected == pytest.approx(e.efficiency * n, abs=4 * e.error)


@pytest.mark.parametrize("null", ["permutations", "half", "pseudo_data"])
def test_a_strong_signal_has_the_smallest_calibrated_p_value(searched, null, tmp_path):
    tasks, members, data = searched
    rows = {WINDOW.name: resonant.window_rows({"data": data}, WINDOW)}
    n = 4 if null == "pseudo_data" else 12
    out = calibrated(tasks, members, rows, null=null, number=n, efficiencies=(0.1, 0.05))
    assert out["trials"] == 2
    assert out["searches"] == n
    for row in out["windows"][WINDOW.name].values():
        assert row["calibrated_p"] == pytest.approx(1 / (n + 1))
        assert len(row["without_signal"]) == n
        assert max(row["without_signal"]) < row["significance"]
    assert out["global_p"] == pytest.approx(1 / (n + 1))
    json.dumps(out)
    draw_worth(out, tmp_path / "worth.png")
    assert (tmp_path / "worth.png").stat().st_size > 10_000
    assert in_words(out)[-1].startswith("largest of 2: +")


def test_counting_says_how_well_the_template_fits(searched, tmp_path):
    tasks, members, data = searched
    lines = worth(tasks, members, {"data": data}, tmp_path, null="half", number=5, efficiencies=(0.1,))
    summary = json.loads((tmp_path / "worth.json").read_text())
    assert 0.01 <= summary["goodness"][WINDOW.name] <= 0.1  # a twentieth of the events are signal
    assert (tmp_path / "worth.png").is_file()
    assert "goodness of fit of data to template, p = 0.0" in lines[-1]


def plan(data, template, **changes):
    options = {
        "data": data, "template": template, "inputs": ("mj1", "delta_mj", "tau21_j1", "tau21_j2"),
        "candidates": SETTINGS.tried, "k": 3, "salt": "s", "efficiencies": (0.1,), "seed": 1,
    }  # fmt: skip
    return Permutations(**{**options, **changes})


def test_permutations_do_not_depend_on_which_others_there_are():
    data, template = toys.skim(toys.background(1500, 1)), toys.skim(toys.background(1500, 2), first=10**6)
    several = permuted_excesses(plan(data, template), [0, 3, 4])
    assert permuted_excesses(plan(data, template), [3])[0] == several[1]
    assert several[0] != several[1]


def test_half_of_the_data_is_counted_where_the_other_half_trains():
    data, template = toys.skim(toys.background(2000, 1)), toys.skim(toys.background(4000, 2), first=10**6)
    (half,), (folds,) = (permuted_excesses(plan(data, template, k=k), [0])[0] for k in (2, 4))
    assert 60 < half.expected < 140  # a tenth of a thousand
    assert 140 < folds.expected < 260


def test_a_method_without_a_classifier_needs_pseudo_data(searched):
    from dataclasses import replace

    tasks, members, data = searched
    others = [replace(t, method="anode") for t in tasks]
    rows = {WINDOW.name: resonant.window_rows({"data": data}, WINDOW)}
    with pytest.raises(
        ConfigError, match="method anode does not tell data from a template; calibrate it with pseudo_data"
    ):
        calibrated(others, members, rows, null="permutations", number=2, efficiencies=(0.1,))


def test_efficiencies_that_rest_on_no_rows_are_not_counted(searched):
    tasks, members, data = searched
    rows = {WINDOW.name: resonant.window_rows({"data": data}, WINDOW)}
    with pytest.raises(ConfigError, match="no efficiency rests on 10 rows"):
        calibrated(tasks, members, rows, null="permutations", number=2, efficiencies=(1e-4,))


def test_what_passes_of_a_signal_is_told_at_every_strength(searched, tmp_path):
    tasks, _, _ = searched
    skims = {
        "data": toys.skim(toys.background(20_000, 1)),
        "signal": toys.skim(toys.signal(600, 2), "signal", first=10**6),
    }
    lines = study(tasks, skims, [50, 500], tmp_path, efficiencies=(0.1,), seed=1)
    rows = json.loads((tmp_path / "injected.json").read_text())[WINDOW.name]
    assert [r["injected"] for r in rows] == [50, 500]
    assert rows[1]["signal_efficiency"] > rows[0]["signal_efficiency"] - 2 * np.hypot(
        rows[0]["error"], rows[1]["error"]
    )
    assert rows[1]["signal_efficiency"] > 0.5
    assert 400 < rows[1]["in_window"] <= 500
    assert len(lines) == 2
    with pytest.raises(ConfigError, match="name the datasets of the signal"):
        study(tasks, {"data": skims["data"]}, [10], tmp_path, efficiencies=(0.1,), seed=1)


def test_the_part_of_a_signal_that_passes_counts_only_its_own_events(searched):
    tasks, members, _ = searched
    none = signal_efficiencies([members[t.name] for t in tasks], toys.skim(toys.signal(5, 1), "other"), 0, (0.1,))
    assert none[0].in_window == 0
    assert none[0].signal_efficiency == 0


def test_a_goodness_of_fit_is_a_p_value():
    """The same distribution: p is not small; a shifted one: p is the smallest possible."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(600, 2)), rng.normal(size=(600, 2))
    same = goodness_of_fit(x, y, permutations=19, kernels=30, seed=1)
    assert same.p > 0.05
    assert len(same.null) == 19
    other = goodness_of_fit(x + np.array([0.5, 0.0]), y, permutations=19, kernels=30, seed=1)
    assert other.p == pytest.approx(1 / 20)
    assert other.t > other.null.max()
    with pytest.raises(ConfigError, match="at least 60 rows"):
        goodness_of_fit(x[:20], y, kernels=30)


def test_p_values_of_a_goodness_of_fit_are_uniform_without_a_difference():
    rng = np.random.default_rng(4)
    p = [
        goodness_of_fit(rng.normal(size=(150, 2)), rng.normal(size=(150, 2)), permutations=19, kernels=10, seed=i).p
        for i in range(40)
    ]
    assert stats.kstest(np.array(p) - rng.uniform(0, 1 / 20, 40), "uniform").pvalue > 0.01
