"""Spectra and smooth functions: what must hold for fits of backgrounds."""

from __future__ import annotations

import itertools

import hist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from search_toys import EDGES, SQRT_S, falling, spectrum

from coffea_ad.errors import ConfigError, FitFailed, UnknownName
from coffea_ad.search.choosing import fit_background, goodness, select_order
from coffea_ad.search.envelope import envelope
from coffea_ad.search.families import FAMILIES, design
from coffea_ad.search.fits import deviance, fit
from coffea_ad.search.minimising import first_guess, fit_many, scan_many
from coffea_ad.search.signals import gaussian, gaussians
from coffea_ad.search.spectra import Spectra, Spectrum, resolution_edges

SMOOTH = [name for name, family in FAMILIES.items() if family.terms is not None]


def test_merging_bins_keeps_events_and_variance():
    s = Spectrum("m", EDGES, falling(100), 2 * falling(100))
    merged = s.merged(EDGES[::3])
    assert merged.counts.sum() == pytest.approx(s.counts[: 3 * (len(EDGES[::3]) - 1)].sum())
    assert merged.variance.sum() == pytest.approx(2 * merged.counts.sum())
    with pytest.raises(ConfigError, match="no edge at 1550"):
        s.merged([1500.0, 1550.0])


def test_bins_at_resolution_are_as_wide_as_it():
    edges = resolution_edges(EDGES, 0.07)
    assert np.all(np.diff(edges) >= 0.07 * edges[:-1] * (1 - 1e-9))
    assert set(edges) <= set(EDGES)


def test_a_spectrum_refuses_what_is_no_number():
    with pytest.raises(ConfigError, match=r"spectrum m, 1–2: counts nan"):
        Spectrum.of_events("m", [0.0, 1.0, 2.0], [1.0, np.nan])
    with pytest.raises(ConfigError, match="edges must be finite numbers that rise"):
        Spectrum.of_events("m", [0.0, 2.0, 1.0], [1.0, 2.0])


def test_a_histogram_of_weights_keeps_its_variance():
    h = hist.Hist(hist.axis.Regular(3, 1, 4, name="m", label="$m$ [GeV]"), storage=hist.storage.Weight())
    h.fill([1.5, 1.5, 2.5, 9.0], weight=[2, 3, 4, 5])
    s = Spectrum.of_histogram("m", h)
    assert s.counts.tolist() == [5, 4, 0]
    assert s.variance.tolist() == [13, 16, 0]
    assert s.scale.tolist() == pytest.approx([13 / 5, 4, 29 / 9])
    assert s.weighted


def test_regions_are_sums_of_cells():
    cell = spectrum(100)
    s = Spectra("mjj", {"0": cell, "1": cell}, {"inclusive": frozenset("01"), "tight": frozenset("1")})
    assert np.array_equal(s.region("inclusive").counts, 2 * s.region("tight").counts)
    with pytest.raises(UnknownName, match="tigth"):
        s.region("tigth")


@pytest.mark.parametrize("family", SMOOTH)
def test_bins_are_integrals_of_the_formula(family):
    """Against numerical integration of the published formula with the published parameters."""
    edges = np.array([1800.0, 2100.0, 2400.0, 3000.0])
    order = FAMILIES[family].orders[1]
    d = design(family, order, edges, SQRT_S)
    p = np.array([2.0, -3.0, 1.5, 0.3, 0.05])[:order]
    theta = np.linalg.solve(d.published, p)
    expected = (d.weight * np.exp(d.basis @ theta)).sum(axis=1)
    terms = FAMILIES[family].terms

    def f(m):
        return float(np.exp(np.dot(p, [np.ravel(t)[0] for t in terms(np.array([m / SQRT_S]))[:order]])))

    exact = [quad(f, a, b)[0] for a, b in itertools.pairwise(edges)]
    assert expected == pytest.approx(exact, rel=1e-4)
    centre = [f((a + b) / 2) * (b - a) for a, b in itertools.pairwise(edges)]
    error = max(abs(expected / np.array(exact) - 1))
    assert max(abs(np.array(centre) / exact - 1)) > max(10 * error, 1e-4)  # the centre of a bin would not do


def test_a_power_at_the_centre_of_a_wide_bin_is_wrong_by_what_is_known():
    d = design("dijet", 2, np.array([1650.0, 1950.0]), SQRT_S)
    theta = np.linalg.lstsq(d.published, np.array([0.0, -5.0]), rcond=None)[0]
    integral = float((d.weight * np.exp(d.basis @ theta)).sum())
    centre = (1800.0 / SQRT_S) ** -5 * 300
    assert integral / centre - 1 == pytest.approx(0.035, abs=1e-3)


def test_atlas_and_cms_functions_are_the_same_family():
    """p₀ (1 − x)^p₁ / x^(p₂ + p₃ ln x + p₄ ln² x) spans what p₁ (1 − x)^p₂ x^(p₃ + p₄ ln x + p₅ ln² x) does."""
    x = np.linspace(0.1, 0.5, 20)
    terms = np.stack(FAMILIES["dijet"].terms(x), axis=1)
    cms = 7.0 * np.log1p(-x) - (4.0 + 0.5 * np.log(x) + 0.1 * np.log(x) ** 2) * np.log(x)
    residual = terms @ np.linalg.lstsq(terms, cms, rcond=None)[0] - cms
    assert abs(residual).max() < 1e-9


@pytest.mark.parametrize(
    ("family", "order"), [("dijet", 4), ("ua2", 3), ("cube_root", 4), ("exponential", 4), ("bernstein", 5)]
)
def test_many_fits_at_once_reach_the_minima_of_iminuit(family, order):
    for seed in range(3):
        s = spectrum(3000, seed)
        slow = fit(s, family, order, SQRT_S)
        d = slow.function
        fast = fit_many(s.counts, d, first_guess(s.counts, d))
        assert fast.valid.all()
        nu = (d.weight * np.exp(d.basis @ fast.theta[0])).sum(axis=1)
        assert deviance(s.counts, nu, s.scale, slow.mask) == pytest.approx(slow.deviance, abs=2e-3)


def test_a_fit_that_starts_without_expectation_where_events_are_reaches_the_minimum_too():
    """Such as of a pseudo-experiment with an event far beyond the data; it would be an infinite −ln L, and a window of 37σ."""
    s = spectrum(3000, 1)
    slow = fit(s, "exponential", 2, SQRT_S)
    d = slow.function
    fallen = np.round(1e4 * np.exp((EDGES[0] - EDGES[:-1]) / 40))
    steep = fit_many(fallen, d, first_guess(fallen, d)).theta[0]
    assert d.expected(steep[None])[0][s.counts > 0].min() < 1e-12
    rows = np.stack([s.counts, fallen, s.counts])
    fast = fit_many(rows, d, steep)
    assert fast.valid.all()
    expected = d.expected(fast.theta)
    assert np.array_equal(expected[0], expected[2])
    assert deviance(s.counts, expected[0], s.scale, slow.mask) == pytest.approx(slow.deviance, abs=2e-3)


def test_scanned_signals_have_the_likelihood_ratio_of_iminuit():
    s = spectrum(5000, 2, signal=60.0)
    null = fit(s, "dijet", 4, SQRT_S)
    signals = gaussians(EDGES, (0.02, 0.05, 0.1), highest=5000.0)
    strength, q0, valid = scan_many(
        s.counts, null.function, fit_many(s.counts, null.function, null.theta).theta, signals.shape
    )
    assert valid.all()
    compared = 0
    for k in range(0, len(signals.mass), 4):
        slow = fit(s, "dijet", 4, SQRT_S, signal=signals.shape[k])
        if slow.strength > 0.5:
            assert q0[0, k] == pytest.approx(null.deviance - slow.deviance, abs=5e-3)
            assert strength[0, k] == pytest.approx(slow.strength, abs=0.05 * slow.strength_error)
            compared += 1
        elif slow.strength < -0.5:
            assert q0[0, k] == 0
    assert compared > 5


def test_errors_of_a_fit_are_those_of_repeated_data():
    truth = falling(20_000)
    first = fit(Spectrum.of_events("m", EDGES, truth), "dijet", 3, SQRT_S)
    counts = np.random.default_rng(3).poisson(truth, (400, len(truth))).astype(float)
    again = fit_many(counts, first.function, first.theta)
    nu = np.stack([(first.function.weight * np.exp(first.function.basis @ t)).sum(axis=1) for t in again.theta])
    assert nu.std(axis=0) == pytest.approx(first.error, rel=0.15)
    assert np.cov(again.theta.T) == pytest.approx(first.covariance, abs=0.2 * np.diag(first.covariance).max())


def test_the_strength_of_a_signal_comes_back_within_its_error():
    pulls = []
    for seed in range(60):
        s = spectrum(20_000, seed, signal=120.0)
        f = fit(s, "dijet", 3, SQRT_S, signal=gaussian(EDGES, 3000.0, 0.05))
        pulls.append((f.strength - 120.0) / f.strength_error)
    assert abs(np.mean(pulls)) < 3.5 / np.sqrt(60)
    assert 0.7 < np.std(pulls) < 1.3


def test_weights_count_by_their_squares():
    """A weight of 4 everywhere makes errors twice as large, and changes neither function nor pulls."""
    s = spectrum(20_000, 4)
    heavy = Spectrum("m", s.edges, 4 * s.counts, 16 * s.counts)
    one, four = fit(s, "dijet", 3, SQRT_S), fit(heavy, "dijet", 3, SQRT_S)
    assert four.expected == pytest.approx(4 * one.expected, rel=1e-4)
    assert four.error == pytest.approx(4 * one.error, rel=1e-2)
    assert four.pulls == pytest.approx(one.pulls, abs=1e-2)
    assert four.deviance == pytest.approx(one.deviance, abs=1e-2)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.2, 5.0), seed=st.integers(0, 1000))
def test_a_unit_of_mass_does_not_matter(scale, seed):
    s = spectrum(3000, seed)
    scaled = Spectrum.of_events("m", s.edges * scale, s.counts)
    a, b = fit(s, "dijet", 3, SQRT_S), fit(scaled, "dijet", 3, SQRT_S * scale)
    assert b.expected == pytest.approx(a.expected, rel=1e-3, abs=1e-3)


def test_masked_bins_do_not_count():
    s = spectrum(20_000, 5, signal=400.0)
    mask = np.where(s.inside(2600.0, 3400.0), 0.0, 1.0)
    blind = fit(s, "dijet", 3, SQRT_S, mask=mask)
    other = s.with_counts(np.where(mask > 0, s.counts, 10**6))
    assert fit(other, "dijet", 3, SQRT_S, mask=mask).expected == pytest.approx(blind.expected, rel=1e-6)
    truth = falling(20_000)[mask == 0].sum()
    slopes = blind.jacobian[mask == 0].sum(axis=0)
    error = np.sqrt(slopes @ blind.covariance @ slopes)
    assert abs(blind.expected[mask == 0].sum() - truth) < 3 * error


def test_parameters_are_added_until_they_do_not_help():
    rng = np.random.default_rng(1)
    three = [
        select_order(Spectrum.of_events("m", EDGES, rng.poisson(falling(20_000))), "dijet", SQRT_S)[0].order
        for _ in range(30)
    ]
    assert np.mean(np.array(three) == 3) > 0.8  # what three parameters describe, by a test at 5 %
    x = (EDGES[1:] + EDGES[:-1]) / 2 / SQRT_S
    bent = falling(10**6) * np.exp(1.5 * (np.log(x) + 1.4) ** 2)
    best, tests = select_order(Spectrum.of_events("m", EDGES, rng.poisson(bent)), "dijet", SQRT_S)
    assert best.order > 3
    assert tests[3] < 0.05


def test_the_range_begins_where_the_turn_on_ends():
    m = (EDGES[1:] + EDGES[:-1]) / 2
    turned = falling(50_000) / (1 + np.exp(-(m - 1900) / 60))
    b = fit_background(Spectrum.of_events("m", EDGES, np.random.default_rng(2).poisson(turned)), "dijet", SQRT_S)
    assert 1900 <= b.fit.spectrum.edges[0] <= 2400
    assert b.goodness.p_value > 0.05
    assert "lowest begin" in b.said[0]


def test_a_spectrum_that_is_hardly_described_is_taken_and_said_so():
    """Which a good spectrum is now and then: here one is asked for a p-value that it has nowhere."""
    s = spectrum(20_000, 3)
    usual = fit_background(s, "dijet", SQRT_S)
    asked = fit_background(s, "dijet", SQRT_S, minimum=0.999)
    assert not usual.doubts
    assert asked.goodness.p_value >= usual.goodness.p_value > 0.05
    assert "no range has a p-value above 0.999" in asked.doubts[0]


def test_the_p_value_of_a_fit_is_uniform_with_few_events_too():
    truth = falling(300)
    p = []
    for seed in range(120):
        s = Spectrum.of_events("m", EDGES, np.random.default_rng([9, seed]).poisson(truth))
        p.append(goodness(fit(s, "dijet", 3, SQRT_S), toys=200, seed=seed).p_value)
    assert abs(np.mean(p) - 0.5) < 0.1
    assert np.mean(np.array(p) < 0.1) < 0.2


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ([0] * 45, "spectrum mjj: it has no events between 1500 and 6000 GeV"),
        ([3, 2, *[0] * 43], "spectrum mjj: 5 events are too few for 3 parameters"),
        ([30, 20, *[0] * 43], "spectrum mjj: 2 bins have events, too few for 3 parameters"),
        (
            [30, -2, *[5] * 43],
            "spectrum mjj, 1600–1700: the sum of weights is -2, and a negative one has no likelihood",
        ),
    ],
)
def test_what_cannot_be_fitted_says_which_spectrum_and_why(counts, sentence):
    n = np.asarray(counts, float)
    with pytest.raises(FitFailed) as error:
        fit(Spectrum("mjj", EDGES, n, abs(n)), "dijet", 3, SQRT_S)
    assert sentence in str(error.value)


def test_few_bins_are_refused():
    s = Spectrum.of_events("m", [1500.0, 2000.0, 3000.0, 4000.0], [100, 50, 20])
    with pytest.raises(FitFailed, match="3 bins are too few for 3 parameters"):
        fit(s, "dijet", 3, SQRT_S)


def test_a_spectrum_that_reaches_the_beam_energy_is_refused():
    with pytest.raises(ConfigError, match="does not fit into 0 to √s = 5000 GeV"):
        design("dijet", 3, EDGES, 5000.0)


def test_a_coefficient_at_its_limit_says_so():
    n = np.r_[np.full(20, 50.0), np.zeros(25)]
    f = fit(Spectrum.of_events("m", EDGES, n), "bernstein", 4, SQRT_S)
    assert any("coefficient 4 of 4 is at its limit, 0" in note for note in f.notes)
    assert np.all(np.isfinite(f.covariance))


def test_large_yields_are_fitted():
    s = Spectrum.of_events("m", EDGES, np.round(falling(3e9)))
    f = fit(s, "dijet", 4, SQRT_S)
    assert f.deviance < 10
    assert f.expected.sum() == pytest.approx(s.counts.sum(), rel=1e-6)


def test_a_signal_without_width_is_in_one_bin():
    shape = gaussian(EDGES, 2050.0, 0.0)
    assert shape.sum() == 1
    assert shape[5] == 1
    with pytest.raises(ConfigError, match="a width of 0.9 of the mass"):
        gaussians(EDGES, (0.9,), highest=5000.0)


def test_the_envelope_is_as_wide_as_its_widest_function_allows():
    s = spectrum(20_000, 6, signal=120.0)
    shape = gaussian(EDGES, 3000.0, 0.05)
    one = envelope(s, ["dijet"], SQRT_S, shape)
    assert one.strength == pytest.approx(one.alone["dijet"][0], abs=0.1 * one.alone["dijet"][1])
    assert (one.up + one.down) / 2 == pytest.approx(one.alone["dijet"][1], rel=0.1)
    many = envelope(s, ["dijet", "cube_root", "ua2", "exponential"], SQRT_S, shape)
    assert set(many.alone) == {"dijet", "cube_root", "ua2", "exponential"}
    lowest = np.min(list(many.curves.values()), axis=0)
    assert lowest.min() == 0
    for name, curve in many.curves.items():
        inside = many.strengths[curve <= 1]
        if len(inside):  # what one function allows, the envelope does
            step = many.strengths[1] - many.strengths[0]
            assert many.strength - many.down <= inside.min() + step, name
            assert many.strength + many.up >= inside.max() - step, name


def test_the_envelope_contains_the_truth_as_often_as_it_says():
    """The truth is a function of another family than that of the default."""
    shape, hits = gaussian(EDGES, 2600.0, 0.05), 0
    truth = fit(spectrum(20_000, 1), "exponential", 4, SQRT_S).expected + 100 * shape
    for seed in range(40):
        s = Spectrum.of_events("m", EDGES, np.random.default_rng([4, seed]).poisson(truth))
        e = envelope(s, ["dijet", "ua2", "exponential"], SQRT_S, shape)
        hits += e.strength - e.down <= 100 <= e.strength + e.up
    assert hits / 40 > 0.68 - 3 * np.sqrt(0.68 * 0.32 / 40)


def test_an_envelope_ends_where_its_best_function_would_be_negative():
    """There the smallest of all curves jumps to another function, and no parabola describes it."""
    counts = [
        46, 43, 32, 41, 36, 49, 40, 47, 60, 36, 54, 52, 47, 49, 27, 37, 29, 20, 20, 26, 13, 19, 12, 9,
        8, 10, 9, 7, 6, 8, 5, 2,
    ]  # fmt: skip
    counts += [6, 2, 4, 4, 7, 2, 5] + [0] * 25  # five parameters describe the bump that three leave
    edges = np.geomspace(105.5794, 12620.5416, 65)
    s = Spectrum.of_events("m", edges, counts)
    e = envelope(s, ["cube_root", "exponential"], SQRT_S, gaussian(edges, 1616.985, 0.15), exclude=3.0)
    assert e.orders == {"cube_root": 3, "exponential": 5}
    assert e.family == "exponential"
    assert np.isinf(e.curves["exponential"][0])
    assert e.strengths[0] <= e.strength - e.down <= e.strength <= e.strength + e.up < 20


def test_an_envelope_without_a_function_says_why():
    with pytest.raises(FitFailed, match="no function describes it with a signal"):
        envelope(Spectrum.of_events("m", EDGES, np.zeros(45)), ["dijet"], SQRT_S, gaussian(EDGES, 3000.0, 0.05))
