"""Do the folds of a cross-training mean the same? Efficiencies of a common working point, fold by fold, and what one table would give.

    python benchmarks/folds.py [--events 8000] [--seeds 1 2 3] [--folds 4] [--skims FOLDER]

Simulated QCD trains and calibrates a cross-training on jet substructure; other QCD events, which nobody has seen, and semivisible jets
are scored by the member of their fold. Shown for AE and Deep SVDD: the efficiency at nominal 0.1 in each fold with a table for each and
with one table for all, in standard deviations of both samples together, and AUC and signal efficiency at 1 % background of the merged
score, ad_logp, with the error of the difference by a bootstrap over events. The exit code is 1 if a fold is beyond 3σ, or the AUC is
below that of one table by more than two errors of the difference.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import coffea_ad as ad
from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.evaluation import auc
from coffea_ad.nanoaod import EVENT_ID
from coffea_ad.scoring.regions import calibrate, card_logp, logp
from coffea_ad.simulation import simulate
from coffea_ad.splits import fold_of

NOMINAL = 0.1
MODELS = {"AE": ("autoencoder", "autoencoder/svj.yaml", []), "Deep SVDD": ("svdd", "svdd/one.yaml", [])}


def skims(folder: Path, events: int) -> Path:
    fileset = {}
    for dataset, process, n, seed, options in (
        ("qcd", "qcd", events, 1, {"pthat_min": 350.0}),
        ("qcd_unseen", "qcd", events, 2, {"pthat_min": 350.0}),
        ("svj", "svj", events // 2, 3, {}),
    ):
        path = folder / f"{dataset}.root"
        simulate(process, n, path, seed=seed, parameters=options)
        fileset[dataset] = {"files": {str(path): "Events"}, "metadata": {"is_mc": True, "xsec": 1.0, "year": "2018"}}
    (folder / "fileset.json").write_text(json.dumps(fileset))
    ad.run(fileset, next(r.name for r in ad.recipes.available() if r.name in ("skim", "skim_jets")), executor="futures",
           output=folder / "skims", progress=False)  # fmt: skip
    return folder / "skims"


def efficiencies(values, data, folds, k, threshold):
    """Return efficiency and its error in each fold."""
    out = []
    for f in range(k):
        rows = folds == f
        w = data.event_weight[rows]
        passed = values[rows] >= threshold
        eps = float(w[passed].sum() / w.sum())
        n = float(w.sum() ** 2 / (w**2).sum())
        out.append((eps, np.sqrt(eps * (1 - eps) / n)))
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=8000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--folds", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--skims", type=Path, help="of an earlier call, with qcd, qcd_unseen and svj")
    args = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.skims or skims(Path(temporary), args.events)
        unseen = nn.load_skim(folder, "jet_substructure", datasets=["qcd_unseen"])
        signal = nn.load_skim(folder, "jet_substructure", datasets=["svj"])
        print(f"{len(unseen.x)} unseen background jets, {len(signal.x)} signal jets, {args.folds} folds")
        for label, (recipe, config_name, more) in MODELS.items():
            for seed in args.seeds:
                module = recipes.load(recipe)
                words = [f"data={folder}", "datasets=[qcd]", f"train.seed={seed}", f"train.epochs={args.epochs}",
                         f"folds={args.folds}", *more]  # fmt: skip
                config = load_config(module.Config, recipes.find_config(config_name), words)
                path = Path(temporary) / f"{recipe}_{seed}.onnx"
                module.train(config, path)
                scorer = ad.OnnxScorer(path)
                card = scorer.card
                of = {}
                for name, data in (("seen", nn.load_skim(folder, "jet_substructure", datasets=["qcd"])), ("unseen", unseen),
                                   ("signal", signal)):  # fmt: skip
                    folds = fold_of(card.folds.salt, card.folds.k, *(data.spectators[i] for i in EVENT_ID))
                    of[name] = (data, folds, np.asarray(scorer(data.x, folds)))
                data, folds, score = of["seen"]
                one = calibrate(score, data.event_weight, "all folds together")
                tables = {
                    "a table for each": {n: card_logp(card, s, f) for n, (_, f, s) in of.items()},
                    "one table": {n: logp(one, s) for n, (_, _, s) in of.items()},
                }
                print(f"\n{label}, seed {seed}")
                for what, values in tables.items():
                    measured = efficiencies(values["unseen"], unseen, of["unseen"][1], args.folds, -np.log10(NOMINAL))
                    # the threshold itself rests on the calibrating rows of a fold
                    n_cal = [data.event_weight[folds == f] for f in range(args.folds)]
                    nominal = [np.sqrt(NOMINAL * (1 - NOMINAL) * (w**2).sum()) / w.sum() for w in n_cal]
                    pulls = [(e - NOMINAL) / np.hypot(err, s) for (e, err), s in zip(measured, nominal, strict=True)]
                    print(
                        f"  {what:17}",
                        "  ".join(f"{e:.3f} ({p:+.1f}σ)" for (e, _), p in zip(measured, pulls, strict=True)),
                    )
                    good &= what != "a table for each" or max(map(abs, pulls)) <= 3
                good &= compare(tables, unseen, signal, seed)
    print("\nall folds within 3σ, and no AUC below that of one table" if good else "\na bar is missed")
    return 0 if good else 1


def compare(tables, unseen, signal, seed) -> bool:
    """Print AUC and ε_S of the merged score; say whether tables for each fold are not worse than one."""
    w_b, w_s = unseen.event_weight, signal.event_weight
    each, one = tables["a table for each"], tables["one table"]

    def figures(values, b, s):
        cut = np.quantile(values["unseen"][b], 0.99)
        value = auc(values["unseen"][b], values["signal"][s], w_b[b], w_s[s], n_bootstrap=2).value
        return value, float((values["signal"][s] > cut).mean())

    everything = (np.arange(len(w_b)), np.arange(len(w_s)))
    a, b = (figures(v, *everything) for v in (each, one))
    rng = np.random.default_rng(seed)
    differences = []
    for _ in range(40):
        rows = rng.integers(len(w_b), size=len(w_b)), rng.integers(len(w_s), size=len(w_s))
        differences.append(figures(each, *rows)[0] - figures(one, *rows)[0])
    error = float(np.std(differences))
    print(
        f"  AUC {a[0]:.4f} (one table {b[0]:.4f}, difference {a[0] - b[0]:+.4f} ± {error:.4f}), ε_S at 1 %: {a[1]:.3f} ({b[1]:.3f})"
    )
    return a[0] - b[0] >= -2 * error


if __name__ == "__main__":
    sys.exit(main())
