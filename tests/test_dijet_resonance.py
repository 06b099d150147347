"""The search for dijet resonances: masses, folds, windows side by side, and what a template leads one to expect."""

from __future__ import annotations

from dataclasses import replace

import awkward as ak
import numpy as np
import pytest

resonant = pytest.importorskip("coffea_ad.resonant")
import resonant_toys as toys
from test_event_models import graph
from toys import DATA, assert_identical, copy_events, open_events

import coffea_ad as ad
from coffea_ad import features
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import feature_spec
from coffea_ad.resonant import Window
from coffea_ad.resonant.members import Member, run_graph
from coffea_ad.resonant.publishing import publish_window
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.splits import fold_of

pytestmark = pytest.mark.torch
K, SALT = 3, "s"
OPTIONS = {"inputs": "baseline", "delta_eta_max": 1.3}
WINDOWS = tuple(Window(low=a, high=b, outer_low=500, outer_high=3500) for a, b in ((800, 1200), (1200, 1700)))
WIDE = ["jet_scale=0", "mass_min=500", "mass_max=4500", "mass_bins=80"]
WEIGHTS = np.array([[0.01 * (fold + 1), 0.002 * (fold - 1), -1.0, -2.0] for fold in range(K)])
REGIONS = ("eff0.5", "eff0.2")


def member(fold, window, rng):
    """A linear score that every fold has of its own, and a template of jets like those of QCD."""
    weights = np.r_[0, WEIGHTS[fold]].astype(np.float32)
    data = graph(
        {"features": [5]},
        [
            ("Sub", ("features", "features"), "nothing", {}),  # NaN where an input is infinite
            ("Mul", ("features", "w"), "products", {}), ("Add", ("products", "nothing"), "parts", {}),
            ("ReduceSum", ("parts", "axis"), "score", {"keepdims": 0}),
        ],
        {"w": weights, "axis": np.array([1])},
    )  # fmt: skip
    real, _ = features.compute("dijet", open_events(DATA / "qcd_v15.root"), **OPTIONS)
    real = real[np.isfinite(real[:, 0])]
    x = real[rng.integers(len(real), size=4000)] * rng.uniform(0.8, 1.2, (4000, 5)).astype(np.float32)
    x[:, 0] = rng.uniform(window.low, np.nextafter(np.float32(window.high), np.float32(0)), len(x))
    x[:, 3:] -= 0.3 * (x[:, :1] - window.low) / (window.high - window.low)  # what is expected depends on the mass
    nothing, none = np.zeros((0, 3), np.int64), np.zeros(0, np.float32)
    return Member(
        "cwola", (5,), None, data, x, np.ones(len(x)), run_graph(data, x), nothing, np.zeros(0, "U4"),
        none, none, none, np.zeros(0), {"closure_auc": 0.5},
    )  # fmt: skip


def models_of(folder, windows=WINDOWS, options=OPTIONS):
    """Write a model file for each window, without training."""
    data = replace(toys.skim(toys.background(300, 1)), features=(feature_spec("dijet", options),))
    paths = []
    for i, window in enumerate(windows):
        rng = np.random.default_rng(i)
        members = [member(f, window, rng) for f in range(K)]
        paths.append(folder / f"search_{window.name}.onnx")
        publish_window(
            window, members, data, {"method": "cwola"}, paths[-1], salt=SALT, efficiencies=(0.5, 0.2)
        )  # fmt: skip
    return paths


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return models_of(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def events():
    return open_events(DATA / "qcd_v15.root")


@pytest.fixture(scope="module")
def rows(events):
    """The feature of all events, their weights, and which of them have two jets."""
    x, _ = features.compute("dijet", events, **OPTIONS)
    good = np.isfinite(x[:, 0])
    return x[good], np.asarray(events.genWeight, np.float64)[good], good


def go(output, *overrides, model, path=DATA / "qcd_v15.root", mc=True, executor="iterative", **kwargs):
    metadata = {"is_mc": True, "xsec": 10.0} if mc else {"is_mc": False}
    fileset = {"qcd": {"files": {str(path): "Events"}, "metadata": metadata}}
    return ad.run(
        fileset, "dijet_resonance", model=model, overrides=[*WIDE, *overrides], output=output, executor=executor,
        lumi=1.0, progress=False, **kwargs,
    )  # fmt: skip


@pytest.fixture(scope="module")
def search(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return go(folder, model=models), ad.load_results(folder)


def content(results, name, region, variation="nominal"):
    """Sums of weights in the bins of a region, with under- and overflow."""
    return results.in_regions["qcd"][name][{"region": region, "variation": variation}].values(flow=True)


def in_cells(results, name, prefix, variation="nominal"):
    """All cells of a model, summed."""
    h = results.histograms["qcd"][name]
    cells = [prefix + c for c in ("0", "1", "2", "unscored")]
    return sum(h[{"cell": c, "variation": variation}].values(flow=True) for c in cells)


PREFIXES = ("", "ad2_")


def test_the_mass_is_that_of_the_feature_and_every_event_is_in_one_cell(search, rows):
    report, results = search
    x, weight, _ = rows
    edges = results.histograms["qcd"]["mjj"].axes["mjj"].edges
    expected = np.histogram(x[:, 0], [-np.inf, *edges, np.inf], weights=weight)[0]
    assert (expected > 0).sum() > 20
    steps = report.datasets["qcd"]["cutflow"]
    assert steps["delta eta"]["events"] == len(x)
    for prefix in PREFIXES:
        np.testing.assert_allclose(in_cells(results, "mjj", prefix), expected, rtol=1e-9)


def by_hand(model, events, rows):
    """Score the events of a window by the members of their folds: scores (NaN outside), and the grade of each."""
    x, _, good = rows
    scorer = OnnxScorer(model)
    domain = scorer.card.domain[0]
    folds = fold_of(SALT, K, *(np.asarray(events[c])[good] for c in ("run", "luminosityBlock", "event")))
    score = np.where(domain.contains(x[:, 0]), scorer(x, folds), np.nan)
    single = np.stack([np.sum(x[:, 1:] * WEIGHTS[f], axis=1) for f in range(K)], axis=1)[np.arange(len(x)), folds]
    np.testing.assert_allclose(score[np.isfinite(score)], single[np.isfinite(score)], rtol=1e-3, atol=1e-4)
    grade = np.full(len(x), -1)
    for f in range(K):
        table = scorer.card.calibrations[f]
        ours = (folds == f) & np.isfinite(score)
        logp = np.interp(score[ours], table.score, table.logp)
        grade[ours] = np.sum([logp >= r.thresholds[0] for r in scorer.card.regions], axis=0)
    return scorer.card, grade


def test_every_event_is_scored_by_the_member_of_its_fold_and_outside_of_the_window_by_none(
    search, models, events, rows
):
    _, results = search
    x, weight, _ = rows
    edges = [-np.inf, *results.histograms["qcd"]["mjj"].axes["mjj"].edges, np.inf]
    for model, prefix in zip(models, PREFIXES, strict=True):
        card, grade = by_hand(model, events, rows)
        assert np.bincount(grade + 1, minlength=4).min() > 0  # outside, below all thresholds, above one, above both
        for g, cell in ((-1, "unscored"), (0, "0"), (1, "1"), (2, "2")):
            got = results.histograms["qcd"]["mjj"][{"cell": prefix + cell, "variation": "nominal"}].values(flow=True)
            np.testing.assert_allclose(
                got, np.histogram(x[grade == g, 0], edges, weights=weight[grade == g])[0], rtol=1e-9
            )
        names = [r.name for r in card.regions]
        assert names == list(REGIONS)
        for i, name in enumerate(names):
            passed = grade > i
            assert content(results, "mjj", prefix + name).sum() == pytest.approx(weight[passed].sum(), rel=1e-9)


def test_the_expectation_is_every_scored_event_with_the_part_of_the_template_at_its_mass(search, models, events, rows):
    _, results = search
    x, weight, _ = rows
    edges = [-np.inf, *results.histograms["qcd"]["mjj"].axes["mjj"].edges, np.inf]
    for model, prefix in zip(models, PREFIXES, strict=True):
        card, grade = by_hand(model, events, rows)
        scored = grade >= 0
        assert len({*card.regions[0].expectation.efficiencies}) > 1  # it depends on the mass
        for region in card.regions:
            w = weight * region.expectation.at(x[:, 0])
            got = content(results, "mjj_expected", prefix + region.name)
            np.testing.assert_allclose(got, np.histogram(x[:, 0], edges, weights=w)[0], rtol=1e-6, atol=1e-12)
            assert 0 < got.sum() < weight[scored].sum()
        whole = np.histogram(x[scored, 0], edges, weights=weight[scored])[0]
        np.testing.assert_allclose(in_cells(results, "mjj_expected", prefix), whole, rtol=1e-6, atol=1e-12)
        h = results.histograms["qcd"]["mjj_expected"]
        assert h[{"cell": prefix + "unscored"}].sum(flow=True).value == 0


def test_the_report_holds_the_errors_of_templates_under_the_names_of_regions(search, models):
    _, results = search
    for told, model, prefix in zip(results.report["models"], models, PREFIXES, strict=True):
        regions = OnnxScorer(model).card.regions
        assert set(told["expectations"]) == {prefix + r.name for r in regions} <= set(results.regions)
        assert told["inclusive"] == prefix + "inclusive"
        for r in regions:
            entry, e = told["expectations"][prefix + r.name], r.expectation
            assert entry["relative_error"] == pytest.approx(e.uncertainty / e.expected)
            assert entry["efficiency"] == r.efficiency
            assert (entry["spectator"], entry["low"], entry["high"]) == ("mjj", e.edges[0], e.edges[-1])


def test_a_shift_of_the_jets_moves_the_mass_and_what_is_expected(models, events, tmp_path):
    go(tmp_path, "jet_scale=0.05", model=models)
    results = ad.load_results(tmp_path)
    edges = [-np.inf, *results.histograms["qcd"]["mjj"].axes["mjj"].edges, np.inf]
    card = OnnxScorer(models[0]).card
    totals = {}
    for variation, scale in (("jet_scaleDown", 0.95), ("nominal", 1.0), ("jet_scaleUp", 1.05)):
        jets = events.FatJet
        for name in ("pt", "mass"):
            jets = ak.with_field(jets, jets[name] * np.float32(scale), name)
        x, _ = features.compute("dijet", ak.with_field(events, jets, "FatJet"), **OPTIONS)
        good = np.isfinite(x[:, 0])
        m, weight = x[good, 0], np.asarray(events.genWeight, np.float64)[good]
        np.testing.assert_allclose(
            in_cells(results, "mjj", "", variation), np.histogram(m, edges, weights=weight)[0], rtol=1e-9
        )
        w = weight * card.regions[0].expectation.at(m)
        got = content(results, "mjj_expected", REGIONS[0], variation)
        np.testing.assert_allclose(got, np.histogram(m, edges, weights=w)[0], rtol=1e-6, atol=1e-12)
        totals[variation] = got.sum()
    assert len(set(totals.values())) == 3


def test_blinded_data_show_nothing_of_the_tightest_regions(models, events, rows, tmp_path):
    data = copy_events(DATA / "qcd_v15.root", tmp_path / "data.root", drop=("Gen", "gen"))
    seen = {}
    for name, more in (("blind", []), ("open", ["unblind=true"])):
        report = go(tmp_path / name, *more, model=models, path=data, mc=False)
        seen[name] = ad.load_results(tmp_path / name), report.outputs["qcd"]["cutflow"]
    grades = [by_hand(model, events, rows)[1] for model in models]
    hidden = np.logical_or.reduce([grade == 2 for grade in grades])
    shown = len(hidden) - hidden.sum()
    assert 0 < hidden.sum() < shown
    blind, flow = seen["blind"]
    assert set(flow) == {"all", "delta eta"}
    assert flow["delta eta"]["events"] == shown
    assert blind.report["datasets"]["qcd"]["hidden_cells"] == ["2", "ad2_2"]
    for prefix, grade in zip(PREFIXES, grades, strict=True):
        tight = prefix + REGIONS[1]
        assert content(seen["open"][0], "mjj", tight).sum() == (grade == 2).sum()
        assert in_cells(seen["open"][0], "mjj", prefix).sum() == len(hidden)
        for name in ("mjj", "mj1", "delta_mj"):
            assert content(blind, name, tight).sum() == 0
            assert in_cells(blind, name, prefix).sum() == shown
        # nor does what is expected count the hidden ones
        assert in_cells(blind, "mjj_expected", prefix).sum() == pytest.approx(((grade >= 0) & ~hidden).sum())
    with pytest.raises(ConfigError, match="hidden"):
        blind.data("mjj", REGIONS[1])


@pytest.mark.parametrize("executor", ["futures"])
def test_other_processes_and_chunks_give_the_same(search, models, executor, tmp_path):
    go(tmp_path, model=models, executor=executor, chunksize=70)
    assert_identical(search[1].histograms, ad.load_results(tmp_path).histograms)


def test_a_model_of_jets_is_refused(model_file, tmp_path):
    with pytest.raises(ConfigError, match="dijet_resonance: wnae is a model of jets, and whole events are scored"):
        go(tmp_path, model=model_file)


def test_a_model_of_other_dijets_is_refused(models, tmp_path):
    """Its template holds events that are not selected here, and the mass may be that of other jets."""
    others = models_of(tmp_path, WINDOWS[:1], {"inputs": "baseline"})
    with pytest.raises(
        ConfigError,
        match=r"dijet_resonance: search_800_1200 is of dijets with delta_eta_max null, and 1\.3 is cut on here; "
        "say delta_eta_max=null",
    ):
        go(tmp_path / "r", model=others)
    report = go(tmp_path / "r", "delta_eta_max=null", model=others)
    assert report.outputs["qcd"]["cutflow"]["two jets"]["events"] > 127
    with pytest.raises(ConfigError, match=r"dijets with jet_pt_min 200.0, and 300.0 is cut on here"):
        go(tmp_path / "x", "jet_pt_min=300", model=models)


def test_without_a_model_the_mass_of_all_events_is_filled(rows, tmp_path):
    x, weight, _ = rows
    go(tmp_path, model=None)
    named = ad.load_results(tmp_path).in_regions["qcd"]
    assert list(named["mjj"].axes["region"]) == ["inclusive"]
    assert named["mjj"].sum(flow=True).value == pytest.approx(weight.sum())
    assert named["mjj_expected"].sum(flow=True).value == 0
    assert len(x) == 127
