from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import yaml
from toys import DATA

import coffea_ad as ad
from coffea_ad.cli.main import main
from coffea_ad.config import parse_overrides
from coffea_ad.errors import ConfigError


@pytest.fixture
def fileset_file(fileset, tmp_path):
    path = tmp_path / "fileset.json"
    path.write_text(json.dumps(fileset))
    return path


def test_ls_shows_every_recipe_with_one_line(capsys):
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    for name in ("skim_jets", "semivisible_jets", "autoencoder", "wnae"):
        assert name in out


def test_simulate_without_a_name_shows_the_processes(capsys):
    assert main(["simulate"]) == 0
    out = capsys.readouterr().out
    assert "svj_t" in out
    assert "m_phi" in out


@pytest.mark.plot
@pytest.mark.usefixtures("unarranged")
def test_run_writes_a_results_folder_with_figures(fileset_file, model_file, tmp_path, capsys):
    code = main(
        ["run", "semivisible_jets", "met_min=0", "rt_min=0", "--fileset", str(fileset_file), "--model", str(model_file),
         "--executor", "iterative", "-o", str(tmp_path / "r"), "--lumi", "10"]
    )  # fmt: skip
    assert code == 0
    names = {p.name for p in (tmp_path / "r").iterdir()}
    assert {"report.json", "histograms.zip", "figures"} <= names
    assert (tmp_path / "r" / "figures" / "mt_inclusive.png").stat().st_size > 5000
    assert "150" in capsys.readouterr().out
    assert ad.load_results(tmp_path / "r").report["lumi"] == 10


@pytest.mark.usefixtures("undrawn")
def test_a_copied_recipe_runs_by_its_path(fileset_file, model_file, tmp_path, capsys):
    mine = tmp_path / "mine.py"
    assert main(["cp", "semivisible_jets", str(mine)]) == 0
    assert mine.with_suffix(".yaml").exists()
    edited = mine.read_text().replace("met_min: cuts.Cut = Field(100.0", "met_min: cuts.Cut = Field(0.0")
    mine.write_text(edited)
    mine.with_suffix(".yaml").unlink()  # it would say otherwise
    code = main(
        [
            "run",
            str(mine),
            "--fileset",
            str(fileset_file),
            "--model",
            str(model_file),
            "--executor",
            "iterative",
            "-o",
            str(tmp_path / "r"),
        ]
    )
    assert code == 0
    assert ad.load_results(tmp_path / "r").report["config"]["met_min"] == 0
    assert main(["cp", "semivisible_jets", str(mine)]) == 1
    assert "exists already; nothing was copied, --force overwrites it" in capsys.readouterr().err


def test_card_prints_and_rechecks(model_file, capsys):
    assert main(["card", str(model_file)]) == 0
    out = capsys.readouterr().out
    for word in ("sigma1", "loose", "re-evaluated", "verified"):
        assert word in out


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["run", "semivisible_jet", "--fileset", "f.json"], "did you mean 'semivisible_jets'"),
        (["run", "semivisible_jets"], "needs --fileset"),
        (["run", "nowhere/mine.py", "--fileset", "f.json"], "there is no such file"),
        (["run", "semivisible_jets", "--fileset", "nowhere.json", "--model", "MODEL", "-o", "r"], "nowhere.json: the fileset cannot be read"),
        (["run", "semivisible_jets", "--fileset", "FILESET", "--model", "nowhere.onnx", "-t"], "nowhere.onnx: cannot be read"),
        (["run", "semivisible_jets", "met_mn=1", "--fileset", "FILESET", "--model", "MODEL", "-t"], "did you mean 'met_min'"),
        (["run", "semivisible_jets", "met_min", "--fileset", "FILESET", "--model", "MODEL", "-t"], "not of the form key=value"),
        (["run", "semivisible_jets", "--config", "svj.yml", "--fileset", "FILESET", "--model", "MODEL", "-t"], "svj.yml: there is no such file"),
        pytest.param(["run", "wnae", "data=skims"], "-o MODEL.onnx", marks=pytest.mark.torch),
        (["card", "README.md"], "README.md: "),
        (["simulate", "sv"], "did you mean 'svj'"),
        (["cp", "nothing", "."], "unknown recipe"),
        (["regions", "MODEL", "--from", "nowhere", "--efficiency", "0.1"], "no skim here"),
    ],
)  # fmt: skip
def test_wrong_input_ends_in_one_sentence_and_exit_code_one(argv, sentence, fileset_file, model_file, capsys):
    words = [str({"FILESET": fileset_file, "MODEL": model_file}.get(a, a)) for a in argv]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert sentence in err
    assert "Traceback" not in err


def test_an_edited_model_is_refused_with_a_sentence(fileset_file, model_file, tmp_path, capsys):
    data = bytearray(model_file.read_bytes())
    data[len(data) // 2] ^= 1
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(bytes(data))
    assert main(["run", "semivisible_jets", "--fileset", str(fileset_file), "--model", str(bad), "-t"]) == 1
    assert "does not match its digest" in capsys.readouterr().err


def test_overrides_are_yaml_with_dots():
    assert parse_overrides(["a.b=1", "a.c=[x, y]", "d=true"]) == {"a": {"b": 1, "c": ["x", "y"]}, "d": True}
    with pytest.raises(ConfigError, match="to a value and to keys"):
        parse_overrides(["a=1", "a.b=2"])


@pytest.fixture(scope="module")
def skims(tmp_path_factory):
    out = tmp_path_factory.mktemp("skims")
    fileset = {
        n: {"files": {str(DATA / f"{n}_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": x}}
        for n, x in (("qcd", 1000.0), ("ttbar", 1000.0))
    }
    ad.run(fileset, "skim_jets", config="skim_jets.yaml", executor="iterative", output=out)
    return out


def test_regions_from_a_skim_put_new_thresholds_on_the_same_network(skims, model_file, tmp_path):
    new = tmp_path / "new.onnx"
    assert (
        main(
            [
                "regions",
                str(model_file),
                "--from",
                str(skims),
                "--efficiency",
                "0.3",
                "0.2",
                "--datasets",
                "qcd",
                "ttbar",
                "-o",
                str(new),
            ]
        )
        == 0
    )
    one, two = ad.Tagger(model_file), ad.Tagger(new)
    assert [r.name for r in two.card.regions] == ["eff0.3", "eff0.2"]
    assert two.card.calibration == one.card.calibration
    rows = np.array(one.card.golden.inputs["features"], np.float32)
    np.testing.assert_array_equal(one.scorer(rows), two.scorer(rows))
    from coffea_ad.skims.reading import load_skim

    data = load_skim(skims, "jet_substructure")
    values = ad.regions.logp(two.card.calibration, two.scorer(data.x))
    for region in two.card.regions:
        eps, error, _ = ad.regions.efficiency(values, data.weight, region.thresholds[0])
        assert abs(eps - region.efficiency) < 3 * error
        assert region.derived_from == "validation rows of qcd, ttbar, each weighing genWeight · xsec / sumw"


def test_regions_by_visible_cross_section_keep_that_rate(skims, model_file, tmp_path):
    from coffea_ad.skims.reading import load_skim

    data = load_skim(skims, "jet_substructure")
    total = data.provenance["total_weight"]  # pb of jets
    new = tmp_path / "new.onnx"
    rate = 0.25 * total
    assert (
        main(
            [
                "regions",
                str(model_file),
                "--from",
                str(skims),
                "--visible-cross-section",
                str(rate),
                "--datasets",
                "qcd",
                "ttbar",
                "-o",
                str(new),
            ]
        )
        == 0
    )
    region = ad.Tagger(new).card.regions[0]
    assert region.efficiency == pytest.approx(0.25)
    assert region.name.endswith("pb")


def test_regions_from_results_use_the_inclusive_histogram(fileset, model_file, tmp_path):
    loose = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]
    ad.run(fileset, "semivisible_jets", model=model_file, config="none", overrides=loose, executor="iterative",
           output=tmp_path / "r")  # fmt: skip
    new = tmp_path / "new.onnx"
    code = main(
        [
            "regions",
            str(model_file),
            "--from",
            str(tmp_path / "r"),
            "--efficiency",
            "0.3",
            "--datasets",
            "svj",
            "-o",
            str(new),
        ]
    )
    assert code == 0
    region = ad.Tagger(new).card.regions[0]
    h = ad.load_results(tmp_path / "r").in_regions["svj"]["ad_logp"][{"region": "inclusive", "variation": "nominal"}]
    above = h.values()[h.axes[0].edges[:-1] >= region.thresholds[0]].sum() / h.values().sum()
    assert abs(above - 0.3) < 0.1
    assert region.derived_from == "results of svj"


def test_regions_that_rest_on_nothing_are_refused(skims, model_file, capsys):
    assert main(["regions", str(model_file), "--from", str(skims), "--efficiency", "1e-5", "--datasets", "qcd"]) == 1
    assert "effective background objects" in capsys.readouterr().err
    assert main(["regions", str(model_file), "--from", str(skims), "--datasets", "qcd"]) == 1
    assert "say which regions" in capsys.readouterr().err


def plain_model(model_file, tmp_path):
    """A network without a card, as made elsewhere."""
    onnx = pytest.importorskip("onnx", reason="not installed: onnx")
    proto = onnx.load(model_file)
    del proto.metadata_props[:]
    path = tmp_path / "plain.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.mark.torch
def test_attach_gives_a_plain_model_a_card(skims, model_file, tmp_path, capsys):
    plain = plain_model(model_file, tmp_path)
    described = tmp_path / "card.yaml"
    described.write_text(yaml.safe_dump({"name": "theirs", "method": "AE", "features": [{"name": "jet_substructure"}]}))
    bare = tmp_path / "bare.onnx"
    assert main(["card", "attach", str(plain), str(described), "-o", str(bare)]) == 0
    assert ad.Tagger(bare).card.calibration is None
    full = tmp_path / "full.onnx"
    assert (
        main(
            [
                "card",
                "attach",
                str(plain),
                str(described),
                "--background",
                str(skims),
                "--datasets",
                "qcd",
                "ttbar",
                "-o",
                str(full),
            ]
        )
        == 0
    )
    card = ad.Tagger(full).card
    assert card.regions[0].name == "loose"
    rows = np.array(card.golden.inputs["features"], np.float32)
    np.testing.assert_allclose(ad.OnnxScorer(full)(rows), ad.OnnxScorer(model_file)(rows), rtol=1e-6)
    assert main(["card", "attach", str(full), str(described)]) == 1
    assert "has a card already" in capsys.readouterr().err


@pytest.mark.torch
def test_without_a_calibration_there_are_scores_and_nothing_else(svj, model_file, tmp_path):
    import awkward as ak

    plain = plain_model(model_file, tmp_path)
    described = tmp_path / "card.yaml"
    described.write_text(yaml.safe_dump({"name": "theirs", "method": "AE", "features": [{"name": "jet_substructure"}]}))
    main(["card", "attach", str(plain), str(described), "-o", str(tmp_path / "bare.onnx")])
    jets = ad.Tagger(tmp_path / "bare.onnx")(svj)
    assert ak.any(jets["ad_score"] > 0)
    assert not ak.any(jets["ad_logp"] >= 0)
    assert ak.all(jets["ad_region"] == -1)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"name": "x", "method": "AE", "features": [{"name": "jet_substructure"}], "colour": 1},
            "unknown key 'colour'",
        ),
        ({"name": "x", "method": "AE", "features": [{"name": "jet_kinematics"}]}, "not the graph's"),
        ({"name": "x", "method": "AE", "features": [{"name": "rmmm"}]}, "unknown feature 'rmmm'"),
        ({"name": "x", "method": "AE"}, "the key 'features' is missing"),
        ({"name": "x", "method": "AE", "features": [{"name": "jet_substructure"}], "input": "x"}, "not the graph's"),
    ],
)
def test_attach_refuses_what_does_not_fit(model_file, tmp_path, capsys, content, sentence):
    plain = plain_model(model_file, tmp_path)
    described = tmp_path / "card.yaml"
    described.write_text(yaml.safe_dump(content))
    out = tmp_path / "out.onnx"
    assert main(["card", "attach", str(plain), str(described), "-o", str(out)]) == 1
    assert sentence in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.torch
def test_training_from_the_command_line(skims, tmp_path, capsys):
    out = tmp_path / "ae.onnx"
    code = main(
        ["run", "autoencoder", "--config", "autoencoder/svj.yaml", f"data={skims}", "weights=none", "train.epochs=1",
         "train.samples_per_epoch=256", "efficiencies=[0.3, 0.01]",
         "-o", str(out)]
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr().out
    assert "regions eff0.3" in said
    assert "note: region medium is" in said  # why it is not there
    assert main(["run", "autoencoder", f"data={skims}", "epochs=3", "-o", str(out)]) == 1
    assert "unknown key 'epochs'" in capsys.readouterr().err
    assert main(["run", "autoencoder", f"data={tmp_path / 'no'}", "-o", str(out), "--force"]) == 1
    assert "no skim here" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "ae")
