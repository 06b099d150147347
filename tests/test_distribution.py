"""Files by path on spawned workers, and what the wheel holds."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from toys import DATA

import coffea_ad as ad
from coffea_ad import recipes

CHECKOUT = Path(ad.__file__).parent.parent


@pytest.mark.dask
def test_a_spawned_worker_that_cannot_import_the_processors_file_runs_it(fileset, tmp_path):
    mine = tmp_path / "far" / "away.py"
    recipes.copy("semivisible_jets", mine)
    report = ad.run(fileset, mine, model=DATA / "wnae.onnx", executor="dask", workers=1, chunksize=100)
    assert report.complete
    module = sys.modules["coffea_ad_recipe_away"]
    out = subprocess.run([sys.executable, "-c", f"import {module.__name__}"], capture_output=True)
    assert out.returncode != 0  # nobody else can import it


def test_a_by_path_processor_travels_by_value(tmp_path):
    """distributed tries plain pickle first; a class that is only known by its path would hang its workers."""
    import cloudpickle

    module = recipes.load("semivisible_jets")
    processor = module.Processor(module.Config(), [ad.Tagger(DATA / "wnae.onnx")])
    path = tmp_path / "processor.pkl"
    path.write_bytes(cloudpickle.dumps(processor))
    code = f"import cloudpickle; p = cloudpickle.load(open({str(path)!r}, 'rb')); print(type(p).__name__, p.config.met_min)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert out.stdout.split() == ["Processor", "100.0"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    # the version of this process: the build writes it into the checkout, which workers of other tests import
    environment = {**os.environ, "SETUPTOOLS_SCM_PRETEND_VERSION": ad.__version__}
    done = subprocess.run(build, cwd=CHECKOUT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_one_import_package_and_the_recipes_inside(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info" not in n} == {"coffea_ad"}
    for path in (
        "processors/skim_jets.py",
        "processors/semivisible_jets.yaml",
        "training/wnae.py",
        "training/wnae/svj.yaml",
    ):
        assert f"coffea_ad/_recipes/{path}" in names
    assert {
        "coffea_ad/py.typed",
        "coffea_ad/report/templates/report.html.j2",
        "coffea_ad/report/templates/report.css",
    } <= set(names)


def test_recipes_of_an_installed_wheel_are_found_and_loaded(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "from coffea_ad import recipes; import coffea_ad\n"
        "print([r.name for r in recipes.available()], recipes.load('skim_jets').__file__, recipes.find_config('wnae/svj.yaml'))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site")},
    )
    assert out.returncode == 0, out.stderr
    names = ["dijet_resonance", "event_anomaly", "rmm_two_body", "semivisible_jets", "skim_events", "skim_jets"]
    names += ["autoencoder", "clr", "flow", "latent", "nae", "nearest", "pca", "pretrain", "resonant"]
    names += ["student", "svdd", "vae", "wnae"]
    assert str(names) in out.stdout
    assert str(tmp_path / "site" / "coffea_ad" / "_recipes") in out.stdout


def test_an_edited_recipe_is_loaded_anew(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('"""One."""\nx = 1\n')
    assert recipes.load(path).x == 1
    path.write_text('"""Two."""\nx = 22\n')
    assert recipes.load(path).x == 22
