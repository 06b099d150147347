"""Limits: those of pyhf by hand, counting with known answers, signals of results, and what cannot be set."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, poisson
from search_toys import EDGES, SQRT_S, falling, nested, spectrum, with_signal

from coffea_ad.errors import ConfigError, FitFailed
from coffea_ad.search import limits
from coffea_ad.search.asymptotic import cls_at
from coffea_ad.search.channels import Channel, Sample, workspace
from coffea_ad.search.config import LimitConfig, SearchConfig
from coffea_ad.search.fits import fit
from coffea_ad.search.hunting import HuntSettings, hunt, prepare
from coffea_ad.search.limiting import cross_sections_of, in_pb, set_limits, signal_tasks
from coffea_ad.search.limits import LimitTask, asymptotic_limit, channel_of, counting_limit, limit_of_task, tasks_of
from coffea_ad.search.signals import gaussian
from coffea_ad.search.spectra import Spectra, Spectrum

pyhf = pytest.importorskip("pyhf", reason="not installed: the extra `search`", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore:jsonschema.RefResolver:DeprecationWarning")  # of pyhf

FIT = {"low": 1500.0, "high": 6000.0}
ONE = HuntSettings(interval=(1500.0, 6000.0), orders=(3, 3), widths=(0.05,), toys=0)


def by_hand(observed, spec, low, high):
    """The limits of pyhf by its own interpolation, over a fine grid."""
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(), precision="64b")
    model = pyhf.Model(spec, poi_name="mu")
    bounds = model.config.suggested_bounds()
    bounds[model.config.poi_index] = (0, 20 * high)
    data = [*observed, *model.config.auxdata]
    grid = np.geomspace(low, high, 28)
    return pyhf.infer.intervals.upper_limits.upper_limit(data, model, scan=grid, level=0.05, par_bounds=bounds)


def sample(name, data, *modifiers):
    return {"name": name, "data": [float(v) for v in data], "modifiers": list(modifiers)}


def model_of(*samples):
    return {"channels": [{"name": "c", "samples": list(samples)}]}


MU = {"name": "mu", "type": "normfactor", "data": None}


@pytest.mark.parametrize(
    ("observed", "background", "shift", "signal"),
    [
        ((12, 30, 11), (10.0, 20.0, 10.0), (1.0, 2.0, 1.0), (0.2, 0.6, 0.2)),  # an excess
        ((0, 0), (8.0, 7.0), (0.5, 0.5), (0.5, 0.5)),  # nothing observed
        ((3_001_000, 1_999_000), (3e6, 2e6), (1e3, 1e3), (0.7, 0.3)),  # large yields, with which scipy's fits fail
        ((180, 260), (100.0, 200.0), (3.0, 3.0), (0.5, 0.5)),  # an excess far beyond what is expected
    ],
)
def test_limits_are_those_of_pyhf_by_hand(observed, background, shift, signal):
    b, e, s = np.array(background), np.array(shift), np.array(signal)
    samples = {
        "background": Sample(b, 0 * b, variations={"fit": (b + e, b - e)}),
        "signal": Sample(s, 0 * s, signal=True, norm={"yield": (0.9, 1.1)}),
    }
    limit, expected = asymptotic_limit(Channel("c", np.arange(len(b) + 1.0), observed, samples), b.sum(), e.sum())
    shape = {"name": "fit", "type": "histosys", "data": {"hi_data": list(b + e), "lo_data": list(b - e)}}
    number = {"name": "yield", "type": "normsys", "data": {"hi": 1.1, "lo": 0.9}}
    spec = model_of(sample("background", b, shape), sample("signal", s, MU, number))
    one, bands = by_hand(observed, spec, 0.5 * min(limit, *expected), 1.3 * max(limit, *expected))
    assert limit == pytest.approx(float(one), rel=0.02)
    assert expected == pytest.approx([float(v) for v in bands], rel=0.02)


def test_a_window_beside_a_fit_has_the_limit_of_pyhf():
    """All of it by hand: the fit outside, one source for each direction of its covariance, and the signal in the window."""
    s = spectrum(20_000, 3)
    task = LimitTask(s, "dijet", 3, SQRT_S, 3500.0, 0.05)
    limit = limit_of_task(task)
    inside = (EDGES[:-1] >= limit.low) & (EDGES[1:] <= limit.high)
    f = fit(s, "dijet", 3, SQRT_S, mask=np.where(inside, 0.0, 1.0))
    b, unit = f.background[inside], gaussian(EDGES, 3500.0, 0.05)[inside]
    root = f.jacobian[inside] @ np.linalg.cholesky(f.covariance)  # another basis of the same errors
    shapes = [
        {"name": f"e{k}", "type": "histosys", "data": {"hi_data": list(b + v), "lo_data": list(b - v)}}
        for k, v in enumerate(root.T)
    ]
    spec = model_of(sample("background", b, *shapes), sample("signal", unit, MU))
    one, bands = by_hand(s.counts[inside], spec, 0.5 * limit.expected[0], 1.3 * max(limit.observed, limit.expected[-1]))
    assert limit.method == "asymptotic"
    assert limit.observed == pytest.approx(float(one), rel=0.05)
    assert limit.expected[2] == pytest.approx(float(bands[2]), rel=0.05)
    assert limit.events == s.counts[inside].sum()


def test_the_discovery_statistic_is_that_of_pyhf():
    """Bernstein polynomials are sums of positive shapes, which pyhf can have as samples with free numbers."""
    edges = np.linspace(1000.0, 2000.0, 13)
    shape = gaussian(edges, 1500.0, 0.05)
    n = np.random.default_rng(4).poisson(np.linspace(400.0, 150.0, 12) + 80 * shape)
    s = Spectrum.of_events("m", edges, n)
    alone, both = fit(s, "bernstein", 3, SQRT_S), fit(s, "bernstein", 3, SQRT_S, signal=shape)
    templates = both.jacobian.T  # each is exp(θ) times its polynomial
    free = [{"name": f"n{k}", "type": "normfactor", "data": None} for k in range(3)]
    spec = model_of(sample("signal", shape, MU), *(sample(f"b{k}", t, free[k]) for k, t in enumerate(templates)))
    pyhf.set_backend("numpy", pyhf.optimize.minuit_optimizer(), precision="64b")
    model = pyhf.Model(spec, poi_name="mu")
    bounds = [(0.0, 2000.0) if name == "mu" else (0.0, 10.0) for name in model.config.par_order]
    q0 = pyhf.infer.test_statistics.q0(
        0.0, [float(v) for v in n], model, model.config.suggested_init(), bounds, model.config.suggested_fixed()
    )
    assert both.strength > 0
    assert alone.deviance - both.deviance == pytest.approx(float(q0), rel=0.02)


def test_counting_limits_have_known_values():
    assert counting_limit(0, 0.0, 0.0)[0] == pytest.approx(-np.log(0.05), rel=1e-3)  # 3.00
    # without an error CLs is a ratio of two Poisson probabilities: what it excludes solves it
    for n, b in ((3, 2.5), (7, 4.0), (0, 6.0), (40, 30.0)):
        s = counting_limit(n, b, 0.0)[0]
        assert poisson.cdf(n, b + s) / poisson.cdf(n, b) == pytest.approx(0.05, rel=0.02)
    assert counting_limit(0, 6.0, 0.0)[0] == pytest.approx(3.0, abs=0.01)  # CLs of nothing observed knows no background
    observed, expected = counting_limit(3, 3.0, 0.0)
    assert observed == expected[2]
    assert list(expected) == sorted(expected)


@settings(max_examples=10, deadline=None)
@given(b=st.floats(0.1, 30), more=st.integers(0, 10), part=st.floats(0.05, 0.5))
def test_a_counting_limit_grows_with_events_and_errors(b, more, part):
    n = int(np.ceil(b)) + more
    limit, more_events = counting_limit(n, b, part * b)[0], counting_limit(n + 1, b, part * b)[0]
    assert more_events > limit
    assert counting_limit(n, b, part * b, signal_error=0.3)[0] > limit
    assert limit >= counting_limit(n, b, 0.0)[0] * 0.999


@pytest.mark.parametrize("part", [0.01, 0.2])
def test_counting_goes_over_to_many_events_without_a_step(part):
    below, above = (counting_limit(b, b, part * b) for b in (499.0, 501.0))
    assert above[0] == pytest.approx(below[0], rel=0.03)
    assert above[1] == pytest.approx(below[1], rel=0.03)
    large = counting_limit(1e6, 1e6, part * 1e6)[1][2]
    assert large == pytest.approx(norm.ppf(0.975) * np.hypot(1e3, part * 1e6), rel=0.02)  # of a normal distribution


def test_far_too_few_events_have_a_limit():
    assert counting_limit(0, 30.0, 1.0)[0] == pytest.approx(3.0, rel=0.1)
    observed, expected = counting_limit(100, 1000.0, 1.0)
    assert 0 < observed < expected[0]
    assert expected == counting_limit(1000, 1000.0, 1.0)[1]  # what is expected does not depend on data


@pytest.mark.parametrize("numbers", [(-1, 1.0, 0.0), (1, np.nan, 0.0), (1, 1.0, -0.1), (1, np.inf, 0.0)])
def test_numbers_that_are_none_are_not_counted(numbers):
    with pytest.raises(ConfigError, match="must be a number of 0 or more"):
        counting_limit(*numbers)


def test_limits_by_counting_hold_where_events_are_few():
    s = Spectrum.of_events("mjj", EDGES, np.where(EDGES[1:] > 4600, 0, spectrum(20_000, 2).counts))
    limit = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 5400.0, 0.02))
    assert limit.method == "counting"
    assert limit.events == 0
    assert limit.observed == pytest.approx(3.0, rel=0.2)  # divided by the part of the signal in the window


def test_windows_at_the_edge_and_outside():
    s = spectrum(20_000, 3)
    first = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 1550.0, 0.05))
    assert first.low == EDGES[0]
    assert first.observed > 0  # the background is extrapolated, with a large error
    inner = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 2000.0, 0.05))
    assert first.error / first.background > inner.error / inner.background
    outside = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 20_000.0, 0.01))
    assert (outside.observed, outside.said) == (None, "spectrum mjj: a signal of 20000 GeV is outside of it")
    wide = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 3000.0, 1.0))
    assert wide.observed is None
    assert wide.said.startswith("spectrum mjj: ")
    assert wide.said.endswith("its window of 3000 GeV was left out")


def test_a_signal_as_wide_as_the_spectrum_has_no_limit_where_nothing_beside_it_tells_the_background():
    s = spectrum(100_000, 3)
    wide = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 2400.0, 0.4, name="Z'", shape=gaussian(EDGES, 2400.0, 0.4)))
    assert wide.error > 0.5 * wide.background
    assert (wide.observed, wide.expected) == (None, ())
    assert wide.said.startswith("spectrum mjj: what lies beside the window of signal Z', 1500 to ")
    narrower = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 2400.0, 0.1))
    assert narrower.observed > 0


def test_an_extrapolation_that_went_astray_sets_no_limit(monkeypatch):
    """Such as of many parameters, fitted to few filled bins beside a wide window: it expects nothing there, with a small error."""
    beside = limits._beside

    def astray(task, shape):
        window, f = beside(task, shape)
        away = np.log(1e-6) / f.function.basis[0, 0, 0]
        return window, replace(f, theta=f.theta + away * np.eye(f.order)[0], covariance=1e-3 * f.covariance)

    task = LimitTask(spectrum(20_000, 3), "dijet", 3, SQRT_S, 3000.0, 0.1)
    assert limit_of_task(task).observed > 0
    monkeypatch.setattr(limits, "_beside", astray)
    limit = limit_of_task(task)
    assert (limit.observed, limit.expected) == (None, ())
    assert "of the background there only that it is" in limit.said
    assert "where the function that is fitted to all bins has" in limit.said


def test_a_fit_of_pyhf_that_fails_says_it_in_one_sentence(caplog, monkeypatch):
    monkeypatch.setattr("coffea_ad.search.asymptotic._CALLS", 3)
    limit = limit_of_task(LimitTask(spectrum(20_000, 3), "dijet", 3, SQRT_S, 3000.0, 0.1))
    assert limit.observed is None
    assert limit.said.startswith("spectrum mjj, 3000 GeV: pyhf's fit failed (")
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_spectra_that_have_no_limit_say_so():
    """Public reports: bins without events, negative totals, large yields."""
    empty = Spectrum.of_events("mbb", EDGES, np.zeros(45))
    negative = Spectrum("mbj", EDGES, spectrum(20_000).counts - 40.0, spectrum(20_000).counts)
    for s, words in ((empty, "spectrum mbb: it has no events"), (negative, "spectrum mbj, ")):
        limit = limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 3000.0, 0.05))
        assert limit.observed is None
        assert limit.said.startswith(words)
        assert "3000 GeV" in limit.said
    holes = spectrum(20_000, 3)
    holes = holes.with_counts(np.where((np.arange(45) % 7 == 3) & (EDGES[:-1] > 3000), 0, holes.counts))
    assert limit_of_task(LimitTask(holes, "dijet", 3, SQRT_S, 3000.0, 0.05)).observed > 0
    large = limit_of_task(LimitTask(spectrum(50_000_000, 1), "dijet", 3, SQRT_S, 2500.0, 0.05))
    assert large.observed > 0
    assert large.said == ""


def test_a_background_that_is_0_in_a_bin_is_named():
    f = fit(spectrum(20_000, 3), "dijet", 3, SQRT_S)
    channel = channel_of(f, gaussian(EDGES, 3000.0, 0.05), (EDGES[:-1] >= 2600) & (EDGES[1:] <= 3400))
    b = channel.samples["background"]
    none = Sample(np.where(np.arange(8) == 2, 0.0, b.nominal), b.variance)
    with pytest.raises(ConfigError, match="channel window, bin 2800 to 2900: .* no background is expected"):
        asymptotic_limit(
            Channel("window", channel.edges, channel.observed, {**channel.samples, "background": none}), 1.0, 0.0
        )


def test_a_limit_that_is_not_bracketed_is_refused(monkeypatch):
    monkeypatch.setattr("coffea_ad.search.asymptotic._cls", lambda *_: [1.0] * 6)
    f = fit(spectrum(20_000, 3), "dijet", 3, SQRT_S)
    channel = channel_of(f, gaussian(EDGES, 3000.0, 0.05), (EDGES[:-1] >= 2600) & (EDGES[1:] <= 3400))
    with pytest.raises(FitFailed, match=r"no strength between .* has CLs = 0\.05"):
        asymptotic_limit(channel, 700.0, 20.0)


@pytest.mark.parametrize("strength", [1.0, 4.0, 9.0])
def test_fits_that_are_made_once_give_the_cls_of_pyhf(strength):
    import pyhf

    f = fit(spectrum(20_000, 3), "dijet", 3, SQRT_S)
    channel = channel_of(f, 10 * gaussian(EDGES, 3000.0, 0.05), (EDGES[:-1] >= 2600) & (EDGES[1:] <= 3400))
    cls = cls_at(channel, 700.0, 20.0, strength)
    model = pyhf.Workspace(workspace([channel])).model()
    data = [*channel.observed, *model.config.auxdata]
    observed, expected = pyhf.infer.hypotest(strength, data, model, test_stat="qtilde", return_expected_set=True)
    assert cls == pytest.approx([float(observed), *(float(e) for e in expected)], rel=2e-3)


@pytest.mark.parametrize("top", [0.5, 2000.0])
def test_strengths_are_extended_to_where_the_limit_is(monkeypatch, top):
    """Below and above what counting would exclude; each point is computed once."""
    asked = []

    def falls(_fits, mu):
        asked.append(mu)
        return [float(np.exp(-3 * mu / top))] * 6

    monkeypatch.setattr("coffea_ad.search.asymptotic._cls", falls)
    f = fit(spectrum(20_000, 3), "dijet", 3, SQRT_S)
    channel = channel_of(f, gaussian(EDGES, 3000.0, 0.05), (EDGES[:-1] >= 2600) & (EDGES[1:] <= 3400))
    assert asymptotic_limit(channel, 700.0, 20.0)[0] == pytest.approx(top * np.log(20) / 3, rel=1e-3)
    assert len(set(asked)) == len(asked)


def test_a_signal_is_at_the_luminosity_with_its_statistics_and_variations(tmp_path):
    results = with_signal(tmp_path)
    p = prepare(nested(20_000, 1), "tight", ONE, SQRT_S)
    config = SearchConfig(limits=LimitConfig(lumi_error=0.016))
    (task,) = signal_tasks(results, p, 0.5, config)
    events = 0.05 * 10 * 1000 * 0.3 * 0.5  # pb fb⁻¹, 300 of 1000 in the region, half of the luminosity
    assert task.shape.sum() == pytest.approx(events, rel=1e-3)
    assert task.name == "Z'"
    assert task.mass == pytest.approx(3000, rel=0.01)
    assert task.relative_error == pytest.approx(np.hypot(0.016, 1 / np.sqrt(300)), rel=1e-3)
    up, down = task.variations["jes"]
    centers = (EDGES[1:] + EDGES[:-1]) / 2
    assert (up * centers).sum() / up.sum() == pytest.approx(3300, rel=0.01)
    assert (down * centers).sum() / down.sum() == pytest.approx(2700, rel=0.01)


def test_uncertainties_of_a_signal_weaken_its_limit():
    s = spectrum(20_000, 3)
    for mass in (3500.0, 5600.0):  # by asymptotic formulae, and by counting
        shape = 200 * gaussian(EDGES, mass, 0.05)
        task = LimitTask(s, "dijet", 3, SQRT_S, mass, 0.05, shape=shape, name="svj")
        exact = limit_of_task(task).expected[2]
        number = limit_of_task(task._replace(relative_error=0.3)).expected[2]
        assert number > 1.01 * exact
        moved = tuple(200 * gaussian(EDGES, factor * mass, 0.05) for factor in (1.02, 0.97))
        for pair in ((shape * 1.4, shape * 0.7), moved):
            assert limit_of_task(task._replace(variations={"jes": pair})).expected[2] > 1.003 * exact


def test_the_excluded_cross_section_does_not_depend_on_what_was_assumed(tmp_path):
    """Events are those of the shape; the strength falls as the cross-section grows."""
    hunts = hunt([nested(20_000, 1)], ONE, SQRT_S)
    config = SearchConfig(limits=LimitConfig(widths=()))
    told = []
    for xsec in (0.05, 0.5):
        results = with_signal(tmp_path / str(xsec), xsec=xsec)
        limits, _ = set_limits(hunts, config, results)
        assert [(m.spectrum, m.signal) for m in limits] == [
            (f"mjj in {r}", "Z'") for r in ("inclusive", "loose", "tight")
        ]
        told.append(in_pb(limits[2], 10.0, cross_sections_of(results)))
    one, ten = told
    assert ten["expected"][2] == pytest.approx(one["expected"][2], rel=1e-3)
    assert ten["strength"]["expected"][2] == pytest.approx(one["strength"]["expected"][2] / 10, rel=1e-3)
    excluded = one["signal_cross_section"]["expected"][2]
    assert ten["signal_cross_section"]["expected"][2] == pytest.approx(excluded, rel=1e-3)
    assert excluded == pytest.approx(one["cross_section"]["expected"][2] / 0.3, rel=1e-3)  # by acceptance × efficiency
    assert one["cross_section"]["observed"] == pytest.approx(one["observed"] / 10_000)


def test_one_limit_that_fails_leaves_the_others(tmp_path):
    hunts = hunt([nested(20_000, 1)], ONE, SQRT_S)
    config = SearchConfig(limits=LimitConfig(masses=(3000.0, 30_000.0), widths=(0.01,), signals=True))
    results = with_signal(tmp_path)
    view = results.histograms["zprime"]["mjj"].view()
    view["value"][2] *= -0.1  # the total of the tight region is negative
    limits, _ = set_limits(hunts, config, results)
    assert len(limits) == 9
    said = [m.said for m in limits if m.said]
    assert [m.observed is None for m in limits] == [bool(m.said) for m in limits]
    assert "spectrum mjj in tight: signal Z' has no events in it" in said
    assert sum("a signal of 30000 GeV is outside of it" in sentence for sentence in said) == 3
    assert in_pb(next(m for m in limits if m.said), 10.0).get("cross_section") is None


def test_limits_are_asked_for_up_to_the_last_event():
    n = np.where(EDGES[1:] > 4600, 0, spectrum(20_000, 2).counts)
    tasks = tasks_of(Spectrum.of_events("mjj", EDGES, n), "dijet", 3, SQRT_S, widths=(0.03, 0.1), places=4)
    assert len(tasks) == 8
    assert all(EDGES[0] < t.mass < 4600 for t in tasks)
    ratios = [b.mass / a.mass for a, b in pairwise(tasks[:4])]
    assert ratios == pytest.approx([ratios[0]] * 3)


def test_expected_limits_are_those_of_pseudo_experiments():
    """The median of observed limits without a signal is the expected one."""
    observed, expected = [], []
    for seed in range(8):
        limit = limit_of_task(LimitTask(spectrum(20_000, 500 + seed), "dijet", 3, SQRT_S, 3500.0, 0.05))
        observed.append(limit.observed)
        expected.append(limit.expected)
    bands = np.median(expected, axis=0)
    assert np.median(observed) == pytest.approx(bands[2], rel=0.25)
    inside = np.mean((observed > bands[1]) & (observed < bands[3]))
    assert inside > 0.3


def test_a_signal_in_the_data_is_not_excluded():
    s = spectrum(20_000, 3, signal=150.0)
    assert limit_of_task(LimitTask(s, "dijet", 3, SQRT_S, 3000.0, 0.05)).observed > 150
    b = Spectrum.of_events("mjj", EDGES, np.round(falling(20_000)))
    assert limit_of_task(LimitTask(b, "dijet", 3, SQRT_S, 3000.0, 0.05)).observed < 150
    assert Spectra.single(b).region("inclusive").counts.sum() > 0
