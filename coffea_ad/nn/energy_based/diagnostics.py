"""Does an energy model model the data? Long chains at frozen weights, against the floor of two finite samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coffea_ad.errors import SkimError
from coffea_ad.nn.energy_based.energy import EnergyModel
from coffea_ad.nn.energy_based.excess import excess, floors, groups
from coffea_ad.nn.training.batches import GROUPS, sample_evenly, seeded
from coffea_ad.skims.skim import Skim
from coffea_ad.weights import n_effective

__all__ = ["long_run"]


def long_run(
    model: EnergyModel, data: Skim, *, steps: Sequence[int] = (0, 500, 2000), rows: int = 1000, seed: int = 1
) -> dict[str, Any]:
    """Measure the excess of the Wasserstein distance after many further steps at frozen weights.

    Chains of few steps stay near where they began: that they look like the data says little about the energy. With the weights
    frozen they forget where they came from, and what is left is the density p ∝ exp(−E/T) itself:

        excess(k) = mean_i W₂²(x_i, y_i) − ½ mean_{i<j} W₂²(x_i, x_j) − ½ mean_{i<j} W₂²(y_i, y_j),

    with disjoint groups x of held-out data and as many chains y after k steps (`coffea_ad.nn.energy_based.excess`).

    Parameters
    ----------
    model : EnergyModel
    data : Skim
        Its validation rows are used.
    steps : sequence of int
        Where to measure; rising.
    rows : int
        Rows in each of 4 groups, and chains for each; no more than a quarter of the effective number of validation
        rows, or of the persistent chains.
    seed : int

    Returns
    -------
    dict
        `steps`, `rows`, `floor`; `buffer` and `data`: the excess at each number of steps, of chains that go on from where
        training left them and of chains that begin at other data, each with its `_error`, the standard error over groups;
        the same against smeared data, `buffer_smeared` and `data_smeared`, if the model was trained on such; `memory`: how
        much further away from each other both kinds of chains are at the end than two sets of chains that begin at data;
        `at_walls`: the fraction of coordinates of chains within 1 % of the box's walls; `acceptance` of proposals.

    Raises
    ------
    SkimError
        There are fewer than 60 validation rows with positive weight.
    """
    part = data.splits("validation")
    positive = np.flatnonzero(part.weight > 0)
    if len(positive) < 60:
        raise SkimError(f"{len(positive)} validation rows have positive weight; the long-run excess needs 60")
    device = model.low.device
    generator = seeded(seed, 3, device)
    weight = torch.from_numpy(part.weight[positive]).to(device)
    order = torch.randperm(len(positive), generator=generator, device=device)
    pools = [order[k::GROUPS] for k in range(GROUPS)]
    size = min(rows, model.most_rows, len(pools[-1]), max(int(n_effective(part.weight[positive]) / GROUPS), 5))
    drawn = torch.cat([pool[sample_evenly(weight[pool], size, generator)] for pool in pools]).cpu().numpy()
    with torch.no_grad():
        z = model.transform(torch.from_numpy(np.asarray(part.x[positive[drawn]], np.float32)).to(device))
        return {"steps": list(steps), "rows": size, **_measure(model, groups(model.scaled(z)), steps, generator)}


def _measure(
    model: EnergyModel, data: list[Tensor], steps: Sequence[int], generator: torch.Generator
) -> dict[str, Any]:
    targets = {"": data}
    if model.smear > 0:
        targets["_smeared"] = model.smeared_groups(data, generator)
    tables = {kind: floors(rows) for kind, rows in targets.items()}
    begin = torch.cat([*data[1:], data[0]])  # each group of chains begins at another group than it is compared with
    starts = {"buffer": begin if model.sampling == "cd" else model.chain_points(len(begin), generator), "data": begin}
    out: dict[str, Any] = {}
    acceptance = 1.0
    for name, points in starts.items():
        for kind in targets:
            out[name + kind], out[f"{name}{kind}_error"] = [], []
        done = 0
        for k in steps:
            chains = model.run_chains(points, generator, steps=k - done)
            points, done = chains.points, k  # noqa: PLW2901
            acceptance = chains.acceptance.item() if k else acceptance
            for kind, rows in targets.items():
                measured = excess(rows, groups(points), tables[kind])
                out[name + kind].append(measured.value)
                out[f"{name}{kind}_error"].append(measured.error)
                out[f"floor{kind}"] = measured.floor
        starts[name] = points
    last = groups(starts["data"])
    apart = excess(last, groups(starts["buffer"]), floors(last))
    width = 0.01 * (model.high - model.low)
    walls = (starts["data"] < model.low + width) | (starts["data"] > model.high - width)
    return {
        **out, "memory": apart.value, "memory_error": apart.error,
        "at_walls": walls.double().mean().item(), "acceptance": acceptance,
    }  # fmt: skip
