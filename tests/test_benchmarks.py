"""The benchmarks, whose numbers the documentation has: they take many minutes, but a name that is gone shows at once."""

from __future__ import annotations

import subprocess
import sys

import pytest
from toys import HERE

pytestmark = pytest.mark.torch
pytest.importorskip("torch", reason="not installed: torch")

BENCHMARKS = HERE.parent / "benchmarks"
IMPORT_ALL = """
import importlib, pathlib, sys
for path in sorted(pathlib.Path().glob("*.py")):
    try:
        importlib.import_module(path.stem)
    except Exception as error:
        print(f"{path.name}: {error!r}")
"""


def test_benchmarks_import_what_is_there():
    assert len(list(BENCHMARKS.glob("*.py"))) > 40
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=BENCHMARKS, capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout == ""
