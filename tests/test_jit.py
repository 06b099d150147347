"""Compiled code is kept where that is possible, and never in the way of anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import coffea_ad

PACKAGE = Path(coffea_ad.__file__).parent

# A kernel that calls functions of other files, and what its cache did.
CODE = """
from coffea_ad.features import grooming
counts, plane = grooming.lund_plane([0, 2], [30.0, 10.0], [0.2, -0.2], [0.0, 0.3], [0.0, 0.0])
stats = grooming._trees.stats
print(plane[0].round(12).tolist(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
VALUES = "[0.69314718056, 1.609437912434, 0.25]"

# The same of the smallest one, which is compiled in a moment.
KERNEL = """
from coffea_ad.features.clustering import distance2
from coffea_ad.features.jit import kernel

@kernel
def largest(x, y):
    out = 0.0
    for i in range(len(x)):
        out = max(out, distance2(x[0], y[0], x[i], y[i]))
    return out
"""
SMALL_CODE = """
import numpy as np
from coffea_ad.features.smallest import largest
value = largest(np.array([0.0, 3.0, 1.0]), np.array([0.0, 2.0, 2.0]))
print(value, sum(largest.stats.cache_hits.values()), sum(largest.stats.cache_misses.values()))
"""
SMALL_VALUE = "13.0"


@pytest.fixture
def site(tmp_path):
    """A copy of the package, without compiled code, on a path of its own."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "coffea_ad", ignore=shutil.ignore_patterns("__pycache__", "_recipes"))
    return tmp_path / "site"


@pytest.fixture
def small(site):
    """One whose features are the smallest kernel, and nothing else is imported."""
    (site / "coffea_ad" / "features" / "__init__.py").write_text("")
    (site / "coffea_ad" / "features" / "smallest.py").write_text(KERNEL)
    return site


def environment(site, home):
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG", "PYTHON"))}
    return {**kept, "PYTHONPATH": str(site), "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}


def start(site, home, code=CODE):
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment(site, home), cwd=site, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip


def answer(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


def read_only(site):
    """Nothing can be put beside the sources: also for root, who may write into folders that are read-only."""
    for folder in (site / "coffea_ad" / "features", site / "coffea_ad"):
        (folder / "__pycache__").write_text("a file where numba wants a folder")


def test_the_second_process_compiles_nothing(site, tmp_path):
    assert answer(start(site, tmp_path)) == f"{VALUES} 0 1"
    assert answer(start(site, tmp_path)) == f"{VALUES} 1 0"


def test_an_install_that_cannot_be_written_uses_the_cache_of_the_user(small, tmp_path):
    read_only(small)
    home = tmp_path / "home"
    home.mkdir()
    assert answer(start(small, home, SMALL_CODE)) == f"{SMALL_VALUE} 0 1"
    assert list(home.rglob("*.nbi"))
    assert answer(start(small, home, SMALL_CODE)) == f"{SMALL_VALUE} 1 0"


def test_without_any_place_to_write_kernels_are_compiled_in_memory(small):
    read_only(small)
    assert answer(start(small, "/dev/null", SMALL_CODE)) == f"{SMALL_VALUE} 0 1"
    assert not list(small.rglob("*.nb?"))


def test_many_processes_that_start_at_once_agree_and_leave_a_good_cache(small, tmp_path):
    several = [start(small, tmp_path, SMALL_CODE) for _ in range(5)]
    assert {answer(process).split()[0] for process in several} == {SMALL_VALUE}
    assert answer(start(small, tmp_path, SMALL_CODE)) == f"{SMALL_VALUE} 1 0"


def test_a_change_in_what_a_kernel_calls_is_compiled(small, tmp_path):
    """numba looks at the file of the cached function only."""
    assert answer(start(small, tmp_path, SMALL_CODE)).startswith(SMALL_VALUE)
    source = small / "coffea_ad" / "features" / "clustering.py"
    text = source.read_text()
    changed = text.replace("    return dy * dy + dphi * dphi\n", "    return 4.0 * (dy * dy + dphi * dphi)\n")
    assert changed != text
    source.write_text(changed)
    assert answer(start(small, tmp_path, SMALL_CODE)) == "52.0 0 1"


def test_every_kernel_has_one_signature(svj):
    """Two signatures of one function could overwrite each other's compiled code when processes start at once."""
    import numpy as np

    import coffea_ad as ad
    from coffea_ad.features import constituents, energy_flow, grooming, images, kitchen_sink, objects, rmm, substructure

    for name, options in (
        ("jet_substructure", {}), ("jet_substructure", {"observables": ["tau1", "charge", "lambda_2_0.5"], "axes": "WTA_KT"}),
        ("jet_constituents", {"columns": ["charge", "is_muon"]}), ("jet_constituents", {}), ("jet_lund", {}),
        ("jet_images", {"smear": 1.0, "power": 0.5}), ("rmm", {}), ("rmm_zones", {}), ("event_objects", {}),
        ("dijet", {"inputs": "extended2"}), ("dijet", {"inputs": "kitchen_sink"}),
    ):  # fmt: skip
        ad.features.compute(name, svj, **options)
        list(ad.features.blocks(name, svj, size=13, **options))
    offsets = np.array([0, 2], np.int32)
    light = np.ones(4, np.float32)[::2]
    light.flags.writeable = False
    substructure.substructure(["tau2"], offsets, light, light, light, light)
    grooming.subjets(offsets, light, light, light, light)
    energy_flow.efp(["efp_1_1"], offsets, light, light, light, light)
    kitchen_sink.kitchen_sink(offsets, light, light, light, light)
    images.smear_images(np.ones((8, 6, 6), np.float32)[::2], 1)
    images.jet_images(offsets, light, light, light, 6, 2, True, True, 1, np.ones((2, 6, 6), np.float32)[::2])
    for kernel in (
        substructure._substructure, grooming._trees, constituents._tensor, images._jet_images, images._smear,
        objects._select, rmm._fill, energy_flow._efp, kitchen_sink._kitchen_sink,
    ):  # fmt: skip
        assert len(kernel.signatures) == 1, kernel
