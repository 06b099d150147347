"""Tables and figures of `physics.py evaluate`: every score against every signal, differences, long runs, epochs.

Errors are those of a bootstrap over events: the jets of an event are drawn together, with one set of multiplicities for all scores, so
that differences are paired. Spreads over seeds are given from five seeds on, ranges below.
"""

from __future__ import annotations

import json
import re
import types
import zlib
from collections import defaultdict
from operator import itemgetter
from pathlib import Path

import numpy as np

from coffea_ad import evaluation
from coffea_ad.evaluation import MIN_SEEDS, difference_of_means
from coffea_ad.evaluation.curves import Ranking, resamplings
from coffea_ad.evaluation.matching import Matching
from coffea_ad.evaluation.processes import Process
from coffea_ad.features.spec import feature_spec
from coffea_ad.scoring import regions
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import InputSpec
from coffea_ad.skims.files import skim_files
from coffea_ad.skims.reading import load_skim
from coffea_ad.weights import n_effective

ROOT = Path("build/physics")
FEATURE = "jet_substructure"
COMBINED = ("Deep SVDD ensemble log", "VAE of unit variance, elbo standard", "NAE smeared")
"""The rank average of these was chosen on the set `dev`, as the best one for both backgrounds together."""
COMPARED_WITH = ("AE", "WNAE", "untrained")
"""What the differences of all scores are taken to, as far as they are there."""
REPLICAS = 100
FORESTS = 5


def models_of(bkg):
    """{name: {seed: file}} of the models of a background."""
    out = defaultdict(dict)
    for path in (ROOT / "models" / bkg).glob("*.onnx"):
        match = re.fullmatch(r"(.+)_(\d+)", path.stem)
        if match:
            out[match[1].replace("_", " ")][int(match[2])] = path
    return {name: dict(sorted(out[name].items())) for name in sorted(out)}


class Jets:
    """The rows of a set of files, in which the plain substructure is defined."""

    def __init__(self, sample):
        folder = ROOT / "skims" / sample
        spec = InputSpec(features=(feature_spec(FEATURE),))
        card = types.SimpleNamespace(inputs=(spec,), provenance={})
        self.process = Process(folder, sorted(skim_files(folder)), types.SimpleNamespace(card=card, name=FEATURE))
        rows = self.process.rows
        self.x, self.weight, self.dataset, self.split = rows.x, rows.event_weight, rows.dataset, rows.split
        self.event, self.spectators = self.process.event, rows.spectators
        self.pt, self.mass = (np.asarray(self.spectators[k], np.float64) for k in ("pt", "mass"))
        self.columns = [c.name for c in rows.feature.columns]
        self.signals = sorted(d for d in set(self.dataset.tolist()) if d.startswith("svj"))

    def score(self, path):
        """Scores of all rows by a model of any features of the skim, NaN where they are undefined, and its card."""
        scorer = OnnxScorer(path)
        inputs = self.process.inputs(scorer.card, scorer.name)
        return self.process.score(scorer, inputs, np.ones(len(self.x), bool)), scorer.card


def scores_of(bkg, jets):
    """{name: (seeds, rows)} of all models of a background, and of the rank averages of the seeds that all members have."""
    out, efficiency = {}, {}
    for name, files in models_of(bkg).items():
        rows = []
        for seed, path in files.items():
            score, card = jets.score(path)
            rows.append(score)
            if name in COMBINED:
                efficiency[name, seed] = 10.0 ** -regions.logp(card.calibration, score).astype(float)
        out[name] = np.stack(rows)
    common = sorted(set.intersection(*({seed for n, seed in efficiency if n == name} for name in COMBINED)))
    if common:
        averages = [-np.log10(np.mean([efficiency[name, seed] for name in COMBINED], axis=0)) for seed in common]
        out["rank average of SVDD, VAE and NAE smeared"] = np.stack(averages)
    return out


def baselines_of(train, jets):
    """Mahalanobis distances and isolation forests in the three preprocessings, single columns: {name: (seeds, rows)}."""
    import torch
    from sklearn.ensemble import IsolationForest

    from coffea_ad import nn

    rows, weight = train.x, np.clip(train.event_weight, 0, None)  # nothing is fitted to negative weights
    columns = [c.name for c in train.feature.columns]
    single = evaluation.column_baselines(jets.x, columns, jets.spectators)
    out = {name: score[None] for name, score in single.items()}
    for kind in ("quantile", "standard", "log"):
        transform = nn.preprocessing(kind, columns).fit(rows, weight)
        with torch.no_grad():
            z, other = (transform(torch.from_numpy(x)).numpy() for x in (rows, jets.x))
        mean = np.average(z, axis=0, weights=weight)
        inverse = np.linalg.pinv(np.cov(z.T, aweights=weight), hermitian=True)
        out[f"Mahalanobis {kind}"] = np.einsum("ni,ij,nj->n", other - mean, inverse, other - mean)[None]
        forests = []
        for seed in range(1, FORESTS + 1):
            drawn = np.random.default_rng(seed).choice(len(z), 20_000, p=weight / weight.sum())
            forests.append(-IsolationForest(n_estimators=200, random_state=seed).fit(z[drawn]).score_samples(other))
        out[f"IsolationForest {kind}"] = np.stack(forests)
    return out


class Contest:
    """One background against one signal, as they are and at equal spectra of pT, with replicas of their events."""

    def __init__(self, jets, bkg, signal):
        self.rows = [np.flatnonzero(jets.dataset == name) for name in (bkg, signal)]
        weights, counts = [], []
        for name, rows in zip((bkg, signal), self.rows, strict=True):
            (count,) = resamplings([len(rows)], REPLICAS, zlib.crc32(name.encode()), [jets.event[rows]])
            counts.append(np.concatenate([np.ones((1, len(rows)), np.uint8), count]))  # the first is the sample itself
            weights.append(jets.weight[rows])
        plain = [w * c for w, c in zip(weights, counts, strict=True)]
        matching = Matching(*(jets.pt[rows] for rows in self.rows))
        at_equal = [matching.weights(*pair) for pair in zip(*plain, strict=True)]
        matched = [np.stack(w) for w in zip(*at_equal, strict=True)]
        self.weights = {"plain": plain, "matched": matched}
        self.n_effective = {k: n_effective(w[0][0]) for k, w in self.weights.items()}

    def areas(self, scores):
        """{"plain", "matched": (seeds, 1 + replicas)} of scores (seeds, all rows)."""
        rankings = [Ranking.of(*(row[rows] for rows in self.rows)) for row in scores]
        return {k: np.stack([r.areas(*w) for r in rankings]) for k, w in self.weights.items()}


def measured(jets, bkg, scores, names):
    """{score: {"plain", "matched": (signals, seeds, 1 + replicas)}}, and the effective background of each signal."""
    parts, n_eff = defaultdict(lambda: defaultdict(list)), {}
    for name in names:
        contest = Contest(jets, bkg, name)
        n_eff[name] = contest.n_effective
        for label, rows in scores.items():
            for kind, areas in contest.areas(rows).items():
                parts[label][kind].append(areas)
    return {label: {k: np.stack(v) for k, v in kinds.items()} for label, kinds in parts.items()}, n_eff


def shown(areas):
    """Mean over signals and seeds ± events, ± seeds or their range; `areas` is (signals, seeds, 1 + replicas)."""
    mean = areas.mean(axis=(0, 1))
    each = areas[:, :, 0].mean(axis=0)
    text = f"{mean[0]:.3f} ± {np.nanstd(mean[1:], ddof=1):.3f}"
    return f"{text}{spread(each)}"


def spread(values, digits=3):
    """What seeds say: nothing for one, a range for few, a standard deviation from five on."""
    if len(values) < 2:
        return ""
    if len(values) < MIN_SEEDS:
        return f" [{np.min(values):.{digits}f} to {np.max(values):.{digits}f}]"
    return f" ± {np.std(values, ddof=1):.{digits}f}"


def ceilings(jets, bkg):
    """{signal: (AUC, AUC matched)} of classifiers that know the signal, of half of the rows, on the other half."""
    out = {}
    for name in jets.signals:
        half = [(jets.dataset == d) & (jets.split == "train") for d in (bkg, name)]
        rest = [(jets.dataset == d) & (jets.split != "train") for d in (bkg, name)]
        classifier = evaluation.ceiling(*(jets.x[m] for m in half), *(jets.weight[m] for m in half))
        scores, weights = [classifier(jets.x[m]) for m in rest], [jets.weight[m] for m in rest]
        matched = evaluation.match_spectrum(*(jets.pt[m] for m in rest), *weights)
        out[name] = [evaluation.auc(*scores, *w, n_bootstrap=0).value for w in (weights, matched)]
    return out


def sculpting_of(jets, bkg, scores):
    """{score: mean Jensen-Shannon divergence of the mass at ε_B = 0.1}; the random cut is that of the first score."""
    b = jets.dataset == bkg
    out, random = {}, 0.0
    for name, rows in scores.items():
        each = [
            evaluation.sculpting(row[b], jets.mass[b], jets.weight[b], cuts=(0.1,), rows=10).divergence[0.1]
            for row in rows
        ]
        out[name] = float(np.mean([d.value for d in each]))
        random = random or each[0].random
    return out, random


def tables(sample):
    jets = Jets(sample)
    out = ROOT / f"tables_{sample}"
    out.mkdir(parents=True, exist_ok=True)
    record = {}
    for bkg in ("ttbar", "qcd"):
        other = {"ttbar": "qcd", "qcd": "ttbar"}[bkg]
        train = load_skim(ROOT / "skims/train", FEATURE, datasets=[bkg]).splits("train")
        scores = {**scores_of(bkg, jets), **baselines_of(train, jets)}
        areas, n_eff = measured(jets, bkg, scores, [*jets.signals, other])
        record[bkg] = table(jets, bkg, other, areas, sculpting_of(jets, bkg, scores), ceilings(jets, bkg))
        listed = ", ".join(f"{name} {n_eff[name]['matched']:.0f}" for name in jets.signals)
        print(f"\neffective background jets after matching: {listed}")
        record[bkg]["differences"] = differences(bkg, {k: only(v, len(jets.signals)) for k, v in areas.items()})
    long_runs()
    epochs(out)
    (out / "tables.json").write_text(json.dumps(record, indent=1))


def only(kinds, n):
    """Leave the first n signals."""
    return {kind: a[:n] for kind, a in kinds.items()}


def table(jets, bkg, other, areas, sculpted, ceiling):
    divergence, random = sculpted
    n = len(jets.signals)
    print(
        f"\ntrained on {bkg}: AUC ± events ± seeds ([range] of fewer than {MIN_SEEDS} seeds), mean over the signals; then "
        f"matched in pT each; sculpting of a cut at random: {random:.3f}\n"
    )
    print("| score | seeds | mean | mean, matched | " + " | ".join(jets.signals) + f" | {other} | sculpting at 0.1 |")
    print("| --- " * (6 + n) + "|")
    lines = []
    for name, kinds in areas.items():
        matched = kinds["matched"]
        cells = [str(matched.shape[1]), *(shown(kinds[k][:n]) for k in ("plain", "matched"))]
        cells += [f"{v:.3f}" for v in matched[:, :, 0].mean(axis=1)]
        cells.append(f"{divergence[name]:.3f}")
        lines.append((float(matched[:n, :, 0].mean()), name, cells))
    for _, name, cells in sorted(lines, reverse=True):
        print(f"| {name} | " + " | ".join(cells) + " |")
    cells = [f"{np.mean([c[i] for c in ceiling.values()]):.3f}" for i in (0, 1)]
    print("| supervised ceiling | | " + " | ".join([*cells, *(f"{c[1]:.3f}" for c in ceiling.values())]) + " | | |")
    return {
        name: {"matched": value, "cells": cells, "each": {k: a[:n, :, 0].mean(axis=0).tolist() for k, a in areas[name].items()}}
        for value, name, cells in lines
    }  # fmt: skip


def differences(bkg, areas):
    """Differences of the mean over the signals, paired over events, with Student's interval over seeds and events."""
    record = {}
    for reference in (r for r in COMPARED_WITH if r in areas):
        print(f"\ntrained on {bkg}: AUC less that of {reference} (95 % interval), events and seeds\n")
        print("| score | seeds | difference | p | difference, matched | p |")
        print("| --- " * 6 + "|")
        lines = []
        for name, kinds in areas.items():
            if name == reference:
                continue
            cells, values = [], {}
            for kind in ("plain", "matched"):
                a, b = (x[kind].mean(axis=0) for x in (kinds, areas[reference]))  # (seeds, 1 + replicas)
                d = difference_of_means(a[:, 0], b[:, 0], a[:, 1:].mean(axis=0), b[:, 1:].mean(axis=0))
                cells += [str(d), f"{d.p_value:.2g}"]
                values[kind] = {k: float(v) if np.isfinite(v) else None for k, v in vars(d).items()}
            count = " − ".join(str(x["plain"].shape[1]) for x in (kinds, areas[reference]))
            lines.append((values["matched"]["value"], name, [count, *cells]))
            record[f"{name} − {reference}"] = values
        for _, name, cells in sorted(lines, reverse=True):
            print(f"| {name} | " + " | ".join(cells) + " |")
    return record


def confirm():
    """Print mean AUCs, as they are and matched, on the set that is looked at once."""
    jets = Jets("fresh")
    print("| trained on | score | seeds | AUC | AUC, matched |\n| --- | --- | --- | --- | --- |")
    for bkg in ("ttbar", "qcd"):
        train = load_skim(ROOT / "skims/train", FEATURE, datasets=[bkg]).splits("train")
        scores = {**scores_of(bkg, jets), **baselines_of(train, jets)}
        areas, _ = measured(jets, bkg, scores, jets.signals)
        for name, kinds in areas.items():
            cells = [str(kinds["plain"].shape[1]), shown(kinds["plain"]), shown(kinds["matched"])]
            print(f"| {bkg} | {name} | " + " | ".join(cells) + " |", flush=True)
        differences(bkg, areas)


def runs_of(bkg, file):
    """{model: {seed: path}} of a file in the folders of the models of a background."""
    return {
        name: existing
        for name, files in models_of(bkg).items()
        if (existing := {s: p.with_suffix("") / file for s, p in files.items() if (p.with_suffix("") / file).is_file()})
    }


def long_runs():
    """Excess after further steps at frozen weights: mean ± seeds, or their range."""
    print("\n| trained on | model | seeds | steps | floor | excess, from the buffer | excess, from data |")
    print("| --- " * 7 + "|")
    for bkg in ("ttbar", "qcd"):
        for name, files in runs_of(bkg, "long_run.json").items():
            runs = [json.loads(p.read_text()) for p in files.values()]
            steps = runs[0].get("steps", [])
            for k, step in enumerate(steps):
                columns = [
                    [float(np.mean(r.get("floor", np.nan))) for r in runs],
                    *([float(r[start][k]) for r in runs if start in r] for start in ("buffer", "data")),
                ]
                cells = [f"{np.mean(v):.2f}{spread(v, 2)}" if v else "" for v in columns]
                print(f"| {bkg} | {name} | {len(runs)} | {step} | " + " | ".join(cells) + " |")


CRITERIA = ("excess", "excess_smeared", "long_run_excess", "long_run_excess_smeared")
"""The last of these that a history has chooses the epoch."""


def epochs(out):
    """AUC of the epoch that each criterion would keep, against the best one, which needs the signal; shares of the terms of a loss."""
    from coffea_ad import plotting

    print(
        "\nmean AUC of the last epoch, of the one that a criterion would keep (the last criterion is used), and of the best\n"
    )
    print("| trained on | model | seeds | last | " + " | ".join(CRITERIA) + " | best |")
    print("| --- " * (5 + len(CRITERIA)) + "|")
    shares = []
    for bkg in ("ttbar", "qcd"):
        panels = {}
        for name, files in runs_of(bkg, "metrics.jsonl").items():
            histories = [[json.loads(line) for line in path.read_text().splitlines()] for path in files.values()]
            histories = [rows for rows in histories if len(rows) > 1 and "auc" in rows[0] and "excess" in rows[0]]
            if not histories:
                continue
            columns = [
                [rows[-1]["auc"] for rows in histories],
                *([min(rows, key=itemgetter(c))["auc"] for rows in histories if c in rows[0]] for c in CRITERIA),
                [max(r["auc"] for r in rows) for rows in histories],
            ]
            cells = [f"{np.mean(v):.3f}{spread(v, 3)}" if v else "" for v in columns]
            print(f"| {bkg} | {name} | {len(histories)} | " + " | ".join(cells) + " |")
            panels[name] = histories
            every = [row for rows in histories for row in rows]
            terms = sorted({k for row in every for k in row if k.startswith("share_")})
            shares += [(bkg, name, k.removeprefix("share_"), np.array([row[k] for row in every])) for k in terms]
        if panels:
            draw_epochs(panels, out / f"epochs_{bkg}.png", plotting)
    print("\n| trained on | model | term | share of the gradient, mean | smallest | largest of an epoch |")
    print("| --- " * 6 + "|")
    for bkg, name, term, value in shares:
        print(f"| {bkg} | {name} | {term} | {value.mean():.3f} | {value.min():.3f} | {value.max():.3f} |")


def draw_epochs(panels, path, plotting):
    import matplotlib as mpl

    with plotting.canvas(path, 1, 3, (4.8, 4.0)) as axes:
        for color, (name, histories) in zip(mpl.color_sequences["petroff10"], panels.items(), strict=False):
            for k, history in enumerate(histories):
                label = name if k == 0 else None
                auc = [r["auc"] for r in history]
                axes[0, 0].plot([r["epoch"] for r in history], auc, color=color, label=label, linewidth=1)
                for ax, key in ((axes[0, 1], "excess"), (axes[0, 2], "long_run_excess")):
                    if key in history[0]:
                        at = [max(r.get(key, np.nan), 0.02) for r in history]
                        ax.plot(at, auc, ".", color=color, label=label, markersize=4)
        axes[0, 0].set_xlabel("epoch")
        axes[0, 0].set_ylabel("mean AUC over the signals")
        for ax, label in (
            (axes[0, 1], "excess after the steps of a batch"),
            (axes[0, 2], "excess after 500 further steps"),
        ):
            ax.set(xscale="log", xlim=(0.2, 8), xlabel=label)
            ax.set_xticks([0.3, 0.5, 1, 2, 5], ["0.3", "0.5", "1", "2", "5"])
            ax.set_xticks([], minor=True)
        axes[0, 0].legend()
