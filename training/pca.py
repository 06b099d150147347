"""PCA and kernel PCA: the score is the distance from the leading directions of the data, or the Mahalanobis distance.

    coffea-ad run pca --config pca/svj.yaml data=skims/ -o pca.onnx
    coffea-ad run pca --config pca/svj.yaml data=skims/ kind=kernel_pca components=16 -o kernel_pca.onnx

Nothing is trained by gradients: of `train`, only validation_rows, seed and device count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError


class Config(nn.RecipeConfig):
    """Data, preprocessing, directions."""

    kind: Literal["pca", "kernel_pca"] = "pca"
    components: int = Field(4, ge=1, description="directions that are kept")
    score: nn.PCAScore = Field("reconstruction", description="of pca: reconstruction or mahalanobis")
    kernel: Literal["rbf", "polynomial"] = Field("rbf", description="of kernel_pca")
    gamma: float | None = Field(None, gt=0, description="of the kernel; by default the median heuristic, or 1/columns")
    degree: int = Field(3, ge=1, description="of the polynomial kernel")
    landmarks: int = Field(500, ge=2, description="training rows that carry the kernel")


def build(config: Config, data: nn.Skim) -> nn.PCA | nn.KernelPCA:
    """Return a model that is not fitted yet."""
    transform = config.transform(data)
    d = transform.features
    if config.kind == "kernel_pca":
        if config.score != "reconstruction":
            raise ConfigError(f"kernel_pca has no score {config.score!r}; it gives the reconstruction error")
        return nn.KernelPCA(
            d, components=config.components, kernel=config.kernel, gamma=config.gamma, degree=config.degree,
            landmarks=config.landmarks, transform=transform,
        )  # fmt: skip
    if config.score == "mahalanobis":
        return nn.PCA(d, components=d, score="mahalanobis", transform=transform)
    if config.components >= d:
        raise ConfigError(
            f"components is {config.components}: with all {d} columns, no row is ever far from the directions"
        )
    return nn.PCA(d, components=config.components, transform=transform)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Fit one model, and leave metrics and checkpoint in a folder."""
    model = build(config, data)
    return model, nn.fit(model, data, config.train, folder)


def train(config: Config, output: Path) -> dict[str, Any]:
    """Fit to a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
