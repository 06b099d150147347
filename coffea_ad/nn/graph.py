"""Torch modules as ONNX graphs, with nothing outside the file and nothing of this machine in it."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coffea_ad.errors import BadModel

__all__ = ["epoch_graphs", "torch_graph"]


def torch_graph(model: Any, outputs: Sequence[str]) -> bytes:
    """Return the graph of a module with a `shape`, (rows, *shape) → (rows,) for every output; its input is "features".

    Raises
    ------
    BadModel
        The weights do not fit into one file.
    """
    import onnx

    module = copy.deepcopy(model).to("cpu").eval()
    example = torch.zeros(4, *module.shape)  # a batch of 0 or 1 would be taken for a constant
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


def epoch_graphs(models: Sequence[Any]) -> list[bytes]:
    """Return the graphs "features" → "score" of models that differ in their weights only, such as epochs of one training.

    The first is exported, and the others get their own weights in its graph, which takes no time. Where that cannot be done
    for sure, a model is exported by itself.
    """
    first, *others = models
    data = first.graph(["score"])
    return [data, *(_with_weights(data, first, other) or other.graph(["score"]) for other in others)]


def _with_weights(data: bytes, first: Any, other: Any) -> bytes | None:
    """Put the weights of another model into a graph; None if a weight is not found in it, or the scores are not the other's."""
    import onnx
    from onnx import numpy_helper

    if not isinstance(first, torch.nn.Module) or type(first) is not type(other):
        return None
    ours, theirs = _tensors(first), _tensors(other)
    if {k: v.shape for k, v in ours.items()} != {k: v.shape for k, v in theirs.items()}:
        return None
    changed = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
    proto = onnx.load_from_string(data)
    placed = set()
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor)
        equal = [n for n in changed if ours[n].shape == values.shape and np.array_equal(ours[n], values)]
        if equal and all(np.array_equal(theirs[n], theirs[equal[0]]) for n in equal):
            tensor.CopyFrom(numpy_helper.from_array(theirs[equal[0]], tensor.name))
            placed |= set(equal)
    # a weight that is masked stands in the graph as the product, or as it is
    masked = {n for n in changed if n.endswith("·mask")}
    unseen: Any = getattr(first, "training_only", ())
    plain = changed - masked - set(unseen)
    if any(n not in placed and f"{n}·mask" not in placed for n in plain):
        return None
    sealed = bytes(proto.SerializeToString(deterministic=True))
    return sealed if _same_scores(sealed, other) else None


def _tensors(model: Any) -> dict[str, Any]:
    """Return the weights and buffers of a model, and the products of masked weights, which the exporter folds."""
    state = {name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}
    masks = {n.removesuffix(".mask"): m for n, m in state.items() if n.endswith(".mask")}
    return state | {f"{n}.weight·mask": state[f"{n}.weight"] * m for n, m in masks.items() if f"{n}.weight" in state}


def _same_scores(data: bytes, model: Any) -> bool:
    """Compare a graph with a model on a few rows, some of them far out."""
    import onnxruntime

    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(size=(6, *model.shape)), 30 * rng.random((6, *model.shape))]).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (theirs,) = session.run(["score"], {"features": rows})
    ours = model.scores(rows)
    return bool(np.allclose(ours, theirs.reshape(-1), rtol=1e-4, atol=1e-3, equal_nan=True))
