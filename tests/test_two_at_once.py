"""Two processes that write into one folder: nothing is lost, and nothing of both is mixed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from coffea_ad import files
from coffea_ad.results.folder import load_results

SAVE = """
import sys
import hist
from coffea_ad.results import save_results

name, folder = sys.argv[1:]
h = hist.Hist.new.Reg(50000, 0, 1, name="x").Double().fill([0.5] * (10 if name == "one" else 20))
report = {"datasets": {}, "lumi": None, "notes": [], "throughput": {}, "key": {}, "processor": name}
print("ready", flush=True)
sys.stdin.readline()
for _ in range(15):
    save_results({"all": {"x": h}}, report, folder)
"""
MANIFEST = """
import sys
from types import SimpleNamespace
from coffea_ad.skims.writing import write_manifest

name, folder = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for i in range(40):
    key = f"{name}_{i}"
    write_manifest(SimpleNamespace(
        datasets={key: {"sumw": 1.0}}, outputs={key: {"files": {f"{folder}/{key}/a.parquet"}, "rows": 1}}, config={}, versions={},
    ), folder)
"""


def started(script, *arguments):
    """A process that has said that it is ready."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout.readline() == "ready\n", process.communicate(timeout=60)[1][-1000:]
    return process


def together(script, folder):
    """Two processes that begin to write at the same moment."""
    running = [started(script, name, folder) for name in ("one", "two")]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error[-1000:]


def test_results_are_those_of_one_run(tmp_path):
    together(SAVE, tmp_path)
    results = load_results(tmp_path)
    expected = {"one": 10, "two": 20}[results.report["processor"]]
    assert results.histograms["all"]["x"].sum() == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["histograms.zip", "report.json"]


def test_a_manifest_has_the_datasets_of_all_runs(tmp_path):
    together(MANIFEST, tmp_path)
    datasets = json.loads((tmp_path / "manifest.json").read_text())["datasets"]
    assert set(datasets) == {f"{name}_{i}" for name in ("one", "two") for i in range(40)}


def test_who_comes_later_waits(tmp_path):
    script = f"from coffea_ad import files\nprint('ready', flush=True)\nwith files.alone({str(tmp_path)!r}): print('in', flush=True)"
    with files.alone(tmp_path):
        other = started(script)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1)
    assert other.communicate(timeout=60)[0] == "in\n"
