"""Methods of resonant searches on LHC Olympics features: significance improvement with its spread, closure, costs, failures.

    python benchmarks/resonant.py                       # all methods, 5 seeds, 800 signal events (549 in the signal region)
    python benchmarks/resonant.py --methods cwola cathode --shift 0.1 --signal 0 800
    python benchmarks/resonant.py --methods r_anode --good   # p_B with true background of the signal region as well
    python benchmarks/resonant.py --half --methods iad cathode cwola salad supervised --signal 0 400

LHCO-inner: 3.4 < m_JJ < 3.6 TeV between sidebands of 0.1 TeV; data and test rows as in `lhco.py`. With --half only one of the two
background samples is data, and the other one is true background for references and the simulation of SALAD. The trivial
scores beside the methods are the single inputs. Seeds choose the signal events, the splits and all trainings.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lhco
import numpy as np
import torch

from coffea_ad.errors import CoffeaADError
from coffea_ad.evaluation.metrics import signal_efficiency
from coffea_ad.plotting import canvas
from coffea_ad.resonant import METHODS, Settings, Window, closure, flatness

GRID = np.logspace(-3, 0, 61)
WINDOW = Window(low=lhco.WINDOW[0], high=lhco.WINDOW[1], outer_low=3.3, outer_high=3.7)


def shifted(rows, shift):
    """Both masses move with m_JJ: what a method must survive that assumes nothing of the inputs."""
    x = rows.x.copy()
    x[:, 1:3] += shift * x[:, :1]
    return lhco.Rows(x, rows.label)


def skim(rows, name, seed, first=0, left=0.0):
    """All rows train or validate, since the test rows are others; but for a part that a template is made of."""
    out = lhco.skim(rows, name=name, seed=seed, first=first)
    names, parts = ["train", "validation", "test"], [0.75 * (1 - left), 0.25 * (1 - left), left]
    return replace(out, split=np.random.default_rng([seed, first, 1]).choice(names, len(rows.x), p=parts))


def halved(n_signal, seed):
    """As `lhco.inner`, with one background sample as the data."""
    data = lhco.together(lhco.background("train"), lhco.signal(n_signal, seed))
    inside, test = lhco.in_window(data.mass), lhco.test_rows()
    region = data.select(inside)
    test = test.select(lhco.in_window(test.mass))
    return lhco.Inner(region, data.select(~inside), test, region.select(region.label == 0))


def run(method, n_signal, seed, settings, *, shift=0.0, good=False, half=False):
    """Fit a method, and return its figures of merit."""
    sample = halved(n_signal, seed) if half else lhco.inner(n_signal, seed)
    region, sidebands, test, background = (shifted(rows, shift) for rows in sample)
    with tempfile.TemporaryDirectory() as folder:
        fitted = METHODS[method](settings, WINDOW, Path(folder), seed)
        others = {}
        true = lhco.background("val")
        if method in ("iad", "supervised", "salad") and not half:
            sys.exit(f"{method} needs background that is no data: --half")
        if method in ("iad", "supervised"):
            others["background"] = skim(shifted(true, shift), "background", seed, 10**6)
        if method == "r_anode" and good:
            others["background"] = skim(background, "background", seed, 10**6)
        if method == "supervised":
            others["signal"] = skim(shifted(lhco.signal(20_000, seed), shift), "signal", seed, 2 * 10**6)
        if method == "salad":  # a simulation that is wrong: τ21 as if measured 3 % too large
            wrong = lhco.Rows(true.x * np.array([1, 1, 1, 1.03, 1.03], np.float32), true.label)
            others["simulation"] = skim(shifted(wrong, shift), "simulation", seed, 3 * 10**6)
        start = time.process_time()
        out = {"method": method, "signal": n_signal, "seed": seed, "shift": shift}
        try:
            scorer = fitted.fit(
                skim(sidebands, "data", seed, left=0.25 if method == "transport" else 0.0),
                skim(region, "data", seed, 5 * 10**5),
                **others,
            )
        except CoffeaADError as error:
            return {**out, "refused": str(error), "seconds": time.process_time() - start, **numbers(fitted)}
        out["seconds"] = time.process_time() - start
        score = scorer.scores(test.x)
        merit = lhco.merit(score, test.label)
        out |= merit._asdict() | numbers(fitted) | {"curve": curve(score, test.label)}
        everywhere = shifted(lhco.sample("test"), shift)
        everywhere = everywhere.select(everywhere.label == 0)
        values = scorer.scores(everywhere.x)  # also beside the window: what leaks there is sculpted
        edges = [3.3, 3.35, 3.4, 3.45, 3.5, 3.55, 3.6, 3.65, 3.7]
        out["chi2_flat"] = flatness(values, everywhere.x[:, 0], np.ones(len(values)), edges, 0.05)[2]
        if method not in ("iad", "supervised", "cwola", "salad"):
            template = fitted.template(60_000, 7)
            value, error = closure(skim(background, "background", seed), template, fitted.inputs(template), seed=seed)
            out |= {"closure": value, "closure_error": error}
    return out


def curve(score, label):
    """Return ε_S/√ε_B over `GRID`; NaN where fewer than `lhco.LEAST` background rows pass."""
    passing = signal_efficiency(score[label == 0], score[label == 1], GRID, n_effective_min=lhco.LEAST)
    return [float(v) for v in passing / np.sqrt(GRID)]


def draw(rows, path):
    """Draw ε_S/√ε_B of all methods against ε_B: means, and bands of one standard deviation over seeds."""
    with canvas(path, size=(6.4, 4.8)) as axes:
        ax = axes[0, 0]
        for method in dict.fromkeys(r["method"] for r in rows if "curve" in r):
            several = np.array([r["curve"] for r in rows if r["method"] == method and "curve" in r])
            good = np.isfinite(several).all(axis=0)
            mean, spread = (
                several[:, good].mean(axis=0),
                several[:, good].std(axis=0, ddof=1 if len(several) > 1 else 0),
            )
            (drawn,) = ax.plot(GRID[good], mean, label=f"{method}, {len(several)} seeds")
            ax.fill_between(GRID[good], mean - spread, mean + spread, color=drawn.get_color(), alpha=0.2, lw=0)
        ax.plot(GRID, np.sqrt(GRID), "k:", lw=1, label="no method")
        ax.set_xscale("log")
        ax.set_ylim(0, None)
        ax.set_xlabel(r"$\epsilon_B$")
        ax.set_ylabel(r"$\epsilon_S / \epsilon_B^{1/2}$")
        ax.legend(fontsize=9)


def numbers(fitted):
    return {k: v for k, v in fitted.metrics.items() if isinstance(v, float)}


def trivial(n_signal, seed, shift=0.0):
    """Single inputs as scores, in the better direction."""
    test = shifted(lhco.inner(n_signal, seed).test, shift)
    for i, name in enumerate(lhco.INPUTS, start=1):
        both = [lhco.merit(sign * test.x[:, i], test.label) for sign in (1, -1)]
        best = max(both, key=lambda m: m.auc)
        yield {"method": name, "signal": n_signal, "seed": seed, "shift": shift, **best._asdict()}


def table(rows):
    """Print means and standard deviations over seeds."""
    columns = ("auc", "largest", "at_1e2", "at_1e3", "closure", "closure_auc", "w", "chi2_flat", "seconds")
    print(f"{'method':<22}{'signal':>7}{'shift':>6}{'seeds':>6}" + "".join(f"{c:>17}" for c in columns))
    keys = dict.fromkeys((r["method"], r["signal"], r["shift"]) for r in rows)
    for key in keys:
        several = [r for r in rows if (r["method"], r["signal"], r["shift"]) == key]
        line = f"{key[0]:<22}{key[1]:>7}{key[2]:>6g}{len(several):>6}"
        for c in columns:
            v = np.array([r[c] for r in several if c in r and np.isfinite(r[c])])
            line += f"{f'{v.mean():.3g} ± {v.std(ddof=1) if len(v) > 1 else 0:.2g}' if len(v) else '–':>17}"
        refused = [r["refused"] for r in several if "refused" in r]
        print(line + (f"   refused {len(refused)} of {len(several)}" if refused else ""))
    for r in rows:
        if "refused" in r:
            print(f"  {r['method']} seed {r['seed']}: {r['refused']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--methods", nargs="+", default=["cwola", "anode", "cathode", "lacathode", "r_anode", "transport", "iad"]
    )
    parser.add_argument("--signal", nargs="+", type=int, default=[800])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--shift", type=float, default=0.0)
    parser.add_argument(
        "--good", action="store_true", help="r_anode: true background of the signal region trains p_B as well"
    )
    parser.add_argument("--half", action="store_true", help="one background sample is data, the other true background")
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path, help="PNG of the curves, of the last number of signal events")
    args = parser.parse_args()
    if not lhco.available():
        sys.exit(lhco.MISSING)
    torch.set_num_threads(1)
    settings = Settings.model_validate(args.settings)
    rows = []
    for n in args.signal:
        for seed in range(args.first, args.first + args.seeds):
            if not args.half:
                rows += trivial(n, seed, args.shift)
            for method in args.methods:
                rows.append(run(method, n, seed, settings, shift=args.shift, good=args.good, half=args.half))
                shown = {k: v for k, v in rows[-1].items() if k != "curve"}
                print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in shown.items()}), flush=True)
                if args.json:
                    args.json.write_text(json.dumps(rows))
    table(rows)
    if args.figure:
        draw([r for r in rows if r["signal"] == args.signal[-1]], args.figure)


if __name__ == "__main__":
    main()
