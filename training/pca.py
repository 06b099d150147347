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
from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError
from coffea_ad.skims import WeightMode


class Config(Frozen):
    """Data, preprocessing, directions."""

    data: str = Field(description="folder of a skim")
    datasets: tuple[str, ...] = Field((), description="the background; all datasets of the skim by default")
    feature: str = "jet_substructure"
    options: dict[str, Any] = {}
    weights: WeightMode = "xsec"
    filters: tuple[tuple[str, str, Any], ...] = Field((), description='rows to keep, such as ["met", ">", 100]')
    preprocessing: nn.Preprocessing = "quantile"
    kind: Literal["pca", "kernel_pca"] = "pca"
    components: int = Field(4, ge=1, description="directions that are kept")
    score: nn.PCAScore = Field("reconstruction", description="of pca: reconstruction or mahalanobis")
    kernel: Literal["rbf", "polynomial"] = Field("rbf", description="of kernel_pca")
    gamma: float | None = Field(None, gt=0, description="of the kernel; by default the median heuristic, or 1/columns")
    degree: int = Field(3, ge=1, description="of the polynomial kernel")
    landmarks: int = Field(500, ge=2, description="training rows that carry the kernel")
    efficiencies: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
    train: nn.TrainConfig = nn.TrainConfig()


def build(config: Config, columns: list[str]) -> nn.PCA | nn.KernelPCA:
    """Return a model that is not fitted yet."""
    transform, d = nn.preprocessing(config.preprocessing, columns), len(columns)
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


def train(config: Config, output: Path) -> dict[str, Any]:
    """Fit, export to `output`, and leave the metrics in the folder of the same name."""
    data = nn.load_skim(
        config.data, config.feature, config.options,
        datasets=config.datasets, weights=config.weights, filters=config.filters,
    )  # fmt: skip
    if data.x.ndim != 2:
        raise ConfigError(f"feature {config.feature} has rows of shape {data.x.shape[1:]}; a PCA takes flat rows")
    model = build(config, [c.name for c in data.feature.columns])
    best = nn.fit(model, data, config.train, output.with_suffix(""))[0]

    card = nn.make_card(
        model,
        data,
        name=output.stem,
        config=config.model_dump(mode="json"),
        metrics=best,
        efficiencies=config.efficiencies,
    )
    nn.export(model, output, card, data.splits("test", "validation").x)
    return {"best": best, "regions": [r.name for r in card.regions], "n_effective": data.provenance["n_effective"]}
