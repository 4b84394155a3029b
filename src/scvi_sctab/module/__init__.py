"""Modules of scvi-tools: networks with their losses, trained by the plans of ``train``."""

from scvi_sctab.module._build import build_classifier, build_encoder, build_reconstruction
from scvi_sctab.module._classifier import CellTypeClassifier
from scvi_sctab.module._contrastive import BarlowTwinsModule, BYOLModule
from scvi_sctab.module._latent_classifier import LatentClassifier
from scvi_sctab.module._latent_space import VAELatentSpace
from scvi_sctab.module._likelihoods import LIKELIHOODS, Likelihood
from scvi_sctab.module._masked_autoencoder import MaskedAutoencoderModule
from scvi_sctab.module._query_paths import QueryPaths
from scvi_sctab.module._reconstruction import MaskedReconstruction

__all__ = [
    "BYOLModule",
    "BarlowTwinsModule",
    "LIKELIHOODS",
    "CellTypeClassifier",
    "LatentClassifier",
    "Likelihood",
    "MaskedAutoencoderModule",
    "MaskedReconstruction",
    "QueryPaths",
    "VAELatentSpace",
    "build_classifier",
    "build_encoder",
    "build_reconstruction",
]
