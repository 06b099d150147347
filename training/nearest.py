"""Distances from a background without a network: nearest neighbours, Mahalanobis, a Gaussian mixture.

    coffea-ad run nearest --config nearest/svj.yaml data=skims/ -o nearest.onnx
    coffea-ad run nearest --config nearest/svj.yaml data=skims/ score=mahalanobis -o mahalanobis.onnx
    coffea-ad run nearest --config nearest/svj.yaml data=skims/ score=mixture components=8 -o mixture.onnx

Nothing is trained by gradients: of `train`, only validation_rows, seed and device count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError

_KEYS = {
    "neighbours": ("how", "metric", "k", "bank"),
    "cosine": ("temperature", "bank"),
    "mahalanobis": ("shrinkage",),
    "mixture": ("components", "covariance", "floor"),
}


class Config(nn.RecipeConfig):
    """Data, preprocessing, score."""

    preprocessing: nn.Preprocessing = "standard"
    score: Literal["neighbours", "cosine", "mahalanobis", "mixture"] = Field(
        "neighbours", description="a distance from nearest rows, the cosines to all rows of the bank, or a distribution"
    )
    how: Literal["mean", "kth"] = Field("mean", description="neighbours: mean distance, or that of the k-th")
    metric: Literal["euclidean", "cosine"] = Field("euclidean", description="neighbours")
    k: int = Field(30, ge=1, description="neighbours: so many")
    bank: int = Field(20_000, ge=1, le=50_000, description="neighbours, cosine: training rows that the file holds")
    temperature: float = Field(0.1, gt=0, description="cosine: of −ln mean exp(cos/temperature)")
    shrinkage: Literal["ledoit_wolf"] | float = Field(
        "ledoit_wolf", description="mahalanobis: of the covariance, 0 to 1, or from the rows"
    )
    components: int = Field(4, ge=1, description="mixture: number of normal distributions")
    covariance: Literal["full", "diag"] = Field("full", description="mixture: with correlations or without")
    floor: float = Field(1e-4, gt=0, description="mixture: smallest variance of a transformed column")


def build(config: Config, data: nn.Skim) -> nn.Neighbours | nn.Mahalanobis | nn.GaussianMixture:
    """Return a model that is not fitted yet."""
    unused = {key for keys in _KEYS.values() for key in keys} - set(_KEYS[config.score])
    if wrong := sorted(unused & config.model_fields_set):
        raise ConfigError(f"{', '.join(wrong)}: score={config.score} has no use for this key")
    transform = config.transform(data)
    options: dict[str, Any] = {key: getattr(config, key) for key in _KEYS[config.score]}
    if config.score == "mahalanobis":
        return nn.Mahalanobis(transform.features, transform=transform, **options)
    if config.score == "mixture":
        return nn.GaussianMixture(transform.features, transform=transform, **options)
    if config.score == "cosine":
        options |= {"how": "logsumexp", "k": 1}
    return nn.Neighbours(transform.features, transform=transform, **options)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Fit one model, and leave metrics and checkpoint in a folder."""
    model = build(config, data)
    return model, nn.fit(model, data, config.train, folder)


def train(config: Config, output: Path) -> dict[str, Any]:
    """Fit to a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
