"""The torch half: models, losses, samplers, data, loop, export (extra `train`). Nothing outside imports it."""

from __future__ import annotations

from coffea_ad.nn.autoencoder import AE, Activation, Output, Score
from coffea_ad.nn.combine import combine
from coffea_ad.nn.diagnostics import long_run
from coffea_ad.nn.distances import DISTANCES
from coffea_ad.nn.energy import EnergyModel, Sampling
from coffea_ad.nn.export import export, make_card, torch_scores
from coffea_ad.nn.folded import Folded
from coffea_ad.nn.folding import fold_linear
from coffea_ad.nn.image import ImageAE, PixelPower
from coffea_ad.nn.loop import TrainConfig, fit
from coffea_ad.nn.model import Model
from coffea_ad.nn.nae import NAE
from coffea_ad.nn.pca import PCA, KernelPCA, PCAScore
from coffea_ad.nn.percolumn import PerColumn, Preprocessing, Unchanged, preprocessing
from coffea_ad.nn.quantise import quantise
from coffea_ad.nn.samplers import langevin
from coffea_ad.nn.svdd import BiasFreeAE, DeepSVDD, UnboundedActivation
from coffea_ad.nn.svdd_ensemble import DIMENSIONS, DeepSVDDEnsemble
from coffea_ad.nn.transforms import Log, QuantileNormal, Standard, Transform
from coffea_ad.nn.vae import VAE, DirichletVAE
from coffea_ad.nn.windows import bundle
from coffea_ad.nn.wnae import WNAE
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
