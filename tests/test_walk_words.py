"""What a new user may type wrong: one sentence each that names the file, the dataset, the parameter or the branch."""

from __future__ import annotations

import importlib.util
import json

import awkward as ak
import numpy as np
import pytest
from test_attach import AUTOENCODER, CONSTANTS, card, network
from test_undefined import poison
from toy_skims import toy_rows, write_skim
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad import cli, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import BadModel, CardMismatch, ConfigError, SkimError
from coffea_ad.filesets import load_fileset
from coffea_ad.filesets.building import write_fileset
from coffea_ad.modelfiles.attach import attach
from coffea_ad.modelfiles.thresholds import new_regions
from coffea_ad.results.folder import save_results
from coffea_ad.scoring.calibration import calibrate
from coffea_ad.simulation.processes import resolve
from coffea_ad.skims.reading import load_skim

QCD, TTBAR = str(DATA / "qcd_v15.root"), str(DATA / "ttbar_v15.root")


def said(words, capsys):
    """Run the command line; its exit code, and what was said."""
    try:
        code = cli.main([str(word) for word in words])
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out + err


@pytest.mark.parametrize("words", [["--data", "a", "b"], ["--data", "a", "--data", "b"]])
@pytest.mark.parametrize("first", [False, True])
def test_an_option_of_a_fileset_takes_several_names_and_no_sources(words, first, tmp_path, capsys):
    sources = [f"a={QCD}", f"b={TTBAR}"]
    out = tmp_path / "f.json"
    code, _ = said(["fileset", *(words + sources if first else sources + words), "-o", out], capsys)
    assert code == 0
    assert {d: e["metadata"]["is_mc"] for d, e in load_fileset(out).items()} == {"a": False, "b": False}


def test_cross_sections_and_sources_are_told_apart(tmp_path, capsys):
    out = tmp_path / "f.json"
    code, _ = said(["fileset", "--xsec", "a=2", "b=3e1", f"a={QCD}", f"b={TTBAR}", "-o", out], capsys)
    assert code == 0
    assert {d: e["metadata"]["xsec"] for d, e in load_fileset(out).items()} == {"a": 2.0, "b": 30.0}
    code, text = said(["fileset", f"a={QCD}", "--xsec", "a=much"], capsys)
    assert code == 1
    assert "a" in text
    assert "much" in text
    assert said(["fileset", "--data", "a"], capsys) == (
        1, "error: fileset needs at least one NAME=SOURCE, or a fileset such as OLD.json\n"
    )  # fmt: skip


def test_a_fileset_that_cannot_be_written_is_found_before_files_are_opened(capsys):
    code, text = said(["fileset", f"a={QCD}", "-o", "/proc/f.json"], capsys)
    assert code == 1
    assert text.startswith("error: /proc: f.json cannot be written there")  # and no table before it


def test_a_fileset_leaves_alone_what_it_has_not_made(tmp_path):
    other = tmp_path / "f.json.part"
    other.write_text("another's")
    write_fileset({"a": {"files": {QCD: "Events"}, "metadata": {}}}, tmp_path / "f.json")
    assert other.read_text() == "another's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.json", "f.json.part"]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("jet_substructure[source=stored]", "written {name: jet_substructure, options: {source: stored}}"),
        ("3", "features[0] = 3: must hold keys and values"),
    ],
)
def test_a_feature_that_is_written_otherwise_is_explained(value, sentence):
    with pytest.raises(ConfigError) as caught:
        load_config(recipes.load("skim_jets").Config, None, [f"features={value}"])
    assert sentence in str(caught.value)
    assert "instance of" not in str(caught.value)


def test_a_feature_by_its_name_alone_is_the_usual_one():
    config = load_config(recipes.load("skim_jets").Config, None, ["features=jet_substructure"])
    assert [f.key for f in config.features] == ["jet_substructure"]


def test_parameters_of_a_simulation_are_named(monkeypatch, tmp_path):
    for key, value in {"m_zprime": -3, "r_inv": -0.1}.items():
        with pytest.raises(ConfigError, match=f"svj: {key} is {value}, but must not be negative"):
            resolve("svj", {key: value})
    assert resolve("svj", {"m_zprime": "2e3"})[0]["m_zprime"] == 2000.0  # as YAML reads it
    with pytest.raises(ConfigError, match="m_zprime is 'abc', but must be a number"):
        resolve("svj", {"m_zprime": "abc"})


def test_what_pythia_refuses_is_said_with_the_parameters_that_were_changed(tmp_path, capsys):
    pytest.importorskip("pythia8mc")
    (tmp_path / "x.root.part").write_text("another's")
    code, text = said(
        ["simulate", "qcd", "pthat_min=7000", "-n", "2", "--workers", "1", "-o", tmp_path / "x.root"], capsys
    )
    assert code == 1
    assert text.splitlines()[-1] == (
        "error: qcd with pthat_min=7000: Pythia cannot start: no open channel or contradictory settings"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["x.root.part"]


def test_a_broken_model_file_is_named_by_every_verb(tmp_path, capsys):
    model = tmp_path / "broken.onnx"
    model.write_bytes((DATA / "wnae.onnx").read_bytes()[:1000])
    skim = write_skim(tmp_path / "skim", {"qcd": {"x": toy_rows(50)[0], "weight": np.ones(50)}})
    out = ["-o", tmp_path / "o.onnx"]
    for words in (
        ["regions", model, "--from", skim, "--efficiency", "0.1", *out],
        ["quantise", model, "--calibration", skim, *out],
        ["quantise", model, "--fuse-linear", *out],
        ["combine", model, DATA / "wnae.onnx", *out],
        ["card", model],
    ):
        code, text = said(words, capsys)
        assert (code, text.startswith(f"error: {model}: ")) == (1, True), text
        assert not (tmp_path / "o.onnx").exists()


def test_a_reconstruction_without_a_comparison_is_told_what_to_write():
    plain = network(AUTOENCODER, CONSTANTS, output="decoded", tail=(8,))
    with pytest.raises(CardMismatch, match=r"^plain.onnx: .* attach its card with `score: mse`, mae, ln_mse or ln_mae"):
        attach(plain, card(output="decoded"), name="plain.onnx")


def constant_model():
    nodes = [("Mul", ("features", "zero"), "nothing", {}), ("ReduceSum", ("nothing", "axis"), "score", {"keepdims": 0})]
    return network(nodes, {"zero": np.array(0.0), "axis": np.array([1])})


def test_a_constant_model_is_named_with_its_score(tmp_path, capsys):
    skim = write_skim(tmp_path / "skim", {"qcd": {"x": toy_rows(50)[0], "weight": np.ones(50), "xsec": 1.0}})
    with pytest.raises(
        ConfigError, match=r"^plain.onnx: no calibration can be made of .* rows of qcd, .* all scores are 0"
    ):
        attach(constant_model(), card(), background=skim, name="plain.onnx")
    (tmp_path / "plain.onnx").write_bytes(constant_model())
    described = {"name": "theirs", "method": "AE", "features": [{"name": "jet_substructure"}]}
    (tmp_path / "card.yaml").write_text(json.dumps(described))
    code, text = said(["card", "attach", tmp_path / "plain.onnx", tmp_path / "card.yaml"], capsys)
    assert code == 0
    assert "rows that were tried have the score 0; a constant tells nothing apart" in text


@pytest.mark.parametrize(
    ("score", "weight", "sentence"),
    [
        ([1.0, 1.0], [1, 1], "all scores are 1"),
        ([1.0, 2.0], [1, -1], "their weights sum to 0"),
        ([np.nan, np.inf], [1, 1], "no score is finite"),
        ([1.0, 2.0], [1, np.nan], "their weights sum to nan"),
    ],
)
def test_a_calibration_that_cannot_be_made_says_why(score, weight, sentence):
    with pytest.raises(ConfigError, match=f"no calibration can be made of rows of qcd, since {sentence}"):
        calibrate(score, weight, "rows of qcd")


@pytest.fixture
def results(tmp_path):
    """Results of a search of which nothing of `qcd` was left, and whose data are blinded, told in another spelling."""
    fileset = {
        "qcd": {"files": {QCD: "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}},
        "data": {"files": {TTBAR: "Events"}, "metadata": {"isMC": 0}},
    }
    ad.run(fileset, "semivisible_jets", model=DATA / "wnae.onnx", overrides=["met_min=1e5"], lumi=1.0,
           executor="iterative", progress=False, output=tmp_path / "results")  # fmt: skip
    return tmp_path / "results"


def test_regions_from_results_without_background_are_one_sentence(results):
    model = (DATA / "wnae.onnx").read_bytes()

    def derived(*datasets):
        return new_regions(model, results, efficiencies=[0.1], datasets=datasets, name="wnae.onnx")

    with pytest.raises(
        ConfigError, match="background of wnae.onnx in the results, qcd, .* ad_logp histogram holds nothing"
    ):
        derived("qcd")
    with pytest.raises(ad.errors.UnknownName, match="unknown dataset 'qcdd'; did you mean 'qcd'"):
        derived("qcdd")
    for spelling in ({"isMC": 0}, {"is_mc": False}, {"isMC": False}):
        stored = ad.load_results(results)
        stored.report["datasets"]["data"]["metadata"] = spelling
        save_results(stored.histograms, stored.report, results)
        with pytest.raises(ConfigError, match="dataset data is blinded data"):
            derived("data")


def test_a_weight_that_is_no_number_is_named_with_its_dataset(tmp_path):
    weight = np.ones(60)
    weight[7] = np.nan
    skim = write_skim(tmp_path / "skim", {"qcd": {"x": toy_rows(60)[0], "weight": weight, "sumw": 60.0, "xsec": 1.0}})
    for weights in ("none", "xsec"):
        with pytest.raises(SkimError, match="the weight of 1 of 60 rows is no finite number, of qcd"):
            load_skim(skim, "jet_substructure", weights=weights)


def test_a_skim_names_the_branch_of_numbers_that_are_none(tmp_path):
    def poisoned(columns):
        counts = ak.to_numpy(ak.num(columns["FatJet"]))
        first = np.r_[0, np.cumsum(counts)[:-1]][counts > 0]
        poison(columns, "FatJet_pt", first[:3], np.nan)
        poison(columns, "FatJet_eta", first[3:5], np.inf)

    copy_events(QCD, tmp_path / "poisoned.root", change=poisoned)
    fileset = {"qcd": {"files": {str(tmp_path / "poisoned.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1}}}
    report = ad.run(fileset, "skim_jets", executor="iterative", progress=False, output=tmp_path / "skim")
    assert any("(FatJet_eta 2, FatJet_pt 3)" in note for note in report.notes), report.notes


def test_the_demo_asks_for_all_packages_before_its_first_step(monkeypatch, tmp_path, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "torch" else find(name, *more))
    assert said(["demo", "-o", tmp_path / "demo"], capsys) == (
        1, "error: torch is needed for this: pip install 'coffea-ad[train]'\n"
    )  # fmt: skip
    assert not (tmp_path / "demo").exists()


def test_a_merge_says_whose_events_were_not_compared(tmp_path, capsys):
    def searched(name, path, dataset, **metadata):
        fileset = {dataset: {"files": {str(path): "Events"}, "metadata": metadata}}
        ad.run(fileset, "semivisible_jets", lumi=1.0, executor="iterative", progress=False, output=tmp_path / name)
        return tmp_path / name

    copy_events(QCD, tmp_path / "copy.root")
    one = searched("one", QCD, "met", is_mc=False)
    other = searched("other", tmp_path / "copy.root", "jetht", is_mc=False)
    simulated = searched("simulated", TTBAR, "tt", is_mc=True, xsec=1.0)
    code, text = said(["merge", one, other, "-o", tmp_path / "both"], capsys)
    assert code == 0
    assert "note: jetht, met: whether events of one folder are in another as well was not looked at" in text
    code, text = said(["merge", one, simulated, "-o", tmp_path / "apart"], capsys)
    assert code == 0
    assert "was not looked at" not in text


def test_messages_of_a_scorer_made_of_bytes_carry_a_name():
    with pytest.raises(BadModel, match="^there.onnx: this is not an ONNX file"):
        ad.OnnxScorer(b"nothing", name="there.onnx")
