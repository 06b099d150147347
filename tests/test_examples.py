from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import awkward as ak
from coffea import processor
from toys import DATA, open_events

import coffea_ad as ad
from coffea_ad import recipes

EXAMPLE = Path(ad.__file__).parent.parent / "examples" / "own_processor.py"


def test_the_example_is_short():
    module = ast.parse(EXAMPLE.read_text())
    lines = {node.lineno for node in ast.walk(module) if hasattr(node, "lineno")}
    assert len(lines) <= 25


def test_the_example_counts_the_jets_that_the_tagger_tags():
    example = recipes.load(EXAMPLE)
    runner = processor.Runner(processor.IterativeExecutor(status=False), schema=ad.NanoAODSchema, chunksize=40)
    files = {"svj": [str(DATA / "svj_v15.root")]}
    out = runner(files, example.Anomalous(str(DATA / "wnae.onnx")), treename="Events")["svj"]
    jets = ad.Tagger(DATA / "wnae.onnx")(open_events(DATA / "svj_v15.root"))
    wanted = ak.sum((jets["pt"] > 300) & ak.fill_none(jets["ad_region"] >= 1, value=False))
    assert wanted > 10
    assert out["mass"].sum(flow=True) == wanted
    assert out["events"] == 150


def test_the_example_runs_as_a_program():
    out = subprocess.run(
        [sys.executable, str(EXAMPLE), str(DATA / "wnae.onnx"), str(DATA / "svj_v15.root")],
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    assert "'events': 150" in out.stdout
