"""WNAE: Wasserstein normalised autoencoder; the score is the energy of a density fitted to the data.

    coffea-ad run wnae --config wnae/svj.yaml data=skims/ -o wnae.onnx train.epochs=50

Persistent Langevin chains, exact Wasserstein distance; the epoch with the smallest excess of that distance over its
finite-sample floor is kept, which no signal has a say in. Some initial weights get stuck: several are tried for a few
epochs, and the one with the smallest excess goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from coffea_ad import nn, plotting
from coffea_ad.skims import WeightMode


class Config(BaseModel):
    """Data, network, chains, training."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    data: str = Field(description="folder of a skim")
    datasets: tuple[str, ...] = Field((), description="the background; all datasets of the skim by default")
    feature: str = "jet_substructure"
    options: dict[str, Any] = {}
    weights: WeightMode = "xsec"
    filters: tuple[tuple[str, str, Any], ...] = Field((), description='rows to keep, such as ["met", ">", 100]')
    hidden: tuple[int, ...] = (10, 10)
    latent: int = 6
    activation: nn.Activation = "relu"
    steps: int = Field(10, ge=1, description="Langevin steps per batch")
    noise: float = Field(0.22, gt=0)
    temperature: float = Field(0.063, gt=0)
    buffer_size: int = Field(10_000, ge=2)
    replay: float = Field(0.95, ge=0, le=1)
    starts: int = Field(3, ge=1, description="initial weights that are tried")
    start_epochs: int = Field(15, ge=1, description="epochs after which the start with the smallest excess goes on")
    efficiencies: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    resume: bool = False
    train: nn.TrainConfig = nn.TrainConfig(learning_rate=5e-4)


def build(config: Config, columns: int, start: int) -> nn.WNAE:
    """Return an untrained model; every start has weights of its own."""
    torch.manual_seed(config.train.seed + 1_000_000 * start)
    return nn.WNAE(
        columns, hidden=config.hidden, latent=config.latent, transform=nn.QuantileNormal(columns),
        activation=config.activation, steps=config.steps, noise=config.noise, temperature=config.temperature,
        buffer_size=config.buffer_size, replay=config.replay,
    )  # fmt: skip


def best_start(config: Config, data: nn.Skim, folder: Path) -> None:
    """Train several starts for some epochs and leave the checkpoint of the one with the smallest excess in `folder`."""
    short = config.train.model_copy(update={"epochs": min(config.start_epochs, config.train.epochs)})
    excess = []
    for start in range(config.starts):
        model = build(config, data.x.shape[1], start)
        history = nn.fit(model, data, short, folder / f"start{start}")
        excess.append(min(row[model.criterion] for row in history))
    chosen = folder / f"start{excess.index(min(excess))}"
    for name in ("checkpoint.pt", "metrics.jsonl"):
        shutil.copyfile(chosen / name, folder / name)


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train, export to `output`, and leave metrics, checkpoint and figures in the folder of the same name."""
    data = nn.load_skim(
        config.data, config.feature, config.options,
        datasets=config.datasets, weights=config.weights, filters=config.filters,
    )  # fmt: skip
    folder = output.with_suffix("")
    if not config.resume:
        best_start(config, data, folder)
    model = build(config, data.x.shape[1], 0)
    history = nn.fit(model, data, config.train, folder, resume=True)
    best = min(history, key=lambda row: row[model.criterion])

    card = nn.make_card(
        model,
        data,
        name=output.stem,
        config=config.model_dump(mode="json"),
        metrics=best,
        efficiencies=config.efficiencies,
    )
    nn.export(model, output, card, data.part("test", "validation").x)
    plotting.training(history, model.figures, folder / "training.png", best=int(best["epoch"]))
    held_out = data.part("validation")
    with torch.no_grad():
        z = model.transform(torch.from_numpy(held_out.x)).numpy()
    chains = model.sample(len(z), torch.Generator().manual_seed(config.train.seed)).numpy()
    plotting.data_and_chains(z, held_out.weight, chains, card.inputs[0].columns, folder / "chains.png")
    return {"best": best, "regions": [r.name for r in card.regions], "n_effective": data.provenance["n_effective"]}
