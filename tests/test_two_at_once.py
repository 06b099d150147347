"""Two processes that write into one folder: nothing is lost, and nothing of both is mixed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from coffea_ad import files
from coffea_ad.results import load_results

SAVE = """
import sys, time
import hist
from coffea_ad.results import save_results

name, folder, start = sys.argv[1:]
h = hist.Hist.new.Reg(50000, 0, 1, name="x").Double().fill([0.5] * (10 if name == "one" else 20))
report = {"datasets": {}, "lumi": None, "notes": [], "throughput": {}, "key": {}, "processor": name}
while time.time() < float(start):
    time.sleep(0.001)
for _ in range(15):
    save_results({"all": {"x": h}}, report, folder)
"""
MANIFEST = """
import sys, time
from types import SimpleNamespace
from coffea_ad.skimming import write_manifest

name, folder, start = sys.argv[1:]
while time.time() < float(start):
    time.sleep(0.001)
for i in range(40):
    key = f"{name}_{i}"
    write_manifest(SimpleNamespace(
        datasets={key: {"sumw": 1.0}}, outputs={key: {"files": {f"{folder}/{key}/a.parquet"}, "rows": 1}}, config={}, versions={},
    ), folder)
"""


def together(script, folder):
    start = str(time.time() + 8)
    commands = [[sys.executable, "-c", script, name, str(folder), start] for name in ("one", "two")]
    running = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
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
    import json

    together(MANIFEST, tmp_path)
    datasets = json.loads((tmp_path / "manifest.json").read_text())["datasets"]
    assert set(datasets) == {f"{name}_{i}" for name in ("one", "two") for i in range(40)}


def test_who_comes_later_waits(tmp_path):
    script = f"from coffea_ad import files\nwith files.alone({str(tmp_path)!r}): print('in', flush=True)"
    with files.alone(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(6)
    assert other.communicate(timeout=60)[0] == "in\n"
