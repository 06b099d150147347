"""Tables and figures of `physics.py evaluate`: every score against every signal, long runs, epochs, significance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from coffea_ad import evaluation, nn, regions
from coffea_ad.evaluation import Sample
from coffea_ad.scoring import OnnxScorer
from coffea_ad.skims import load_skim

ROOT = Path("build/physics")
COMBINED = ("Deep SVDD ensemble log", "VAE of unit variance, elbo standard", "WNAE")
"""The rank average of these was chosen on the set `dev`, as the best one for both backgrounds together."""


ENERGY = ("WNAE_reference_settings", "WNAE_reference_settings,_W1", "WNAE", "WNAE_not_smeared", "NAE", "NAE_on-manifold",
          "NAE_smeared")  # fmt: skip


def scores_of(bkg, data):
    """{name: (seeds, rows)} of all models of a background, and of the rank averages."""
    found, efficiency = {}, {}
    for path in sorted((ROOT / "models" / bkg).glob("*.onnx")):
        name = path.stem.rsplit("_", 1)[0].replace("_", " ")
        scorer = OnnxScorer(path)
        score = np.asarray(scorer(data.x))
        found.setdefault(name, []).append(score)
        efficiency.setdefault(name, []).append(10.0 ** -regions.logp(scorer.card.calibration, score).astype(float))
    if all(m in efficiency for m in COMBINED):
        members = zip(*(efficiency[m] for m in COMBINED), strict=False)
        found["rank average of SVDD, VAE and WNAE"] = [-np.log10(np.mean(eps, axis=0)) for eps in members]
    return {name: np.stack(rows) for name, rows in found.items()}


def baselines_of(train, data):
    """Mahalanobis distances and isolation forests in the three preprocessings, single columns."""
    from sklearn.ensemble import IsolationForest

    rows, weight = train.x, np.clip(train.weight, 0, None)
    columns = [c.name for c in train.feature.columns]
    out = dict(evaluation.column_baselines(data.x, columns, data.bystanders))
    for kind in ("quantile", "standard", "log"):
        transform = nn.preprocessing(kind, columns).fit(rows, weight)
        with torch.no_grad():
            z, there = (transform(torch.from_numpy(x)).numpy() for x in (rows, data.x))
        mean = np.average(z, axis=0, weights=weight)
        inverse = np.linalg.inv(np.cov(z.T, aweights=weight))
        out[f"Mahalanobis {kind}"] = np.einsum("ni,ij,nj->n", there - mean, inverse, there - mean)
        forests = []
        for seed in (1, 2, 3):
            drawn = np.random.default_rng(seed).choice(len(z), 20_000, p=weight / weight.sum())
            forests.append(-IsolationForest(n_estimators=200, random_state=seed).fit(z[drawn]).score_samples(there))
        out[f"IsolationForest {kind}"] = np.stack(forests)
    return out


def plain_auc(b, s, wb, ws):
    return evaluation.auc(b, s, wb, ws, n_bootstrap=1).value


def tables(sample):
    data = load_skim(ROOT / "skims" / sample, "jet_substructure")
    signals = sorted(d for d in set(data.dataset) if d.startswith("svj"))
    out = ROOT / f"tables_{sample}"
    out.mkdir(parents=True, exist_ok=True)
    record = {}
    for bkg in ("ttbar", "qcd"):
        other = {"ttbar": "qcd", "qcd": "ttbar"}[bkg]
        train = load_skim(ROOT / "skims/train", "jet_substructure", datasets=[bkg]).part("train")
        scores = {**scores_of(bkg, data), **baselines_of(train, data)}

        def picked(mask, scores=scores):
            return Sample(
                {k: v[..., mask] for k, v in scores.items()}, weight=data.weight[mask],
                pt=data.bystanders["pt"][mask], mass=data.bystanders["mass"][mask],
            )  # fmt: skip

        everything = {name: picked(data.dataset == name) for name in (*signals, other)}
        found = evaluation.evaluate(picked(data.dataset == bkg), everything, n_bootstrap=20)
        half = {"background": (data.dataset == bkg) & (data.split == "train")}
        ceiling = {}
        for name in signals:
            mine = (data.dataset == name) & (data.split == "train")
            classifier = evaluation.ceiling(
                data.x[half["background"]], data.x[mine], data.weight[half["background"]], data.weight[mine]
            )
            rest = [(data.dataset == d) & (data.split != "train") for d in (bkg, name)]
            b, s = (classifier(data.x[m]) for m in rest)
            wb, ws = (np.clip(data.weight[m], 0, None) for m in rest)
            pb, ps = (data.bystanders["pt"][m] for m in rest)
            ceiling[name] = (plain_auc(b, s, wb, ws), plain_auc(b, s, *evaluation.match_spectrum(pb, ps, wb, ws)))
        record[bkg] = table(bkg, scores, found, signals, other, ceiling)
        significance(bkg, scores, data, signals)
    long_runs()
    epochs(out)
    (out / "tables.json").write_text(json.dumps(record, indent=1))


def table(bkg, scores, found, signals, other, ceiling):
    print(f"\ntrained on {bkg}: AUC ± bootstrap ± spread over seeds; mean over the signals, then matched in pT each\n")
    print("| score | mean | mean, matched | " + " | ".join(signals) + f" | {other} | sculpting at 0.1 |")
    print("| --- " * (5 + len(signals)) + "|")
    lines = []
    for name in scores:
        rows = [found.row(name, s) for s in signals]
        plain, matched = [r.plain.auc for r in rows], [r.matched.auc for r in rows]
        cells = []
        for group in (plain, matched):
            spread = np.mean([e.spread for e in group])
            cells.append(
                f"{np.mean([e.value for e in group]):.3f} ± {np.mean([e.error for e in group]):.3f}"
                + (f" ± {spread:.3f}" if np.isfinite(spread) else "")
            )
        cells += [f"{e.value:.3f}" for e in matched]
        cells.append(f"{found.row(name, other).matched.auc.value:.3f}")
        s = found.sculpting.get(name)
        cells.append("" if s is None else f"{s.divergence[0.1].value:.3f}")
        lines.append((float(np.mean([e.value for e in matched])), name, cells))
    for _, name, cells in sorted(lines, reverse=True):
        print(f"| {name} | " + " | ".join(cells) + " |")
    cells = [f"{np.mean([c[i] for c in ceiling.values()]):.3f}" for i in (0, 1)]
    print("| supervised ceiling | " + " | ".join([*cells, *(f"{c[1]:.3f}" for c in ceiling.values())]) + " | | |")
    effective = [found.row("pT", s).matched.n_effective for s in signals]
    print(f"\neffective background jets after matching: {', '.join(f'{n:.0f}' for n in effective)}")
    return {name: {"matched": m, "cells": cells} for m, name, cells in lines}


def significance(bkg, scores, data, signals):
    """WNAE against AE: the mean AUC over the signals, seed by seed, with the bootstrap error of the difference."""
    if "WNAE" not in scores or "AE" not in scores:
        return
    b = np.flatnonzero(data.dataset == bkg)
    pt = data.bystanders["pt"]
    for label, matched in (("raw", False), ("matched in pT", True)):
        rng = np.random.default_rng(1)
        values = {}
        for replica in range(21):
            draw_b = b if replica == 0 else rng.choice(b, len(b))
            per = {"AE": [], "WNAE": []}
            for name in signals:
                s = np.flatnonzero(data.dataset == name)
                draw_s = s if replica == 0 else rng.choice(s, len(s))
                wb, ws = data.weight[draw_b], data.weight[draw_s]
                if matched:
                    wb, ws = evaluation.match_spectrum(pt[draw_b], pt[draw_s], wb, ws)
                for model, found in per.items():
                    seeds = scores[model] if replica == 0 else scores[model][:1]
                    found.append([plain_auc(x[draw_b], x[draw_s], wb, ws) for x in seeds])
            values[replica] = {m: np.mean(v, axis=0) for m, v in per.items()}
        difference = values[0]["WNAE"].mean() - values[0]["AE"].mean()
        boot = np.std([v["WNAE"][0] - v["AE"][0] for k, v in values.items() if k], ddof=1)
        seed = np.sqrt(sum(np.var(values[0][m], ddof=1) / len(values[0][m]) for m in ("AE", "WNAE")))
        total = np.hypot(boot, seed)
        print(
            f"{bkg}, {label}: WNAE {values[0]['WNAE'].mean():.3f}, AE {values[0]['AE'].mean():.3f}, difference "
            f"{difference:.3f} ± {boot:.3f} (events) ± {seed:.3f} (seeds): {difference / total:.1f} σ"
        )


def confirm():
    """Print mean AUCs, as they are and matched, on the set that is looked at once; ± the spread over seeds."""
    data = load_skim(ROOT / "skims/fresh", "jet_substructure")
    pt, signals = data.bystanders["pt"], sorted(d for d in set(data.dataset) if d.startswith("svj"))
    print("| trained on | score | AUC | AUC, matched |\n| --- | --- | --- | --- |")
    for bkg in ("ttbar", "qcd"):
        train = load_skim(ROOT / "skims/train", "jet_substructure", datasets=[bkg]).part("train")
        scores = {**scores_of(bkg, data), **baselines_of(train, data)}
        b = data.dataset == bkg
        for name, rows in scores.items():
            found = []
            for row in np.atleast_2d(rows):
                pairs = []
                for signal in signals:
                    m = data.dataset == signal
                    matched = evaluation.match_spectrum(pt[b], pt[m], data.weight[b], data.weight[m])
                    plain = plain_auc(row[b], row[m], data.weight[b], data.weight[m])
                    pairs.append((plain, plain_auc(row[b], row[m], *matched)))
                found.append(np.mean(pairs, axis=0))
            spread = np.std(found, axis=0, ddof=1) if len(found) > 1 else (np.nan, np.nan)
            cells = [f"{m:.3f} ± {s:.3f}" for m, s in zip(np.mean(found, axis=0), spread, strict=True)]
            print(f"| {bkg} | {name} | " + " | ".join(cells) + " |", flush=True)


def long_runs():
    print("\n| trained on | model | floor | excess, 0 steps | 500 steps, from data | 2000 steps, from data |")
    print("| --- " * 6 + "|")
    for bkg in ("ttbar", "qcd"):
        for name in ENERGY:
            runs = [json.loads(p.read_text()) for p in (ROOT / "models" / bkg).glob(f"{name}_[0-9]*/long_run.json")]
            if not runs:
                continue
            columns = [
                [r["floor"] for r in runs], *([r["data" if k else "buffer"][k] for r in runs] for k in range(3)),
            ]  # fmt: skip
            cells = [f"{np.mean(v):.2f} ± {np.std(v, ddof=1) if len(v) > 1 else np.nan:.2f}" for v in columns]
            print(f"| {bkg} | {name.replace('_', ' ')} | " + " | ".join(cells) + " |")


CRITERIA = ("excess", "excess_smeared", "long_run_excess", "long_run_excess_smeared")
"""The last of these that a history has chooses the epoch."""


def histories(bkg, name):
    """{seed: history} of an energy model."""
    paths = sorted((ROOT / "models" / bkg).glob(f"{name}_[0-9]*/metrics.jsonl"))
    return {p.parent.name.rsplit("_", 1)[1]: [json.loads(line) for line in p.read_text().splitlines()] for p in paths}


def epochs(out):
    """AUC of the epoch that each criterion would keep, against the best one, which needs the signal; shares of terms."""
    from coffea_ad import plotting

    print(
        "\nmean AUC of the last epoch, of the one that a criterion keeps (the last criterion is used), and of the best\n"
    )
    print("| trained on | model | seed | last | " + " | ".join(CRITERIA) + " | best | its epoch |")
    print("| --- " * (6 + len(CRITERIA)) + "|")
    shares = []
    for bkg in ("ttbar", "qcd"):
        panels = {}
        for name in ENERGY:
            runs = histories(bkg, name)
            for seed, history in runs.items():
                best = max(history, key=lambda r: r["auc"])
                cells = [f"{min(history, key=lambda r: r[c])['auc']:.3f}" if c in history[0] else "" for c in CRITERIA]
                print(
                    f"| {bkg} | {name.replace('_', ' ')} | {seed} | {history[-1]['auc']:.3f} | "
                    + " | ".join(cells) + f" | {best['auc']:.3f} | {best['epoch']:.0f} |"
                )  # fmt: skip
            if name in ("WNAE_reference_settings", "WNAE"):
                panels[name.replace("_", " ")] = list(runs.values())
            every = [row for history in runs.values() for row in history]
            for key in sorted({k for row in every for k in row if k.startswith("share_")}):
                value = np.array([row[key] for row in every])
                shares.append((bkg, name.replace("_", " "), key[6:], value))
        panels = {name: found for name, found in panels.items() if found}
        if panels:
            draw_epochs(panels, out / f"epochs_{bkg}.png", plotting)
    print(
        "\n| trained on | model | term | share of the gradient, mean | smallest | largest epoch |\n"
        + "| --- " * 6
        + "|"
    )
    for bkg, name, term, value in shares:
        print(f"| {bkg} | {name} | {term} | {value.mean():.3f} | {value.min():.3f} | {value.max():.3f} |")


def draw_epochs(panels, path, plotting):
    with plotting.canvas(path, 1, 3, (4.8, 4.0)) as axes:
        for color, (name, histories) in zip(("tab:red", "tab:blue"), panels.items(), strict=False):
            for k, history in enumerate(histories):
                label = name if k == 0 else None
                auc = [r["auc"] for r in history]
                axes[0, 0].plot([r["epoch"] for r in history], auc, color=color, label=label, linewidth=1)
                for ax, key in ((axes[0, 1], "excess"), (axes[0, 2], "long_run_excess")):
                    if key in history[0]:
                        ax.plot([max(r[key], 0.02) for r in history], auc, ".", color=color, label=label, markersize=4)
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
