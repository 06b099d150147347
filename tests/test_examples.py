from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import awkward as ak
import pytest
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
    wanted = ak.sum((jets["pt"] > 300) & (jets["ad_region"] >= 1))
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


@pytest.mark.parametrize("page", ["README.md", "docs/tagger.md", "docs/index.md"])
def test_the_three_lines_of_the_documentation_run(page, tmp_path, monkeypatch, svj):
    text = (EXAMPLE.parent.parent / page).read_text()
    block = re.search(r"```python\n(tagger = .*?)```", text, re.DOTALL)[1]
    shutil.copy(DATA / "wnae.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {"ad": ad, "events": svj}
    exec(block, names)
    assert {"ad_score", "ad_logp", "ad_region"} <= set(names["jets"].fields)


def test_the_code_of_the_features_page_runs(svj):
    """The three lines at its top, and a feature of one's own."""
    text = (EXAMPLE.parent.parent / "docs" / "features.md").read_text()
    use, own = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {"ad": ad, "events": svj}
    exec(use, names)
    assert names["values"].shape == (names["counts"].sum(), 2)
    assert names["block"].shape[1] == 2601
    exec(own, names)
    feature = names["met"]
    options = feature.resolve({"scale": 2.0})
    rows = feature.rows(ad.nanoaod.Objects.events(svj), options)(0, 3)
    assert rows[:, 0].tolist() == pytest.approx((2 * svj.PuppiMET["pt"][:3]).to_list())


def test_commands_of_the_documentation_exist():
    """Every `coffea-ad VERB` of README and docs is one that the parser knows, with flags that it knows."""
    from coffea_ad.cli.main import _parser

    pages = [EXAMPLE.parent.parent / "README.md", *(EXAMPLE.parent.parent / "docs").glob("*.md")]
    commands = []
    for page in pages:
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.DOTALL):
            joined = block.replace("\\\n", " ")
            commands += [line for line in joined.splitlines() if line.startswith("coffea-ad ")]
    assert len(commands) > 10
    for line in commands:
        words = shlex.split(re.split(r"   +|&&", line)[0])[1:]
        args, rest = _parser().parse_known_args(words)
        assert all("=" in word for word in rest), line
        assert callable(args.do)
