"""The torch half: models, losses, samplers, data, loop, export (extra `train`). Nothing outside imports it."""

from __future__ import annotations

from coffea_ad.nn.autoencoder import AE, Activation
from coffea_ad.nn.export import export, make_card, torch_scores
from coffea_ad.nn.folded import Folded
from coffea_ad.nn.loop import TrainConfig, fit
from coffea_ad.nn.losses import wasserstein2
from coffea_ad.nn.model import Model
from coffea_ad.nn.samplers import langevin
from coffea_ad.nn.transforms import QuantileNormal, Transform
from coffea_ad.nn.wnae import WNAE
from coffea_ad.skims import Skim, load_skim

__all__ = [
    "AE",
    "WNAE",
    "Activation",
    "Folded",
    "Model",
    "QuantileNormal",
    "Skim",
    "TrainConfig",
    "Transform",
    "export",
    "fit",
    "langevin",
    "load_skim",
    "make_card",
    "torch_scores",
    "wasserstein2",
]
