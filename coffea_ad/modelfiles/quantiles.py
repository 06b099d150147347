"""Quantiles of a model's inputs on its background, by which a run notices that its inputs are others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coffea_ad.scoring.specs import InputSpec, Quantiles
from coffea_ad.skims.skim import Skim
from coffea_ad.typing import Float32s, Float64s

__all__ = ["input_quantiles", "weighted_quantiles"]

_LARGE = 2**26  # numbers of which quantiles are taken
_PROBABILITIES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def weighted_quantiles(x: Float32s, weight: Float64s, names: Sequence[str]) -> Quantiles:
    """Tabulate the weighted quantiles of each column."""
    values = {}
    for name, column in zip(names, x.reshape(len(x), len(names)).T, strict=True):
        order = np.argsort(column)
        rank = np.maximum.accumulate(np.cumsum(weight[order])) / weight.sum()
        values[name] = tuple(
            float(column[order][min(i, len(order) - 1)]) for i in np.searchsorted(rank, _PROBABILITIES)
        )
    return Quantiles(probability=_PROBABILITIES, values=values)


def input_quantiles(held_out: Skim, spec: InputSpec) -> Quantiles | None:
    """Tabulate flat inputs, of no more rows than memory holds easily; images have no table."""
    if len(spec.shape) != 1:
        return None
    step = -(-len(held_out.x) * spec.shape[0] // _LARGE)
    return weighted_quantiles(held_out.x[:: max(step, 1)], held_out.event_weight[:: max(step, 1)], spec.columns)
