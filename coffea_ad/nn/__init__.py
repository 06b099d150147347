"""The torch half: models, losses, samplers, data, loop, export (extra `train`). Nothing outside imports it."""

from __future__ import annotations

from coffea_ad.modelfiles.combine import combine
from coffea_ad.modelfiles.fuse import fold_linear
from coffea_ad.modelfiles.quantise import quantise
from coffea_ad.modelfiles.windows import bundle
from coffea_ad.nn.cross_training import Folded
from coffea_ad.nn.energy_based.diagnostics import long_run
from coffea_ad.nn.energy_based.distances import DISTANCES
from coffea_ad.nn.energy_based.energy import EnergyModel, Sampling
from coffea_ad.nn.energy_based.nae import NAE
from coffea_ad.nn.energy_based.samplers import langevin
from coffea_ad.nn.energy_based.wnae import WNAE
from coffea_ad.nn.export import export, make_card, torch_scores
from coffea_ad.nn.model import Model
from coffea_ad.nn.one_class.svdd import BiasFreeAE, DeepSVDD, UnboundedActivation
from coffea_ad.nn.one_class.svdd_ensemble import DIMENSIONS, DeepSVDDEnsemble
from coffea_ad.nn.reconstruction.autoencoder import AE, Activation, Output, Score
from coffea_ad.nn.reconstruction.image import ImageAE, PixelPower
from coffea_ad.nn.reconstruction.pca import PCA, KernelPCA, PCAScore
from coffea_ad.nn.reconstruction.vae import VAE, DirichletVAE
from coffea_ad.nn.training.loop import TrainConfig, fit
from coffea_ad.nn.transforms.columns import Log, QuantileNormal, Standard, Transform
from coffea_ad.nn.transforms.per_column import PerColumn, Preprocessing, Unchanged, preprocessing
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim

__all__ = [
    "AE",
    "DIMENSIONS",
    "DISTANCES",
    "NAE",
    "PCA",
    "VAE",
    "WNAE",
    "Activation",
    "BiasFreeAE",
    "DeepSVDD",
    "DeepSVDDEnsemble",
    "DirichletVAE",
    "EnergyModel",
    "Folded",
    "ImageAE",
    "KernelPCA",
    "Log",
    "Model",
    "Output",
    "PCAScore",
    "PerColumn",
    "PixelPower",
    "Preprocessing",
    "QuantileNormal",
    "Sampling",
    "Score",
    "Skim",
    "Standard",
    "TrainConfig",
    "Transform",
    "UnboundedActivation",
    "Unchanged",
    "bundle",
    "combine",
    "export",
    "fit",
    "fold_linear",
    "langevin",
    "load_skim",
    "long_run",
    "make_card",
    "preprocessing",
    "quantise",
    "torch_scores",
]
