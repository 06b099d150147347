"""What a row counts in a calibration, whatever a training draws by."""

from __future__ import annotations

import numpy as np
import pytest
from toy_skims import NAME, toy_rows, write_skim

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.filesets.metadata import settled_metadata
from coffea_ad.scoring import regions
from coffea_ad.skims.reading import load_skim
from coffea_ad.weights import cross_section, has_cross_section, is_simulation, normalisation


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    rows, rng = toy_rows(2000)
    signs = np.where(rng.random(1000) < 0.2, -1.0, 1.0)
    return write_skim(
        tmp_path_factory.mktemp("skim"),
        {
            "qcd": {"x": rows[:1000], "weight": signs * 3, "xsec": 100.0, "pt": rng.exponential(200, 1000) + 200},
            "ttbar": {"x": rows[1000:], "weight": np.full(1000, 2.0), "sumw": 4000.0, "cross_section": 5.0},
        },
    )


@pytest.mark.parametrize("weights", ["none", "xsec", "flat_pt"])
def test_event_weights_are_cross_sections_with_signs_whatever_the_training_draws_by(skim, weights):
    data = load_skim(skim, NAME, weights=weights)
    raw, qcd = data.spectators["genWeight"], data.dataset == "qcd"
    np.testing.assert_allclose(data.event_weight[qcd], raw[qcd] * 100 / raw[qcd].sum())
    np.testing.assert_allclose(data.event_weight[~qcd], 2.0 * 5 / 4000)
    assert (data.event_weight < 0).sum() == (raw < 0).sum() > 100
    assert data.event_weight.sum() == pytest.approx(102.5)
    assert data.provenance["total_weight"] == pytest.approx(102.5)
    assert data.provenance["event_weight"] == "genWeight · xsec / sumw"
    part = data.splits("validation")
    np.testing.assert_array_equal(part.event_weight, data.event_weight[data.split == "validation"])


def test_rows_of_data_count_one(tmp_path):
    rows, _ = toy_rows(100)
    data = load_skim(write_skim(tmp_path, {"met": {"x": rows, "weight": np.ones(100), "is_mc": False}}), NAME)
    assert (data.event_weight == 1).all()
    assert data.provenance["event_weight"] == "1 (data)"


def test_without_a_common_scale_the_provenance_says_so(tmp_path):
    rows, _ = toy_rows(100)
    one = {"x": rows, "weight": np.full(100, 7.0)}
    folder = write_skim(tmp_path / "a", {"qcd": one, "ttbar": {**one, "xsec": 2.0}, "met": {**one, "is_mc": False}})
    alone = load_skim(folder, NAME, datasets=["qcd"], weights="none")
    np.testing.assert_allclose(alone.event_weight, 0.01)
    assert alone.provenance["event_weight"] == "genWeight / sumw"
    for datasets, why in ((["qcd", "ttbar"], "no cross-section of qcd"), (["met", "ttbar"], "no common weights")):
        data = load_skim(folder, NAME, datasets=datasets, weights="none")
        assert (data.event_weight == 1).all()
        assert why in data.provenance["event_weight"]


@pytest.mark.parametrize("weights", ["none", "xsec", "flat_pt"])
@pytest.mark.parametrize("weight", [[0.0, 0.0], [1.0, -1.0], [0.1, -0.1 + 1e-17]])
def test_a_dataset_whose_generator_weights_cancel_is_refused_by_name(tmp_path, weights, weight):
    rows, _ = toy_rows(100)
    fine = {"x": rows, "weight": np.ones(100), "xsec": 1.0}
    folder = write_skim(tmp_path, {"qcd": fine, "odd": {**fine, "weight": np.tile(weight, 50)}})
    with pytest.raises(SkimError, match="dataset odd: its generator weights sum to .*, so it cannot be normalised"):
        load_skim(folder, NAME, weights=weights)
    assert len(load_skim(folder, NAME, datasets=["qcd"], weights=weights).x) == 100


def test_an_efficiency_rests_on_the_smaller_of_two_effective_numbers():
    heavy = np.r_[np.ones(1000), np.full(10, 100.0)]
    light_pass, heavy_pass = np.arange(1010) < 1000, np.arange(1010) >= 1000
    n_all = heavy.sum() ** 2 / (heavy**2).sum()
    assert regions.n_effective_passing(heavy, light_pass) == pytest.approx(0.5 * n_all)
    assert regions.n_effective_passing(heavy, heavy_pass) == pytest.approx(10)
    assert regions.n_effective_passing(np.ones(100), np.arange(100) < 7) == pytest.approx(7)
    signed = np.r_[np.ones(90), -np.ones(10)]
    assert regions.n_effective_passing(signed, np.arange(100) >= 80) == pytest.approx(0.0)
    assert regions.n_effective_passing(signed, np.arange(100) >= 70) == pytest.approx(10**2 / 30)
    assert regions.n_effective_passing(np.ones(5), np.zeros(5, bool)) == 0
    score = np.r_[np.full(1000, 2.0), np.full(10, 1.0)]
    assert regions.efficiency(score, heavy, 2.0)[2] == pytest.approx(0.5 * n_all)


def test_metadata_are_read_under_both_names():
    for key in ("is_mc", "isMC"):
        assert is_simulation({key: False}) is False
        assert is_simulation({key: 1}) is True
        assert normalisation("met", {key: False}, sumw=3.0, lumi=1.0) == 1.0
        assert settled_metadata("met", {key: 0, "year": 1}) == {key: False, "is_mc": False, "year": 1}
    assert is_simulation({}) is None
    for key in ("xsec", "cross_section"):
        assert has_cross_section({key: 2.0})
        assert settled_metadata("qcd", {key: "2.5"})["xsec"] == cross_section("qcd", {key: "2.5"}) == 2.5
    assert not has_cross_section({"year": 1})
    assert settled_metadata("qcd", {}) == {}


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"is_mc": True, "isMC": False}, "dataset qcd: is_mc and isMC contradict each other"),
        ({"xsec": 1.0, "cross_section": 2.0}, "dataset qcd: xsec and cross_section contradict each other"),
        ({"isMC": "no"}, "dataset qcd: isMC is 'no', but must be true or false"),
        ({"cross_section": -1}, "dataset qcd: cross_section is -1, but must be a positive number of pb"),
    ],
)
def test_metadata_that_contradict_themselves_are_refused(metadata, match):
    with pytest.raises(ConfigError, match=match):
        settled_metadata("qcd", metadata)


def test_rows_that_all_weigh_nothing_are_refused(tmp_path):
    rows, _ = toy_rows(100)
    folder = write_skim(tmp_path, {"qcd": {"x": rows, "weight": np.zeros(100), "sumw": 5.0, "xsec": 1.0}})
    with pytest.raises(SkimError, match="all rows weigh 0"):
        load_skim(folder, NAME)


def test_a_visible_cross_section_needs_weights_that_are_cross_sections(tmp_path, model_file):
    """Of a model that was trained on rows without weights, and a skim without cross-sections."""
    from coffea_ad.modelfiles.thresholds import new_regions
    from coffea_ad.scoring.card import read_card, write_card

    rows, _ = toy_rows(400)
    folder = write_skim(tmp_path, {"qcd": {"x": rows, "weight": np.full(400, 7.0)}})
    data = model_file.read_bytes()
    card = read_card(data)
    unweighted = card.model_copy(
        update={"calibration": None, "regions": (), "provenance": {"rows": {"qcd": 400}, "weights": "none"}}
    )
    sealed = write_card(data, unweighted)
    with pytest.raises(ConfigError, match="no visible cross-section, since a row weighs genWeight / sumw"):
        new_regions(sealed, folder, visible_cross_sections=[1.0])
    moved = read_card(new_regions(sealed, folder, efficiencies=[0.3]))
    assert moved.calibration.derived_from == "validation rows of qcd, each weighing genWeight / sumw"
