"""Graphs put side by side in one, with nodes behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.inliner
import onnx.version_converter
from onnx import helper, numpy_helper

from coffea_ad.errors import BadModel
from coffea_ad.modelfiles.ranks import RULES, Nodes

__all__ = ["join_graphs", "joined_scores"]

_OPSET = 13  # the least that has all operators used here


def join_graphs(
    graphs: Sequence[bytes],
    names: Sequence[str],
    feeds: Sequence[Mapping[str, str]],
    inputs: Mapping[str, Sequence[int]],
    outputs: Sequence[str] | Mapping[str, Sequence[int | str]],
    behind: Callable[[Nodes], None],
) -> bytes:
    """Put graphs side by side in one, or one behind another.

    Parameters
    ----------
    graphs : sequence of bytes
        The values of graph i are called `member_i_…`.
    names : sequence of str
        Of the graphs, for messages.
    feeds : sequence of {input of the whole: input of the graph}
        Or a value of a graph before this one, `member_0_…`, which then goes into this one.
    inputs : {name: shape of a row}
        Inputs of the whole, float32. Where all graphs leave a dimension open, such as the number of slots, the whole does.
    outputs : sequence of str, or {name: shape of a row}
        Outputs of the whole, float32: scores, or of some shape, in which a dimension may have a name.
    behind : callable
        Adds the nodes that give the outputs.

    Raises
    ------
    BadModel
        A graph cannot be brought to the operators of the others.
    """
    opset = max(_OPSET, *(_opset(onnx.load_from_string(data)) for data in graphs))
    protos = [_proto(data, opset, name) for data, name in zip(graphs, names, strict=True)]
    parts = [onnx.compose.add_prefix_graph(p.graph, f"member_{i}_") for i, p in enumerate(protos)]
    add = Nodes()
    for i, (feed, part) in enumerate(zip(feeds, parts, strict=True)):
        for ours, theirs in feed.items():
            add("Identity", ours, output=f"member_{i}_{theirs}")
        add.nodes += part.node
    before, add.nodes = add.nodes, []
    behind(add)
    shapes = outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs, ())
    graph = helper.make_graph(
        [*before, *add.nodes],
        "combination",
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["rows", *_open(name, shape, feeds, protos)])
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, ["rows", *tail]) for o, tail in shapes.items()],
        [
            *(t for g in parts for t in g.initializer),
            *(numpy_helper.from_array(v, k) for k, v in add.constants.items()),
        ],
        sparse_initializer=[t for g in parts for t in g.sparse_initializer],
    )
    others = {o.domain: o.version for p in protos for o in p.opset_import if o.domain not in ("", "ai.onnx")}
    opsets = [helper.make_opsetid(domain, version) for domain, version in {"": opset, **others}.items()]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=max(p.ir_version for p in protos))
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def joined_scores(
    graphs: Sequence[bytes],
    shape: Sequence[int],
    outputs: Sequence[str],
    rule: Callable[[Nodes, Sequence[str]], str] | None = None,
) -> bytes:
    """Join graphs "features" → "score" of one shape: an output for each, or one that a rule makes of all their scores.

    Parameters
    ----------
    graphs : sequence of bytes
        With an output "contributions" where the whole has them.
    shape : sequence of int
        Of a row.
    outputs : sequence of str
        As many as graphs, or with a rule one. Twice as many: the further ones are contributions, with a rule their mean.
    rule : callable, optional
        Adds nodes on the scores, (rows,) float64, and returns the name of their result.
    """
    n = len(graphs) if rule is None else 1
    scores_of, contributions = outputs[:n], outputs[n:]

    def behind(add: Nodes) -> None:
        flat = add.constant([-1], np.int64)
        parts = [f"member_{i}_contributions" for i in range(len(graphs))]
        if rule is None:
            for i, output in enumerate(contributions):
                add("Identity", parts[i], output=output)
            for i, output in enumerate(scores_of):
                add("Reshape", f"member_{i}_score", flat, output=output)
            return
        scores = [
            add("Cast", add("Reshape", f"member_{i}_score", flat), to=onnx.TensorProto.DOUBLE)
            for i in range(len(graphs))
        ]
        add("Cast", rule(add, scores), to=onnx.TensorProto.FLOAT, output=scores_of[0])
        for output in contributions:
            mean = RULES["mean-logp"](add, [add("Cast", part, to=onnx.TensorProto.DOUBLE) for part in parts])
            add("Cast", mean, to=onnx.TensorProto.FLOAT, output=output)

    names = [f"member {i}" for i in range(len(graphs))]
    feeds = [{"features": "features"}] * len(graphs)
    shapes: dict[str, Sequence[str]] = {**dict.fromkeys(scores_of, ()), **dict.fromkeys(contributions, ("parts",))}
    return join_graphs(graphs, names, feeds, {"features": shape}, shapes, behind)


def _open(
    name: str, shape: Sequence[int], feeds: Sequence[Mapping[str, str]], protos: Sequence[Any]
) -> list[int | str]:
    """Return the shape of a row of an input, with a name for every dimension that all graphs leave open."""
    closed = [
        [d.HasField("dim_value") for d in value.type.tensor_type.shape.dim][1:]
        for feed, proto in zip(feeds, protos, strict=True)
        for value in proto.graph.input
        if value.name == feed.get(name)
    ]
    return [
        size if any(axes) else f"{name}_{i}"
        for i, (size, axes) in enumerate(zip(shape, zip(*closed, strict=True), strict=True))
    ]


def _opset(proto: Any) -> int:
    return max((int(o.version) for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1)


def _proto(data: bytes, opset: int, name: str) -> Any:
    """Parse a graph, without functions and in the given version of ONNX's operators."""
    proto = onnx.load_from_string(data)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    if _opset(proto) == opset:
        return proto
    try:
        return onnx.version_converter.convert_version(proto, opset)
    except Exception as error:  # noqa: BLE001  the converter has no exception of its own
        raise BadModel(f"{name}: it cannot be brought to opset {opset} ({str(error).splitlines()[0]})") from None
