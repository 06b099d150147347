"""The bump hunt: scans, pseudo-experiments, trials, and the search from a results folder to its own."""

from __future__ import annotations

import json
from dataclasses import replace

import hist
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm, poisson
from search_toys import EDGES, SQRT_S, falling, nested, spectrum, windowed

from coffea_ad.cli import main
from coffea_ad.errors import BadFile, ConfigError, FitFailed, UnknownName
from coffea_ad.results import save_results
from coffea_ad.search.bump_hunt import Hunt, hunt_many
from coffea_ad.search.choosing import orders_of
from coffea_ad.search.config import SearchConfig
from coffea_ad.search.exploring import explore, halves
from coffea_ad.search.fits import fit
from coffea_ad.search.hunting import HuntSettings, hunt, prepare
from coffea_ad.search.ordering import Orders
from coffea_ad.search.reading import pseudo_data, read_spectra
from coffea_ad.search.search import search
from coffea_ad.search.signals import gaussians
from coffea_ad.search.spectra import Spectra, Spectrum
from coffea_ad.search.toys import Block, throw_all
from coffea_ad.search.toys import nested as nesting
from coffea_ad.search.trials import fit_trials, global_p
from coffea_ad.search.windows import poisson_tail, significance_of, windows_of

FEW = HuntSettings(interval=(1500.0, 6000.0), widths=(0.05,), toys=100)


def test_windows_have_the_poisson_probability_of_their_events():
    p = poisson_tail(np.array([3.0, 10.0]), np.array([1.2, 11.0]))
    assert p == pytest.approx(poisson.sf([2, 9], [1.2, 11.0]), rel=1e-9)
    assert significance_of(p) == pytest.approx(norm.isf(p))


def test_every_window_is_there_once():
    w = windows_of(7, 2, 4)
    pairs = set(zip(w.begin.tolist(), w.end.tolist(), strict=True))
    assert len(pairs) == len(w.begin) == 6 + 5 + 4
    assert all(2 <= b - a <= 4 and b <= 7 for a, b in pairs)


def test_a_fixed_background_gives_the_statistic_of_pybumphunter():
    """The reference implementation scans the same windows against the same background."""
    import pyBumpHunter

    s = spectrum(20_000, 3, signal=150.0)
    f = fit(s, "dijet", 3, SQRT_S)
    scan = hunt_many(
        s.counts,
        Hunt(Orders((f.function,), (f.theta,)), windows_of(len(s.counts)), gaussians(EDGES, (0.05,), highest=5000.0)),
    )
    best = int(np.argmax(scan.window[0]))
    bh = pyBumpHunter.BumpHunter1D(
        rang=[EDGES[0], EDGES[-1]],
        width_min=2,
        width_max=len(s.counts) // 2,
        width_step=1,
        scan_step=1,
        bins=EDGES,
        npe=1,
        nworker=1,
        seed=1,
    )
    bh.bump_scan(s.counts, scan.expected[0], is_hist=True, do_pseudo=False)
    w = windows_of(len(s.counts))
    assert int(bh.min_loc_ar[0]) == w.begin[best]
    assert int(bh.min_width_ar[0]) == w.end[best] - w.begin[best]
    assert norm.isf(float(bh.min_Pval_ar[0])) == pytest.approx(scan.window[0, best], abs=1e-6)


def test_a_bump_is_where_it_was_put():
    p = prepare(Spectra.single(spectrum(20_000, 3, signal=250.0)), "inclusive", FEW, SQRT_S)
    for bump in p.bumps.values():
        assert bump.local > 4
        assert bump.low < 3000 < bump.high
    assert p.bumps["likelihood"].strength == pytest.approx(250, abs=100)


def test_a_signal_in_a_tail_lifts_the_fit_without_it():
    """So that the events of its window, against what this fit expects there, say less than the fit of both."""
    shape = gaussians(EDGES, (0.15,), highest=5500.0, masses=(5000.0,)).shape[0]
    s = Spectrum.of_events("mjj", EDGES, np.random.default_rng(2).poisson(falling(20_000) + 35 * shape))
    tail = replace(FEW, interval=(1500.0, 6000.0), widths=(0.15,), orders=(3, 3))
    bump = prepare(Spectra.single(s), "inclusive", tail, SQRT_S).bumps["likelihood"]
    counted = significance_of(poisson_tail(np.array([bump.events]), np.array([bump.expected])))[0]
    assert 2 < counted < bump.local - 1
    inside = (EDGES[:-1] >= bump.low) & (EDGES[1:] <= bump.high)
    assert bump.expected > falling(20_000)[inside].sum() + 5
    assert bump.strength == pytest.approx(35, abs=20)


def test_a_peak_where_a_spectrum_has_not_begun_to_fall_is_no_signal():
    """Left out as an excess, it would let the range begin below it, with many σ of a signal there."""
    m = (EDGES[1:] + EDGES[:-1]) / 2
    peak = 300 * gaussians(EDGES, (0.05,), highest=5500.0, masses=(1520.0,)).shape[0]
    s = Spectrum.of_events(
        "m", EDGES, np.random.default_rng(1).poisson(200 * np.exp(-(((m - 2600) / 1200) ** 2)) + peak)
    )
    assert s.counts.argmax() == 0
    p = prepare(Spectra.single(s), "inclusive", replace(FEW, interval=None, orders=(3, 3)), SQRT_S)
    assert p.spectrum.edges[0] > EDGES[0]
    assert p.background.fit.mask[0] == 1
    assert p.bumps["likelihood"].local < 4


def test_sliding_windows_see_a_bump_on_a_spectrum_that_no_function_describes():
    m = (EDGES[1:] + EDGES[:-1]) / 2
    bent = falling(200_000) * np.where(m < 2600, 1.0, 0.5)  # a step, such as of a trigger
    shape = gaussians(EDGES, (0.03,), highest=4100.0, masses=(4000.0,)).shape[0]
    s = Spectra.single(Spectrum.of_events("mjj", EDGES, np.random.default_rng(1).poisson(bent + 120 * shape)))
    wide = replace(FEW, widths=(0.03,), orders=(3, 3), exclude=np.inf)
    whole, slid = (prepare(s, "inclusive", replace(wide, sliding=k), SQRT_S) for k in (None, 5.0))
    near = np.argmin(abs(slid.hunt.signals.mass - 4000))
    assert slid.hunt.masks[near].sum() < len(m) / 2
    assert slid.scanned.q0[0, near] > 3
    far = abs(slid.hunt.signals.mass - 4000) > 1000
    step = abs(slid.hunt.signals.mass - 2600) < 600
    assert slid.scanned.q0[0, far & ~step].max() < whole.scanned.q0[0, far & ~step].max()
    again = hunt_many(s.region("inclusive").counts, slid.hunt)
    assert np.array_equal(again.q0, slid.scanned.q0)


def test_parameters_are_not_spent_on_a_signal():
    """Without leaving the excess out, a function with all its parameters would describe it as background."""
    s = nested(20_000, 1, signal=40.0)
    absorbed, seen = (prepare(s, "tight", replace(FEW, exclude=e), SQRT_S) for e in (np.inf, 3.0))
    assert absorbed.background.fit.order == 5
    assert seen.background.fit.order == 3
    assert seen.bumps["likelihood"].local > absorbed.bumps["likelihood"].local + 2
    none = [prepare(nested(20_000, 1), "tight", replace(FEW, exclude=e), SQRT_S).bumps for e in (np.inf, 3.0)]
    assert none[0] == none[1]


def test_a_tail_of_another_form_is_not_extrapolated():
    rng = np.random.default_rng(3)
    z = np.where(rng.uniform(size=1000) < 0.03, rng.uniform(3.5, 6.5, 1000), rng.normal(size=(20, 1000)).max(axis=0))
    worth = global_p(8.0, z)
    assert worth.by == "counting"
    assert worth.p_value == pytest.approx(1 / 1001)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_pseudo_experiments_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(falling(2000), (4, len(EDGES) - 1)).astype(float)
    scan = Hunt(
        orders_of(Spectrum.of_events("m", EDGES, falling(2000)), "dijet", SQRT_S, exclude=2.0),
        windows_of(45),
        gaussians(EDGES, (0.05,), highest=5000.0),
    )
    one, two = hunt_many(counts, scan), hunt_many(counts[::-1].copy(), scan)
    assert np.array_equal(one.window, two.window[::-1])
    assert np.array_equal(one.q0, two.q0[::-1])


def test_the_largest_significance_of_independent_places_has_their_number():
    """Of k independent Gaussian places the global p-value is 1 − Φ(z)^k."""
    z = np.random.default_rng(1).normal(size=(3000, 40)).max(axis=1)
    trials = fit_trials(z)
    for at in (3.5, 4.0, 5.0):
        assert trials.p_value(at) == pytest.approx(1 - norm.cdf(at) ** 40, rel=0.4)
    assert trials.ks_p > 0.01
    assert trials.local_for(3.0) == pytest.approx(
        norm.isf(1 - norm.cdf(norm.ppf(1 - norm.sf(3.0))) ** (1 / 40)), abs=0.1
    )


def test_the_local_significance_for_5_sigma_is_known_for_slowly_falling_tails_too():
    for c in (1.0, 0.07, 1e-3):
        trials = fit_trials(np.random.default_rng(1).normal(size=100))._replace(u=0.6, c=c)
        assert trials.p_value(trials.local_for(5.0)) == pytest.approx(norm.sf(5.0), rel=1e-6)


def test_a_global_p_value_is_counted_where_it_can_be_and_extrapolated_where_not():
    z = np.random.default_rng(2).normal(size=(1000, 20)).max(axis=1)
    counted = global_p(2.5, z)
    assert counted.by == "counting"
    assert counted.p_value == pytest.approx(1 - norm.cdf(2.5) ** 20, abs=4 * counted.error)
    tail = global_p(5.0, z)
    assert tail.by == "tail"
    assert 0.2 < tail.p_value / (20 * norm.sf(5.0)) < 5
    assert 0 < tail.error < tail.p_value


def test_nested_regions_share_their_events_in_pseudo_experiments():
    s = nested(20_000, 1)
    h = hunt([s], FEW, SQRT_S)
    from coffea_ad.search.hunting import _null

    null = _null(s, [(h.spectra[s.region(r).name].prepared, r) for r in s.regions])
    assert [r.inside for r in null.regions] == [(1,), (2,), ()]
    counts = null.draw(np.random.default_rng(1), 500)
    assert np.all(counts[0] >= counts[1])
    assert np.all(counts[1] >= counts[2])
    for drawn, region in zip(counts, null.regions, strict=True):
        assert drawn.sum(axis=1).mean() == pytest.approx(region.expected.sum(), rel=0.02)
        assert drawn.sum(axis=1).var() == pytest.approx(region.expected.sum(), rel=0.25)


def test_regions_that_overlap_and_are_not_nested_are_drawn_apart():
    assert nesting([("all", frozenset("abc")), ("x", frozenset("ab")), ("y", frozenset("bc"))]) == [(1,), (), ()]
    assert nesting([("one", frozenset("a")), ("two", frozenset("b")), ("all", frozenset("abc"))]) == [(), (), (0, 1)]
    assert nesting([("same", frozenset("a")), ("again", frozenset("a"))]) == [(1,), ()]


def test_pseudo_experiments_are_the_same_in_any_order_and_after_an_interruption(tmp_path):
    s = [nested(5000, 1), nested(5000, 2, observable="mbb")]
    whole = hunt(s, FEW, SQRT_S)
    first = hunt(s, FEW, SQRT_S, folder=tmp_path)
    stored = sorted(tmp_path.iterdir())
    assert len(stored) == 4
    stored[1].unlink()
    stored[2].write_bytes(b"half of a file")
    again = hunt(s[::-1], FEW, SQRT_S, folder=tmp_path)
    assert (first.resumed, again.resumed) == (0, 2)
    for name in whole.spectra:
        for statistic in ("windows", "likelihood"):
            assert np.array_equal(whole.spectra[name].largest[statistic], first.spectra[name].largest[statistic])
            assert np.array_equal(whole.spectra[name].largest[statistic], again.spectra[name].largest[statistic])
    other = hunt(s, replace(FEW, seed=2), SQRT_S, folder=tmp_path)
    assert other.resumed == 0  # another seed draws others


@pytest.mark.dask
def test_two_workers_draw_the_same_pseudo_experiments():
    from coffea_ad.running.clusters.config import load_cluster

    s = [nested(5000, 1)]
    alone = hunt(s, FEW, SQRT_S)
    spread = hunt(s, FEW, SQRT_S, cluster=load_cluster("local", workers=2))
    for name, h in alone.spectra.items():
        assert np.array_equal(h.largest["windows"], spread.spectra[name].largest["windows"])
        assert np.array_equal(h.largest["likelihood"], spread.spectra[name].largest["likelihood"])


def test_a_spectrum_that_cannot_be_fitted_does_not_end_the_others():
    empty = Spectra.single(Spectrum.of_events("mbb", EDGES, np.zeros(45)))
    h = hunt([empty, nested(5000, 1)], FEW, SQRT_S)
    assert list(h.skipped) == ["mbb"]
    assert "spectrum mbb: it has no events" in h.skipped["mbb"]
    assert set(h.spectra) == {"mjj in inclusive", "mjj in loose", "mjj in tight"}


def test_without_pseudo_experiments_there_is_no_global_p_value(tmp_path):
    results_folder(tmp_path / "results")
    content = search(
        tmp_path / "results",
        tmp_path / "out",
        SearchConfig(toys=0, widths=(0.05,), fit={"low": 1500}, regions=("tight",), limits={"places": 1}),
    )
    assert content["global"] == {"windows": None, "likelihood": None}
    assert "its global significance is not known" in content["verdict"]
    assert (tmp_path / "out" / "figures" / "summary.png").is_file()


def test_weighted_entries_are_refused_for_counting():
    s = spectrum(5000)
    weighted = Spectra.single(Spectrum("mjj", s.edges, s.counts, 2 * s.counts))
    with pytest.raises(FitFailed, match="its entries are weighted"):
        prepare(weighted, "inclusive", FEW, SQRT_S)


def test_too_many_failed_fits_leave_no_p_value():
    from coffea_ad.search.hunting import _worth

    p = prepare(Spectra.single(spectrum(5000)), "inclusive", FEW, SQRT_S)
    z = np.random.default_rng(1).normal(size=(1, 100))
    valid = np.ones((1, 100), bool)
    fine = _worth(p, Block(z, z, z, valid), 0)
    assert fine.p_global["windows"] is not None
    valid[0, :5] = False
    refused = _worth(p, Block(z, z, z, valid), 0)
    assert refused.p_global["windows"] is None
    assert refused.failed == 5
    assert "5 of 100 pseudo-experiments could not be fitted, too many" in refused.said[0]


def test_local_p_values_without_signal_are_uniform_after_the_trials():
    """Global p-values of spectra that a function describes, with their own pseudo-experiments."""
    p = []
    for seed in range(40):
        h = hunt([Spectra.single(spectrum(3000, 100 + seed))], FEW, SQRT_S)
        p.append([h.p_global[s].p_value for s in ("windows", "likelihood")])
    for values in np.array(p).T:
        assert kstest(values, "uniform").pvalue > 0.01


def test_halves_are_independent_and_nested_regions_share_theirs():
    pairs = [halves(nested(20_000, seed), 0.3, 1) for seed in range(40)]
    first = np.array([a.region("inclusive").counts.sum() for a, _ in pairs])
    rest = np.array([b.region("inclusive").counts.sum() for _, b in pairs])
    assert first.mean() / (first + rest).mean() == pytest.approx(0.3, abs=0.01)
    assert abs(np.corrcoef(first, rest)[0, 1]) < 0.45
    a, b = halves(nested(20_000, 1), 0.3, 1)
    assert np.all(a.region("inclusive").counts >= a.region("tight").counts)
    assert np.array_equal(a.region("loose").counts + b.region("loose").counts, nested(20_000, 1).region("loose").counts)


def test_what_a_part_shows_is_confirmed_or_not_in_the_rest():
    strong = nested(20_000, 1, signal=60.0)
    _, confirmed = explore([strong], FEW, SQRT_S, 0.3, 2, "windows")
    assert confirmed[0].spectrum == "mjj in tight"
    assert confirmed[0].p_value < 1e-4
    p = [explore([nested(20_000, 50 + s)], FEW, SQRT_S, 0.3, 1, "windows")[1][0].p_value for s in range(25)]
    assert kstest(p, "uniform").pvalue > 0.01


def results_folder(folder, *, signal=0.0, blinded=False, kind="data", weights=1.0, seed=1):
    """A results folder with one mass in nested regions."""
    s = nested(20_000, seed, signal=signal)
    h = hist.Hist(
        hist.axis.StrCategory(list(s.cells), name="cell"), hist.axis.StrCategory(["nominal"], name="variation"),
        hist.axis.Variable(EDGES, name="mjj", label="$m_{jj}$ [GeV]"), storage=hist.storage.Weight(),
    )  # fmt: skip
    for i, cell in enumerate(s.cells.values()):
        if blinded and i == 2:
            continue
        h.view()[i, 0, :]["value"] = cell.counts * weights
        h.view()[i, 0, :]["variance"] = cell.counts * weights**2
    metadata = {"is_mc": kind != "data", "sqrt_s": SQRT_S, **({} if kind == "data" else {"xsec": 1.0})}
    entry = {
        "metadata": metadata, "events": 20_000, "sumw": 1000.0, "lumi": 1.0, "files": {}, "failed": [], "blinded": blinded,
        "regions": {r: sorted(c) for r, c in s.regions.items()}, "hidden_cells": ["2"] if blinded else [],
    }  # fmt: skip
    report = {
        "datasets": {"events": entry},
        "lumi": 1.0,
        "notes": [],
        "throughput": {},
        "key": {},
        "models": [],
        "processor": "toy",
    }
    save_results({"events": {"mjj": h}}, report, folder)
    return folder


def test_a_search_of_a_results_folder_says_what_it_has_found(tmp_path, capsys):
    results_folder(tmp_path / "results", signal=40.0)
    words = [
        "search",
        str(tmp_path / "results"),
        "-o",
        str(tmp_path / "search"),
        "toys=100",
        "widths=[0.05]",
        "limits.places=1",
        "fit.low=1500",
        "--workers",
        "1",
    ]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "mjj in tight" in said
    assert "5σ global need" in said
    content = json.loads((tmp_path / "search" / "search.json").read_text())
    assert content["largest"]["spectrum"] == "mjj in tight"
    assert content["largest"]["low"] < 3000 < content["largest"]["high"]
    events, expected, strength = (content["largest"][k] for k in ("events", "expected", "strength"))
    fits = f"({events:g} events, {expected:.1f} expected by the fit without a signal; the fit with one has {strength:.1f} events of it)"
    assert fits in content["verdict"]
    assert content["global"]["likelihood"]["p_value"] < 1e-6
    assert content["counted"]["spectra"] == 3
    assert content["sqrt_s"] == SQRT_S
    assert content["config"]["toys"] == 100
    for name in ("mjj_in_tight", "summary", "largest_significance"):
        for suffix in ("png", "pdf"):
            assert (tmp_path / "search" / "figures" / f"{name}.{suffix}").stat().st_size > 1000
    assert main(words) == 1
    assert "--force" in capsys.readouterr().err
    assert main([*words, "--force", "--no-figures"]) == 0  # the pseudo-experiments are taken from the folder
    assert json.loads((tmp_path / "search" / "search.json").read_text()) == content


def test_hidden_data_are_not_searched(tmp_path):
    results_folder(tmp_path / "results", blinded=True)
    read = read_spectra(tmp_path / "results")
    assert "tight" not in read.spectra[0].regions
    assert any("region tight is hidden" in note for note in read.notes)
    assert "region loose is searched without its hidden cells, 2" in read.notes


def test_the_rest_of_the_events_is_asked_nothing_else_in_two_stages(tmp_path):
    """Limits of a part of the events at the whole luminosity would be wrong, and other counts would look at all of them."""
    results_folder(tmp_path / "results")
    asked = {"observable": "mjj", "region": "loose", "cut": 2000, "unblind": True}
    config = SearchConfig(explore_fraction=0.3, toys=20, widths=(0.05,), fit={"low": 1500}, abcd=(asked,))
    content = search(tmp_path / "results", tmp_path / "out", config, figures=False)
    assert content["limits"] == content["templates"] == content["abcd"] == []
    assert not (tmp_path / "out" / "limits.json").exists()
    assert any("left out" in note for note in content["notes"])
    assert content["confirmed"]


def test_pseudo_data_are_drawn_from_simulation_and_say_so(tmp_path):
    results_folder(tmp_path / "results", kind="simulation", weights=0.5)
    read = read_spectra(tmp_path / "results")
    assert read.source == "pseudo-data"
    assert any("pseudo-data are drawn" in note for note in read.notes)
    assert not read.spectra[0].region("inclusive").weighted


def test_pseudo_data_fluctuate_like_data():
    """Simulated events of weight w become events with probability w: their number has the Poisson variance of what is expected."""
    totals = []
    for seed in range(400):
        rng = np.random.default_rng([5, seed])
        raw = rng.poisson(4 * falling(500))
        simulated = Spectra.single(Spectrum("m", EDGES, raw * 0.25, raw * 0.25**2))
        drawn, part, _ = pseudo_data([simulated], seed)
        assert part == 1
        totals.append(drawn[0].region("inclusive").counts.sum())
    assert np.mean(totals) == pytest.approx(500, abs=4 * np.sqrt(500 / 400))
    assert np.var(totals) == pytest.approx(500, rel=0.25)


def test_large_weights_make_pseudo_data_of_less_luminosity():
    simulated = Spectra.single(Spectrum("m", EDGES, falling(5000), 10 * falling(5000)))
    drawn, part, notes = pseudo_data([simulated], 1)
    assert part == pytest.approx(0.1)
    assert drawn[0].region("inclusive").counts.sum() == pytest.approx(500, abs=100)
    assert any("0.1 of the luminosity" in note for note in notes)


def test_histograms_of_elsewhere_are_read(tmp_path):
    import uhi.io.json
    import uproot

    h = hist.Hist(hist.axis.Variable(EDGES, name="m"), data=spectrum(5000).counts)
    with uproot.recreate(tmp_path / "spectra.root") as file:
        file["folder/mass"] = h
    (tmp_path / "mass.json").write_text(json.dumps(h, default=uhi.io.json.default))
    root, uhi_json = read_spectra(tmp_path / "spectra.root"), read_spectra(tmp_path / "mass.json")
    assert np.array_equal(root.spectra[0].region("inclusive").counts, uhi_json.spectra[0].region("inclusive").counts)
    assert root.sqrt_s is None
    with pytest.raises(ConfigError, match="no centre-of-mass energy; say sqrt_s=13000"):
        search(tmp_path / "spectra.root", tmp_path / "out")
    content = search(
        tmp_path / "spectra.root",
        tmp_path / "out",
        SearchConfig(sqrt_s=SQRT_S, toys=50, widths=(0.05,), limits={"places": 1}),
        figures=False,
    )
    assert set(content["spectra"]) == {"folder/mass"}
    with pytest.raises(UnknownName, match="folder/mass"):
        read_spectra(tmp_path / "spectra.root", observables=["folder/mas"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["toys=many"], "toys"),
        (["fit.family=dijets"], "did you mean"),
        (["fit.orders=[3,9]"], "dijet has 2 to 5 parameters, not 3 to 9"),
        (["fit.low=3000", "fit.high=2000"], "low 3000 is not below high 2000"),
        (["observables=[mj]"], "mjj"),
        (["regions=[tigth]"], "tight"),
        (["source=simulation"], "the results hold no background"),
        (["statistik=windows"], "statistic"),
    ],
)
def test_wrong_words_get_one_sentence(words, sentence, tmp_path, capsys):
    results_folder(tmp_path / "results")
    assert main(["search", str(tmp_path / "results"), "-o", str(tmp_path / "s"), "--workers", "1", *words]) == 1
    err = capsys.readouterr().err
    assert sentence in err
    assert len(err.strip().splitlines()) == 1


def test_what_is_no_result_is_refused(tmp_path):
    (tmp_path / "x.root").write_bytes(b"not root")
    (tmp_path / "x.json").write_text('{"a": 1}')
    for name, sentence in (
        ("x.root", "cannot be read as a ROOT file"),
        ("x.json", "no histogram in UHI's JSON"),
        ("y.root", "no such file"),
    ):
        with pytest.raises(BadFile, match=sentence):
            read_spectra(tmp_path / name)
    with pytest.raises(BadFile, match="not a results folder"):
        read_spectra(tmp_path)
    entry = {"metadata": {"is_mc": False}, "files": {}, "failed": []}
    save_results(
        {}, {"datasets": {"d": entry}, "lumi": None, "notes": [], "throughput": {}, "key": {}}, tmp_path / "skim"
    )
    with pytest.raises(ConfigError, match="no histogram of one observable over regions"):
        read_spectra(tmp_path / "skim")


def test_a_block_of_the_wrong_size_is_drawn_again(tmp_path):
    s = [nested(5000, 1)]
    hunt(s, FEW, SQRT_S, folder=tmp_path)
    fewer = hunt(s, replace(FEW, toys=60), SQRT_S, folder=tmp_path)
    assert fewer.resumed == 1
    assert len(fewer.largest["windows"]) == 60
    assert throw_all([], 10, 1).blocks == {}


def test_a_function_fitted_to_simulation_makes_pseudo_data_where_simulation_is_scarce(tmp_path):
    results_folder(tmp_path / "results", kind="simulation", weights=50.0)
    config = SearchConfig(
        source="smooth", toys=50, widths=(0.05,), fit={"low": 1500}, regions=("inclusive",), limits={"places": 1}
    )
    content = search(tmp_path / "results", tmp_path / "out", config, figures=False)
    counts = np.array(content["spectra"]["mjj"]["counts"])
    assert counts.sum() == pytest.approx(50 * 20_000, rel=0.02)
    assert counts[:-15] == pytest.approx(falling(10**6)[:-15], rel=0.5)
    assert content["spectra"]["mjj"]["fit"]["goodness"]["p_value"] > 0.001
    assert any("drawn from functions fitted to the simulated background" in note for note in content["notes"])


def test_a_region_that_simulation_sculpts_is_named(tmp_path):
    """Data with a bump where simulation without signal has one, too: the verdict says that this is no sign of a signal."""
    bump = 60 * gaussians(EDGES, (0.05,), highest=3100.0, masses=(3000.0,)).shape[0]
    datasets, entries = {}, {}
    for name, is_mc in (("data", False), ("qcd", True)):
        rng = np.random.default_rng(is_mc)
        h = hist.Hist(
            hist.axis.StrCategory(["0", "1"], name="cell"), hist.axis.StrCategory(["nominal"], name="variation"),
            hist.axis.Variable(EDGES, name="mjj", label="$m_{jj}$ [GeV]"), storage=hist.storage.Weight(),
        )  # fmt: skip
        for i, expected in enumerate((falling(20_000), falling(2000) + bump)):
            n = rng.poisson(expected * (10 if is_mc else 1)) / (10 if is_mc else 1)
            h.view()[i, 0, :]["value"], h.view()[i, 0, :]["variance"] = n, n / (10 if is_mc else 1)
        datasets[name] = {"mjj": h}
        entries[name] = {
            "metadata": {"is_mc": is_mc, "sqrt_s": SQRT_S, **({"xsec": 1.0} if is_mc else {})}, "events": 20_000, "sumw": 1000.0, "lumi": 1.0,
            "files": {}, "failed": [], "regions": {"inclusive": ["0", "1"], "loose": ["1"]},
        }  # fmt: skip
    report = {
        "datasets": entries,
        "lumi": 1.0,
        "notes": [],
        "throughput": {},
        "key": {},
        "models": [],
        "processor": "toy",
    }
    save_results(datasets, report, tmp_path / "results")
    config = SearchConfig(toys=50, widths=(0.05,), fit={"low": 1500}, limits={"widths": []})
    content = search(tmp_path / "results", tmp_path / "out", config, figures=False)
    assert content["largest"]["spectrum"] == "mjj in loose"
    assert "mjj in loose" in content["sculpted"]
    assert "no sign of one" in content["verdict"]


def test_a_window_is_counted_against_its_template(tmp_path, capsys):
    from coffea_ad.evaluation.counting import count_significance

    windowed(tmp_path / "results", 140, 80.0)
    assert main(["search", str(tmp_path / "results"), "-o", str(tmp_path / "s"), "--workers", "1", "--no-figures"]) == 0
    content = json.loads((tmp_path / "s" / "search.json").read_text())
    (count,) = content["templates"]
    assert (count["region"], count["events"], count["expected"], count["error"]) == (
        "loose",
        140,
        80,
        pytest.approx(4.0),
    )
    assert count["significance"] == pytest.approx(count_significance(140, 80, 4))
    assert (
        content["spectra"] == content["skipped"] == {}
    )  # no function is fitted to a spectrum that ends with its window
    assert "loose, mjj from 2200 to 2500 (140 events, 80.0 ± 4.0 expected)" in capsys.readouterr().out


def test_a_window_with_hidden_events_is_not_counted(tmp_path):
    """Its expectation is of all events, and what is shown would be too few."""
    content = search(windowed(tmp_path / "results", 140, 80.0, hidden=["1"]), tmp_path / "s", figures=False)
    assert content["templates"] == []
    assert any("region loose: some of its events are hidden" in note for note in content["notes"])


def test_the_p_value_of_several_counts_has_their_number(tmp_path):
    content = search(windowed(tmp_path / "results", 100, 80.0), tmp_path / "s", figures=False)
    assert f"p-value {content['templates'][0]['p_value']:.2g} with 1 regions counted" in content["verdict"]


def test_an_abcd_estimate_is_a_part_of_a_search(tmp_path, capsys):
    results_folder(tmp_path / "results")
    words = [
        "search",
        str(tmp_path / "results"),
        "-o",
        str(tmp_path / "s"),
        "toys=0",
        "limits.widths=[]",
        "--workers",
        "1",
        "--no-figures",
    ]
    asked = "abcd=[{observable: mjj, region: loose, cut: 2000}, {observable: mjj, region: nowhere, cut: 2000}]"
    assert main([*words, "widths=[0.05]", asked]) == 0
    one, none = json.loads((tmp_path / "s" / "search.json").read_text())["abcd"]
    s = nested(20_000, 1)
    loose, rest = s.region("loose").counts, s.region("inclusive").counts - s.region("loose").counts
    above = EDGES[:-1] >= 2000
    assert one["expected"] == pytest.approx(loose[~above].sum() * rest[above].sum() / rest[~above].sum())
    assert one["observed"] is None  # nobody has asked to look
    assert "events expected" in one["sentences"][0]
    assert "no estimate" in none["sentences"][0]
    assert "loose, mjj above 2000" in capsys.readouterr().out
