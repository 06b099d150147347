"""The density of the background, p(x | m): learnt in the sidebands, and asked in the signal region."""

from __future__ import annotations

from pathlib import Path

import torch

from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.ensemble import Ensemble
from coffea_ad.nn.model import Model
from coffea_ad.nn.training.loop import fit
from coffea_ad.nn.transforms.per_column import preprocessing
from coffea_ad.resonant.settings import FlowConfig
from coffea_ad.skims.skim import Skim

__all__ = ["conditional_flow", "fit_density"]


def conditional_flow(settings: FlowConfig, columns: list[str], mass: str, seed: int, *, joint: bool = False) -> Flow:
    """Return an untrained flow p(x | m), or p(x, m) if `joint`, over rows with all columns."""
    torch.manual_seed(seed)
    kinds = dict.fromkeys(columns, settings.preprocessing) | ({} if joint else {mass: "standard"})
    return Flow(
        len(columns), kind=settings.kind, coupling=settings.coupling, context=() if joint else (columns.index(mass),),
        transforms=settings.transforms, hidden=settings.hidden, bins=settings.bins,
        transform=preprocessing(kinds, columns),
    )  # fmt: skip


def fit_density(settings: FlowConfig, rows: Skim, mass: str, folder: Path, seed: int) -> tuple[Model | Ensemble, float]:
    """Train p(x | m) on rows of data, by maximum likelihood.

    Parameters
    ----------
    settings : FlowConfig
    rows : Skim
        "train" and "validation" rows are used.
    mass : str
        A column of x.
    folder : path
    seed : int

    Returns
    -------
    Model or Ensemble, float
        The mean of the densities of the best epochs, and the best validation loss.
    """
    flow = conditional_flow(settings, rows.columns, mass, seed)
    config = settings.training(int((rows.split == "train").sum()), seed)
    history = fit(flow, rows, config, folder)
    return Ensemble.of_epochs(flow, history), float(history.best[flow.criterion])
