"""Scores → ranks in the background, beyond the largest calibrated score too; and ranks → one score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from coffea_ad.scoring.specs import Calibration
from coffea_ad.typing import Float32s, Float64s

__all__ = ["MAX_LOGP", "RULES", "By", "Nodes", "add_logp", "combined_logp", "extended_logp"]

By = Literal["rank", "mean-logp", "max"]
MAX_LOGP = 1e6
"""Where the straight line beyond the calibration ends."""

_DECADE = 1.0


def _tail_slope(calibration: Calibration) -> float:
    """Return the mean slope dℓ/ds of the last decade of a calibration: single rows must not decide what lies beyond."""
    x, y = np.array(calibration.score), np.array(calibration.logp)
    if x[-1] - x[-2] <= 1e-9 * (x[-1] - x[0]):  # the step to the largest ℓ, right above the largest score
        x, y = x[:-1], y[:-1]
    start = max(int(np.searchsorted(y, y[-1] - _DECADE, side="right")) - 1, 0)
    if x[start] == x[-1]:  # more than a decade lies on one score
        start = 0
    return float((y[-1] - y[start]) / (x[-1] - x[start])) if x[-1] > x[start] else 0.0


def extended_logp(calibration: Calibration, score: npt.ArrayLike) -> Float64s:
    """Return ℓ = −log₁₀ of the background efficiency, linear in the score beyond the largest calibrated one.

    Inside the calibration that is `regions.logp`; beyond, ℓ = ℓ_max + b (s − s_max) up to 10⁶, with the mean slope b of
    its last decade.

    Parameters
    ----------
    calibration : Calibration
    score : (n,)

    Returns
    -------
    (n,) float64
        NaN where the score is not a finite number.

    Examples
    --------
    >>> table = Calibration(score=(0, 10, 20), logp=(0, 1, 2), n_effective=99, derived_from="toy")
    >>> extended_logp(table, [5.0, 20.0, 30.0, np.nan])
    array([0.5, 2. , 3. , nan])
    """
    s = np.asarray(score, np.float64)
    inside = np.interp(s, calibration.score, calibration.logp)
    beyond = np.maximum(s - calibration.score[-1], 0) * _tail_slope(calibration)
    return np.where(np.isfinite(s), np.minimum(inside + beyond, MAX_LOGP), np.nan)


def combined_logp(
    calibrations: Sequence[Calibration],
    scores: Sequence[npt.ArrayLike],
    by: By = "rank",
) -> Float32s:
    """Combine scores, one array for each calibration: −log₁₀ of the mean efficiency, the mean ℓ, or the largest ℓ.

    Returns
    -------
    (n,) float32
        NaN where any score is not a finite number.

    Examples
    --------
    >>> table = Calibration(score=(0, 10, 20), logp=(0, 1, 2), n_effective=99, derived_from="toy")
    >>> combined_logp([table, table], [[20.0], [0.0]]).round(3)  # the mean of 0.01 and 1
    array([0.297], dtype=float32)
    """
    values = np.stack([extended_logp(c, s) for c, s in zip(calibrations, scores, strict=True)])
    least = values.min(axis=0)
    rules = {
        "mean-logp": values.mean(axis=0),
        "max": values.max(axis=0),
        "rank": least - np.log10(np.mean(10.0 ** (least - values), axis=0)),
    }
    return np.asarray(rules[by], np.float32)


class Nodes:
    """Nodes and constants of a graph under construction; every node gives one value."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def constant(self, value: Any, dtype: Any = np.float64) -> str:
        """Return the name of a constant; equal ones are kept once."""
        array = np.asarray(value, dtype)
        name = f"constant_{array.dtype}_{len(self.constants)}"
        for other, known in self.constants.items():
            if known.dtype == array.dtype and np.array_equal(known, array):
                return other
        self.constants[name] = array
        return name

    def __call__(self, operation: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Add a node and return the name of its value."""
        name = output or f"combined_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, list(inputs), [name], name=f"node_{name}", **attributes))
        return name


def add_logp(add: Nodes, score: str, calibration: Calibration) -> str:
    """Add what `extended_logp` does: an unrolled binary search, then a straight line."""
    x, y = np.array(calibration.score), np.array(calibration.logp)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        slope = np.diff(y) / np.diff(x)
    # Neighbouring numbers of float64, between which no score of float32 can lie, may have no slope.
    slope = np.r_[0.0, np.where(np.isfinite(slope), slope, 0.0), _tail_slope(calibration)]
    size = 1 << (len(slope) - 1).bit_length()
    pad = size - len(slope)
    x0 = add.constant(np.r_[0.0, x, np.full(pad, np.inf)])
    y0 = add.constant(np.r_[0.0, y, np.zeros(pad)])
    steep = add.constant(np.r_[slope, np.zeros(pad)])
    zero = helper.make_tensor("value", onnx.TensorProto.INT64, [1], [0])
    index = add("ConstantOfShape", add("Shape", score), value=zero)
    step = size // 2
    while step:
        candidate = add("Add", index, add.constant(step, np.int64))
        index = add("Where", add("GreaterOrEqual", score, add("Gather", x0, candidate)), candidate, index)
        step //= 2
    along = add("Mul", add("Sub", score, add("Gather", x0, index)), add("Gather", steep, index))
    return add("Min", add("Add", add("Gather", y0, index), along), add.constant(MAX_LOGP))


def _mean(add: Nodes, values: Sequence[str]) -> str:
    return add("Mul", add("Sum", *values), add.constant(1 / len(values)))


def _rank_average(add: Nodes, values: Sequence[str]) -> str:
    """Add −log₁₀ of the mean of 10^−value, with the least value taken out, so that nothing is rounded to 0."""
    least, ten = add("Min", *values), add.constant(np.log(10))
    efficiencies = [add("Exp", add("Mul", add("Sub", least, v), ten)) for v in values]
    return add("Sub", least, add("Div", add("Log", _mean(add, efficiencies)), ten))


RULES: dict[By, Callable[[Nodes, Sequence[str]], str]] = {
    "rank": _rank_average,
    "mean-logp": _mean,
    "max": lambda add, values: add("Max", *values),
}
