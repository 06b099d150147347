"""sign(genWeight) instead of genWeight: yields, skims and training weights are those of the signs."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import DATA, copy_events

import coffea_ad as ad
from coffea_ad import cli
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.filesets.building import build_fileset
from coffea_ad.skims.files import SKIM_KEY, skim_files
from coffea_ad.skims.reading import load_skim

LOOSE = ["met_min=0", "rt_min=0", "dphi_max=4", "delta_eta_max=9"]
SVJ = DATA / "svj_v15.root"
N = 60
WEIGHTS = np.where(np.arange(N) % 4 == 0, -1.0, 1.0) * (1 + 99.0 * (np.arange(N) % 7 == 0))
SIGNS = float(np.sign(WEIGHTS).sum())


def weigh(columns):
    columns["genWeight"] = WEIGHTS.astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return copy_events(SVJ, tmp_path_factory.mktemp("signs") / "x.root", stop=N, change=weigh)


def entry(path, **metadata):
    return {"svj": {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 2.0, **metadata}}}


def run(fileset, recipe="semivisible_jets", executor="iterative", **kwargs):
    if recipe == "semivisible_jets":
        kwargs |= {"overrides": LOOSE, "lumi": 3.0}
    return ad.run(fileset, recipe, executor=executor, progress=False, **kwargs)


@pytest.mark.parametrize("asked", ["metadata", "run", pytest.param("dask", marks=pytest.mark.dask)])
def test_yields_are_those_of_the_signs(asked, path, tmp_path, on):
    more = on("dask") if asked == "dask" else {"chunksize": 25}
    if asked == "run":
        report = run(entry(path), output=tmp_path, generator_weight="sign", **more)
    else:
        report = run(entry(path, generator_weight="sign"), output=tmp_path, **more)
    found = report.datasets["svj"]
    assert found["sumw"] == SIGNS
    assert found["n_effective"] == pytest.approx(SIGNS**2 / N)
    assert found["metadata"]["generator_weight"] == "sign"
    assert ad.load_results(tmp_path).norm("svj") == pytest.approx(2.0 * 3000.0 / SIGNS)

    assert found["cutflow"]["all"]["weight"] == SIGNS
    h = next(iter(ad.load_results(tmp_path).histograms["svj"].values()))
    assert h.values(flow=True).sum() != 0


def test_without_it_weights_are_those_of_the_file(path, tmp_path):
    for kind in (None, "stored"):
        report = run(entry(path), generator_weight=kind)
        assert report.datasets["svj"]["sumw"] == pytest.approx(WEIGHTS.sum())


def test_skims_and_training_weights_are_those_of_the_signs(path, tmp_path):
    run(entry(path), "skim_jets", config="skim_jets.yaml", output=tmp_path / "sign", generator_weight="sign")
    run(entry(path), "skim_jets", config="skim_jets.yaml", output=tmp_path / "stored")
    manifest = json.loads((tmp_path / "sign" / "manifest.json").read_text())["datasets"]["svj"]
    assert manifest["sumw"] == SIGNS
    (file,) = skim_files(tmp_path / "sign")["svj"]
    assert json.loads(pq.read_schema(file).metadata[SKIM_KEY])["generator_weight"] == "sign"
    one, two = (load_skim(tmp_path / name, "jet_substructure") for name in ("sign", "stored"))
    assert set(np.unique(one.spectators["genWeight"])) == {-1.0, 1.0}
    assert np.array_equal(one.spectators["genWeight"], np.sign(two.spectators["genWeight"]))
    assert one.event_weight == pytest.approx(one.spectators["genWeight"] * 2.0 / SIGNS)
    assert one.provenance["event_weight"] == "sign(genWeight) · xsec / sumw"
    assert two.provenance["event_weight"] == "genWeight · xsec / sumw"


def test_rows_of_both_kinds_are_not_one_dataset(path, tmp_path):
    other = copy_events(SVJ, tmp_path / "y.root", stop=N, change=weigh)
    run(entry(path), "skim_jets", config="skim_jets.yaml", output=tmp_path / "a", generator_weight="sign")
    run(entry(other), "skim_jets", config="skim_jets.yaml", output=tmp_path / "b")
    (stray,) = skim_files(tmp_path / "b")["svj"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    name = str(stray).rpartition("/")[2]
    manifest["datasets"]["svj"]["files"].append(f"svj/{name}")
    shutil.copy(stray, tmp_path / "a" / "svj" / name)
    (tmp_path / "a" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SkimError, match="its genWeight is (sign|stored), and (sign|stored) in the files before it"):
        load_skim(tmp_path / "a", "jet_substructure")


def test_runs_have_no_sum_of_signs(tmp_path):
    whole = copy_events(SVJ, tmp_path / "whole.root", runs=True)  # 150 events, of 150
    assert run(entry(whole, generator_weight="sign")).datasets["svj"]["sumw"] == 150
    skimmed = copy_events(SVJ, tmp_path / "skimmed.root", stop=N, runs=True)
    assert run(entry(skimmed)).datasets["svj"]["sumw"] == 150
    for stop in (N, 0):
        skimmed = copy_events(SVJ, tmp_path / "skimmed.root", stop=stop, runs=True)
        with pytest.raises(ConfigError, match=rf"svj: .*skimmed.root was skimmed before \({stop} of 150 events\)"):
            run(entry(skimmed, generator_weight="sign"))


def test_a_choice_is_one_of_two_and_said_in_one_place(path):
    with pytest.raises(ConfigError, match="dataset svj: generator_weight is 'signs', but must be stored or sign"):
        run(entry(path, generator_weight="signs"))
    with pytest.raises(ConfigError, match="generator_weight is 'signs', but must be stored or sign"):
        run(entry(path), generator_weight="signs")
    with pytest.raises(ConfigError, match="dataset svj: generator_weight is stored in its metadata, but the run asks"):
        run(entry(path, generator_weight="stored"), generator_weight="sign")


def test_data_weigh_1_in_any_case(path):
    fileset = {"data": {"files": {str(path): "Events"}, "metadata": {"is_mc": False}}}
    report = run(fileset, generator_weight="sign")
    assert "generator_weight" not in report.datasets["data"]["metadata"]


@pytest.mark.usefixtures("undrawn")
def test_the_command_line_and_filesets_take_it(path, tmp_path):
    fileset = build_fileset({"svj": [str(path)]}, metadata={"svj": {"xsec": 1.0, "generator_weight": "sign"}})
    assert fileset["svj"]["metadata"]["generator_weight"] == "sign"
    (tmp_path / "f.json").write_text(json.dumps(entry(path)))
    arguments = ["run", "semivisible_jets", "--fileset", str(tmp_path / "f.json"), "-o", str(tmp_path / "out"),
                 "--executor", "iterative", "--generator-weight", "sign", *LOOSE]  # fmt: skip
    assert cli.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["datasets"]["svj"]["sumw"] == SIGNS
