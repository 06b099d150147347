"""Cut and count: the significance of an excess over an expectation that is known within an error."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

__all__ = ["count_significance", "p_value_of"]


def count_significance(n: float, expected: float, error: float = 0.0) -> float:
    """Return the signed significance of n events where b ± σ are expected.

        Z = ± √2 [ n ln( n (b + σ²) / (b² + n σ²) ) − (b²/σ²) ln( 1 + σ² (n − b) / (b (b + σ²)) ) ]^½

    and for σ = 0 Z = ± √(2 (n ln(n/b) − (n − b))); negative below the expectation.

    Parameters
    ----------
    n : float
        Observed events.
    expected, error : float
        b > 0 and σ ≥ 0.

    Returns
    -------
    float
        NaN where b is not positive.

    References
    ----------
    T. Li, Y. Ma, ApJ 272 (1983) 317; G. Cowan, "Discovery sensitivity for a counting experiment with background
    uncertainty" (2012).

    Examples
    --------
    >>> round(count_significance(120, 100), 3), round(count_significance(120, 100, 10), 3)
    (1.938, 1.349)
    >>> round(count_significance(80, 100), 3)
    -2.073
    """
    if not expected > 0:
        return float("nan")
    b, s2 = float(expected), float(error) ** 2
    if s2 < 1e-12 * b:
        inner = (n * np.log(n / b) if n > 0 else 0.0) - (n - b)
    else:
        first = n * np.log(n * (b + s2) / (b**2 + n * s2)) if n > 0 else 0.0
        inner = first - b**2 / s2 * np.log1p(s2 * (n - b) / (b * (b + s2)))
    return float(np.sign(n - b) * np.sqrt(2 * max(inner, 0.0)))


def p_value_of(significance: float) -> float:
    """Return the one-sided p-value of a significance: the normal probability above Z.

    >>> round(p_value_of(1.6449), 4)
    0.05
    """
    return float(norm.sf(significance))
