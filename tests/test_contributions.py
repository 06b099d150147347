"""What parts of a row add to its score: against formulas written out, in files, and through all that is done to files."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")
onnx = pytest.importorskip("onnx", reason="not installed: onnx")

from test_contract import skim_of
from toy_skims import NAME, toy_rows, write_skim

from coffea_ad import nn
from coffea_ad.errors import BadModel, CardMismatch, ConfigError
from coffea_ad.features.spec import feature_spec
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.nn.model import Batch
from coffea_ad.nn.scorable import contributions_in
from coffea_ad.scoring.card import ModelCard, parse_card, read_card, write_card
from coffea_ad.scoring.modelfile import output_names, part_for
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Contributions, InputSpec

X = toy_rows(600)[0]
SHORT = {"buffer_size": 64, "hidden": (8,), "latent": 2}


def standard(width=8):
    return nn.Standard(width, names=[f"c{i}" for i in range(width)]).fit(X[:, :width], np.ones(len(X)))


def flat(make):
    def build():
        model = make(transform=standard())
        z = model.transform(torch.from_numpy(X))
        model.learn([(z, torch.ones(len(z)))])
        model.start(Batch.of(z), torch.Generator().manual_seed(1))
        return model

    return build


def image():
    return nn.ImageAE(8, channels=(2,), smear=0.8, transform=nn.PixelPower(64, 0.5)), np.random.default_rng(1).random(
        (9, 8, 8), np.float32
    )


def slots():
    sets = X[:90].reshape(90, 4, 2).copy()
    sets[::3, 2:] = 0
    return nn.AE(8, transform=nn.Slots(4, nn.Standard(2)).fit(sets, np.ones(90))), sets


def selected():
    then = nn.Standard(3, names=["f", "b", "c"]).fit(X[:, [5, 1, 2]], np.ones(len(X)))
    return nn.AE(3, latent=1, transform=nn.Selected([5, 1, 2], of=8, then=then)), X


FLAT = {
    "AE": lambda **k: nn.AE(8, **k),
    "AE mae": lambda **k: nn.AE(8, score="mae", sparse=0.1, **k),
    "AE log_mae": lambda **k: nn.AE(8, score="log_mae", **k),
    "NAE": lambda **k: nn.NAE(8, spectral_norm=True, **SHORT, **k),
    "WNAE": lambda **k: nn.WNAE(8, **SHORT, **k),
    **{f"VAE {s}": lambda s=s, **k: nn.VAE(8, score=s, latent=3, **k) for s in ("reconstruction", "kl", "mu2", "elbo")},
    **{f"Dirichlet {s}": lambda s=s, **k: nn.DirichletVAE(8, score=s, alpha=0.5, **k) for s in ("kl", "elbo")},
    "PCA": lambda **k: nn.PCA(8, components=3, **k),
    "PCA mahalanobis": lambda **k: nn.PCA(8, components=8, score="mahalanobis", **k),
    "Mahalanobis": lambda **k: nn.Mahalanobis(8, shrinkage=0.1, **k),
}
MODELS = {**{name: lambda make=make: (flat(make)(), X) for name, make in FLAT.items()}, "ImageAE": image, "Slots": slots, "Selected": selected}  # fmt: skip


@pytest.fixture(params=MODELS)
def model_and_rows(request):
    torch.manual_seed(1)
    model, x = MODELS[request.param]()
    return model.eval(), x


def total_of(model, score):
    return np.exp(score.astype(float)) if model.contributes.of == "exp(score)" else score


def test_contributions_add_up_to_the_score(model_and_rows):
    model, x = model_and_rows
    parts = model.contributions_of(x)
    assert parts.shape == (len(x), model.contributes.size(model.shape))
    assert parts.dtype == np.float32
    np.testing.assert_allclose(parts.sum(axis=1, dtype=float), total_of(model, model.scores(x)), rtol=1e-5)
    assert model.contributions_of(x[:0]).shape == (0, parts.shape[1])


def test_undefined_rows_have_no_contributions_and_do_not_touch_others(model_and_rows):
    model, x = model_and_rows
    broken = x[:4].copy()
    broken[1].flat[0], broken[3].flat[-1] = np.nan, np.inf
    parts = model.contributions_of(broken)
    assert np.isnan(parts).all(axis=1).tolist() == [False, True, False, True]
    np.testing.assert_allclose(parts[[0, 2]], model.contributions_of(x[[0, 2]]), rtol=1e-5, atol=1e-7)


def test_parts_are_those_of_the_formulas():
    """Written out in numpy, from what the models say of themselves."""
    z = standard()(torch.from_numpy(X))
    torch.manual_seed(1)
    autoencoder, far = flat(FLAT["AE"])(), flat(FLAT["Mahalanobis"])()
    with torch.no_grad():
        rebuilt = autoencoder.reconstruct(z).numpy()
    np.testing.assert_allclose(autoencoder.contributions_of(X), (z.numpy() - rebuilt) ** 2 / 8, rtol=1e-4, atol=1e-7)
    z64 = z.numpy().astype(float)
    c = z64 - z64.mean(axis=0)
    covariance = 0.9 * np.cov(z64.T) + 0.1 * np.trace(np.cov(z64.T)) / 8 * np.eye(8)
    np.testing.assert_allclose(far.contributions_of(X), c * (c @ np.linalg.inv(covariance)), rtol=1e-4, atol=1e-5)
    principal = flat(FLAT["PCA"])()
    _, directions = np.linalg.eigh(np.cov(z64.T))
    rest = c @ directions[:, :-3] @ directions[:, :-3].T
    np.testing.assert_allclose(principal.contributions_of(X), rest**2 / 8, rtol=1e-3, atol=1e-6)
    vae = flat(FLAT["VAE elbo"])()
    mean, log_variance = (part.detach().numpy().astype(float) for part in vae.encode(z))
    kl = 0.5 * (np.exp(log_variance) + mean**2 - 1 - log_variance)
    np.testing.assert_allclose(vae.contributions_of(X)[:, 8:], 2 * 0.01 / 8 * kl, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["AE", "WNAE", "PCA", "Mahalanobis"])
def test_the_one_input_that_is_varied_leads(name):
    """Rows on a plane of three dimensions: an input that leaves it is what is wrong with the row."""
    rng = np.random.default_rng(3)
    plane = np.linalg.qr(np.random.default_rng(6).normal(size=(8, 8)))[0][:, :3]
    x = (rng.normal(size=(1500, 3)) @ plane.T + 0.02 * rng.normal(size=(1500, 8))).astype(np.float32)
    data = skim_of(x, feature_spec(NAME))
    torch.manual_seed(2)
    extra = {"latent": 3, "hidden": (32,)} if name in ("AE", "WNAE") else {}
    extra |= {"buffer_size": 200, "steps": 5, "long_steps": 0, "smear": 0.0} if name == "WNAE" else {}
    extra |= {"components": 3} if name == "PCA" else {}
    model = getattr(nn, name)(8, transform=nn.Standard(8), **extra)
    if name == "WNAE":  # as recommended: it begins with the weights of an autoencoder
        start = nn.AE(8, transform=nn.Standard(8), latent=3, hidden=(32,), activation="silu")
        nn.fit(start, data, nn.TrainConfig(epochs=40, batch_size=64, learning_rate=5e-3, samples_per_epoch=1500))
        model.transform = start.transform
        model.load_state_dict({**model.state_dict(), **start.state_dict()})
    else:
        nn.fit(model, data, nn.TrainConfig(epochs=40, batch_size=64, learning_rate=5e-3, samples_per_epoch=1500))
    usual = np.tile(x.mean(axis=0), (8, 1))
    varied = usual + np.diag(3 * x.std(axis=0))
    assert (model.scores(varied.astype(np.float32)) > np.quantile(model.scores(x), 0.99)).all()
    assert model.contributions_of(varied.astype(np.float32)).argmax(axis=1).tolist() == list(range(8))


# what has contributions, and what has none


class Weighted(nn.AE):
    """Changes the energy and says nothing of contributions."""

    def energy(self, z):
        return 2 * super().energy(z)


def test_scores_that_are_no_sums_have_no_contributions():
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 4))
    behind = nn.AE(4, transform=nn.Representation(encoder, nn.Standard(4), row_shape=(2, 4)))
    none = [
        nn.DeepSVDD(8, transform=standard()), nn.KernelPCA(8, landmarks=20, transform=standard()), behind, Weighted(8, transform=standard()),
        nn.DirichletVAE(8, score="weight", transform=standard()),
    ]  # fmt: skip
    assert [contributions_in(model) for model in none] == [None] * len(none)
    with pytest.raises(ConfigError, match="the score of Deep SVDD is no sum"):
        none[0].contributions_of(X)


def test_ensembles_and_folds_have_the_contributions_of_their_members():
    torch.manual_seed(1)
    members = [nn.AE(8, transform=standard()).eval() for _ in range(3)]
    mean = nn.Ensemble(members)
    assert mean.contributes == members[0].contributes == Contributions()
    each = np.stack([m.contributions_of(X) for m in members])
    np.testing.assert_allclose(mean.contributions_of(X), each.mean(axis=0), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(mean.contributions_of(X).sum(axis=1), mean.scores(X), rtol=1e-5)
    folds = np.arange(len(X)) % 3
    crossed = nn.CrossTrained(members, "s")
    np.testing.assert_allclose(
        crossed.contributions_of(X, folds), np.choose(folds[:, None], list(each)), rtol=1e-4, atol=1e-6
    )
    with pytest.raises(ConfigError, match="depends on the folds"):
        crossed.contributions_of(X)
    logarithms = [nn.AE(8, score="log_mae", transform=standard()) for _ in range(2)]
    assert nn.Ensemble(logarithms).contributes is None  # the mean of logarithms is not that of a mean
    assert nn.Ensemble(logarithms[:1]).contributes == Contributions(of="exp(score)")
    assert nn.Ensemble([members[0], nn.DeepSVDD(8, transform=standard())]).contributes is None
    assert nn.Ensemble(members, "logmeanexp").contributes is None
    assert nn.CrossTrained([nn.DeepSVDD(8, transform=standard())] * 2, "s").contributes is None


def test_names_are_those_of_columns_slots_pixels_and_terms():
    assert selected()[0].contributes.parts == ("f", "b", "c")
    vae = flat(FLAT["VAE elbo"])()
    spec = InputSpec(features=(feature_spec("jet_substructure"),))
    card = ModelCard(name="toy", method="VAE", inputs=(spec,), contributions=vae.contributes)
    assert card.parts == (*spec.entries, "KL[0]", "KL[1]", "KL[2]")
    assert spec.entries[:2] == ("sigma1", "sigma2")
    sets = InputSpec(features=(feature_spec("jet_constituents", {"n": 2, "columns": ["pt", "deta"]}),))
    assert sets.entries == ("pt[0]", "deta[0]", "pt[1]", "deta[1]")
    images = InputSpec(features=(feature_spec("jet_images", {"pixels": 2}),))
    assert images.entries == ("intensity[0,0]", "intensity[0,1]", "intensity[1,0]", "intensity[1,1]")


# files


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    datasets = {
        n: {"x": toy_rows(1200, i, shift=i)[0], "weight": np.ones(1200), "xsec": 1.0}
        for i, n in enumerate(("qcd", "svj"))
    }
    return write_skim(tmp_path_factory.mktemp("skim") / "s", datasets)


@pytest.fixture(scope="module")
def trained(skim, tmp_path_factory):
    """A cross-training whose members are means of two epochs, in a file."""
    data = nn.load_skim(skim, NAME, datasets=["qcd"])
    members = []
    for f in range(3):
        torch.manual_seed(f)
        model = nn.AE(8, transform=nn.Standard(8))
        quick = nn.TrainConfig(epochs=2, samples_per_epoch=256, batch_size=64, validation_rows=100, keep=2)
        members.append(nn.Ensemble.of_epochs(model, nn.fit(model, data.for_fold(f, 3, "s"), quick)))
    model = nn.CrossTrained(members, "s")
    card = nn.make_card(model, data, name="toy", config={}, metrics={})
    return model, data, nn.export(model, tmp_path_factory.mktemp("model") / "folds.onnx", card, data.x[:200])


@pytest.fixture(scope="module")
def single(skim, tmp_path_factory):
    """One autoencoder in a file."""
    data = nn.load_skim(skim, NAME, datasets=["qcd"])
    model = nn.AE(8, transform=nn.Standard(8))
    nn.fit(model, data, nn.TrainConfig(epochs=1, samples_per_epoch=256, batch_size=64, validation_rows=100))
    card = nn.make_card(model, data, name="toy", config={}, metrics={})
    return model, nn.export(model, tmp_path_factory.mktemp("model") / "ae.onnx", card, data.x[:200])


def test_a_file_of_folds_gives_the_contributions_of_the_member_that_scores(trained):
    model, data, path = trained
    scorer = OnnxScorer(path)
    x, folds = data.x[:300].copy(), np.arange(300) % 3
    x[5, 2] = np.nan
    assert scorer.card.contribution_outputs == ("contributions_0", "contributions_1", "contributions_2")
    assert sorted(output_names(scorer.data)) == sorted((*scorer.card.outputs, *scorer.card.contribution_outputs))
    parts = scorer.contributions(x, folds)
    np.testing.assert_allclose(parts, model.contributions_of(x, folds), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(parts.sum(axis=1), scorer(x, folds), rtol=1e-5)
    assert np.isnan(parts[5]).all()
    assert np.isfinite(np.delete(parts, 5, axis=0)).all()
    with pytest.raises(CardMismatch, match="3 members; give the fold"):
        scorer.contributions(x)


def test_scores_are_computed_by_the_graph_that_a_model_without_contributions_has(single):
    """Not a node more, so that scoring is as fast, and the same to the bit."""
    model, path = single
    part, plain = part_for(path.read_bytes(), "score"), model.graph(["score"])
    graphs = [onnx.load_from_string(data).graph for data in (part, plain)]
    assert [n.op_type for n in graphs[0].node] == [n.op_type for n in graphs[1].node]
    weights = [sorted(i.raw_data for i in graph.initializer) for graph in graphs]
    assert weights[0] == weights[1]
    scorer = OnnxScorer(path)
    assert [o.name for o in scorer.session.get_outputs()] == ["score"]


def test_contributions_that_do_not_add_up_are_not_written(single, tmp_path, monkeypatch):
    model, path = single
    card = read_card(path.read_bytes())
    monkeypatch.setattr(nn.AE, "contributions", lambda self, z: 1.1 * (z - self.reconstruct(z)) ** 2 / 8)
    with pytest.raises(BadModel, match="do not add up to score: they miss it by"):
        nn.export(model, tmp_path / "wrong.onnx", card, X[:50])
    assert list(tmp_path.iterdir()) == []


def test_a_promise_that_the_graph_does_not_keep_is_refused(single, trained):
    _, path = single
    data, card = path.read_bytes(), read_card(path.read_bytes())
    broken = OnnxScorer(write_card(part_for(data, "score"), card), name="ae.onnx")
    with pytest.raises(
        CardMismatch, match=r"^ae.onnx: its card promises contributions, but the graph has no output contributions"
    ):
        broken(X)
    few = card.model_copy(update={"contributions": Contributions(parts=("a", "b"))})
    with pytest.raises(CardMismatch, match=r"shape \(600, 8\), but the card names 2 parts"):
        OnnxScorer(write_card(data, few)).contributions(X)
    none = OnnxScorer(write_card(data, card.model_copy(update={"contributions": None})), name="ae.onnx")
    with pytest.raises(CardMismatch, match=r"^ae.onnx: its card promises no contributions; coffea-ad explain"):
        none.contributions(X)
    np.testing.assert_array_equal(none(X), OnnxScorer(path)(X))
    folded = read_card(trained[2].read_bytes())
    lost = part_for(trained[2].read_bytes(), (*folded.outputs, "contributions_0", "contributions_2"))
    with pytest.raises(CardMismatch, match="no output contributions_1"):
        _ = OnnxScorer(write_card(lost, folded)).sessions


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"output": "score"}, "contributions have the output of the score"),
        ({"parts": ["a"], "terms": ["a"]}, "two parts of the contributions have the same name"),
        ({"of": "log"}, "contributions.of"),
        ({"sum": 1}, "contributions.sum"),
    ],
)
def test_wrong_promises_are_refused_by_name(single, change, match):
    card = read_card(single[1].read_bytes())
    text = card.model_copy(update={"contributions": None}).model_dump(mode="json") | {"contributions": change}
    with pytest.raises(BadModel, match=match):
        parse_card(json.dumps(text))


def test_thresholds_keep_contributions_and_combinations_and_int8_have_none(single, trained, skim):
    for path in (single[1], trained[2]):
        data = path.read_bytes()
        moved = new_regions(data, skim, efficiencies=[0.2], datasets=["qcd"])
        assert read_card(moved).contributions == Contributions()
        small = nn.quantise(data, skim, datasets=["qcd"])
        for sealed in (small, nn.combine([path, single[1] if path != single[1] else trained[2]])):
            card = read_card(sealed)
            assert card.contributions is None
            assert sorted(output_names(sealed)) == sorted(card.outputs)


def test_a_fused_preprocessing_leaves_contributions_as_they_are(single):
    fused, before = OnnxScorer(nn.fuse_linear(single[1].read_bytes())), OnnxScorer(single[1])
    assert fused.card.contributions == Contributions()
    np.testing.assert_allclose(fused.contributions(X), before.contributions(X), rtol=1e-4, atol=1e-5)


def test_cards_of_before_promise_nothing(model_file):
    card = read_card(model_file.read_bytes())
    assert card.contributions is None
    assert card.parts == card.contribution_outputs == ()
    three = card.model_dump(mode="json") | {"schema_version": 3}
    assert ModelCard.model_validate(three) == card
