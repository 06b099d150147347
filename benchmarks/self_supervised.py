"""Representations of jets against everything simpler: semivisible jets among QCD jets, by encoders that know QCD alone.

    python benchmarks/self_supervised.py samples                       # simulation and skims, 10 minutes of one core
    python benchmarks/self_supervised.py train --seeds 1 2 3           # what exists is not trained again; --only NAME …
    python benchmarks/self_supervised.py table
    python benchmarks/self_supervised.py invariance                    # how much a score changes if a jet does

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

from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.evaluation import metrics
from coffea_ad.evaluation.matching import Matching
from coffea_ad.running import run
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.simulation import simulate
from coffea_ad.skims.reading import load_skim

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


def simulated(root, sets, scale=1.0, first_seed=71_000):
    """Simulate and skim {set: {dataset: ((process, parameters), events)}} below a folder; what is there stays."""
    for s, (name, datasets) in enumerate(sets.items()):
        fileset = {}
        for i, (dataset, ((process, parameters), n)) in enumerate(datasets.items()):
            path, seed = root / "samples" / name / f"{dataset}.root", first_seed + 100 * s + i
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                simulate(process, max(int(n * scale), 50), path, seed=seed, parameters=parameters, workers=1)
            metadata = {"is_mc": True, "campaign": "simulation", "xsec": 1.0, "is_signal": process.startswith("svj")}
            fileset[dataset] = {"files": {str(path.resolve()): "Events"}, "metadata": metadata}
        if not (root / "skims" / name / "manifest.json").exists():
            overrides = [*WINDOW, f"features={json.dumps(FEATURES)}"]
            run(fileset, "skim_jets", overrides=overrides, executor="iterative", chunksize=5000,
                output=root / "skims" / name, progress=False)  # fmt: skip


SHAPES = {"feature": "jet_substructure", "options": SUBSTRUCTURE["options"]}
QUICK = ["train.epochs=10"]


def _clr(*overrides):
    return ("clr", "clr/darkclr.yaml", [*QUICK, *overrides])


def _after(name, *overrides):
    """A score on the encoder of another model of the same seed."""
    return (*MODELS[name][:2], [*MODELS[name][2], *overrides], name)


MODELS = {
    "AnomCLR+ neighbours": _clr(),
    "masked neighbours": ("pretrain", "pretrain/masked.yaml", ["train.epochs=20"]),
    "before training neighbours": ("pretrain", "pretrain/masked.yaml", ["train.epochs=1", "train.learning_rate=1e-12"]),
    "distilled neighbours": ("pretrain", "pretrain/distilled.yaml", QUICK),
    "distilled kT neighbours": ("pretrain", "pretrain/distilled.yaml", [*QUICK, "positive=[rotation, recluster]"]),
    "DDD": _clr("loss=ddd", "score=direct"),
    "AnomCLR neighbours": _clr("loss=anom_clr"),
    "CLR neighbours": _clr("loss=nt_xent"),
    "AnomCLR+ split neighbours": _clr("anomalous=[collinear_split]", "augmentation={}"),
    "AnomCLR+ all neighbours": _clr(
        "anomalous=[drop, collinear_split, pt_reweight, subjet_shift]", "augmentation={drop: {probability: [0.1, 0.6]}}"
    ),
}
for _name in ("AnomCLR+", "masked"):
    for _score in ("mahalanobis", "ae", "cosine", "flow", "direct"):
        if (_name, _score) != ("AnomCLR+", "direct"):
            MODELS[f"{_name} {_score}"] = _after(f"{_name} neighbours", f"score={_score}")
MODELS["AnomCLR+ norm"] = _after("AnomCLR+ neighbours", "score=direct")
MODELS["AE on constituents"] = ("autoencoder", "autoencoder/svj.yaml", ["feature=jet_constituents", "options={}"])
for _name, (_recipe, _config, _more) in {
    "AE": ("autoencoder", "autoencoder/svj.yaml", ["preprocessing=standard"]),
    "PCA": ("pca", "pca/svj.yaml", ["components=4", "preprocessing=standard"]),
    "VAE": ("vae", "vae/svj.yaml", ["hidden=[32,32]", "latent=4", "activation=silu", "beta=1.0", "score=elbo", "preprocessing=standard"]),
    "NAE smeared": ("nae", "nae/smeared.yaml", []),
    "WNAE": ("wnae", "wnae/svj.yaml", []),
    "Deep SVDD": ("svdd", "svdd/svj.yaml", ["train.epochs=20", "preprocessing=log"]),
}.items():  # fmt: skip
    MODELS[f"{_name}, 9 inputs"] = (_recipe, _config, [*_more, "options={observables: [+multiplicity]}"])
"""Recipe, configuration, overrides, and the model whose encoder is taken, where it is trained once for several scores."""
AVERAGED = ("masked direct", "AE, 9 inputs")
TRIVIAL = ("multiplicity", "ptd", "mass", "girth", "pt")


def path_of(name, seed):
    return ROOT / "models" / f"{name.replace(' ', '_').replace(',', '')}_{seed}.onnx"


def train(seeds, only):
    torch.set_num_threads(1)
    for seed in seeds:
        for name in only or MODELS:
            recipe, config, overrides, *first = MODELS[name]
            out = path_of(name, seed)
            if out.exists():
                continue
            fixed = [f"data={ROOT}/skims/train", "weights=none", f"train.seed={seed}"]
            if first:
                fixed.append(f"pretrained={path_of(first[0], seed).with_suffix('')}/encoder")
            if recipe in ("clr", "pretrain"):
                fixed.append(f"score_train.seed={seed}")
            module = recipes.load(recipe)
            started = time.process_time()
            module.train(load_config(module.Config, recipes.find_config(config), [*overrides, *fixed]), out)
            print(f"{name}, seed {seed}: {time.process_time() - started:.0f} CPU s", flush=True)


def auc(background, signal, w_background, w_signal):
    return metrics.auc(background, signal, w_background, w_signal, n_bootstrap=0).value


def accepted(background, signal, w_background, w_signal, efficiency=1e-3):
    """ε_S, however few effective background rows pass: the errors are over seeds."""
    return metrics.signal_efficiency(background, signal, [efficiency], w_background, w_signal, n_effective_min=0)[0]


class Rows:
    """The jets of the table: those of QCD, and of each signal, with their scores by anything."""

    def __init__(self, folder=ROOT / "skims/eval"):
        self.skims = {}
        for feature, options in (("jet_constituents", {}), ("jet_substructure", SUBSTRUCTURE["options"]),
                                 ("jet_substructure", {"observables": ["+multiplicity"]})):  # fmt: skip
            skim = load_skim(folder, feature, options, weights="none")
            self.skims[feature, json.dumps(options)] = skim
        self.trivial = self.skims["jet_substructure", json.dumps(SUBSTRUCTURE["options"])]
        self.dataset = self.trivial.dataset
        self.pt = np.asarray(self.trivial.spectators["pt"], np.float64)
        self.weight = np.abs(np.asarray(self.trivial.event_weight))

    def baseline(self, name):
        if name in self.trivial.columns:
            return np.asarray(self.trivial.x[:, self.trivial.columns.index(name)], np.float64)
        return np.asarray(self.trivial.spectators[name], np.float64)

    def scores(self, path):
        scorer = OnnxScorer(path)
        feature = scorer.card.inputs[0].features[0]
        for (name, _), skim in self.skims.items():
            if name == feature.name and [c.name for c in skim.features[0].columns] == [c.name for c in feature.columns]:
                return np.asarray(scorer(np.asarray(skim.x)), np.float64)
        raise SystemExit(f"{path}: no skim has {feature.key}")

    def rank(self, score):
        """The part of the background with a lower score."""
        score = np.nan_to_num(score, nan=-1e30)
        background = np.sort(score[self.dataset == "qcd"])
        return np.searchsorted(background, score) / len(background)

    def judged(self, score, held_out=None):
        """{signal: (AUC, AUC at equal pT, ε_S, ε_S at equal pT)}."""
        score = np.nan_to_num(score, nan=-1e30)
        held_out = np.ones(len(score), bool) if held_out is None else held_out
        b = self.dataset == "qcd"
        out = {}
        for signal in SIGNALS:
            s = (self.dataset == signal) & held_out
            matched = Matching(self.pt[b], self.pt[s]).weights(self.weight[b], self.weight[s])
            plain = self.weight[b], self.weight[s]
            out[signal] = [f(score[b], score[s], *w) for f in (auc, accepted) for w in (plain, matched)]
        return out


def taught(background, rows, signal, seed):
    """Trees on the observables of all QCD jets and of half of the jets of a signal, at equal pT; and which half."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    half = np.random.default_rng(seed).random(len(rows.dataset)) < 0.5
    used = (rows.dataset == signal) & half
    x_b, x_s = np.asarray(background.x), np.asarray(rows.trivial.x[used])
    pt_b = np.asarray(background.spectators["pt"], np.float64)
    weight = Matching(pt_b, rows.pt[used]).weights(np.abs(background.event_weight), np.ones(len(x_s)))
    w = np.concatenate([each * len(x_b) / each.sum() for each in weight])
    label = np.r_[np.zeros(len(x_b)), np.ones(len(x_s))]
    trees = HistGradientBoostingClassifier(max_iter=100, learning_rate=0.05, random_state=seed)
    return trees.fit(np.concatenate([x_b, x_s]), label, sample_weight=w), half


def training_rows():
    return load_skim(ROOT / "skims/train", "jet_substructure", SUBSTRUCTURE["options"], weights="none")


def supervised(rows, seeds=(1, 2, 3)):
    """{name: [judgement of each seed]}: trees on the observables, taught one point and tested on all, and each point by itself."""
    background, out = training_rows(), {}
    for seed in seeds:
        scores = {}
        for signal in SIGNALS:
            trees, half = taught(background, rows, signal, seed)
            scores[signal] = trees.decision_function(np.asarray(rows.trivial.x))
        held_out = ~half | (rows.dataset == "qcd")
        for point in ("cms", "aachen"):
            out.setdefault(f"*supervised at {point}*", []).append(rows.judged(scores[point], held_out))
        each = {signal: rows.judged(scores[signal], held_out)[signal] for signal in SIGNALS}
        out.setdefault("*supervised at each point*", []).append(each)
    return out


def figure(values, names, path):
    """AUC at equal pT of some scores at every point."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = drawing.subplots()
    for k, (name, label) in enumerate(names.items()):
        y = values[name][:, :, 1]
        ax.errorbar(np.arange(len(SIGNALS)) + 0.05 * (k - len(names) / 2), y.mean(axis=0),
                    y.std(axis=0, ddof=1) if len(y) > 1 else None, fmt="o-", ms=4, lw=1, label=label)  # fmt: skip
    ax.axhline(0.5, color="0.7", lw=0.8)
    ax.set_xticks(range(len(SIGNALS)), [f"{s}\n$r_{{inv}}$ {p[1].get('r_inv', 0.75)}, $m_D$ {p[1].get('m_dark', 5.0):g}" for s, p in SIGNALS.items()],
                  fontsize=7)  # fmt: skip
    ax.set_ylabel("AUC at equal $p_T$")
    ax.legend(fontsize=7, frameon=False)
    for suffix in (".png", ".pdf"):
        drawing.savefig(path.with_suffix(suffix), dpi=150)


def table(picture):
    rows, lines = Rows(), []
    print({k: int((rows.dataset == k).sum()) for k in ("qcd", *SIGNALS)})
    for name in TRIVIAL:
        up = rows.judged(rows.baseline(name))
        for sign, judged in ((1, up), (-1, rows.judged(-rows.baseline(name)))):
            lines.append((f"*{name}{' (reversed)' if sign < 0 else ''}*", [judged]))
    for name in MODELS:
        seeds = sorted(path_of(name, 0).parent.glob(path_of(name, 0).stem[:-1] + "[0-9].onnx"))
        if seeds:
            lines.append((name, [rows.judged(rows.scores(path)) for path in seeds]))
    both = [[path_of(name, seed) for name in AVERAGED] for seed in range(1, 10)]
    averages = [sum(rows.rank(rows.scores(path)) for path in pair) for pair in both if all(p.exists() for p in pair)]
    lines += [(f"rank average of {' and '.join(AVERAGED)}", [rows.judged(a) for a in averages])] if averages else []
    lines += supervised(rows).items()
    unseen = [s for s in SIGNALS if s.startswith("unseen")]
    values = {n: np.array([[each[s] for s in SIGNALS] for each in seeds]) for n, seeds in lines}
    (ROOT / "table.json").write_text(json.dumps({n: v.tolist() for n, v in values.items()}))
    columns = [list(SIGNALS).index(s) for s in unseen]
    print("| score | seeds | AUC, unseen | AUC, unseen, matched | ε_S, unseen, matched | " + " | ".join(SIGNALS) + " |")
    print("| --- " * (5 + len(SIGNALS)) + "|")
    for name, v in sorted(values.items(), key=lambda pair: -pair[1][:, columns, 1].mean()):
        means = v[:, columns].mean(axis=1)  # (seeds, measures)
        spread = means.std(axis=0, ddof=1) if len(v) > 1 else np.zeros(4)
        cells = [f"{means[:, k].mean():.3f}" + (f" ± {spread[k]:.3f}" if len(v) > 1 else "") for k in (0, 1, 3)]
        each = [f"{v[:, i, 1].mean():.3f}" for i in range(len(SIGNALS))]
        print(f"| {name} | {len(v)} | " + " | ".join([*cells, *each]) + " |")
    if picture:
        shown = {
            "*supervised at cms*": "supervised, trained on cms",
            "*girth*": "girth",
            "*multiplicity*": "multiplicity",
        }
        learned = max(
            (n for n, _ in lines if n in MODELS and MODELS[n][0] in ("clr", "pretrain")),
            key=lambda n: values[n][:, columns, 1].mean(),
        )
        figure(values, {learned: f"{learned}, trained on QCD", **shown}, picture)


def invariance(names, n=5000):
    """Print by how much scores of QCD jets change under every augmentation, in units of their spread, and the correlation of ranks."""
    from scipy.stats import spearmanr

    from coffea_ad.nn.self_supervised.jet_augmentations import AUGMENTATIONS

    x = torch.from_numpy(
        np.asarray(load_skim(ROOT / "skims/eval", "jet_constituents", datasets=["qcd"], weights="none").x[:n])
    )
    print("| score | " + " | ".join(AUGMENTATIONS) + " |\n| --- " + "| --- " * len(AUGMENTATIONS) + "|")
    for name in names:
        scorer, cells = OnnxScorer(path_of(name, 1)), []
        before = np.asarray(scorer(x.numpy()))
        low, high = np.quantile(before, (0.16, 0.84))
        for augmentation in AUGMENTATIONS.values():
            view, _ = augmentation(x, x[:, :, 0] > 0, torch.Generator().manual_seed(1))
            after = np.asarray(scorer(view.contiguous().numpy()))
            shift = np.median(after - before) / (0.5 * (high - low))
            cells.append(f"{shift:+.2f}, {spearmanr(before, after).statistic:.2f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("samples")
    p.add_argument("--scale", type=float, default=1.0)
    p = verbs.add_parser("train")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--only", nargs="+", default=[], choices=list(MODELS), metavar="NAME")
    p = verbs.add_parser("table")
    p.add_argument("--figure", type=Path)
    p = verbs.add_parser("invariance")
    p.add_argument(
        "--only",
        nargs="+",
        default=["masked direct", "AnomCLR+ neighbours", "DDD"],
        choices=list(MODELS),
        metavar="NAME",
    )
    args = parser.parse_args()
    if args.verb == "invariance":
        invariance(args.only)
    elif args.verb == "samples":
        simulated(ROOT, SETS, args.scale)
    elif args.verb == "train":
        train(args.seeds, args.only)
    else:
        table(args.figure)


if __name__ == "__main__":
    main()
