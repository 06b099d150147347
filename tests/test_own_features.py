"""Features of a script, a recipe or a plugin file: in skims, taggers and trainings, and on workers that have no file."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import cloudpickle
import numpy as np
import pyarrow.parquet as pq
import pytest
from toys import DATA, HERE, open_events

from coffea_ad import features, recipes
from coffea_ad.cli.main import main
from coffea_ad.errors import BadFeature
from coffea_ad.features import Column, Feature, at_once

FEATURE = """
import awkward as ak
import numpy as np
from coffea_ad.features import Column, Feature, Options, at_once, register


class ShapeOptions(Options):
    scale: float = 1.0


def shape(jets, options):
    return np.stack([np.log(jets.field("pt")), options.scale * jets.field("eta")], axis=1).astype(np.float32)


register(
    Feature(
        name="%s",
        version=1,
        level="jet",
        columns=lambda _: (Column("log_pt"), Column("eta")),
        reads=lambda collection, options: ((f"{collection}_pt", f"{collection}_eta"),),
        rows=at_once(shape),
        convention="ln(pT / GeV) and scaled eta",
        reference="",
        options=ShapeOptions,
    )
)
"""


@pytest.fixture
def plugin(tmp_path):
    """A plugin file, and nothing of it left behind."""
    before = dict(features.FEATURES), dict(features._origins), dict(recipes._plugins)
    path = tmp_path / "my_features.py"
    path.write_text(FEATURE % "my_shape")
    yield path
    for now, then in zip((features.FEATURES, features._origins, recipes._plugins), before, strict=True):
        now.clear()
        now.update(then)


@pytest.fixture
def qcd(tmp_path):
    path = tmp_path / "fileset.json"
    path.write_text(
        json.dumps({"qcd": {"files": {str(DATA / "qcd_v15.root"): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0}}})
    )
    return path


def toy(**changes):
    """A feature of this file."""
    told = {
        "name": "toy_feature",
        "version": 1,
        "level": "event",
        "columns": lambda _: (Column("n"),),
        "reads": lambda *_: (("nJet",),),
        "rows": at_once(lambda objects, _: np.zeros((len(objects), 1), np.float32)),
        "convention": "",
        "reference": "",
    }
    return Feature(**{**told, **changes})


def test_the_example_in_the_documentation_is_a_plugin(plugin, tmp_path, capsys):
    text = (HERE.parent / "docs" / "features.md").read_text()
    example = next(b for b in text.split("```python\n") if "register(met)" in b).split("```")[0]
    path = tmp_path / "documented.py"
    path.write_text(example)
    assert main(["features", "met_scaled", "scale=1e3", "--plugin", str(path)]) == 0
    assert "1000.0" in capsys.readouterr().out
    values, _ = features.compute("met_scaled", open_events(DATA / "qcd_v15.root"), scale=2.0)
    events = open_events(DATA / "qcd_v15.root")
    np.testing.assert_allclose(values[:, 0], 2 * np.asarray(events.PuppiMET.pt), rtol=1e-6)


@pytest.mark.parametrize("executor", ["iterative", "futures", "dask"])
def test_a_skim_with_a_plugin_works_wherever_the_workers_are(plugin, qcd, tmp_path, executor):
    words = [
        "run",
        "skim_jets",
        "features=[{name: my_shape, options: {scale: 2}}]",
        "--fileset",
        str(qcd),
        "-e",
        executor,
    ]
    assert main([*words, "--workers", "1", "--plugin", str(plugin), "-o", str(tmp_path / "skims")]) == 0
    (path,) = (tmp_path / "skims" / "qcd").glob("*.parquet")
    table = pq.read_table(path)
    np.testing.assert_allclose(table["my_shape[scale=2.0].log_pt"], np.log(table["pt"]), rtol=1e-6)
    np.testing.assert_allclose(table["my_shape[scale=2.0].eta"], 2 * table["eta"].to_numpy(), rtol=1e-5)
    # a resubmission loads it again
    assert json.loads((tmp_path / "skims" / "report.json").read_text())["settings"]["plugins"] == [str(plugin)]


def test_a_processor_file_may_register_its_own_feature(plugin, qcd, tmp_path):
    recipe = tmp_path / "my_skim.py"
    recipe.write_text(
        recipes.find("skim_jets")
        .read_text()
        .replace("\n\n\nclass Config", (FEATURE % "my_shape") + "\n\nclass Config", 1)
    )
    words = ["run", str(recipe), "features={name: my_shape}", "--fileset", str(qcd), "-e", "futures", "--workers", "1"]
    assert main([*words, "-o", str(tmp_path / "skims")]) == 0
    (path,) = (tmp_path / "skims" / "qcd").glob("*.parquet")
    assert "my_shape.log_pt" in pq.read_schema(path).names


def test_registered_features_travel_to_a_process_that_has_no_file(plugin, tmp_path):
    recipes.load_plugin(plugin)
    events = open_events(DATA / "qcd_v15.root")
    here, _ = features.compute("my_shape", events)
    (tmp_path / "pickle").write_bytes(cloudpickle.dumps(features.Registered()))
    plugin.unlink()
    code = f"""
        import pickle, sys
        sys.path[:] = [p for p in sys.path if p != {str(tmp_path)!r}]
        pickle.load(open({str(tmp_path / "pickle")!r}, "rb"))
        import coffea_ad as ad
        from coffea.nanoevents import NanoEventsFactory
        events = NanoEventsFactory.from_root({str(DATA / "qcd_v15.root")!r} + ":Events", schemaclass=ad.NanoAODSchema).events()
        print(ad.features.compute("my_shape", events)[0].sum(dtype=float))
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert float(out.stdout) == pytest.approx(here.sum(dtype=float))


@pytest.mark.torch
def test_a_model_of_an_own_feature_is_trained_and_scored(plugin, qcd, tmp_path, capsys):
    words = ["--plugin", str(plugin)]
    skim = ["run", "skim_jets", "features={name: my_shape}", "--fileset", str(qcd), "-e", "iterative"]
    assert main([*skim, *words, "-o", str(tmp_path / "skims")]) == 0
    train = ["run", "pca", f"data={tmp_path / 'skims'}", "feature=my_shape", "components=1", "weights=none"]
    assert main([*train, *words, "-o", str(tmp_path / "pca.onnx")]) == 0
    capsys.readouterr()
    assert main(["card", str(tmp_path / "pca.onnx"), *words]) == 0
    assert "my_shape" in capsys.readouterr().out


def test_the_listing_says_which_file_a_feature_is_from(plugin, capsys):
    assert main(["features", "--plugin", str(plugin)]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "my_shape" in line)
    assert "my_features" in row


def test_a_plugin_that_was_edited_counts_anew(plugin):
    recipes.load_plugin(plugin)
    plugin.write_text((FEATURE % "my_shape").replace("version=1", "version=2"))
    recipes.load_plugin(plugin)
    assert features.get("my_shape").version == 2


def test_two_files_may_not_register_one_name(plugin, tmp_path):
    recipes.load_plugin(plugin)
    other = tmp_path / "other_features.py"
    other.write_text(FEATURE % "my_shape")
    with pytest.raises(BadFeature, match=r"'my_shape' was registered by .*my_features.py already"):
        recipes.load_plugin(other)


@pytest.mark.parametrize(
    ("feature", "sentence"),
    [
        ("text", "str cannot be registered: it is no coffea_ad.features.Feature"),
        (toy(name="jet_substructure"), "'jet_substructure' exists already"),
        (toy(name="a.b"), "letters, digits and _ only"),
        (toy(level="jets"), "its level is 'jets'"),
        (toy(version=0), "its version is 0"),
        (toy(columns=lambda _: ()), "at least one"),
        (toy(columns=lambda _: (Column("a"), Column("a"))), "must be different names"),
        (toy(columns=lambda _: _.nothing), "does not say its columns and branches: AttributeError"),
        (toy(reads=lambda *_: ("nJet",)), "must give alternatives, each a tuple of branches"),
        (toy(reads=lambda *_: ()), "must give alternatives, each a tuple of branches"),
    ],
)
def test_what_is_no_good_feature_is_refused_with_its_reason(feature, sentence):
    with pytest.raises(BadFeature) as caught:
        features.register(feature)
    assert sentence in str(caught.value)
    assert "toy_feature" not in features.FEATURES


def test_checkpoints_and_resubmissions_notice_an_edited_feature(plugin):
    from coffea_ad.running.checkpoints import run_key

    class Nothing:
        pass

    def key():
        recipes.load_plugin(plugin)
        return run_key(Nothing(), None, models=[], config={}, versions={})["features"]["my_shape"]

    before = key()
    assert key() == before
    plugin.write_text((FEATURE % "my_shape").replace("np.log", "np.log10"))
    assert key() != before
