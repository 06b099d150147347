"""Mean and spread of the demo over seeds, as Markdown tables for README and docs.

for s in 1 2 3 4 5; do .venv/bin/coffea-ad demo --seed $s -o build/demo$s; done
.venv/bin/python benchmarks/demo_seeds.py build/demo1 build/demo2 build/demo3 build/demo4 build/demo5
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main():
    runs = [json.loads((Path(folder) / "summary.json").read_text()) for folder in sys.argv[1:]]
    print(
        f"seeds {', '.join(str(r['seed']) for r in runs)}; {np.mean([r['seconds']['all'] for r in runs]):.0f} s each\n"
    )
    print("| score | AUC | AUC, matched in pT |")
    print("| --- | --- | --- |")
    for name in runs[0]["auc"]:
        cells = []
        for key in ("auc", "auc_pt"):
            values = [r["auc"][name][key] for r in runs]
            cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
        print(f"| {name} | {' | '.join(cells)} |")
    print("\n| region | seed | nominal | measured | pull |")
    print("| --- | --- | --- | --- | --- |")
    for r in runs:
        for name, row in r["regions"].items():
            measured = f"{row['measured']:.4f} ± {row['error']:.4f}"
            print(f"| {name} | {r['seed']} | {row['nominal']:g} | {measured} | {row['pull']:+.1f} |")


if __name__ == "__main__":
    main()
