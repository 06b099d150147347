"""Trained model → one ONNX file with its card, checked against the model before it gets its name."""

from __future__ import annotations

import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coffea_ad import features, files
from coffea_ad.errors import BadModel, ConfigError
from coffea_ad.modelfiles.attach import check_rows
from coffea_ad.modelfiles.quantiles import input_quantiles
from coffea_ad.nn.cross_training import Folded
from coffea_ad.nn.model import Model
from coffea_ad.nn.training.verdict import verdict
from coffea_ad.scoring import regions
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.scorer import OnnxScorer
from coffea_ad.scoring.specs import Golden, InputSpec
from coffea_ad.skims.background import rows_in_words
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Ints

__all__ = ["export", "make_card", "torch_scores"]

_GOLDEN_ROWS = 8
_BLOCK = 4096
_TOLERANCE = 1e-5
_ALONE = 16  # rows that are scored by themselves as well


def torch_scores(model: Model | Folded, x: Float32s, folds: Ints | None = None) -> Float32s:
    """Score rows with torch, (n, columns) → (n,); a `Folded` model takes the fold of every row."""
    device = next(iter(model.state_dict().values()), torch.zeros(0)).device
    if isinstance(model, Folded) and folds is None:
        raise ConfigError("the score of a folded model depends on the folds of the rows")
    parts = [np.zeros(0, np.float32)]
    with torch.no_grad():
        for start in range(0, len(x), _BLOCK):  # x may be `rows.Rows`, which are dense only in blocks
            rows = torch.from_numpy(np.asarray(x[start : start + _BLOCK])).to(device)
            more = () if folds is None else (torch.from_numpy(folds[start : start + _BLOCK]).to(device),)
            parts.append(model.score(rows, *more).cpu().numpy())
    return np.concatenate(parts)


def make_card(
    model: Model | Folded,
    data: Skim,
    *,
    name: str,
    config: dict[str, Any],
    metrics: dict[str, Any],
    efficiencies: Sequence[float] = (1e-1, 1e-2, 1e-3),
    collection: str | None = None,
) -> ModelCard:
    """Describe a trained model: inputs, calibration and regions from rows that it has not seen, provenance.

    Parameters
    ----------
    model : Model or Folded
    data : Skim
        The background it was trained on. Training rows are not used for calibration: of an AE, the validation rows are;
        of a folded model all rows, each scored by the member that never saw it, and every member has a table of its own.
        Rows count with `event_weight`, whatever weights the training drew by.
    name : str
    config, metrics : dict
        The resolved configuration and the figures of the kept epoch.
    efficiencies : sequence of float
        Nominal background efficiencies of the regions.
    collection : str, optional
        Which objects are scored; those of the skim by default.

    Returns
    -------
    ModelCard
        `provenance["verdict"]` says what is doubtful about the training, `provenance["regions_left_out"]` which regions
        are not written and why.

    Raises
    ------
    ConfigError
        No held-out row has a finite score, or they make no calibration.
    """
    held_out = data if isinstance(model, Folded) else data.splits("validation")
    folds = model.fold_of(held_out.spectators) if isinstance(model, Folded) else None
    score = torch_scores(model, held_out.x, folds)
    if not np.isfinite(score).any():
        raise ConfigError(f"{name}: none of {len(score)} held-out rows has a finite score; the training has failed")
    inputs = (InputSpec(features=(data.feature,)),)
    left = ("flavours", "selection", "collection", "asked", "signals")
    packages = ("coffea-ad", "torch", "coffea", "awkward", "onnx", "onnxruntime", "numpy")
    card = ModelCard(
        name=name,
        method=model.method,
        level=features.get(data.feature.name).level,
        collection=collection or data.provenance.get("collection", "FatJet"),
        inputs=inputs,
        quantiles=input_quantiles(held_out, inputs[0]),
        selection=data.provenance["selection"],
        folds=model.folds if isinstance(model, Folded) else None,
        flavours=tuple(data.provenance["flavours"]),
        provenance={
            **{key: value for key, value in data.provenance.items() if key not in left},
            "rows": data.provenance.get("rows", {}),
            "config": config,
            "metrics": metrics,
            "versions": {p: importlib.metadata.version(p) for p in packages},
        },
        golden=_golden(model, held_out.x, score),
    )
    weight = held_out.event_weight
    calibrations = regions.calibrate_folds(score, weight, rows_in_words(card, held_out), folds, len(_members(model)))
    written, left_out = regions.derive(calibrations, score, weight, efficiencies, folds)
    epochs = int((config.get("train") or {}).get("epochs", 1))
    doubts = verdict(_members(model), held_out, score, calibrations, metrics, epochs=epochs)
    provenance = {**card.provenance, "verdict": doubts, "regions_left_out": list(left_out)}
    return card.model_copy(update={"calibrations": calibrations, "regions": written, "provenance": provenance})


def _members(model: Model | Folded) -> Sequence[Any]:
    return list(model.members) if isinstance(model, Folded) else [model]


def _golden(model: Model | Folded, x: Float32s, score: Float32s) -> Golden:
    """Take rows from the lowest score to the highest, and the scores of every member on them."""
    order = np.argsort(score)[: int(np.isfinite(score).sum())]  # those without a score come last
    rows = x[order[np.linspace(0, len(order) - 1, _GOLDEN_ROWS).astype(int)]]
    return Golden.of({"features": rows}, np.concatenate([torch_scores(member, rows) for member in _members(model)]))


def _graph(model: Model | Folded, outputs: Sequence[str]) -> bytes:
    """Export the score to ONNX bytes with nothing outside the file."""
    import onnx

    example = torch.zeros(4, *model.shape)  # a batch of 0 or 1 would be taken for a constant
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations are no concern of the user's
        path = Path(folder) / "model.onnx"
        for logger in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        torch.onnx.export(
            model,
            (example,),
            str(path),
            input_names=["features"],
            output_names=list(outputs),
            dynamic_shapes=({0: torch.export.Dim("rows")},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        proto = onnx.load(str(path), load_external_data=False)
    if any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer):
        raise BadModel("the export put weights outside the file")
    for node in proto.graph.node:
        del node.metadata_props[:]  # the exporter notes the source lines of this machine at every node
        node.doc_string = ""
    del proto.graph.metadata_props[:]
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info, *proto.graph.initializer):
        del value.metadata_props[:]
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _check_parity(model: Model | Folded, data: bytes, x: Float32s, name: str) -> None:
    """Compare torch and OnnxScorer, member by member, at 0, 1, 2 and all rows and with undefined values."""
    scorer = OnnxScorer(data, name=name)
    broken = x[:4].copy()
    broken[0].flat[0], broken[1].flat[-1], broken[2].flat[0] = np.nan, np.inf, -np.inf
    for rows in (x[:0], x[:1], x[:2], x, broken):
        for f, (member, output) in enumerate(zip(_members(model), scorer.card.outputs, strict=True)):
            ours = torch_scores(member, rows)
            folds = np.full(len(rows), f) if isinstance(model, Folded) else None
            raw = scorer.sessions[f].run([output], {"features": rows})[0].reshape(-1)
            for other in (np.asarray(scorer(rows, folds)), raw):  # the graph has to know by itself what is undefined
                if not np.array_equal(np.isnan(ours), np.isnan(other)):
                    raise BadModel(f"{name}: torch and onnxruntime disagree on which rows are undefined")
                gap = np.abs(ours - other) / (1 + np.abs(ours))
                if not np.all(gap[np.isfinite(ours)] <= _TOLERANCE):
                    raise BadModel(
                        f"{name}: nothing is written, since torch and onnxruntime differ by {np.nanmax(gap):.2g} in the scores of "
                        f"{len(rows)} rows, the largest of which is {np.nanmax(np.abs(ours)):.3g}; if the training has "
                        "diverged, lower train.learning_rate"
                    )


def export(model: Model | Folded, path: str | Path, card: ModelCard, x: Float32s | None = None) -> Path:
    """Write a model file.

    Parameters
    ----------
    model : Model or Folded
        Of a folded model, every member becomes an output of the one graph.
    path : path
        The file gets this name only after torch and onnxruntime agree to 1e-5.
    card : ModelCard
    x : (n, columns) float32, optional
        Rows for the comparison; the card's golden rows by default.

    Raises
    ------
    BadModel
        The exported graph does not give the model's scores, a score depends on the other rows of a batch, or the card is of
        other folds than the model.
    """
    final = Path(path)
    if card.folds != (model.folds if isinstance(model, Folded) else None):
        raise BadModel(f"{final}: the folds of the card, {card.folds}, are not those of the model")
    cpu = model.to("cpu").eval()
    data = write_card(_graph(cpu, card.outputs), card, str(final))
    if x is None and card.golden is not None:
        x = card.golden.rows(card.inputs[0])
    if x is None or len(x) < 4:
        raise BadModel(f"{final}: the comparison with torch needs at least 4 rows")
    _check_parity(cpu, data, x, str(final))
    scorer = OnnxScorer(data, name=str(final))
    check_rows(scorer, x[:_ALONE])
    files.write(final, data)
    return final
