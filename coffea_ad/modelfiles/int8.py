"""Dense layers in eight-bit integers: the network side of `quantise`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coffea_ad.errors import BadModel
from coffea_ad.typing import Float32s

__all__ = ["bare", "dense_layers", "int8_network", "serialised"]


_DENSE = ("Gemm", "MatMul")
_BATCH = 256


def int8_network(data: bytes, x: Float32s, name: str = "model") -> bytes:
    """Quantise the dense layers of a network; transform and reduction to a score stay in float32.

    A layer y = W a + b becomes y = s_a s_W · (W_q − z_W)(a_q − z_a) + b with a_q = round(a / s_a) + z_a, both in 0 … 255,
    and one s_W for each output. The range of a is that of the rows given. Weights are unsigned: with signed ones,
    processors without VNNI instructions add two products in 16 bits, which overflows, and a score would depend on the
    machine.

    Parameters
    ----------
    data : bytes
        An ONNX file of one input.
    x : (n, *shape) float32
        Finite rows.
    name : str
        For messages.

    Returns
    -------
    bytes
        An ONNX file without a card, of operators of ONNX's own domain.

    Raises
    ------
    BadModel
        The network has no dense layer.

    References
    ----------
    B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference",
    arXiv:1712.05877.

    Examples
    --------
    >>> small = int8_network(Path(model_file).read_bytes(), np.random.default_rng(1).random((64, 8), np.float32))
    >>> b"QuantizeLinear" in small
    True
    """
    import onnx
    from onnxruntime import quantization as ortq

    proto = bare(data)
    dense = dense_layers(proto)
    if not dense:
        raise BadModel(f"{name}: it has no dense layer that could be quantised")
    _give_layers_their_own_input(proto, dense)
    onnx.helper.set_model_props(proto, {"onnx.quant.pre_process": "onnxruntime.quant"})  # else it is recommended

    class Rows(ortq.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Float32s] = (x[i : i + _BATCH] for i in range(0, len(x), _BATCH))

        def get_next(self) -> dict[str, Float32s] | None:
            return next(({proto.graph.input[0].name: batch} for batch in self.batches), None)

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        ortq.quantize_static(
            proto, str(target), Rows(), quant_format=ortq.QuantFormat.QDQ,
            nodes_to_quantize=[n.name for n in dense], op_types_to_quantize=list(_DENSE), per_channel=True,
            activation_type=ortq.QuantType.QUInt8, weight_type=ortq.QuantType.QUInt8,
            # What a layer gives is not rounded before its activation, or before the score.
            extra_options={"OpTypesToExcludeOutputQuantization": list(_DENSE), "WeightSymmetric": True},
        )  # fmt: skip
        return serialised(onnx.load(str(target)))


def dense_layers(proto: Any) -> list[Any]:
    """Return the nodes that multiply by learned weights; a transform multiplies by ones, to count or to copy."""
    from onnx import numpy_helper

    arrays = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    learned = {name for name, a in arrays.items() if a.ndim == 2 and np.ptp(a) > 0}
    return [n for n in proto.graph.node if n.op_type in _DENSE and n.input[0] not in arrays and n.input[1] in learned]


def _give_layers_their_own_input(proto: Any, dense: Sequence[Any]) -> None:
    """Put an identity before layers whose input goes elsewhere too.

    Else the score would compare a reconstruction with the rounded row, and rows beyond the range of the calibration,
    the anomalies, with a row that ends there.
    """
    import onnx

    layer_names = {n.name for n in dense}
    elsewhere = {i for n in proto.graph.node if n.name not in layer_names for i in n.input}
    nodes, copied = [], set()
    for node in proto.graph.node:
        source = node.input[0] if node.input else ""
        if node.name in layer_names and source in elsewhere:
            copy = f"{source}_to_layers"
            if copy not in copied:
                nodes.append(onnx.helper.make_node("Identity", [source], [copy], name=copy))
                copied.add(copy)
            node.input[0] = copy
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def bare(data: bytes) -> Any:
    """Parse a network, without its card and without shapes that the tools below would hold against it."""
    import onnx

    proto = onnx.load_from_string(data)
    del proto.metadata_props[:]
    del proto.graph.value_info[:]
    for i, node in enumerate(proto.graph.node):
        node.name = node.name or f"node_{i}"
    return proto


def serialised(proto: Any) -> bytes:
    """Check a network and write it, the same bytes for the same network."""
    import onnx

    del proto.metadata_props[:]
    proto.producer_name, proto.producer_version = "coffea-ad", ""
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))
