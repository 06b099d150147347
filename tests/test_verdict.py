"""A training that failed says so: on its card, and in the last line."""

from __future__ import annotations

import numpy as np
import pytest
from toy_skims import toy_rows, write_skim
from toys import toy_skim

from coffea_ad.cli.main import main

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def data():
    return toy_skim(n=8000)


@pytest.fixture(scope="module")
def trained(data):
    import torch

    from coffea_ad import nn

    torch.manual_seed(1)
    model = nn.AE(8, transform=nn.Standard(8))
    history = nn.fit(model, data, nn.TrainConfig(epochs=4, samples_per_epoch=4096))
    return model, history[-1]


def judged(model, data, metrics, epochs=4):
    from coffea_ad import nn

    card = nn.make_card(model, data, name="t", config={"train": {"epochs": epochs}}, metrics=metrics)
    return card.provenance["verdict"]


def test_a_training_that_worked_is_not_doubted(trained, data):
    model, metrics = trained
    assert judged(model, data, metrics) == []


@pytest.mark.parametrize("factor", [10.0, 1e17])
def test_a_reconstruction_that_is_worse_than_a_constant_is_named(trained, data, factor):
    import copy

    import torch

    model = copy.deepcopy(trained[0])
    with torch.no_grad():
        model.decoder[-1].weight.mul_(factor)
        z = model.transform(torch.from_numpy(data.x))
        error = float(model.energy(z).mean())
    (sentence,) = judged(model, data, {**trained[1], "reconstruction": error})
    assert sentence.startswith(
        f"the reconstruction is no better than a constant: its error is {error:.3g}, that of a constant "
    )
    assert float(sentence.rsplit(" ", 1)[1]) == pytest.approx(1.0, abs=0.15)  # of standardised columns


@pytest.mark.parametrize("smear", [0.0, 1.0])
def test_images_are_compared_with_a_constant_image_as_their_model_sums_errors(smear):
    """Their error is a sum over all pixels, behind the smearing; that of a constant has to be as well."""
    from scipy.ndimage import gaussian_filter
    from test_autoencoders import images

    from coffea_ad import nn
    from coffea_ad.nn.training.verdict import verdict

    data = images(size=16)
    model = nn.ImageAE(16, transform=nn.PixelPower(256, 0.5).fit(data.x, data.weight), smear=smear)
    z = model.transform(model.transform.scale.new_tensor(data.x)).double().numpy()
    weight = data.weight / data.weight.sum()
    away = z - np.einsum("n,nij->ij", weight, z)
    if smear:
        away = gaussian_filter(away, smear, mode="constant", truncate=4, axes=(1, 2))
    of_rows = (away**2).sum(axis=(1, 2))
    constant = weight @ of_rows

    def said(error):
        return verdict([model], data, np.arange(len(data.x), dtype=np.float32), [], {"reconstruction": error})

    assert said(0.9 * constant) == []
    (sentence,) = said(1.2 * constant)
    assert sentence.startswith("the reconstruction is no better than a constant: ")
    spread = np.sqrt(weight**2 @ (of_rows - constant) ** 2)
    assert float(sentence.rsplit(" ", 1)[1]) == pytest.approx(0.99 * constant + spread, rel=5e-3)  # three digits


def test_a_model_without_a_finite_score_is_refused(trained, data):
    import copy

    from coffea_ad.errors import ConfigError

    model = copy.deepcopy(trained[0])
    model.decoder[-1].weight.data.mul_(1e38).mul_(1e38)
    with pytest.raises(ConfigError, match="t: none of .* held-out rows has a finite score; the training has failed"):
        judged(model, data, trained[1])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epoch": 0.0}, "no later epoch of 4 was better than the first"),
        ({"active": 0.0}, "the posterior has collapsed"),
        ({"loss": float("nan")}, "the metric loss of the kept epoch is nan"),
        ({"excess": 12.0}, "the chains are far from the data: the excess of W₂² is 12"),
        (
            {"long_run": {"steps": [0, 2000], "buffer": [0.1, 22.0], "buffer_error": [0.1, 1.5], "data": [0.1, 0.2]}},
            "2000 further steps take chains from the buffer 22 ± 1.5 away",
        ),
    ],
)
def test_what_failed_is_named(trained, data, changes, sentence):
    model, metrics = trained
    (said,) = judged(model, data, {**metrics, **changes})
    assert sentence in said


def test_a_small_excess_within_its_error_is_no_doubt(trained, data):
    model, metrics = trained
    fine = {"steps": [2000], "buffer": [1.2], "buffer_error": [0.2], "data": [2.5], "data_error": [0.9]}
    assert judged(model, data, {**metrics, "excess": 1.0, "long_run": fine}) == []


def test_few_rows_and_scores_that_are_all_the_same_are_named(trained, data):
    import copy

    import torch

    model, metrics = trained
    few = data.select(np.arange(150))
    (sentence,) = judged(model, few, {**metrics, "reconstruction": 0.1})
    assert sentence.startswith("the calibration rests on ")
    assert sentence.endswith("fewer than 100")
    coarse = copy.deepcopy(model)
    coarse.energy = lambda z: torch.round(z[:, 0])  # type: ignore[method-assign]
    assert any("different scores" in s for s in judged(coarse, data, metrics))


def test_regions_that_are_not_written_say_why():
    from coffea_ad.scoring import regions

    rng = np.random.default_rng(1)
    score, weight = rng.normal(size=3000), np.ones(3000)
    written, left_out = regions.derive((regions.calibrate(score, weight, "toy"),), score, weight)
    assert [r.name for r in written] == ["loose", "medium"]
    assert left_out == (
        (
            "region tight is not written: it would rest on 3.0 effective background objects, 10 are needed; 3000 are there, "
            "an efficiency of 0.001 takes about 10000"
        ),
    )
    ties = rng.poisson(1.0, 20_000).astype(float)
    table = regions.calibrate(ties, np.ones(20_000), "toy")
    written, left_out = regions.derive((table,), ties, np.ones(20_000), [0.1])
    assert written == ()
    assert left_out[0].startswith("region loose is not written: scores are tied, so that its threshold keeps 0.0")
    assert left_out[0].endswith("of the background instead of 0.1")


def test_the_verdict_stands_in_the_last_line_and_on_the_card(tmp_path, capsys):
    rows, _ = toy_rows(4000)
    skim = write_skim(tmp_path / "s", {"qcd": {"x": rows, "weight": np.ones(4000), "xsec": 1.0}})
    out = tmp_path / "ae.onnx"
    words = ["run", "autoencoder", f"data={skim}", "train.epochs=2", "-o", str(out), "train.samples_per_epoch=512"]
    assert main([*words, "train.learning_rate=1e-9"]) == 0
    printed = capsys.readouterr().out
    last = printed.strip().splitlines()[-1]
    assert last.startswith("verdict: the reconstruction is no better than a constant")
    assert "note: region tight is not written: it would rest on " in printed
    assert main(["card", str(out)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "verdict" in printed
    assert "the reconstruction is no better than" in printed
    assert "region tight is not written" in printed
