"""Combinations: the graph against the members' own scores, what they order, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
onnx = pytest.importorskip("onnx", reason="not installed: onnx")

from test_nn_laws import quick, toy_skim
from toys import DATA

import coffea_ad as ad
from coffea_ad import cli, nn
from coffea_ad.errors import CardMismatch, ConfigError
from coffea_ad.modelfiles.ranks import combined_logp, extended_logp
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import write_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Calibration
from coffea_ad.scoring.tagger import Tagger

RULES = ["rank", "mean-logp", "max"]


@pytest.fixture(scope="module")
def data():
    return toy_skim()


def written(model, data, path):
    history = nn.fit(model, data, quick())
    card = nn.make_card(model, data, name=path.stem, config={}, metrics=history[-1])
    return nn.export(model, path, card, data.x[:200])


@pytest.fixture(scope="module")
def members(data, tmp_path_factory):
    """Three models on the same rows: scores of very different size and shape."""
    folder = tmp_path_factory.mktemp("members")
    torch.manual_seed(1)
    return [
        written(nn.AE(8, transform=nn.QuantileNormal(8)), data, folder / "ae.onnx"),
        written(nn.PCA(8, components=8, score="mahalanobis", transform=nn.Standard(8)), data, folder / "far.onnx"),
        written(nn.KernelPCA(8, landmarks=60, transform=nn.Log(8)), data, folder / "kernel.onnx"),
    ]


@pytest.fixture(scope="module", params=RULES)
def combined(request, members):
    return request.param, OnnxScorer(nn.combine(members, by=request.param))


def by_hand(rule, logps):
    if rule == "rank":
        return -np.log10(np.mean(10.0**-logps, axis=0))
    return logps.mean(axis=0) if rule == "mean-logp" else logps.max(axis=0)


def test_the_file_gives_what_the_members_and_their_calibrations_give(combined, members, data):
    """Within the calibrations, by `regions.logp` itself; at 0, 1, 2 and all rows, and with undefined ones."""
    rule, scorer = combined
    x = data.x.copy()
    x[3, 2], x[8, 0] = np.nan, np.inf
    scorers = [OnnxScorer(path) for path in members]
    scores = np.stack([s(x) for s in scorers])
    inside = np.array([s <= m.card.calibration.score[-1] for s, m in zip(scores, scorers, strict=True)]).all(axis=0)
    logps = np.stack([regions.logp(m.card.calibration, s) for s, m in zip(scores, scorers, strict=True)])
    expected = by_hand(rule, logps.astype(np.float64))
    assert inside.sum() > 2900
    assert np.isnan(expected[[3, 8]]).all()
    for n in (0, 1, 2, len(x)):
        got = scorer(x[:n])
        assert got.shape == (n,)
        np.testing.assert_allclose(got[inside[:n]], expected[:n][inside[:n]], rtol=1e-5, atol=1e-6)
        assert np.isnan(got).tolist() == np.isnan(scores[:, :n]).any(axis=0).tolist()


def test_the_file_gives_it_beyond_the_calibrations_too(combined, members, data):
    rule, scorer = combined
    scorers = [OnnxScorer(path) for path in members]
    x = (data.x * np.geomspace(1, 1e4, len(data.x))[:, None]).astype(np.float32)
    expected = combined_logp([m.card.calibration for m in scorers], [m(x) for m in scorers], rule)
    assert (expected > max(m.card.calibration.max_logp for m in scorers)).any()
    np.testing.assert_allclose(scorer(x), expected, rtol=1e-5, atol=1e-6)


def test_the_graph_itself_knows_what_is_undefined(combined, data):
    _, scorer = combined
    x = data.x[:5].copy()
    x[1, 0], x[2, 7] = np.nan, -np.inf
    raw = scorer.session.run(["score"], {"features": x})[0]
    assert np.isnan(raw).tolist() == [False, True, True, False, False]
    assert scorer.session.run(["score"], {"features": x[:0]})[0].shape == (0,)


def test_the_rank_average_orders_rows_as_the_mean_of_ranks_in_the_background_does(members, data):
    scorer, scorers = OnnxScorer(nn.combine(members)), [OnnxScorer(path) for path in members]
    scores = [m(data.x) for m in scorers]
    inside = np.all([s < m.card.calibration.score[-2] for s, m in zip(scores, scorers, strict=True)], axis=0)
    logps = [regions.logp(m.card.calibration, s)[inside] for s, m in zip(scores, scorers, strict=True)]
    order = np.argsort(np.mean([1 - 10.0 ** -v.astype(np.float64) for v in logps], axis=0), kind="stable")
    in_order = scorer(data.x[inside])[order]
    assert (np.diff(in_order) >= -1e-5).all()
    assert np.ptp(in_order) > 1


def test_the_order_of_the_members_does_not_matter(combined, members, data):
    rule, scorer = combined
    other = OnnxScorer(nn.combine(members[::-1], by=rule))
    np.testing.assert_allclose(other(data.x), scorer(data.x), rtol=1e-5, atol=1e-6)


def test_the_card_says_who_the_members_are(combined, members):
    rule, scorer = combined
    card = scorer.card
    assert card.method == {"rank": "rank average", "mean-logp": "mean logp", "max": "largest logp"}[rule]
    assert [m["digest"] for m in card.provenance["members"]] == [OnnxScorer(path).digest for path in members]
    assert [m["file"] for m in card.provenance["members"]] == ["ae.onnx", "far.onnx", "kernel.onnx"]
    assert card.inputs == OnnxScorer(members[0]).card.inputs
    assert len(card.golden.scores) == 24
    assert card.calibration is None
    assert card.provenance["versions"]["onnx"] == onnx.__version__
    card.check()


# Ranks


def table(seed=0, n=3000, scale=1.0):
    rng = np.random.default_rng(seed)
    return regions.calibrate(scale * rng.exponential(size=n), rng.exponential(size=n), "toy")


@settings(deadline=None)
@given(st.floats(0, 1e12), st.floats(0, 1e12), st.integers(0, 5))
def test_a_larger_score_never_has_a_smaller_rank(a, b, seed):
    low, high = extended_logp(table(seed), sorted([a, b]))
    assert low <= high
    assert low >= 0


def test_inside_the_calibration_it_is_ad_logp_and_beyond_anomalies_stay_apart():
    calibration = table()
    s = np.linspace(-1, calibration.score[-2], 5000).astype(np.float32)
    np.testing.assert_allclose(extended_logp(calibration, s), regions.logp(calibration, s), rtol=1e-6, atol=1e-7)
    far = extended_logp(calibration, calibration.score[-1] * np.array([1.01, 1.1, 2, 5]))
    assert (np.diff(far) > 0.01).all()
    assert far[0] >= calibration.logp[-1]


def test_a_score_with_exponential_tail_goes_on_with_its_slope():
    """For exponential background ℓ = s log₁₀ e, exactly; far beyond the sample too."""
    s = -np.log(np.linspace(1, 1e-5, 100_000))
    calibration = regions.calibrate(s, np.ones(len(s)), "toy")
    assert extended_logp(calibration, [30.0])[0] == pytest.approx(30 / np.log(10), rel=0.05)


def test_one_heavy_row_at_the_end_does_not_make_the_tail_a_wall():
    s = np.arange(1000.0)
    weight = np.r_[np.ones(999), 30.0]
    calibration = regions.calibrate(s, weight, "toy")
    assert calibration.logp[-1] - calibration.logp[-2] > 0.9  # the step above the last row, of no width
    assert extended_logp(calibration, [1100.0])[0] < calibration.logp[-1] + 1


def test_scores_that_are_extreme_are_still_numbers():
    calibration = table()
    scores = [np.array([3e38, -3e38, 0.0]), np.array([3e38, 3e38, 3e38])]
    for rule in RULES:
        assert np.isfinite(combined_logp([calibration, calibration], scores, rule)).all()
    assert np.isnan(combined_logp([calibration] * 2, [[np.nan, 1.0], [1.0, np.inf]], "max")).all()


def test_a_calibration_whose_largest_score_is_zero(members, data, tmp_path):
    """The next number above 0 is so near that the step has no slope in any precision."""
    negative = Calibration(
        score=(-2.0, -1.0, 0.0, 5e-324), logp=(0.0, 1.0, 2.0, 3.0), n_effective=999, derived_from="toy"
    )
    source = OnnxScorer(members[0])
    moved = tmp_path / "moved.onnx"
    moved.write_bytes(write_card(source.data, source.card.model_copy(update={"calibration": negative, "regions": ()})))
    got = OnnxScorer(nn.combine([moved, members[1]], by="max"))(data.x)
    assert np.isfinite(got).all()
    assert (got >= 3).all()


# With a background, and with folds


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    fileset = {"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    folder = tmp_path_factory.mktemp("skim")
    ad.run(fileset, "skim_jets", config="skim_jets.yaml", executor="iterative", output=folder)
    return folder


def test_a_background_gives_calibration_and_regions(members, skim, tmp_path, capsys):
    output = tmp_path / "both.onnx"
    words = ["combine", *map(str, members), "-o", str(output), "--background", str(skim), "--datasets", "qcd"]
    assert cli.main([*words, "--by", "mean-logp", "--efficiency", "0.2", "0.5"]) == 0
    card = Tagger(output).card
    assert (card.name, card.method) == ("both", "mean logp")
    assert [r.efficiency for r in card.regions] == [0.5]  # the validation rows of this small skim carry no more
    assert "note: region eff0.2 is not written: it would rest on " in capsys.readouterr().out
    assert cli.main(["card", str(output)]) == 0
    assert "mean logp" in capsys.readouterr().out


def test_members_with_the_same_folds_are_combined_fold_by_fold(members, data, tmp_path):
    torch.manual_seed(3)
    salt = nn.CrossTrained(
        [nn.AE(8, transform=nn.QuantileNormal(8).fit(data.x, data.weight)) for _ in range(2)], "folds"
    )
    ids = {k: np.arange(len(data.x)) for k in ("run", "luminosityBlock", "event")}
    from dataclasses import replace

    with_ids = replace(data, spectators=ids)
    card = nn.make_card(salt, with_ids, name="folded", config={}, metrics={})
    path = nn.export(salt, tmp_path / "folded.onnx", card, data.x[:50])
    scorer = OnnxScorer(nn.combine([members[0], path]))
    assert scorer.card.outputs == ("score_0", "score_1")
    folds = np.arange(len(data.x)) % 2
    parts = [OnnxScorer(members[0])(data.x), OnnxScorer(path)(data.x, folds)]
    for f, table in enumerate(card.calibrations):
        mine = folds == f
        expected = combined_logp([OnnxScorer(members[0]).card.calibration, table], [part[mine] for part in parts])
        np.testing.assert_allclose(scorer(data.x, folds)[mine], expected, rtol=1e-5, atol=1e-5)
    other = OnnxScorer(path)
    renamed = other.card.model_copy(update={"folds": other.card.folds.model_copy(update={"salt": "others"})})
    (tmp_path / "other.onnx").write_bytes(write_card(other.data, renamed))
    with pytest.raises(CardMismatch, match="its folds are not those of"):
        nn.combine([path, tmp_path / "other.onnx"])


def test_a_member_of_an_older_opset_and_with_a_column_of_scores(members, data, tmp_path):
    """Models from elsewhere: another name of the input, scores of shape (n, 1), another opset."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceSumSquare", ["rows"], ["sum"], axes=[1], keepdims=1),
        helper.make_node("Sqrt", ["sum"], ["length"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("length", TensorProto.FLOAT, ["n", 1])],
    )  # fmt: skip
    plain = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 12)], ir_version=8).SerializeToString()
    card = OnnxScorer(members[0]).card
    length = np.sqrt((data.x.astype(np.float64) ** 2).sum(1))
    new = card.model_copy(
        update={
            "inputs": (card.inputs[0].model_copy(update={"name": "rows"}),),
            "output": "length",
            "golden": None,
            "regions": (),
            "contributions": None,
            "calibration": regions.calibrate(length, data.weight, "toy"),
        }
    )
    (tmp_path / "length.onnx").write_bytes(write_card(plain, new))
    pair = [members[0], tmp_path / "length.onnx"]
    scorers = [OnnxScorer(p) for p in pair]
    expected = combined_logp([s.card.calibration for s in scorers], [s(data.x) for s in scorers])
    for order in (pair, pair[::-1]):
        np.testing.assert_allclose(OnnxScorer(nn.combine(order))(data.x), expected, rtol=1e-4, atol=1e-5)


# What is refused


def changed(path, target, **update):
    scorer = OnnxScorer(path)
    target.write_bytes(write_card(scorer.data, scorer.card.model_copy(update=update)))
    return target


def test_what_cannot_stand_together_is_refused(members, data, tmp_path):
    one, two, _ = members
    with pytest.raises(ConfigError, match="two models or more"):
        nn.combine([one])
    with pytest.raises(ConfigError, match=r"ae\.onnx: the same model is given twice"):
        nn.combine([one, one])
    bare = changed(two, tmp_path / "bare.onnx", calibration=None, regions=())
    with pytest.raises(ConfigError, match=r"bare\.onnx: its card has no calibration"):
        nn.combine([one, bare])
    with pytest.raises(CardMismatch, match=r"its collection are not those of .*ae\.onnx: Jet and FatJet"):
        nn.combine([one, changed(two, tmp_path / "jet.onnx", collection="Jet")])
    with pytest.raises(CardMismatch, match=r"its features are not those of .*ae\.onnx: .*source=stored"):
        nn.combine([one, DATA / "ae_stored.onnx"])
    spec = OnnxScorer(two).card.inputs[0]
    newer = spec.model_copy(update={"features": (spec.features[0].model_copy(update={"version": 7}),)})
    with pytest.raises(CardMismatch, match="versions, options or columns"):
        nn.combine([one, changed(two, tmp_path / "newer.onnx", inputs=(newer,))])
    provenance = {"rows": {"qcd": 5}, "filters": [["met", ">", 100]]}
    a = changed(one, tmp_path / "a.onnx", provenance=provenance)
    b = changed(two, tmp_path / "b.onnx", provenance={**provenance, "filters": []})
    with pytest.raises(CardMismatch, match="rows chosen in different ways"):
        nn.combine([a, b])
    fraction = {"training_fraction": 0.1, "training_salt": "training", "met_min": 100}
    c = changed(one, tmp_path / "c.onnx", selection=fraction)
    with pytest.raises(
        CardMismatch,
        match=r"ae.*onnx: training_fraction of its training is None, and 0.1 in .*c\.onnx|training_fraction",
    ):
        nn.combine([c, two])
    d = changed(two, tmp_path / "d.onnx", selection={**fraction, "met_min": 50})
    assert OnnxScorer(nn.combine([c, d])).card.selection == {"training_fraction": 0.1, "training_salt": "training"}


def test_the_command_line_says_what_is_wrong_in_one_sentence(members, tmp_path, capsys):
    assert cli.main(["combine", str(members[0]), str(tmp_path / "none.onnx"), "-o", str(tmp_path / "c.onnx")]) == 1
    assert "none.onnx: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "c.onnx").exists()
