"""Modules of one's own: every edit counts, however they are found, and workers import what was sent."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import pytest
from toys import DATA

from coffea_ad.running.checkpoints import code_digests
from coffea_ad.running.sources import SourceFinder, Sources, local_modules, noting_imports

HOOK = """
import importlib.util, sys

class Hook:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "hooked":
            return importlib.util.spec_from_file_location(name, PLACE + "/hooked/__init__.py",
                                                          submodule_search_locations=[PLACE + "/hooked"])

sys.meta_path.append(Hook)
"""
PROCESSOR = """
import importlib
import hist
import numpy as np
from coffea import processor
from hooked.top import N as TOP
from hooked import THROUGH


class Mine(processor.ProcessorABC):
    def process(self, events):
        from hooked.inside import N as INSIDE
        made_up = importlib.import_module("hooked." + "made_up").N
        n = TOP + THROUGH + INSIDE + made_up
        h = hist.Hist.new.Integer(0, 20, name="n").Double().fill(np.full(len(events), n))
        return {events.metadata["dataset"]: {"h": h}}

    def postprocess(self, accumulator):
        return accumulator
"""
WAYS = ("top", "through", "inside", "made_up")
"""Imported at the top, through another module, in a function, by a name that is made up at run time."""
CLIENT = """
import json, os, sys
PLACE = {place!r}
{hook}
import coffea_ad as ad
import coffea_ad.running, coffea_ad.running.clusters, coffea_ad.results  # once, for all runs

def run(executor, output, **where):
    fileset = {{"svj": {{"files": {{{data!r}: "Events"}}, "metadata": {{"is_mc": True, "xsec": 1.0}}}}}}
    report = ad.run(fileset, PLACE + "/mine.py", executor=executor, chunksize=60, checkpoints=PLACE + "/kept", progress=False,
                    output=output, force=True, **where)
    h = ad.load_results(output).histograms["svj"]["h"]
    print("RESULT", report.throughput["resumed_chunks"], *(int(v) for v in h.values()), flush=True)

if __name__ == "__main__":
    for line in sys.stdin:  # each in a process that has imported nothing of the project
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)
"""


def write(folder, way, n):
    (folder / "hooked" / f"{way}.py").write_text(f"N = {n}\n")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "hooked").mkdir()
    (tmp_path / "hooked" / "__init__.py").write_text("from hooked.through import N as THROUGH\n")
    for way in WAYS:
        write(tmp_path, way, 1)
    (tmp_path / "mine.py").write_text(PROCESSOR)
    (tmp_path / "client.py").write_text(CLIENT.format(place=str(tmp_path), hook=HOOK, data=str(DATA / "svj_v15.root")))
    return tmp_path


@pytest.fixture
def results(project):
    """What a run in a new process resumes and counts."""
    command = [sys.executable, str(project / "client.py")]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    with (project / "errors").open("w+") as errors, subprocess.Popen(
        command, cwd=project, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
    ) as client:  # fmt: skip

        def of(**words):
            client.stdin.write(json.dumps({"output": str(project / "out"), **words}) + "\n")
            client.stdin.flush()
            line = next((s for s in iter(client.stdout.readline, "") if s.startswith("RESULT")), None)
            assert line, (project / "errors").read_text()[-2000:]
            resumed, *counts = (int(v) for v in line.split()[1:])
            (number,) = (n for n, count in enumerate(counts) if count)
            return resumed, number

        yield of
        client.stdin.close()


def test_an_edit_of_a_module_that_an_import_hook_finds_makes_checkpoints_stale(project, results):
    assert results(executor="iterative") == (0, 4)
    resumed, number = results(executor="iterative")  # nothing has changed
    assert resumed > 0
    assert number == 4
    for i, way in enumerate(WAYS):
        write(project, way, 2)
        assert results(executor="iterative") == (0, 5 + i), way


@pytest.fixture(scope="module")
def foreign_cluster(tmp_path_factory):
    """A scheduler and a worker that were started elsewhere: in another folder, without the hook."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    script = textwrap.dedent("""
        import sys, time
        from distributed import LocalCluster
        if __name__ == "__main__":
            with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
                print(cluster.scheduler_address, flush=True)
                sys.stdin.read()
    """)
    (elsewhere / "serve.py").write_text(script)
    with subprocess.Popen(
        [sys.executable, str(elsewhere / "serve.py")], cwd=elsewhere, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        yield server.stdout.readline().strip()
        server.stdin.close()


@pytest.mark.dask
def test_modules_travel_to_workers_that_do_not_have_them(project, results, foreign_cluster):
    assert results(executor="dask", scheduler=foreign_cluster) == (0, 4)
    for way in WAYS:
        write(project, way, 3)
    assert results(executor="dask", scheduler=foreign_cluster) == (0, 12)  # the worker had loaded the former texts


def test_libraries_do_not_count_wherever_they_were_installed(tmp_path, monkeypatch):
    (tmp_path / "lib" / "bought-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "lib" / "bought.py").write_text("X = 1\n")
    (tmp_path / "lib_user.py").write_text("import numpy, bought\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    module = importlib.import_module("lib_user")
    assert {p.name for p in local_modules(module).values()} == {"lib_user.py"}


def test_modules_imported_meanwhile_belong_to_the_processor(tmp_path, monkeypatch):
    (tmp_path / "home_of_it.py").write_text("X = 1\n")
    (tmp_path / "seen_at_work.py").write_text("Y = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    home = importlib.import_module("home_of_it")
    with noting_imports(home):
        importlib.import_module("seen_at_work")
    assert {Path(p).name for p in code_digests(home)} == {"home_of_it.py", "seen_at_work.py"}


def test_what_is_unpickled_in_the_same_process_changes_nothing_there(tmp_path):
    (tmp_path / "a.py").write_text("X = 1\n")
    before = list(sys.meta_path)
    copy = cloudpickle.loads(cloudpickle.dumps(Sources({"a": tmp_path / "a.py"})))
    assert copy.sources["a"].text == b"X = 1\n"
    assert sys.meta_path == before
    assert not any(isinstance(finder, SourceFinder) for finder in before)
