"""The training loop: visible, seeded, resumable to the bit."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.autoencoder import AE
from coffea_ad.nn.transforms import QuantileNormal
from coffea_ad.progress import progress
from coffea_ad.skims import Skim
from coffea_ad.weights import n_effective

__all__ = ["TrainConfig", "fit"]


class TrainConfig(BaseModel):
    """How to train; all models share it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=2)
    samples_per_epoch: int = Field(
        8192, ge=2, description="rows drawn per epoch, with replacement, in proportion to |w|"
    )
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    plateau_patience: int = Field(
        20, ge=1, description="epochs without improvement before the rate is multiplied by 0.8"
    )
    stop_patience: int = Field(1000, ge=1, description="epochs without improvement before training stops")
    validation_rows: int = Field(2000, ge=4, description="held-out rows, drawn once in proportion to |w|")
    seed: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no GPU")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def _draw(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw n rows with replacement in proportion to their weights; `torch.multinomial` ends at 2²⁴ rows."""
    total = torch.cumsum(weight, 0)
    u = torch.rand(n, generator=generator, device=weight.device, dtype=weight.dtype) * total[-1]
    return torch.searchsorted(total, u, right=True).clamp_(max=len(weight) - 1)


def _held_out(z: Tensor, weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw two halves from disjoint rows, no more than the effective number of rows can tell apart."""
    order = torch.randperm(len(z), generator=generator, device=z.device)
    half = min(n // 2, max(2, int(n_effective(weight.cpu().numpy()) / 4)))
    pools = order[0::2], order[1::2]
    return torch.cat([z[pool][_draw(weight[pool], half, generator)] for pool in pools])


def _fingerprint(model: AE, data: Skim, config: TrainConfig) -> str:
    """Tell trainings apart: what a checkpoint must share with the run that goes on from it."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    own = config.model_dump(exclude={"epochs", "stop_patience", "device"})
    rows = hashlib.sha256(data.x.tobytes() + data.weight.tobytes()).hexdigest()
    return hashlib.sha256(json.dumps([type(model).__name__, shapes, own, rows], sort_keys=True).encode()).hexdigest()


def _generator(seed: int, stream: int, device: torch.device) -> torch.Generator:
    state = int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0])
    return torch.Generator(device).manual_seed(state & 0x7FFFFFFFFFFFFFFF)


def fit(
    model: AE, data: Skim, config: TrainConfig, folder: str | Path | None = None, *, resume: bool = False
) -> list[dict[str, float]]:
    """Train a model on the "train" rows of a skim and keep the epoch with the best validation figure.

    Negative weights are left out of training; the skim's provenance says what that costs. Each epoch is written to
    `metrics.jsonl` and `checkpoint.pt` in `folder`; with `resume`, 2 + 2 epochs give what 4 epochs give, to the bit.

    Parameters
    ----------
    model : AE
        Or any of its kin; its transform is fitted here if it is a `QuantileNormal`.
    data : Skim
        Train and validation rows.
    config : TrainConfig
    folder : path, optional
        Where checkpoint and metrics go.
    resume : bool
        Go on from the checkpoint in `folder`.

    Returns
    -------
    list of dict
        One row per epoch.

    Raises
    ------
    SkimError
        Too few rows.
    ConfigError
        No GPU, or no checkpoint to resume from.
    """
    device = _device(config.device)
    rows = {}
    for name in ("train", "validation"):
        part = data.part(name)
        positive = part.weight > 0
        if positive.sum() < 10:
            raise SkimError(f"the skim has {positive.sum()} {name} rows with positive weight; at least 10 are needed")
        rows[name] = part.select(positive)
    if isinstance(model.transform, QuantileNormal):
        model.transform.fit(rows["train"].x, rows["train"].weight)
    model.to(device)
    with torch.no_grad():
        z = {k: model.transform(torch.from_numpy(v.x).to(device)) for k, v in rows.items()}
    weight = {k: torch.from_numpy(v.weight).to(device) for k, v in rows.items()}

    generator = _generator(config.seed, 0, device)
    held_out = _held_out(
        z["validation"], weight["validation"], config.validation_rows, _generator(config.seed, 1, device)
    )
    fingerprint = _fingerprint(model, data, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.8, patience=config.plateau_patience, threshold=1e-3, cooldown=10
    )
    history: list[dict[str, float]] = []
    best: dict[str, Any] = {"value": float("inf"), "epoch": -1, "state": copy.deepcopy(model.state_dict())}
    out = Path(folder) if folder is not None else None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if resume:
        if out is None or not (out / "checkpoint.pt").exists():
            raise ConfigError(f"there is no checkpoint to resume from in {out}")
        saved = torch.load(out / "checkpoint.pt", map_location=device, weights_only=True)
        if saved["fingerprint"] != fingerprint:
            raise ConfigError(f"the checkpoint in {out} belongs to other data, another network or other settings")
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        scheduler.load_state_dict(saved["scheduler"])
        generator.set_state(saved["generator"].cpu())
        history, best = saved["history"], saved["best"]
    else:
        model.start(z["train"], generator)

    with progress(f"train {model.method}", config.epochs) as advance:
        advance(len(history))
        for epoch in range(len(history), config.epochs):
            row = {"epoch": float(epoch), **_epoch(model, optimizer, z["train"], weight["train"], config, generator)}
            model.eval()
            row |= model.validate(held_out, _generator(config.seed, 2, device))
            value = row[model.criterion]
            if not math.isfinite(row["loss"] + value):
                if best["epoch"] < 0:
                    raise ConfigError(f"training diverged in epoch {epoch}: lower train.learning_rate")
                warnings.warn(f"training diverged in epoch {epoch}; epoch {best['epoch']} is kept", stacklevel=2)
                break
            row["learning_rate"] = optimizer.param_groups[0]["lr"]
            scheduler.step(value)
            history.append(row)
            if value < best["value"]:
                best = {"value": value, "epoch": epoch, "state": copy.deepcopy(model.state_dict())}
            if out is not None:
                _save(out, model, optimizer, scheduler, generator, history, best, fingerprint)
            advance(1, note=f"{model.criterion} {value:.4g} (best {best['value']:.4g})")
            if epoch - best["epoch"] >= config.stop_patience:
                break
    model.load_state_dict(best["state"])
    model.eval()
    return history


def _epoch(
    model: AE,
    optimizer: torch.optim.Optimizer,
    z: Tensor,
    weight: Tensor,
    config: TrainConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    model.train()
    index = _draw(weight, config.samples_per_epoch, generator)
    sums: dict[str, float] = {}
    batches = index.split(config.batch_size)
    for batch in batches:
        figures = model.training_loss(z[batch], generator)
        optimizer.zero_grad()
        figures["loss"].backward()
        optimizer.step()
        for name, value in figures.items():
            sums[name] = sums.get(name, 0.0) + value.item() / len(batches)
    return sums


def _save(
    out: Path, model: AE, optimizer: Any, scheduler: Any, generator: torch.Generator,
    history: list[dict[str, float]], best: Mapping[str, Any], fingerprint: str,
) -> None:  # fmt: skip
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "generator": generator.get_state(),
        "history": history,
        "best": dict(best),
        "fingerprint": fingerprint,
    }
    torch.save(state, out / "checkpoint.pt.part")
    (out / "checkpoint.pt.part").replace(out / "checkpoint.pt")
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in history))
