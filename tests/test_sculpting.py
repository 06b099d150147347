"""Whether a region changes the shape of a spectrum of simulated background, which a bump in data would be blamed on."""

from __future__ import annotations

import hist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from coffea_ad.errors import ConfigError, UnknownName
from coffea_ad.histograms import book
from coffea_ad.results.folder import load_results, save_results
from coffea_ad.results.results import Results
from coffea_ad.search.sculpting import compare_shapes, sculpting

AXIS = hist.axis.Regular(30, 1000, 4000, name="mjj")
REGIONS = {"inclusive": ["0", "1"], "tight": ["1"], "odd": ["1", "unscored"]}


def spectrum(rng, n, bump=0.0, slope=600.0):
    """A falling spectrum, with a part of it near 2 TeV."""
    mass = 1000 + rng.exponential(slope, n)
    return np.where(rng.random(n) < bump, rng.normal(2000, 80, n), mass)


def dataset(rng, n, n_tight, weight, **shape):
    histogram = book([AXIS], ["0", "1", "unscored"], ["nominal"])
    for cell, mass in {
        "0": spectrum(rng, n),
        "1": spectrum(rng, n_tight, **shape),
        "unscored": spectrum(rng, 50),
    }.items():
        w = weight * rng.uniform(0.5, 1.5, len(mass))
        histogram.fill(cell=np.full(len(mass), cell), variation="nominal", mjj=mass, weight=w)
    return histogram


def results(seed, n=20_000, n_tight=1000, kinds=("background",), **shape):
    """Two processes of the background, one of events that weigh four times as much, and perhaps others."""
    rng = np.random.default_rng(seed)
    filled = {"qcd": dataset(rng, n, n_tight, 1.0, **shape), "tt": dataset(rng, n // 10, n_tight // 10, 4.0, **shape)}
    about = {name: {"is_mc": True, "xsec": 1.0} for name in filled}
    if "others" in kinds:
        filled |= {"signal": dataset(rng, 10, 2000, 5.0, bump=0.9), "run": dataset(rng, 900, 800, 1.0, bump=0.9)}
        about |= {"signal": {"is_mc": True, "xsec": 1.0, "is_signal": True}, "run": {"is_mc": False}}
    entries = {
        name: {"metadata": metadata, "lumi": 1e-3, "sumw": 1.0, "events": 99, "files": {}, "failed": [], "regions": REGIONS}
        for name, metadata in about.items()
    }  # fmt: skip
    report = {
        "datasets": entries,
        "lumi": 1e-3,
        "processor": "p",
        "models": [],
        "notes": [],
        "throughput": {},
        "key": {},
    }
    return Results({name: {"mjj": h} for name, h in filled.items()}, report)


def test_without_sculpting_chi2_is_its_degrees_of_freedom_and_p_values_are_as_frequent_as_they_say():
    measured = [sculpting(results(seed), "mjj", "tight") for seed in range(60)]
    pulls = [(m.chi2 - m.degrees_of_freedom) / np.sqrt(2 * m.degrees_of_freedom) for m in measured]
    assert abs(np.mean(pulls)) < 4 / np.sqrt(60)
    assert 0.7 < np.std(pulls) < 1.4
    for name in ("p_value", "global_p_value"):
        p = np.array([getattr(m, name) for m in measured])
        assert abs(p.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 60), name
    assert np.mean([m.sculpts for m in measured]) <= 0.1
    quiet = next(m for m in measured if not m.sculpts)
    assert quiet.verdict.startswith("simulated background shows no sculpting of mjj in tight: χ² = ")


def test_a_bump_of_the_region_is_localised_and_refuses_significance(tmp_path):
    report = results(1, n_tight=4000, bump=0.08)
    save_results(report.histograms, report.report, tmp_path / "r")
    measured = sculpting(load_results(tmp_path / "r"), "mjj", "tight")
    assert measured.sculpts
    assert measured.global_p_value < 0.002
    assert measured.excess.significance > 5
    assert 1700 <= measured.excess.low <= 2000 <= measured.excess.high <= 2300
    assert measured.verdict.startswith(
        "region tight makes an excess of simulated background in mjj, so that one in data there is not significant: "
    )
    assert measured.verdict.endswith("%, p < 0.001 anywhere")
    there, elsewhere = measured.excess_in(1900, 2100), measured.excess_in(2600, 3600)
    assert there.significance > 5
    assert (there.low, there.high) == (1900, 2100)
    # 320 events in the bump, 78 % of which are within its core of 2.5 σ, over 4000 · 0.92 of the spectrum
    assert there.observed - there.expected == pytest.approx(0.79 * 0.08 * (4000 + 4 * 400), rel=0.35)
    assert abs(elsewhere.significance) < 3


def test_a_change_of_slope_is_seen_by_chi2():
    measured = sculpting(results(2, n_tight=4000, slope=800.0), "mjj", "tight")
    assert measured.p_value < 1e-6
    assert measured.sculpts
    assert "tight" in measured.verdict


def test_of_unweighted_events_it_is_pearsons_chi2():
    rng = np.random.default_rng(3)
    inside, outside = (np.histogram(spectrum(rng, n), AXIS.edges)[0].astype(float)[:12] for n in (3000, 20_000))
    measured = compare_shapes(AXIS.edges[:13], inside, inside, outside, outside)
    assert measured.bins_compared == 12
    pearson = chi2_contingency(np.stack([inside, outside]), correction=False)
    assert measured.chi2 == pytest.approx(pearson.statistic, rel=1e-6)
    assert measured.p_value == pytest.approx(pearson.pvalue, rel=1e-6)
    assert measured.outside.sum() == pytest.approx(inside.sum())
    # one bin against all others: a table of two by two
    first = measured.excess_in(1000, 1050)
    table = np.array([[inside[0], inside[1:].sum()], [outside[0], outside[1:].sum()]])
    assert first.significance**2 == pytest.approx(chi2_contingency(table, correction=False).statistic, rel=1e-6)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2.0**-9, 0.5, 4.0, 2.0**9]))
def test_the_scale_of_weights_does_not_matter(seed, one):
    rng = np.random.default_rng(seed)
    inside, outside = (np.histogram(spectrum(rng, n), AXIS.edges)[0].astype(float) for n in (800, 5000))
    plain = compare_shapes(AXIS.edges, inside, inside, outside, outside)
    both = compare_shapes(AXIS.edges, one * inside, one**2 * inside, one * outside, one**2 * outside)
    assert both.chi2 == pytest.approx(plain.chi2)
    assert both.excess.significance == pytest.approx(plain.excess.significance)
    assert both.global_p_value == plain.global_p_value


def test_data_and_signals_are_not_looked_at():
    alone, with_others = (sculpting(results(4, kinds=kinds), "mjj", "tight") for kinds in ((), ("others",)))
    assert (alone.chi2, alone.p_value, alone.excess) == (with_others.chi2, with_others.p_value, with_others.excess)


def test_what_cannot_be_compared_is_said():
    full = results(5)
    with pytest.raises(UnknownName, match="tigt"):
        sculpting(full, "mjj", "tigt")
    with pytest.raises(ConfigError, match="hold no background with a histogram mj over regions"):
        sculpting(full, "mj", "tight")
    for region in ("inclusive", "odd"):
        with pytest.raises(ConfigError, match=f"region {region} is no part of the inclusive spectrum of mjj"):
            sculpting(full, "mjj", region)
    with pytest.raises(ConfigError, match=r"mjj: simulated background of region tight has \d+\.\d effective events"):
        sculpting(results(6, n_tight=10), "mjj", "tight")
    plane = book([AXIS, hist.axis.Regular(3, 0, 3, name="ad_logp")], ["0", "1"], ["nominal"])
    with pytest.raises(ConfigError, match="plane has 2 axes; sculpting is that of one observable"):
        sculpting(Results({"qcd": {"plane": plane}, "tt": {"plane": plane}}, full.report), "plane", "tight")
    narrow = np.array([200.0, 0.0])
    with pytest.raises(ConfigError, match="observable: region region and the other events do not share two bins"):
        compare_shapes(np.arange(3.0), narrow, narrow, narrow, narrow)
    with pytest.raises(ConfigError, match="mjj has no bin between 9000 and 9100"):
        sculpting(full, "mjj", "tight").excess_in(9000, 9100)
