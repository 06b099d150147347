"""Representations of events against raw autoencoders and cuts: four signals among W → ℓν, QCD, Z → ℓℓ and tt̄ with a lepton.

    python benchmarks/event_samples.py -o build/events                 # simulation and skims, an hour of one core
    python benchmarks/event_encoders.py train --seeds 1 2 3            # what exists is not trained again; --only NAME …
    python benchmarks/event_encoders.py table

Half of the background trains; the other half, of which a part has chosen the epochs, makes the table with all signal events. "Cuts" is what one would do
without a network: of each event the observable that is farthest in its own tail, by the part of training events above it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from event_samples import BACKGROUNDS, SIGNALS

from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.evaluation.metrics import auc, signal_efficiency
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.reading import load_skim

OPTIONS = {"scaling": "none"}
EFFICIENCY = 1e-2  # at 1e-3 there are two events of QCD
RAW = ["feature=event_objects", "options={scaling: none}", "hidden=[64, 32]", "latent=8", "preprocessing=standard"]
ANOM = ("clr", "clr/anomclr.yaml")
MODELS = {
    "AE, raw": ("autoencoder", "autoencoder/svj.yaml", [*RAW, "train.epochs=30"]),
    "VAE, raw": ("vae", "vae/svj.yaml", [*RAW, "train.epochs=30"]),
    "NAE, raw": ("nae", "nae/svj.yaml", [*RAW, "train.epochs=20"]),
    "neighbours, raw": ("nearest", "nearest/svj.yaml", ["feature=event_objects", "options={scaling: none}", "preprocessing=standard"]),
    "AnomCLR+, neighbours": (*ANOM, []),
    "AnomCLR+, Mahalanobis": (*ANOM, ["score=mahalanobis"]),
    "AnomCLR+, AE": (*ANOM, ["score=ae"]),
    "AnomCLR+, NAE": (*ANOM, ["score=nae"]),
    "AnomCLR+, −|z|": (*ANOM, ["score=direct"]),
    "before training, neighbours": (*ANOM, ["train.epochs=1", "train.learning_rate=1e-12"]),
    "before training, AE": (*ANOM, ["train.epochs=1", "train.learning_rate=1e-12", "score=ae"]),
    "CLR, neighbours": (*ANOM, ["loss=decoupled_clr"]),
    "CLR, AE": (*ANOM, ["loss=decoupled_clr", "score=ae"]),
    "distilled, neighbours": ("pretrain", "pretrain/distilled.yaml", [
        "feature=event_objects", "options={scaling: none}", "positive=[rotation, eta_phi_smear, energy_smear]",
        "tokens={scale: log, pt_scale: 50}", "train.epochs=15"]),
}  # fmt: skip
"""Recipe, configuration, overrides: of the first name before the comma that is one, an encoder is trained once for all scores."""


def path_of(root, name, seed):
    stem = name.replace(", ", "_").replace("−|z|", "norm").replace("+", "p").replace(" ", "_")
    return root / "models" / f"{stem}_{seed}.onnx"


def encoder_of(root, name, seed):
    """The folder of the encoder that the first score of a name has left, if this is another one."""
    first = next(other for other in MODELS if other.split(",")[0] == name.split(",")[0])
    return None if first == name else path_of(root, first, seed).with_suffix("") / "encoder"


def train(root, seeds, only):
    torch.set_num_threads(1)
    for seed in seeds:
        for name in only or MODELS:
            recipe, config, overrides = MODELS[name]
            out = path_of(root, name, seed)
            if out.exists():
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            words = [*overrides, f"data={root}/skims", f"datasets=[{', '.join(BACKGROUNDS)}]", f"train.seed={seed}"]
            if recipe in ("clr", "pretrain"):
                words.append(f"score_train.seed={seed}")
                if encoder := encoder_of(root, name, seed):
                    words.append(f"pretrained={encoder}")
            module = recipes.load(recipe)
            started = time.process_time()
            module.train(load_config(module.Config, recipes.find_config(config), words), out)
            print(f"{name}, seed {seed}: {time.process_time() - started:.0f} CPU s", flush=True)


def observables(x):
    """{name: (n,)} of event_objects: pT, η, φ, kind; kinds are 1 missing momentum, 2 electron, 3 muon, 4 jet."""
    pt, eta, phi, kind = (x[:, :, k].astype(np.float64) for k in range(4))
    lepton, jet = (kind == 2) | (kind == 3), kind == 4
    met = (pt * (kind == 1)).sum(axis=1)
    first = np.where(lepton, pt, -1.0).argmax(axis=1)
    rows = np.arange(len(x))
    angle = phi[rows, first] - (phi * (kind == 1)).sum(axis=1)
    p = pt * np.stack([np.cos(phi), np.sin(phi), np.sinh(eta), np.cosh(eta)]) * lepton
    e = p.sum(axis=2)
    return {
        "lepton pT": pt[rows, first],
        "MET": met,
        "HT": (pt * jet).sum(axis=1),
        "ST": pt.sum(axis=1),
        "number of jets": jet.sum(axis=1).astype(float),
        "number of leptons": lepton.sum(axis=1).astype(float),
        "number of objects": (pt > 0).sum(axis=1).astype(float),
        "mT": np.sqrt(2 * pt[rows, first] * met * (1 - np.cos(angle))),
        "mass of leptons": np.sqrt(np.clip(e[3] ** 2 - (e[:3] ** 2).sum(axis=0), 0, None)),
    }


def tails(values, reference, weight):
    """−log₁₀ of the part of reference rows that are at least as large, at least one of them."""
    order = np.argsort(reference)
    above = np.concatenate([np.cumsum(weight[order][::-1])[::-1], [0.0]]) / weight.sum()
    return -np.log10(np.maximum(above[np.searchsorted(reference[order], values)], weight.min() / weight.sum()))


def supervised(x, label, weight, signal, background, seed):
    """Trees on the observables, taught one signal: half of it teaches, the other half is scored; NaN where nothing is."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    teaches = np.random.default_rng(seed).random(len(x)) < 0.5
    rows = (background | (signal & teaches)).nonzero()[0]
    w = weight[rows] / np.where(label[rows], weight[signal & teaches].sum(), weight[background].sum()) * len(rows)
    trees = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, random_state=seed)
    trees.fit(x[rows], label[rows], sample_weight=w)
    return np.where(signal & teaches, np.nan, trees.decision_function(x))


def judged(score, weight, test, dataset, names):
    """[(AUC, ε_S at ε_B = 10⁻²) of each signal]."""
    out = []
    for signal in names:
        s = (dataset == signal) & np.isfinite(score)
        pair = (score[test], score[s]), (weight[test], weight[s])
        at = signal_efficiency(*pair[0], [EFFICIENCY], *pair[1], n_effective_min=0)[0]
        out.append((auc(*pair[0], *pair[1], n_bootstrap=0).value, float(at)))
    return out


def table(root, seeds):
    skim = load_skim(root / "skims", "event_objects", OPTIONS)
    x, dataset, weight = np.asarray(skim.x), np.asarray(skim.dataset), np.asarray(skim.event_weight, np.float64)
    is_background = np.isin(dataset, list(BACKGROUNDS))
    training, test = is_background & (skim.split == "train"), is_background & (skim.split != "train")
    print(f"{training.sum()} background events train; of {test.sum()} in the table {np.sum(weight[test]) ** 2 / np.sum(weight[test] ** 2):.0f} "
          f"are effective; signals: " + ", ".join(f"{s} {(dataset == s).sum()}" for s in SIGNALS))  # fmt: skip
    values = observables(x)
    lines = {f"*{name}*": [judged(v, weight, test, dataset, SIGNALS)] for name, v in values.items()}
    farthest = np.max([tails(v, v[training], weight[training]) for v in values.values()], axis=0)
    lines["*cuts: the farthest of these*"] = [judged(farthest, weight, test, dataset, SIGNALS)]
    for name in MODELS:
        paths = [path_of(root, name, seed) for seed in seeds]
        scores = [np.asarray(OnnxScorer(path)(x), np.float64) for path in paths if path.exists()]
        if scores:
            lines[name] = [judged(score, weight, test, dataset, SIGNALS) for score in scores]
    columns = np.stack(list(values.values()), axis=1)
    lines["*supervised, each signal*"] = [
        [judged(supervised(columns, dataset == s, weight, dataset == s, training, seed), weight, test, dataset, [s])[0] for s in SIGNALS]
        for seed in seeds
    ]  # fmt: skip
    print("| score | seeds | mean AUC | " + " | ".join(f"{s}: AUC, ε_S" for s in SIGNALS) + " |")
    print("| --- " * (3 + len(SIGNALS)) + "|")
    for name, each in sorted(lines.items(), key=lambda pair: -np.mean([[a for a, _ in one] for one in pair[1]])):
        v = np.array(each)  # (seeds, signals, measures)
        spread = v.std(axis=0, ddof=1) if len(v) > 1 else np.zeros(v.shape[1:])
        mean = v[:, :, 0].mean(axis=1)
        cells = [f"{mean.mean():.3f}" + (f" ± {mean.std(ddof=1):.3f}" if len(v) > 1 else "")]
        for k in range(len(SIGNALS)):
            error = [f" ± {e:.3f}" if len(v) > 1 else "" for e in spread[k]]
            cells.append(f"{v[:, k, 0].mean():.3f}{error[0]}, {v[:, k, 1].mean():.3f}{error[1]}")
        print(f"| {name} | {len(v)} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("train", "table"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=[], choices=list(MODELS), metavar="NAME")
    parser.add_argument("--root", type=Path, default=Path("build/events"))
    args = parser.parse_args()
    if args.verb == "train":
        train(args.root, args.seeds, args.only)
    else:
        table(args.root, args.seeds)


if __name__ == "__main__":
    main()
