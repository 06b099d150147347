"""Graphs that make the inputs of a network from a feature, and go on with the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from coffea_ad.errors import CardMismatch, ConfigError, unknown_text
from coffea_ad.features.spec import column_names
from coffea_ad.modelfiles.feeds import Channel, Feeds
from coffea_ad.modelfiles.formulas import add_formula
from coffea_ad.modelfiles.joining import join_graphs
from coffea_ad.modelfiles.ranks import Nodes
from coffea_ad.modelfiles.reconstruction import plain_session
from coffea_ad.scoring.modelfile import check_graph, runtime_reason
from coffea_ad.scoring.specs import InputSpec

__all__ = ["fed"]

_OPSET = 13  # the least that has all operators used here
_ROWS = 3
_MASK = "mask"
_TYPES = {
    "tensor(float)": TensorProto.FLOAT, "tensor(double)": TensorProto.DOUBLE, "tensor(float16)": TensorProto.FLOAT16,
    "tensor(bool)": TensorProto.BOOL, "tensor(int64)": TensorProto.INT64, "tensor(int32)": TensorProto.INT32,
}  # fmt: skip


def fed(
    data: bytes,
    feeds: Feeds,
    spec: InputSpec,
    output: str = "",
    *,
    result: str,
    vector: bool,
    part: tuple[int, int] | None = None,
    blank: bool = False,
    name: str = "model",
) -> bytes:
    """Return a graph "features" → `result`: inputs made of a feature, then the network, in float32.

    Each input of the network is made of channels, (x − center) · scale within [min, max], that stand along its second axis, or
    its last. Empty slots, where the column or variable `mask` is 0, have the channel's `pad`. A row with a number that is not
    finite has NaN, whatever the network makes of it.

    Parameters
    ----------
    data : bytes
        A plain ONNX file.
    feeds : Feeds
        Its inputs.
    spec : InputSpec
        What the rows hold: flat features, or one set (slots, columns).
    output : str
        Of the network; the only one by default.
    result : str
        Name of the output of the whole.
    vector : bool
        Whether a row has a vector, (rows, numbers), or a score, (rows,).
    part : (first, last + 1), optional
        Which numbers of the vector; all by default.
    blank : bool
        Whether a column of zeros follows on the vector, for models that take a column which is of no meaning to them.
    name : str
        For messages.

    Raises
    ------
    BadModel, CardMismatch
        The file is damaged, has other inputs or outputs, or they have other shapes.
    ConfigError
        A column, a variable or the mask is missing.
    """
    check_graph(data, name)
    session = plain_session(data, name)
    _check_names(session, feeds, name)
    output = _output_of(session, output, name)
    adapter = _adapter(feeds, spec, {v.name: _type_of(v, name) for v in session.get_inputs()}, name)
    shape = _shape_for_rows(session, adapter, spec, output, name)
    if vector and (len(shape) != 2 or shape[0] != _ROWS):
        raise CardMismatch(
            f"{name}: for {_ROWS} rows its output {output!r} has the shape {shape}, but a latent vector has (rows, numbers); "
            "name another output"
        )
    if not vector and shape not in ((_ROWS,), (_ROWS, 1)):
        raise CardMismatch(
            f"{name}: for {_ROWS} rows its output {output!r} has the shape {shape}, but a score is one number a row; "
            "coffea-ad run latent makes a score on a vector"
        )
    first, stop = part or (0, shape[-1])
    if not 0 <= first < stop <= shape[-1]:
        raise ConfigError(
            f"{name}: part: [{first}, {stop}] are no numbers of its output {output!r}, which has {shape[-1]}"
        )

    def behind(add: Nodes) -> None:
        """Add what is 0 for finite rows and NaN for others to what the network gives."""
        flat = add("Flatten", "features", axis=1)
        zero = add("ReduceSum", add("Sub", flat, flat), add.constant([1], np.int64), keepdims=1)
        value = add("Cast", f"member_1_{output}", to=TensorProto.FLOAT)
        if part is not None:
            value = add("Slice", value, *(add.constant([i], np.int64) for i in (first, stop, 1)))
        if blank:
            value = add("Concat", value, zero, axis=1)
        if not vector:
            value, zero = (add("Reshape", v, add.constant([-1], np.int64)) for v in (value, zero))
        add("Add", value, zero, output=result)

    inputs = {f"member_0_{key}": key for key in feeds.inputs}
    return join_graphs(
        [adapter, data], ["its inputs", name], [{"features": "features"}, inputs], {"features": spec.shape},
        {result: [stop - first + blank] if vector else []}, behind,
    )  # fmt: skip


def _check_names(session: ort.InferenceSession, feeds: Feeds, name: str) -> None:
    has = [v.name for v in session.get_inputs()]
    for key in feeds.inputs:
        if key not in has:
            raise CardMismatch(f"{name}: inputs: {unknown_text('input', key, has)}")
    missing = [key for key in has if key not in feeds.inputs]
    if missing:
        raise CardMismatch(f"{name}: inputs: say of which columns {' and '.join(missing)} of the network are made")


def _output_of(session: ort.InferenceSession, output: str, name: str) -> str:
    has = [v.name for v in session.get_outputs()]
    if not output and len(has) > 1:
        raise CardMismatch(f"{name}: say which output is meant, with output: {' or '.join(has)}")
    if output and output not in has:
        raise CardMismatch(f"{name}: {unknown_text('output', output, has)}")
    return output or has[0]


def _type_of(value: Any, name: str) -> int:
    if value.type not in _TYPES:
        raise CardMismatch(f"{name}: its input {value.name} is {value.type}, which no feature gives")
    return _TYPES[value.type]


def _shape_for_rows(
    session: ort.InferenceSession, adapter: bytes, spec: InputSpec, output: str, name: str
) -> tuple[int, ...]:
    """Run the network on a few rows, and return the shape of an output."""
    rows = np.random.default_rng(1).random((_ROWS, *spec.shape), np.float32)
    inputs = plain_session(adapter, name)
    values = dict(zip([v.name for v in inputs.get_outputs()], inputs.run(None, {"features": rows}), strict=True))
    for value in session.get_inputs():
        makes = values[value.name].shape
        if value.shape and isinstance(value.shape[0], int):
            raise CardMismatch(f"{name}: {value.name} has room for {value.shape[0]} rows, not for any number")
        fits = [not isinstance(d, int) or d == size for d, size in zip(value.shape, makes, strict=False)]
        if len(value.shape) != len(makes) or not all(fits):
            raise CardMismatch(
                f"{name}: its input {value.name} takes rows of the shape {tuple(value.shape[1:])}, but its channels make "
                f"{makes[1:]}; see inputs, layout, and the options of {spec.features[0].name}"
            )
    try:
        return tuple(session.run([output], values)[0].shape)
    except Exception as error:  # noqa: BLE001  onnxruntime has a dozen exception types without a common base
        shapes = ", ".join(f"{key} {value.shape}" for key, value in values.items())
        raise CardMismatch(f"{name}: it cannot be run on {shapes}: {runtime_reason(error)}") from None


def _adapter(feeds: Feeds, spec: InputSpec, types: Mapping[str, int], name: str) -> bytes:
    """Return a graph "features" → the inputs of a network."""
    add = Nodes()
    values, occupied = _columns(add, feeds, spec, name)
    axis = 2 if len(spec.shape) == 2 and feeds.layout == "slots_first" else 1
    ends = []
    for key, channels in feeds.inputs.items():
        along = add.constant([axis], np.int64)
        wide = [add("Unsqueeze", _channel(add, c, values, occupied, f"{name}: {key}"), along) for c in channels]
        add("Cast", add("Concat", *wide, axis=axis), to=types[key], output=key)
        dims: list[Any] = ["rows", *spec.shape[:-1]]
        dims.insert(axis, len(channels))
        ends.append(helper.make_tensor_value_info(key, types[key], dims))
    graph = helper.make_graph(
        add.nodes, "inputs", [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", *spec.shape])],
        ends, [numpy_helper.from_array(v, k) for k, v in add.constants.items()],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _columns(add: Nodes, feeds: Feeds, spec: InputSpec, name: str) -> tuple[dict[str, str], str]:
    """Add all columns and variables, (rows, slots) or (rows,), and which of their numbers are of occupied slots."""
    columns, shape, what = column_names(spec.features), spec.shape, spec.features[0].name
    if len(shape) > 2 or shape[-1] != len(columns):
        raise ConfigError(
            f"{name}: inputs are made of flat features or of a set such as jet_constituents, and rows of {what} have the "
            f"shape {shape}"
        )
    if twice := sorted(set(columns) & set(feeds.variables)):
        raise ConfigError(f"{name}: variables: {twice[0]} is a column of {what} already")
    values = {
        key: add("Gather", "features", add.constant(i, np.int64), axis=len(shape)) for i, key in enumerate(columns)
    }
    zero, over_slots = add.constant(0, np.float32), add.constant([1], np.int64)

    def total(value: str) -> str:
        """Leave empty slots out, which may have the logarithm of 0."""
        if len(shape) == 1 or _MASK not in values:
            raise ConfigError(f"{name}: variables: sum is over the occupied slots of a set, of which {what} has none")
        taken = add("Where", add("Greater", values[_MASK], zero), value, zero)
        return add("ReduceSum", taken, over_slots, keepdims=1)

    for key in sorted(feeds.variables, key=lambda key: key != _MASK):  # sums need the mask; the others stay in order
        text = str(feeds.variables[key])
        values[key] = add_formula(add, text, values, total, f"{name}: variables: {key}")
    if len(shape) == 1:
        first = values[columns[0]]
        return values, add("Equal", first, first)
    if _MASK not in values:
        raise ConfigError(
            f"{name}: nothing says which slots of {what} are empty; add the column {_MASK} to its options, or a variable, "
            f"such as {_MASK}: pt > 0"
        )
    return values, add("Greater", values[_MASK], zero)


def _channel(add: Nodes, channel: Channel, values: Mapping[str, str], occupied: str, place: str) -> str:
    if channel.column not in values:
        raise ConfigError(f"{place}: {unknown_text('column', channel.column, values)}")
    value = values[channel.column]
    if channel.center is not None:
        centred = add("Sub", value, add.constant(channel.center, np.float32))
        scaled = add("Mul", centred, add.constant(channel.scale, np.float32))
        value = add("Clip", scaled, add.constant(channel.min, np.float32), add.constant(channel.max, np.float32))
    return add("Where", occupied, value, add.constant(channel.pad, np.float32))
