"""A linear preprocessing fused into the first dense layer, for models that leave floating point."""

from __future__ import annotations

from typing import Any

import numpy as np

from coffea_ad.errors import BadModel
from coffea_ad.modelfiles.int8 import bare, serialised
from coffea_ad.scoring.card import ModelCard, write_card
from coffea_ad.scoring.modelfile import network_digest
from coffea_ad.scoring.scorer import OnnxScorer

__all__ = ["fuse_linear"]

_REACH = 1e6  # a clip at such values only keeps numbers finite
_TOLERANCE = 1e-5


def fuse_linear(data: bytes, name: str = "model") -> bytes:
    """Fold shifts and scales before a dense layer, such as those of `Standard`, into the layer.

    W (s x + t) + b = (W diag(s)) x + (W t + b). Where the transformed row is used elsewhere, as by a score that compares
    it with its reconstruction, it is still computed there, as for contributions; a score on the latent space alone loses the transform. A clip
    at ±10⁶ or beyond is left out before the layer. Card and calibration stay: the scores are the same.

    Parameters
    ----------
    data : bytes
        A model file with its card.
    name : str
        For messages.

    Raises
    ------
    BadModel
        There is no linear preprocessing before a dense layer, or the golden rows' scores move by more than 1e-5.
    """
    card = OnnxScorer(data, name=name).card
    proto = bare(data)
    fused = _fuse(proto)
    if not fused:
        raise BadModel(f"{name}: no dense layer stands behind a linear preprocessing; nothing can be fused")
    update = {"provenance": {**card.provenance, "fused": {"of": network_digest(data, name), "layers": fused}}}
    sealed = write_card(serialised(proto), card.model_copy(update=update), name)
    _check_same_scores(data, sealed, card, name)
    return sealed


def _check_same_scores(data: bytes, sealed: bytes, card: ModelCard, name: str) -> None:
    if card.golden is None or len(card.inputs) > 1:
        raise BadModel(f"{name}: without golden rows of one input it cannot be checked that the scores stay the same")
    spec = card.inputs[0]
    rows = card.golden.rows(spec)
    both = [OnnxScorer(model, name=name) for model in (data, sealed)]
    kinds = [("scores", OnnxScorer.__call__)] + (
        [("contributions", OnnxScorer.contributions)] if card.contributions else []
    )
    for member in range(card.members):
        of = np.full(len(rows), member) if card.members > 1 else None
        for what, values_of in kinds:
            a, b = (np.asarray(values_of(scorer, rows, of)) for scorer in both)
            gap = float(np.max(np.abs(a - b) / (1 + np.abs(a))))
            if not gap <= _TOLERANCE:
                raise BadModel(f"{name}: fusing moves the {what} by {gap:.2g}; means far above the widths lose digits")


def _fuse(proto: Any) -> list[str]:
    """Fold in place; return the names of the layers that took something in."""
    from onnx import helper, numpy_helper

    made_by = {o: n for n in proto.graph.node for o in n.output}
    known = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    fused = []
    for node in proto.graph.node:
        if node.op_type != "Gemm" or len(node.input) != 3 or not {*node.input[1:]} <= known.keys():
            continue
        settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if any(settings.get(k, d) != d for k, d in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
            continue
        root, scale, shift = _linear_before(node.input[0], made_by, known)
        if root == node.input[0]:
            continue
        weight, bias = (known[i].astype(np.float64) for i in node.input[1:])
        across = weight if settings.get("transB", 0) else weight.T  # (outputs, inputs)
        new = across * scale
        fused.append(node.name)
        arrays = (new if settings.get("transB", 0) else new.T, bias + across @ np.broadcast_to(shift, across.shape[1]))
        names = [f"{i}.{node.name}.fused" for i in node.input[1:]]
        proto.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(a, np.float32), n) for a, n in zip(arrays, names, strict=True)
        )
        node.input[0], node.input[1], node.input[2] = root, *names
    _drop_unused(proto)
    return fused


def _linear_before(value: str, made_by: dict[str, Any], known: dict[str, Any]) -> tuple[str, Any, Any]:
    """Walk back from a value z; return x, s, t with z = s x + t, column by column."""
    scale, shift = np.float64(1), np.float64(0)
    while value in made_by:
        node = made_by[value]
        source, *others = list(node.input)
        if node.op_type == "Clip":
            bounds = [known.get(i) for i in others if i]
            if not all(b is not None and np.all(np.abs(b) >= _REACH) for b in bounds):
                break
            value = source
            continue
        flipped = source in known
        constant = known.get(source if flipped else others[0]) if len(others) == 1 else None
        if constant is None or constant.size != max(constant.shape, default=1):
            break
        c = constant.astype(np.float64).reshape(-1) if constant.ndim else np.float64(constant)
        if node.op_type == "Add":
            s, t = np.float64(1), c
        elif node.op_type == "Sub":
            s, t = (np.float64(-1), c) if flipped else (np.float64(1), -c)
        elif node.op_type == "Mul":
            s, t = c, np.float64(0)
        elif node.op_type == "Div" and not flipped:
            s, t = 1 / c, np.float64(0)
        else:
            break
        scale, shift = scale * s, scale * t + shift
        value = others[0] if flipped else source
    return value, scale, shift


def _drop_unused(proto: Any) -> None:
    """Take out nodes and weights that nothing reads."""
    needed = {o.name for o in proto.graph.output}
    used = []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            used.append(node)
    nodes, weights = used[::-1], [t for t in proto.graph.initializer if t.name in needed]
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(weights)
