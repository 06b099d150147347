"""Train the family on tt̄ and on QCD jets with several seeds, and find semivisible jets: the tables of docs/models.

.venv/bin/python benchmarks/samples.py            # once
.venv/bin/python benchmarks/physics.py train ttbar                   # the same for qcd; what exists is not trained again
.venv/bin/python benchmarks/physics.py train qcd --seeds 6 7 --only WNAE NAE     # more seeds of some
.venv/bin/python benchmarks/physics.py modes                         # W2², truncated, sliced at equal CPU time
.venv/bin/python benchmarks/physics.py evaluate dev|eval             # tables and figures

Everything is trained by the shipped recipes on the set `train`; `dev` was used to choose recipes and combinations, `eval`
for the tables, `fresh` (verb confirm) was looked at once. Five seeds of energy models, whose spread is wide, three of
others, one of a PCA, which has none; the tables of docs/results.md have five of all that have a spread. One thread.
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
from coffea_ad.skims.reading import load_skim

ROOT = Path("build/physics")
SEEDS, ENERGY_SEEDS = [1, 2, 3], [1, 2, 3, 4, 5]
DENSE = ["hidden=[32,32]", "latent=4", "activation=silu"]
WNAE = {"ttbar": "wnae/ttbar.yaml", "qcd": "wnae/svj.yaml"}
SMEARED = {"ttbar": "nae/smeared_ttbar.yaml", "qcd": "nae/smeared.yaml"}
COORDINATES = {"ttbar": ["preprocessing=log"], "qcd": ["preprocessing=standard"]}
NINE = ["options={observables: [+multiplicity]}"]  # the number of constituents is the ninth input
UNTRAINED = ["train.epochs=1", "train.learning_rate=1e-12", "long_steps=0"]
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
    "WNAE": ("wnae", WNAE, []),  # W₂² alone
    "WNAE not smeared": ("wnae", WNAE, ["smear=0"]),
    "WNAE reference settings": ("wnae", "wnae/reference.yaml", []),  # W₂², as in the reference's code
    "WNAE reference settings, W1": ("wnae", "wnae/reference.yaml", ["distance=w1"]),
    "NAE": ("nae", "nae/svj.yaml", COORDINATES),
    "NAE on-manifold": ("nae", "nae/svj.yaml", COORDINATES, ["sampling=omi"]),
    "NAE smeared": ("nae", SMEARED, []),
    "untrained": ("wnae", WNAE, UNTRAINED),
    "untrained AE": ("autoencoder", "autoencoder/svj.yaml", UNTRAINED[:2]),
    "AE standard, 9 inputs": ("autoencoder", "autoencoder/svj.yaml", ["preprocessing=standard"], NINE),
    "PCA standard, 9 inputs": ("pca", "pca/svj.yaml", ["components=4", "preprocessing=standard"], NINE),
    **{
        f"VAE of unit variance, elbo {p}, 9 inputs": (
            "vae",
            "vae/svj.yaml",
            [*DENSE, "beta=1.0", "score=elbo", f"preprocessing={p}"],
            NINE,
        )
        for p in ("standard", "log")
    },
    "NAE smeared, 9 inputs": ("nae", SMEARED, NINE),
    "WNAE, 9 inputs": ("wnae", WNAE, NINE),
}
"""Recipe, its configuration, and overrides; a mapping has one of them for each background."""


def seeds_of(name):
    """Seeds that are trained by default."""
    recipe = MODELS[name][0]
    if recipe == "pca" and not name.startswith("kernel"):
        return SEEDS[:1]
    return ENERGY_SEEDS if recipe in ("nae", "wnae") else SEEDS


class _Watched:
    """An energy model that writes down the AUC of every epoch; nothing reads it while it trains."""

    rows: tuple = ()

    def validate(self, batch, generator):
        metrics = super().validate(batch, generator)
        background, *signals = (x[:, : self.features] for x in _Watched.rows)
        b = np.sort(self.scores(background))
        ranks = [np.searchsorted(b, self.scores(s)).mean() / len(b) for s in signals]
        return {**metrics, "auc": float(np.mean(ranks))}


class WatchedWNAE(_Watched, nn.WNAE):
    pass


class WatchedNAE(_Watched, nn.NAE):
    pass


def watch(bkg):
    data = load_skim(ROOT / "skims/eval", "jet_substructure", {"observables": ["+multiplicity"]}, weights="none")
    rng = np.random.default_rng(1)
    parts = []
    for name in (bkg, *sorted(d for d in set(data.dataset) if d.startswith("svj"))):
        x = data.x[data.dataset == name]
        parts.append(x[rng.permutation(len(x))[:4000]])
    _Watched.rows = tuple(parts)
    nn.WNAE, nn.NAE = WatchedWNAE, WatchedNAE


def settings(bkg, name):
    """Recipe module, configuration file and overrides of a model for a background."""
    recipe, *parts = MODELS[name]
    config, *overrides = (p[bkg] if isinstance(p, dict) else p for p in parts)
    return recipes.load(recipe), recipes.find_config(config), [o for part in overrides for o in part]


def train(bkg, seeds, only):
    unknown = set(only) - set(MODELS)
    if unknown:
        raise SystemExit(f"no such model: {', '.join(sorted(unknown))}; there are {', '.join(MODELS)}")
    torch.set_num_threads(1)
    watch(bkg)
    wanted = [(seed, name) for name in only or MODELS for seed in seeds or seeds_of(name)]
    for seed, name in sorted(wanted, key=lambda pair: pair[0]):
        out = ROOT / "models" / bkg / f"{name.replace(' ', '_')}_{seed}.onnx"
        if out.exists():
            continue
        module, path, overrides = settings(bkg, name)
        fixed = [f"data={ROOT}/skims/train", f"datasets=[{bkg}]", f"train.seed={seed}"]
        config = load_config(module.Config, path, [*overrides, *fixed])
        started = time.process_time()
        summary = module.train(config, out)
        cpu = time.process_time() - started
        (out.with_suffix("") / "cpu.json").write_text(json.dumps({"cpu_s": cpu, "best": summary["best"]}))
        print(f"{bkg} {name} seed {seed}: {cpu:.0f} CPU s", flush=True)


MODES = {
    "W2², whole chain": {"distance": "w2_squared", "grad_steps": None},
    "W2², last step": {"distance": "w2_squared", "grad_steps": 1},
    "sliced, whole chain": {"distance": "sliced", "grad_steps": None},
    "sliced, last step": {"distance": "sliced", "grad_steps": 1},
    "W2², last step, MALA": {"distance": "w2_squared", "grad_steps": 1, "metropolis": True},
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
            started = time.process_time()
            nn.fit(module.build(config, data), data, config.train.model_copy(update={"epochs": 3}))
            per_epoch = (time.process_time() - started) / 3
            epochs = max(int(budget / per_epoch), 3)
            model = module.build(config, data)
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
        size = len(model.graph(("score",)))
        print(f"| {name} | {time.perf_counter() - started:.1f} | {size / 1e6:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    p = verbs.add_parser("train")
    p.add_argument("background", choices=sorted(WNAE))
    p.add_argument(
        "--seeds", type=int, nargs="+", default=[], help="by default 1 to 5 of energy models, 1 to 3 of others"
    )
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
