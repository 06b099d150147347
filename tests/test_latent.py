"""Axes of a representation are its principal ones, whatever its coordinates; folders of encoders give h; and the command shows both."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import ortho_group, spearmanr
from test_attach import network
from toys import DATA

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import ConfigError
from coffea_ad.evaluation import latent_figure
from coffea_ad.evaluation.latent import girth, latent
from coffea_ad.modelfiles.attach import AttachConfig, attach

SETS = {"name": "jet_constituents", "options": {"n": 12}}


def rows(seed, n=80, d=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) * np.arange(1, d + 1) @ ortho_group.rvs(d, random_state=seed), rng.integers(1, 4, n)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_axes_are_those_of_scikit_learn_with_weights_as_numbers_of_rows(seed):
    decomposition = pytest.importorskip("sklearn.decomposition")
    h, w = rows(seed)
    signal = rows(seed + 1)[0]
    space = latent(h, w, {"s": signal}, {})
    pca = decomposition.PCA(2, svd_solver="full").fit(np.repeat(h, w, axis=0))
    np.testing.assert_allclose(space.explained, pca.explained_variance_ratio_, rtol=1e-9)
    for ours, theirs in ((space.background, pca.transform(h)), (space.signals["s"], pca.transform(signal))):
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), rtol=1e-6, atol=1e-8)


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=40)
def test_other_coordinates_of_the_same_representation_give_the_same_axes(seed):
    h, w = rows(seed)
    first = latent(h, w, {"s": h[:9] + 3}, {"c": h[:, 0]})
    turned = ortho_group.rvs(5, random_state=seed + 7)
    other = latent(h @ turned + 11, w, {"s": (h[:9] + 3) @ turned + 11}, {"c": h[:, 0]})
    np.testing.assert_allclose(first.explained, other.explained, rtol=1e-9)
    np.testing.assert_allclose(np.abs(first.background), np.abs(other.background), atol=1e-8)
    np.testing.assert_allclose(np.abs(first.signals["s"]), np.abs(other.signals["s"]), atol=1e-8)
    np.testing.assert_allclose(np.abs(first.correlations["c"]), np.abs(other.correlations["c"]), atol=1e-12)


def test_correlations_are_those_of_ranks_of_rows_where_the_column_is_known():
    h, _ = rows(3)
    column = np.exp(h[:, 1])
    column[4] = np.nan
    space = latent(h, np.ones(len(h)), {}, {"c": column})
    keep = np.isfinite(column)
    expected = [spearmanr(space.background[keep, i], h[keep, 1]).statistic for i in (0, 1)]
    np.testing.assert_allclose(space.correlations["c"], expected, atol=1e-9)


def test_rows_of_negative_weight_do_not_count():
    h, w = rows(5)
    w = np.where(np.arange(len(h)) < 10, -w, w)
    all_of_them, without = latent(h, w, {}, {}), latent(h[10:], w[10:], {}, {})
    np.testing.assert_allclose(all_of_them.explained, without.explained, rtol=1e-12)


@pytest.mark.parametrize(
    ("h", "sentence"),
    [(np.zeros((9, 1)), "of 1 dimension has no two axes"), (np.ones((9, 3)), "the same for all rows")],
)
def test_a_representation_without_two_axes_is_refused(h, sentence):
    with pytest.raises(ConfigError, match=sentence):
        latent(h, np.ones(9), {}, {})


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=30)
def test_girth_is_that_of_a_slow_sum(seed):
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.1, 2, (5, 4, 4)) * (rng.random((5, 4, 1)) < 0.8)
    columns = ["dphi", "pt", "charge", "deta"]
    for jet, width in zip(x, girth(x, columns), strict=True):
        total = sum(pt for _, pt, _, _ in jet)
        slow = sum(pt * (deta**2 + dphi**2) ** 0.5 for dphi, pt, _, deta in jet) / total if total else np.nan
        np.testing.assert_allclose(width, slow)
    assert girth(x, ["pt", "deta", "phi", "charge"]) is None


def test_a_contour_holds_68_percent_of_what_it_is_drawn_for():
    points = np.random.default_rng(1).normal(size=(60_000, 2)) * [1, 3]
    edges = latent_figure._edges(points[:, 0]), latent_figure._edges(points[:, 1])
    share = gaussian_filter(latent_figure._content(points, np.ones(len(points)), edges), 0.5)
    inside = share >= latent_figure._level(share)
    assert share[inside].sum() / share.sum() == pytest.approx(0.68, abs=0.01)
    middle = [0.5 * (e[1:] + e[:-1]) for e in edges]
    radius = np.hypot(middle[0][None, :], middle[1][:, None] / 3)
    assert radius[inside].max() == pytest.approx(np.sqrt(-2 * np.log(0.32)), abs=0.2)  # of a normal distribution


@pytest.mark.plot
@pytest.mark.parametrize(("signals", "columns"), [(7, 5), (0, 0)])
def test_any_number_of_signals_and_columns_is_drawn(signals, columns, tmp_path):
    from matplotlib.image import imread

    h, w = rows(1)
    space = latent(h, w, {f"s{i}": h + i for i in range(signals)}, {f"c{i}": h[:, 0] for i in range(columns)})
    latent_figure.draw_latent(space, tmp_path / "latent.png")
    drawn = imread(tmp_path / "latent.png")[:, :, :3]
    colored = np.ptp(drawn.reshape(-1, 3), axis=1) > 0.3
    assert colored.any() == (signals > 0)
    assert (drawn < 0.2).all(axis=2).any()  # the background's contour


# --- folders of encoders -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skim(tmp_path_factory):
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for n in ("qcd", "ttbar")
    }
    folder = tmp_path_factory.mktemp("sets") / "skim"
    ad.run(
        fileset,
        "skim_jets",
        overrides=[f"features={json.dumps([SETS])}", "jets=each"],
        executor="iterative",
        output=folder,
    )
    return folder


def untrained_rows(x):
    from coffea_ad import nn

    return nn.Skim(x, np.ones(len(x)), np.full(len(x), "qcd"), np.resize(["train", "validation"], len(x)), {}, (), {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of an encoder after an epoch."""
    from coffea_ad import nn

    folder = tmp_path_factory.mktemp("models") / "encoder"
    encoder = nn.SetEncoder(
        12, nn.Tokens(["pt", "deta", "dphi"], scale="log"), width=8, heads=2, layers=1, feedforward=8, outputs=6
    )
    x = np.random.default_rng(1).uniform(0, 1, (300, 12, 3)).astype(np.float32)
    nn.fit(nn.MaskedParticles(encoder), untrained_rows(x), nn.TrainConfig(epochs=1), folder)
    return folder


@pytest.fixture(scope="module")
def leading(tmp_path_factory):
    """A model file that scores a set by the largest pT in it."""
    path = tmp_path_factory.mktemp("file") / "leading.onnx"
    nodes = [("ReduceMax", ("features", "axes"), "score", {"keepdims": 0})]
    plain = network(nodes, {"axes": np.array([1, 2])}, row=(12, 3))
    path.write_bytes(attach(plain, AttachConfig(name="leading", method="largest pT", features=(SETS,))))
    return path


@pytest.mark.torch
def test_a_folder_gives_the_representation_of_the_encoder_in_it(trained, tmp_path):
    import torch

    from coffea_ad import nn
    from coffea_ad.nn.loading import load_encoder, load_model
    from coffea_ad.nn.self_supervised.scores import score_on

    model, _ = load_model(trained)
    x = np.random.default_rng(1).uniform(0, 1, (1100, 12, 3)).astype(np.float32)  # more than a block
    with torch.no_grad():
        h, z = (f(torch.from_numpy(x)).numpy() for f in (model.encoder.h, model.encoder.z))
    np.testing.assert_allclose(load_encoder(trained)(x), h, rtol=1e-5, atol=1e-5)
    score = score_on(model.encoder.giving("z"), "mahalanobis")
    nn.fit(score, untrained_rows(x), nn.TrainConfig(epochs=1), tmp_path / "score")
    np.testing.assert_allclose(load_encoder(tmp_path / "score")(x), z, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match=r"encoder: the encoder takes rows of shape \(12, 3\), not \(8,\)"):
        load_encoder(trained)(np.zeros((4, 8), np.float32))


@pytest.mark.torch
def test_folders_without_one_encoder_are_refused(tmp_path):
    from coffea_ad import nn
    from coffea_ad.nn.loading import load_encoder

    x = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    autoencoder = nn.AE(4, hidden=(4,), latent=2, transform=nn.Standard(4))
    nn.fit(autoencoder, untrained_rows(x), nn.TrainConfig(epochs=1), tmp_path / "ae")
    with pytest.raises(ConfigError, match="ae: a AE has no encoder; those of clr and pretrain have"):
        load_encoder(tmp_path / "ae")
    with pytest.raises(ConfigError, match="no trained model in this folder"):
        load_encoder(tmp_path / "nothing")
    (tmp_path / "folds.json").write_text("{}")
    with pytest.raises(ConfigError, match="every fold has an encoder; take one of them, .*fold_0"):
        load_encoder(tmp_path)


@pytest.mark.torch
def test_the_command_shows_what_the_axes_follow(skim, leading, trained, tmp_path, capsys):
    words = ["evaluate", str(leading), "--background", str(skim), "--datasets", "qcd", "--signal-datasets", "ttbar",
             "--bootstrap", "2", "--no-baselines", "-o", str(tmp_path / "out")]  # fmt: skip
    assert cli.main([*words, "--latent", f"pretrained={trained}", "--filters", "pt > 200"]) == 0
    assert "representation of pretrained, background" in capsys.readouterr().out
    record = json.loads((tmp_path / "out/evaluation.json").read_text())["latent"]["pretrained"]
    assert set(record["correlations"]) >= {"multiplicity", "mass", "pT", "girth"}
    assert 1 >= record["explained"][0] >= record["explained"][1] >= 0
    row = re.search(r"\| first \| ([\d.]+) \|", (tmp_path / "out/table.md").read_text())
    assert float(row[1]) == pytest.approx(record["explained"][0], abs=1e-3)
    assert (tmp_path / "out/figures/latent_pretrained.png").stat().st_size > 10_000
    assert cli.main([*words, "--force", "--latent", "a=x,y"]) == 1
    assert "--latent a=…: every encoder is drawn by itself" in capsys.readouterr().err
