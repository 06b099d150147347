from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from coffea.nanoevents import NanoEventsFactory

import coffea_ad as ad

HERE = Path(__file__).parent
DATA = HERE / "data"
REAL = HERE.parent.parent / "shared" / "data" / "nanoaod"
NEEDS = {"torch": ("torch", "onnx", "onnxscript"), "simulate": ("pythia8mc", "fastjet")}


def pytest_collection_modifyitems(items):
    for item in items:
        for marker, modules in NEEDS.items():
            missing = [m for m in modules if importlib.util.find_spec(m) is None]
            if item.get_closest_marker(marker) and missing:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(missing)}"))
        if item.get_closest_marker("real") and not REAL.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"the real NanoAOD files are not in {REAL}"))


def open_events(path, schema=ad.NanoAODSchema, **kwargs):
    return NanoEventsFactory.from_root(f"{path}:Events", schemaclass=schema, **kwargs).events()


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


def toy_jets(rng, n_jets=20, largest=40):
    """Constituents of toy jets with one to three prongs, flat."""
    counts = rng.integers(1, largest, n_jets)
    jet = np.repeat(np.arange(n_jets), counts)
    n = len(jet)
    prong = rng.integers(0, 3, n)
    center = rng.normal(0, 0.3, (2, n_jets, 3))
    eta = center[0, jet, prong] + rng.normal(0, 0.1, n) + rng.normal(0, 1, n_jets)[jet]
    phi = center[1, jet, prong] + rng.normal(0, 0.1, n) + rng.uniform(-np.pi, np.pi, n_jets)[jet]
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    mass = np.where(rng.random(n) < 0.6, 0.13957, 0.0)
    return np.r_[0, np.cumsum(counts)], rng.exponential(10, n) + 0.5, eta, phi, mass
