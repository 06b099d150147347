"""NAE: normalised autoencoder; the score is the energy of a density fitted to the data by maximum likelihood.

    coffea-ad run nae --config nae/svj.yaml data=skims/ -o nae.onnx train.epochs=50
    coffea-ad run nae --config nae/smeared.yaml data=skims/ -o nae.onnx         noise on the data, no autoencoder before

An autoencoder is trained first, then its energy is normalised by Langevin chains. An epoch that diverges is undone and
tried again at half the learning rate; the epoch with the smallest excess of the Wasserstein distance over its finite-sample
floor is kept. Afterwards the chains run on at frozen weights: `long_run.png` says whether the energy models the data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.nn.energy_based.report import report_chains


class Config(nn.ChainConfig):
    """Data, network, chains, loss, both trainings."""

    log_cosh: bool = Field(False, description="loss log cosh of the difference of energies, instead of the difference")
    spectral_norm: bool = Field(False, description="largest singular value 1 for all layers but the last ones")
    warmup: nn.TrainConfig | None = Field(
        nn.TrainConfig(epochs=20), description="training of the autoencoder before; null: none"
    )


def build(config: Config, data: nn.Skim) -> nn.NAE:
    """Return an untrained model."""
    torch.manual_seed(config.train.seed)
    transform = config.transform(data)
    return nn.NAE(
        transform.features, transform=transform, log_cosh=config.log_cosh, spectral_norm=config.spectral_norm, **config.chains(),
    )  # fmt: skip


def autoencoder(config: Config, warmup: nn.TrainConfig, data: nn.Skim, folder: Path) -> nn.AE:
    """Train an autoencoder of the same layers for a start."""
    torch.manual_seed(config.train.seed)
    transform = config.transform(data)
    model = nn.AE(
        transform.features,
        transform=transform,
        hidden=config.hidden,
        latent=config.latent,
        activation=config.activation,
    )
    short = warmup.model_copy(update={"seed": config.train.seed, "device": config.train.device})
    nn.fit(model, data, short, folder / "warmup")
    return model


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one model, and leave metrics, checkpoint and plots in a folder."""
    model = build(config, data)
    if config.warmup is not None and not config.resume:
        model.load_weights_from(autoencoder(config, config.warmup, data, folder))
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    report_chains(model, data, history, folder, steps=config.long_run, seed=config.train.seed)
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
