"""Does an energy model model the data? Long chains at frozen weights, against the floor of two finite samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import SkimError
from coffea_ad.nn.distances import exact
from coffea_ad.nn.energy import EnergyModel
from coffea_ad.skims import Skim

__all__ = ["long_run"]


def long_run(
    model: EnergyModel,
    data: Skim,
    *,
    steps: Sequence[int] = (0, 500, 2000),
    rows: int = 1000,
    repeats: int = 3,
    seed: int = 1,
) -> dict[str, Any]:
    """Measure the excess of the Wasserstein distance after many further steps at frozen weights.

    Chains of few steps stay near where they began: that they look like the data says little about the energy. With the weights
    frozen they forget where they came from, and what is left is the density p ∝ exp(−E/T) itself:

        excess(k) = ½ Σ_h W₂²(data_h, chains after k steps) − W₂²(data_1, data_2),

    with two disjoint halves of held-out data of the same size as the chains.

    Parameters
    ----------
    model : EnergyModel
    data : Skim
        Its validation rows are used.
    steps : sequence of int
        Where to measure; rising.
    rows : int
        Chains, and rows in each half; no more than a sixth of the effective number of validation rows.
    repeats : int
        Draws of rows and chains; the errors are standard errors over them.
    seed : int

    Returns
    -------
    dict
        `steps`; `floor`; `buffer` and `data`: the excess at each number of steps, of chains that go on from where training
        left them and of chains that begin at other data; each with its `_error`; `memory`: how much further away from each
        other both kinds of chains are at the end than two sets of chains that begin at data; `at_walls`: the fraction of
        coordinates of chains within 1 % of the box's walls; `acceptance` of proposals.

    Raises
    ------
    SkimError
        There are fewer than 60 validation rows with positive weight.
    """
    part = data.part("validation")
    good = np.flatnonzero(part.weight > 0)
    if len(good) < 60:
        raise SkimError(f"{len(good)} validation rows have positive weight; the long-run excess needs 60")
    device = model.low.device
    probability = part.weight[good] / part.weight[good].sum()
    n = max(min(rows, int(1 / (probability**2).sum() / 6)), 10)
    found: list[dict[str, Any]] = []
    for k in range(repeats):
        rng = np.random.default_rng([seed, k])
        generator = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
        pools = np.array_split(rng.permutation(len(good)), 3)
        picked = [rng.choice(pool, n, p=probability[pool] / probability[pool].sum()) for pool in pools]
        with torch.no_grad():
            one, two, begin = (
                model.transform(torch.from_numpy(np.asarray(part.x[good[p]], np.float32)).to(device)) for p in picked
            )
            found.append(_measure(model, one, two, begin, steps, generator))
    out: dict[str, Any] = {"steps": list(steps), "rows": n, "repeats": repeats}
    for name in found[0]:
        values = np.array([f[name] for f in found])
        out[name] = values.mean(axis=0).tolist()
        out[f"{name}_error"] = (values.std(axis=0, ddof=1) / repeats**0.5).tolist() if repeats > 1 else None
    return out


def _measure(
    model: EnergyModel, one: Tensor, two: Tensor, begin: Tensor, steps: Sequence[int], generator: torch.Generator
) -> dict[str, Any]:
    n = len(one)
    floor = exact(one, two).item()
    starts = {"buffer": begin if model.sampling == "cd" else model.sample(n, generator), "data": begin}
    more = model.run_chains(two, generator, steps=max(steps)).points
    out: dict[str, Any] = {"floor": floor}
    acceptance = 1.0
    for name, points in starts.items():
        done, excess = 0, []
        for k in steps:
            chains = model.run_chains(points, generator, steps=k - done)
            points, done = chains.points, k  # noqa: PLW2901
            acceptance = chains.acceptance.item() if k else acceptance
            excess.append(0.5 * (exact(one, points) + exact(two, points)).item() - floor)
        starts[name] = points
        out[name] = excess
    width = 0.01 * (model.high - model.low)
    last = starts["data"]
    walls = (last < model.low + width) | (last > model.high - width)
    out["memory"] = (exact(starts["buffer"], last) - exact(more, last)).item()
    out["at_walls"] = walls.double().mean().item()
    out["acceptance"] = acceptance
    return out
