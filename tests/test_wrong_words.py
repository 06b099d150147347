"""Wrong words on the command line: for every verb, one sentence on standard error, and never a traceback."""

from __future__ import annotations

import json
import shutil

import pytest
from toys import DATA

from coffea_ad.cli import recipes as verbs
from coffea_ad.cli.main import main

pytestmark = pytest.mark.usefixtures("undrawn")

QCD = {"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with good and bad inputs, and nothing that a wrong command may overwrite."""
    root = tmp_path_factory.mktemp("words")
    shutil.copy(DATA / "wnae.onnx", root / "wnae.onnx")
    (root / "fileset.json").write_text(json.dumps(QCD))
    (root / "broken.json").write_text("{")
    (root / "list.json").write_text("[1, 2]")
    (root / "noise.onnx").write_bytes(b"\x00\xff\x08\x12" * 50)
    (root / "empty.onnx").touch()
    (root / "noise.yaml").write_bytes(b"\xff\xfe\x00a: 1")
    (root / "twice.yaml").write_text("met_min: 1\nmet_min: 2\n")
    (root / "number.yaml").write_text("5\n")
    (root / "syntax.py").write_text("def (:\n")
    (root / "nothing.py").write_text("x = 1\n")
    (root / "raises.py").write_text("import os\n\nraise RuntimeError('on purpose')\n")
    (root / "empty_folder").mkdir()
    return root


@pytest.fixture
def says(place, monkeypatch, capsys):
    """Run words in that folder; return the exit code and what is on standard error."""
    monkeypatch.chdir(place)

    def run(words):
        try:
            code = main(words)
        except SystemExit as ended:
            code = ended.code
        return code, capsys.readouterr().err

    return run


SEARCH = [
    "run",
    "semivisible_jets",
    "--fileset",
    "fileset.json",
    "--model",
    "wnae.onnx",
    "-e",
    "iterative",
    "-o",
    "out",
]
TRAIN = ["run", "autoencoder", "-o", "ae.onnx"]
SWEEP = [
    # what there is not
    ["no_verb"],
    ["--no-flag"],
    ["ls", "--no-flag"],
    ["ls", "word"],
    # simulate
    ["simulate", "sjv"],
    ["simulate", "svj", "r_inv=2"],
    ["simulate", "svj", "m_zprim=1"],
    ["simulate", "svj", "m_zprime"],
    ["simulate", "svj", "m_zprime=abc"],
    ["simulate", "svj", "m_zprime=[1, 2]"],
    ["simulate", "svj", "m_zprime=true"],
    ["simulate", "svj", "m_zprime=null"],
    ["simulate", "svj", "m_zprime=.nan"],
    ["simulate", "svj", "n_colour=2.5"],
    ["simulate", "svj", "--workers", "0"],
    ["simulate", "svj", "-n", "2", "-o", "fileset.json/x.root"],
    ["simulate", "svj", "m_zprime.x=1", "m_zprime=2"],
    ["simulate", "svj", "-n", "0"],
    ["simulate", "svj", "-n", "many"],
    ["simulate", "svj", "--seed", "-1"],
    ["simulate", "svj", "--layout", "v9"],
    # features
    ["features", "jet_substructre"],
    ["features", "jet_substructure[source=stored]"],
    ["features", "jet_substructure", "source=stord"],
    ["features", "jet_substructure", "observables=5"],
    ["features", "jet_substructure", "observables=[tau21, x]"],
    ["features", "jet_substructure", "beta=abc"],
    ["features", "jet_substructure", "beta={a: 1}"],
    ["features", "jet_substructure", "beta=.inf"],
    ["features", "jet_substructure", "R0=null"],
    ["features", "rmm", "preset=[1, 2]"],
    ["features", "rmm", "slots=[1, 2]"],
    ["features", "jet_images", "=3"],
    ["features", "jet_images", "a..b=3"],
    # cp
    ["cp", "wna", "x"],
    ["cp", "wnae", "fileset.json/x"],
    # run, a processor
    ["run"],
    ["run", "semivisible_jets"],
    ["run", "nowhere.py", "--fileset", "fileset.json"],
    ["run", "syntax.py", "--fileset", "fileset.json"],
    ["run", "nothing.py", "--fileset", "fileset.json"],
    ["run", "raises.py", "--fileset", "fileset.json"],
    [*SEARCH, "met_mn=1"],
    [*SEARCH, "met_min=abc"],
    [*SEARCH, "met_min=[1]"],
    [*SEARCH, "met_min=2026-13-45"],
    [*SEARCH, "met_min={"],
    [*SEARCH, "met_min=1", "met_min.x=2"],
    [*SEARCH, "--config", "nope.yaml"],
    [*SEARCH, "--config", "noise.yaml"],
    [*SEARCH, "--config", "twice.yaml"],
    [*SEARCH, "--config", "number.yaml"],
    [*SEARCH, "--config", "empty_folder"],
    [*SEARCH, "--chunksize", "0"],
    [*SEARCH, "--chunksize", "x"],
    [*SEARCH, "--lumi", "nan"],
    [*SEARCH, "--lumi", "-1"],
    [*SEARCH, "--workers", "0"],
    [*SEARCH, "--retries", "-1"],
    [*SEARCH, "--limit-files", "0"],
    [*SEARCH, "--executor", "threads"],
    [*SEARCH, "--cluster", "slrm"],
    [*SEARCH, "--site", "nope.yaml"],
    [*SEARCH, "--modle", "wnae.onnx"],
    [*SEARCH, "--model", "noise.onnx"],
    [*SEARCH, "--model", "empty.onnx"],
    [*SEARCH, "--model", "empty_folder"],
    [*SEARCH, "--model", "wnae"],
    ["run", "skim_jets", "--fileset", "broken.json", "-o", "out"],
    ["run", "skim_jets", "--fileset", "list.json", "-o", "out"],
    ["run", "skim_jets", "--fileset", "empty_folder", "-o", "out"],
    ["run", "skim_jets", "--fileset", "fileset.json", "-o", "out", "features=rmm"],
    ["run", "skim_jets", "--fileset", "fileset.json", "-o", "out", "-e", "iterative", "features=[{name: rmm}]"],
    ["run", "skim_jets", "--fileset", "fileset.json", "-o", "out", "-e", "iterative", "features=[{name: jet_imags}]"],
    ["run", "skim_jets", "--fileset", "fileset.json", "-o", "out", "-e", "iterative", "met=NoMET"],
    ["run", "skim_jets", "--fileset", "fileset.json", "-o", "fileset.json/out", "-e", "iterative"],
    ["run", "--resubmit", "empty_folder"],
    ["run", "--resubmit", "nowhere"],
    ["run", "skim_jets", "--resubmit", "nowhere"],
    # the others
    ["merge", "nowhere", "-o", "merged"],
    ["merge", "empty_folder", "empty_folder", "-o", "merged"],
    ["merge", "nowhere"],
    ["fileset", "a"],
    ["fileset", "a=nowhere.root"],
    ["fileset", "a=fileset.json"],
    ["fileset", "=x"],
    ["fileset", "list.json"],
    ["fileset", f"qcd={DATA}/qcd_v15.root", "--xsec", "qcd=abc"],
    ["fileset", f"qcd={DATA}/qcd_v15.root", "--xsec", "other=1"],
    ["fileset", f"qcd={DATA}/qcd_v15.root", "--meta", "qcd"],
    ["fileset", f"qcd={DATA}/qcd_v15.root", "--workers", "x"],
    ["card", "nowhere.onnx"],
    ["card", "noise.onnx"],
    ["card", "wnae.onnx", "wnae.onnx"],
    ["card", "attach", "wnae.onnx"],
    ["card", "attach", "wnae.onnx", "nope.yaml"],
    ["card", "attach", "noise.onnx", "number.yaml"],
    ["regions", "wnae.onnx", "--from", "nowhere", "--efficiency", "0.1"],
    ["regions", "wnae.onnx", "--from", "empty_folder", "--efficiency", "2"],
    ["regions", "wnae.onnx", "--from", "empty_folder", "--efficiency", "abc"],
    ["regions", "noise.onnx", "--from", "empty_folder", "--efficiency", "0.1"],
    ["evaluate", "nowhere.onnx", "--background", "empty_folder", "--signal-datasets", "svj"],
    ["evaluate", "wnae.onnx", "--background", "empty_folder", "--signal-datasets", "svj", "--bootstrap", "x"],
    ["evaluate", "=wnae.onnx", "--background", "empty_folder", "--signal-datasets", "svj"],
    ["demo", "--scale", "x"],
    # plugins
    ["features", "--plugin", "nowhere.py"],
    ["features", "--plugin", "syntax.py"],
    ["features", "--plugin", "nothing.py"],
    ["features", "--plugin", "raises.py"],
    ["features", "--plugin", "wnae.onnx"],
]  # fmt: skip
TRAININGS = [
    [*TRAIN],
    [*TRAIN, "data=nowhere"],
    [*TRAIN, "data=empty_folder"],
    [*TRAIN, "data=5"],
    [*TRAIN, "data=empty_folder", "epochs=1"],
    [*TRAIN, "data=empty_folder", "train.epoch=1"],
    [*TRAIN, "data=empty_folder", "train.epochs=0"],
    [*TRAIN, "data=empty_folder", "train.epochs=abc"],
    [*TRAIN, "data=empty_folder", "train=5"],
    [*TRAIN, "data=empty_folder", "hidden=[a]"],
    [*TRAIN, "data=empty_folder", "filters=[[met]]"],
    [*TRAIN, "data=empty_folder", "feature=jet_substructure[source=stored]"],
    [*TRAIN, "data=empty_folder", "feature=5"],
    [*TRAIN, "data=empty_folder", "options=5"],
    [*TRAIN, "data=empty_folder", "weights=xs"],
    ["run", "autoencoder", "data=empty_folder"],
    ["combine", "wnae.onnx", "-o", "two.onnx"],
    ["combine", "wnae.onnx", "noise.onnx", "-o", "two.onnx"],
    ["combine", "wnae.onnx", "wnae.onnx", "--by", "sum", "-o", "two.onnx"],
    ["quantise", "wnae.onnx"],
    ["quantise", "wnae.onnx", "--calibration", "empty_folder"],
    ["quantise", "noise.onnx", "--fuse-linear"],
]  # fmt: skip


def _one_sentence(code, err, words):
    assert code in (1, 2), (words, code, err)
    lines = [line for line in err.splitlines() if line.strip()]
    assert "Traceback" not in err
    assert "this should not happen" not in err
    assert lines, words
    assert lines[-1].startswith("error: "), err
    assert len(lines[-1]) > len("error: ") + 15
    assert "usage:" not in err


@pytest.mark.parametrize("words", SWEEP, ids=" ".join)
def test_wrong_words_end_in_one_sentence(says, words):
    _one_sentence(*says(words), words)


@pytest.mark.torch
@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_wrong_words_of_a_training_end_in_one_sentence(says, words):
    _one_sentence(*says(words), words)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["features", "jet_substructure[source=stored]"], "feature=jet_substructure options='{source: stored}'"),
        ([*SEARCH, "--config", "nope.yaml"], "nope.yaml: there is no such file"),
        ([*SEARCH, "--config", "svj.yml"], "did you mean autoencoder/svj.yaml or flow/svj.yaml"),
        ([*SEARCH, "--config", "twice.yaml"], "twice.yaml, line 2: not valid YAML (the key 'met_min' stands twice)"),
        ([*SEARCH, "met_mn=1"], "command line: met_mn=1: unknown key 'met_mn'; did you mean 'met_min'?"),
        ([*SEARCH, "--modle", "x"], "--modle x is not understood; did you mean --model?"),
        ([*SEARCH, "--model", "wnae"], "wnae: cannot be read"),
        ([*SEARCH, "other.pt"], "other.pt is not understood; several models are --model A.onnx --model B.onnx"),
        (["run", "syntax.py", "--fileset", "f.json"], "syntax.py, line 1: cannot be imported (SyntaxError"),
        (["run", "raises.py", "--fileset", "f.json"], "raises.py, line 3: cannot be imported (RuntimeError: on purpose)"),
        (["features", "--plugin", "nothing.py"], "it registers no feature"),
        (["features", "met_scaled"], "has to be registered first, such as with --plugin FILE.py"),
    ],
)  # fmt: skip
def test_the_sentence_names_what_is_wrong_and_what_would_be_right(says, words, sentence):
    code, err = says(words)
    assert code in (1, 2)
    assert sentence in err


def _unforeseen(*_):
    raise KeyError("colour")


def test_what_nobody_has_foreseen_is_one_sentence_with_its_type_and_place(monkeypatch, capsys):
    monkeypatch.setattr(verbs, "_ls", _unforeseen)
    assert main(["ls"]) == 70
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "KeyError: 'colour'" in err
    assert f"{__file__}, line " in err
    assert "--traceback" in err


@pytest.mark.parametrize("asked", ["flag", "variable"])
def test_a_traceback_is_shown_to_who_asks_for_it(monkeypatch, capsys, asked):
    monkeypatch.setattr(verbs, "_ls", _unforeseen)
    if asked == "variable":
        monkeypatch.setenv("COFFEA_AD_TRACEBACK", "1")
    assert main(["ls", *(["--traceback"] if asked == "flag" else [])]) == 70
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "in _unforeseen" in err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 1, "pip install 'coffea-ad[train]'"),
        (ModuleNotFoundError("No module named 'pythia8mc'", name="pythia8mc"), 1, "pip install 'coffea-ad[simulate]'"),
        (ModuleNotFoundError("No module named 'strange'", name="strange"), 70, "strange"),
        (OSError(28, "No space left on device"), 1, "error: No space left on device"),
        (OSError(28, "No space left on device", "out/x.root"), 1, "error: out/x.root: No space left on device"),
        (MemoryError("Unable to allocate 1 TiB"), 1, "out of memory (Unable to allocate 1 TiB)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_known_kinds_of_errors_have_sentences_of_their_own(monkeypatch, capsys, error, code, sentence):
    def raises(_):
        raise error

    monkeypatch.setattr(verbs, "_ls", raises)
    assert main(["ls"]) == code
    assert sentence in capsys.readouterr().err
