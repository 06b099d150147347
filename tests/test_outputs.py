"""Where results go is checked before the work, and no verb overwrites what another run has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import fsspec
import pytest
from toys import DATA, HERE

import coffea_ad as ad
from coffea_ad import cli, recipes
from coffea_ad.cli import training
from coffea_ad.errors import ConfigError
from coffea_ad.outputs import RESULTS, check_file, check_folder, clear_figures, existing, skimmed

pytestmark = pytest.mark.usefixtures("undrawn")

SVJ = str(DATA / "svj_v15.root")


def entry(path=SVJ, **metadata):
    return {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0, **metadata}}


def search(output, fileset=None, **kwargs):
    settings = {"executor": "iterative", "progress": False, **kwargs}
    return ad.run(fileset or {"svj": entry()}, "semivisible_jets", output=output, **settings)


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/out", recursive=True) if fs.exists("/out") else None


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_files_and_folders_are_refused_if_they_are_there(where, tmp_path, memory):
    root = str(tmp_path) if where == "disk" else "memory://out"
    check_file(f"{root}/new/m.onnx", suffix=".onnx")
    check_folder(f"{root}/r", RESULTS)
    with fsspec.open(f"{root}/m.onnx", "wb") as file, fsspec.open(f"{root}/r/report.json", "wb") as report:
        file.write(b"x")
        report.write(b"x")
    with pytest.raises(ConfigError, match="m.onnx exists already; choose another name, or overwrite it with --force"):
        check_file(f"{root}/m.onnx")
    with pytest.raises(ConfigError, match=r"there are results in it already \(report.json\).* --force"):
        check_folder(f"{root}/r", RESULTS)
    check_file(f"{root}/m.onnx", force=True)
    check_folder(f"{root}/r", RESULTS, force=True)
    assert existing(f"{root}/r", RESULTS) == ["report.json"]
    with pytest.raises(ConfigError, match="must be a file whose name ends in .onnx"):
        check_file(f"{root}/ae2", suffix=".onnx")
    with pytest.raises(ConfigError, match="this is a folder, but a file is to be written"):
        check_file(f"{root}/r")
    with pytest.raises(ConfigError, match="it is a file, and must be a folder"):
        check_folder(f"{root}/m.onnx", RESULTS)
    assert not any(".probe" in name for name in fsspec.url_to_fs(root)[0].find(root))


def test_places_that_cannot_be_written_are_found_by_trying(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="results cannot be written there"):
        check_folder(tmp_path / "file" / "r", RESULTS)
    with pytest.raises(ConfigError, match="nosuchprotocol://x: nosuchprotocol:// needs a filesystem"):
        check_file("nosuchprotocol://x")


def test_a_results_folder_belongs_to_one_run(tmp_path):
    first = search(tmp_path)
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "old_region.png").write_bytes(b"x")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="there are results in it already"):
        search(tmp_path, overrides=["met_min=200"])
    with pytest.raises(ConfigError, match="there are results in it already"):
        search(tmp_path, {"svj": entry(xsec=2.0)})
    with pytest.raises(ConfigError, match="there are results in it already"):
        search(tmp_path, lumi=2.0)
    assert ad.load_results(tmp_path).report["config"] == first.config
    search(tmp_path)  # the same again may go on where it was
    search(tmp_path, overrides=["met_min=200"], force=True)
    assert ad.load_results(tmp_path).report["config"]["met_min"] == 200
    assert not (tmp_path / "figures" / "old_region.png").exists()  # it shows what is no more
    assert (tmp_path / "mine.txt").exists()


def test_a_skim_takes_more_datasets_and_does_not_lose_one(tmp_path):
    def skim(name, file, **kwargs):
        return ad.run(
            {name: entry(DATA / file)}, "skim_jets", executor="iterative", output=tmp_path, progress=False, **kwargs
        )

    skim("svj", "svj_v15.root")
    skim("qcd", "qcd_v15.root")
    assert skimmed(tmp_path) == {"svj", "qcd"}
    with pytest.raises(ConfigError, match="there are results in it already"):
        skim("svj", "svj_pfnano.root")
    with pytest.raises(ConfigError, match="there are results in it already"):
        search(tmp_path)
    skim("svj", "svj_pfnano.root", force=True)
    assert skimmed(tmp_path) == {"svj", "qcd"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder in which every output is there already."""
    monkeypatch.chdir(tmp_path)
    for name in (
        "svj.root",
        "m.onnx",
        "m-regions.onnx",
        "m-card.onnx",
        "m-int8.onnx",
        "m-fused.onnx",
        "c.onnx",
        "s.py",
    ):
        (tmp_path / name).write_text("old")
    for folder, name in (("evaluation", "evaluation.json"), ("r", "report.json"), ("t", "metrics.jsonl")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text("old")
    (tmp_path / "f.json").write_text(json.dumps({"svj": entry()}))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "svj"],
        ["cp", "semivisible_jets", "s.py"],
        ["run", "semivisible_jets", "--fileset", "f.json", "-o", "r", "-e", "iterative"],
        ["merge", "a", "b", "-o", "r"],
        ["evaluate", "m.onnx", "--background", "s"],
        ["regions", "m.onnx", "--from", "r", "--efficiency", "0.1"],
        ["card", "attach", "m.onnx", "c.yaml"],
        ["quantise", "m.onnx", "--calibration", "s"],
        ["quantise", "m.onnx", "--fuse-linear"],
        ["combine", "m.onnx", "n.onnx", "-o", "c.onnx"],
        ["fileset", "svj=x.root", "-o", "f.json"],
        ["demo", "-o", "r"],
        pytest.param(["run", "pca", "data=s", "-o", "m.onnx"], marks=pytest.mark.torch),
        pytest.param(["run", "pca", "data=s", "-o", "t.onnx"], marks=pytest.mark.torch),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_verb_overwrites(words, place, capsys):
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    assert cli.main(words) == 1
    err = capsys.readouterr().err
    assert "already" in err
    assert "--force" in err
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["simulate", "svj", "-o", "svj"], "must be a file whose name ends in .root"),
        pytest.param(["run", "pca", "data=s", "-o", "ae2"], "must be a file whose name ends in .onnx", marks=pytest.mark.torch),
        pytest.param(["run", "pca", "data=s", "-o", "r/"], "must be a file whose name ends in .onnx", marks=pytest.mark.torch),
        (["quantise", "m.onnx", "--calibration", "s", "-o", "x"], "must be a file whose name ends in .onnx"),
        (["run", "semivisible_jets", "--fileset", "f.json"], "say where the results go with -o FOLDER"),
    ],
)  # fmt: skip
def test_the_wrong_kind_of_output_is_found_before_the_work(words, sentence, place, capsys):
    assert cli.main(words) == 1
    assert sentence in capsys.readouterr().err


def test_the_demo_may_run_twice_in_its_own_folder(tmp_path, monkeypatch):
    from coffea_ad import demo

    monkeypatch.setattr(demo, "demo", lambda *_, **__: {})
    for name in ("figures", "results", "skims"):
        (tmp_path / name).mkdir()
    (tmp_path / "summary.json").write_text("{}")
    assert cli.main(["demo", "-o", str(tmp_path)]) == 0


def test_a_test_needs_no_output(place, capsys):
    assert cli.main(["run", "semivisible_jets", "--fileset", "f.json", "-e", "iterative", "--test"]) == 0
    assert "nothing was written" in capsys.readouterr().out


@pytest.mark.torch
def test_a_training_that_is_resumed_goes_on_in_its_own_files(tmp_path, capsys):
    from argparse import Namespace

    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "checkpoint.pt").write_text("x")
    (folder / "training.png").write_text("x")
    args = Namespace(output=str(tmp_path / "m.onnx"), force=False)
    with pytest.raises(ConfigError, match="go on with resume=true"):
        training._refuse_other_training(args, resumed=False)
    training._refuse_other_training(args, resumed=True)
    assert (folder / "training.png").exists()
    training._refuse_other_training(Namespace(output=args.output, force=True), resumed=False)
    assert not (folder / "training.png").exists()  # it shows another training


def test_figures_are_cleared_in_folders_with_odd_names(tmp_path):
    folder = tmp_path / "a[1]" / "figures"
    folder.mkdir(parents=True)
    (folder / "x.png").write_text("x")
    clear_figures(tmp_path / "a[1]")
    assert not (folder / "x.png").exists()


def test_a_recipe_by_name_runs_as_shipped(tmp_path):
    report = search(tmp_path / "a")
    assert report.config["triggers"]
    assert report.config["met_filters"]
    assert report.datasets["svj"]["cutflow"]["trigger"]["events"] < 150
    bare = search(tmp_path / "b", config="none")
    assert not bare.config["triggers"]
    assert "not applied, since the configuration asks for none: triggers, MET filters" in bare.notes
    assert recipes.configuration("rmm_two_body").name == "rmm_two_body.yaml"


def test_the_first_lines_say_what_is_not_applied(tmp_path, capsys):
    search(tmp_path, config="none", progress=True)
    err = capsys.readouterr().err
    assert "semivisible_jets: configuration the defaults in its code" in err
    assert "not applied: triggers, MET filters" in err


def test_data_need_their_luminosity(tmp_path, capsys):
    from toys import copy_events

    path = copy_events(SVJ, tmp_path / "data.root", drop=("gen", "Gen"))
    fileset = {"svj": entry(), "met": {"files": {str(path): "Events"}, "metadata": {"is_mc": False}}}
    (tmp_path / "f.json").write_text(json.dumps(fileset))
    words = [
        "run",
        "semivisible_jets",
        "--fileset",
        str(tmp_path / "f.json"),
        "-e",
        "iterative",
        "-o",
        str(tmp_path / "r"),
    ]
    assert cli.main(words) == 1
    assert "dataset met: these are data; give their luminosity in fb⁻¹ with --lumi" in capsys.readouterr().err
    assert cli.main([*words, "--lumi", "59.8"]) == 0
    out = capsys.readouterr()
    assert "at 59.8 fb⁻¹" in " ".join(out.out.split())
    assert "certified luminosity (lumi_mask)" in out.out
    skim = ad.run(fileset, "skim_jets", executor="iterative", output=tmp_path / "s", progress=False)
    assert skim.lumi is None  # nothing is normalised in it


@pytest.mark.dask
def test_an_interrupted_run_says_so_in_one_line(tmp_path):
    (tmp_path / "f.json").write_text(json.dumps({"svj": entry()}))
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # what runs in the background ignores it
    code = f"{heard}; import sys; from coffea_ad.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["run", str(HERE / "counting_processor.py"), f"folder={tmp_path}", "pause=1", "--fileset", str(tmp_path / "f.json"),
             "-e", "dask", "-c", "5", "--no-preflight", "-o", str(tmp_path / "r")]  # fmt: skip
    client = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, start_new_session=True)  # fmt: skip
    patience = time.monotonic() + 240
    while not (tmp_path / "log").exists() and client.poll() is None and time.monotonic() < patience:
        time.sleep(0.05)
    os.killpg(client.pid, signal.SIGINT)  # as a terminal sends it: to the workers too
    out, _ = client.communicate(timeout=120)
    assert client.returncode == 130, out
    assert "Traceback" not in out
    assert out.rstrip().endswith("interrupted")
    if (tmp_path / "r" / "checkpoints").is_dir():
        assert f"finished chunks are kept in {tmp_path / 'r'}/checkpoints; the same command goes on from there" in out


@pytest.mark.parametrize("file", ["report.json", "manifest.json"])
def test_an_evaluation_does_not_go_into_the_folder_of_a_run(tmp_path, capsys, file):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / file).write_text("{}")
    assert cli.main(["evaluate", "m.onnx", "--background", "skims", "-o", str(tmp_path / "r")]) == 1
    assert f"there are results in it already ({file})" in capsys.readouterr().err


def test_a_run_does_not_go_into_the_folder_of_an_evaluation(tmp_path, capsys):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "evaluation.json").write_text("{}")
    (tmp_path / "f.json").write_text(json.dumps({"svj": entry()}))
    words = [
        "run",
        str(HERE / "counting_processor.py"),
        f"folder={tmp_path}",
        "--fileset",
        str(tmp_path / "f.json"),
        "-e",
        "iterative",
    ]
    assert cli.main([*words, "-o", str(tmp_path / "r")]) == 1
    assert "there are results in it already (evaluation.json)" in capsys.readouterr().err
