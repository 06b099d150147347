"""AE: dense autoencoder on jet substructure; the score is the reconstruction error.

    coffea-ad run autoencoder --config autoencoder/svj.yaml data=skims/ -o ae.onnx

Copy the file with `coffea-ad cp autoencoder mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from coffea_ad import nn, plotting
from coffea_ad.skims import WeightMode


class Config(BaseModel):
    """Data, network, training."""

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
    efficiencies: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    resume: bool = False
    train: nn.TrainConfig = nn.TrainConfig()


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train, export to `output`, and leave metrics, checkpoint and a figure in the folder of the same name."""
    data = nn.load_skim(
        config.data, config.feature, config.options,
        datasets=config.datasets, weights=config.weights, filters=config.filters,
    )  # fmt: skip
    torch.manual_seed(config.train.seed)
    columns = data.x.shape[1]
    model = nn.AE(
        columns,
        hidden=config.hidden,
        latent=config.latent,
        transform=nn.QuantileNormal(columns),
        activation=config.activation,
    )

    folder = output.with_suffix("")
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
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
    return {"best": best, "regions": [r.name for r in card.regions], "n_effective": data.provenance["n_effective"]}
