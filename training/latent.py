"""Latent: a score on the output vector of a network that was made elsewhere, such as Sophon; the network stays as it is.

    coffea-ad run latent --config latent/sophon.yaml data=skims/ network=sophon.onnx -o mahalanobis.onnx
    coffea-ad run latent --config latent/sophon.yaml data=skims/ network=sophon.onnx score=wnae -o wnae.onnx
    coffea-ad run latent --config latent/sophon.yaml data=skims/ network=sophon.onnx score=neighbours 'scorer={k: 50}' -o knn.onnx

`inputs`, `variables` and `layout` say how its inputs are made of the columns of a feature. The file holds all of it as one graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coffea_ad import nn


class Config(nn.LatentConfig):
    """Data, network, its inputs, score."""


def build(config: Config, data: nn.Skim) -> nn.Model:
    """Return the untrained score, for a skim of latent vectors."""
    return config.new_score(data)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train a score on latent vectors, and leave metrics and checkpoint in a folder."""
    model = build(config, data)
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Run the network over a skim, train on its vectors, and export both to `output`; with `folds`, one score for each of them."""
    data = config.rows()
    network, latent = config.vectors(data)
    model, histories = nn.fit_folds(fit, config, latent, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, latent, config, histories, output, network=network, inputs=data)
