"""Scores of jets along three lines of semivisible jets: AUC at equal pT against r_inv, the dark mesons' mass and the mediator's.

    python benchmarks/self_supervised.py samples
    python benchmarks/self_supervised.py train --only "masked neighbours" "masked direct" "AE, 9 inputs"
    python benchmarks/encoder_scans.py samples                       # 13 points of 2000 events, 10 minutes of one core
    python benchmarks/encoder_scans.py scan --figure encoders_scans.png

All lines go through the point of CMS: 1 TeV, 0.3, 20 GeV. Models know QCD jets alone; the classifier knows jets of that
point as well, of other files. Bands are standard deviations over the seeds of models.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from self_supervised import Rows, auc, path_of, simulated, taught, training_rows

from coffea_ad.evaluation import metrics
from coffea_ad.evaluation.matching import Matching

ROOT = Path("build/encoder_scans")
EVENTS, FIRST_SEED, SEEDS = 2000, 72_000, (1, 2, 3)
CMS = {"m_zprime": 1000.0, "r_inv": 0.3, "m_dark": 20.0}
LINES = {
    "r_inv": (0.0, 0.2, 0.3, 0.4, 0.6, 0.8),
    "m_dark": (5.0, 10.0, 20.0, 40.0, 80.0),
    "m_zprime": (1000.0, 1500.0, 2000.0, 3000.0),
}
"""Values of one parameter, with the others as at the point of CMS."""
MODELS = ("masked direct", "AE, 9 inputs")
COLUMNS = ("girth", "multiplicity", "mass")
SUPERVISED = "supervised, trained on CMS"
ERROR = "error of girth by events"


def point(parameter, value):
    """The name of a point: those on several lines have one."""
    return "_".join(f"{k}_{v:g}" for k, v in {**CMS, parameter: value}.items()).replace(".", "p")


POINTS = {point(k, v): ("svj", {**CMS, k: v}) for k, values in LINES.items() for v in values}
NAMES = {
    "r_inv": r"$r_{inv}$",
    "m_dark": r"$m_{dark}$ (GeV)",
    "m_zprime": r"$m_{Z'}$ (GeV)",
}


def scores():
    """{score: (scores of QCD jets, scores of the points' jets) of every seed}, and both sets of rows."""
    background, signals = Rows(), Rows(ROOT / "skims/points")
    both, training = (background, signals), training_rows()
    out = {name: [[r.baseline(name) for r in both]] for name in COLUMNS}
    for name in MODELS:
        out[name] = [[r.scores(path_of(name, seed)) for r in both] for seed in SEEDS]
    trees = [taught(training, background, "cms", seed)[0] for seed in SEEDS]
    out[SUPERVISED] = [[t.decision_function(np.asarray(r.trivial.x)) for r in both] for t in trees]
    return out, background, signals


def scan(picture):
    """Print and draw AUC at equal pT, of every score and point."""
    scored, background, signals = scores()
    qcd = background.dataset == "qcd"
    values, jets = {}, {}
    for name in POINTS:
        here = signals.dataset == name
        jets[name] = int(here.sum())
        weights = Matching(background.pt[qcd], signals.pt[here]).weights(background.weight[qcd], signals.weight[here])
        for score, seeds in scored.items():
            each = [
                auc(np.nan_to_num(b[qcd], nan=-1e30), np.nan_to_num(s[here], nan=-1e30), *weights) for b, s in seeds
            ]
            values.setdefault(score, {})[name] = each
        scale = metrics.auc(background.baseline("girth")[qcd], signals.baseline("girth")[here], *weights).error
        values.setdefault(ERROR, {})[name] = [scale]
    (ROOT / "scan.json").write_text(json.dumps({"jets": jets, "auc": values}, indent=1))
    for parameter, along in LINES.items():
        names = [point(parameter, value) for value in along]
        print(
            f"| {parameter} (jets) | "
            + " | ".join(f"{v:g} ({jets[n]})" for v, n in zip(along, names, strict=True))
            + " |"
        )
        print("| --- " * (1 + len(along)) + "|")
        for score, of in values.items():
            cells = [
                f"{np.mean(of[n]):.3f}" + (f" ± {np.std(of[n], ddof=1):.3f}" if len(of[n]) > 1 else "") for n in names
            ]
            print(f"| {score} | " + " | ".join(cells) + " |")
        print()
    if picture:
        draw({score: of for score, of in values.items() if score != ERROR}, picture)


def draw(values, path):
    """A panel for each line: solid what knows QCD alone, dashed single columns, dotted the classifier that knows a point."""
    import matplotlib as mpl

    from coffea_ad.plotting import canvas

    colors = [mpl.color_sequences["petroff10"][i] for i in (0, 1, 2, 8, 4, 5)]
    with canvas(path, 1, len(LINES), (4.6, 4.0)) as axes:
        for ax, (parameter, along) in zip(axes[0], LINES.items(), strict=True):
            for i, (score, of) in enumerate(values.items()):
                each = np.array([of[point(parameter, value)] for value in along])
                style = "-" if score in MODELS else ":" if score == SUPERVISED else "--"
                mean = each.mean(axis=1)
                ax.plot(
                    along, mean, style, marker="osD^vX"[i], markersize=4, color=colors[i], label=score, linewidth=1.5
                )
                if each.shape[1] > 1:
                    spread = each.std(axis=1, ddof=1)
                    ax.fill_between(along, mean - spread, mean + spread, color=colors[i], alpha=0.25, linewidth=0)
            ax.axhline(0.5, color="grey", linewidth=0.8)
            ax.set(xlabel=NAMES[parameter], xscale="log" if parameter == "m_dark" else "linear", ylim=(0.48, 1.0))
            ax.set_xticks(along, [f"{value:g}" for value in along])
            ax.minorticks_off()
        axes[0, 0].set_ylabel("AUC at equal $p_T$")
        axes[0, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("samples")
    p.add_argument("--scale", type=float, default=1.0)
    p = verbs.add_parser("scan")
    p.add_argument("--figure", type=Path)
    args = parser.parse_args()
    if args.verb == "samples":
        simulated(
            ROOT, {"points": {name: (process, EVENTS) for name, process in POINTS.items()}}, args.scale, FIRST_SEED
        )
    else:
        scan(args.figure)


if __name__ == "__main__":
    main()
