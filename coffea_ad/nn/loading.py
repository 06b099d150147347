"""Trained models come back from the folder of their training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from coffea_ad.errors import ConfigError
from coffea_ad.nn.cross_training import FOLDS_FILE, CrossTrained
from coffea_ad.nn.described import remake
from coffea_ad.nn.ensemble import Ensemble, How
from coffea_ad.nn.model import Model
from coffea_ad.nn.scorable import Scorable
from coffea_ad.nn.self_supervised.encoder import SetEncoder
from coffea_ad.nn.training.history import Epoch, History
from coffea_ad.nn.transforms.per_column import Unchanged
from coffea_ad.nn.transforms.representation import Representation
from coffea_ad.typing import Float32s

__all__ = ["load", "load_encoder", "load_model"]


def load(folder: str | Path, *, classes: Sequence[type[nn.Module]] = (), how: How | None = None) -> Scorable:
    """Return a trained model, with the weights of its best epoch.

    Parameters
    ----------
    folder : path
        Of a training: `wnae/` beside `wnae.onnx`; or of a cross-training, with a folder for each fold.
    classes : sequence of class
        Models, transforms and encoders of your own among those that it consists of. Encoders that are plain torch modules are
        made without arguments.
    how : "mean", "logmeanexp" or "probability", optional
        How the scores of several kept epochs are averaged; by default as the model says.

    Returns
    -------
    Model, Ensemble or CrossTrained
        An ensemble where several epochs were kept.

    Raises
    ------
    ConfigError
        There is no checkpoint, or a class of your own is not among `classes`.

    Examples
    --------
    >>> load("nowhere/")
    Traceback (most recent call last):
    coffea_ad.errors.ConfigError: nowhere: there is no trained model in this folder (no checkpoint.pt)
    """
    place = Path(folder)
    if (place / FOLDS_FILE).is_file():
        folds = json.loads((place / FOLDS_FILE).read_text())
        members = [load(place / f"fold_{f}", classes=classes, how=how) for f in range(folds["k"])]
        return CrossTrained(members, folds["salt"])
    model, history = load_model(place, classes=classes)
    return Ensemble.of_epochs(model, history, how)


def load_model(folder: str | Path, *, classes: Sequence[type[nn.Module]] = ()) -> tuple[Model, History]:
    """Return the one model of a training with the weights of its best epoch, and how the training went.

    Parameters
    ----------
    folder, classes
        As of `load`.

    Raises
    ------
    ConfigError
        As `load`.
    """
    path = Path(folder) / "checkpoint.pt"
    if not path.is_file():
        raise ConfigError(f"{folder}: there is no trained model in this folder (no checkpoint.pt)")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    names = {f"{kind.__module__}.{kind.__qualname__}": kind for kind in classes}
    model = remake(saved["model_of"], names, str(path))
    if not isinstance(model, Model):
        raise ConfigError(f"{path}: a {type(model).__name__} is no model")
    history = History(saved["history"], [Epoch(**epoch) for epoch in saved["best"]])
    model.load_state_dict(history.epochs[0].state)
    return model.eval(), history


def load_encoder(folder: str | Path, *, classes: Sequence[type[nn.Module]] = ()) -> Callable[[Float32s], Float32s]:
    """Return what a trained encoder makes of rows: h, or z where a score stands on z.

    Parameters
    ----------
    folder : path
        Of an encoder, `masked/encoder`, or of a score on one, `masked`.
    classes
        As of `load`.

    Returns
    -------
    callable
        (n, *shape) → (n, d); refuses rows of another shape by a `ConfigError`.

    Raises
    ------
    ConfigError
        There is no trained model, or one without an encoder.
    """
    if (Path(folder) / FOLDS_FILE).is_file():
        raise ConfigError(f"{folder}: every fold has an encoder; take one of them, {Path(folder) / 'fold_0'}")
    model, _ = load_model(folder, classes=classes)
    before, encoder = (getattr(model, name, None) for name in ("transform", "encoder"))
    if isinstance(before, Representation):
        inner = Representation(before.encoder, Unchanged(before.features), row_shape=before.row_shape)
    elif isinstance(encoder, SetEncoder):
        inner = Representation(encoder, Unchanged(encoder.features))
    else:
        raise ConfigError(f"{folder}: a {model.method} has no encoder; those of clr and pretrain have")

    def encode(x: Float32s) -> Float32s:
        if tuple(x.shape[1:]) != inner.row_shape:
            raise ConfigError(f"{folder}: the encoder takes rows of shape {inner.row_shape}, not {tuple(x.shape[1:])}")
        with torch.no_grad():
            return np.asarray(inner(torch.from_numpy(np.ascontiguousarray(x, np.float32))).numpy())

    return encode
