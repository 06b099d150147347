"""What a score of sets costs, and what is lost where it costs less: a large encoder, trimmed batches, int8, a small one, a student.

    python benchmarks/self_supervised.py samples                       # skims, 10 minutes of one core
    python benchmarks/students.py train --seeds 1 2 3                  # what exists is not trained again
    python benchmarks/students.py table

The teacher is the likelihood of masked particles with an encoder of the size of `darkclr`. Printed are, with one thread, jets per second
of CPU time, median and range of repeats in alternation; and of QCD jets and signals that nothing was trained on, the correlation of
ranks with the teacher, the 99 % quantile of the change of ad_logp, and the change of AUC, its mean over the signals and the worst.
Bar: 7000 jets a second, and no AUC that is lower by 0.005 or more.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from self_supervised import ROOT as SAMPLES
from self_supervised import SIGNALS, auc

from coffea_ad import recipes
from coffea_ad.config import load_config
from coffea_ad.modelfiles.fidelity import fidelity
from coffea_ad.modelfiles.quantise import quantise
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.skims.reading import load_skim

ROOT = Path("build/students")
TEACHER = "darkclr_1"
SHORT = ["train.epochs=8", "train.samples_per_epoch=12000", "train.batch_size=128"]
MODELS = {
    "darkclr": ("pretrain", "pretrain/masked.yaml", ["score=direct", "preset=darkclr", *SHORT]),
    "small": ("pretrain", "pretrain/masked.yaml", ["score=direct"]),
    "student": ("student", "student/jets.yaml", [f"teacher={ROOT}/{TEACHER}.onnx", "target=score", "train.epochs=14"]),
}
"""Recipe, configuration and what differs; of the first, the teacher, one seed only."""


def train(seeds):
    torch.set_num_threads(1)
    for name, (recipe, config, overrides) in MODELS.items():
        for seed in seeds if name != "darkclr" else [1]:
            out = ROOT / f"{name}_{seed}.onnx"
            if out.exists():
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            words = [*overrides, f"data={SAMPLES}/skims/train", "weights=none", f"train.seed={seed}"]
            module, started = recipes.load(recipe), time.process_time()
            module.train(load_config(module.Config, recipes.find_config(config), words), out)
            print(f"{out.stem}: {time.process_time() - started:.0f} CPU s", flush=True)
    for path in sorted(ROOT.glob("*_[0-9].onnx")):
        if not (small := path.with_name(f"{path.stem}_int8.onnx")).exists():
            small.write_bytes(quantise(path.read_bytes(), f"{SAMPLES}/skims/train", name=path.stem))


def scorer_of(path, trimmed=True):
    scorer = OnnxScorer(path)
    scorer.card = scorer.card.model_copy(update={"slots_vary": trimmed})
    return scorer


def scores_of(path, x):
    """Scores of all rows, of which those of a file are computed once."""
    scorer = OnnxScorer(path)
    stored = ROOT / "scores" / f"{scorer.digest[:16]}_{len(x)}.npy"
    if not stored.exists():
        stored.parent.mkdir(exist_ok=True)
        np.save(stored, np.asarray(scorer(x)))
    return np.load(stored)


def rates(sides, x, repeats):
    """{name: jets per second of CPU time in each repeat}."""
    out = {name: [] for name in sides}
    for scorer in sides.values():
        scorer(x[:256])
    for _ in range(repeats):
        for name, scorer in sides.items():
            started = time.process_time()
            scorer(x)
            out[name].append(len(x) / (time.process_time() - started))
    return out


def table(jets, repeats, timed, rows):
    skim = load_skim(f"{SAMPLES}/skims/eval", "jet_constituents", weights="none")
    parts = [np.flatnonzero(skim.dataset == name)[: rows * (4 if name == "qcd" else 1)] for name in ("qcd", *SIGNALS)]
    skim = skim.select(np.concatenate(parts))
    x, qcd = np.asarray(skim.x), skim.dataset == "qcd"
    weight = np.abs(np.asarray(skim.event_weight))
    files = list(dict.fromkeys([ROOT / f"{TEACHER}.onnx", *sorted(ROOT.glob("*_[0-9]*.onnx"))]))
    teacher = scores_of(files[0], x)

    def areas(score):
        return np.array(
            [auc(score[qcd], score[skim.dataset == s], weight[qcd], weight[skim.dataset == s]) for s in SIGNALS]
        )

    sides = {f"{TEACHER}, as they come": scorer_of(files[0], trimmed=False), **{p.stem: scorer_of(p) for p in files}}
    speed = rates(sides, x[qcd][:jets], repeats) if timed else {}
    shown = Table("score", "jets / CPU s", "range", "ranks", "ad_logp, 99 %", "ΔAUC, mean", "worst", *SIGNALS)
    for name in sides:
        path = ROOT / f"{name.removesuffix(', as they come')}.onnx"
        score = scores_of(path, x)
        measured = fidelity(teacher[qcd], score[qcd], weight[qcd])
        change = areas(score) - areas(teacher)
        values = speed.get(name, [np.nan])
        shown.add_row(
            name, f"{np.median(values):.0f}", f"{min(values):.0f} to {max(values):.0f}", f"{measured['rank_correlation']:.4f}",
            f"{measured['change_of_ad_logp_99']:.2f}", f"{change.mean():+.4f}", f"{change.min():+.4f}",
            *(f"{value:.4f}" for value in areas(score)),
        )  # fmt: skip
    Console(width=180).print(shown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("train")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p = verbs.add_parser("table")
    p.add_argument("--jets", type=int, default=2048)
    p.add_argument("--repeats", type=int, default=5)
    p.add_argument("--rows", type=int, default=2000, help="jets of each signal, and four times as many of QCD")
    p.add_argument("--no-times", action="store_true")
    args = parser.parse_args()
    if args.verb == "train":
        train(args.seeds)
    else:
        table(args.jets, args.repeats, not args.no_times, args.rows)


if __name__ == "__main__":
    main()
