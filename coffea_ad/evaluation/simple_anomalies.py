"""Anomalies that are simpler than the background, made from its own rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coffea_ad.errors import ConfigError
from coffea_ad.typing import Float64s

__all__ = ["core_and_narrow"]


def _quantiles(x: npt.NDArray[Any], weight: Float64s, probabilities: Sequence[float]) -> Float64s:
    """Return weighted quantiles of every column, (probabilities, columns)."""
    columns = [
        np.quantile(np.asarray(c, np.float64), probabilities, weights=weight, method="inverted_cdf") for c in x.T
    ]
    return np.stack(columns, axis=1)


def core_and_narrow(x: npt.NDArray[Any], train: npt.NDArray[Any], weight: Float64s) -> dict[str, npt.NDArray[Any]]:
    """Make two anomalies that are simpler than the background, from its own rows.

    With z = (x − median)/σ, the weighted median of a column and half its central 68 %: `core` is z → 0.35 z, inside the
    background, and `narrow` is z → 1 + 0.1 z, a small blob off its centre. A reconstruction error that is small for
    whatever is simple misses the first.

    Parameters
    ----------
    x : (n, columns)
        Background rows to be changed.
    train : (m, columns)
        Background rows that give median and σ.
    weight : (m,)
        Rows with negative weights are left out of these.

    Returns
    -------
    {"core": (n, columns), "narrow": (n, columns)}

    Raises
    ------
    ConfigError
        The rows are not flat, or none has a positive weight.

    References
    ----------
    T. Finke et al., "Autoencoders for unsupervised anomaly detection in high energy physics", arXiv:2104.09051, on
    what an autoencoder takes for simple.

    Examples
    --------
    >>> rows = np.linspace(-1, 1, 1001)[:, None]
    >>> float(core_and_narrow(np.array([[1.0]]), rows, np.ones(1001))["core"].round(2)[0, 0])
    0.35
    """
    if x.ndim != 2:
        raise ConfigError(f"rows of shape {x.shape[1:]} have no simpler twins; only flat inputs have")
    keep = weight > 0
    if not keep.any():
        raise ConfigError("there are no background rows with a positive weight to take a median of")
    low, median, high = _quantiles(train[keep], weight[keep], (0.16, 0.5, 0.84))
    distance, sigma = x - median, 0.5 * (high - low)
    anomalies = {"core": median + 0.35 * distance, "narrow": median + sigma + 0.1 * distance}
    return {name: rows.astype(x.dtype) for name, rows in anomalies.items()}
