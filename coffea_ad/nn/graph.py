"""Torch modules as ONNX graphs, with nothing outside the file and nothing of this machine in it."""

from __future__ import annotations

import copy
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from coffea_ad.errors import BadModel

__all__ = ["torch_graph"]


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
