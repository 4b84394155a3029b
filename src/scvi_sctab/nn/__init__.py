"""Networks, losses and tensor transforms; torch, and numba where cells are sparse."""

from scvi_sctab.nn._csr import CSR
from scvi_sctab.nn._encoders import EncoderOutput, LinearEncoder, MLPEncoder
from scvi_sctab.nn._entmax import entmax15, sparsemax
from scvi_sctab.nn._losses import UNLABELED_CODE, Reduction, weighted_cross_entropy
from scvi_sctab.nn._sparse_layers import GeneLinear
from scvi_sctab.nn._tabnet import TabNet, TabNetEncoder, label_head
from scvi_sctab.nn._tabnet_blocks import AttentiveTransformer, FeatureTransformer, GhostBatchNorm
from scvi_sctab.nn._transforms import augment, normalize_counts

__all__ = [
    "CSR",
    "UNLABELED_CODE",
    "AttentiveTransformer",
    "EncoderOutput",
    "FeatureTransformer",
    "GeneLinear",
    "GhostBatchNorm",
    "LinearEncoder",
    "MLPEncoder",
    "Reduction",
    "TabNet",
    "TabNetEncoder",
    "augment",
    "entmax15",
    "label_head",
    "normalize_counts",
    "sparsemax",
    "weighted_cross_entropy",
]
