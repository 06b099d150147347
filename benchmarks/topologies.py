"""Four inputs or the kitchen sink: bagged trees of data against pure background, for signals of several topologies.

    python benchmarks/topologies.py --files FOLDER      # qcd_*.root and one file for each topology, else they are simulated
    python benchmarks/topologies.py --files FOLDER --signals 250 1000 --topologies two_two semivisible --seeds 5

All is simulated and reconstructed by the project: dijets of QCD with p̂T above 850 GeV, and resonances to jets of 2 + 2, 3 + 3 and 3 + 1
prongs and to semivisible jets. Of the QCD events with 1.9 < m_JJ < 3.2 TeV 36 % and N_sig signal events are the data, 36 % others the
template, the rest and the other signal events test. m_JJ is no input. Seeds choose the events, the halves and the trees; errors are
standard deviations over seeds. The trivial scores beside it are the best single one of the four inputs and the two jets' multiplicities,
chosen with the truth. A working point counts where 25 background events pass.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lhco
import numpy as np

from coffea_ad import nn
from coffea_ad.features.spec import ColumnSpec, FeatureSpec
from coffea_ad.skims.skim import Skim

MASS = (1900.0, 3200.0)
PART = 0.36
TOPOLOGIES = {
    "two_two": ("lhco_wprime", 5000, {"m_res": 2400.0, "m_x": 400.0, "m_y": 80.0}),
    "three_three": ("lhco_3prong", 5000, {"m_res": 2400.0, "m_x": 400.0, "m_y": 200.0}),
    "one_three": ("lhco_3prong", 5000, {"m_res": 2400.0, "m_x": 400.0, "m_y": 12.0}),
    "semivisible": ("svj", 15_000, {"m_zprime": 3000.0}),
}
QCD = {"pthat_min": 850.0, "bias_power": 0.0}
INPUTS = {"four": ("baseline", 0, 1.0), "kitchen sink": ("kitchen_sink", 0, 0.5)}
INPUTS |= {f"{name}, 10 noise": (inputs, 10, share) for name, (inputs, _, share) in INPUTS.items()}


def simulated(folder, topologies):
    """Make what is missing: 90 000 QCD events, about 20 minutes of one core, and 5000 of each signal, a minute each.

    Of semivisible jets fewer pass, and more are made.
    """
    from coffea_ad.simulation import simulate

    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("qcd_*.root")):
        for i in range(1, 10):
            simulate("lhco_qcd", 10_000, folder / f"qcd_{i}.root", seed=30 + i, parameters=QCD)
    for i, name in enumerate(TOPOLOGIES):
        if name in topologies and not (folder / f"{name}.root").exists():
            process, n, parameters = TOPOLOGIES[name]
            simulate(process, n, folder / f"{name}.root", seed=5 + i, parameters=parameters)
    return folder


def computed(path):
    """Return {inputs: (events, columns)} of the dijets of a file, in the mass window; they are kept beside it."""
    from coffea.nanoevents import NanoEventsFactory

    import coffea_ad as ad

    stored = path.with_suffix(".npz")
    if not stored.exists():
        events = NanoEventsFactory.from_root(f"{path}:Events", schemaclass=ad.NanoAODSchema).events()
        values = {
            i: ad.features.compute("dijet", events, inputs=i, delta_eta_max=1.3)[0]
            for i in ("baseline", "kitchen_sink")
        }
        good = np.all([np.isfinite(x).all(axis=1) for x in values.values()], axis=0)
        mass = values["baseline"][:, 0]
        good &= (mass > MASS[0]) & (mass < MASS[1])
        np.savez(stored, **{i: x[good] for i, x in values.items()})
    with np.load(stored) as file:
        return {i: file[i] for i in file}


def names(inputs):
    from coffea_ad.features.spec import feature_spec

    return [c.name for c in feature_spec("dijet", {"inputs": inputs}).columns]


def skim(x, label, columns, seed):
    n = len(x)
    spec = FeatureSpec(name="dijets", version=1, columns=tuple(ColumnSpec(name=c) for c in columns))
    ids = {"run": np.ones(n, np.uint32), "luminosityBlock": np.ones(n, np.uint32), "event": np.arange(n)}
    split = np.random.default_rng([seed, 5]).choice(["train", "validation"], n, p=[0.75, 0.25])
    provenance = {"files": {}, "rows": {"all": n}, "flavours": [], "selection": {}, "n_effective": float(n)}
    return Skim(x, np.ones(n), np.full(n, "all"), split, ids, (spec,), provenance).labelled(label)


def measure(qcd, signal, which, n_signal, seed):
    """Train once, and return the figures of merit."""
    inputs, noise, share = INPUTS[which]
    rng = np.random.default_rng([seed, n_signal])
    parts = np.split(
        rng.permutation(len(qcd[inputs])), [int(PART * len(qcd[inputs])), int(2 * PART * len(qcd[inputs]))]
    )
    chosen = rng.permutation(len(signal[inputs]))
    x = {"data": [qcd[inputs][parts[0]], signal[inputs][chosen[:n_signal]]], "template": [qcd[inputs][parts[1]]]}
    test = np.concatenate([qcd[inputs][parts[2]], signal[inputs][chosen[n_signal:]]])
    truth = np.arange(len(test)) >= len(parts[2])
    both = np.concatenate([*x["data"], *x["template"]])
    label = np.arange(len(both)) < len(both) - len(parts[1])
    extra = np.random.default_rng([seed, 99])
    both, test = (
        np.concatenate([a, extra.normal(size=(len(a), noise))], axis=1).astype(np.float32) for a in (both, test)
    )
    columns = [*names(inputs), *(f"noise{i}" for i in range(noise))]
    start = time.process_time()
    model = nn.BaggedTrees.of(skim(both, label, columns, seed), inputs=columns[1:], seed=seed, attributes=share)
    seconds = time.process_time() - start
    return {**lhco.merit(model.scores(test), truth.astype(int))._asdict(), "cpu": seconds}


def trivial(qcd, signal):
    """Return the best single input by its largest SIC, and its figures of merit."""
    found = {}
    for inputs, chosen in (
        ("baseline", names("baseline")[1:]),
        ("kitchen_sink", ["multiplicity_j1", "multiplicity_j2"]),
    ):
        for name in chosen:
            place = names(inputs).index(name)
            x = np.concatenate([qcd[inputs][:, place], signal[inputs][:, place]])
            truth = (np.arange(len(x)) >= len(qcd[inputs])).astype(int)
            for sign in (1, -1):
                found[name, sign] = lhco.merit(sign * x, truth)
    best = max(found, key=lambda k: np.nan_to_num(found[k].largest))
    return f"{best[0]} {'high' if best[1] > 0 else 'low'}", found[best]


def line(words, rows):
    for key in ("at_1e2", "largest", "auc", "cpu"):
        values = np.array([row[key] for row in rows if key in row])
        if len(values):
            words.append(f"{np.nanmean(values):7.3f} ± {np.nanstd(values, ddof=1) if len(values) > 1 else 0:5.3f}")
    return "  ".join(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--topologies", nargs="+", default=list(TOPOLOGIES), choices=list(TOPOLOGIES))
    parser.add_argument("--signals", nargs="+", type=int, default=[250, 500, 750, 1000])
    parser.add_argument("--inputs", nargs="+", default=list(INPUTS), choices=list(INPUTS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="JSON of all trainings")
    args = parser.parse_args()
    simulated(args.files, args.topologies)
    each = [computed(path) for path in sorted(args.files.glob("qcd_*.root"))]
    if not each:
        sys.exit(f"{args.files}: no qcd_*.root")
    qcd = {i: np.concatenate([e[i] for e in each]) for i in each[0]}
    print(f"{len(qcd['baseline'])} QCD events; {'topology':12s} N_sig  SIC at 0.01, largest SIC, AUC, CPU s")
    every = []
    for topology in args.topologies:
        signal = computed(args.files / f"{topology}.root")
        name, figures = trivial(qcd, signal)
        print(
            line([f"{topology:12s}", f"{len(signal['baseline']):5d}", f"{name:24s}"], [figures._asdict()]), flush=True
        )
        for n_signal in args.signals:
            if 2 * n_signal > len(signal["baseline"]):
                print(
                    f"{topology:12s}  {n_signal:5d}  left out: fewer than half of {len(signal['baseline'])} events must be in the data"
                )
                continue
            for which in args.inputs:
                rows = [measure(qcd, signal, which, n_signal, seed) for seed in range(1, args.seeds + 1)]
                every += [
                    {"topology": topology, "signal": n_signal, "inputs": which, "seed": i, **row}
                    for i, row in enumerate(rows, start=1)
                ]
                print(line([f"{topology:12s}", f"{n_signal:5d}", f"{which:24s}"], rows), flush=True)
                if args.output:
                    args.output.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
