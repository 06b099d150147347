"""The torch half: models, losses, samplers, data, loop, export (extra `train`). Nothing outside imports it."""

from __future__ import annotations

from coffea_ad.modelfiles.combine import combine
from coffea_ad.modelfiles.fuse import fuse_linear
from coffea_ad.modelfiles.quantise import quantise
from coffea_ad.modelfiles.windows import bundle
from coffea_ad.nn.classifiers.bagged import BaggedTrees
from coffea_ad.nn.classifiers.mlp import MLP
from coffea_ad.nn.classifiers.trees import Trees
from coffea_ad.nn.cross_training import CrossTrained, fit_folds
from coffea_ad.nn.density.flow import Flow
from coffea_ad.nn.density.latent import FlowLatent
from coffea_ad.nn.density.mixture import GaussianMixture
from coffea_ad.nn.density.sampling import sample_equally
from coffea_ad.nn.encoded import Encoded, FrozenGraph
from coffea_ad.nn.energy_based.diagnostics import long_run
from coffea_ad.nn.energy_based.distances import DISTANCES
from coffea_ad.nn.energy_based.energy import EnergyModel, Sampling
from coffea_ad.nn.energy_based.nae import NAE
from coffea_ad.nn.energy_based.samplers import langevin
from coffea_ad.nn.energy_based.wnae import WNAE
from coffea_ad.nn.ensemble import Ensemble
from coffea_ad.nn.export import export, make_card
from coffea_ad.nn.loading import load
from coffea_ad.nn.model import Batch, Model
from coffea_ad.nn.one_class.mahalanobis import Mahalanobis
from coffea_ad.nn.one_class.neighbours import Neighbours
from coffea_ad.nn.one_class.svdd import BiasFreeAE, DeepSVDD, UnboundedActivation
from coffea_ad.nn.one_class.svdd_ensemble import DIMENSIONS, DeepSVDDEnsemble
from coffea_ad.nn.recipe import (
    ChainConfig,
    EncoderConfig,
    LatentConfig,
    NetworkConfig,
    RecipeConfig,
    SetConfig,
    publish,
)
from coffea_ad.nn.reconstruction.autoencoder import AE, Activation, Output, Score
from coffea_ad.nn.reconstruction.image import ImageAE, PixelPower
from coffea_ad.nn.reconstruction.pca import PCA, KernelPCA, PCAScore
from coffea_ad.nn.reconstruction.vae import VAE, DirichletVAE
from coffea_ad.nn.scorable import Scorable
from coffea_ad.nn.self_supervised.contrastive import CLR, DDD
from coffea_ad.nn.self_supervised.distillation import SelfDistillation
from coffea_ad.nn.self_supervised.encoder import SetEncoder
from coffea_ad.nn.self_supervised.masked import MaskedParticles
from coffea_ad.nn.self_supervised.tokens import Tokens
from coffea_ad.nn.students.student import SetStudent, Student
from coffea_ad.nn.students.teacher import Teacher
from coffea_ad.nn.training.history import History
from coffea_ad.nn.training.loop import TrainConfig, fit
from coffea_ad.nn.transforms.boxes import Logit, MinMax
from coffea_ad.nn.transforms.columns import Log, QuantileNormal, Standard, Transform
from coffea_ad.nn.transforms.per_column import PerColumn, Preprocessing, Unchanged, preprocessing
from coffea_ad.nn.transforms.representation import Representation
from coffea_ad.nn.transforms.selected import Selected
from coffea_ad.nn.transforms.slots import Slots
from coffea_ad.skims.reading import load_skim
from coffea_ad.skims.skim import Skim

__all__ = [
    "AE",
    "CLR",
    "DDD",
    "DIMENSIONS",
    "DISTANCES",
    "MLP",
    "NAE",
    "PCA",
    "VAE",
    "WNAE",
    "Activation",
    "BaggedTrees",
    "Batch",
    "BiasFreeAE",
    "ChainConfig",
    "CrossTrained",
    "DeepSVDD",
    "DeepSVDDEnsemble",
    "DirichletVAE",
    "Encoded",
    "EncoderConfig",
    "EnergyModel",
    "Ensemble",
    "Flow",
    "FlowLatent",
    "FrozenGraph",
    "GaussianMixture",
    "History",
    "ImageAE",
    "KernelPCA",
    "LatentConfig",
    "Log",
    "Logit",
    "Mahalanobis",
    "MaskedParticles",
    "MinMax",
    "Model",
    "Neighbours",
    "NetworkConfig",
    "Output",
    "PCAScore",
    "PerColumn",
    "PixelPower",
    "Preprocessing",
    "QuantileNormal",
    "RecipeConfig",
    "Representation",
    "Sampling",
    "Scorable",
    "Score",
    "Selected",
    "SelfDistillation",
    "SetConfig",
    "SetEncoder",
    "SetStudent",
    "Skim",
    "Slots",
    "Standard",
    "Student",
    "Teacher",
    "Tokens",
    "TrainConfig",
    "Transform",
    "Trees",
    "UnboundedActivation",
    "Unchanged",
    "bundle",
    "combine",
    "export",
    "fit",
    "fit_folds",
    "fuse_linear",
    "langevin",
    "load",
    "load_skim",
    "long_run",
    "make_card",
    "preprocessing",
    "publish",
    "quantise",
    "sample_equally",
]
