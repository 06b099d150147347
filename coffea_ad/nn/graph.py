"""Torch modules as ONNX graphs, with nothing outside the file and nothing of this machine in it."""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coffea_ad.errors import BadModel, ConfigError

__all__ = ["Graphs", "epoch_graphs", "torch_graph"]

Graphs = Callable[[Sequence[Any], Sequence[str]], list[bytes]]
"""Exports models with the same outputs, "score" and perhaps "contributions"."""


def torch_graph(model: Any, outputs: Sequence[str]) -> bytes:
    """Return the graph of a module with a `shape`, (rows, *shape) → (rows,) for every output; its input is "features".

    With two outputs the second one are the contributions to the first, (rows, parts): what `score_and_contributions` gives.
    If its attribute `slots_vary` says so, rows may have any number of slots. What it is made of may have `for_graph`, which is called on
    a copy, and makes of it what computes the same faster.

    Raises
    ------
    BadModel
        The weights do not fit into one file.
    """
    import onnx

    module = _prepared(model)
    if len(outputs) == 2:
        module.forward = module.score_and_contributions
    example = torch.zeros(4, *module.shape)  # a batch of 0 or 1 would be taken for a constant
    sizes: dict[int, Any] = {0: torch.export.Dim("rows")}
    if getattr(module, "slots_vary", False):
        sizes[1] = torch.export.Dim("slots", min=2)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations are no concern of the user's
        path = Path(folder) / "model.onnx"
        for logger in ("torch.onnx", "onnxscript", "onnx_ir"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=["features"],
            output_names=list(outputs),
            dynamic_shapes=(sizes,),
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


def _prepared(model: Any) -> Any:
    """Return the copy of a module whose graph is its graph."""
    module = copy.deepcopy(model).to("cpu").eval()
    for part in list(module.modules()):
        if hasattr(part, "for_graph"):
            part.for_graph()
    return module


def epoch_graphs(models: Sequence[Any], outputs: Sequence[str] = ("score",)) -> list[bytes]:
    """Return the graphs "features" → "score" of models, those that differ in their weights only by one export.

    With `outputs` ("score", "contributions") they have both.

    Epochs and folds of a training are such models, also where each is a mean of epochs. One of them is exported, and the
    others get their own weights in its graph, which takes no time. Where that cannot be done for sure, a model is exported
    by itself.
    """
    exported: list[tuple[Any, bytes]] = []
    return [_graph(model, exported, outputs) for model in models]


def _graph(model: Any, exported: list[tuple[Any, bytes]], outputs: Sequence[str]) -> bytes:
    """Return the graph of a model by one that is exported already, or export it and note it."""
    if not isinstance(model, torch.nn.Module):
        if hasattr(model, "graph_by"):  # several models as one
            return bytes(model.graph_by(lambda members, of: [_graph(m, exported, of) for m in members], outputs))
        return bytes(model.graph(outputs))
    for first, data in exported:
        if (placed := _with_weights(data, first, model)) is not None:
            return placed
    graph: Any = model.graph
    data = bytes(graph(outputs))
    exported.append((model, data))
    return data


def _with_weights(data: bytes, first: Any, other: Any) -> bytes | None:
    """Put the weights of another model into a graph; None if a weight is not found in it, or the scores are not the other's."""
    import onnx
    from onnx import numpy_helper

    if _settings(first) != _settings(other):
        return None
    exported = _prepared(first)
    ours, theirs = _tensors(exported), _tensors(_prepared(other))
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        return None
    changed = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
    proto = onnx.load_from_string(data)
    placed = set()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        # a constant may happen to have the values of a weight; what the exporter folds has no name any more
        names = changed & {tensor.name} if tensor.name in ours else changed if values.size > 1 else set()
        new = {n: r for n in names if (r := _rearranged(values, ours[n], theirs[n])) is not None}
        if new and all(np.array_equal(r, next(iter(new.values()))) for r in new.values()):
            tensor.CopyFrom(numpy_helper.from_array(next(iter(new.values())), tensor.name))
            placed |= set(new)
    # a weight that is masked stands in the graph as the product, or as it is
    masked = {n for n in changed if n.endswith("·mask")}
    unseen: Any = getattr(first, "training_only", ())
    plain = changed - masked - set(unseen)
    absent = [n for n in plain if n not in placed and f"{n}·mask" not in placed]
    if absent and not _unused(exported, absent):
        return None
    sealed = bytes(proto.SerializeToString(deterministic=True))
    return sealed if _same_scores(data, first, sealed, other) else None


def _rearranged(values: Any, ours: Any, theirs: Any) -> Any:
    """Return `theirs` in the order and shape that `values` have of `ours`; None where they are not `ours`, or it is not clear."""
    if values.size != ours.size or values.dtype != ours.dtype:
        return None
    if values.shape == ours.shape and np.array_equal(values, ours):
        return theirs
    order, place = np.argsort(ours, axis=None), np.argsort(values, axis=None)
    if not np.array_equal(ours.reshape(-1)[order], values.reshape(-1)[place]):
        return None
    tied = np.diff(ours.reshape(-1)[order]) == 0  # the zeros of a mask
    if np.any(np.diff(theirs.reshape(-1)[order])[tied] != 0):
        return None
    out = np.empty(values.size, values.dtype)
    out[place] = theirs.reshape(-1)[order]
    return out.reshape(values.shape)


def _settings(model: Any) -> list[dict[str, Any]]:
    """Return what modules are and were made with, which a graph does not show: classes, arguments, plain numbers and words."""
    plain = (bool, int, float, str, type(None))
    return [
        {k: v for k, v in vars(m).items() if k == "_arguments" or (isinstance(v, plain) and k != "training")}
        | {"class": type(m)}
        for m in model.modules()
    ]


def _tensors(model: Any) -> dict[str, Any]:
    """Return the weights and buffers of a model, and the products of masked weights, which the exporter folds."""
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    masks = {n.removesuffix(".mask"): m for n, m in state.items() if n.endswith(".mask")}
    return state | {f"{n}.weight·mask": state[f"{n}.weight"] * m for n, m in masks.items() if f"{n}.weight" in state}


def _unused(model: Any, names: Sequence[str]) -> bool:
    """Say whether scores do not depend on some weights and buffers: they are the same to the bit where these are undefined."""
    poisoned = copy.deepcopy(model)
    state = poisoned.state_dict()
    if not all(state[name].is_floating_point() for name in names):
        return False
    for name in names:
        state[name].fill_(torch.nan)
    rows, of = _rows(model), getattr(model, "contributes", None)
    values = [[one.scores(rows), *([one.contributions_of(rows)] if of else [])] for one in (poisoned, model)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*values, strict=True))


def _same_scores(data: bytes, first: Any, sealed: bytes, other: Any) -> bool:
    """Say whether a graph with other weights is as near to its model as the exported one is to its own, up to rounding.

    A constant that was computed of an old weight moves all rows, and shows in the median; one of a few rows in the largest.
    """
    rows = np.concatenate([_rows(first), _rows(other)])
    before, after = _gaps(data, first, rows), _gaps(sealed, other, rows)
    if before is None or after is None:
        return False
    return all(bool(of(after) <= 4 * of(before) + 1e-6) for of in (np.median, np.max))


def _rows(model: Any) -> Any:
    """Return rows about 0, far out, and as the model's preprocessing knows them."""
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=(6, *model.shape)), 30 * rng.random((6, *model.shape))]
    transform: Any = copy.deepcopy(getattr(model, "transform", None))
    if hasattr(transform, "inverse") and (transform.features,) == model.shape:
        with torch.no_grad(), contextlib.suppress(ConfigError):  # which says that there is no inverse
            rows.append(transform.cpu().inverse(torch.from_numpy(rng.normal(size=(40, *model.shape))).float()).numpy())
    return np.concatenate(rows).astype(np.float32)


def _gaps(data: bytes, model: Any, rows: Any) -> Any:
    """Return |graph − model| / (1 + |model|) of all outputs; None where one has a score and the other has none, or where there are none."""
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    theirs = np.concatenate([values.reshape(-1) for values in session.run(outputs, {"features": rows})])
    ours = model.scores(rows)
    if len(outputs) > 1:
        ours = np.concatenate([ours, model.contributions_of(rows).reshape(-1)])
    defined = np.isfinite(ours)
    if not defined.any() or not np.array_equal(defined, np.isfinite(theirs)):
        return None
    return np.abs(theirs - ours)[defined] / (1 + np.abs(ours[defined]))
