"""Pretrain: an encoder of sets that learns from background alone what its parts say of each other, and a score on it.

    coffea-ad run pretrain --config pretrain/masked.yaml data=skims/ -o masked.onnx
    coffea-ad run pretrain --config pretrain/distilled.yaml data=skims/ -o distilled.onnx score=mahalanobis
    coffea-ad run pretrain --config pretrain/masked.yaml data=skims/ -o likelihood.onnx score=direct

No anomalous views: nothing is assumed of a signal. The encoder is left in `masked/encoder`, for `pretrained=` and other scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.nn.training import plots


class Config(nn.EncoderConfig):
    """Data, encoder, task, both trainings."""

    task: Literal["masked", "distilled"] = Field(
        "masked", description="hidden objects are reconstructed; or distillation by the moving average of the encoder"
    )
    positive: tuple[str, ...] = Field(("rotation",), description="augmentations of what is trained on")
    augmentation: dict[str, Any] = Field({}, description="their keywords, such as soft_smear: {scale: 0.1}")
    hide: float = Field(0.5, gt=0, lt=1, description="largest part of pT that is hidden")
    components: int = Field(8, ge=1, description="masked: Gaussians for what is hidden")
    weighting: Literal["pt", "count"] = Field(
        "pt", description="masked: of the mean over constituents that is the score"
    )
    prototypes: int = Field(256, ge=2, description="distilled: of sets, and of objects")
    memory: float = Field(0.996, gt=0, lt=1, description="distilled: of the moving average, a batch")
    train: nn.TrainConfig = nn.TrainConfig(
        epochs=30, learning_rate=1e-3, schedule="cosine", clip_gradient=1.0, samples_per_epoch=20_000
    )


def build(config: Config, data: nn.Skim) -> nn.MaskedParticles | nn.SelfDistillation:
    """Return the untrained model."""
    unused = {"masked": {"prototypes", "memory"}, "distilled": {"components", "weighting"}}[
        config.task
    ] & config.model_fields_set
    if unused:
        raise ConfigError(f"{', '.join(sorted(unused))}: task={config.task} has no use for this key")
    shared: dict[str, Any] = {"largest": config.hide, "positive": config.positive, "options": config.augmentation}
    encoder = config.new_encoder(data)
    if config.task == "masked":
        return nn.MaskedParticles(encoder, components=config.components, weighting=config.weighting, **shared)
    return nn.SelfDistillation(encoder, prototypes=config.prototypes, memory=config.memory, **shared)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train an encoder and a score on it, and leave metrics, checkpoints and plots in a folder."""
    if config.task == "distilled" and config.score == "direct":
        raise ConfigError(
            "score=direct: a distilled encoder has no score by itself; take neighbours, cosine or mahalanobis"
        )
    place = folder if config.score == "direct" else folder / "encoder"
    model = build(config, data)
    if config.pretrained:
        model, history = config.pretrained_model(model)
    else:
        history = nn.fit(model, data, config.train, place, resume=config.begun(place))
        plots.training(history, model.plotted, place / "training.png")
    if config.score == "direct":
        return model, history
    score = config.new_score(model.encoder)
    of_score = nn.fit(score, data, config.score_train, folder, resume=config.begun(folder))
    of_score.measured["encoder"] = history.best
    return nn.Ensemble.of_epochs(score, of_score), of_score


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one encoder and one score for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
