"""By how much a score may differ when it is computed again: by another program, or in another batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coffea_ad.scoring.specs import Density
from coffea_ad.typing import Float64s

__all__ = ["allowed"]

_ABSOLUTE, _RELATIVE = 1e-3, 1e-4


def allowed(scores: npt.ArrayLike, otherwise: npt.ArrayLike, density: Density | None) -> Float64s:
    """Return the largest differences of scores, (n,): those of other models, and of −ln p at least 10⁻³ + 10⁻⁴ |s|.

    Splines add up the logarithms of slopes, with the rounding of single precision in each; a density that is off by a
    thousandth is the same for any use.

    Examples
    --------
    >>> allowed([1.0, 1000.0], 1e-5, None), allowed([1.0, 1000.0], 1e-5, "x")
    (array([1.e-05, 1.e-05]), array([0.0011, 0.101 ]))
    """
    size = np.abs(np.asarray(scores, np.float64))
    bounds = np.broadcast_to(np.asarray(otherwise, np.float64), size.shape)
    return bounds.copy() if density is None else np.maximum(bounds, _ABSOLUTE + _RELATIVE * size)
