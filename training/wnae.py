"""WNAE: Wasserstein normalised autoencoder; the score is the energy of a density fitted to the data.

    coffea-ad run wnae --config wnae/svj.yaml data=skims/ -o wnae.onnx train.epochs=50

Persistent Langevin chains; the epoch with the smallest excess of the Wasserstein distance over its finite-sample floor is
kept, which no signal has a say in. Afterwards the chains run on at frozen weights: `long_run.png` says whether the energy
models the data, or only where short chains begin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.nn.energy_based.report import report_chains


class Config(nn.ChainConfig):
    """Data, network, chains, loss, training."""

    distance: Literal["w2_squared", "w1", "sliced"] = Field(
        "w2_squared", description="the loss: W₂², W₁, or a sliced W₂²"
    )
    grad_steps: int | None = Field(1, description="the gradient flows through the last so many steps; null: all")
    contrast: float = Field(0.0, ge=0, description="weight of the gradient of the likelihood, which is that of an NAE")
    energy_weight: float = Field(0.0, ge=0, description="weight of the squared energies of data and chains")
    smear: float = Field(0.2, ge=0, description="noise on the training data, in units of their mean spread")


def build(config: Config, data: nn.Skim) -> nn.WNAE:
    """Return an untrained model."""
    torch.manual_seed(config.train.seed)
    transform = config.transform(data)
    return nn.WNAE(
        transform.features, transform=transform, distance=config.distance, grad_steps=config.grad_steps, contrast=config.contrast, **config.chains(),
    )  # fmt: skip


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one model, and leave metrics, checkpoint and plots in a folder."""
    model = build(config, data)
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    report_chains(model, data, history, folder, steps=config.long_run, seed=config.train.seed)
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
