"""The arithmetic of the benchmark of scores of the rapidity-mass matrix."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
from toys import DATA, open_events

import coffea_ad as ad

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def scores(request):
    sys.path.insert(0, str(request.config.rootpath / "benchmarks"))
    yield importlib.import_module("rmm_scores")
    sys.path.pop(0)


@pytest.fixture(scope="module")
def search(scores, request):
    return importlib.import_module("rmm_search")


@pytest.fixture(scope="module")
def limits(scores):
    return importlib.import_module("rmm_limits")


def test_a_window_is_the_shortest_interval_with_the_asked_part_of_a_signal(limits):
    rng = np.random.default_rng(6)
    m, w = np.exp(rng.normal(7.0, 0.1, 4000)), rng.uniform(0.5, 1.5, 4000)
    low, high = limits.window(m, w)
    inside = w[(m >= low) & (m <= high)].sum() / w.sum()
    assert inside == pytest.approx(2 / 3, abs=1e-3)
    assert np.log([low, high]) == pytest.approx([7.0 - 0.0967, 7.0 + 0.0967], abs=0.02)  # 0.967 standard deviations
    assert limits.window(3 * m, w) == pytest.approx((3 * low, 3 * high))


def test_excluded_events_do_not_jump_where_counting_becomes_gaussian(limits):
    below, above = (limits.excluded(b, np.sqrt(b)) for b in (499.0, 501.0))
    assert above == pytest.approx(1.96 * np.sqrt(2 * 501))
    assert below == pytest.approx(above, rel=0.05)
    assert limits.excluded(1e-6, 0.0) == pytest.approx(3.0, abs=0.01)


def test_a_cut_that_keeps_the_signal_and_a_quarter_of_the_background_halves_a_limit(scores, limits):
    rng = np.random.default_rng(7)
    n_b, n_s = 40_000, 300
    of_b, of_s = np.zeros((n_b, 9)), np.zeros((n_s, 9))
    of_b[:, 0], of_s[:, 0] = rng.uniform(500, 3000, n_b), rng.normal(2000, 60, n_s)
    of_s[:5, 3] = 2000.0  # too few events to count
    background, signal = (of_b, np.full(n_b, 1e-2)), (of_s, np.full(n_s, 1e-3))
    everything, quarter = np.ones(n_b, bool), np.arange(n_b) % 4 == 0
    whole, where = limits.expected_limit(background, signal, everything, np.ones(n_s, bool))
    assert where == scores.LEADING[0]
    cut, _ = limits.expected_limit(background, signal, quarter, np.ones(n_s, bool))
    assert cut == pytest.approx(whole / 2, rel=0.1)
    lost, _ = limits.expected_limit(background, signal, everything, np.arange(n_s) % 2 == 0)
    assert lost == pytest.approx(2 * whole, rel=0.25)
    assert np.isnan(
        limits.expected_limit(background, (np.zeros((n_s, 9)), signal[1]), everything, np.ones(n_s, bool))[0]
    )


def test_transverse_energies_come_back_from_the_matrix(scores):
    events = open_events(DATA / "ttbar_v15.root")
    options = {"drop_masses": False, "sqrt_s": 13000.0}
    x, _ = ad.features.compute("rmm", events, **options)
    et = scores.transverse(x)
    jets = events.Jet[(events.Jet["pt"] > 30) & (abs(events.Jet["eta"]) < 2.4)]
    hard = ak.to_numpy(ak.num(jets) > 0) & (et[:, 20:].sum(axis=1) == 0)  # nothing that removes a jet
    leading = ak.to_numpy(ak.max(jets["pt"], axis=1))[hard]
    assert hard.sum() > 20
    assert np.all(et[hard][:, :20].max(axis=1) >= leading * (1 - 1e-5))  # E_T is above pT by the mass
    np.testing.assert_allclose(et[hard][:, :20].max(axis=1), leading, rtol=0.1)
    assert np.array_equal((et[hard][:, :20] > 0).sum(axis=1), ak.to_numpy(ak.num(jets))[hard])


def test_inputs_over_the_sum_of_energies_do_not_change_when_all_energies_do(scores):
    x, _ = ad.features.compute("rmm", open_events(DATA / "ttbar_v15.root"), drop_masses=False, sqrt_s=13000.0)
    kept = scores.transverse(x).sum(axis=1) > 0
    x, occupied = x[kept], np.ones(x.shape[1], bool)
    larger = x.copy()
    larger[:, scores._energies()] *= 2
    for kind in ("cells", "occupied"):
        one, two = (scores.inputs(rows, f"{kind} over S_T", occupied, True)[0] for rows in (x, larger))
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-7)
        assert (
            np.abs(scores.inputs(larger, kind, occupied, True)[0] - scores.inputs(x, kind, occupied, True)[0]).max() > 0
        )


def test_a_threshold_passes_the_asked_part_of_the_weight(search):
    rng = np.random.default_rng(1)
    score, weight = rng.normal(size=20_000), rng.exponential(size=20_000)
    for efficiency in (0.1, 0.01, 0.001):
        passed = weight[score >= search.threshold(score, weight, efficiency)].sum() / weight.sum()
        assert efficiency <= passed < efficiency + weight.max() / weight.sum()


def test_ranks_are_logarithms_of_efficiencies_and_rise_for_ever(scores):
    rng = np.random.default_rng(2)
    values, weight = rng.exponential(size=50_000), rng.uniform(size=50_000)
    rank = scores.Tail(values, weight)
    np.testing.assert_allclose(rank(np.array([1.0, 3.0])), np.array([1.0, 3.0]) / np.log(10), rtol=0.03)
    far = rank(np.array([8.0, 12.0, 30.0]))
    np.testing.assert_allclose(far, np.array([8.0, 12.0, 30.0]) / np.log(10), rtol=0.2)
    assert np.all(np.diff(rank(np.linspace(0, 40, 500))) >= 0)


def test_a_score_given_h_t_forgets_scale_origin_and_h_t(scores):
    rng = np.random.default_rng(3)
    ht = rng.uniform(100, 1000, 8000)
    score = np.log(ht) ** 2 * (1 + 0.3 * rng.normal(size=8000))
    weight = np.ones(8000)
    given = scores.GivenHT(score, ht, weight)(score, ht)
    np.testing.assert_allclose(scores.GivenHT(7 * score - 4, ht, weight)(7 * score - 4, ht), given, atol=1e-6)
    assert abs(np.corrcoef(score, ht)[0, 1]) > 0.5
    assert abs(np.corrcoef(given, ht)[0, 1]) < 0.05
    assert np.quantile(given, 0.84) - np.quantile(given, 0.5) == pytest.approx(1, rel=0.1)


def test_two_cuts_of_one_efficiency_pass_what_either_passes(scores):
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(2, 30_000))
    data = SimpleNamespace(event_weight=np.ones(30_000))
    everything = np.ones(30_000, bool)
    rank = scores.either({"background": first}, {"background": second}, data, everything)["background"]
    passed = rank >= 2  # each passes 1 %
    alone = [scores.Tail(s, data.event_weight)(s) >= 2 for s in (first, second)]
    assert np.array_equal(passed, alone[0] | alone[1])
    assert passed.mean() == pytest.approx(0.0199, rel=0.1)
