"""Formulas of columns, such as pt * cos(phi), as nodes of a graph."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping

import numpy as np
import onnx

from coffea_ad.errors import ConfigError, unknown_text
from coffea_ad.modelfiles.ranks import Nodes

__all__ = ["add_formula"]

_BINARY = {ast.Add: "Add", ast.Sub: "Sub", ast.Mult: "Mul", ast.Div: "Div", ast.Pow: "Pow"}
_COMPARED = {ast.Gt: "Greater", ast.Lt: "Less", ast.GtE: "GreaterOrEqual", ast.LtE: "LessOrEqual", ast.Eq: "Equal"}
_OF_ONE = {
    "abs": "Abs", "cos": "Cos", "cosh": "Cosh", "exp": "Exp", "log": "Log", "sign": "Sign", "sin": "Sin", "sinh": "Sinh",
    "sqrt": "Sqrt", "tanh": "Tanh",
}  # fmt: skip
_OF_TWO = {"max": "Max", "min": "Min"}


def add_formula(
    add: Nodes, text: str, values: Mapping[str, str], total: Callable[[str], str], place: str = "formula"
) -> str:
    """Add a formula to a graph under construction.

    Numbers, names of columns, + − * / **, comparisons (1 where true, else 0), abs, cos, cosh, exp, log, sign, sin, sinh, sqrt,
    tanh, max and min of two, and sum, which is over the occupied slots of a set. float32 throughout.

    Parameters
    ----------
    add : Nodes
    text : str
        Such as "log(500 * energy / sum(pt))".
    values : {name: name in the graph}
        Columns, float32.
    total : callable
        Adds the sum over slots of a value.
    place : str
        For messages.

    Returns
    -------
    str
        Name of the result in the graph.

    Raises
    ------
    ConfigError
        It is no formula, or has a name that is no column or function.

    Examples
    --------
    >>> add = Nodes()
    >>> add_formula(add, "pt * cos(phi)", {"pt": "pt", "phi": "phi"}, total=str)
    'combined_1'
    >>> [node.op_type for node in add.nodes]
    ['Cos', 'Mul']
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConfigError(f"{place}: {text!r} is no formula") from None

    def value(node: ast.expr) -> str:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
                return add.constant(number, np.float32)
            case ast.Name(id=name):
                if name not in values:
                    raise ConfigError(f"{place}: {unknown_text('column', name, values)}")
                return values[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return add("Neg", value(operand))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return add(_BINARY[type(op)], value(left), value(right))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARED:
                return add("Cast", add(_COMPARED[type(op)], value(left), value(right)), to=onnx.TensorProto.FLOAT)
            case ast.Call(func=ast.Name(id="sum"), args=[one], keywords=[]):
                return total(value(one))
            case ast.Call(func=ast.Name(id=name), args=[one], keywords=[]) if name in _OF_ONE:
                return add(_OF_ONE[name], value(one))
            case ast.Call(func=ast.Name(id=name), args=[one, two], keywords=[]) if name in _OF_TWO:
                return add(_OF_TWO[name], value(one), value(two))
        raise ConfigError(
            f"{place}: {ast.unparse(node)!r} cannot stand in a formula; there are + - * / **, comparisons, and the functions "
            f"{', '.join(sorted([*_OF_ONE, *_OF_TWO, 'sum']))}"
        )

    return value(tree)
