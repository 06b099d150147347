"""AE: dense or convolutional autoencoder; the score is the reconstruction error.

    coffea-ad run autoencoder --config autoencoder/svj.yaml data=skims/ -o ae.onnx

Jet substructure, stored branches, rapidity-mass matrices of events, images of jets: each has a configuration. Copy the file
with `coffea-ad cp autoencoder mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.nn.training import plots

_PRESETS = {"svj": nn.AE.svj, "rmm": nn.AE.rmm}
_NETWORK = ("hidden", "latent", "activation", "output", "score", "loss")  # a preset gives those that are not written


class Config(nn.RecipeConfig):
    """Data, network, training."""

    out_of_core: bool = Field(False, description="rows stay in files beside the output, for skims larger than memory")
    preprocessing: nn.Preprocessing = Field("quantile", description="quantile, standard, log or none; not of images")
    network: Literal["dense", "image"] = "dense"
    preset: Literal["", "svj", "rmm"] = Field(
        "", description="a known dense network; what is given besides replaces it"
    )
    hidden: tuple[int, ...] = Field((10, 10), description="of an image: the dense layer around the bottleneck")
    latent: int = Field(6, ge=1, description="width of the bottleneck")
    activation: nn.Activation = Field("relu", description="relu, silu, leaky_relu or prelu")
    output: nn.Output = Field("linear", description="behind the decoder: linear, relu or sigmoid")
    sparse: float = Field(
        0.0, ge=0, description="weight of the mean activation of the bottleneck in the loss; dense only"
    )
    score: nn.Score = Field("mse", description="mse, mae or log_mae; dense only")
    loss: Literal["mse", "mae"] = Field("mse", description="what is minimised; dense only")
    channels: tuple[int, ...] = Field((8, 16), min_length=1, description="of the convolutions; images only")
    smear: float = Field(0.0, ge=0, description="pixels, Gaussian on both images before the error; images only")
    power: float = Field(1.0, gt=0, description="pixels are raised to it; images only")
    train: nn.TrainConfig = nn.TrainConfig(epochs=60)


def build(config: Config, data: nn.Skim) -> nn.Model:
    """Return an untrained model for the rows of a skim."""
    torch.manual_seed(config.train.seed)
    shape, feature = tuple(data.x.shape[1:]), config.feature
    if config.network == "image":
        _only_for("dense", config, ("sparse", "score", "loss", "preset", "preprocessing"))
        if len(shape) != 2 or shape[0] != shape[1]:
            raise ConfigError(
                f"network=image takes square images such as jet_images, but rows of {feature} are {shape}"
            )
        if "hidden" in config.model_fields_set and len(config.hidden) != 1:
            raise ConfigError("network=image has one dense layer on each side of the bottleneck: hidden is one number")
        dense = {"hidden": config.hidden[0]} if "hidden" in config.model_fields_set else {}
        activation = config.activation if "activation" in config.model_fields_set else "prelu"
        return nn.ImageAE(
            shape[0], channels=config.channels, latent=config.latent, activation=activation, output=config.output,
            smear=config.smear, transform=nn.PixelPower(shape[0] ** 2, config.power), **dense,
        )  # fmt: skip
    _only_for("image", config, ("channels", "smear", "power"))
    transform = config.transform(data)
    network = {name: getattr(config, name) for name in _NETWORK}
    if not config.preset:
        return nn.AE(transform.features, transform=transform, sparse=config.sparse, **network)
    written = {name: value for name, value in network.items() if name in config.model_fields_set}
    model = _PRESETS[config.preset](transform, sparse=config.sparse, **written)
    if model.features != transform.features:
        raise ConfigError(
            f"preset {config.preset} takes {model.features} inputs, but {feature} has {transform.features}"
        )
    return model


def _only_for(network: str, config: Config, names: tuple[str, ...]) -> None:
    wrong = [name for name in names if name in config.model_fields_set]
    if wrong:
        raise ConfigError(f"{wrong[0]} is an option of network={network} only")


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one model, and leave metrics, checkpoint and a plot in a folder."""
    model = build(config, data)
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    plots.training(history, model.plotted, folder / "training.png")
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one model for each of them."""
    folder = output.with_suffix("")
    data = config.rows(keep="auto", out_of_core=folder / "rows" if config.out_of_core else None)
    model, histories = nn.fit_folds(fit, config, data, folder, k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
