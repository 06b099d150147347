"""The talk's five comparisons, each a function from the folder of samples to numbers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jets import (
    CLASSES,
    COLUMNS,
    MERGED,
    S_CHANNEL,
    SEEDS,
    SIGNALS,
    distribution,
    image_skims,
    jets,
    judge,
    made,
    mixture,
    some,
    trained,
    trivial,
)

from coffea_ad import nn
from coffea_ad.evaluation import core_and_narrow
from coffea_ad.scoring.scorer import OnnxScorer

DENSE = {"epochs": 40, "learning_rate": 3e-3, "batch_size": 256, "samples_per_epoch": 8192, "schedule": "cosine"}
IMAGE = {"epochs": 8, "learning_rate": 3e-3, "batch_size": 64, "samples_per_epoch": 5120, "schedule": "cosine",
         "validation_rows": 1000}  # fmt: skip
WIDTHS = (1, 2, 3, 4, 5, 6)
FRACTIONS = (0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 1.0)
VARIANTS = {"plain": (1.0, 0.0), "power 0.5": (0.5, 0.0), "smear 1": (1.0, 1.0), "power 0.5, smear 1": (0.5, 1.0)}
FITTED = ("Mahalanobis (standardised)", "IsolationForest")
NETWORKS = {"AE 10-10": ((10, 10), "relu"), "AE 32-32": ((32, 32), "silu")}
FAMILY = {
    "AE": ("AE", "AE"),
    "AE, network of the WNAE": ("AE_8-32-32-4_standard", "AE_8-32-32-4_log"),
    "NAE": ("NAE", "NAE"),
    "WNAE, settings of the reference": ("WNAE_reference_settings", "WNAE_reference_settings"),
    "WNAE": ("WNAE", "WNAE"),
}  # trained by the recipes with their configurations for QCD and for top quarks, by benchmarks/physics.py


def _other(name: str) -> str:
    return CLASSES[1 - CLASSES.index(name)]


def _ae(seed: int, network: str, kind: str = "quantile", latent: int = 6) -> nn.AE:
    hidden, activation = NETWORKS[network]
    torch.manual_seed(seed)
    transform = nn.preprocessing(kind, COLUMNS)
    return nn.AE(8, hidden=hidden, latent=latent, activation=activation, transform=transform)


def _several(make: Callable[[int], nn.Model], skim: nn.Skim, settings: dict[str, Any]) -> list[Any]:
    return [trained(make(seed), skim, nn.TrainConfig(seed=seed, **settings)) for seed in SEEDS]


def _unexplained(model: nn.Model, skim: nn.Skim) -> float:
    """Return the mean reconstruction error over that of the mean alone; of a kernel PCA, in the kernel's space."""
    with torch.no_grad():
        z = model.transform(torch.from_numpy(skim.x))
        w = skim.weight / skim.weight.sum()
        error = model.energy(z).double().numpy() @ w
        if isinstance(model, nn.KernelPCA):
            nothing = copy.deepcopy(model)
            nothing.directions.zero_()
            return float(error / (nothing.energy(z).double().numpy() @ w))
        rows = z.double().numpy()
        return float(error / (((rows - w @ rows) ** 2).mean(axis=1) @ w))


def components(folder: Path) -> dict[str, Any]:
    """PCA, kernel PCA and AE with one to six components: what they leave over of held-out background, and AUCs."""
    rows, errors = [], []
    signals = {name: jets(folder, "eval", name) for name in SIGNALS}
    for name in CLASSES:
        train, held_out = jets(folder, "train", name), jets(folder, "eval", name)
        rows += [{"trained": name, **row} for row in trivial(train, held_out, signals)]
        for k in WIDTHS:
            kinds: dict[str, Callable[[int], nn.Model]] = {
                "PCA": lambda _, k=k: nn.PCA(8, components=k, transform=nn.preprocessing("quantile", COLUMNS)),
                "kernel PCA": lambda _, k=k: nn.KernelPCA(
                    8, components=k, landmarks=300, transform=nn.preprocessing("quantile", COLUMNS)
                ),
                **{label: lambda seed, k=k, label=label: _ae(seed, label, latent=k) for label in NETWORKS},
            }
            models = {label: _several(make, train, DENSE) for label, make in kinds.items()}
            rows += [{"trained": name, "components": k, **row} for row in judge(models, held_out, signals)]
            for label, each in models.items():
                left = [_unexplained(score.args[0], held_out) for score in each]
                errors.append({"trained": name, "components": k, "score": label, "unexplained": float(np.mean(left)),
                               "spread": float(np.std(left, ddof=1))})  # fmt: skip
    return {"rows": rows, "errors": errors}


def complexity(folder: Path) -> dict[str, Any]:
    """Substructure AEs of one class look for the other, and for what is simpler than their own; image AEs too."""
    rows, shown = [], {}
    for name in CLASSES:
        train = jets(folder, "train", name, filters=MERGED)
        here, there = (jets(folder, "eval", d, filters=MERGED) for d in (name, _other(name)))
        rows += [{"trained": name, **row} for row in trivial(train, here, {_other(name): there})]
        models = {
            f"{label}-6, {kind}": _several(lambda seed, kind=kind, label=label: _ae(seed, label, kind), train, DENSE)
            for label in NETWORKS
            for kind in ("quantile", "standard")
        }
        part = train.splits("train")
        core = core_and_narrow(here.x, part.x, part.weight)["core"]
        found = judge(models, here, {_other(name): there}) + made(models, here, core, "core")
        rows += [{"trained": name, **row} for row in found]
        shown |= {f"{label}/{name}": distribution(each[0], here, there) for label, each in models.items()}
    return {"rows": rows, "distributions": shown}


def images(folder: Path) -> dict[str, Any]:
    """Image AEs of one class look for the other, with pixels as they are, re-weighted, smeared, and both."""
    image_skims(folder)
    rows, shown, losses = [], {}, {}
    for name in CLASSES:
        train = jets(folder, "train", name, filters=MERGED, feature="jet_images")
        here, there = (some(jets(folder, "eval", d, filters=MERGED, feature="jet_images"), 8000)
                       for d in (name, _other(name)))  # fmt: skip
        models = {}
        for label, (power, smear) in VARIANTS.items():

            def make(seed: int, power: float = power, smear: float = smear) -> nn.Model:
                torch.manual_seed(seed)
                return nn.ImageAE(40, channels=(4, 8), latent=6, smear=smear, transform=nn.PixelPower(1600, power))

            models[label] = _several(make, train, IMAGE)
            losses[f"{label}/{name}"] = [_left(score.args[0], here) for score in models[label]]
        rows += [{"trained": name, **row} for row in judge(models, here, {_other(name): there})]
        rows += [{"trained": name, **row} for row in trivial(None, here, {_other(name): there})]
        shown |= {f"{label}/{name}": distribution(each[0], here, there) for label, each in models.items()}
    return {"rows": rows, "distributions": shown, "unexplained": losses}


def _left(model: nn.Model, skim: nn.Skim) -> float:
    """Return the mean reconstruction error of images over that of an empty image."""
    w = skim.weight / skim.weight.sum()
    empty = copy.deepcopy(model)
    empty.reconstruct = torch.zeros_like
    return float((model.scores(skim.x) @ w) / (empty.scores(skim.x) @ w))


def contamination(folder: Path) -> dict[str, Any]:
    """AUC of AEs whose training sample holds semivisible jets, against their fraction."""
    signal = jets(folder, "eval", *S_CHANNEL)
    test, rows = signal.splits("test"), []
    for name in CLASSES:
        train, here = jets(folder, "train", name), jets(folder, "eval", name)
        rows += [{"trained": name, **row} for row in trivial(None, here, {"svj": test})]
        for fraction in FRACTIONS:
            mixed = mixture(train, signal, fraction)
            models = {
                f"{label}-6": _several(lambda seed, label=label: _ae(seed, label), mixed, DENSE) for label in NETWORKS
            }
            found = judge(models, here, {"svj": test})
            found += [r for r in trivial(mixed, here, {"svj": test}) if r["score"] in FITTED]
            rows += [{"trained": name, "fraction": fraction, **row} for row in found]
    return {"rows": rows}


def normalised(folder: Path) -> dict[str, Any]:
    """AE, NAE and WNAE as the recipes train them, each class looking for the other, and for what is simpler."""
    rows, seeds = [], {}
    for i, name in enumerate(CLASSES):
        train = jets(folder, "train", name)
        here, there = (jets(folder, "eval", d, filters=MERGED) for d in (name, _other(name)))
        rows += [{"trained": name, **row} for row in trivial(train, here, {_other(name): there})]
        files = {
            label: [folder / "models" / name / f"{stems[i]}_{seed}.onnx" for seed in SEEDS]
            for label, stems in FAMILY.items()
        }
        seeds[name] = {label: sum(f.exists() for f in each) for label, each in files.items()}
        models = {label: [OnnxScorer(f) for f in each if f.exists()] for label, each in files.items()}
        models = {label: each for label, each in models.items() if each}
        part = train.splits("train")
        core = core_and_narrow(here.x, part.x, part.weight)["core"]
        found = judge(models, here, {_other(name): there}) + made(models, here, core, "core") if models else []
        rows += [{"trained": name, **row} for row in found]
    return {"rows": rows, "seeds": seeds}
