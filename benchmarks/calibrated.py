"""Are p-values of a search uniform where there is no signal? As they come out of the folds, and calibrated.

    python benchmarks/calibrated.py                  # 1000 searches to calibrate with, and 300 others that are calibrated

LHC Olympics background against itself, 20 000 rows of "data" against 20 000 of "template", which change places at random in every
search; trees, trained again in each. Uncalibrated p-values are those of a count above a threshold of the template's other half.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lhco
import numpy as np
from scipy import stats

from coffea_ad.resonant import ClassifierConfig
from coffea_ad.resonant.calibrating import Permutations, calibrated_p, permuted_excesses


def plan(rows, k, seed):
    data = lhco.skim(lhco.Rows(*(a[:rows] for a in lhco.background("train"))), name="data", seed=seed)
    template = lhco.skim(
        lhco.Rows(*(a[:rows] for a in lhco.background("val"))), name="template", seed=seed, first=10**6
    )
    classifier = ClassifierConfig(members=1)
    return Permutations(data, template, lhco.INPUTS, (classifier,), k, "calibrated", (0.01, 0.002), seed)


def search(number, rows, k, seed):
    """Return significance and p-value of one search, by efficiency."""
    return [(e.significance, e.p_value) for e in permuted_excesses(plan(rows, k, seed), [number])[0]]


def report(name, p):
    ks = stats.kstest(p, "uniform").pvalue
    tail = [(np.mean(p < cut), np.sqrt(cut * (1 - cut) / len(p))) for cut in (0.05, 0.01)]
    print(
        f"{name:<34} mean {p.mean():.3f}  p < 0.05: {tail[0][0]:.3f} (0.05 ± {tail[0][1]:.3f})  "
        f"p < 0.01: {tail[1][0]:.3f} (0.01 ± {tail[1][1]:.3f})  KS p = {ks:.2g}",
        flush=True,
    )
    return {"name": name, "ks": ks, "below_0.05": tail[0][0], "below_0.01": tail[1][0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibrating", type=int, default=1000, help="searches to calibrate with")
    parser.add_argument("--searches", type=int, default=300, help="others, that are calibrated")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if not lhco.available():
        sys.exit(lhco.MISSING)
    out = []
    for scheme, k in (("five folds", 5), ("half and half", 2)):
        start = time.perf_counter()
        with ProcessPoolExecutor(args.workers) as pool:
            one = partial(search, rows=args.rows, k=k, seed=args.seed)
            results = np.array(list(pool.map(one, range(1, args.calibrating + args.searches + 1), chunksize=10)))
        null, others = results[: args.calibrating], results[args.calibrating :]
        for i, eps in enumerate((0.01, 0.002)):
            out.append(report(f"{scheme}, {eps:g}, as it comes", others[:, i, 1]))
            z = others[:, i, 0]
            print(f"{'':<34} mean Z {z.mean():.2f} ± {z.std() / np.sqrt(len(z)):.2f}, spread {z.std():.2f}")
            out.append(
                report(f"{scheme}, {eps:g}, calibrated", np.array([calibrated_p(v, null[:, i, 0])[0] for v in z]))
            )
        most, largest = null[:, :, 0].max(axis=1), others[:, :, 0].max(axis=1)
        out.append(
            report(f"{scheme}, largest of both, calibrated", np.array([calibrated_p(v, most)[0] for v in largest]))
        )
        print(f"{scheme}: {time.perf_counter() - start:.0f} s wall")
    if args.json:
        args.json.write_text(json.dumps(out))


if __name__ == "__main__":
    main()
