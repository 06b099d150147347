"""Arrays by the type of their numbers, as annotations name them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Float32s", "Float64s", "Ints"]

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
