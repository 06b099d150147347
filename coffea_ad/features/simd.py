"""What numba has no words for, written for the compiler behind it: the bits of a number, and one loop over vectors.

The loop is the triple sums of energy correlators, which the compiler does not vectorise well by itself. Vectors of eight
doubles work on every machine; where registers are shorter, the compiler splits them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["FORMS", "LANES", "bits", "lower_forms"]

LANES = 8
FORMS = 4

_FAST = ("reassoc", "contract", "nsz")
_DOUBLE, _INT64, _INT32 = ir.DoubleType(), ir.IntType(64), ir.IntType(32)
_VECTOR = ir.VectorType(_DOUBLE, LANES)


def _bits(typingctx: Any, number: Any) -> Any:  # noqa: ARG001
    """Return the 64 bits of a number as an integer; for numbers ≥ 0 they have the same order."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.bitcast(args[0], _INT64)

    return types.int64(types.float64), generate


def _lower_forms(typingctx: Any, matrix: Any, vectors: Any, n: Any) -> Any:  # noqa: ARG001
    """Σ_b Σ_{k ≤ j < n} v_b[j] M[j, k] v_b[k] over the four rows v_b of `vectors`.

    matrix : (≥ n, ≥ n rounded up to LANES) float64, C order; the entries with k ≥ j must be 0 if they shall not count.
    vectors : (4, ≥ n rounded up to LANES) float64, C order, 0 from n on.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        m, v = (context.make_array(t)(context, builder, a) for t, a in zip(signature.args[:2], args[:2], strict=True))
        length, m_width, v_width = args[2], builder.extract_value(m.shape, 1), builder.extract_value(v.shape, 1)

        def load(base: Any, row: Any, width: Any, column: Any) -> Any:
            """Eight numbers of a row from a column on."""
            place = builder.gep(base, [builder.add(builder.mul(row, width), column)])
            numbers = builder.load(builder.bitcast(place, _VECTOR.as_pointer()))
            numbers.align = 8
            return numbers

        def spread(number: Any) -> Any:
            """Eight times the same number."""
            one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _INT32(0))
            return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES))

        def add_product(place: Any, x: Any, y: Any) -> None:
            builder.store(builder.fadd(builder.load(place), builder.fmul(x, y, flags=_FAST), flags=_FAST), place)

        zero = ir.Constant(_VECTOR, [0.0] * LANES)
        total, *sums = (cgutils.alloca_once(builder, _VECTOR) for _ in range(1 + FORMS))
        builder.store(zero, total)
        with cgutils.for_range_slice(builder, _INT64(0), length, _INT64(LANES), intp=_INT64) as (k, _):
            for place in sums:
                builder.store(zero, place)
            with cgutils.for_range_slice(builder, k, length, _INT64(1), intp=_INT64) as (j, _):
                row = load(m.data, j, m_width, k)
                for b, place in enumerate(sums):
                    at = builder.add(builder.mul(_INT64(b), v_width), j)
                    add_product(place, spread(builder.load(builder.gep(v.data, [at]))), row)
            for b, place in enumerate(sums):
                add_product(total, load(v.data, _INT64(b), v_width, k), builder.load(place))
        lanes = [builder.extract_element(builder.load(total), _INT32(lane)) for lane in range(LANES)]
        result = lanes[0]
        for lane in lanes[1:]:
            result = builder.fadd(result, lane, flags=_FAST)
        return result

    return types.float64(matrix, vectors, n), generate


bits: Any = intrinsic(_bits)
lower_forms: Any = intrinsic(_lower_forms)
