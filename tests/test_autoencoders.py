"""Autoencoders of rows and of images: scores, options, presets, the recipe."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_nn_laws import quick
from toys import DATA, toy_skim

from coffea_ad.nn.model import Batch

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch", reason="not installed: torch")

import coffea_ad as ad
from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.features.spec import feature_spec
from coffea_ad.nn.reconstruction.image import ImageAE, PixelPower
from coffea_ad.skims.skim import Skim


@pytest.fixture(scope="module")
def data():
    return toy_skim()


def images(seed=0, n=600, size=40):
    """Images with a dozen lit pixels around the middle, most of one of two kinds, that sum to 1."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, size, size), np.float32)
    for _ in range(12):
        row, column = np.clip(rng.normal(size / 2, 3, (2, n)), 0, size - 1).astype(int)
        x[np.arange(n), row, column] += rng.exponential(size=n)
    x /= x.sum(axis=(1, 2), keepdims=True)
    provenance = {"files": {}, "flavours": ["NanoAOD v15"], "selection": {}, "n_effective": float(n)}
    split = rng.choice(["train", "validation", "test"], n)
    spec = feature_spec("jet_images", {} if size == 40 else {"pixels": size})
    return Skim(x, rng.exponential(size=n) + 0.1, np.full(n, "toy"), split, {}, spec, provenance)


# Dense


def test_scores_are_the_errors_that_they_are_named_for(data):
    x = torch.from_numpy(data.x[:50])
    for score in ("mse", "mae", "log_mae"):
        torch.manual_seed(1)
        model = nn.AE(8, transform=torch.nn.Identity(), score=score)
        with torch.no_grad():
            difference = (x - model.decoder(model.encoder(x))).double().numpy()
            got = model.score(x).numpy()
        mae = np.abs(difference).mean(axis=1)
        wanted = {"mse": (difference**2).mean(axis=1), "mae": mae, "log_mae": np.log(mae)}[score]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_a_perfect_reconstruction_has_a_finite_logarithm():
    model = nn.AE(8, transform=torch.nn.Identity(), score="log_mae")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.isfinite(model.score(torch.zeros(2, 8))).all()


def test_what_is_minimised_may_be_another_error_than_the_score(data):
    for loss, power in (("mse", 2), ("mae", 1)):
        torch.manual_seed(1)
        model = nn.AE(8, transform=torch.nn.Identity(), score="log_mae", loss=loss)
        z = torch.from_numpy(data.x[:64])
        generator = torch.Generator().manual_seed(1)
        wanted = ((z - model.reconstruct(z)).abs() ** power).mean()
        assert model.training_loss(Batch.of(z), generator)["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
        assert model.validate(Batch.of(z), generator)["reconstruction"] == pytest.approx(wanted.item(), rel=1e-5)


def test_the_sparse_term_is_the_mean_activation_and_empties_the_bottleneck(data):
    z = torch.from_numpy(data.x[:64])
    generator = torch.Generator().manual_seed(1)
    losses = {}
    for sparse in (0.0, 0.3):
        torch.manual_seed(1)
        model = nn.AE(8, transform=torch.nn.Identity(), sparse=sparse)
        losses[sparse] = model.training_loss(Batch.of(z), generator)
    activity = model.encoder(z).abs().mean().item()
    difference = losses[0.3]["loss"].item() - losses[0.0]["loss"].item()
    assert difference == pytest.approx(0.3 * activity, rel=1e-4)
    assert losses[0.3]["activity"].item() == pytest.approx(activity, rel=1e-5)
    assert set(losses[0.0]) == {"loss"}
    activities = []
    for sparse in (0.0, 1.0):
        torch.manual_seed(1)
        model = nn.AE(8, transform=nn.QuantileNormal(8), sparse=sparse)
        nn.fit(model, data, quick(epochs=6, samples_per_epoch=2048, learning_rate=5e-3))
        with torch.no_grad():
            activities.append(model.encoder(model.transform(torch.from_numpy(data.x))).abs().mean().item())
    assert activities[1] < 0.5 * activities[0]


@pytest.mark.parametrize("output", ["relu", "sigmoid"])
def test_the_output_activation_bounds_what_is_decoded(data, output):
    model = nn.AE(8, transform=torch.nn.Identity(), output=output)
    made = model.reconstruct(torch.from_numpy(data.x))
    assert made.min() >= 0
    assert output == "relu" or made.max() <= 1


def widths(model):
    layers = [m for m in (*model.encoder, *model.decoder) if isinstance(m, torch.nn.Linear)]
    return [layers[0].in_features, *(m.out_features for m in layers)]


def test_presets_are_the_published_networks():
    identity = torch.nn.Identity()
    assert widths(nn.AE.svj(identity)) == [8, 10, 10, 6, 10, 10, 8]
    assert widths(nn.WNAE.svj(identity)) == [8, 10, 10, 6, 10, 10, 8]
    model = nn.AE.rmm(identity)
    assert widths(model) == [1287, 800, 400, 200, 400, 800, 1287]
    assert sum(isinstance(m, torch.nn.LeakyReLU) for m in model.modules()) == 4
    assert model.score_kind == "log_mae"
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(2.86e6, rel=0.01)
    assert nn.AE.rmm(identity, latent=100, score="mse").score_kind == "mse"


def test_a_logarithm_of_the_error_is_exported(data, tmp_path):
    torch.manual_seed(1)
    options = {"output": "sigmoid", "sparse": 0.01, "score": "log_mae", "activation": "prelu"}
    model = nn.AE(8, transform=nn.Standard(8), **options)
    history = nn.fit(model, data, quick(epochs=1))
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    path = nn.export(model, tmp_path / "m.onnx", card, data.x[:100])
    np.testing.assert_allclose(ad.OnnxScorer(path)(data.x), model.scores(data.x), rtol=1e-5, atol=1e-5)


# Images


def test_pixels_are_raised_and_sum_to_what_they_did():
    data = images()
    for power in (1.0, 0.5, 0.25):
        z = PixelPower(1600, power).fit(data.x, data.weight)
        raised = data.x.astype(np.float64) ** power
        wanted = raised / raised.sum(axis=(1, 2), keepdims=True)
        scale = np.sqrt(np.average((wanted**2).mean(axis=(1, 2)), weights=data.weight))
        np.testing.assert_allclose(z(torch.from_numpy(data.x)).numpy(), wanted / scale, rtol=1e-4, atol=1e-5)
        assert z.low.min() == 0
        assert z.high.max() == pytest.approx((wanted / scale).max(), rel=1e-4)
    for power in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="must be positive"):
            PixelPower(1600, power)
    with pytest.raises(SkimError, match=r"rows of shape \(8,\) are no images"):
        PixelPower(8).fit(np.ones((3, 8), np.float32), np.ones(3))
    with pytest.raises(SkimError, match="all pixels of the training images are empty"):
        PixelPower(4).fit(np.zeros((3, 2, 2), np.float32), np.ones(3))


def test_the_score_of_an_image_is_its_squared_error_summed():
    model = ImageAE(transform=torch.nn.Identity())
    z = torch.from_numpy(images(n=5).x)
    with torch.no_grad():
        wanted = ((z - model.reconstruct(z)) ** 2).sum(dim=(1, 2))
        torch.testing.assert_close(model.score(z), wanted)


@pytest.mark.parametrize("smear", [0.5, 1.0, 2.0])
def test_smearing_is_a_gaussian_on_both_images(smear):
    """Pixels outside count as empty, as scipy's mode "constant" has it."""
    torch.manual_seed(1)
    model = ImageAE(transform=torch.nn.Identity(), smear=smear)
    z = torch.from_numpy(images(n=4).x)
    with torch.no_grad():
        made = model.reconstruct(z).numpy().astype(np.float64)
        got = model.score(z).numpy()
    one, two = (
        gaussian_filter(i, smear, mode="constant", truncate=4, axes=(1, 2))
        for i in (z.numpy().astype(np.float64), made)
    )
    np.testing.assert_allclose(got, ((one - two) ** 2).sum(axis=(1, 2)), rtol=1e-4)


def test_a_pixel_one_place_off_is_a_smaller_error_after_smearing():
    one, two = torch.zeros(1, 40, 40), torch.zeros(1, 40, 40)
    one[0, 20, 20], two[0, 20, 21] = 1, 1

    class Misplaced(ImageAE):
        def reconstruct(self, z):
            return two

    errors = [Misplaced(transform=torch.nn.Identity(), smear=s).energy(one) for s in (0.0, 1.0)]
    alone = [Misplaced(transform=torch.nn.Identity(), smear=s).energy(two + two) for s in (0.0, 1.0)]
    assert errors[0] / alone[0] == pytest.approx(2)
    assert errors[1] / alone[1] < 0.5


def test_images_of_other_sizes_must_be_halved_evenly():
    assert ImageAE(20, channels=(4, 8), transform=torch.nn.Identity()).score(torch.zeros(2, 20, 20)).shape == (2,)
    with pytest.raises(ConfigError, match="images of 30 pixels a side cannot be halved 2 times"):
        ImageAE(30, transform=torch.nn.Identity())
    with pytest.raises(ConfigError, match="smear is -1, but must be a width in pixels"):
        ImageAE(transform=torch.nn.Identity(), smear=-1.0)


def test_an_image_model_trains_and_is_exported_small(tmp_path):
    data = images()
    torch.manual_seed(1)
    model = ImageAE(transform=PixelPower(1600, 0.5), activation="silu", smear=1.0)
    history = nn.fit(model, data, quick(epochs=3, samples_per_epoch=256, batch_size=64, learning_rate=2e-3))
    assert history[-1]["reconstruction"] < history[0]["reconstruction"]
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
    card = nn.make_card(model, data, name="toy", config={}, metrics=history[-1])
    path = nn.export(model, tmp_path / "images.onnx", card, data.x[:50])
    assert path.stat().st_size < 5e6
    x = data.x[:60].copy()
    x[3, 2, 2] = np.nan
    got = np.asarray(ad.OnnxScorer(path)(x))
    assert np.flatnonzero(np.isnan(got)).tolist() == [3]
    np.testing.assert_allclose(got, model.scores(x), rtol=1e-4)


# The recipe


@pytest.fixture(scope="module")
def skims(tmp_path_factory):
    folder = tmp_path_factory.mktemp("skims")
    fileset = {"ttbar": {"files": {str(DATA / "ttbar_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}
    jets = ["features=[{name: jet_substructure}, {name: jet_images}]", "jet_pt_min=150"]
    ad.run(fileset, "skim_jets", overrides=jets, executor="iterative", output=folder / "jets")
    ad.run(
        fileset, "skim_events", overrides=["leading_lepton_pt_min=0"], executor="iterative", output=folder / "events"
    )
    return folder


@cache
def recipe():
    return recipes.load(recipes.find("autoencoder"))


def configured(skims, level, config, *overrides):
    made = recipe()
    path = recipes.find_config(config) if config else None
    short = ["train.epochs=1", "train.samples_per_epoch=64", "train.batch_size=32", "train.validation_rows=8"]
    return made, load_config(made.Config, path, [f"data={skims / level}", "efficiencies=[0.5]", *short, *overrides])


def train(skims, level, config, output, *overrides):
    made, settings = configured(skims, level, config, *overrides)
    return made.train(settings, output)


@pytest.mark.plot
@pytest.mark.parametrize(
    ("level", "config", "overrides"),
    [
        ("event", "autoencoder/rmm.yaml", ["hidden=[32]", "latent=8", "out_of_core=true"]),
        ("jet", "autoencoder/images.yaml", ["power=0.5", "smear=1"]),
    ],
)
def test_the_recipe_trains_models_that_tag(skims, tmp_path, level, config, overrides):
    out = tmp_path / "m.onnx"
    summary = train(skims, f"{level}s", config, out, *overrides)
    assert np.isfinite(summary["best"]["reconstruction"])
    tagger = ad.Tagger(out)
    assert tagger.card.level == level
    assert (tmp_path / "m" / "training.png").exists()
    assert (tmp_path / "m" / "rows").exists() == (level == "event")


@pytest.mark.parametrize(
    ("config", "overrides", "expected", "score"),
    [
        ("autoencoder/svj.yaml", [], [8, 10, 10, 6, 10, 10, 8], "mse"),
        (None, ["preset=svj", "latent=3", "sparse=0.1", "preprocessing=standard"], [8, 10, 10, 3, 10, 10, 8], "mse"),
        ("autoencoder/rmm.yaml", [], [1287, 800, 400, 200, 400, 800, 1287], "log_mae"),
        ("autoencoder/rmm.yaml", ["hidden=[9]", "score=mae"], [1287, 9, 200, 9, 1287], "mae"),
    ],
)
def test_the_recipe_builds_what_is_written_besides_a_preset(skims, config, overrides, expected, score):
    made, settings = configured(skims, "events" if 1287 in expected else "jets", config, *overrides)
    data = nn.load_skim(settings.data, settings.feature, settings.options)
    model = made.build(settings, data)
    assert widths(model) == expected
    assert model.score_kind == score
    assert model.sparse == settings.sparse
    kinds = {"quantile": nn.QuantileNormal, "standard": nn.Standard, "none": nn.Unchanged}
    assert type(model.transform) is kinds[settings.preprocessing]


@pytest.mark.parametrize(
    ("level", "overrides", "message"),
    [
        ("jets", ["preset=rmm"], "preset rmm takes 1287 inputs, but jet_substructure has 8"),
        ("jets", ["network=image"], r"network=image takes square images .*, but rows of jet_substructure are \(8,\)"),
        ("jets", ["feature=jet_images"], r"rows of jet_images have the shape \(40, 40\): .* network=image"),
        ("jets", ["smear=1"], "smear is an option of network=image only"),
        ("jets", ["feature=jet_images", "network=image", "score=mae"], "score is an option of network=dense only"),
        ("jets", ["feature=jet_images", "network=image", "hidden=[9, 9]"], "hidden is one number"),
    ],
)
def test_options_that_do_not_go_together_are_refused(skims, tmp_path, level, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train(skims, level, None, tmp_path / "m.onnx", *overrides)
