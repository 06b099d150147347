"""Classifiers of data against a template on LHC Olympics features: SIC at fixed ε_B, the largest SIC, and CPU seconds.

    python benchmarks/classifiers.py --seeds 5 --signals 0 250 400 1000

Data is 59 605 background rows and some signal, the template 59 631 other background rows; 40 000 background and 47 264 signal rows
test. Seeds change the signal rows, the halves and the start of a training. A working point counts where 25 background rows pass.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

import lhco
import numpy as np

from coffea_ad import nn


def bagged(train, seed, inputs, **options):
    return nn.BaggedTrees.of(train, inputs=inputs, seed=seed, **options)


def network(train, seed, inputs, epochs=20):
    """64-64-64, batches of 256, the ten best of 20 epochs of 60 000 rows."""
    import torch

    torch.manual_seed(seed)
    columns = [train.columns.index(name) for name in inputs]
    transform = nn.Selected(columns, of=len(train.columns), then=nn.Standard(len(columns)))
    model = nn.MLP(len(columns), transform=transform)
    config = nn.TrainConfig(
        epochs=epochs, batch_size=256, samples_per_epoch=60_000, validation_rows=30_000, keep=10, seed=seed
    )
    return nn.Ensemble.of_epochs(model, nn.fit(model, train, config), "probability")


METHODS = {
    "lightgbm": (bagged, 0),
    "lightgbm, 50 members": (partial(bagged, members=50), 0),
    "sklearn": (partial(bagged, library="sklearn"), 0),
    "mlp": (network, 0),
    "lightgbm, 10 noise columns": (bagged, 10),
    "lightgbm, 10 noise columns, attributes 0.5": (partial(bagged, attributes=0.5), 10),
    "sklearn, 10 noise columns": (partial(bagged, library="sklearn"), 10),
    "mlp, 10 noise columns": (network, 10),
}


def measure(method, n_signal, seed):
    """Train once; return the figures of merit and the CPU seconds of training."""
    make, noise = METHODS[method]
    split = lhco.iad(n_signal, seed, noise=noise)
    train = lhco.labelled(split.data, split.template, seed=seed)
    inputs = [name for name in train.columns if name != "mjj"]
    begin = time.process_time()
    model = make(train, seed, inputs)
    cpu = time.process_time() - begin
    return {**lhco.merit(model.scores(split.test.x), split.test.label)._asdict(), "cpu": cpu}


def line(method, n_signal, rows):
    words = [f"{method:44s}", f"{n_signal:5d}"]
    for key in ("at_1e2", "at_1e3", "largest", "auc", "cpu"):
        values = np.array([row[key] for row in rows])
        spread = values.std(ddof=1) if len(values) > 1 else np.nan
        words.append(f"{values.mean():7.3f} ± {spread:5.3f}")
    return "  ".join(words)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--signals", type=int, nargs="+", default=[0, 250, 400, 1000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("-o", "--output", type=Path, help="JSON of all trainings")
    arguments = parser.parse_args()
    if not lhco.available():
        print(lhco.MISSING)
        return
    print(
        f"{'mean ± sd over seeds':44s}  N_sig  SIC at 0.01      SIC at 0.001     largest SIC      AUC              CPU s"
    )
    every = []
    for method in arguments.methods:
        for n_signal in arguments.signals:
            rows = [measure(method, n_signal, seed) for seed in range(1, arguments.seeds + 1)]
            every += [{"method": method, "n_signal": n_signal, "seed": i + 1, **row} for i, row in enumerate(rows)]
            print(line(method, n_signal, rows), flush=True)
    if arguments.output:
        arguments.output.write_text(json.dumps(every, indent=1))


if __name__ == "__main__":
    main()
