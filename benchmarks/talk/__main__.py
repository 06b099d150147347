"""Autoencoders and their bias, as talks on anomaly detection show them, with our simulation.

.venv/bin/python benchmarks/samples.py
.venv/bin/python benchmarks/physics.py train qcd --seeds 1 2 3        # for part e; the same for ttbar
.venv/bin/python benchmarks/talk [--parts a b c d e] [-o build/physics]

a: PCA, kernel PCA and AE with one to six components; b: QCD and top jets in both directions on substructure, and what is
simpler than either; c: the same with images, as they are, re-weighted and smeared; d: signal in the training sample;
e: AE, NAE and WNAE as the recipes have trained them. Three seeds each; models are trained on the skim `train`, and evaluated on
`eval`. Writes talk.json, from which figures and tables are made anew in every call, also with no part to be run.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from figures import draw
from parts import DENSE, FRACTIONS, IMAGE, VARIANTS, complexity, components, contamination, images, normalised
from tables import tables

PARTS = {"a": components, "b": complexity, "c": images, "d": contamination, "e": normalised}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/physics"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.output / "talk"
    out.mkdir(parents=True, exist_ok=True)
    written = out / "talk.json"
    for part in args.parts:
        started = time.process_time()
        numbers = PARTS[part](args.output)
        numbers["cpu_seconds"] = round(time.process_time() - started)
        found = read(written) | {part: numbers}
        found["settings"] = {"dense": DENSE, "image": IMAGE, "variants": VARIANTS, "fractions": FRACTIONS}
        written.write_text(json.dumps(found, indent=1))
    found = read(written)
    draw(found, out)
    for part, text in tables(found).items():
        print(f"\n## {part} ({found[part[0]]['cpu_seconds']} s CPU)\n\n{text}")


if __name__ == "__main__":
    main()
