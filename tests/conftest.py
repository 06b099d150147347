from __future__ import annotations

import functools
import gc
import importlib.util
import os
import shutil

# Before torch is imported, here and in processes that tests start: networks this small are slower with two threads
# than with one, and much slower where other tests have the other core.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import loopback
import pytest
from toys import DATA, REAL, open_events

NEEDS = {
    "torch": ("torch", "onnx", "onnxscript", "sklearn", "mplhep"),
    "simulate": ("pythia8mc", "fastjet"),
    "plot": ("mplhep",),
}


@functools.cache
def _missing(modules):
    return [m for m in modules if importlib.util.find_spec(m) is None]


def _lacking(*what):
    programs = [w for w in what if w.islower() and "." not in w and shutil.which(w, path=PATH) is None]
    packages = [w[1:] for w in what if w[0] == "." and importlib.util.find_spec(w[1:]) is None]
    return [*programs, *packages, *([] if loopback.alone() else ["the loopback address to be the only one"])]


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
SERVERS = {
    "servers": lambda: _lacking("xrootd", ".fsspec_xrootd", ".moto", ".s3fs"),
    "slurm": lambda: _lacking("munged", "slurmctld", "slurmd", "sbatch", ".dask_jobqueue"),
}


# Thousands of tests and libraries as large as torch stay until the end: a tenth of the time went into looking through them for
# something to free.
gc.set_threshold(50_000, 20, 20)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items):
    for item in items:
        for marker, modules in NEEDS.items():
            if item.get_closest_marker(marker) and (missing := _missing(modules)):
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))
        for marker, needs in SERVERS.items():
            if item.get_closest_marker(marker) and (lacking := needs()):
                reason = f"needs {', '.join(lacking)}: nox -s {marker}"
                item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("real") and not REAL.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"the real NanoAOD files are not in {REAL}"))


@pytest.fixture(autouse=True, scope="module")
def _registered():
    """What a file of tests registers is gone behind it."""
    from coffea_ad import features

    before = dict(features.FEATURES), dict(features._origins)
    yield
    for table, content in zip((features.FEATURES, features._origins), before, strict=True):
        table.clear()
        table.update(content)


@pytest.fixture(autouse=True, scope="session")
def _operators():
    """torch reads the sources of all operators again for each export, a third of its time; here once for all tests."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # no torch, or another one: it takes longer
        yield
        return

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session")
def data():
    return DATA


@pytest.fixture(scope="session")
def svj_file():
    return DATA / "svj_v15.root"


@pytest.fixture(scope="session")
def model_file():
    return DATA / "wnae.onnx"


@pytest.fixture(scope="session")
def stored_model():
    return DATA / "ae_stored.onnx"


@pytest.fixture
def svj(svj_file):
    return open_events(svj_file)


@pytest.fixture(scope="session")
def real():
    return REAL


@pytest.fixture
def fileset(tmp_path):
    """Two simulated datasets of our own, copied so that a test may spoil them."""
    out = {}
    for name, xsec in (("svj", 1.0), ("qcd", 1000.0)):
        path = tmp_path / f"{name}.root"
        shutil.copy(DATA / f"{name}_v15.root", path)
        out[name] = {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": xsec}}
    return out


@pytest.fixture(scope="session")
def client():
    """One dask cluster for all tests of a process that do not ask how a cluster starts or ends."""
    from coffea_ad.running.clusters.config import ClusterConfig
    from coffea_ad.running.clusters.connect import connect

    with connect(ClusterConfig(workers=1)) as client:
        yield client


@pytest.fixture
def on(request):
    """Options of a run on an executor; `dask` is the cluster that all tests share."""

    def options(executor):
        return {"executor": executor} | ({"cluster": request.getfixturevalue("client")} if executor == "dask" else {})

    return options


@pytest.fixture
def undrawn(monkeypatch):
    """Runs of the command line without their figures, which take longer than such a run."""
    from coffea_ad.cli import results

    monkeypatch.setattr(results, "plot_figures", lambda *_, **__: 0)


@pytest.fixture
def unarranged(monkeypatch):
    """Figures whose axes are not moved apart, which takes two thirds of the drawing."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", lambda *_: None)
