"""Train the autoencoder of full size, 1287-800-400-200-400-800-1287, on 100k simulated events; time and memory.

.venv/bin/python benchmarks/samples.py
.venv/bin/python benchmarks/rmm_autoencoder.py [--rows auto | dense | disk] [--epochs 12]

The backgrounds of `build/physics/{train,dev}.json`, all-hadronic events too, become a skim of events with a jet, once. If
there are fewer than 100k, rows are drawn again until there are so many: the printed numbers say so. Half of them train, as
in every training of this package, and each epoch draws 100k rows from that half.
"""

from __future__ import annotations

import argparse
import json
import resource
import threading
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from coffea_ad import nn
from coffea_ad.running import run
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim

ROWS = 100_000
BACKGROUNDS = ("qcd", "ttbar")


def skims(folder: Path) -> None:
    """Skim the events of the backgrounds of two sets, and of the signals of the one for designing."""
    sets = [json.loads((folder / f"{name}.json").read_text()) for name in ("train", "dev")]
    backgrounds = {
        d: {**sets[0][d], "files": {p: t for entries in sets for p, t in entries[d]["files"].items()}} for d in BACKGROUNDS
    }  # fmt: skip
    signals = {d: entry for d, entry in sets[1].items() if d not in BACKGROUNDS}
    for name, fileset in (("rmm_backgrounds", backgrounds), ("rmm_signals", signals)):
        out = folder / "skims" / name
        if not (out / "manifest.json").exists():
            overrides = ["leading_lepton_pt_min=0"]
            run(fileset, "skim_events", overrides=overrides, executor="futures", workers=2, chunksize=5000, output=out)


class Memory:
    """Resident memory of this process, sampled: what mapped files take of it is told apart, since it can be taken back."""

    def __init__(self) -> None:
        self.own = self.mapped = 0
        self.running = True
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while self.running:
            fields = dict(
                line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if "Rss" in line
            )
            self.own = max(self.own, int(fields["RssAnon"].split()[0]))
            self.mapped = max(self.mapped, int(fields["RssFile"].split()[0]))
            time.sleep(0.05)

    def megabytes(self) -> dict[str, float]:
        """Return the peaks so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {k: round(v / 1024, 1) for k, v in (("own", self.own), ("mapped", self.mapped), ("all", peak))}


def read(folder: Path, rows: str, n: int) -> tuple[Skim, int]:
    """Return at least n rows, and how many different ones there are."""
    more = {"dense": {}, "auto": {"keep": "auto"}, "disk": {"out_of_core": folder / "rows"}}[rows]
    data = load_skim(folder / "skims" / "rmm_backgrounds", "rmm", weights="none", **more)
    there = len(data.x)
    if there >= n:
        return data, there
    return data.select(np.sort(np.r_[np.arange(there), np.random.default_rng(1).integers(0, there, n - there)])), there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", choices=("auto", "dense", "disk"), default="auto")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--events", type=int, default=ROWS)
    parser.add_argument("--rows-per-epoch", type=int, default=ROWS)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--loss", choices=("mse", "mae"), default="mse")
    parser.add_argument("--schedule", choices=("cosine", "plateau", "constant"), default="cosine")
    parser.add_argument("-o", "--output", type=Path, default=Path("build/physics"))
    args = parser.parse_args()
    skims(args.output)
    torch.set_num_threads(args.threads)
    memory, started = Memory(), time.monotonic()
    data, there = read(args.output, args.rows, args.events)
    read_seconds = time.monotonic() - started
    after_reading = memory.megabytes()
    torch.manual_seed(1)
    model = nn.AE.rmm(nn.Unchanged(1287), loss=args.loss)
    config = nn.TrainConfig(
        epochs=args.epochs, samples_per_epoch=args.rows_per_epoch, batch_size=args.batch_size, learning_rate=args.learning_rate,
        schedule=args.schedule, validation_rows=5000,
    )  # fmt: skip
    started, cpu = time.monotonic(), time.process_time()
    history = nn.fit(model, data, config, args.output / "rmm_ae" / args.rows)
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    memory.running = False
    signals = load_skim(args.output / "skims" / "rmm_signals", "rmm", weights="none")
    test = data.splits("test")
    places = np.random.default_rng(1).permutation(len(test.x))[:10_000]
    datasets = {"background": model.scores(np.asarray(test.x[places]))}
    datasets |= {d: model.scores(signals.x[signals.dataset == d]) for d in sorted(set(signals.dataset.tolist()))}
    aucs = {
        d: roc_auc_score(
            np.r_[np.zeros(len(datasets["background"])), np.ones(len(s))], np.r_[datasets["background"], s]
        )
        for d, s in datasets.items()
        if d != "background"
    }
    result = {
        "rows": {"asked": args.events, "different": there, "used": len(data.x), "kept": args.rows},
        "settings": {k: getattr(args, k) for k in ("batch_size", "learning_rate", "loss", "schedule", "epochs", "threads")},
        "seconds": {"reading": round(read_seconds, 1), "training": round(seconds, 1), "epoch": round(seconds / len(history), 1),
                    "cpu_epoch": round(cpu / len(history), 1)},
        "peak_MB": {"after_reading": after_reading, "after_training": memory.megabytes()},
        "loss": [round(row["loss"], 9) for row in history],
        "reconstruction": [round(row["reconstruction"], 9) for row in history],
        "score": {d: [round(float(q), 2) for q in np.quantile(s, (0.1, 0.5, 0.9))] for d, s in datasets.items()},
        "auc": {d: round(float(value), 3) for d, value in aucs.items()},
    }  # fmt: skip
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
