"""Networks, losses and tensor transforms; torch, and numba where cells are sparse."""

from scvi_sctab.nn._conditions import BatchEmbedding
from scvi_sctab.nn._csr import CSR
from scvi_sctab.nn._decoder import TabNetDecoder
from scvi_sctab.nn._encoders import EncoderOutput, LinearEncoder, MLPEncoder
from scvi_sctab.nn._entmax import entmax15, sparsemax
from scvi_sctab.nn._growth import NewEntries, append_entries, frozen_but, matches, n_trained
from scvi_sctab.nn._losses import (
    UNLABELED_CODE,
    Reduction,
    marginal_cross_entropy,
    weighted_cross_entropy,
)
from scvi_sctab.nn._masking import HiddenGenes, hide_genes, masked_reconstruction_loss
from scvi_sctab.nn._masks import (
    ProgrammeMask,
    ProgrammeToGeneMask,
    ProgrammeToProgrammeMask,
    RandomMask,
)
from scvi_sctab.nn._sparse_layers import GeneLinear
from scvi_sctab.nn._tabnet import TabNet, TabNetEncoder, label_head
from scvi_sctab.nn._tabnet_blocks import AttentiveTransformer, FeatureTransformer, GhostBatchNorm
from scvi_sctab.nn._transforms import augment, normalize_counts

__all__ = [
    "CSR",
    "UNLABELED_CODE",
    "AttentiveTransformer",
    "BatchEmbedding",
    "EncoderOutput",
    "FeatureTransformer",
    "GeneLinear",
    "GhostBatchNorm",
    "HiddenGenes",
    "LinearEncoder",
    "MLPEncoder",
    "NewEntries",
    "ProgrammeMask",
    "ProgrammeToGeneMask",
    "ProgrammeToProgrammeMask",
    "RandomMask",
    "Reduction",
    "TabNet",
    "TabNetDecoder",
    "TabNetEncoder",
    "append_entries",
    "augment",
    "entmax15",
    "frozen_but",
    "hide_genes",
    "label_head",
    "marginal_cross_entropy",
    "masked_reconstruction_loss",
    "matches",
    "n_trained",
    "normalize_counts",
    "sparsemax",
    "weighted_cross_entropy",
]
