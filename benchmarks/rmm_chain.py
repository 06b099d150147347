"""The search with the rapidity-mass matrix from files to limits: simulation → skim → autoencoder → regions → spectra → bumps and limits.

    python benchmarks/rmm_chain.py --files FOLDER --signal-files SIGNAL.root                    # of rmm_search.py, else simulated
    python benchmarks/rmm_chain.py --files FOLDER --signal-files SIGNAL.root --inject 0
    python benchmarks/rmm_chain.py --files FOLDER --signal-files SIGNAL.root --hidden 0 20 200  # signal among the training events

All steps but the simulation are those of the command line, on dask with two workers. Data are the events of all background files, each once,
and so many generated events of the signal as `--inject` says. Hard events of the files are more frequent than at their cross-sections, so that regions are
those of background efficiencies and limits are numbers of events; the luminosity has no meaning. The other events of the signal are simulation, of
1 pb. Shown are the time of each step, spectra that were searched and left out, the largest excess, and the limits.

`--hidden` tests whether training events may hold a signal: so many signal events are among the training rows, for each of `--seeds` anew; shown is the part of
the other signal events that the regions keep, where each keeps the same part of the background.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import rmm_scores
import torch
import uproot
from dijet_chain import command, some_events
from rmm_search import FEATURE, SELECTIONS, simulated, skimmed, threshold

from coffea_ad import nn
from coffea_ad.features.spec import ColumnSpec, FeatureConfig, FeatureSpec
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim

BACKGROUNDS = ("wjets", "ttbar", "zjets", "single_top", "diboson")
SIGNAL = "tbhplus_2tev"
REGIONS = (0.1, 0.03, 0.01)
WORKERS = ("--executor", "dask", "--workers", 2)


def files_of(args):
    """Return the background files and the signal's, simulated if there are none."""
    folder = args.files or simulated(args.output / "files", 40_000, 1000, lepton_pt_min=40.0)
    files = sorted(f for name in BACKGROUNDS for f in folder.glob(f"{name}_[0-9]*.root"))
    signals = args.signal_files or sorted(folder.glob(f"{SIGNAL}_[0-9]*.root"))
    return files, signals


def fileset(path, **entries):
    """Write {dataset: (files, metadata)} as a fileset."""
    content = {
        name: {
            "files": {str(f.resolve()): "Events" for f in files},
            "metadata": {"sqrt_s": 13000.0, "campaign": "simulation"} | meta,
        }
        for name, (files, meta) in entries.items()
    }
    path.write_text(json.dumps(content))
    return path


def timed(step, *words):
    """Run a verb of the command line, and say how long it took."""
    seconds = command(*words)
    print(f"{step:12s} {seconds:6.0f} s", flush=True)
    return seconds


def chain(args, files, signals):
    """Run all steps, and return the content of the search and the times."""
    out = args.output
    with uproot.open(signals[0]) as file:
        n = file["Events"].num_entries
    places = np.random.default_rng(args.seeds[0]).permutation(n)
    some_events(signals[0], out / "others.root", np.sort(places[args.inject :]))
    if args.inject:
        some_events(signals[0], out / "injected.root", np.sort(places[: args.inject]))
        files = [*files, out / "injected.root"]
    data = fileset(out / "data.json", data=(files, {"is_mc": False}))
    everything = fileset(
        out / "all.json",
        data=(files, {"is_mc": False}),
        signal=([out / "others.root"], {"is_mc": True, "is_signal": True, "xsec": 1.0}),
    )
    t = {}
    t["skim"] = timed(
        "skim",
        "run",
        "skim_events",
        "--fileset",
        data,
        f"training_fraction={args.fraction}",
        *WORKERS,
        "-o",
        out / "skims",
    )
    t["train"] = timed(
        "train", "run", "autoencoder", "--config", "autoencoder/rmm.yaml", f"data={out / 'skims'}", f"train.epochs={args.epochs}",
        "train.samples_per_epoch=20000", "train.validation_rows=1000", f"train.seed={args.seeds[0]}", "-o", out / "rmm.onnx",
    )  # fmt: skip
    t["regions"] = timed(
        "regions",
        "regions",
        out / "rmm.onnx",
        "--from",
        out / "skims",
        "--efficiency",
        *REGIONS,
        "-o",
        out / "rmm-r.onnx",
    )
    t["spectra"] = timed(
        "spectra", "run", "rmm_two_body", "--fileset", everything, "--model", out / "rmm-r.onnx", "--lumi", 1, "--unblind", *WORKERS,
        "--no-figures", "mass_bins=75", "-o", out / "results",
    )  # fmt: skip
    t["search"] = timed(
        "search",
        "search",
        out / "results",
        "-o",
        out / "search",
        f"toys={args.toys}",
        "limits.places=4",
        f"seed={args.seeds[0]}",
        "--workers",
        2,
    )
    print(f"{'in all':12s} {sum(t.values()):6.0f} s")
    return json.loads((out / "search" / "search.json").read_text()), t


def shown(content):
    """Print what was searched, what was left out and why, the largest excess, and limits."""
    regions = sorted({s["region"] for s in content["spectra"].values()})
    print(f"\n{len(content['spectra'])} spectra searched, in {', '.join(regions)}; {len(content['skipped'])} left out")
    for what in content["skipped"].values():
        print("  ", what)
    print(content["verdict"])
    signal = [row for row in content["limits"] if row["signal"]]
    said = [row["said"] for row in content["limits"] if row["said"]]
    print(f"\n{len(content['limits'])} limits, {len(signal)} on the simulated signal; {len(said)} could not be set")
    for what in said[:5]:
        print("  ", what)
    print("limits on the signal, in events of it before any cut but its own spectrum, and as a multiple of 1 pb")
    for row in sorted((r for r in signal if r["expected"]), key=lambda r: r["strength"]["expected"][2])[:10]:
        print(
            f"  {row['spectrum']:22s} {row['method']:10s} events {row['events']:7.0f}, expected {row['background']:8.1f} ± {row['error']:.1f}; "
            f"limit {row['observed']:6.1f} events (expected {row['expected'][2]:.1f}); strength {row['strength']['observed']:.4g} "
            f"({row['strength']['expected'][2]:.4g})"
        )


def hidden(args, files, signals):
    """Train with signal events among the training rows, and print what the regions keep of the others."""
    background, _, _ = skimmed(_links(args.output / "background", files), args.output, list(SELECTIONS["lepton"][0]))
    other, _, _ = skimmed(_links(args.output / "signals", signals), args.output, list(SELECTIONS["lepton"][0]))
    rows, signal = (load_skim(folder, FeatureConfig(**FEATURE)).x for folder in (background, other))
    kept = ~np.isin(rmm_scores.CELLS, rmm_scores.LEADING)
    names = [c for c, k in zip(rmm_scores.CELLS, kept, strict=True) if k]
    n_train = int(args.fraction * len(rows))
    print(f"{len(rows)} background rows, {n_train} of them to train; {len(signal)} signal rows")
    values = {k: [] for k in args.hidden}
    for seed in args.seeds:
        rng = np.random.default_rng(seed)
        order, of_signal = rng.permutation(len(rows)), rng.permutation(len(signal))
        train, test = order[:n_train], order[n_train:]
        rest = signal[of_signal[max(args.hidden) :]][:, kept]  # the same for all numbers
        for k in args.hidden:
            x = np.concatenate([rows[train], signal[of_signal[:k]]])[:, kept]
            values[k].append(_accepted(x, names, seed, args, rows[test][:, kept], rest))
            told = ", ".join(f"{a:.3f} at {e:g}" for a, e in zip(values[k][-1], REGIONS, strict=True))
            print(f"  seed {seed}, {k} hidden: {told}", flush=True)
    print(f"\nacceptance of {len(signal) - max(args.hidden)} signal events, mean ± standard deviation over seeds")
    for k, of_seeds in values.items():
        v = np.array(of_seeds)
        each = ", ".join(
            f"{m:.3f} ± {s:.3f} at {e:g}"
            for m, s, e in zip(v.mean(axis=0), v.std(axis=0, ddof=1), REGIONS, strict=True)
        )
        print(f"{k:5d} hidden ({k / (n_train + k):.2%}): {each}")


def _links(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file.resolve())
    return folder


def _accepted(x, names, seed, args, background, signal):
    """Train on rows that count once each, and return the part of the signal that passes at each efficiency."""
    rng, n = np.random.default_rng([seed, 3]), len(x)
    split = np.where(rng.permutation(n) < 0.15 * n, "validation", "train")
    spec = FeatureSpec(name="rmm_inputs", version=1, columns=tuple(ColumnSpec(name=c) for c in names))
    skim = Skim(x, np.ones(n), np.full(n, "data"), split, {}, (spec,), {})
    torch.manual_seed(seed)
    network = nn.AE.rmm(nn.Unchanged(x.shape[1]))
    config = nn.TrainConfig(epochs=args.epochs, seed=seed, schedule="cosine", samples_per_epoch=20_000)
    with tempfile.TemporaryDirectory() as folder:
        nn.fit(network, skim, config, folder)
    of_background, of_signal = network.scores(background), network.scores(signal)
    return [float((of_signal >= threshold(of_background, np.ones(len(background)), e)).mean()) for e in REGIONS]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=None, help="folder; a temporary one by default")
    parser.add_argument("--files", type=Path, help="folder of background files DATASET_0.root, …")
    parser.add_argument("--signal-files", type=Path, nargs="+", help="of one signal")
    parser.add_argument("--inject", type=int, default=300, help="generated events of the signal among the data")
    parser.add_argument("--fraction", type=float, default=0.1, help="of all events that train")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--toys", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--hidden", type=int, nargs="+", help="signal events among the training rows")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        args.output = args.output or Path(folder)
        args.output.mkdir(parents=True, exist_ok=True)
        files, signals = files_of(args)
        print(f"{len(files)} background files; signal: {', '.join(s.name for s in signals)}")
        start = time.perf_counter()
        if args.hidden:
            hidden(args, files, signals)
        else:
            shown(chain(args, files, signals)[0])
        print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
