"""VAE: variational autoencoder, with a Gaussian or a Dirichlet prior, on jet substructure.

    coffea-ad run vae --config vae/svj.yaml data=skims/ -o vae.onnx
    coffea-ad run vae --config vae/dirichlet.yaml data=skims/ -o dvae.onnx score=kl

Score: reconstruction error, KL divergence, |μ|², the bound, or a mixture weight; none samples, so scores are reproducible.
Copy the file with `coffea-ad cp vae mine.py`, edit it, and run it by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.nn.training import plots


class Config(nn.RecipeConfig):
    """Data, network, prior, score, training."""

    prior: Literal["gaussian", "dirichlet"] = "gaussian"
    hidden: tuple[int, ...] = (10, 10)
    latent: int = Field(6, ge=1, description="latent units, or components of the mixture")
    activation: nn.Activation = "relu"
    beta: float = Field(0.01, ge=0, description="variance of the decoder, and so the weight of the KL term")
    warmup: int = Field(10, ge=0, description="epochs over which the weight of the KL term rises")
    score: Literal["reconstruction", "kl", "mu2", "elbo", "weight"] = "reconstruction"
    decoder_hidden: tuple[int, ...] | None = Field(
        None, description="mirrors `hidden` by default with the Gaussian prior, and is [] with the Dirichlet one"
    )
    alpha: float | tuple[float, ...] = Field(1.0, description="Dirichlet prior, one number or one a component")
    component: int = Field(-1, description="whose weight is the score, for score=weight")
    train: nn.TrainConfig = nn.TrainConfig(epochs=60)


def build(config: Config, data: nn.Skim) -> nn.VAE:
    """Return the untrained model."""
    torch.manual_seed(config.train.seed)
    transform = config.transform(data)
    shared: dict[str, Any] = {
        "hidden": config.hidden, "latent": config.latent, "activation": config.activation, "beta": config.beta,
        "warmup": config.warmup, "score": config.score, "transform": transform,
    }  # fmt: skip
    if config.decoder_hidden is not None:
        shared["decoder_hidden"] = config.decoder_hidden
    if config.prior == "dirichlet":
        return nn.DirichletVAE(transform.features, alpha=config.alpha, component=config.component, **shared)
    unused = {"alpha", "component"} & config.model_fields_set
    if unused:
        raise ConfigError(f"{', '.join(sorted(unused))}: only prior=dirichlet uses this key")
    return nn.VAE(transform.features, **shared)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one model, and leave metrics, checkpoint and a plot in a folder."""
    model = build(config, data)
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    plots.training(history, model.plotted, folder / "training.png")
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
