"""Networks made elsewhere brought to float32 in and one score a row out: casts, and the comparison of an autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from coffea_ad.errors import BadModel, CardMismatch, ConfigError
from coffea_ad.scoring.modelfile import check_graph, part_for, runtime_reason

__all__ = ["Comparison", "adapted", "plain_session"]

Comparison = Literal["mse", "mae", "ln_mse", "ln_mae", "log_mae"]
_DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_TINY = {np.float32: 1e-37, np.float64: 1e-300, np.float16: 6e-8}  # under the logarithm of an exact reconstruction
_ROWS = 3


def adapted(
    data: bytes,
    input_name: str,
    output: str,
    shape: tuple[int, ...],
    *,
    score: Comparison | None = None,
    target: str | None = None,
    name: str = "model",
) -> tuple[bytes, str, str, str]:
    """Return a graph with float32 input and score, and the names of the two and of contributions; the file itself if it has them already.

    Inputs and outputs in double or half precision get a cast. With `score` the output r is a reconstruction of the target
    x, and the graph goes on to compare them, at the network's precision:

        mse: Σ_i (r_i − x_i)² / d      mae: Σ_i |r_i − x_i| / d      ln_mse, ln_mae: their natural logarithms.

    The terms of the sum are an output as well, the contributions, if they are of the numbers of a row one by one: the target is the
    input, or changes in one number, the same, wherever one of the input does.

    Parameters
    ----------
    data : bytes
        A plain ONNX file.
    input_name, output : str
        Of the graph.
    shape : tuple of int
        Of a row that goes in.
    score : "mse", "mae", "ln_mse", "ln_mae", optional
        "log_mae" is another name of "ln_mae". Without it the output is the score.
    target : str, optional
        What is reconstructed: a tensor of the graph, such as its scaled input; the input itself by default.
    name : str
        For messages.

    Returns
    -------
    data, input, output, contributions : bytes, str, str, str
        The last one is empty if there are none.

    Raises
    ------
    BadModel, CardMismatch
        Output or target are not in the graph, or the reconstruction has another shape than its target.
    ConfigError
        The graph has to be changed, and the package onnx is not installed.
    """
    check_graph(data, name)
    session = plain_session(data, name)
    types = {v.name: v.type for v in (*session.get_inputs(), *session.get_outputs())}
    outputs = [v.name for v in session.get_outputs()]
    if output not in outputs:
        raise CardMismatch(f"{name}: the graph has no output {output!r}; it has {', '.join(outputs)}")
    lower = ("tensor(double)", "tensor(float16)")
    if input_name not in types or (score is None and types[input_name] not in lower and types[output] not in lower):
        return data, input_name, output, ""  # a wrong input is named with those of the graph when the card is checked
    try:
        import onnx  # workers do without it
    except ImportError as error:
        raise ConfigError(f"{name}: its graph needs a change, which takes onnx: pip install onnx") from error
    model = onnx.load_from_string(data)
    ends = _Ends(onnx, model)
    contributions = ""
    if score is not None:
        both = _tensors(onnx, data, session, (output, target or input_name), (input_name, shape), name)
        _same_shape(both, output, target or input_name, name)
        place = (input_name, shape)
        one_by_one = target in (None, input_name) or _one_by_one(onnx, data, session, str(target), place, name)
        output, contributions = ends.compare(output, target or input_name, score, both, apart=one_by_one)
        types[output] = "tensor(float)"
    if types[output] in lower:
        output = ends.cast_output(output)
    if types[input_name] in lower:
        input_name = ends.cast_input(input_name)
    outputs = [output, contributions] if contributions else [output]
    ends.finish(outputs)
    return part_for(model.SerializeToString(), outputs, name), input_name, output, contributions


def _one_by_one(
    onnx: Any, data: bytes, session: ort.InferenceSession, target: str, fed: tuple[str, tuple[int, ...]], name: str
) -> bool:
    """Say whether each number of a target depends on the number in its place of the input, and on no other."""
    numbers = int(np.prod(fed[1]))
    rows = np.random.default_rng(2).random((1 + numbers, numbers))
    rows[1:] = rows[0]
    rows[1:] += np.diag(0.1 + 0.2 * rows[0])  # a row for each number, in which that one is another
    values = _tensors(onnx, data, session, (target,), fed, name, rows.reshape(-1, *fed[1]))[target]
    flat = np.asarray(values, np.float64).reshape(len(rows), -1)
    if flat.shape != rows.shape:
        return False
    changed = np.abs(flat[1:] - flat[0]) > 1e-6 * (1 + np.abs(flat[0]))
    return bool(np.array_equal(changed, np.eye(numbers, dtype=bool)))


def plain_session(data: bytes, name: str) -> ort.InferenceSession:
    """Load a file that may have no card, with one thread.

    Raises
    ------
    BadModel
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  onnxruntime has a dozen exception types without a common base
        raise BadModel(f"{name}: onnxruntime cannot load it: {runtime_reason(error)}") from None


def _tensors(
    onnx: Any, data: bytes, session: ort.InferenceSession, wanted: Sequence[str], fed: tuple[str, tuple[int, ...]],
    name: str, some: npt.NDArray[Any] | None = None,
) -> dict[str, npt.NDArray[Any]]:  # fmt: skip
    """Return tensors of a graph, of any place in it, for a few rows."""
    input_name, shape = fed
    types = {v.name: (v.type, v.shape) for v in session.get_inputs()}
    kind, dims = types[input_name]
    if len(types) > 1:
        raise CardMismatch(f"{name}: it has the inputs {', '.join(types)}, but a reconstruction is compared for one")
    if dims and isinstance(dims[0], int):
        raise CardMismatch(f"{name}: {input_name} has room for {dims[0]} rows, not for any number")
    drawn = np.random.default_rng(1).random((_ROWS, *shape)) if some is None else some
    rows = drawn.astype(_DTYPES.get(kind, np.float32))
    inner = [w for w in wanted if w not in types and w not in {v.name for v in session.get_outputs()}]
    if inner:
        model = onnx.load_from_string(data)
        known = {n for node in model.graph.node for n in node.output}
        if not known.issuperset(inner):
            raise CardMismatch(f"{name}: the graph has no tensor {inner[0]!r} that could be the target")
        model.graph.output.extend(onnx.ValueInfoProto(name=w) for w in inner)
        session = plain_session(model.SerializeToString(), name)
    asked = [w for w in wanted if w not in types]
    try:
        values = session.run(asked, {input_name: rows})
    except Exception as error:  # noqa: BLE001  as above
        raise CardMismatch(
            f"{name}: it cannot be run on {input_name} of rows of shape {shape}: {runtime_reason(error)}"
        ) from None
    return {input_name: rows, **dict(zip(asked, map(np.asarray, values), strict=True))}


def _same_shape(both: dict[str, npt.NDArray[Any]], output: str, target: str, name: str) -> None:
    """Compare shapes; a dimension of one more or less, such as that of a channel, does not matter."""
    shapes = [both[key].shape for key in (output, target)]
    flat = [tuple(d for d in shape[1:] if d != 1) for shape in shapes]
    if flat[0] != flat[1] or any(shape[:1] != (_ROWS,) for shape in shapes):
        raise CardMismatch(
            f"{name}: for {_ROWS} rows the reconstruction {output!r} has the shape {shapes[0]}, but {target!r}, which it is "
            f"compared with, {shapes[1]}; name what is reconstructed with `target:`"
        )
    kinds = [both[key].dtype.type for key in (output, target)]
    if any(kind not in _TINY for kind in kinds):
        raise CardMismatch(f"{name}: {output!r} and {target!r} must be floating-point numbers to be compared")


class _Ends:
    """New first and last operators of a graph; what lies between them, and its names, stay as they are."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.model, self.graph = onnx, model, model.graph
        nodes = [name for node in self.graph.node for name in (*node.input, *node.output, node.name)]
        self.taken = {*nodes, *(v.name for v in (*self.graph.input, *self.graph.output, *self.graph.initializer))}

    def unused(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name

    def add(self, operator: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        result = self.unused(result)
        self.graph.node.append(
            self.onnx.helper.make_node(operator, list(inputs), [result], name=self.unused(operator), **attributes)
        )
        return result

    def constant(self, values: npt.NDArray[Any], name: str) -> str:
        name = self.unused(name)
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(values, name))
        return name

    def compare(
        self, output: str, target: str, score: Comparison, both: dict[str, npt.NDArray[Any]], *, apart: bool
    ) -> tuple[str, str]:
        """Append the comparison of a reconstruction with its target, and its terms if asked for; operators of any opset since 8."""
        kind = both[output].dtype.type
        code = self.onnx.helper.np_dtype_to_tensor_dtype(both[output].dtype)
        x = target if both[target].dtype == both[output].dtype else self.add("Cast", [target], "target", to=code)
        flat = [self.add("Flatten", [value], "row", axis=1) for value in (output, x)]
        difference = self.add("Sub", flat, "difference")
        squared = score.endswith("mse")
        size = self.add(*(("Mul", [difference] * 2) if squared else ("Abs", [difference])), "size")
        d = both[output][0].size
        mean = self.add("MatMul", [size, self.constant(np.full((d, 1), 1 / d, kind), "mean")], "comparison")
        if score not in ("mse", "mae"):
            tiny = self.constant(np.full((1, 1), _TINY[kind], kind), "smallest")
            mean = self.add("Log", [self.add("Max", [mean, tiny], "positive")], "logarithm")
        # a cast of float32 to itself costs nothing, and gives the score its name
        total = self.add("Cast", [mean], "score", to=self.onnx.TensorProto.FLOAT)
        if not apart or kind == np.float16:  # whose sum has three digits
            return total, ""
        term = self.add("Mul", [size, self.constant(np.full((1, 1), 1 / d, kind), "part")], "term")
        return total, self.add("Cast", [term], "contributions", to=self.onnx.TensorProto.FLOAT)

    def cast_output(self, output: str) -> str:
        return self.add("Cast", [output], f"{output}_float32", to=self.onnx.TensorProto.FLOAT)

    def cast_input(self, name: str) -> str:
        """Put a float32 input before one of another precision, which all operators go on to read."""
        value = next(v for v in self.graph.input if v.name == name)
        outer = self.unused(f"{name}_float32")
        kind = value.type.tensor_type.elem_type
        value.name, value.type.tensor_type.elem_type = outer, self.onnx.TensorProto.FLOAT
        cast = self.onnx.helper.make_node("Cast", [outer], [name], name=self.unused("Cast"), to=kind)
        self.graph.node.insert(0, cast)
        return outer

    def finish(self, outputs: Sequence[str]) -> None:
        """Make some values the only outputs."""
        known = {v.name: v for v in self.graph.output}
        values = []
        for output in outputs:  # the runtime finds the shape of a new one
            plain = self.onnx.helper.make_tensor_value_info(output, self.onnx.TensorProto.FLOAT, None)
            values.append(known.get(output, plain))
        del self.graph.output[:]
        self.graph.output.extend(values)
