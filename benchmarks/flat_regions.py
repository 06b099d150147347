"""Which thresholds leave the flattest background efficiency: one, one for each bin of a spectator, or one that follows it smoothly.

    python benchmarks/flat_regions.py MODEL.onnx SKIM --datasets qcd --spectators pt mjj --rows 8000 24000

Thresholds are derived on some rows, drawn at random, and their efficiency is measured in 40 bins of all others: the root mean square
of ε/ε_B − 1, less what the statistics of those others contribute. Of bins, the number that turns out best is taken, by hindsight.
"""

from __future__ import annotations

import argparse

import numpy as np

from coffea_ad.evaluation.flatness import equal_bins
from coffea_ad.modelfiles.flat import exact_threshold, flat_edges, flat_thresholds
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.background import model_rows

BINS = (1, 2, 4, 8, 12, 24, 48)


def logp_of(model, x):
    """-log10 of the part of rows with at least this score, by ranks: no calibration ends it."""
    score = np.concatenate([np.asarray(model(np.asarray(x[i : i + 4096]))) for i in range(0, len(x), 4096)])
    return -np.log10((np.argsort(np.argsort(-score)) + 1) / (len(score) + 1))


def unevenness(logp, spectator, thresholds, edges, eps):
    """Mean square of ε/ε_B - 1 in 40 bins of equal population, less its statistical part."""
    place = np.digitize(spectator, equal_bins(spectator, np.ones(len(spectator)), 40))
    n = np.bincount(place)
    passing = np.bincount(place, logp >= thresholds[np.digitize(spectator, edges)])
    return float(((passing / n / eps - 1) ** 2 - (1 - eps) / eps / n).mean())


def binned_thresholds(logp, spectator, eps, bins):
    edges = equal_bins(spectator, np.ones(len(spectator)), bins)
    place = np.digitize(spectator, edges)
    return edges, np.array(
        [exact_threshold(logp[place == i], np.ones((place == i).sum()), eps)[0] for i in range(len(edges) + 1)]
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("skim")
    parser.add_argument("--datasets", nargs="+", default=["qcd"])
    parser.add_argument("--spectators", nargs="+", default=["mjj"])
    parser.add_argument("--rows", nargs="+", type=int, default=[8000, 24000])
    parser.add_argument("--repeat", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    model = OnnxScorer(args.model)
    skim = model_rows(model.card, args.skim, args.datasets)
    logp, rng = logp_of(model, skim.x), np.random.default_rng(args.seed)
    print(
        "| spectator | rows | ε_B | one | bins (best number) | smooth (coefficients) |\n| --- | --- | --- | --- | --- | --- |"
    )
    for name in args.spectators:
        s = np.asarray(skim.spectators[name], np.float64)
        for n in args.rows:
            for eps in (0.1, 0.01):
                values = {k: [] for k in (*BINS, "smooth")}
                coefficients = []
                for _ in range(args.repeat):
                    order = rng.permutation(len(s))
                    a, b = order[:n], order[n:]
                    for bins in BINS:
                        edges, thresholds = binned_thresholds(logp[a], s[a], eps, bins)
                        values[bins].append(unevenness(logp[b], s[b], thresholds, edges, eps))
                    edges = flat_edges(s[a], np.ones(n))
                    flat = flat_thresholds(logp[a], np.ones(n), s[a], eps, edges)
                    values["smooth"].append(unevenness(logp[b], s[b], flat.thresholds, edges, eps))
                    coefficients.append(flat.coefficients)
                rms = {k: np.sqrt(max(np.mean(v), 0)) for k, v in values.items()}
                best = min(BINS, key=lambda k: rms[k])
                print(
                    f"| {name} | {n} | {eps:g} | {rms[1]:.3f} | {rms[best]:.3f} ({best}) | {rms['smooth']:.3f} "
                    f"({np.mean(coefficients):.1f}) |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
