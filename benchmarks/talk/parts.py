"""The talk's five comparisons, each a function from the folder of samples to numbers."""

from __future__ import annotations

import copy
import json
import time
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

from coffea_ad import nn, recipes
from coffea_ad.config import load_config
from coffea_ad.errors import ConfigError
from coffea_ad.evaluation import core_and_narrow
from coffea_ad.scoring import OnnxScorer

DENSE = {"epochs": 40, "learning_rate": 1e-3, "batch_size": 256, "samples_per_epoch": 8192}
IMAGE = {"epochs": 8, "learning_rate": 3e-3, "batch_size": 64, "samples_per_epoch": 5120, "schedule": "cosine",
         "validation_rows": 1000}  # fmt: skip
WIDTHS = (1, 2, 3, 4, 5, 6)
FRACTIONS = (0.0, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 1.0)
VARIANTS = {"plain": (1.0, 0.0), "power 0.5": (0.5, 0.0), "smear 1": (1.0, 1.0), "power 0.5, smear 1": (0.5, 1.0)}
RECIPES = {"AE": ("autoencoder", "autoencoder/svj.yaml"), "NAE": ("nae", "nae/svj.yaml"),
           "WNAE": ("wnae", "wnae/svj.yaml")}  # fmt: skip


def _other(name: str) -> str:
    return CLASSES[1 - CLASSES.index(name)]


def _ae(seed: int, kind: str = "quantile", latent: int = 6) -> nn.AE:
    torch.manual_seed(seed)
    return nn.AE(8, hidden=(10, 10), latent=latent, transform=nn.preprocessing(kind, COLUMNS))


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
                "AE": lambda seed, k=k: _ae(seed, latent=k),
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
            f"AE {kind}, latent {latent}": _several(
                lambda seed, kind=kind, latent=latent: _ae(seed, kind, latent), train, DENSE
            )
            for kind in ("quantile", "standard")
            for latent in (2, 6)
        }
        part = train.part("train")
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
    return float((nn.torch_scores(model, skim.x) @ w) / (nn.torch_scores(empty, skim.x) @ w))


def contamination(folder: Path) -> dict[str, Any]:
    """AUC of AEs whose training sample holds semivisible jets, against their fraction."""
    signal = jets(folder, "eval", *S_CHANNEL)
    test, rows = signal.part("test"), []
    for name in CLASSES:
        train, here = jets(folder, "train", name), jets(folder, "eval", name)
        rows += [{"trained": name, **row} for row in trivial(train, here, {"svj": test})]
        for fraction in FRACTIONS:
            mixed = mixture(train, signal, fraction)
            models = {
                f"AE, latent {latent}": _several(lambda seed, latent=latent: _ae(seed, latent=latent), mixed, DENSE)
                for latent in (2, 6)
            }
            rows += [{"trained": name, "fraction": fraction, **row} for row in judge(models, here, {"svj": test})]
    return {"rows": rows}


def normalised(folder: Path) -> dict[str, Any]:
    """AE, NAE and WNAE as the recipes train them, each class looking for the other and for semivisible jets."""
    rows, settings, seconds = [], {}, {}
    for name in CLASSES:
        train = jets(folder, "train", name, filters=MERGED)
        here = jets(folder, "eval", name, filters=MERGED)
        anomalies = {d: jets(folder, "eval", d, filters=MERGED) for d in (_other(name), *SIGNALS)}
        rows += [{"trained": name, **row} for row in trivial(train, here, anomalies)]
        models: dict[str, list[Any]] = {}
        for label in RECIPES:
            started = time.process_time()
            models[label] = [OnnxScorer(_from_recipe(label, folder, name, seed, settings)) for seed in SEEDS]
            seconds[f"{label}/{name}"] = round((time.process_time() - started) / len(SEEDS), 1)
        part = train.part("train")
        core = core_and_narrow(here.x, part.x, part.weight)["core"]
        rows += [{"trained": name, **r} for r in judge(models, here, anomalies) + made(models, here, core, "core")]
    return {"rows": rows, "settings": settings, "cpu_seconds_of_a_training": seconds}


def _from_recipe(label: str, folder: Path, name: str, seed: int, settings: dict[str, Any]) -> Path:
    """Train one model with the shipped recipe and its configuration; return the file."""
    recipe, written = RECIPES[label]
    module = recipes.load(recipe)
    try:
        path = recipes.find_config(written)
    except ConfigError:
        path = None  # the recipe's defaults
    given = [f"data={folder / 'skims' / 'train'}", f"datasets=[{name}]", f"train.seed={seed}"]
    config = load_config(module.Config, path, [*given, f"filters={json.dumps(MERGED)}"])
    settings[label] = config.model_dump(mode="json", exclude={"data", "datasets"})
    output = folder / "talk" / "models" / f"{label.lower()}_{name}_{seed}.onnx"
    output.parent.mkdir(parents=True, exist_ok=True)
    module.train(config, output)
    return output
