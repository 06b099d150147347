"""What a signal has in the regions of a model: acceptance × efficiency, what the region takes alone, cross-sections, the bundle."""

from __future__ import annotations

import json
import shutil

import hist
import numpy as np
import pytest
import uproot
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from toys import DATA, bare_events, copy_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import BadFile, ConfigError
from coffea_ad.histograms import book
from coffea_ad.results.results import Results
from coffea_ad.scoring.card import read_card
from coffea_ad.search.acceptance import (
    RegionAcceptance,
    acceptance,
    counting_observable,
    default_processor,
    region_acceptances,
)
from coffea_ad.search.bundle import check_bundle
from coffea_ad.search.unique import unique_efficiencies, unique_part
from coffea_ad.search.visible import limit_of, read_limits

MODEL, SIGNAL = DATA / "wnae.onnx", DATA / "svj_v15.root"
LOOSE = ["lepton_pt_min=null", "delta_eta_max=null", "met_min=null", "rt_min=null", "dphi_max=null"]
CELLS = {"inclusive": ["0", "1"], "tight": ["1"]}
AXIS = hist.axis.Regular(40, 0, 4, name="x")


def made(score, x, weight, *, selected, signal=True, more=()):
    """Results of events of which some are selected; the tight region is score ≥ 2. More observables: {name: (n,)}."""
    cells = np.where(score >= 2, "1", "0")[selected]
    filled = {}
    for name, values in {"x": x, **dict(more)}.items():
        h = book([hist.axis.Regular(40, 0, 4, name=name)], ["0", "1", "unscored"], ["nominal"])
        good = np.isfinite(values[selected])
        h.fill(cell=cells[good], variation="nominal", weight=weight[selected][good], **{name: values[selected][good]})
        filled[name] = h
    sums = {"sumw": float(weight.sum()), "sumw2": float((weight**2).sum())}
    last = {"events": int(selected.sum()), "weight": float(weight[selected].sum())}
    entry = {"metadata": {"is_mc": True, "xsec": 1.0, "is_signal": signal}, "lumi": 1.0, "events": len(x), **sums,
             "regions": CELLS, "cutflow": {"all": {}, "last": last}}  # fmt: skip
    name = "signal" if signal else "qcd"
    report = {
        "datasets": {name: entry},
        "lumi": 1.0,
        "processor": "toy",
        "outputs": {name: sums},
        "regions": {},
        "models": [],
    }
    return Results({name: filled}, report)


def toy(seed, n=400, negative=0.0):
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2, n) * np.where(rng.random(n) < negative, -1, 1)
    return rng.uniform(0, 4, n), rng.uniform(0, 4, n), weight, rng.random(n) < 0.7


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.1]), st.floats(0.01, 100.0))
def test_acceptance_and_its_error_are_those_of_weighted_events(seed, negative, scale):
    score, x, weight, selected = toy(seed, negative=negative)
    results = made(score, x, scale * weight, selected=selected)
    assert counting_observable(results, "signal") == "x"
    measured = region_acceptances(results, "signal", "x")
    for name, mask in {"inclusive": selected, "tight": selected & (score >= 2)}.items():
        value, error, _ = ad.regions.efficiency(mask.astype(float), weight, 0.5)
        assert measured[name].value == pytest.approx(value)
        assert measured[name].error == pytest.approx(error)


def test_of_equal_weights_the_error_is_binomial_and_nothing_is_no_certainty():
    n, passing = 1000, 30
    score = np.where(np.arange(n) < passing, 3.0, 1.0)
    results = made(score, np.ones(n), np.full(n, 7.0), selected=np.ones(n, bool))
    tight = region_acceptances(results, "signal", "x")["tight"]
    assert (tight.value, tight.n_effective) == (pytest.approx(0.03), pytest.approx(30))
    assert tight.error == pytest.approx(np.sqrt(0.03 * 0.97 / n))
    empty = region_acceptances(made(np.ones(n), np.ones(n), np.ones(n), selected=np.ones(n, bool)), "signal", "x")
    assert (empty["tight"].value, empty["tight"].error) == (0, pytest.approx(1.15 / n))


def test_the_error_covers_the_spread_of_repeated_samples():
    values, errors = [], []
    for seed in range(300):
        score, x, weight, selected = toy(seed)
        tight = region_acceptances(made(score, x, weight, selected=selected), "signal", "x")["tight"]
        values.append(tight.value)
        errors.append(tight.error)
    assert np.std(values) == pytest.approx(np.mean(errors), rel=0.17)  # 300 know a spread to 4 %
    assert np.mean(values) == pytest.approx(0.35, abs=4 * np.std(values) / np.sqrt(300))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
@example(seed=1224, part=0.0)
def test_a_cut_keeps_its_part_of_the_background_and_no_more_of_the_signal_than_there_is(seed, part):
    rng = np.random.default_rng(seed)
    background, region, rest = (rng.poisson(3.0, 12).astype(float) for _ in range(3))
    background[5] += 1
    edges = np.sort(rng.uniform(0, 1, 11))
    cut, taken, alone = unique_part(background, part * background.sum(), edges, region, region + rest)
    assert 0 <= taken <= region.sum() * (1 + 1e-12)
    assert taken <= alone * (1 + 1e-12)
    # of the background itself it takes what it should
    assert unique_part(background, part * background.sum(), edges, background, background)[1] == pytest.approx(
        part * background.sum()
    )
    assert edges[0] <= cut <= edges[-1]


def both(seed, of_background, of_signal):
    """Signal and background results with unique efficiencies; each function makes (score, {observable: values})."""
    out = []
    for n, function, signal in ((4000, of_signal, True), (40_000, of_background, False)):
        rng = np.random.default_rng(seed + signal)
        score, observables = function(rng, n)
        x = observables.pop("x")
        out.append(made(score, x, np.ones(n), selected=np.ones(n, bool), signal=signal, more=observables))
    results, background = out
    regions = region_acceptances(results, "signal", "x")
    return unique_efficiencies(results, background, "signal", "x", regions)


def test_an_observable_that_is_the_score_leaves_nothing_and_one_that_knows_nothing_leaves_nearly_all():
    def background(rng, n):
        score = rng.exponential(0.8, n)
        x = rng.uniform(0, 4, n)
        return score, {"x": x, "same": score, "reverse": 4 - score, "sometimes": np.where(x < 2, np.nan, x)}

    def signal(rng, n):
        score = rng.uniform(0, 4, n)
        x = rng.uniform(0, 4, n)
        return score, {"x": x, "same": score, "reverse": 4 - score, "sometimes": np.full(n, np.nan)}

    tight = both(1, background, signal)["tight"]
    rate = np.exp(-2 / 0.8)
    assert tight.background_efficiency == pytest.approx(rate, rel=0.1)
    assert tight.value == pytest.approx(0.5, abs=0.03)
    assert tight.unique["x"].value == pytest.approx(tight.value * (1 - rate), abs=0.02)
    assert tight.unique["same"].value == pytest.approx(0, abs=0.01)
    assert tight.unique["same"].cut == pytest.approx(2, abs=0.05)
    assert (tight.unique["same"].side, tight.unique["reverse"].side) == ("above", "below")
    assert tight.unique["reverse"].value == pytest.approx(0, abs=0.01)
    assert tight.unique["reverse"].cut == pytest.approx(2, abs=0.05)
    assert tight.unique["sometimes"].value == pytest.approx(tight.value)  # no event of the signal has it
    assert tight.least_unique.observable in ("same", "reverse")
    assert tight.unique["same"].cut_acceptance == pytest.approx(0.5, abs=0.03)


def test_of_a_background_with_too_few_events_nothing_is_said():
    def few(rng, n):
        return np.where(np.arange(n) < 5, 3.0, 1.0), {"x": rng.uniform(0, 4, n)}

    regions = both(2, few, few)
    assert regions["tight"].unique == {}
    assert regions["tight"].least_unique is None
    assert regions["tight"].background_efficiency == pytest.approx(5 / 40_000)


def test_a_limit_is_the_visible_one_over_acceptance_and_the_best_region_is_that_which_expects_most(tmp_path):
    regions = {
        "loose": RegionAcceptance(0.4, 0.04, 90),
        "tight": RegionAcceptance(0.1, 0.02, 25),
        "empty": RegionAcceptance(0.0, 0.1, 0),
    }
    (tmp_path / "limits.json").write_text(json.dumps({
        "loose": {"observed": 0.2, "expected": 0.1}, "tight": {"observed": None, "expected": 0.02},
        "empty": {"observed": 0.1, "expected": 0.1}, "other": {"expected": 1.0},
    }))  # fmt: skip
    limits = limit_of(regions, read_limits(tmp_path), "search")
    assert limits["loose"].observed == pytest.approx(0.5)
    assert limits["tight"].expected == pytest.approx(0.2)
    assert (limits["tight"].observed, limits["tight"].relative_error) == (None, pytest.approx(0.2))
    assert set(limits) == {"loose", "tight"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "this is not valid JSON"),
        ("{}", "this must map regions to their limits"),
        ('{"a": 3}', "region a: there is neither an observed nor an expected limit"),
        ('{"a": {"expected": -1}}', "region a: a limit is -1, but must be a positive number of pb, or null"),
        ('{"a": {"expected": true}}', "region a: a limit is True"),
    ],
)
def test_damaged_limits_are_refused(tmp_path, text, sentence):
    (tmp_path / "limits.json").write_text(text)
    with pytest.raises(BadFile, match=sentence):
        read_limits(tmp_path)


def test_limits_of_no_search_or_of_other_regions_are_refused(tmp_path):
    with pytest.raises(BadFile, match=r"there is no limits\.json; this is not the folder of a search with limits"):
        read_limits(tmp_path)
    with pytest.raises(ConfigError, match="search: its limits are in the regions b, and those of the model are a"):
        limit_of({"a": RegionAcceptance(0.1, 0.1, 1)}, {"b": {"observed": 1.0, "expected": 1.0}}, "search")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Background of two processes, a search that excludes something, and the verb on a signal in two files."""
    folder = tmp_path_factory.mktemp("acceptance")
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 10.0}}
        for n in ("qcd", "ttbar")
    }
    ad.run(
        fileset, "semivisible_jets", model=MODEL, overrides=LOOSE, executor="iterative", output=folder / "background",
        progress=False, lumi=5.0,
    )  # fmt: skip
    (folder / "search").mkdir()
    limits = {"loose_1tag": {"observed": 0.02, "expected": 0.03}, "inclusive": {"observed": None, "expected": 0.5}}
    (folder / "search" / "limits.json").write_text(json.dumps(limits))
    copy_events(SIGNAL, folder / "one.root", stop=60)
    words = ["acceptance", str(MODEL), str(folder / "one.root"), *LOOSE, str(SIGNAL), "-o", str(folder / "out")]
    assert cli.main([*words, "--background", str(folder / "background"), "--search", str(folder / "search")]) == 0
    return folder


def test_the_verb_counts_regions_against_background_and_limits(whole):
    content = json.loads((whole / "out" / "acceptance.json").read_text())
    assert content["events"] == 210
    assert sorted(content["files"].values()) == [60, 150]
    assert content["processor"] == "semivisible_jets"
    regions = content["regions"]
    # all tags of a threshold are the inclusive events
    for region in read_card(MODEL.read_bytes()).regions:
        tags = sum(regions[f"{region.name}_{n}tag"]["value"] for n in range(3))
        assert tags == pytest.approx(regions["inclusive"]["value"])
    n = content["sumw"]
    value = regions["inclusive"]["value"]
    assert regions["inclusive"]["error"] == pytest.approx(np.sqrt(value * (1 - value) / n))
    assert set(regions["inclusive"]["variations"]) == {"jet_scaleUp", "jet_scaleDown"}
    results = ad.load_results(whole / "out" / "results")
    h = results.in_regions["signal"]["mt"][{"region": "loose_1tag", "variation": "nominal"}]
    assert regions["loose_1tag"]["value"] == pytest.approx(h.sum(flow=True).value / n)
    zero = regions["loose_0tag"]
    assert set(zero["unique"]) == {"mt", "mjj", "met", "ht"}
    assert all(0 <= u["value"] <= zero["value"] for u in zero["unique"].values())
    assert zero["unique"][zero["least_unique"]]["value"] == min(u["value"] for u in zero["unique"].values())
    assert 0 < zero["background_efficiency"] < 1
    limit = content["limits"]["loose_1tag"]
    assert limit["expected"] == pytest.approx(0.03 / regions["loose_1tag"]["value"])
    assert content["best_region"] == min(content["limits"], key=lambda name: content["limits"][name]["expected"])


def test_the_bundle_is_complete_and_notices_changes(whole, tmp_path):
    manifest = check_bundle(whole / "out" / "bundle")
    assert set(manifest["files"]) == {
        "model.onnx", "card.json", "regions.json", "configuration.json", "processor.py", "acceptance.json", "acceptance.yaml",
        "limits.json", "cross_sections.yaml",
    }  # fmt: skip
    assert (whole / "out" / "bundle" / "model.onnx").read_bytes() == MODEL.read_bytes()
    table = yaml.safe_load((whole / "out" / "bundle" / "acceptance.yaml").read_text())
    names = [row["value"] for row in table["independent_variables"][0]["values"]]
    content = json.loads((whole / "out" / "acceptance.json").read_text())
    assert names == list(content["regions"])
    values = [row["value"] for row in table["dependent_variables"][0]["values"]]
    assert values == [region["value"] for region in content["regions"].values()]
    cross_sections = yaml.safe_load((whole / "out" / "bundle" / "cross_sections.yaml").read_text())
    assert cross_sections["dependent_variables"][1]["header"]["units"] == "pb"
    copy = tmp_path / "bundle"
    shutil.copytree(whole / "out" / "bundle", copy)
    (copy / "regions.json").write_text("{}")
    with pytest.raises(BadFile, match=r"regions\.json: this is not the file of the manifest"):
        check_bundle(copy)
    (copy / "regions.json").unlink()
    with pytest.raises(BadFile, match=r"regions\.json of its manifest is not there"):
        check_bundle(copy)
    with pytest.raises(BadFile, match=r"there is no manifest\.json; this is no bundle"):
        check_bundle(tmp_path)


def test_background_of_another_selection_or_model_is_refused(whole, tmp_path):
    with pytest.raises(ConfigError, match="delta_eta_max is None there and 1.5 for the signal; select both alike"):
        acceptance(MODEL, [str(SIGNAL)], tmp_path / "a", background=whole / "background")
    report = json.loads((whole / "background" / "report.json").read_text())
    for change, sentence in (
        ({"processor": "rmm_two_body"}, "these results are of rmm_two_body, and the signal's of semivisible_jets"),
        ({"models": [{**report["models"][0], "network": "0"}]}, "these results were made with another model"),
    ):
        other = tmp_path / "other"
        shutil.copytree(whole / "background", other, dirs_exist_ok=True)
        (other / "report.json").write_text(json.dumps(report | change))
        with pytest.raises(ConfigError, match=sentence):
            acceptance(MODEL, [str(SIGNAL)], tmp_path / "a", overrides=LOOSE, background=other)


def alternate(columns):
    columns["genWeight"] = np.where(np.arange(len(columns["genWeight"])) % 2, 1, -1).astype(np.float32)


def test_a_second_run_leaves_nothing_of_the_first_in_the_bundle(whole, tmp_path):
    again = tmp_path / "out"
    shutil.copytree(whole / "out", again)
    assert cli.main(["acceptance", str(MODEL), str(SIGNAL), *LOOSE, "-o", str(again), "--force"]) == 0
    names = {path.name for path in (again / "bundle").iterdir()}
    assert names == {*check_bundle(again / "bundle")["files"], "manifest.json"}
    assert "limits.json" not in names


def test_wrong_files_are_one_sentence(tmp_path, capsys):
    text, empty, bare, unweighted = (tmp_path / f"{n}.root" for n in ("text", "empty", "bare", "unweighted"))
    text.write_text("these are no events" * 50)
    copy_events(SIGNAL, empty, stop=0)
    bare_events(bare, 5)
    copy_events(SIGNAL, unweighted, stop=5, drop=("genWeight",))
    with uproot.recreate(tmp_path / "tree.root") as file:
        file.mktree("Other", {"x": np.float32}).extend({"x": np.ones(3, np.float32)})
    cases = {
        str(tmp_path / "none.root"): "none.root: there is no such file",
        str(text): "text.root: this is not a ROOT file",
        str(empty): "empty.root: there are no events in it",
        str(
            bare
        ): "bare.root: there is no branch genWeight; the acceptance of a signal is a ratio of sums of its weights",
        str(unweighted): "unweighted.root: there is no branch genWeight",
        str(tmp_path / "tree.root"): "tree.root: there is no tree 'Events'; this is not NanoAOD",
    }
    for path, sentence in cases.items():
        assert cli.main(["acceptance", str(MODEL), path, "-o", str(tmp_path / "out")]) == 1
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
        assert len(said) == 1, path
        assert sentence in said[0]
    cancelling = copy_events(SIGNAL, tmp_path / "zero.root", stop=10, change=alternate)
    assert cli.main(["acceptance", str(MODEL), str(cancelling), "-o", str(tmp_path / "zero")]) == 1
    assert (
        "error: dataset signal: the weights of all events sum to 0, and nothing can be normalised"
        in capsys.readouterr().err
    )
    assert cli.main(["acceptance", str(tmp_path / "m.onnx"), str(SIGNAL), "-o", str(tmp_path / "out")]) == 1
    assert "m.onnx" in capsys.readouterr().err
    assert cli.main(["acceptance", str(MODEL), "met_min=3", "-o", str(tmp_path / "out")]) == 1
    assert "acceptance needs a file of the signal" in capsys.readouterr().err


def test_a_model_of_another_level_is_refused_and_results_are_not_overwritten(tmp_path, capsys):
    words = ["acceptance", str(MODEL), str(SIGNAL), "-o", str(tmp_path / "out"), "--processor"]
    assert cli.main([*words, "rmm_two_body"]) == 1
    assert "error: rmm_two_body: wnae" in capsys.readouterr().err
    assert cli.main([*words, "pca"]) == 1
    assert "this is a training recipe" in capsys.readouterr().err
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "acceptance.json").write_text("{}")
    assert cli.main([*words, "semivisible_jets"]) == 1
    assert "there are results in it already (acceptance.json)" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.parametrize(("feature", "name"), [("dijet", "dijet_resonance"), ("rmm", "rmm_two_body")])
def test_models_of_events_count_in_their_processor(tmp_path, feature, name):
    from test_windows import model

    (tmp_path / "m.onnx").write_bytes(model(3, feature=feature))
    more = ["leading_lepton_pt_min=null" if feature == "rmm" else "delta_eta_max=null"]
    measured = acceptance(tmp_path / "m.onnx", [str(SIGNAL)], tmp_path / "out", overrides=more, progress=False)
    assert measured.processor == name
    tight, loose, inclusive = (measured.regions[region].value for region in ("tight", "loose", "inclusive"))
    assert 0 <= tight <= loose <= inclusive <= 1
    last = list(measured.cutflow.values())[-1]
    assert inclusive == pytest.approx(last["weight"] / measured.sumw)  # all of them have a score
    assert inclusive > 0.3


def test_events_that_were_left_out_before_are_noted(tmp_path):
    part = tmp_path / "part.root"
    copy_events(SIGNAL, part, stop=40, runs=True)  # its Runs tree counts 150
    measured = acceptance(MODEL, [str(part)], tmp_path / "out", overrides=LOOSE, progress=False)
    assert "40 of 150 generated events are in the file; its acceptance is that of those that are" in measured.notes[0]


def test_each_model_has_its_processor():
    card = read_card(MODEL.read_bytes())
    assert default_processor(card) == "semivisible_jets"
    feature = card.inputs[0].features[0]

    def of(name):
        inputs = (card.inputs[0].model_copy(update={"features": (feature.model_copy(update={"name": name}),)}),)
        return default_processor(card.model_copy(update={"level": "event", "inputs": inputs}))

    assert (of("dijet"), of("rmm"), of("rmm_zones")) == ("dijet_resonance", "rmm_two_body", "rmm_two_body")
    assert of("event_objects") == "event_anomaly"
