"""Deep SVDD: networks without biases that map the background to a point; the score is the distance from it.

    coffea-ad run svdd --config svdd/svj.yaml data=skims/ -o svdd.onnx
    coffea-ad run svdd --config svdd/reduced.yaml data=skims/ -o svdd.onnx 'dimensions=[5, 21, 89]'
    coffea-ad run svdd --config svdd/one.yaml data=skims/ -o svdd1.onnx pretrain_epochs=20

By default an ensemble of ten networks with 5 to 377 outputs and fixed centres, as in the Dark Machines challenge.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.nn.training import plots

ONE = {"outputs", "centre", "pretrain_epochs"}
ENSEMBLE = {"dimensions", "centres"}


class Config(nn.RecipeConfig):
    """Data, networks, training."""

    network: Literal["ensemble", "one"] = "ensemble"
    hidden: tuple[int, ...] = (64, 32)
    activation: nn.UnboundedActivation = "leaky_relu"
    dimensions: tuple[int, ...] = Field(nn.DIMENSIONS, description="ensemble: numbers of outputs")
    centres: tuple[float, ...] = Field((1.0,), description="ensemble: constants, not 0; each with every dimension")
    outputs: int = Field(8, ge=1, description="one network: number of outputs")
    centre: float | None = Field(None, description="one network: a constant; the mean before training by default")
    pretrain_epochs: int = Field(0, ge=0, description="one network: epochs as the encoder of an autoencoder, before")
    train: nn.TrainConfig = nn.TrainConfig(epochs=40, weight_decay=1e-6)


def build(config: Config, data: nn.Skim, folder: Path) -> nn.DeepSVDD | nn.DeepSVDDEnsemble:
    """Return the model before training as a Deep SVDD; pretraining leaves an autoencoder in the folder."""
    unused = (ONE if config.network == "ensemble" else ENSEMBLE) & config.model_fields_set
    if unused:
        raise ConfigError(f"{', '.join(sorted(unused))}: network={config.network} has no use for this key")
    torch.manual_seed(config.train.seed)
    transform = config.transform(data)
    d = transform.features
    shared: dict[str, Any] = {"hidden": config.hidden, "activation": config.activation, "transform": transform}
    if config.network == "ensemble":
        return nn.DeepSVDDEnsemble(d, dimensions=config.dimensions, centres=config.centres, **shared)
    if config.pretrain_epochs == 0 or config.resume:  # a checkpoint has the weights, whatever they started from
        return nn.DeepSVDD(d, outputs=config.outputs, centre=config.centre, **shared)
    autoencoder = nn.BiasFreeAE(d, latent=config.outputs, **shared)
    short = config.train.model_copy(update={"epochs": config.pretrain_epochs})
    nn.fit(autoencoder, data, short, folder / "autoencoder")
    return nn.DeepSVDD.from_autoencoder(autoencoder, centre=config.centre)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one model, and leave metrics, checkpoint and a plot in a folder."""
    model = build(config, data, folder)
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    plots.training(history, model.plotted, folder / "training.png")
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
