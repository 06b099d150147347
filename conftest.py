"""Names for the examples in docstrings, and which of them an installation can run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

_NEEDS = {"torch": "coffea_ad/nn/*.py", "onnx": "coffea_ad/modelfiles/*.py", "sklearn": "coffea_ad/evaluation/*.py",
          "mplhep": "coffea_ad/plotting/displays/views.py"}  # fmt: skip
_MISSING = {module: glob for module, glob in _NEEDS.items() if importlib.util.find_spec(module) is None}
collect_ignore_glob = list(_MISSING.values())


def pytest_report_header() -> list[str]:
    """Say which docstring examples are left out."""
    return [f"{module} is not installed: examples in {glob} are left out" for module, glob in _MISSING.items()]


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    data = Path(__file__).parent / "tests" / "data"
    doctest_namespace.update(np=np, svj_file=data / "svj_v15.root", model_file=data / "wnae.onnx")
