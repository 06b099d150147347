"""Flows: densities that are normalised, conditional, sampled, and the same in torch and in the file."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
pytest.importorskip("zuko", reason="not installed: zuko")

from toy_skims import toy_rows, write_skim
from toys import toy_skim

from coffea_ad import cli, nn, recipes
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.features.spec import feature_spec
from coffea_ad.nn.density import flow as flow_module
from coffea_ad.nn.training.batches import seeded
from coffea_ad.scoring.agreement import allowed
from coffea_ad.scoring.card import write_card
from coffea_ad.scoring.scorer import OnnxScorer

SMALL = {"hidden": (16, 16), "transforms": 2, "bins": 4}
KINDS = {
    "maf": {"kind": "maf"},
    "nsf": {},
    "coupling": {"coupling": True},
    "maf coupling": {"kind": "maf", "coupling": True},
    "uniform": {"base": "uniform"},
    "uniform coupling": {"base": "uniform", "coupling": True},
}


def quick(**keys):
    return nn.TrainConfig(**{"epochs": 2, "samples_per_epoch": 512, "batch_size": 128, "validation_rows": 200, **keys})


def shaped(columns, transform, seed=1, **options):
    """A flow whose weights are far from those of a fresh one, on rows of correlated columns."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(2000, columns)) @ rng.normal(size=(columns, columns)) + 3).astype(np.float32)
    torch.manual_seed(seed)
    fitted = nn.preprocessing(transform, [str(i) for i in range(columns)]).fit(x, np.ones(len(x)))
    model = nn.Flow(columns, transform=fitted, **{**SMALL, **options})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model.eval()


@pytest.fixture(scope="module")
def data():
    return toy_skim()


@pytest.fixture(scope="module")
def conditional(data):
    """Trained p(first seven | last), without scores outside the box."""
    torch.manual_seed(3)
    model = nn.Flow(8, context=[7], outside="undefined", transform=nn.Logit(8), hidden=(16, 16), transforms=1, bins=4)
    history = nn.fit(model, data, quick(epochs=3, keep=2, learning_rate=5e-3))
    return model, history


# Normalisation, in raw coordinates


def columns_of(model, n, reach=9.0):
    """Raw points along each column."""
    transform, out = model.transform, []
    for i in range(transform.features):
        if transform.box[:, i].isfinite().all():
            box = transform(transform.box)[:, i]
            z = torch.linspace(float(box[0]), float(box[1]), n)
        else:
            z = torch.linspace(-reach, reach, n)
        out.append(transform.inverse(z[:, None].repeat(1, transform.features))[:, i].double().numpy())
    return out


def integral(model, n):
    """∫ p dx, and ∫ −p ln p dx, by the trapezoid rule on a grid of raw points."""
    axes = columns_of(model, n)
    points = np.array(list(itertools.product(*axes)), np.float32)
    log_p = model.log_prob(points).reshape([n] * len(axes))
    p, entropy = np.exp(log_p), -np.exp(log_p) * log_p
    for axis in reversed(axes):
        p, entropy = np.trapezoid(p, axis, axis=-1), np.trapezoid(entropy, axis, axis=-1)
    return float(p), float(entropy)


@pytest.mark.parametrize(("kind", "transform"), [
    ("maf", "standard"), ("maf", "logit"), ("nsf", "standard"), ("nsf", "logit"), ("uniform", "minmax"), ("uniform", "logit"),
])  # fmt: skip
def test_a_density_of_one_column_has_integral_1(kind, transform):
    total, _ = integral(shaped(1, transform, **KINDS[kind]), 20_001)
    assert total == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_density_of_two_columns_has_integral_1_and_its_samples_have_its_entropy(kind):
    model = shaped(2, "minmax" if "uniform" in kind else "standard", **KINDS[kind])
    total, entropy = integral(model, 401)
    assert total == pytest.approx(1, abs=1e-3)
    drawn = -model.log_prob(model.sample(8000, seed=1))
    assert abs(drawn.mean() - entropy) < 4 * drawn.std() / np.sqrt(8000) + 2e-3


def test_a_conditional_density_has_integral_1_for_every_condition():
    model = shaped(2, "logit", context=[0])
    x = columns_of(model, 10_001)[1]
    for m in (0.0, 2.0, 5.0):
        points = np.stack([np.full(len(x), m), x], axis=1).astype(np.float32)
        assert np.trapezoid(np.exp(model.log_prob(points)), x) == pytest.approx(1, abs=1e-3)


def test_another_unit_shifts_the_score_by_the_logarithm_of_the_ratio():
    """A density of x; the preprocessing may hide it in the score of z only."""
    x = np.random.default_rng(1).normal(size=(500, 3)).astype(np.float32)
    scores = []
    for unit in (1.0, 10.0):
        torch.manual_seed(1)
        scaled = (unit * x).astype(np.float32)
        model = nn.Flow(3, context=[2], transform=nn.Logit(3).fit(scaled, np.ones(500)), **SMALL)
        scores.append(model.scores(scaled))
    np.testing.assert_allclose(scores[1] - scores[0], 2 * np.log(10), atol=2e-3)  # the condition does not count


@pytest.mark.parametrize("context", [[], [1]])
@pytest.mark.parametrize("coupling", [False, True])
def test_the_splines_are_those_of_zuko_and_their_inverse_is_theirs(context, coupling):
    model = shaped(4, "standard", context=context, coupling=coupling, bins=7)
    model = model.double()
    z = 3 * torch.randn(4000, 4 - len(context), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z[:4] = torch.tensor([5.0, -5.0, 0.0, 5.1])[:, None]
    m = torch.linspace(-2, 2, 4000, dtype=torch.float64)[:, None] if context else None
    with torch.no_grad():
        ours, log_det = model._through(z, m)
        maps = model.maps(m)
        theirs, expected = maps.call_and_ladj(z)
        back = maps.inv(ours)
    assert float((z.abs() > 5).any(dim=1).double().mean()) > 0.1  # beyond the bound
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(back, z, rtol=1e-6, atol=1e-6)


# What it learns


def moving(n, seed):
    """x ~ N(sin 2m, 0.3 + 0.1 m) and y ~ exponential of mean 1 + x²; columns y, m, x."""
    rng = np.random.default_rng(seed)
    m = rng.uniform(0, 2, n)
    x = np.sin(2 * m) + (0.3 + 0.1 * m) * rng.normal(size=n)
    y = rng.exponential(1 + x**2)
    truth = stats.norm.logpdf(x, np.sin(2 * m), 0.3 + 0.1 * m) + stats.expon.logpdf(y, scale=1 + x**2)
    return np.stack([y, m, x], axis=1).astype(np.float32), truth


@pytest.fixture(scope="module")
def learned():
    """A conditional flow on 6000 rows, p(y, x | m)."""
    x, _ = moving(6000, 1)
    spec = feature_spec("jet_substructure")
    split = np.where(np.arange(6000) % 4 == 0, "validation", "train")
    provenance = {"files": {}, "flavours": ["NanoAOD v15"], "selection": {}, "n_effective": 6000.0}
    rows = nn.Skim(x, np.ones(6000), np.full(6000, "toy"), split, {}, spec, provenance)
    torch.manual_seed(1)
    model = nn.Flow(
        3, context=[1], transform=nn.preprocessing({"0": "log", "*": "standard"}, ["0", "1", "2"]), hidden=(32, 32)
    )
    nn.fit(model, rows, quick(epochs=12, samples_per_epoch=6144, batch_size=256, learning_rate=5e-3, schedule="cosine",
                              clip_gradient=1.0, validation_rows=1400))  # fmt: skip
    return model


def test_the_conditional_density_is_the_true_one(learned):
    """The mean of ln p_true − ln p is the divergence: never negative beyond its error, and small."""
    x, truth = moving(8000, 2)
    difference = truth - learned.log_prob(x)
    error = difference.std() / np.sqrt(len(x))
    assert -3 * error < difference.mean() < 0.05 + 3 * error


def test_samples_follow_the_condition(learned):
    for m in (0.2, 1.0, 1.8):
        rows = learned.sample(np.full((4000, 1), m, np.float32), seed=2)
        assert (rows[:, 1] == np.float32(m)).all()
        assert rows[:, 2].mean() == pytest.approx(np.sin(2 * m), abs=0.08)
        assert rows[:, 2].std() == pytest.approx(0.3 + 0.1 * m, rel=0.15)
        assert rows[:, 0].mean() == pytest.approx((1 + rows[:, 2] ** 2).mean(), rel=0.15)


def test_latent_rows_of_the_background_are_standard_normal_whatever_the_condition_is(learned):
    x, _ = moving(8000, 3)
    u = learned.latent(torch.from_numpy(x)).detach().numpy()
    assert u.shape == (8000, 2)
    for low in (0.0, 0.5, 1.0, 1.5):
        part = u[(x[:, 1] >= low) & (x[:, 1] < low + 0.5)]
        np.testing.assert_allclose(part.mean(axis=0), 0, atol=0.12)
        np.testing.assert_allclose(part.std(axis=0), 1, atol=0.12)
    assert abs(np.corrcoef(x[:, 1], u[:, 1])[0, 1]) < 0.05
    assert abs(np.corrcoef(np.sin(2 * x[:, 1]), x[:, 2])[0, 1]) > 0.5  # which the raw column is not


LHCO = Path(__file__).resolve().parents[2] / "shared" / "data" / "lhco_cathode_features"


@pytest.mark.skipif(not LHCO.is_dir(), reason="not here: shared/data/lhco_cathode_features")
def test_the_sidebands_of_lhco_jets_say_how_those_of_the_signal_region_are_distributed():
    """p(x | m) of 3.3 to 3.4 and 3.6 to 3.7 TeV, sampled in between; a standard normal would have −ln p = 5.68."""
    rows = np.load(LHCO / "innerdata_train.npy").astype(np.float32)
    m, background = rows[:, 0], rows[:, 5] == 0
    between = (m > 3.4) & (m < 3.6)
    side = rows[~between & background, :5]
    split = np.where(np.arange(len(side)) % 4 == 0, "validation", "train")
    provenance = {"files": {}, "flavours": ["NanoAOD v15"], "selection": {}, "n_effective": float(len(side))}
    spec = feature_spec("jet_substructure")
    skim = nn.Skim(side, np.ones(len(side)), np.full(len(side), "lhco"), split, {}, spec, provenance)
    torch.manual_seed(1)
    model = nn.Flow(5, kind="maf", context=[0], transforms=3, transform=nn.Logit(5))
    history = nn.fit(model, skim, quick(epochs=5, samples_per_epoch=20_000, batch_size=512, learning_rate=3e-3,
                                        schedule="cosine", clip_gradient=1.0, validation_rows=7000))  # fmt: skip
    assert history.best["validation"] < 5.5
    truth = rows[between & background, :5]
    drawn = model.sample(truth[:, :1], seed=1)
    for i in range(1, 5):  # quartiles: the tails of a training this short are too heavy
        width = np.ptp(np.quantile(truth[:, i], [0.25, 0.75]))
        np.testing.assert_allclose(*(np.quantile(x[:, i], [0.25, 0.5, 0.75]) for x in (drawn, truth)), atol=0.1 * width)
    one, two = (stats.spearmanr(x[:, 1:]).statistic for x in (drawn, truth))
    np.testing.assert_allclose(one, two, atol=0.05)


# Samples


@pytest.mark.parametrize(("kind", "transform"), [("maf", "standard"), ("nsf", "logit"), ("uniform", "minmax")])
def test_samples_of_one_column_follow_the_distribution_function(kind, transform):
    model = shaped(1, transform, **KINDS[kind])
    (x,) = columns_of(model, 20_001)
    p = np.exp(model.log_prob(x[:, None].astype(np.float32)))
    cdf = np.concatenate([[0], np.cumsum(0.5 * (p[1:] + p[:-1]) * np.diff(x))])
    drawn = model.sample(5000, seed=3)[:, 0]
    assert stats.kstest(drawn, lambda v: np.interp(v, x, cdf)).pvalue > 1e-3
    assert bool(model.inside(torch.from_numpy(drawn[:, None])).all())


def test_samples_are_those_of_their_seed_and_ask_no_generator_of_torch(conditional, data, monkeypatch):
    model, _ = conditional
    m = data.x[:100, 7:]
    before = torch.get_rng_state()
    one, same, other = (model.sample(m, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one[:, :7], other[:, :7]).all(axis=1).any()
    np.testing.assert_array_equal(one[:, 7], m[:, 0])
    assert model.sample(m[:0]).shape == (0, 8)
    monkeypatch.setattr(flow_module, "_BLOCK", 30)
    blocks = model.sample(m, seed=5)
    np.testing.assert_array_equal(blocks[:, 7], m[:, 0])
    assert np.isfinite(blocks).all()


def test_kept_epochs_give_equal_shares_of_samples_of_their_mean_density(conditional, data):
    model, history = conditional
    epochs = nn.Ensemble.of_epochs(model, history, "logmeanexp")
    assert epochs.density == "x"
    m = data.x[:101, 7:]
    rows = nn.sample_equally(epochs, m, seed=1)
    np.testing.assert_array_equal(rows[:, 7], m[:, 0])
    np.testing.assert_array_equal(rows, nn.sample_equally(epochs, m, seed=1))
    assert not np.array_equal(rows, nn.sample_equally(epochs, m, seed=2))
    fixed = [shaped(2, "logit", seed=s) for s in (1, 2)]  # two boxes, so that a row tells where it is from
    with torch.no_grad():
        fixed[1].transform.minimum.add_(1000)
        fixed[1].transform.maximum.add_(1000)
    drawn = nn.sample_equally(nn.Ensemble(fixed, "logmeanexp"), 201, seed=1)
    assert sorted(np.bincount((drawn[:, 0] > 500).astype(int))) == [100, 101]
    assert nn.sample_equally(model, m, seed=1).shape == (101, 8)
    with pytest.raises(ConfigError, match="sampled from a flow"):
        nn.sample_equally(nn.AE(8, transform=torch.nn.Identity()), 5)


# Outside the box


def edge_rows(x, train):
    """Rows in the box, at its edges, one number beyond them, and undefined ones; and which of them have a score."""
    low, high = train.min(axis=0), train.max(axis=0)
    middle = np.median(train, axis=0)
    some = []
    for i, value in itertools.product((0, 7), ("low", "below", "high", "above")):
        row = middle.copy()
        row[i] = {"low": low[i], "below": np.nextafter(low[i], np.float32(-np.inf)),
                  "high": high[i], "above": np.nextafter(high[i], np.float32(np.inf))}[value]  # fmt: skip
        some.append(row)
    broken = np.repeat(middle[None], 3, axis=0)
    broken[0, 0], broken[1, 7], broken[2, 3] = np.nan, np.inf, -np.inf
    every = np.concatenate([x, 3 * x[:200], np.array(some), broken]).astype(np.float32)
    defined = np.isfinite(every).all(axis=1)
    return every, defined, defined & ((every >= low) & (every <= high)).all(axis=1)


def box_of(data):
    return data.x[(data.split == "train") & (data.weight > 0)]


@pytest.mark.parametrize("base", ["gaussian", "uniform"])
def test_outside_the_box_is_the_score_of_the_nearest_point_or_none(data, base):
    train = box_of(data)
    x, defined, inside = edge_rows(data.x, train)
    for outside in ("clamp", "undefined"):
        torch.manual_seed(1)
        model = nn.Flow(8, base=base, outside=outside, transform=nn.Logit(8).fit(train, np.ones(len(train))), **SMALL)
        scores = model.scores(x)
        np.testing.assert_array_equal(np.isfinite(scores), inside if outside == "undefined" else defined)
        np.testing.assert_array_equal(model.inside(torch.from_numpy(x)).numpy(), inside)
        if outside == "clamp":
            nearest = np.clip(x[defined], train.min(axis=0), train.max(axis=0))
            np.testing.assert_allclose(scores[defined], model.scores(nearest), rtol=1e-6)


# Files


def parity(model, data, path, x):
    card = nn.make_card(model, data, name="flow", config={}, metrics={})
    scorer = OnnxScorer(nn.export(model, path, card, data.x[:300]))
    for rows in (x[:0], x[:1], x):
        ours, theirs = model.scores(rows), scorer(rows)
        np.testing.assert_array_equal(np.isnan(theirs), np.isnan(ours))
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-3)
    return scorer


def test_the_file_gives_the_scores_and_the_box_to_the_bit(conditional, data, tmp_path):
    """Also the raw graph, without the scorer that takes undefined rows out before."""
    model, _ = conditional
    x, _, inside = edge_rows(data.x, box_of(data))
    scorer = parity(model, data, tmp_path / "flow.onnx", x)
    assert (scorer.card.method, scorer.card.density) == ("NSF", "x")
    raw = scorer.session.run(None, {"features": x})[0].reshape(-1)
    np.testing.assert_array_equal(np.isfinite(raw), inside)


@pytest.mark.parametrize(("kind", "method"), [("maf", "MAF"), ("uniform coupling", "NSF, coupling, uniform base")])
def test_other_flows_are_exported_as_well(data, tmp_path, kind, method):
    torch.manual_seed(1)
    model = nn.Flow(8, transform=nn.Logit(8), **SMALL, **KINDS[kind])
    nn.fit(model, data, quick())
    x, defined, _ = edge_rows(data.x, box_of(data))
    scorer = parity(model, data, tmp_path / "flow.onnx", x)
    assert scorer.card.method == method
    assert np.isfinite(scorer(x)).sum() == defined.sum()


def test_a_wide_spline_flow_is_exported(data, tmp_path):
    torch.manual_seed(1)
    model = nn.Flow(8, hidden=(128, 128), transforms=2, transform=nn.Logit(8))
    nn.fit(model, data, quick(epochs=1))
    parity(model, data, tmp_path / "flow.onnx", data.x)


def test_a_classifier_on_the_latent_space_is_one_graph(conditional, data, tmp_path):
    flow, _ = conditional
    weights = {name: value.clone() for name, value in flow.state_dict().items()}
    torch.manual_seed(1)
    model = nn.AE(7, latent=2, transform=nn.FlowLatent(flow))
    assert model.shape == (8,)
    nn.fit(model, data, quick(), tmp_path / "latent")
    x, defined, _ = edge_rows(data.x, box_of(data))
    scorer = parity(model, data, tmp_path / "latent.onnx", x)
    assert np.isfinite(scorer(x)).sum() == defined.sum()  # nothing is undefined to another model
    for name, value in flow.state_dict().items():
        assert torch.equal(value, weights[name]), name  # the flow stays what it was
    again = nn.load(tmp_path / "latent")
    np.testing.assert_array_equal(again.scores(x), model.scores(x))


def test_only_a_density_may_be_off_by_a_thousandth(data, tmp_path):
    np.testing.assert_allclose(allowed([10.0, -1000.0], [1e-5, 1.0], "x"), [2e-3, 1.0])
    np.testing.assert_allclose(allowed([10.0, -1000.0], [1e-5, 1.0], None), [1e-5, 1.0])
    torch.manual_seed(1)
    model = nn.Flow(8, kind="maf", hidden=(8,), transforms=1, transform=nn.Standard(8))
    nn.fit(model, data, quick(epochs=1))
    card = nn.make_card(model, data, name="flow", config={}, metrics={})
    graph = model.graph(["score"])
    moved = [s + 5e-4 + 1e-4 * (1 + abs(s)) for s in card.golden.scores]
    for density, fits in (("x", True), (None, False)):
        golden = card.golden.model_copy(update={"scores": tuple(moved)})
        scorer = OnnxScorer(write_card(graph, card.model_copy(update={"golden": golden, "density": density}), "flow"))
        if fits:
            assert scorer.sessions
        else:
            with pytest.raises(BadModel, match="golden rows do not give their scores"):
                scorer.sessions  # noqa: B018


# Training


def test_two_and_two_epochs_are_four_and_the_model_comes_back(data, tmp_path):
    def fresh(seed):
        torch.manual_seed(seed)
        return nn.Flow(8, context=[2, 5], coupling=True, base="uniform", transform=nn.MinMax(8), **SMALL)

    whole, half = fresh(1), fresh(1)
    four = nn.fit(whole, data, quick(epochs=4, keep=2), tmp_path / "whole")
    nn.fit(half, data, quick(epochs=2, keep=2), tmp_path / "half")
    resumed = fresh(9)
    assert nn.fit(resumed, data, quick(epochs=4, keep=2), tmp_path / "half", resume=True) == four
    np.testing.assert_array_equal(resumed.scores(data.x), whole.scores(data.x))
    assert four[-1]["validation"] < four[0]["untrained"]
    again = nn.load(tmp_path / "whole", how="logmeanexp")
    assert (again.density, again.method) == ("x", "NSF, coupling, uniform base, logmeanexp of 2")
    np.testing.assert_array_equal(again.members[0].scores(data.x), whole.scores(data.x))
    np.testing.assert_array_equal(again.members[0].sample(data.x[:5, [2, 5]]), whole.sample(data.x[:5, [2, 5]]))


def test_the_loss_is_the_mean_of_the_energy_and_draws_nothing(data):
    model = shaped(3, "standard", context=[0])
    z = torch.randn(50, 3, generator=seeded(1, 0, torch.device("cpu")))
    before = torch.get_rng_state()
    loss = model.training_loss(nn.Batch.of(z), torch.Generator())["loss"]
    torch.testing.assert_close(loss, model.energy(z).mean())
    assert torch.equal(torch.get_rng_state(), before)


def test_behind_an_encoder_the_density_is_one_of_z(data):
    encoder = torch.nn.Linear(8, 3)
    model = nn.Flow(3, transform=nn.Representation(encoder, nn.Standard(3), row_shape=(8,)), **SMALL)
    nn.fit(model, data, quick(epochs=1))
    assert model.density == "z"
    with torch.no_grad():
        expected = model.energy(model.transform(torch.from_numpy(data.x[:20])))
    np.testing.assert_allclose(model.scores(data.x[:20]), expected.numpy(), rtol=1e-6)
    with pytest.raises(ConfigError, match="Representation has no inverse"):
        model.sample(3)


# Rare and different


def test_the_mean_rank_of_a_flow_and_a_deep_svdd_is_one_model(data, tmp_path):
    torch.manual_seed(1)
    flow = nn.Flow(8, kind="maf", outside="undefined", transform=nn.Logit(8), **SMALL)
    nn.fit(flow, data, quick())
    svdd = nn.DeepSVDD(8, outputs=4, transform=nn.QuantileNormal(8))
    nn.fit(svdd, data, quick())
    held_out = data.splits("validation")
    both = nn.Ensemble.with_ranks([flow, svdd], held_out.x, held_out.weight)
    assert (both.method, both.density) == ("MAF and Deep SVDD, rank of 2", None)
    x = held_out.x
    scores = both.scores(x)
    weight = held_out.weight / held_out.weight.sum()
    defined = np.isfinite(scores)
    np.testing.assert_array_equal(defined, np.isfinite(flow.scores(x)))

    def efficiency(model):
        values = model.scores(x)
        return np.array([weight[np.isfinite(values) & (values >= v)].sum() for v in values])

    mean = 0.5 * (efficiency(flow) + efficiency(svdd))[defined]
    assert stats.spearmanr(-mean, scores[defined]).statistic > 0.999
    parity(both, data, tmp_path / "both.onnx", data.x)


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "naf"}, "kind is 'naf', but must be maf or nsf"),
        ({"base": "box"}, "base is 'box'"),
        ({"outside": "nan"}, "outside is 'nan'"),
        ({"context": [3]}, "different places among 3 columns"),
        ({"context": [1, 1]}, "different places"),
        ({"context": [-1]}, "different places"),
        ({"context": [0, 1, 2]}, "leave one"),
        ({"context": [0, 1], "coupling": True}, "coupling needs two columns"),
        ({"base": "uniform"}, "base=uniform needs a preprocessing with a box"),
        ({"base": "uniform", "kind": "maf"}, "needs kind=nsf"),
        ({"outside": "undefined"}, "outside=undefined needs a preprocessing with a box"),
    ],
)
def test_wrong_settings_are_refused_in_a_sentence(options, message):
    with pytest.raises(ConfigError, match=message):
        nn.Flow(3, transform=nn.Standard(3), **options)


def test_the_box_is_asked_of_the_columns_of_the_density_only():
    mixed = {"0": "standard", "*": "minmax"}
    names = ["0", "1", "2"]
    assert (
        nn.Flow(3, base="uniform", context=[0], transform=nn.preprocessing(mixed, names)).method == "NSF, uniform base"
    )
    with pytest.raises(ConfigError, match="of all columns of the density"):
        nn.Flow(3, base="uniform", context=[1], transform=nn.preprocessing(mixed, names))


def test_wrong_conditions_are_refused_in_a_sentence():
    model = nn.Flow(3, context=[0], transform=nn.Standard(3))
    for conditions, message in (
        (5, "given 1 columns; say their values"),
        (np.zeros(4, np.float32), r"of the shape \(n, 1\), not of \(4,\)"),
        (np.zeros((4, 2), np.float32), r"not of \(4, 2\)"),
        (np.full((4, 1), np.nan, np.float32), "finite numbers"),
    ):
        with pytest.raises(ConfigError, match=message):
            model.sample(conditions)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(ConfigError, match="samples are no finite numbers"):
        model.sample(np.zeros((2, 1), np.float32))


# The recipe


@pytest.mark.plot
@pytest.mark.parametrize(
    ("words", "method"),
    [
        (["context=[tau2]", "outside=undefined", "train.keep=2"], "MAF, logmeanexp of 2"),
        (["svdd=1", "train.keep=1"], "MAF and Deep SVDD, rank of 2"),
    ],
)
def test_the_recipe_leaves_a_model(tmp_path, capsys, words, method):
    folder = write_skim(tmp_path / "skim", {"qcd": {"x": toy_rows(800)[0], "weight": np.ones(800), "xsec": 1.0}})
    out = tmp_path / "flow.onnx"
    small = ["kind=maf", "hidden=[16]", "transforms=1", "train.epochs=2", "train.samples_per_epoch=512"]
    assert cli.main(["run", "flow", f"data={folder}", *small, *words, "-o", str(out)]) == 0, capsys.readouterr().err
    card = OnnxScorer(out).card
    assert card.method == method
    assert card.density == ("x" if "svdd=1" not in words else None)
    if "svdd=1" not in words:
        again = nn.load(tmp_path / "flow", how="logmeanexp")
        assert [card.inputs[0].columns[i] for i in again.members[0].context] == ["jet_substructure.tau2"]


def test_the_recipe_has_folds(data, tmp_path):
    recipe = recipes.load("flow")
    config = recipe.Config(data="nowhere", kind="maf", hidden=(8,), transforms=1, svdd=1, train=quick(keep=2))
    ids = {name: np.arange(len(data.x), dtype=np.uint64) for name in ("run", "luminosityBlock", "event")}
    rows = dataclasses.replace(data, spectators=ids)
    model, histories = nn.fit_folds(recipe.fit, config, rows, tmp_path / "m", k=3, workers=1)
    assert (model.method, model.folds.k, len(histories)) == ("MAF, logmeanexp of 2 and Deep SVDD, rank of 2", 3, 3)
    assert model.scores(rows.x[:10], np.arange(10) % 3).shape == (10,)


def test_the_recipe_refuses_conditions_that_are_no_columns(tmp_path, capsys):
    folder = write_skim(tmp_path / "skim", {"qcd": {"x": toy_rows(100)[0], "weight": np.ones(100), "xsec": 1.0}})
    assert cli.main(["run", "flow", f"data={folder}", "context=[tau22]", "-o", str(tmp_path / "f.onnx")]) != 0
    assert "context: unknown column 'tau22'; did you mean 'tau2'" in capsys.readouterr().err
