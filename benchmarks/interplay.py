"""Methods combined: which false positives they share without a signal, and what is gained with one.

    python benchmarks/interplay.py                 # 5 seeds, 0 and 400 signal events, half of the background as data

LHC Olympics features as in `resonant.py --half`. Every method is trained on the same data; "mean of ranks" averages the ranks of their scores in
a template, "merged" trains one classifier on all templates. False positives are test background above the cut at ε_B = 0.01.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lhco
import numpy as np
import torch
from resonant import WINDOW, halved, skim

from coffea_ad.nn import Ensemble
from coffea_ad.resonant import METHODS, Settings, overlap
from coffea_ad.resonant.merged import Merged

EFFICIENCY = 0.01


def scores(names, n_signal, seed, settings):
    """Return the scores of all methods and combinations on test rows, and the labels."""
    region, sidebands, test, _ = halved(n_signal, seed)
    val = lhco.background("val")
    wrong = lhco.Rows(val.x * np.array([1, 1, 1, 1.03, 1.03], np.float32), val.label)
    simulation = skim(wrong, "simulation", seed, 3 * 10**6, left=0.2)
    beside, inside = skim(sidebands, "data", seed, left=0.15), skim(region, "data", seed, 5 * 10**5)
    with tempfile.TemporaryDirectory() as folder:
        fitted = {name: METHODS[name](settings, WINDOW, Path(folder) / name, seed) for name in names}
        models = {name: m.fit(beside, inside, simulation=simulation) for name, m in fitted.items()}
        template = fitted["cathode"].template(40_000, 99)
        ranks = Ensemble.with_ranks(list(models.values()), np.asarray(template.x), template.weight)
        parts = [METHODS[name](settings, WINDOW, Path(folder) / f"m_{name}", seed) for name in names if name != "cwola"]
        merged = Merged(parts, settings, WINDOW, Path(folder) / "merged", seed)
        models |= {"mean of ranks": ranks, "merged": merged.fit(beside, inside, simulation=simulation)}
        return {name: model.scores(test.x) for name, model in models.items()}, test.label


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["cwola", "cathode", "salad", "transport"])
    parser.add_argument("--signal", nargs="+", type=int, default=[0, 400])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not lhco.available():
        sys.exit(lhco.MISSING)
    torch.set_num_threads(1)
    rows = []
    for n, seed in itertools.product(args.signal, range(1, args.seeds + 1)):
        s, label = scores(args.methods, n, seed, Settings())
        background = {name: v[label == 0] for name, v in s.items()}
        passed = [v >= np.quantile(v, 1 - EFFICIENCY) for name, v in background.items() if name in args.methods]
        rows.append({
            "signal": n, "seed": seed, "merit": {name: lhco.merit(v, label)._asdict() for name, v in s.items()},
            "overlap": overlap(background, EFFICIENCY),
            "common to all": int(np.all(passed, axis=0).sum()), "any": int(np.any(passed, axis=0).sum()), "each": int(passed[0].sum()),
        })  # fmt: skip
        print(json.dumps({k: rows[-1][k] for k in ("signal", "seed", "common to all", "any", "each")}), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows))
    for n in args.signal:
        several = [r for r in rows if r["signal"] == n]
        print(f"\n{n} signal events, {len(several)} seeds")
        for name in several[0]["merit"]:
            at = np.array([r["merit"][name]["at_1e2"] for r in several])
            most = np.array([r["merit"][name]["largest"] for r in several])
            print(
                f"{name:<16} SIC at 0.01: {at.mean():.2f} ± {at.std(ddof=1):.2f}   largest: {most.mean():.2f} ± {most.std(ddof=1):.2f}"
            )
        common = np.array([r["common to all"] for r in several])
        each = several[0]["each"]
        print(
            f"false positives common to all {len(args.methods)}: {common.mean():.1f} ± {common.std(ddof=1):.1f} of {each} of each method"
        )
        names = list(several[0]["overlap"])
        print("shared part of the false positives\n" + f"{'':<16}" + "".join(f"{name:>15}" for name in names))
        for a in names:
            print(f"{a:<16}" + "".join(f"{np.mean([r['overlap'][a][b] for r in several]):>15.2f}" for b in names))


if __name__ == "__main__":
    main()
