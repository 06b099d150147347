"""The training loop: visible, seeded, resumable to the bit."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import math
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from coffea_ad import files
from coffea_ad.config import Frozen
from coffea_ad.errors import ConfigError, SkimError
from coffea_ad.nn.described import describe
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.training.batches import IN_MEMORY, TrainingRows, fit_transform, held_out_rows, sample_rows, seeded
from coffea_ad.nn.training.history import Epoch, History
from coffea_ad.nn.training.sample import refuse_signals, sample_in_words
from coffea_ad.progress import progress, say
from coffea_ad.skims.skim import Skim
from coffea_ad.weights import n_effective

__all__ = ["TrainConfig", "fit"]

_START_ROWS = 50_000
_MODULES = 1000  # streams of the seed from here on, one an epoch, are what modules draw without a generator


class TrainConfig(Frozen):
    """How to train; all models share it."""

    epochs: int = Field(50, ge=1)
    batch_size: int = Field(256, ge=2)
    samples_per_epoch: int = Field(
        8192, ge=2, description="rows sampled per epoch, with replacement, in proportion to |w|"
    )
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["plateau", "cosine", "constant"] = Field(
        "plateau",
        description="plateau: × 0.8 after plateau_patience epochs without improvement; cosine: to 0 at the end",
    )
    plateau_patience: int = Field(
        20, ge=1, description="epochs without improvement before the rate is multiplied by 0.8"
    )
    stop_patience: int = Field(1000, ge=1, description="epochs without improvement before training stops")
    smoothing: int = Field(
        1, ge=1, description="epochs over which the validation metric is averaged before it is judged"
    )
    average: float = Field(
        0.0, ge=0, lt=1, description="weights are a moving average with this memory per batch; 0: no averaging"
    )
    clip_gradient: float = Field(0.0, ge=0, description="largest norm of the gradient; 0: not clipped")
    rollbacks: int = Field(
        3, ge=0, description="how often a diverged epoch is undone and tried again at half the learning rate"
    )
    keep: int = Field(1, ge=1, description="so many of the best epochs are kept; of more than one, scores are averaged")
    validation_rows: int = Field(2000, ge=4, description="held-out rows, sampled once in proportion to |w|")
    seed: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device is cuda, but torch finds no GPU")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))


def _fingerprint(model: Model, data: Skim, config: TrainConfig) -> str:
    """Tell trainings apart: what a checkpoint must share with the run that goes on from it."""
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    length = set() if config.schedule == "cosine" or model.needs_epochs else {"epochs"}
    settings = config.model_dump(exclude={"stop_patience", "device", *length})
    rows = hashlib.sha256(data.weight.tobytes())
    if data.label is not None:
        rows.update(data.label.tobytes())
    for start in range(0, len(data.weight), 4096):
        rows.update(data.x[start : start + 4096].tobytes())
    identity = [model.settings(), shapes, settings, rows.hexdigest()]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()


class _Training:
    """A model with all that changes while it trains."""

    def __init__(self, model: Model, config: TrainConfig, device: torch.device) -> None:
        self.model, self.config = model, config
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.trainable = bool(parameters)
        self.optimizer = torch.optim.AdamW(
            parameters or [torch.zeros(1)], lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, factor=0.8, patience=config.plateau_patience,
            threshold=0.0, threshold_mode="abs", cooldown=10,
        )  # fmt: skip
        self.generator = seeded(config.seed, 0, device)
        self.scale = 1.0
        self.untrained: dict[str, float] = {}
        self.average: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.best: list[Epoch] = []

    def state(self) -> dict[str, Any]:
        """Return all that another process needs to go on to the bit."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": self.plateau.state_dict(),
            "generator": self.generator.get_state(),
            "scale": self.scale,
            "untrained": self.untrained,
            "average": self.average,
            "history": self.history,
            "best": [epoch._asdict() for epoch in self.best],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])
        self.generator.set_state(state["generator"].cpu())
        self.scale, self.average = state["scale"], dict(state["average"])
        self.untrained = dict(state.get("untrained", {}))
        self.history, self.best = list(state["history"]), [Epoch(**epoch) for epoch in state["best"]]

    def epoch(self, rows: TrainingRows) -> dict[str, float]:
        """Go once through as many rows as an epoch has; return the means of the training metrics.

        What a module draws without a generator, such as dropout, is the same again if the epoch is.
        """
        cuda = [self.generator.device] if self.generator.device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(
                seeded(self.config.seed, _MODULES + len(self.history), torch.device("cpu")).initial_seed()
            )
            return self._epoch(rows)

    def _epoch(self, rows: TrainingRows) -> dict[str, float]:
        epoch, config = len(self.history), self.config
        if config.schedule == "cosine":
            rate = config.learning_rate * self.scale * 0.5 * (1 + math.cos(math.pi * epoch / config.epochs))
            self.optimizer.param_groups[0]["lr"] = rate
        self.model.train()
        self.model.begin_epoch(epoch, config.epochs)
        reported: dict[str, list[float]] = {}
        batches = sample_rows(rows.weight, config.samples_per_epoch, self.generator).split(config.batch_size)
        for batch in batches if self.trainable else ():
            metrics = self.model.training_loss(rows[batch], self.generator)
            self.optimizer.zero_grad()
            metrics["loss"].backward()
            if config.clip_gradient > 0:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_gradient)
            self.optimizer.step()
            self._move_average()
            for name, value in metrics.items():
                reported.setdefault(name, []).append(value.item())
            if not math.isfinite(reported["loss"][-1]):
                break
        return {name: sum(values) / len(values) for name, values in reported.items()} or {"loss": 0.0}

    def _move_average(self) -> None:
        memory = self.config.average
        if memory > 0:
            for name, value in self.model.named_parameters():
                old = self.average.setdefault(name, value.detach().clone())
                old.lerp_(value.detach(), 1 - memory)

    def exhausted(self) -> bool:
        """Say whether the last epochs have brought nothing."""
        last = self.best[0].number if self.best else -1
        return len(self.history) - 1 - last >= self.config.stop_patience

    def averaged(self) -> dict[str, Tensor]:
        """Return the state of the model that is judged and kept."""
        return {**self.model.state_dict(), **self.average}


def fit(
    model: Model, data: Skim, config: TrainConfig, folder: str | Path | None = None, *, resume: bool = False
) -> History:
    """Train a model on the "train" rows of a skim and keep the epoch with the best validation figure.

    Negative weights are left out of training; the skim's provenance says what that costs. Each epoch is written to
    `metrics.jsonl` and `checkpoint.pt` in `folder`; with `resume`, 2 + 2 epochs give what 4 epochs give, to the bit.
    An epoch that diverges is undone and tried again at half the learning rate. A model without parameters, such as a
    PCA, is fitted and validated once.

    Parameters
    ----------
    model : Model
        Its transform is fitted here if it is a `Transform`.
    data : Skim
        Train and validation rows; `x` may be anything that gives float32 rows for an array of places.
    config : TrainConfig
    folder : path, optional
        Where checkpoint and metrics go.
    resume : bool
        Go on from the checkpoint in `folder`.

    Returns
    -------
    History
        The metrics of every epoch, and the best epochs; the model has the weights of the best.

    Raises
    ------
    SkimError
        Too few rows, rows of another shape than the model takes, or a signal among datasets that nobody has asked for.
    ConfigError
        No GPU, no checkpoint to resume from, or the training diverged again and again.
    """
    device = _device(config.device)
    if tuple(data.x.shape[1:]) != tuple(model.shape):
        raise SkimError(f"rows of the skim have the shape {tuple(data.x.shape[1:])}, the model takes {model.shape}")
    refuse_signals(data)
    rows = {name: TrainingRows(data, name, device) for name in ("train", "validation")}
    say(f"{model.method} trains on {sample_in_words(data)}")
    fit_transform(model, rows["train"], config.seed)
    model.to(device)
    model.transform.eval()
    for part in rows.values():
        part.transform(model)
    held_out = held_out_rows(rows["validation"], config.validation_rows, seeded(config.seed, 1, device))
    effective = n_effective(rows["validation"].weight.cpu().numpy())
    if effective < model.needs_rows:
        warnings.warn(
            f"the validation rows have an effective number of {effective:.0f}: below {model.needs_rows} noise has a say in "
            f"which epoch is kept; the error of {model.criterion} stands beside it in the metrics",
            stacklevel=2,
        )
    training = _Training(model, config, device)
    fingerprint = _fingerprint(model, data, config)
    out = Path(folder) if folder is not None else None
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    if resume:
        training.restore(_load(out, fingerprint, device))
    else:
        model.learn(rows["train"].blocks())
        n = min(len(rows["train"].weight), _START_ROWS, IN_MEMORY // (16 * math.prod(model.shape)))
        model.start(rows["train"][sample_rows(rows["train"].weight, n, training.generator)], training.generator)
        if training.trainable and model.criterion == "validation":  # other metrics have a scale of their own
            training.untrained = {"untrained": _judge(training, held_out, seeded(config.seed, 2, device))["validation"]}

    epochs = config.epochs if training.trainable else 1
    last_good, undone = copy.deepcopy(training.state()), 0
    with progress(f"train {model.method}", epochs) as advance:
        advance(len(training.history))
        while len(training.history) < epochs and not training.exhausted():
            epoch = len(training.history)
            row = {"epoch": float(epoch), **training.epoch(rows["train"])}
            row |= {**_judge(training, held_out, seeded(config.seed, 2, device)), **training.untrained}
            value = row[model.criterion]
            if not math.isfinite(row["loss"] + value) or model.diverged(row):
                if undone == config.rollbacks:
                    if not training.best:
                        raise ConfigError(f"training diverged in epoch {epoch}: lower train.learning_rate")
                    warnings.warn(
                        f"training diverged in epoch {epoch}; epoch {training.best[0].number} is kept", stacklevel=2
                    )
                    break
                undone += 1
                training.restore(copy.deepcopy(last_good))
                training.scale *= 0.5**undone
                training.optimizer.param_groups[0]["lr"] *= 0.5**undone
                continue
            undone = 0
            _record(training, row)
            last_good = copy.deepcopy(training.state())
            if out is not None:
                _save(out, training, fingerprint)
            advance(1, note=f"{model.criterion} {value:.4g} (best {training.best[0].value:.4g})")
    model.load_state_dict(training.best[0].state)
    model.eval()
    return History(training.history, training.best)


def _judge(training: _Training, held_out: Batch, generator: torch.Generator) -> dict[str, float]:
    """Validate the averaged weights; the training goes on with its own."""
    model = training.model
    present = {name: value.detach().clone() for name, value in model.named_parameters()} if training.average else {}
    model.load_state_dict(training.average, strict=False)
    model.eval()
    metrics = model.validate(held_out, generator)
    model.load_state_dict(present, strict=False)  # not the buffers: what a model remembers of the held-out rows stays
    return metrics


def _record(training: _Training, row: dict[str, float]) -> None:
    """Take an epoch into the history, and keep it if its smoothed figure is the best so far."""
    model, config = training.model, training.config
    row["learning_rate"] = training.optimizer.param_groups[0]["lr"]
    recent = [r[model.criterion] for r in training.history[1 - config.smoothing :]] if config.smoothing > 1 else []
    value = float(np.mean([*recent, row[model.criterion]]))
    if config.smoothing > 1:
        row["smoothed"] = value
    if config.schedule == "plateau":
        if math.isfinite(training.plateau.best):  # an improvement by a thousandth, whatever the sign
            training.plateau.threshold = 1e-3 * abs(training.plateau.best)
        training.plateau.step(value)
    training.history.append(row)
    if len(training.best) < config.keep or value < training.best[-1].value:
        training.best.append(Epoch(value, int(row["epoch"]), copy.deepcopy(training.averaged())))
        training.best = sorted(training.best, key=lambda epoch: epoch.value)[: config.keep]  # of equal ones the first


def _load(out: Path | None, fingerprint: str, device: torch.device) -> dict[str, Any]:
    if out is None or not (out / "checkpoint.pt").exists():
        raise ConfigError(f"there is no checkpoint to resume from in {out}")
    saved: dict[str, Any] = torch.load(out / "checkpoint.pt", map_location=device, weights_only=True)
    if len(saved["generator"]) != len(torch.Generator(device).get_state()):
        raise ConfigError(f"the checkpoint in {out} was made on another kind of device than {device}; set train.device")
    if saved["fingerprint"] != fingerprint:
        raise ConfigError(f"the checkpoint in {out} belongs to other data, another network or other settings")
    return saved


def _save(out: Path, training: _Training, fingerprint: str) -> None:
    state = io.BytesIO()
    torch.save({**training.state(), "fingerprint": fingerprint, "model_of": describe(training.model)}, state)
    files.write(out / "checkpoint.pt", state.getvalue())
    files.write(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in training.history).encode())
