"""What a linear classifier finds in a representation, which no score without labels can exceed by much: semivisible jets among QCD.

    python benchmarks/self_supervised.py samples
    python benchmarks/self_supervised.py train --only "masked neighbours" "AnomCLR+ neighbours" "distilled neighbours"
    python benchmarks/encoder_linear.py

Half of a signal and the QCD jets of the training teach a logistic regression, at equal pT; the other half and other QCD jets judge
it. Beside encoders that learned stand the same one before any training, and the observables of substructure.
"""

from __future__ import annotations

import numpy as np
import torch
from self_supervised import MODELS, ROOT, SIGNALS, Rows, path_of, training_rows
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.evaluation.matching import Matching
from coffea_ad.nn.loading import load_encoder
from coffea_ad.skims.reading import load_skim

ENCODERS = ("masked neighbours", "AnomCLR+ neighbours", "distilled neighbours")


def untrained(seed):
    """The encoder of masked particles with the weights it begins with."""
    recipe, config, overrides = MODELS["masked neighbours"]
    module = recipes.load(recipe)
    words = [*overrides, f"data={ROOT}/skims/train", "weights=none", f"train.seed={seed}"]
    options = load_config(module.Config, recipes.find_config(config), words)
    encoder = options.new_encoder(options.rows()).eval()

    def encode(x):
        with torch.no_grad():
            return np.concatenate([encoder(part).numpy() for part in torch.from_numpy(x).split(2048)])

    return encode


def judged(rows, x_background, background, x, seed):
    """{signal: AUC at equal pT} of a classifier for each signal."""
    half = np.random.default_rng(seed).random(len(rows.dataset)) < 0.5
    pt_b, out = np.asarray(background.spectators["pt"], np.float64), {}
    for signal in SIGNALS:
        used = (rows.dataset == signal) & half
        weight = Matching(pt_b, rows.pt[used]).weights(np.abs(background.event_weight), np.ones(used.sum()))
        w = np.concatenate([each * len(x_background) / each.sum() for each in weight])
        label = np.r_[np.zeros(len(x_background)), np.ones(used.sum())]
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        linear.fit(np.concatenate([x_background, x[used]]), label, logisticregression__sample_weight=w)
        score = linear.decision_function(x)
        out[signal] = rows.judged(score, ~half | (rows.dataset == "qcd"))[signal][1]
    return out


def main():
    torch.set_num_threads(1)
    rows = Rows()
    sets = np.asarray(rows.skims["jet_constituents", "{}"].x)
    background = load_skim(ROOT / "skims/train", "jet_constituents", weights="none")
    flat, lines = training_rows(), {}
    for seed in (1, 2, 3):
        lines.setdefault("*observables*", []).append(
            judged(rows, np.asarray(flat.x), flat, np.asarray(rows.trivial.x), seed)
        )
        encoders = {"before any training": untrained(seed)}
        for name in ENCODERS:
            folder = path_of(name, seed).with_suffix("") / "encoder"
            if path_of(name, seed).exists():
                encoders[name.removesuffix(" neighbours")] = load_encoder(folder)
        for name, encode in encoders.items():
            h = (encode(np.asarray(background.x)), encode(sets))
            lines.setdefault(name, []).append(judged(rows, h[0], background, h[1], seed))
    print("| representation | seeds | mean | " + " | ".join(SIGNALS) + " |\n" + "| --- " * (3 + len(SIGNALS)) + "|")
    for name, each in lines.items():
        v = np.array([[one[s] for s in SIGNALS] for one in each])
        mean, spread = v.mean(axis=1), v.std(axis=0, ddof=1) if len(v) > 1 else None
        cells = [f"{m:.3f}" + (f" ± {e:.3f}" if spread is not None else "")
                 for m, e in [(mean.mean(), mean.std(ddof=1) if len(v) > 1 else 0.0),
                              *zip(v.mean(axis=0), spread if spread is not None else v[0], strict=True)]]  # fmt: skip
        print(f"| {name} | {len(v)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
