"""Data and simulation under either name of the metadata, signals among backgrounds: nothing is taken for what it is not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from toy_skims import NAME, toy_rows, write_skim
from toys import DATA

import coffea_ad as ad
from coffea_ad.cli.main import main
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.filesets import load_fileset
from coffea_ad.skims.reading import load_skim

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]


def test_a_fileset_is_settled_once_for_everybody_who_reads_it(tmp_path):
    files = {"a.root": "Events"}
    entry = {
        "met": {"files": files, "metadata": {"isMC": False}},
        "qcd": {"files": files, "metadata": {"isMC": True, "cross_section": "3"}},
    }
    (tmp_path / "f.json").write_text(json.dumps(entry))
    for source in (entry, tmp_path / "f.json"):
        fileset = load_fileset(source)
        assert fileset["met"]["metadata"]["is_mc"] is False
        assert fileset["qcd"]["metadata"]["is_mc"] is True
        assert fileset["qcd"]["metadata"]["xsec"] == 3.0
        assert fileset["qcd"]["metadata"]["isMC"] is True  # a processor of one's own may read that


@pytest.fixture(scope="module")
def results(tmp_path_factory, model_file):
    folder = tmp_path_factory.mktemp("results") / "r"
    fileset = {
        name: {"files": {str(DATA / "svj_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}
        for name in ("svj", "met")
    }
    ad.run(fileset, "semivisible_jets", model=model_file, overrides=LOOSE, executor="iterative", output=folder)
    return folder


@pytest.fixture(params=["is_mc", "isMC"])
def with_data(request, results, tmp_path):
    """Results, also such as were made before filesets were settled, in which `met` is data."""
    import shutil

    folder = shutil.copytree(results, tmp_path / "r")
    report = json.loads((folder / "report.json").read_text())
    metadata = report["datasets"]["met"]["metadata"]
    report["datasets"]["met"]["metadata"] = {k: v for k, v in metadata.items() if k not in ("is_mc", "isMC")} | {
        request.param: False
    }
    report["datasets"]["met"].pop("blinded")  # it was simulation when it was filled
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_thresholds_from_blinded_data_are_refused(with_data, model_file, tmp_path, capsys):
    words = [
        "regions",
        str(model_file),
        "--from",
        str(with_data),
        "--efficiency",
        "0.3",
        "-o",
        str(tmp_path / "n.onnx"),
    ]
    assert main([*words, "--datasets", "met"]) == 1
    assert "dataset met is blinded data; thresholds from it would be wrong" in capsys.readouterr().err
    assert main([*words, "--datasets", "svj"]) == 0


@pytest.mark.plot
def test_data_are_drawn_as_points_and_not_stacked(with_data, tmp_path, monkeypatch):
    import mplhep

    from coffea_ad import plotting

    drawn = {}
    histplot = mplhep.histplot

    def record(*args, **settings):
        drawn[str(settings["label"])] = settings["histtype"]
        return histplot(*args, **settings)

    monkeypatch.setattr(mplhep, "histplot", record)
    plotting.stack(ad.load_results(with_data), "ad_logp", "inclusive", tmp_path / "x.png")
    assert drawn == {"['svj']": "fill", "met": "errorbar"}


@pytest.mark.parametrize("mark", [{"is_signal": True}, {"signal": True}, {"kind": "signal"}])
def test_a_skim_keeps_what_marks_a_signal(tmp_path, mark):
    files = {str(DATA / "svj_v15.root"): "Events"}
    fileset = {
        "svj": {"files": files, "metadata": {"is_mc": True, "xsec": 1.0, **mark}},
        "qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"isMC": True, "cross_section": 7.0}},
    }
    ad.run(fileset, "skim_jets", config="skim_jets.yaml", executor="iterative", output=tmp_path / "s")
    data = load_skim(tmp_path / "s", NAME)
    assert data.provenance["signals"] == ["svj"]
    assert data.provenance["xsec"] == {"svj": 1.0, "qcd": 7.0}
    assert data.provenance["collection"] == "FatJet"


@pytest.fixture
def mixed(tmp_path):
    rows, _ = toy_rows(600)
    one = {"x": rows, "weight": np.r_[-np.ones(60), np.ones(540)], "xsec": 1.0}
    return write_skim(tmp_path / "skim", {"qcd": one, "svj": {**one, "is_signal": True}}, collection="Jet")


@pytest.mark.torch
def test_a_training_takes_no_signal_that_nobody_asked_for(mixed, capsys):
    from coffea_ad import nn

    model = nn.PCA(8, components=2, transform=nn.Standard(8))
    with pytest.raises(SkimError, match=r"dataset svj is marked as a signal .* 'datasets=\[qcd\]'"):
        nn.fit(model, load_skim(mixed, NAME), nn.TrainConfig(epochs=1))
    nn.fit(model, load_skim(mixed, NAME, datasets=["svj"]), nn.TrainConfig(epochs=1))  # the other direction
    data = load_skim(mixed, NAME)
    nn.fit(model, data.select(data.dataset == "qcd"), nn.TrainConfig(epochs=1))
    capsys.readouterr()
    nn.fit(model, load_skim(mixed, NAME, datasets=["qcd"]), nn.TrainConfig(epochs=1))
    said = capsys.readouterr().err
    assert "PCA trains on qcd (600 rows, N_eff 540): train " in said
    assert "negative weights, 10.00% of all, are left out" in said


@pytest.mark.torch
def test_the_command_line_refuses_a_signal_too(mixed, tmp_path, capsys):
    words = ["run", "pca", f"data={mixed}", "-o", str(tmp_path / "pca.onnx")]
    assert main(words) == 1
    assert "dataset svj is marked as a signal" in capsys.readouterr().err
    assert not (tmp_path / "pca.onnx").exists()


@pytest.mark.torch
def test_the_card_names_the_collection_of_the_skim(mixed):
    from coffea_ad import nn

    data = load_skim(mixed, NAME, datasets=["qcd"])
    model = nn.PCA(8, components=2, transform=nn.Standard(8))
    metrics = nn.fit(model, data, nn.TrainConfig(epochs=1))[0]
    assert nn.make_card(model, data, name="t", config={}, metrics=metrics).collection == "Jet"
    assert nn.make_card(model, data, name="t", config={}, metrics=metrics, collection="CA15").collection == "CA15"


@pytest.mark.torch
def test_a_training_on_weights_that_cancel_ends_in_one_sentence(tmp_path, capsys):
    rows, _ = toy_rows(200)
    skim = write_skim(tmp_path / "s", {"odd": {"x": rows, "weight": np.tile([1.0, -1.0], 100), "xsec": 1.0}})
    assert main(["run", "pca", f"data={skim}", "-o", str(tmp_path / "pca.onnx")]) == 1
    error = capsys.readouterr().err
    assert "error: dataset odd: its generator weights sum to 0, so it cannot be normalised" in error


def test_what_is_background_is_asked_where_it_is_not_clear(tmp_path, model_file):
    from coffea_ad.skims.background import background

    rows, _ = toy_rows(100)
    one = {"x": rows, "weight": np.ones(100), "xsec": 1.0}
    folder = write_skim(tmp_path / "s", {"a": one, "b": one})
    card = ad.OnnxScorer(model_file).card
    with pytest.raises(ConfigError, match="say which datasets are the background with --datasets; there are: a, b"):
        background(card, folder)
    some = background(card, folder, ["a"])
    assert set(some.split.tolist()) == {"validation"}
    assert set(background(card, folder, ["a"], ("train", "test")).split.tolist()) == {"train", "test"}
