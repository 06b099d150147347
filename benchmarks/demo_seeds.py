"""Mean and spread of the demo over seeds, as Markdown tables for README and docs.

for s in 1 2 3; do .venv/bin/coffea-ad demo --seed $s -o build/demo$s; done
.venv/bin/python benchmarks/demo_seeds.py build/demo1 build/demo2 build/demo3
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main():
    runs = [json.loads((Path(folder) / "summary.json").read_text()) for folder in sys.argv[1:]]
    seconds = np.mean([r["seconds"]["all"] for r in runs])
    print(f"seeds {', '.join(str(r['seed']) for r in runs)}; {seconds:.0f} s each\n")
    for signal in runs[0]["auc"]:
        print(f"| score, against {signal} | AUC | AUC, matched in pT |\n| --- | --- | --- |")
        for name in runs[0]["auc"][signal]:
            cells = []
            for key in ("auc", "auc_pt"):
                values = [r["auc"][signal][name][key] for r in runs]
                cells.append(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}")
            print(f"| {name} | {' | '.join(cells)} |")
        print()
    samples = list(runs[0]["yields"]["inclusive"])
    print(f"| region | {' | '.join(samples)} |\n| --- {'| --- ' * len(samples)}|")
    for region in runs[0]["yields"]:
        values = [[r["yields"][region].get(sample, 0.0) for r in runs] for sample in samples]
        print(f"| {region} | {' | '.join(f'{np.mean(v):.4g} ± {np.std(v, ddof=1):.2g}' for v in values)} |")
    print(
        "\n| spectrum | seed | window, GeV | events | expected by the fit | local |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in runs[0]["search"]["bumps"]:
        for r in runs:
            b = r["search"]["bumps"][name]
            cells = f"{b['low']:.0f} to {b['high']:.0f} | {b['events']:.0f} | {b['expected']:.1f} | {b['local']:.1f}σ"
            print(f"| {name} | {r['seed']} | {cells} |")
    for r in runs:
        found = r["search"]["global"][r["search"]["statistic"]]
        print(f"seed {r['seed']}: global p-value {found['p_value']:.2g} ({found['significance']:.1f}σ)")


if __name__ == "__main__":
    main()
