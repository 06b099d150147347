"""Flow: the density of the background by a normalising flow; the score is −ln p(x), or −ln p(x | m).

    coffea-ad run flow --config flow/svj.yaml data=skims/ -o flow.onnx
    coffea-ad run flow --config flow/svj.yaml data=skims/ -o flow.onnx 'context=[mass]' kind=maf transforms=5
    coffea-ad run flow --config flow/svj.yaml data=skims/ -o rare.onnx svdd=40

With svdd a Deep SVDD is trained beside it, and the score is the mean of both ranks: rare and different. Otherwise the densities of
the kept epochs are averaged.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from coffea_ad import nn
from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.nn.training import plots


class Config(nn.RecipeConfig):
    """Data, flow, training."""

    preprocessing: nn.Preprocessing = "logit"
    kind: Literal["maf", "nsf"] = Field("nsf", description="affine maps, or rational-quadratic splines")
    coupling: bool = Field(False, description="half of the columns given the others: sampling takes two passes a map")
    context: tuple[str, ...] = Field((), description="conditions: columns m of p(x | m)")
    transforms: int = Field(3, ge=1, description="maps, one after another")
    hidden: tuple[int, ...] = (64, 64)
    bins: int = Field(8, ge=2, description="of a spline")
    bound: float = Field(5.0, gt=0, description="splines reach from -bound to bound in transformed inputs")
    base: Literal["gaussian", "uniform"] = Field("gaussian", description="uniform: nsf on the box of the training rows")
    outside: Literal["clamp", "undefined"] = Field(
        "clamp", description="a row outside the box of the training rows: score of the nearest point, or none"
    )
    svdd: int = Field(
        0, ge=0, description="epochs of a Deep SVDD beside the flow, and the mean of ranks as score; 0: none"
    )
    train: nn.TrainConfig = nn.TrainConfig(
        epochs=30, batch_size=512, learning_rate=1e-3, schedule="cosine", clip_gradient=1.0, keep=5
    )


def build(config: Config, data: nn.Skim) -> nn.Flow:
    """Return the untrained flow."""
    torch.manual_seed(config.train.seed)
    columns = data.columns
    for name in config.context:
        if name not in columns:
            raise ConfigError("context: " + unknown_text("column", name, columns))
    return nn.Flow(
        len(columns), kind=config.kind, coupling=config.coupling, context=[columns.index(name) for name in config.context],
        transforms=config.transforms, hidden=config.hidden, bins=config.bins, bound=config.bound, base=config.base,
        outside=config.outside, transform=nn.preprocessing(config.preprocessing, columns),
    )  # fmt: skip


def different(config: Config, flow: nn.Scorable, data: nn.Skim, folder: Path) -> nn.Ensemble:
    """Train a Deep SVDD on the same rows, and return the mean of its rank and the flow's in the validation rows."""
    columns = data.columns
    model = nn.DeepSVDD(len(columns), transform=nn.preprocessing("quantile", columns))
    short = config.train.model_copy(update={"epochs": config.svdd, "keep": 1})
    nn.fit(model, data, short, folder / "svdd", resume=config.resume)
    rows = data.splits("validation")
    return nn.Ensemble.with_ranks([flow, model], np.asarray(rows.x), rows.event_weight)


def fit(config: Config, data: nn.Skim, folder: Path) -> tuple[nn.Scorable, nn.History]:
    """Train one model, and leave metrics, checkpoint and a plot in a folder."""
    model = build(config, data)
    history = nn.fit(model, data, config.train, folder, resume=config.resume)
    plots.training(history, model.plotted, folder / "training.png")
    flow = nn.Ensemble.of_epochs(model, history)
    return different(config, flow, data, folder) if config.svdd else flow, history


def train(config: Config, output: Path) -> dict[str, Any]:
    """Train on a skim and export to `output`; with `folds`, one model for each of them."""
    data = config.rows()
    model, histories = nn.fit_folds(fit, config, data, output.with_suffix(""), k=config.folds, salt=config.salt)
    return nn.publish(model, data, config, histories, output)
