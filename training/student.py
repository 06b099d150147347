"""Student: a small network that learns the scores of a finished model, its teacher, and costs less.

    coffea-ad run student teacher=darkclr.onnx data=skims/ -o student.onnx
    coffea-ad run student --config student/jets.yaml teacher=darkclr.onnx data=skims/ -o student.onnx

Features and folds are those of the teacher's card. Of sets, such as the constituents of a jet, the student is an encoder with a
linear layer; of flat rows, a dense network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError
from coffea_ad.features.spec import FeatureConfig
from coffea_ad.nn.training import plots

UNUSED = {
    "encoder": {"hidden", "activation", "preprocessing"},
    "dense": {"preset", "encoder", "tokens"},
}


class Config(nn.SetConfig):
    """Data, teacher, network, training."""

    teacher: str = Field(description="a model file with its card")
    target: Literal["logp", "score"] = Field(
        "logp", description="−log10 of the background efficiency, or the score itself"
    )
    network: Literal["encoder", "dense"] | None = Field(
        None, description="encoder of sets, dense of flat rows, by default"
    )
    hidden: tuple[int, ...] = Field((128, 128), description="dense: widths")
    activation: nn.Activation = Field("relu", description="dense: between the layers")
    train: nn.TrainConfig = nn.TrainConfig(
        epochs=30, learning_rate=1e-3, schedule="cosine", clip_gradient=1.0, samples_per_epoch=20_000
    )


def of_teacher(config: Config, teacher: nn.Teacher) -> Config:
    """Return the configuration with the features and folds of the teacher."""
    folds, salt = (teacher.folds.k, teacher.folds.salt) if teacher.folds else (0, config.salt)
    if config.folds not in (0, folds) or ("salt" in config.model_fields_set and config.salt != salt):
        has = f"{folds} folds with salt {salt!r}" if folds else "no folds: it may have seen the events of each"
        raise ConfigError(f"folds: those of a student are its teacher's, and {teacher.path} has {has}")
    taken: dict[str, Any] = {"folds": folds, "salt": salt}
    if not {"feature", "features", "options"} & config.model_fields_set:
        first, *others = [FeatureConfig(name=f.name, options=f.options) for f in teacher.features]
        taken |= {"features": (first, *others)} if others else {"feature": first.name, "options": first.options}
    return config.model_copy(update=taken)


def build(config: Config, data: nn.Skim) -> nn.Student:
    """Return the untrained student."""
    network = config.network or ("encoder" if data.x.ndim == 3 and len(data.columns) == data.x.shape[2] else "dense")
    unused = UNUSED[network] & config.model_fields_set
    if unused:
        raise ConfigError(f"{', '.join(sorted(unused))}: network={network} has no use for this key")
    if network == "encoder":
        encoder = config.new_encoder(data)
        torch.manual_seed(config.train.seed)
        return nn.SetStudent(encoder)
    torch.manual_seed(config.train.seed)
    transform = config.transform(data)
    return nn.Student(transform.features, hidden=config.hidden, activation=config.activation, transform=transform)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one student, and leave metrics, checkpoint and a plot in a folder."""
    model = build(config, data)
    lesson = nn.Teacher(config.teacher).lesson(data, config.target)
    model.learn_from(lesson.targets)
    history = nn.fit(model, lesson.rows, config.train, folder, resume=config.resume)
    history.measured["left_out"] = lesson.left_out
    plots.training(history, model.plotted, folder / "training.png")
    return nn.Ensemble.of_epochs(model, history), history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with the folds of a teacher, one student for each of them."""
    teacher = nn.Teacher(config.teacher)
    config = of_teacher(config, teacher)
    data = teacher.named_in(config.rows())
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    left_out = [history.measured["left_out"] for history in histories]
    told = [f"{n} rows without a score of the teacher are left out" for n in left_out if n]
    return {**nn.publish(model, data, config, histories, output), "told": told}
