"""Regions keep the efficiency they are named by, on independent events that count with their cross-sections."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.nanoaod.columns import EVENT_ID
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import SCHEMA_VERSION, ModelCard, read_card, write_card
from coffea_ad.skims.reading import load_skim
from coffea_ad.splits import fold_of

pytestmark = pytest.mark.torch
K, SALT = 3, "toy"


def sample(folder, seed):
    """A large background of narrow rows, and a small one of wide rows that has as many events; some weights are negative."""
    datasets = {}
    for i, (name, width, xsec) in enumerate((("soft", 1.0, 1000.0), ("hard", 3.0, 10.0))):
        rows, rng = toy_rows(16_000, seed + i)
        sign = np.where(rng.random(len(rows)) < 0.05, -1.0, 1.0)
        weight = sign * rng.uniform(0.5, 1.5, len(rows))
        pt = 200 + rng.exponential(150 if name == "soft" else 600, len(rows))
        datasets[name] = {"x": rows * width, "weight": weight, "xsec": xsec, "pt": pt}
    return write_skim(folder, datasets)


@pytest.fixture(scope="module")
def skims(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skims")
    return sample(folder / "one", 1), sample(folder / "other", 11)


def fitted(data, components):
    from coffea_ad import nn

    model = nn.PCA(8, components=components, transform=nn.Standard(8))
    return model, nn.fit(model, data, nn.TrainConfig(epochs=1))[0]


def fold(data):
    return fold_of(SALT, K, *(data.spectators[name] for name in EVENT_ID))


@pytest.fixture(scope="module")
def single(skims, tmp_path_factory):
    from coffea_ad import nn

    def train(weights):
        data = load_skim(skims[0], NAME, weights=weights)
        model, metrics = fitted(data, 3)
        card = nn.make_card(model, data, name=weights, config={}, metrics=metrics, efficiencies=(0.2, 0.1, 0.01))
        return nn.export(model, tmp_path_factory.mktemp("models") / f"{weights}.onnx", card, data.x[:50])

    return train


@pytest.fixture(scope="module")
def folded(skims, tmp_path_factory):
    """Members of very different scores: what one table makes of them is right for none."""
    from coffea_ad import nn
    from coffea_ad.nn.cross_training import CrossTrained

    data = load_skim(skims[0], NAME, weights="flat_pt")
    members = [fitted(data.select(fold(data) != f), 2 * f + 1)[0] for f in range(K)]
    model = CrossTrained(members, SALT)
    card = nn.make_card(model, data, name="folded", config={}, metrics={}, efficiencies=(0.2, 0.1, 0.01))
    return nn.export(model, tmp_path_factory.mktemp("models") / "folded.onnx", card, data.x[:50])


def assert_nominal(card, values, weight):
    for region in card.regions:
        eps, error, _ = regions.efficiency(values, weight, region.thresholds[0])
        theirs = region.error * region.efficiency * np.log(10)
        assert abs(eps - region.efficiency) < 3 * np.hypot(error, theirs), (region.name, eps)


@pytest.mark.parametrize("weights", ["none", "xsec", "flat_pt"])
def test_regions_are_nominal_whatever_weights_the_training_draws_by(skims, single, weights):
    scorer = ad.OnnxScorer(single(weights))
    assert [r.efficiency for r in scorer.card.regions] == [0.2, 0.1, 0.01]
    assert (
        scorer.card.calibration.derived_from == "validation rows of hard, soft, each weighing genWeight · xsec / sumw"
    )
    other = load_skim(skims[1], NAME)
    values = regions.card_logp(scorer.card, scorer(other.x))
    assert_nominal(scorer.card, values, other.event_weight)
    # the toy is no trivial one: counted as rows, the regions keep something else
    eps, error, _ = regions.efficiency(values, np.ones(len(values)), scorer.card.regions[1].thresholds[0])
    assert abs(eps - 0.1) > 30 * error


def test_every_fold_of_a_cross_training_has_its_nominal_efficiency(skims, folded):
    scorer = ad.OnnxScorer(folded)
    card = scorer.card
    assert len(card.calibrations) == K
    assert [r.efficiency for r in card.regions] == [0.2, 0.1, 0.01]
    for skim in skims:  # out-of-fold rows of the training, and independent ones
        data = load_skim(skim, NAME)
        score = scorer(data.x, fold(data))
        values = regions.card_logp(card, score, fold(data))
        assert_nominal(card, values, data.event_weight)
        common = regions.calibrate(score, data.event_weight, "all folds")
        for f in range(K):
            mine = fold(data) == f
            part = card.model_copy(update={"regions": tuple(
                r.model_copy(update={"error": r.error * K**0.5}) for r in card.regions)})  # fmt: skip
            assert_nominal(part, values[mine], data.event_weight[mine])
        shared = [np.average(regions.logp(common, score[fold(data) == f]) >= 1, weights=data.event_weight[fold(data) == f])
                  for f in range(K)]  # fmt: skip
        assert max(shared) > 2 * min(shared)


def test_the_tagger_calibrates_every_jet_by_the_fold_of_its_event(folded):
    tagger = ad.Tagger(folded)
    events = open_events(DATA / "qcd_v15.root")
    order = np.random.default_rng(1).permutation(len(events))
    jets = tagger(events[order].FatJet)
    ids = fold_of(SALT, K, *(ak.to_numpy(events[order][name]) for name in EVENT_ID))
    folds = ak.to_numpy(ak.flatten(ak.broadcast_arrays(ids, jets["pt"])[0]))
    flat = {name: ak.flatten(jets[f"ad_{name}"]) for name in ("score", "logp")}
    score = ak.to_numpy(ak.fill_none(flat["score"], np.nan))
    expected = regions.card_logp(tagger.card, score, folds)
    assert np.isfinite(expected).sum() > 100
    np.testing.assert_array_equal(ak.to_numpy(ak.fill_none(flat["logp"], np.nan)), expected)
    shared = regions.logp(tagger.card.calibrations[0], score)
    assert np.nanmax(np.abs(shared - expected)) > 0.1


def test_new_regions_of_folds_stand_on_the_calibrations_of_the_card(skims, folded):
    from coffea_ad.modelfiles.thresholds import new_regions

    card = read_card(new_regions(folded.read_bytes(), skims[0], efficiencies=[0.3, 0.05, 1e-4]))
    assert card.calibrations == ad.OnnxScorer(folded).card.calibrations
    assert [r.efficiency for r in card.regions] == [0.3, 0.05]
    assert card.regions[0].derived_from == "out-of-fold rows of hard, soft, each weighing genWeight · xsec / sumw"
    (sentence,) = card.provenance["regions_left_out"]
    assert sentence.startswith("region eff0.0001 is not written: it would rest on ")
    assert sentence.endswith("an efficiency of 0.0001 takes about 100000")
    bare = ad.OnnxScorer(folded).card.model_copy(update={"calibrations": (), "regions": ()})
    again = read_card(new_regions(write_card(folded.read_bytes(), bare), skims[0], efficiencies=[0.1]))
    assert len(again.calibrations) == K
    np.testing.assert_allclose(again.calibrations[2].score, card.calibrations[2].score, rtol=1e-5)


def test_regions_and_training_use_the_same_rows(skims, single):
    """Validation rows alone: training rows are no background that the model has not seen, test rows are for evaluation."""
    from coffea_ad.modelfiles.thresholds import new_regions

    path = single("none")
    bare = ad.OnnxScorer(path).card.model_copy(update={"calibrations": (), "regions": ()})
    card = read_card(new_regions(write_card(path.read_bytes(), bare), skims[0], efficiencies=[0.1]))
    trained = ad.OnnxScorer(path).card
    assert card.calibration.derived_from == trained.calibration.derived_from
    assert card.calibration.n_effective == pytest.approx(trained.calibration.n_effective)
    assert card.regions[0].n_effective == pytest.approx(trained.regions[1].n_effective, rel=0.05)


def test_combinations_calibrate_each_fold_by_its_own_table(skims, folded, single):
    from coffea_ad.modelfiles.ranks import combined_logp
    from coffea_ad.nn import combine

    one = single("xsec")
    scorer, both = ad.OnnxScorer(folded), ad.OnnxScorer(combine([folded, one], by="rank"))
    data = load_skim(skims[1], NAME)
    x, folds = data.x[:600], fold(data)[:600]
    plain = ad.OnnxScorer(one)
    for f in range(K):
        mine = folds == f
        expected = combined_logp(
            [scorer.card.calibrations[f], plain.card.calibration], [scorer(x, folds)[mine], plain(x)[mine]]
        )
        np.testing.assert_allclose(both(x, folds)[mine], expected, rtol=1e-5, atol=1e-6)
    calibrated = read_card(combine([folded, one], background=skims[0]))
    assert len(calibrated.calibrations) == K
    verdict = [f"xsec: {sentence}" for sentence in plain.card.provenance["verdict"]]
    assert [sentence for sentence in both.card.provenance["verdict"] if sentence.startswith("xsec: ")] == verdict


def test_folds_are_needed_where_each_has_a_calibration(folded):
    card = ad.OnnxScorer(folded).card
    with pytest.raises(CardMismatch, match="every fold has a calibration of its own; give the fold of every row"):
        regions.card_logp(card, np.zeros(3))
    with pytest.raises(CardMismatch, match="see `calibrations`"):
        card.calibration  # noqa: B018
    with pytest.raises(ValueError, match="2 calibrations; there must be one, or one for every fold"):
        ModelCard.model_validate({**card.model_dump(), "calibrations": card.calibrations[:2]})
    with pytest.raises(ConfigError, match="no calibration can be made of toy, fold 1, since no score is finite"):
        regions.calibrate_folds(np.arange(9.0), np.ones(9), "toy", np.repeat([0, 2, 2], 3), 3)


def test_cards_of_schema_version_1_are_read(model_file):
    """The file was made when a card had one calibration and the version 1."""
    data = model_file.read_bytes()
    assert b'"schema_version":1' in data
    card = read_card(data)
    assert card.schema_version == SCHEMA_VERSION
    assert len(card.calibrations) == 1
    again = read_card(write_card(data, card))
    assert again == card
    rows = np.array(card.golden.inputs["features"], np.float32)
    np.testing.assert_array_equal(ad.OnnxScorer(write_card(data, card))(rows), ad.OnnxScorer(data)(rows))
    assert again.calibration_digest == card.calibration_digest
