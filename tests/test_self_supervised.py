"""Encoders that learn without labels: their losses, and the recipes from a skim to a file and into a processor."""

from __future__ import annotations

import json
import warnings

import awkward as ak
import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError
from coffea_ad.nn.model import Batch
from coffea_ad.nn.self_supervised.distillation import koleo
from coffea_ad.nn.self_supervised.masked import drawn_by_pt
from coffea_ad.nn.self_supervised.scores import SCORES
from coffea_ad.scoring.scorer import OnnxScorer

JET = ("pt", "deta", "dphi")
TINY = {"width": 8, "heads": 2, "layers": 1, "feedforward": 8, "outputs": 6}
QUICK = [
    f"encoder={json.dumps(TINY)}",
    *(f"train.{k}" for k in ("epochs=2", "samples_per_epoch=128", "batch_size=64", "validation_rows=60")),
    *(f"score_train.{k}" for k in ("epochs=1", "samples_per_epoch=128", "validation_rows=60")),
]


def sets(n=16, slots=9, seed=1):
    rng = np.random.default_rng(seed)
    filled = np.arange(slots) < rng.integers(1, slots + 1, n)[:, None]
    pt = -np.sort(-rng.exponential(20, (n, slots)) * filled, axis=1)
    return torch.from_numpy(np.stack([pt, *(rng.normal(0, 0.2, (2, n, slots)) * filled)], axis=2).astype(np.float32))


def encoder(scale="log", slots=9, **options):
    torch.manual_seed(1)
    return nn.SetEncoder(slots, nn.Tokens(JET, scale=scale), **{**TINY, **options})


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


MODELS = {
    **{loss: (lambda loss=loss: nn.CLR(encoder(), loss=loss, positive=["rotation", "soft_smear"]))
       for loss in ("nt_xent", "decoupled_clr", "anom_clr", "anom_clr_plus")},
    "ddd": lambda: nn.DDD(encoder(), anomalous=["drop", "pt_reweight"]),
    "masked": lambda: nn.MaskedParticles(encoder()),
    "distilled": lambda: nn.SelfDistillation(encoder(), prototypes=5),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_that_is_trained_gets_a_gradient(name):
    model = MODELS[name]()
    model.training_loss(Batch.of(sets(64)), seeded())["loss"].backward()
    unused = {"masked": "encoder.head", "distilled": "student.encoder.head"}.get(name, "-")
    for weight, value in model.named_parameters():
        if value.requires_grad and not weight.startswith(unused):
            assert value.grad is not None, weight
            assert value.grad.abs().sum() > 0, weight


@pytest.mark.parametrize("name", MODELS)
def test_what_is_plotted_of_a_training_is_measured(name):
    torch.manual_seed(1)
    model = MODELS[name]()
    batch = Batch.of(sets())
    measured = {*model.training_loss(batch, seeded()), *model.validate(batch, seeded())}
    assert {model.criterion, *model.plotted} <= measured


@pytest.mark.parametrize("name", MODELS)
def test_the_same_seed_gives_the_same_loss_and_padding_none(name):
    x, model = sets(), MODELS[name]()
    first = {k: v.item() for k, v in MODELS[name]().training_loss(Batch.of(x), seeded()).items()}
    assert first == {k: v.item() for k, v in model.training_loss(Batch.of(x), seeded()).items()}
    assert np.isfinite(list(first.values())).all()
    if name != "distilled":
        model.eval()
        empty = model.score(torch.zeros(2, 9, 3))
        assert torch.isfinite(empty).all()
        torch.testing.assert_close(model.score(x[:, :9]), model.score(x.flip(1)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("loss", ["anom_clr_plus", "nt_xent"])
def test_training_tells_anomalous_views_from_positive_ones(loss):
    model = nn.CLR(encoder(width=16), loss=loss, anomalous=["drop"], options={"drop": {"probability": 0.5}})
    x, optimiser = sets(64), torch.optim.Adam(model.parameters(), lr=2e-2)
    before = model.training_loss(Batch.of(x), seeded())
    for step in range(60):
        optimiser.zero_grad()
        model.training_loss(Batch.of(x), seeded(step))["loss"].backward()
        optimiser.step()
    after = model.training_loss(Batch.of(x), seeded())
    assert after["loss"] < before["loss"] - 0.5
    if loss == "anom_clr_plus":
        assert after["similarity"] - after["similarity_to_anomaly"] > 0.5


def test_single_precision_is_kept_for_losses():
    model = nn.CLR(encoder(), precision="bfloat16")
    metrics = model.training_loss(Batch.of(sets()), seeded())
    assert metrics["loss"].dtype == torch.float32
    exact = nn.CLR(encoder()).training_loss(Batch.of(sets()), seeded())["loss"]
    assert 0 < abs(metrics["loss"] - exact) < 0.5


def test_hidden_objects_have_the_part_of_momentum_that_was_drawn():
    x = sets(400)
    hidden = drawn_by_pt(x[:, :, 0] / x[:, :, 0].sum(dim=1, keepdim=True), 0.5, seeded())
    part = (x[:, :, 0] * hidden).sum(dim=1) / x[:, :, 0].sum(dim=1)
    assert part.max() <= 0.5
    assert part.mean() > 0.05
    assert not hidden[x[:, :, 0] == 0].any()


def test_a_hidden_object_is_not_seen():
    """What is predicted of it does not change with its direction, beyond the centre that all objects share."""
    torch.manual_seed(1)
    model = nn.MaskedParticles(nn.SetEncoder(9, nn.Tokens(JET, scale="log", centre=False), **TINY)).eval()
    x = sets()
    hidden = torch.zeros(16, 9, dtype=torch.bool)
    hidden[:, 0] = True
    other = x.clone()
    other[:, 0, 1:] += 0.3
    first, second = model.encoder.tokens(x), model.encoder.tokens(other)
    y, z = (model.encoder.in_context(objects, hidden, model.places) for objects in (first, second))
    assert torch.equal(y, z)
    assert not torch.equal(model.encoder.in_context(first), model.encoder.in_context(second))


def test_masked_particles_learn_the_density_of_what_is_hidden():
    """Of independent constituents −ln p is that of a Gaussian: a direction that is twice as far out costs 2 · (4 − 1)/2."""
    rng = np.random.default_rng(1)
    pt = -np.sort(-rng.lognormal(3, 0.5, (3000, 6)), axis=1)
    x = np.stack([pt, *rng.normal(0, 0.16, (2, 3000, 6))], axis=2).astype(np.float32)
    torch.manual_seed(1)
    tokens = nn.Tokens(JET, scale="log", centre=False)
    model = nn.MaskedParticles(nn.SetEncoder(6, tokens, **{**TINY, "width": 16}), components=1, positive=[])
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(300):
        batch = Batch.of(torch.from_numpy(x[rng.integers(0, 3000, 128)]))
        optimiser.zero_grad()
        model.training_loss(batch, seeded(step))["loss"].backward()
        optimiser.step()
    hidden = torch.arange(6).expand(3000, 6) == 0
    wide = torch.from_numpy(x.copy())
    wide[:, 0, 1:] *= 2
    with torch.no_grad():
        y, z = (model._surprise(model.encoder.tokens(rows), hidden) for rows in (wide, torch.from_numpy(x)))
        difference = y - z
    assert difference[:, 0].mean().item() == pytest.approx(3, abs=0.3)


def test_koleo_is_the_mean_logarithm_of_the_nearest_distance():
    h = torch.from_numpy(np.random.default_rng(1).normal(size=(20, 4))).float()
    unit = (h / h.norm(dim=1, keepdim=True)).numpy()
    gap = np.linalg.norm(unit[:, None] - unit[None], axis=2) + 9 * np.eye(20)
    assert koleo(h).item() == pytest.approx(-np.log(gap.min(axis=1) + 1e-6).mean(), rel=1e-4)


def test_a_teacher_follows_its_student():
    model = MODELS["distilled"]()
    with torch.no_grad():
        model.student.encoder.embed.weight.add_(1.0)
    before = model.encoder.embed.weight.clone()
    model.train().training_loss(Batch.of(sets()), seeded())
    torch.testing.assert_close(model.encoder.embed.weight, before + 0.004)
    assert not model.teacher.training


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: nn.CLR(encoder(), positive=["rotate"]), "did you mean 'rotation'"),
        (lambda: nn.CLR(encoder(), options={"drop": {"p": 0.5}}), "drop: unknown option 'p'"),
        (lambda: nn.CLR(encoder(), options={"shift_pt": {}}), "options of shift_pt"),
        (lambda: nn.CLR(encoder(), anomalous=[]), "needs an anomalous view"),
        (lambda: nn.CLR(encoder(), loss="clr"), "unknown loss"),
        (lambda: nn.DDD(encoder(), anomalous=[]), "needs an anomalous view"),
        (lambda: nn.MaskedParticles(encoder(scale="linear")), "scale=log"),
        (lambda: nn.SelfDistillation(encoder(), memory=1.0), "parts of 1"),
        (lambda: nn.CLR(nn.SetEncoder(9, nn.Tokens(["deta", "pt", "dphi"]), **TINY)), "pt, deta, dphi or pt"),
    ],
)
def test_what_cannot_be_trained_is_refused(make, match):
    with pytest.raises(ConfigError, match=match):
        make()


# The recipes


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "skim"
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for n in ("qcd", "ttbar")
    }
    features = "features=[{name: jet_constituents, options: {n: 12}}]"
    ad.run(fileset, "skim_jets", overrides=[features, "jets=each"], executor="iterative", output=folder)
    return folder


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr("coffea_ad.nn.training.plots.training", lambda *_: None)


def configured(skim, recipe, *words):
    module = recipes.load(recipe)
    fixed = [f"data={skim}", "options={n: 12}", "weights=none", *QUICK]
    return module, load_config(module.Config, None, [*fixed, *words])


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("clr", ["score=cosine", "scorer={bank: 100}"]),
        ("pretrain", ["score=direct"]),
        ("pretrain", ["task=distilled", "score=mahalanobis", "encoder.pooling=pt"]),
    ],
)
def test_a_file_scores_sets_as_torch_does(skim, recipe, words, tmp_path):
    module, config = configured(skim, recipe, *words)
    module.train(config, tmp_path / "m.onnx")
    scorer, model, x = OnnxScorer(tmp_path / "m.onnx"), nn.load(tmp_path / "m"), config.rows().x[:200]
    assert scorer.card.slots_vary
    few = np.concatenate([x, np.zeros((1, *x.shape[1:]), np.float32)])
    few[3, 1, 0] = np.nan
    for rows in (few, few[:1], few[50:57]):
        expected = model.scores(rows)
        np.testing.assert_allclose(scorer(rows), expected, rtol=1e-4, atol=1e-5)
        assert np.isnan(expected).sum() == np.isnan(rows).any(axis=(1, 2)).sum()
    tagged = ad.Tagger(tmp_path / "m.onnx")(open_events(DATA / "qcd_v15.root"))
    scores = np.asarray(ak.flatten(tagged["ad_score"], axis=None))
    ours = scorer(x[np.asarray(config.rows().dataset[:200]) == "qcd"])
    assert np.isclose(ours[:, None], scores, rtol=1e-4, atol=1e-5).any(axis=1).all()


@pytest.mark.parametrize("make", [nn.CLR, nn.MaskedParticles, nn.SelfDistillation])
@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_a_training_that_goes_on_gives_the_same_bits(make, skim, tmp_path):
    _, config = configured(skim, "pretrain")
    data = config.rows()

    train = nn.TrainConfig(epochs=4, samples_per_epoch=128, batch_size=64, validation_rows=60)

    def fitted(folder, stop=4, resume=False):
        model = make(encoder(slots=12, dropout=0.1))
        begin = model.begin_epoch

        def until(epoch, epochs):
            if epoch == stop:
                raise KeyboardInterrupt
            begin(epoch, epochs)

        model.begin_epoch = until
        return model, nn.fit(model, data, train, tmp_path / folder, resume=resume)

    whole, four = fitted("whole")
    with pytest.raises(KeyboardInterrupt):
        fitted("half", stop=2)
    torch.manual_seed(99)
    resumed, two = fitted("half", resume=True)
    assert two == four
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.fixture(scope="module")
def trained(skim, tmp_path_factory):
    """The folder of an encoder that is trained."""
    folder = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr("coffea_ad.nn.training.plots.training", lambda *_: None)
        warnings.simplefilter("ignore")
        module, config = configured(skim, "clr", "score=direct")
        module.fit(config, config.rows(), folder)
    return folder


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
@pytest.mark.parametrize("score", [s for s in SCORES if s not in ("nae", "wnae")])
def test_an_encoder_is_trained_once_for_many_scores(skim, trained, score, tmp_path):
    scorer = {"neighbours": "{k: 3, bank: 50}", "mixture": "{components: 2}"}.get(score, "{}")
    module, config = configured(skim, "clr", f"score={score}", f"pretrained={trained}", f"scorer={scorer}")
    model, history = module.fit(config, config.rows(), tmp_path / score)
    assert np.isfinite(model.scores(config.rows().x)).all()
    assert history.measured["encoder"]["validation"] < 100
    first = nn.load(trained)
    again = nn.load(tmp_path / score)
    np.testing.assert_array_equal(again.scores(config.rows().x[:20]), model.scores(config.rows().x[:20]))
    kept = again.transform.encoder.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in first.encoder.state_dict().items())


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_events_are_encoded_by_their_objects(tmp_path):
    options = "{scaling: none, leading_lepton_pt_min: 0.0}"
    fileset = {
        "ttbar": {"files": {str(DATA / "ttbar_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}},
    }
    words = [f"features=[{{name: event_objects, options: {options}}}]", "leading_lepton_pt_min=0"]
    ad.run(fileset, "skim_events", overrides=words, executor="iterative", output=tmp_path / "skim")
    module = recipes.load("clr")
    config = load_config(
        module.Config, recipes.find_config("clr/anomclr.yaml"),
        [f"data={tmp_path / 'skim'}", f"options={options}", "weights=none", *QUICK, "score=mahalanobis"],
    )  # fmt: skip
    data = config.rows()
    model, _ = module.fit(config, data, tmp_path / "m")
    assert np.isfinite(model.scores(data.x)).all()
    turned = data.x.copy()
    real = turned[:, :, 0] > 0
    turned[:, :, 2] = (np.remainder(turned[:, :, 2] + 1.0 + np.pi, 2 * np.pi) - np.pi) * real
    assert not np.allclose(model.scores(turned), model.scores(data.x))  # a symmetry is learned, not built in


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["encoder.depth=3"], "encoder: unknown key 'depth'"),
        (["tokens={log: true}"], "tokens: unknown key 'log'"),
        (["score=ae", "scorer={latents: 3}"], "scorer: unknown key 'latents'; did you mean 'latent'"),
        (["pretrained=nowhere"], "no trained model"),
        (["pretrained=nowhere", "folds=3"], "may have seen the events of every fold"),
    ],
)
@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_wrong_keys_are_named(skim, words, match, tmp_path):
    module, config = configured(skim, "clr", *words)
    with pytest.raises(ConfigError, match=match):
        module.fit(config, config.rows(), tmp_path)


@pytest.mark.parametrize(
    ("recipe", "words", "match"),
    [
        ("clr", ["loss=nt_xent"], "its loss is anom_clr_plus, that of this recipe nt_xent"),
        ("clr", ["tokens={scale: linear}"], "its encoder.tokens.scale is log, that of this recipe linear"),
        ("pretrain", [], "its class is CLR, that of this recipe MaskedParticles"),
    ],
)
def test_an_encoder_that_was_trained_with_other_keys_is_refused(skim, trained, recipe, words, match, tmp_path):
    module, config = configured(skim, recipe, f"pretrained={trained}", *words)
    with pytest.raises(ConfigError, match=match):
        module.fit(config, config.rows(), tmp_path)


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_the_unchanged_processor_scores_constituents_of_real_files(skim, trained, real, tmp_path):
    module, config = configured(skim, "clr", "score=mahalanobis", f"pretrained={trained}")
    module.train(config, tmp_path / "m.onnx")
    fileset = {
        name: {"files": {str(real / f"{name}.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for name in ("nano_tt_v15", "pfnano")
    }
    loose = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9", "jet_pt_min=170", "triggers=[]"]
    report = ad.run(
        fileset, "semivisible_jets", model=tmp_path / "m.onnx", executor="iterative", lumi=1.0, overrides=loose,
        output=tmp_path / "results",
    )  # fmt: skip
    for name in fileset:
        dataset = report.datasets[name]
        assert dataset["cutflow"]["dphi"]["events"] > 0
        assert dataset["unscored"] == 0


@pytest.mark.filterwarnings("ignore:the validation rows have an effective number")
def test_a_file_of_folds_takes_sets_of_any_size(skim, tmp_path):
    module, config = configured(skim, "clr", "folds=3", "score=mahalanobis")
    module.train(config, tmp_path / "m.onnx")
    scorer, model, data = OnnxScorer(tmp_path / "m.onnx"), nn.load(tmp_path / "m"), config.rows()
    folds = np.arange(200) % 3
    assert scorer.card.slots_vary
    np.testing.assert_allclose(scorer(data.x[:200], folds), model.scores(data.x[:200], folds), rtol=1e-4, atol=1e-5)
    ad.Tagger(tmp_path / "m.onnx")(open_events(DATA / "qcd_v15.root"))


def test_only_sets_are_encoded(skim, tmp_path):
    module, config = configured(skim, "pretrain", "task=distilled", "score=direct")
    with pytest.raises(ConfigError, match="no score by itself"):
        module.fit(config, config.rows(), tmp_path)
    module, config = configured(skim, "pretrain", "memory=0.9")
    with pytest.raises(ConfigError, match="task=masked has no use"):
        module.build(config, config.rows())
