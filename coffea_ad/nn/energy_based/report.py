"""What is left of the training of an energy model: its long run, and plots of data against chains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from coffea_ad.nn.energy_based.diagnostics import long_run
from coffea_ad.nn.energy_based.energy import EnergyModel
from coffea_ad.nn.training import plots
from coffea_ad.nn.training.history import History
from coffea_ad.skims.skim import Skim

__all__ = ["report_chains"]


def report_chains(
    model: EnergyModel, data: Skim, history: History, folder: Path, *, steps: Sequence[int], seed: int
) -> None:
    """Measure how far chains go from the data at frozen weights, and plot it with the training.

    Parameters
    ----------
    model : EnergyModel
    data : Skim
        Its validation rows are used.
    history : History
        Gets "long_run" among what was measured.
    folder : path
        Gets `long_run.json`, `training.png`, `chain_health.png`, `long_run.png`, `chains.png` and `chains_2d.png`.
    steps, seed
        As `long_run` takes them.
    """
    measured = long_run(model, data, steps=steps, seed=seed)
    history.measured["long_run"] = measured
    (folder / "long_run.json").write_text(json.dumps(measured, indent=1))
    plots.training(history, model.plotted, folder / "training.png")
    plots.chain_health(history, folder / "chain_health.png")
    plots.long_run(measured, folder / "long_run.png")
    held_out = data.splits("validation")
    held_out = held_out.select(np.random.default_rng(1).permutation(len(held_out.x))[:10_000])
    with torch.no_grad():
        z = model.transform(torch.from_numpy(held_out.x))
        generator = torch.Generator().manual_seed(1)
        chains = model.sample(len(z), generator, z=z if model.sampling == "cd" else None, steps=500).numpy()
    columns = data.columns
    plots.data_and_chains(z.numpy(), held_out.weight, chains, columns, folder / "chains.png")
    plots.data_and_chains_2d(z.numpy(), held_out.weight, chains, columns, folder / "chains_2d.png")
