"""How kernels are compiled: at their first use, once per machine where that is possible, and never in the way.

numba keeps compiled code beside the source or, where that cannot be written, in the user's cache folder; the environment
variable NUMBA_CACHE_DIR names another place. Two traps of numba's cache are closed here:

- Without any writable place numba refuses to define a cached function, so that a worker in a bare container could not
  even import the package. Here it compiles in memory instead.
- numba notices a change in the file of a cached function, but not in what that function calls. Here the names of the
  cached files carry a digest over the sources of all kernels.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["contiguous", "exact", "exact_kernel", "kernel", "subroutine"]

# Sums may be reordered and products contracted, as SIMD units do it, and no number is expected to be NaN: what is not
# finite has to be sorted out before, in functions that are `exact`.
_FAST: dict[str, Any] = {"error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp", "nnan"}}
# fastmath has to be refused: a function that says nothing of it takes over that of the first kernel that calls it.
_EXACT: dict[str, Any] = {"error_model": "numpy", "fastmath": False}
_STAMP = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(Path(__file__).parent.glob("*.py")))).hexdigest()[:12]

Function = TypeVar("Function", bound=Callable[..., Any])


def exact(function: Function) -> Function:
    """Compile a function that only kernels call, with exact arithmetic; its code is cached as a part of theirs."""
    return cast("Function", njit(nogil=True, **_EXACT)(function))


def subroutine(function: Function) -> Function:
    """Compile a function that only kernels call, with fast arithmetic."""
    return cast("Function", njit(nogil=True, **_FAST)(function))


def kernel(function: Function) -> Function:
    """Compile a function that Python calls, with fast arithmetic.

    It must always be called with the same types, contiguous and writable (`contiguous`): one signature per kernel is
    what makes it safe for many processes to fill one cache at once.
    """
    return _cached(function, _FAST)


def exact_kernel(function: Function) -> Function:
    """Compile a function that Python calls, with exact arithmetic; otherwise as `kernel`."""
    return _cached(function, _EXACT)


def _cached(function: Function, arithmetic: dict[str, Any]) -> Function:
    function.__qualname__ = f"{function.__name__}_{_STAMP}"
    try:
        return cast("Function", njit(nogil=True, cache=True, **arithmetic)(function))
    except RuntimeError:  # numba found no place that can be written
        logging.getLogger(__name__).info("no writable cache folder: %s is compiled in memory", function.__name__)
        return cast("Function", njit(nogil=True, **arithmetic)(function))


def contiguous(array: npt.ArrayLike, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return an array as kernels want it; a copy only where it is of another type, has gaps or cannot be written.

    >>> contiguous([1, 2], np.float64)
    array([1., 2.])
    """
    return np.require(array, dtype, ["C_CONTIGUOUS", "WRITEABLE"])
