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
from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError
from coffea_ad.nn.training import plots
from coffea_ad.skims import WeightMode


class Config(Frozen):
    """Data, network, prior, score, training."""

    data: str = Field(description="folder of a skim")
    datasets: tuple[str, ...] = Field((), description="the background; all datasets of the skim by default")
    feature: str = "jet_substructure"
    options: dict[str, Any] = {}
    weights: WeightMode = "xsec"
    filters: tuple[tuple[str, str, Any], ...] = Field((), description='rows to keep, such as ["met", ">", 100]')
    preprocessing: nn.Preprocessing = "quantile"
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
    efficiencies: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    resume: bool = False
    train: nn.TrainConfig = nn.TrainConfig(epochs=60)


def build(config: Config, columns: list[str]) -> nn.VAE:
    """Return the untrained model."""
    torch.manual_seed(config.train.seed)
    shared: dict[str, Any] = {
        "hidden": config.hidden, "latent": config.latent, "activation": config.activation, "beta": config.beta,
        "warmup": config.warmup, "score": config.score,
        "transform": nn.preprocessing(config.preprocessing, columns),
    }  # fmt: skip
    if config.decoder_hidden is not None:
        shared["decoder_hidden"] = config.decoder_hidden
    if config.prior == "dirichlet":
        return nn.DirichletVAE(len(columns), alpha=config.alpha, component=config.component, **shared)
    unused = {"alpha", "component"} & config.model_fields_set
    if unused:
        raise ConfigError(f"{', '.join(sorted(unused))}: only prior=dirichlet uses this key")
    return nn.VAE(len(columns), **shared)


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train, export to `output`, and leave metrics, checkpoint and a figure in the folder of the same name."""
    data = nn.load_skim(
        config.data, config.feature, config.options,
        datasets=config.datasets, weights=config.weights, filters=config.filters,
    )  # fmt: skip
    model = build(config, [column.name for column in data.feature.columns])

    folder = output.with_suffix("")
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    best = min(history, key=lambda row: row.get("smoothed", row[model.criterion]))

    card = nn.make_card(
        model,
        data,
        name=output.stem,
        config=config.model_dump(mode="json"),
        metrics=best,
        efficiencies=config.efficiencies,
    )
    nn.export(model, output, card, data.splits("test", "validation").x)
    plots.training(history, model.figures, folder / "training.png", best=int(best["epoch"]))
    return {"best": best, "regions": [r.name for r in card.regions], "n_effective": data.provenance["n_effective"]}
