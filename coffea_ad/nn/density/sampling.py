"""Samples of several flows, such as the best epochs of a training, in equal shares."""

from __future__ import annotations

from typing import Any

import numpy as np

from coffea_ad.errors import ConfigError
from coffea_ad.nn.density.flow import Flow
from coffea_ad.typing import Float32s

__all__ = ["sample_equally"]


def sample_equally(model: Any, context: Float32s | int, seed: int = 0) -> Float32s:
    """Draw raw rows from all flows of an ensemble, from each the same number or one more: samples of their mean density.

    Parameters
    ----------
    model : Flow or Ensemble
        Whose members are flows: the kept epochs of a training.
    context : int or (n, conditions) float32
        As for `Flow.sample`. Which flow a row comes from is drawn by the seed, and so does not follow the order of the conditions.
    seed : int

    Returns
    -------
    (n, features) float32
        In the order of the conditions.

    Raises
    ------
    ConfigError
        The model is no flow and has no flows, or as `Flow.sample`.

    References
    ----------
    A. Hallin et al., "Classifying anomalies through outer density estimation", arXiv:2109.00546.

    Examples
    --------
    >>> from torch import nn
    >>> from coffea_ad.nn.ensemble import Ensemble
    >>> epochs = Ensemble([Flow(2, transform=nn.Identity()) for _ in range(3)], "logmeanexp")
    >>> sample_equally(epochs, 10, seed=1).shape
    (10, 2)
    """
    flows = [model] if isinstance(model, Flow) else list(getattr(model, "members", ()))
    if not flows or not all(isinstance(flow, Flow) for flow in flows) or getattr(model, "folds", None) is not None:
        raise ConfigError("rows are sampled from a flow, or from an ensemble of flows without folds")
    n = int(context) if isinstance(context, int | np.integer) else len(context)
    rng = np.random.default_rng([seed, len(flows)])
    turn = rng.permutation(np.arange(n) % len(flows))
    out = np.empty((n, *flows[0].shape), np.float32)
    for k, flow in enumerate(flows):
        rows = turn == k
        share = int(rows.sum()) if isinstance(context, int | np.integer) else np.asarray(context)[rows]
        out[rows] = flow.sample(share, seed=int(rng.integers(2**63)))
    return out
