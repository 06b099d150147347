"""Train the family on tt̄ and on QCD jets with several seeds, and find semivisible jets: the tables of docs/models.

.venv/bin/python benchmarks/samples.py            # once
.venv/bin/python benchmarks/physics.py train ttbar --seeds 1 2 3      # the same for qcd
.venv/bin/python benchmarks/physics.py modes                         # exact, truncated, sliced at equal CPU time
.venv/bin/python benchmarks/physics.py evaluate dev|eval             # tables and figures

Everything is trained by the shipped recipes on the set `train`; `dev` was used to choose recipes and combinations, `eval`
for the tables, `fresh` (verb confirm) was looked at once. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.nn.export import _graph
from coffea_ad.skims import load_skim

ROOT = Path("build/physics")
DENSE = ["hidden=[32,32]", "latent=4", "activation=silu"]
WNAE = {"ttbar": "wnae/ttbar.yaml", "qcd": "wnae/svj.yaml"}
COORDINATES = {"ttbar": "log", "qcd": "standard"}
MODELS = {
    "AE": ("autoencoder", "autoencoder/svj.yaml", []),
    "AE standard": ("autoencoder", "autoencoder/svj.yaml", ["preprocessing=standard"]),
    "AE log": ("autoencoder", "autoencoder/svj.yaml", ["preprocessing=log"]),
    "AE 8-32-32-4 quantile": ("autoencoder", "autoencoder/svj.yaml", DENSE),
    "AE 8-32-32-4 standard": ("autoencoder", "autoencoder/svj.yaml", [*DENSE, "preprocessing=standard"]),
    "AE 8-32-32-4 log": ("autoencoder", "autoencoder/svj.yaml", [*DENSE, "preprocessing=log"]),
    "PCA quantile": ("pca", "pca/svj.yaml", ["components=4"]),
    "PCA standard": ("pca", "pca/svj.yaml", ["components=4", "preprocessing=standard"]),
    "PCA log": ("pca", "pca/svj.yaml", ["components=4", "preprocessing=log"]),
    "kernel PCA quantile": ("pca", "pca/svj.yaml", ["kind=kernel_pca", "components=4"]),
    "kernel PCA standard": ("pca", "pca/svj.yaml", ["kind=kernel_pca", "components=4", "preprocessing=standard"]),
    "kernel PCA log": ("pca", "pca/svj.yaml", ["kind=kernel_pca", "components=4", "preprocessing=log"]),
    **{
        f"VAE {score} {p}": ("vae", "vae/svj.yaml", [*DENSE, "beta=0.1", f"score={score}", f"preprocessing={p}"])
        for score in ("kl", "elbo")
        for p in ("quantile", "standard")
    },
    **{
        f"VAE of unit variance, elbo {p}": (
            "vae",
            "vae/svj.yaml",
            [*DENSE, "beta=1.0", "score=elbo", f"preprocessing={p}"],
        )
        for p in ("quantile", "standard", "log")
    },
    "Deep SVDD ensemble log": ("svdd", "svdd/svj.yaml", ["train.epochs=20", "preprocessing=log"]),
    "Deep SVDD ensemble quantile": ("svdd", "svdd/svj.yaml", ["train.epochs=20"]),
    "Deep SVDD ensemble standard": ("svdd", "svdd/svj.yaml", ["train.epochs=20", "preprocessing=standard"]),
    "NAE": ("nae", "nae/svj.yaml", []),
    "WNAE reference settings": ("wnae", "wnae/reference.yaml", []),
    "WNAE": ("wnae", "", []),
    "untrained": ("wnae", "", ["train.epochs=1", "train.learning_rate=1e-12", "long_steps=0"]),
}


class Watched(nn.WNAE):
    """A WNAE that writes down the AUC of every epoch; nothing reads it while it trains."""

    rows: tuple = ()

    def validate(self, z, generator):
        figures = super().validate(z, generator)
        background, *signals = Watched.rows
        b = np.sort(nn.torch_scores(self, background))
        ranks = [np.searchsorted(b, nn.torch_scores(self, s)).mean() / len(b) for s in signals]
        return {**figures, "auc": float(np.mean(ranks))}


def watch(bkg):
    data = load_skim(ROOT / "skims/eval", "jet_substructure", weights="none")
    rng = np.random.default_rng(1)
    parts = []
    for name in (bkg, *sorted(d for d in set(data.dataset) if d.startswith("svj"))):
        x = data.x[data.dataset == name]
        parts.append(x[rng.permutation(len(x))[:4000]])
    Watched.rows = tuple(parts)
    nn.WNAE = Watched


def train(bkg, seeds, only):
    torch.set_num_threads(1)
    watch(bkg)
    for seed in seeds:
        for name, (recipe, config_name, overrides) in MODELS.items():
            if only and name not in only:
                continue
            out = ROOT / "models" / bkg / f"{name.replace(' ', '_')}_{seed}.onnx"
            if out.exists():
                continue
            module = recipes.load(recipe)
            own = [f"data={ROOT}/skims/train", f"datasets=[{bkg}]", f"train.seed={seed}"]
            if name == "NAE":
                own.append(f"preprocessing={COORDINATES[bkg]}")
            config = load_config(module.Config, recipes.find_config(config_name or WNAE[bkg]), [*overrides, *own])
            started = time.process_time()
            summary = module.train(config, out)
            cpu = time.process_time() - started
            (out.with_suffix("") / "cpu.json").write_text(json.dumps({"cpu_s": cpu, "best": summary["best"]}))
            print(f"{bkg} {name} seed {seed}: {cpu:.0f} CPU s", flush=True)


MODES = {
    "exact, whole chain": {"distance": "exact", "grad_steps": None},
    "exact, last step": {"distance": "exact", "grad_steps": 1},
    "sliced, whole chain": {"distance": "sliced", "grad_steps": None},
    "sliced, last step": {"distance": "sliced", "grad_steps": 1},
    "exact, last step, MALA": {"distance": "exact", "grad_steps": 1, "metropolis": True},
}


def modes(seeds, budget):
    """Excess of each mode after the same CPU time, on tt̄ with the shipped settings otherwise."""
    torch.set_num_threads(1)
    module = recipes.load("wnae")
    found = {}
    path = ROOT / "modes.json"
    data = None
    for seed in seeds:
        for mode, options in MODES.items():
            given = [f"{k}={'null' if v is None else str(v).lower()}" for k, v in options.items()]
            config = load_config(
                module.Config, recipes.find_config("wnae/ttbar.yaml"),
                [*given, f"data={ROOT}/skims/train", "datasets=[ttbar]", f"train.seed={seed}", "long_steps=0"],
            )  # fmt: skip
            data = data or nn.load_skim(config.data, config.feature, datasets=config.datasets)
            columns = [c.name for c in data.feature.columns]
            started = time.process_time()
            nn.fit(module.build(config, columns), data, config.train.model_copy(update={"epochs": 3}))
            per_epoch = (time.process_time() - started) / 3
            epochs = max(int(budget / per_epoch), 3)
            model = module.build(config, columns)
            started = time.process_time()
            nn.fit(model, data, config.train.model_copy(update={"epochs": epochs}))
            cpu = time.process_time() - started
            measured = nn.long_run(model, data, steps=(0, 500), seed=seed)
            found.setdefault(mode, []).append(
                {
                    "seed": seed,
                    "epochs": epochs,
                    "cpu_s": cpu,
                    "excess": measured["buffer"][0],
                    "long": measured["data"][1],
                }
            )
            path.write_text(json.dumps(found, indent=1))
    print("| mode | epochs | CPU s | excess | after 500 steps |\n| --- | --- | --- | --- | --- |")
    for mode, rows in found.items():
        cells = [mode]
        for key in ("epochs", "cpu_s", "excess", "long"):
            values = [r[key] for r in rows]
            cells.append(f"{np.mean(values):.3g} ± {np.std(values, ddof=1):.2g}")
        print("| " + " | ".join(cells) + " |")


def exports():
    """Seconds and sizes of the exports of untrained models of the largest shipped widths."""
    torch.set_num_threads(1)
    eight = [c.name for c in load_skim(ROOT / "skims/dev", "jet_substructure").feature.columns]
    quantile = nn.preprocessing("quantile", eight).fit(np.random.default_rng(1).normal(size=(5000, 8)), np.ones(5000))
    makers = {
        "AE": lambda: nn.AE.svj(quantile),
        "WNAE": lambda: nn.WNAE(8, hidden=(32, 32), latent=4, activation="silu", transform=quantile),
        "VAE": lambda: nn.VAE(8, hidden=(32, 32), latent=4, transform=quantile),
        "Dirichlet VAE": lambda: nn.DirichletVAE(8, transform=quantile),
        "Deep SVDD ensemble": lambda: nn.DeepSVDDEnsemble(8, transform=quantile),
        "image AE": lambda: nn.ImageAE(40, transform=nn.PixelPower(1600, 1.0)),
        "RMM AE": lambda: nn.AE.rmm(nn.preprocessing("none", [str(i) for i in range(1287)])),
    }
    print("| model | export, s | MB |\n| --- | --- | --- |")
    for name, make in makers.items():
        model = make().eval()
        started = time.perf_counter()
        size = len(_graph(model, ("score",)))
        print(f"| {name} | {time.perf_counter() - started:.1f} | {size / 1e6:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("train")
    p.add_argument("background", choices=sorted(WNAE))
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    p.add_argument("--only", nargs="+", default=[])
    p = verbs.add_parser("modes")
    p.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    p.add_argument("--budget", type=float, default=20.0, help="CPU seconds")
    verbs.add_parser("exports")
    verbs.add_parser("confirm")
    p = verbs.add_parser("evaluate")
    p.add_argument("sample", choices=["dev", "eval"])
    args = parser.parse_args()
    if args.verb == "train":
        train(args.background, args.seeds, args.only)
    elif args.verb == "confirm":
        from physics_tables import confirm

        confirm()
    elif args.verb == "exports":
        exports()
    elif args.verb == "modes":
        modes(args.seeds, args.budget)
    else:
        from physics_tables import tables

        tables(args.sample)


if __name__ == "__main__":
    main()
