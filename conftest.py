"""Names for the examples in docstrings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, object]) -> None:
    data = Path(__file__).parent / "tests" / "data"
    doctest_namespace.update(np=np, svj_file=data / "svj_v15.root", model_file=data / "wnae.onnx")
