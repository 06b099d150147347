"""Representations of jets against everything simpler: semivisible jets among QCD jets, by encoders that know QCD alone.

    python benchmarks/self_supervised.py samples                       # simulation and skims, 10 minutes of one core
    python benchmarks/self_supervised.py train --seeds 1 2 3           # what exists is not trained again; --only NAME …
    python benchmarks/self_supervised.py table

The jets are those of the talk: AK8, 150 < pT < 350 GeV, |η| < 2, each of the two leading ones of an event that is in this window. QCD
jets train; the rows of other files make the table. Signals are s-channel semivisible jets: a point like that of CMS, the "Aachen" point,
and three more (r_inv, m_dark) that no setting was chosen with. AUC and ε_S at ε_B = 10⁻³ are given as they are, and with the background
weighted to the signal's spectrum of pT.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.running import run
from coffea_ad.simulation import simulate

ROOT = Path("build/self_supervised")
QCD = ("qcd", {"pthat_min": 130.0, "bias_power": 2.0})
SIGNALS = {
    "cms": ("svj", {"m_zprime": 1000.0, "r_inv": 0.3, "m_dark": 20.0}),
    "aachen": ("svj_aachen", {}),
    "unseen_02_60": ("svj", {"m_zprime": 1000.0, "r_inv": 0.2, "m_dark": 60.0}),
    "unseen_05_10": ("svj", {"m_zprime": 1500.0, "r_inv": 0.5, "m_dark": 10.0}),
    "unseen_07_40": ("svj", {"m_zprime": 2000.0, "r_inv": 0.7, "m_dark": 40.0}),
}
SETS = {"train": {"qcd": (QCD, 26_000)}, "eval": {"qcd": (QCD, 16_000), **{k: (v, 4_000) for k, v in SIGNALS.items()}}}
WINDOW = ["jets=each", "jet_pt_min=150", "jet_pt_max=350", "jet_eta_max=2"]
SUBSTRUCTURE = {"name": "jet_substructure", "options": {"observables": ["+multiplicity", "+girth"]}}
FEATURES = [{"name": "jet_constituents"}, SUBSTRUCTURE]


def samples(scale):
    for s, (name, datasets) in enumerate(SETS.items()):
        fileset = {}
        for i, (dataset, ((process, parameters), n)) in enumerate(datasets.items()):
            path, seed = ROOT / "samples" / name / f"{dataset}.root", 71_000 + 100 * s + i
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                simulate(process, max(int(n * scale), 50), path, seed=seed, parameters=parameters, workers=1)
            metadata = {"is_mc": True, "campaign": "simulation", "xsec": 1.0, "is_signal": process.startswith("svj")}
            fileset[dataset] = {"files": {str(path.resolve()): "Events"}, "metadata": metadata}
        if not (ROOT / "skims" / name / "manifest.json").exists():
            overrides = [*WINDOW, f"features={json.dumps(FEATURES)}"]
            run(fileset, "skim_jets", overrides=overrides, executor="iterative", chunksize=5000,
                output=ROOT / "skims" / name, progress=False)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("samples")
    p.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    samples(args.scale)


if __name__ == "__main__":
    main()
