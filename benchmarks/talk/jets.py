"""Jets of the talk's comparisons, and how a score of them is judged."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad import nn
from coffea_ad.evaluation import Row, Sample, baselines, column_baselines, evaluate
from coffea_ad.features.spec import feature_spec
from coffea_ad.running import run

CLASSES = ("qcd", "ttbar")
SIGNALS = ("svj_1500_03", "svj_2000_05", "svj_3000_07", "svj_t_2000_03")
S_CHANNEL = SIGNALS[:3]
MERGED = (("pt", ">", 400.0),)  # GeV; below, the decay of a top is wider than the jet
SEEDS = (1, 2, 3)
COLUMNS = [column.name for column in feature_spec("jet_substructure", {}).columns]
IMAGE_FILES = {"train": {"qcd": 1, "ttbar": 3}, "eval": {"qcd": 1, "ttbar": 2}}
Models = Mapping[str, Sequence[Callable[[np.ndarray], np.ndarray]]]


def image_skims(folder: Path) -> None:
    """Make images of the jets of some of the files, once."""
    for part, files in IMAGE_FILES.items():
        out = folder / "skims" / f"images_{part}"
        if (out / "manifest.json").exists():
            continue
        fileset = json.loads((folder / f"{part}.json").read_text())
        fileset = {d: {**fileset[d], "files": dict(list(fileset[d]["files"].items())[:n])} for d, n in files.items()}
        overrides = ["features=[{name: jet_images}]"]
        run(fileset, "skim_jets", overrides=overrides, executor="iterative", chunksize=4000, output=out)


def jets(folder: Path, part: str, *datasets: str, filters: Sequence[Any] = (), feature: str = "jet_substructure"):
    """Read jets of some datasets."""
    skim = f"images_{part}" if feature == "jet_images" else part
    return nn.load_skim(folder / "skims" / skim, feature, datasets=datasets, filters=filters)


def some(skim: nn.Skim, n: int) -> nn.Skim:
    """Return n rows drawn at random, always the same."""
    return skim.select(np.sort(np.random.default_rng(1).permutation(len(skim.x))[:n]))


def mixture(background: nn.Skim, signal: nn.Skim, fraction: float) -> nn.Skim:
    """Return both with weights that make the signal this fraction of what is drawn for training, and for validation."""
    parts = []
    for skim, share in ((background, 1 - fraction), (signal, fraction)):
        weight = np.zeros(len(skim.x))
        for split in ("train", "validation"):
            here = skim.split == split
            weight[here] = share * skim.weight[here] / skim.weight[here].sum()
        used = weight > 0
        parts.append((skim.x[used], weight[used], skim.dataset[used], skim.split[used]))
    x, weight, dataset, split = (np.concatenate(column) for column in zip(*parts, strict=True))
    return replace(background, x=x, weight=weight, dataset=dataset, split=split, spectators={})


def trained(model: nn.Model, skim: nn.Skim, config: nn.TrainConfig) -> Callable[[np.ndarray], np.ndarray]:
    """Train a model and return its score."""
    nn.fit(model, skim, config)
    return model.scores


def sample(skim: nn.Skim, scores: Mapping[str, np.ndarray], *, pt: bool = True) -> Sample:
    """Return scores with the weights, pT and events of their jets."""
    ids = np.stack([skim.spectators[k] for k in ("run", "luminosityBlock", "event")], axis=1)
    event = np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)
    return Sample(scores, skim.weight, skim.spectators["pt"] if pt else None, event=event)


def scored(models: Models, skim: nn.Skim) -> dict[str, np.ndarray]:
    return {label: np.stack([score(skim.x) for score in each]) for label, each in models.items()}


def judge(models: Models, background: nn.Skim, anomalies: Mapping[str, nn.Skim]) -> list[dict[str, Any]]:
    """Return AUCs, as they are and with the background at the signal's pT, one row for a score and an anomaly."""
    there = {name: sample(skim, scored(models, skim)) for name, skim in anomalies.items()}
    found = evaluate(sample(background, scored(models, background)), there, cuts=(), n_bootstrap=20)
    return [record(row) for row in found.rows]


def made(models: Models, background: nn.Skim, x: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Return AUCs of an anomaly that was made of the background's rows."""
    twins = sample(replace(background, x=x), scored(models, replace(background, x=x)), pt=False)
    found = evaluate(sample(background, scored(models, background), pt=False), {name: twins}, cuts=(), n_bootstrap=20)
    return [record(row) for row in found.rows]


def trivial(train: nn.Skim | None, background: nn.Skim, anomalies: Mapping[str, nn.Skim]) -> list[dict[str, Any]]:
    """Judge single columns, and distances and a forest on the inputs of the training rows if these are given."""
    fitted = {} if train is None else baselines(train.splits("train").x, train.splits("train").weight)

    def scores(skim: nn.Skim) -> dict[str, np.ndarray]:
        single = column_baselines(skim.x, COLUMNS, skim.spectators)
        return {**single, **{name: score(skim.x) for name, score in fitted.items()}}

    there = {name: sample(skim, scores(skim)) for name, skim in anomalies.items()}
    found = evaluate(sample(background, scores(background)), there, cuts=(), n_bootstrap=20)
    return [record(row) for row in found.rows]


def record(row: Row) -> dict[str, Any]:
    out = {"score": row.score, "signal": row.signal, "seeds": row.models}
    for key, figures in (("auc", row.plain), ("matched", row.matched)):
        if figures is not None:
            estimate = figures.auc
            spread = round(estimate.spread, 4) if np.isfinite(estimate.spread) else None
            out[key] = {"value": round(estimate.value, 4), "error": round(estimate.error, 4), "spread": spread,
                        "n_effective": round(figures.n_effective)}  # fmt: skip
    return out


def distribution(score: Callable[[np.ndarray], np.ndarray], *skims: nn.Skim) -> dict[str, Any]:
    """Return histograms of ln score, of equal area, in common bins."""
    values = [np.log(np.maximum(score(skim.x), 1e-30)) for skim in skims]
    low, high = np.quantile(np.concatenate(values), (0.002, 0.998))
    edges = np.linspace(low, high, 51)
    content = [
        np.histogram(v, edges, weights=s.weight, density=True)[0].tolist() for v, s in zip(values, skims, strict=True)
    ]
    return {"edges": edges.tolist(), "content": content}
