"""What a score of the rapidity-mass matrix is worth: signals that pass at equal background, against cuts without a model.

    python benchmarks/rmm_search.py -o FOLDER                                # simulates 100 000 background events, 20 minutes of one core
    python benchmarks/rmm_search.py -o FOLDER --events 4000 --signal-events 200 --epochs 2 --seeds 1
    python benchmarks/rmm_search.py -o FOLDER --files NTUPLES --models AE "Deep SVDD" "flow, dense"
    python benchmarks/rmm_search.py -o FOLDER --events 600000 --lepton-pt-min 40 --split 70 15 15      # filtered: 40 instead of 15 % are selected
    python benchmarks/rmm_search.py -o FOLDER --models AE --limits AE "cut: H_T" --figure score.png

Backgrounds and signals of `coffea-ad simulate` → `skim_events` with the rapidity-mass matrix: a lepton above 60 GeV and a jet, as in
the search, or with `--selection met` missing momentum above 200 GeV and a jet. Backgrounds stand at their cross-sections; one of which
fewer than 20 events are selected is left out, and a signal of fewer than 50. A seed divides the background anew, 40 % to train, 30 % to
choose epochs and rank, 30 % to set thresholds, or as `--split` says, and starts the networks; printed are means and standard deviations over seeds. Errors by
events are in the JSON, by 50 bootstraps of both sides. Files, skims and trainings are made once: what is there is used again, for the
same files, rows and settings.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import inspect
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import rmm_limits
import rmm_scores
import torch
import uproot

from coffea_ad.errors import SkimError
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.nanoaod.reading import simulation_record
from coffea_ad.running import run
from coffea_ad.skims.reading import load_skim

STEP = 2500  # events a file
BACKGROUNDS = {  # process, parameters, part of all generated events
    "wjets": ("wjets", {"pthat_min": 50.0, "bias_power": 2.0}, 0.40),
    "ttbar": ("ttbar", {"pthat_min": 20.0, "bias_power": 1.0}, 0.25),
    "zjets": ("zjets", {"pthat_min": 50.0, "bias_power": 2.0}, 0.125),
    "single_top": ("single_top", {"pthat_min": 20.0, "bias_power": 1.0}, 0.05),
    "diboson": ("diboson", {"pthat_min": 20.0, "bias_power": 1.0}, 0.075),
    "gammajets": ("gammajets", {"pthat_min": 100.0, "bias_power": 2.0}, 0.05),
    "qcd": ("qcd", {"pthat_min": 170.0, "bias_power": 3.0}, 0.05),
}
FILTERED = {"wjets": 0.58, "ttbar": 0.22, "zjets": 0.12, "single_top": 0.03, "diboson": 0.05}
"""The same with a filter of hard leptons, which processes without W, Z or top do not have: part of all generated events."""
SIGNALS = {
    f"{name}_{m}tev": more
    for name, more in (("tbhplus", 1), ("wkk", 1), ("zprime", 2), ("ssm_zprime", 2))
    for m in (1, 2, 4)
}
SIGNALS |= dict.fromkeys(
    ("gluino_top_1tev", "gluino_top_2tev", "gluino_2tev", "dm_zprime_2tev", "gluino_1tev", "dm_monojet_1tev"), 1
)
"""Times the number of events that is asked for, as few decay to leptons."""
SELECTIONS = {"lepton": ((), ()), "met": (("leading_lepton_pt_min=0",), (("met", ">", 200),))}
"""Overrides of `skim_events`, and cuts on its rows: a lepton and a jet as in the search, or missing momentum and a jet."""
EFFICIENCIES = (1e-2, 1e-3)
REFERENCES = ("H_T", "S_T", "MET")
FEATURE = {"name": "rmm", "options": {"drop_masses": False}}
PARTS, SPLIT = ("train", "validation", "test"), (40, 30, 30)
SHOWN = ("tbhplus", "zprime")
"""Signals in the figure of a score."""


def plan(events, signal_events, lepton_pt_min=0.0):
    """Return {file name: (process, parameters, seed, events)}, in rounds: a part of the files is a smaller set of all datasets."""
    asked = {
        name: (process, parameters, int(part * events)) for name, (process, parameters, part) in BACKGROUNDS.items()
    }
    if lepton_pt_min > 0:
        asked = {
            name: (asked[name][0], {**asked[name][1], "lepton_pt_min": lepton_pt_min}, int(part * events))
            for name, part in FILTERED.items()
        }
    asked |= {name: (name, {}, more * signal_events) for name, more in SIGNALS.items()}
    files = []
    for i, (name, (process, parameters, n)) in enumerate(asked.items()):
        sizes = [min(STEP, n - start) for start in range(0, n, STEP)]
        files += [
            (
                (k + 1) / len(sizes) * (1.0 if name in BACKGROUNDS else 0.5),
                f"{name}_{k}.root",
                (process, parameters, (1000 if lepton_pt_min == 0 else 100_000) * (i + 1) + k, max(size, 50)),
            )
            for k, size in enumerate(sizes)
        ]
    return {name: what for _, name, what in sorted(files, key=lambda f: f[0])}


def simulated(folder, events, signal_events, lepton_pt_min=0.0):
    """Make what is missing, with one process: 11 ms an event."""
    from coffea_ad.simulation import simulate

    folder.mkdir(parents=True, exist_ok=True)
    for name, (process, parameters, seed, n) in plan(events, signal_events, lepton_pt_min).items():
        if not (folder / name).exists():
            simulate(process, n, folder / name, seed=seed, parameters=parameters, workers=1)
    return folder


def skimmed(files, folder, overrides):
    """Skim all files of a folder, once, and return the folder of the skim and the names of backgrounds and signals."""
    fileset, xsecs, signals = {}, {}, set()
    for path in sorted(files.glob("*.root")):
        with uproot.open(path) as file:
            record = simulation_record(file)
        dataset = path.stem.rsplit("_", 1)[0]
        fileset.setdefault(dataset, {"files": {}, "metadata": {"is_mc": True, "campaign": "simulation"}})
        fileset[dataset]["files"][str(path.resolve())] = "Events"
        xsecs.setdefault(dataset, []).append(1.0 if record["signal"] else record["cross_section"])
        signals |= {dataset} if record["signal"] else set()
    if not fileset:
        raise SystemExit(f"{files}: no ROOT file of `coffea-ad simulate`")
    for dataset, entry in fileset.items():
        entry["metadata"] |= {"xsec": float(np.mean(xsecs[dataset])), "is_signal": dataset in signals}
    key = hashlib.sha256(json.dumps([fileset, overrides], sort_keys=True).encode()).hexdigest()[:12]
    out = folder / "skims" / key
    if not (out / "manifest.json").exists():
        overrides = [f"features={json.dumps([FEATURE])}", *overrides]
        run(
            fileset,
            "skim_events",
            overrides=overrides,
            executor="iterative",
            chunksize=5000,
            output=out,
            progress=False,
        )
    return out, [d for d in fileset if d not in signals], sorted(signals)


def read(skims, names, filters, least):
    """Return the datasets of which enough rows are there, and how many are selected of each."""
    rows = json.loads((skims / "manifest.json").read_text())
    everything = {}
    for name in names:
        try:
            everything[name] = load_skim(skims, FeatureConfig(**FEATURE), datasets=[name], filters=filters)
        except SkimError as error:  # a dataset without a selected row
            print(f"{name}: {error}")
    selected = {name: len(everything[name].x) if name in everything else 0 for name in names}
    return {k: v for k, v in everything.items() if selected[k] >= least}, selected, rows


def threshold(score, weight, efficiency):
    """Return the score that this part of the background reaches."""
    order = np.argsort(-score, kind="stable")
    part = np.cumsum(weight[order]) / weight.sum()
    return score[order][min(np.searchsorted(part, efficiency), len(order) - 1)]


def accepted(scores, weight, test, seed):
    """Return {signal: [[acceptance, error by events] at each efficiency]}."""
    b, w = scores["background"][test], weight[test]
    rng = np.random.default_rng([seed, 17])
    drawn = [rng.integers(0, len(b), len(b)) for _ in range(50)]
    cuts = {e: (threshold(b, w, e), [threshold(b[i], w[i], e) for i in drawn]) for e in EFFICIENCIES}
    out = {}
    for name, s in scores.items():
        if name != "background":
            values = {}
            for e, (cut, others) in cuts.items():
                replicas = [(rng.choice(s, len(s)) >= c).mean() for c in others]
                values[f"{e:g}"] = [float((s >= cut).mean()), float(np.std(replicas))]
            out[name] = values
    return out


def scored(background, signals, filters, args, seed):
    """Train everything with one seed, and return {score: {dataset: values}}, the rows, and which of them set thresholds."""
    rng = np.random.default_rng([seed, 3])
    parts = np.array(args.split) / sum(args.split)
    data = dataclasses.replace(background, split=rng.choice(PARTS, len(background.x), p=parts))
    test, calibrating = data.split == "test", data.split == "validation"
    x = {"background": data.x} | {name: s.x for name, s in signals.items()}
    spectators = {"background": data.spectators} | {name: s.spectators for name, s in signals.items()}
    cuts = {name: rmm_scores.trivial(x[name], spectators[name]) for name in x}
    scores = {f"cut: {c}": {name: cuts[name][c] for name in x} for c in cuts["background"]}
    occupied = np.average(data.x != 0, axis=0, weights=data.event_weight) > 0.05
    needed = {rmm_scores.MODELS[m][0] for m in args.models}
    rows_of = {
        kind: {name: rmm_scores.inputs(x[name], kind, occupied, args.selection == "lepton") for name in x}
        for kind in needed
    }
    for model in args.models:
        kind, build = rmm_scores.MODELS[model]
        what = (
            args.skims.name,
            filters,
            seed,
            args.epochs,
            sorted(signals),
            rows_of[kind]["background"][1],
            inspect.getsource(build),
            *([] if tuple(args.split) == SPLIT else [args.split]),
        )
        key = hashlib.sha256(repr(what).encode() + rows_of[kind]["background"][0].tobytes()).hexdigest()[:12]
        folder = args.output / "trainings" / key
        stored = folder / "scores.npz"
        if not stored.exists():
            each, seconds = rmm_scores.trained(model, data, rows_of, seed, args.epochs, folder)
            np.savez(stored, **each)
            print(f"  {model}, seed {seed}: {seconds:.0f} s of CPU", flush=True)
        with np.load(stored) as file:
            scores[model] = {name: file[name] for name in x}
    if {"flow, dense", "Deep SVDD"} <= set(args.models):
        scores["flow, dense + Deep SVDD"] = rmm_scores.mean_rank(
            scores["flow, dense"], scores["Deep SVDD"], data, calibrating
        )
    single = [n for n in scores if n not in ("cut: H_T", "cut: S_T")]
    for name in single:
        scores[f"S_T or {name}"] = rmm_scores.either(scores["cut: S_T"], scores[name], data, calibrating)
    for cut in ("H_T", "S_T"):
        for name in single:
            given, product = rmm_scores.combinations(scores[name], scores[f"cut: {cut}"], data, calibrating)
            scores |= {f"{name} | {cut}": given, f"{cut} × ({name} | {cut})": product}
    return scores, data, test


def compared(values, reference):
    """Return at how many signals a score accepts more than a cut, and less, by two standard deviations of events and seeds."""
    difference = values[:, :, 0] - reference[:, :, 0]
    seeds = difference.std(axis=0, ddof=1) if len(values) > 1 else 0.0
    z = difference.mean(axis=0) / np.sqrt(values[:, :, 1].mean(axis=0) ** 2 + seeds**2 + 1e-12)
    return f"{(z > 2).sum():2d}/{(z < -2).sum():<2d}"


def table(every, signals, efficiency):
    """Print acceptances, best mean first."""
    key = f"{efficiency:g}"
    values = {n: np.array([[rows[s][key] for s in signals] for rows in seeds]) for n, seeds in every.items()}
    print(
        f"\nacceptance at ε_B = {efficiency:g}, mean ± standard deviation over seeds; wins/losses against cuts, beyond 2σ"
    )
    print(
        f"{'':44s}{'mean':>14s}  "
        + "  ".join(f"{c:>5s}" for c in REFERENCES)
        + " "
        + " ".join(f"{s:>15s}" for s in signals)
    )
    lines = []
    for name, v in values.items():
        if "|" in name and "×" not in name:  # in the JSON only: alone they are no cut
            continue
        spread = v[:, :, 0].std(axis=0, ddof=1) if len(v) > 1 else np.zeros(len(signals))
        means = v[:, :, 0].mean(axis=1)
        whole = f"{means.mean():6.3f} ± {means.std(ddof=1) if len(v) > 1 else 0:5.3f}"
        cells = " ".join(f"{m:7.3f} ± {e:5.3f}" for m, e in zip(v[:, :, 0].mean(axis=0), spread, strict=True))
        wins = "  ".join(compared(v, values[f"cut: {c}"]) for c in REFERENCES)
        lines.append((means.mean(), f"{name:44s}{whole}  {wins}  {cells}"))
    for _, line in sorted(lines, key=lambda pair: -pair[0]):
        print(line)


def figure(model, scores, data, test, path):
    """Draw a score with the cuts of its regions, and signals over it."""
    from coffea_ad import plotting

    weight = data.event_weight[test]
    cuts = {
        f"{pb:g} pb": threshold(scores["background"][test], weight, pb / weight.sum() * test.mean())
        for pb in rmm_limits.VISIBLE
    }
    lines, styles = {}, {}
    for name, line in zip(SHOWN, ("-", "--"), strict=True):
        for tev, color in ((1, "tab:blue"), (2, "tab:orange"), (4, "tab:green")):
            if f"{name}_{tev}tev" in scores:
                label = f"{name}, {tev} TeV"
                lines[label], styles[label] = scores[f"{name}_{tev}tev"], (color, line)
    xlabel = "ln MAE" if model == "AE" else model
    plotting.score_distribution((scores["background"][test], weight), lines, cuts, path, xlabel=xlabel, styles=styles)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--files", type=Path, help="folder of ROOT files DATASET_0.root, …; simulated by default")
    parser.add_argument("--events", type=int, default=100_000, help="generated background events")
    parser.add_argument("--signal-events", type=int, default=1000, help="generated events of a signal")
    parser.add_argument("--models", nargs="+", default=list(rmm_scores.MODELS), choices=list(rmm_scores.MODELS))
    parser.add_argument("--selection", choices=list(SELECTIONS), default="lepton")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", type=float, nargs=3, default=SPLIT, metavar="PART", help="train, validation, test")
    parser.add_argument("--lepton-pt-min", type=float, default=0.0, help="GeV, filter of simulated backgrounds")
    parser.add_argument(
        "--limits", nargs="+", metavar="SCORE", help="expected limits in regions of these, such as AE or 'cut: H_T'"
    )
    parser.add_argument("--figure", type=Path, help="of the score of the first model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    overrides, filters = SELECTIONS[args.selection]
    files = args.files or simulated(args.output / "files", args.events, args.signal_events, args.lepton_pt_min)
    args.skims, backgrounds, signals = skimmed(files, args.output, list(overrides))
    rows, selected, manifest = read(args.skims, backgrounds, filters, 20)
    for name in backgrounds:
        w = rows[name].event_weight.sum() if name in rows else 0.0
        print(f"{name:12s} {selected[name]:6d} selected, {w:8.3g} pb{'' if name in rows else ', left out'}")
    background = load_skim(args.skims, FeatureConfig(**FEATURE), datasets=list(rows), filters=filters)
    signal, chosen, _ = read(args.skims, signals, filters, 50)
    print("signals:", ", ".join(f"{n} {chosen[n]}{'' if n in signal else ' (left out)'}" for n in signals))
    every = {}
    limits = []
    for seed in range(1, args.seeds + 1):
        scores, data, test = scored(background, signal, filters, args, seed)
        for name, of in scores.items():
            every.setdefault(name, []).append(accepted(of, data.event_weight, test, seed))
        if args.limits:
            limits.append(rmm_limits.of_regions(scores, data.split != "train", data, signal, args.limits, threshold))
        if args.figure and seed == 1:
            figure(args.models[0], scores[args.models[0]], data, data.split != "train", args.figure)
        result = {
            "selected": selected | chosen, "weight_pb": {n: float(r.event_weight.sum()) for n, r in rows.items()},
            "settings": {"epochs": args.epochs, "seeds": seed, "split": args.split, "files": sorted(manifest)}, "acceptance": every,
            "limits": limits,
        }  # fmt: skip
        (args.output / f"rmm_search_{args.selection}.json").write_text(json.dumps(result, indent=1))
    for efficiency in EFFICIENCIES:
        table(every, list(signal), efficiency)
    if limits:
        rmm_limits.table(limits, list(signal))


if __name__ == "__main__":
    main()
