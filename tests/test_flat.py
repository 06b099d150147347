"""Thresholds that follow a spectator: the background efficiency does not depend on it, which other rows confirm."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_windows import model, saved, window_skim
from toy_skims import NAME, toy_rows, write_skim

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.evaluation.flatness import equal_bins, flatness
from coffea_ad.modelfiles.flat import Rows, flat_edges, flat_regions, flat_thresholds, levelled
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.scoring.card import read_card
from coffea_ad.scoring.specs import RegionSpec


def dijets(n, seed, slope=0.3, signs=0.0):
    """ad_logp of which the mean grows with a falling mass; weights of either sign."""
    rng = np.random.default_rng(seed)
    mass = 1000 + 400 * rng.exponential(size=n)
    logp = rng.exponential(0.43, n) + slope * np.log(mass / 1000) * (1 + np.log(mass / 1000))
    weight = rng.uniform(0.5, 1.5, n) * np.where(rng.random(n) < signs, -1, 1)
    return logp, weight, mass


def constant(logp, weight, eps):
    order = np.argsort(-logp)
    threshold = logp[order][np.searchsorted(np.cumsum(weight[order]) / weight.sum(), eps)]
    return RegionSpec(name="a", efficiency=eps, thresholds=(threshold,), error=0, n_effective=99, derived_from="toy")


def derived(rows, eps=0.1):
    """The region, and the uncertainty of its thresholds."""
    edges = flat_edges(rows[2], rows[1])
    flat = flat_thresholds(*rows, eps, edges)
    region = RegionSpec(
        name="a", efficiency=eps, thresholds=tuple(flat.thresholds), error=flat.errors.max(), n_effective=99,
        derived_from="toy", spectator="mjj", edges=tuple(edges),
    )  # fmt: skip
    return region, flat


@pytest.mark.parametrize(("eps", "signs"), [(0.1, 0.0), (0.01, 0.0), (0.1, 0.15)])
def test_efficiency_is_flat_on_rows_that_did_not_derive_the_thresholds(eps, signs):
    rows, other = (dijets(20_000, seed, slope=0.8, signs=signs) for seed in (1, 2))
    region, flat = derived(rows, eps)
    assert flat.achieved == pytest.approx(eps, rel=0.01)
    measured = flatness(*other, region, uncertainty=flat.uncertainty)
    assert measured.p_value > 0.01
    assert abs(measured.mean - eps) < 4 * eps * np.hypot(1, 1) / np.sqrt(flat.n_effective)
    sculpted = flatness(*other, constant(*rows[:2], eps), name="mjj")
    assert sculpted.p_value < 1e-6
    assert str(sculpted).startswith("not flat in mjj: χ² = ")
    assert str(measured).startswith("flat within errors in mjj: χ² = ")


def test_thresholds_scatter_as_their_errors_say():
    fits = [derived(dijets(6000, seed)) for seed in range(60)]
    at = np.array([1050.0, 1200.0, 1500.0, 2000.0])
    tables = [(np.digitize(at, region.edges), region, flat) for region, flat in fits]
    values = np.array([np.asarray(region.thresholds)[place] for place, region, _ in tables])
    errors = np.array([flat.errors[place] for place, _, flat in tables])
    ratio = values.std(axis=0, ddof=1) / np.sqrt(np.square(errors).mean(axis=0))
    assert np.all((ratio > 0.7) & (ratio < 1.45)), ratio  # 60 fits know a spread to 9 %


def test_chi2_of_flatness_has_its_distribution():
    """Thresholds that are known exactly, and such that were derived: χ² is 7 of 8 bins on average, known to √(14/80)."""
    exact, fitted = [], []
    for seed in range(80):
        rows = dijets(4000, seed, slope=0.0)
        exact.append(flatness(*rows, constant(*dijets(4000, 1000 + seed, slope=0.0)[:2], 0.1), name="m", bins=8).chi2)
        region, flat = derived(dijets(4000, 2000 + seed, slope=0.2))
        other = dijets(4000, 4000 + seed, slope=0.2)
        fitted.append(flatness(*other, region, bins=8, uncertainty=flat.uncertainty).chi2)
    assert np.mean(exact) == pytest.approx(7, abs=4 * np.sqrt(14 / 80))
    assert np.mean(fitted) == pytest.approx(7, abs=4 * np.sqrt(14 / 80))


def test_without_the_uncertainty_of_few_rows_chi2_is_larger():
    region, flat = derived(dijets(2000, 3))
    other = dijets(40_000, 4)
    assert flatness(*other, region, bins=8).chi2 > flatness(*other, region, bins=8, uncertainty=flat.uncertainty).chi2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0), st.sampled_from(["log", "cube", "minus"]))
def test_units_of_weights_and_of_the_spectator_do_not_matter(seed, scale, how):
    logp, weight, mass = dijets(1500, seed)
    change = {"log": np.log, "cube": lambda m: m**3, "minus": lambda m: m - 1000}[how]
    edges = flat_edges(mass, weight)
    one = flat_thresholds(logp, weight, mass, 0.1, edges)
    other = flat_thresholds(logp, scale * weight, change(mass), 0.1, flat_edges(change(mass), scale * weight))
    assert np.allclose(change(edges), flat_edges(change(mass), scale * weight))
    assert np.allclose(one.thresholds, other.thresholds, atol=1e-5)
    assert np.allclose(one.errors, other.errors, rtol=1e-3)


def test_a_score_that_ignores_the_spectator_gets_nearly_one_threshold():
    region, flat = derived(dijets(20_000, 5, slope=0.0))
    assert flat.coefficients <= 3
    assert np.ptp(region.thresholds) < 6 * flat.errors.max()


def test_a_spectator_of_whole_numbers_has_bins_between_them():
    logp, weight, mass = dijets(5000, 6)
    jets = np.floor(mass / 400)
    edges = flat_edges(jets, weight)
    assert set(edges) <= set(np.unique(jets))
    flat = flat_thresholds(logp, weight, jets, 0.1, edges)
    region = RegionSpec(name="a", efficiency=0.1, thresholds=tuple(flat.thresholds), error=0, n_effective=9, derived_from="t",
                        spectator="n", edges=tuple(edges))  # fmt: skip
    assert flatness(logp, weight, jets, region, uncertainty=flat.uncertainty).p_value > 1e-3


def test_what_makes_no_region_is_said():
    logp, weight, mass = dijets(3000, 7)
    nothing = Rows(*np.zeros((3, 0)))
    _, left_out, _ = flat_regions(Rows(logp, weight, mass), nothing, [("medium", 0.01)], "mjj", "toy")
    assert left_out[0].startswith("region medium is not written: it would rest on 2")
    assert left_out[0].endswith("effective background objects, and a threshold that follows mjj takes 40")
    steep = Rows(*dijets(3000, 7, slope=3.0))
    (reason,) = flat_regions(steep, nothing, [("eff0.02", 0.02)], "mjj", "toy")[1]
    assert "too few for as many coefficients as its threshold in mjj needs to follow" in reason
    # beyond the end of a calibration all scores are one number
    ended = Rows(np.minimum(dijets(3000, 7, slope=0.8)[0], 1.2), weight, mass)
    (reason,) = flat_regions(ended, nothing, [("loose", 0.1)], "mjj", "toy")[1]
    assert re.search(r"its threshold in mjj would be .*, beyond the largest ad_logp of the background, 1\.20", reason)
    with pytest.raises(ConfigError, match="thresholds cannot follow mjj: 2768 effective rows with one value"):
        flat_regions(Rows(logp, weight, np.full(3000, 7.0)), nothing, [("loose", 0.1)], "mjj", "toy")
    written, _, about = flat_regions(Rows(logp, weight, mass), nothing, [("loose", 0.1)], "mjj", "toy")
    assert len(written) == 1
    assert about["loose"]["check"] == "there are no rows that did not derive it"
    with pytest.raises(
        ConfigError, match="region a: .* effective rows pass its thresholds, and flatness in m takes two"
    ):
        flatness(logp[:100], weight[:100], mass[:100], constant(logp, weight, 0.1), name="m")


def test_regions_are_nested_and_undefined_rows_count_nowhere():
    logp, weight, mass = dijets(30_000, 8)
    mass[:500], logp[500:900] = np.nan, np.nan
    named = [("loose", 0.1), ("eff0.02", 0.02), ("medium", 0.01)]
    written, left_out, about = flat_regions(Rows(logp, weight, mass), Rows(*dijets(9000, 9)), named, "mjj", "toy")
    assert not left_out
    for loose, tight in itertools.pairwise(written):
        assert np.all(np.array(tight.thresholds) >= loose.thresholds)
    for region in written:
        assert about[region.name]["check"].endswith("on rows that did not derive it")
        assert region.error == max(about[region.name]["errors"])
        assert len(about[region.name]["errors"]) == len(region.thresholds)


def test_bins_of_equal_weight():
    rng = np.random.default_rng(1)
    values, weight = rng.exponential(size=5000), rng.uniform(0.1, 2, 5000)
    edges = equal_bins(values, weight, 7)
    share = np.bincount(np.digitize(values, edges), weight) / weight.sum()
    assert share == pytest.approx(np.full(7, 1 / 7), abs=1e-3)


@pytest.mark.torch
def test_the_verb_writes_a_flat_card_and_says_what_other_rows_say(tmp_path, capsys):
    skims = window_skim(tmp_path / "skims", 20_000)
    path = saved(tmp_path, model(4, calibrations=(), regions=()))[0]
    words = ["regions", str(path), "--from", str(skims), "--efficiency", "0.1", "0.03", "--flat-in", "mjj"]
    assert cli.main([*words, "-o", str(tmp_path / "f.onnx")]) == 0
    said = capsys.readouterr().out
    assert "region loose: a threshold of " in said
    assert "flat within errors in mjj: χ² = " in said
    card = ad.OnnxScorer(tmp_path / "f.onnx").card
    assert [r.name for r in card.regions] == ["loose", "eff0.03"]
    assert card.regions[0].spectator == "mjj"
    assert card.regions[0].derived_from.startswith("all rows of qcd, each weighing")
    assert card.regions[0].derived_from.endswith("without test rows")
    about = card.provenance["flat_in"]
    assert about["spectator"] == "mjj"
    assert about["regions"]["loose"]["p_value"] > 0.01
    assert cli.main(["card", str(tmp_path / "f.onnx")]) == 0
    assert "flat within errors in" in " ".join(capsys.readouterr().out.split())
    # and thresholds without bins forget it
    plain = new_regions((tmp_path / "f.onnx").read_bytes(), skims, efficiencies=(0.1,))
    assert "flat_in" not in read_card(plain).provenance


@pytest.mark.torch
def test_of_a_trained_model_validation_rows_derive_and_test_rows_check(tmp_path):
    x, rng = toy_rows(24_000)
    x[:, 0] += np.linspace(0, 3, len(x), dtype=np.float32)
    pt = np.linspace(200, 1000, len(x)) + rng.normal(size=len(x))
    skims = write_skim(tmp_path / "skims", {"qcd": {"x": x, "weight": np.ones(len(x)), "pt": pt, "xsec": 1.0}})
    trained = model(4, calibrations=(), regions=(), provenance={"rows": {"qcd": len(x)}})
    card = read_card(new_regions(trained, skims, efficiencies=(0.1,), flat_in="pt"))
    assert card.regions[0].derived_from.startswith("validation rows of qcd, each weighing")
    about = card.provenance["flat_in"]["regions"]["loose"]
    assert about["p_value"] > 0.001
    assert "on rows that did not derive it" in about["check"]
    # efficiency in bins of the jets' pT, of all rows
    scorer = ad.OnnxScorer(trained)
    calibration = card.calibration
    logp = np.interp(np.asarray(scorer(x)), calibration.score, calibration.logp)
    region = card.regions[0]
    passed = logp >= np.asarray(region.thresholds)[np.digitize(pt.astype(np.float32), region.edges)]
    thirds = [passed[part].mean() for part in np.array_split(np.arange(len(x)), 3)]
    assert thirds == pytest.approx([0.1] * 3, abs=0.02)


@pytest.mark.torch
def test_what_cannot_be_flat_is_refused_in_a_sentence(tmp_path):
    skims = window_skim(tmp_path / "skims", 1000)
    with pytest.raises(SkimError, match="toy4 needs the spectator 'mj', but unknown column 'mj'; did you mean 'mjj'"):
        new_regions(model(4), skims, efficiencies=(0.1,), flat_in="mj")
    with pytest.raises(
        ConfigError, match="give either the bins of mjj, or the spectator mjj to make bins of, not both"
    ):
        new_regions(model(4), skims, efficiencies=(0.1,), flat_in="mjj", bins=("mjj", [1500.0]))
    with pytest.raises(ConfigError, match="region medium is not written: it would rest on"):
        new_regions(model(4, calibrations=(), regions=()), skims, efficiencies=(0.01,), flat_in="mjj")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "histograms.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match="are derived from a skim, not from results"):
        new_regions(model(4), tmp_path / "r", efficiencies=(0.1,), flat_in="mjj")
    assert NAME == "jet_substructure"


def biased(n, seed):
    """Rows that were made equally often at all masses, with weights that fall by a factor of 400."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(1000, 4000, n)
    logp = rng.exponential(0.43, n) + 1.2 * np.log(mass / 1000) ** 2
    return logp, np.exp(-(mass - 1000) / 500), mass


def test_rows_that_were_made_more_often_where_they_are_rare_level_the_efficiency_there():
    rows, other = (biased(20_000, seed) for seed in (1, 2))
    (region,), _, about = flat_regions(Rows(*rows), Rows(*other), [("a", 0.1)], "mjj", "toy")
    assert about["a"]["p_value"] > 0.01
    assert about["a"]["edges"][-1] > 3500  # measured up to where the rows end
    passes = other[0] >= np.asarray(region.thresholds)[np.digitize(other[2], region.edges)]
    for low, high in itertools.pairwise((1000, 2000, 3000, 4000)):
        inside = (other[2] > low) & (other[2] < high)
        assert passes[inside].mean() == pytest.approx(0.1, abs=0.015)  # 3σ of 6700 rows and as many that derived it
    assert np.average(passes, weights=other[1]) == pytest.approx(0.1, abs=0.015)


def test_weights_are_levelled_by_a_function_of_the_spectator_alone():
    _, weight, mass = biased(5000, 3)
    rng = np.random.default_rng(4)
    part = rng.uniform(0.5, 2.0, 5000) * np.where(rng.random(5000) < 0.1, -1, 1)
    ratio = levelled(weight * part, mass) / part
    order = np.argsort(mass)
    assert np.std(np.log(ratio)) < 0.1  # by less than the numbers of rows in bins explain
    assert np.std(np.log(weight)) > 1.5
    assert np.abs(np.diff(np.log(ratio[order]))).max() < 0.05
