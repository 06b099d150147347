"""Make the fixtures of the tests anew: small simulated files, and the demo's models.

make demo && .venv/bin/python tests/data/make.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from coffea_ad.simulation import simulate

HERE = Path(__file__).parent
DEMO = HERE.parent.parent / "build" / "demo" / "models"


def main() -> None:
    simulate("svj", 150, HERE / "svj_v15.root", seed=11)
    simulate("svj", 150, HERE / "svj_pfnano.root", seed=11, layout="pfnano")
    simulate("qcd", 200, HERE / "qcd_v15.root", seed=12, parameters={"pthat_min": 350.0})
    simulate("ttbar", 100, HERE / "ttbar_v15.root", seed=13, parameters={"pthat_min": 250.0})
    for name in ("wnae", "ae_stored"):
        shutil.copyfile(DEMO / f"{name}.onnx", HERE / f"{name}.onnx")


if __name__ == "__main__":
    main()
