"""CLR: an encoder of constituents or objects, trained by contrasting views, and a score on its representation.

    coffea-ad run clr --config clr/darkclr.yaml data=skims/ -o darkclr.onnx
    coffea-ad run clr --config clr/darkclr.yaml data=skims/ -o darkclr_ae.onnx pretrained=darkclr/encoder score=ae
    coffea-ad run clr --config clr/darkclr.yaml data=skims/ -o ddd.onnx loss=ddd score=direct

Views that must not matter (`positive`) and views that must (`anomalous`) are made of background alone. The encoder is left in
`darkclr/encoder`, so that other scores need not train it again; the file holds encoder and score as one graph.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from coffea_ad import nn
from coffea_ad.nn.training import plots


class Config(nn.EncoderConfig):
    """Data, encoder, views, loss, both trainings."""

    loss: Literal["nt_xent", "decoupled_clr", "anom_clr", "anom_clr_plus", "ddd"] = Field(
        "anom_clr_plus", description="ddd: a classifier of rows against their anomalous views, without a representation"
    )
    temperature: float = Field(0.1, gt=0)
    norm_weight: float = Field(1e-3, ge=0, description="of the mean |z|")
    positive: tuple[str, ...] = Field(
        ("rotation",), description="augmentations that must not matter, one after another"
    )
    anomalous: tuple[str, ...] = Field(("drop",), description="augmentations that must, one of them for each row")
    augmentation: dict[str, Any] = Field(
        {}, description="keywords of augmentations, such as drop: {probability: [0.1, 0.6]}"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the encoder while it trains")
    train: nn.TrainConfig = nn.TrainConfig(
        epochs=30, learning_rate=1e-3, schedule="cosine", clip_gradient=1.0, samples_per_epoch=20_000
    )


def build(config: Config, data: nn.Skim) -> nn.CLR | nn.DDD:
    """Return the untrained model."""
    shared: dict[str, Any] = {
        "positive": config.positive, "anomalous": config.anomalous, "options": config.augmentation,
        "precision": config.precision,
    }  # fmt: skip
    encoder = config.new_encoder(data)
    if config.loss == "ddd":
        return nn.DDD(encoder, **shared)
    return nn.CLR(encoder, loss=config.loss, temperature=config.temperature, norm_weight=config.norm_weight, **shared)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train an encoder and a score on it, and leave metrics, checkpoints and plots in a folder."""
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
