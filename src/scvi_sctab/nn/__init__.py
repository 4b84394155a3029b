"""Networks, losses and tensor transforms; torch, and numba where cells are sparse."""

from scvi_sctab.nn._capped_linear import CappedLinear
from scvi_sctab.nn._conditions import BatchEmbedding
from scvi_sctab.nn._contrastive import Projector, barlow_twins_loss, byol_loss, embedding_spread
from scvi_sctab.nn._decoder import TabNetDecoder
from scvi_sctab.nn._ema import frozen_copy, update_moving_average
from scvi_sctab.nn._encoders import EncoderOutput, LinearEncoder, MLPEncoder
from scvi_sctab.nn._entmax import entmax15, sparsemax
from scvi_sctab.nn._growth import (
    GradientMask,
    NewEntries,
    append_entries,
    frozen_but,
    matches,
    n_trained,
)
from scvi_sctab.nn._losses import (
    UNLABELED_CODE,
    MeanTotal,
    Reduction,
    marginal_cross_entropy,
    weighted_cross_entropy,
)
from scvi_sctab.nn._masking import (
    HiddenGenes,
    hide_genes,
    masked_mean,
    masked_reconstruction_loss,
)
from scvi_sctab.nn._masks import (
    NoMask,
    ProgrammeMask,
    ProgrammeToGeneMask,
    ProgrammeToProgrammeMask,
    RandomMask,
)
from scvi_sctab.nn._precision import single_precision
from scvi_sctab.nn._restriction import select_entries
from scvi_sctab.nn._sampling import sample
from scvi_sctab.nn._selu import SELUDecoder, SELUEncoder
from scvi_sctab.nn._sparse_layers import GeneLinear
from scvi_sctab.nn._tabnet import TabNet, TabNetEncoder, label_head
from scvi_sctab.nn._tabnet_blocks import AttentiveTransformer, FeatureTransformer, GhostBatchNorm
from scvi_sctab.nn._transforms import (
    TARGET_SUM,
    augment,
    count_molecules,
    normalize_counts,
    thin_to_depths,
)
from scvi_sctab.nn._views import CellViews, negative_binomial_noise
from scvi_sctab.sparse import CSR, over_parts, sleeping_threads

__all__ = [
    "CSR",
    "TARGET_SUM",
    "UNLABELED_CODE",
    "AttentiveTransformer",
    "BatchEmbedding",
    "CappedLinear",
    "CellViews",
    "EncoderOutput",
    "FeatureTransformer",
    "GeneLinear",
    "GhostBatchNorm",
    "GradientMask",
    "HiddenGenes",
    "LinearEncoder",
    "MLPEncoder",
    "NewEntries",
    "NoMask",
    "ProgrammeMask",
    "ProgrammeToGeneMask",
    "ProgrammeToProgrammeMask",
    "RandomMask",
    "Projector",
    "MeanTotal",
    "Reduction",
    "SELUDecoder",
    "SELUEncoder",
    "TabNet",
    "TabNetDecoder",
    "TabNetEncoder",
    "append_entries",
    "augment",
    "count_molecules",
    "barlow_twins_loss",
    "byol_loss",
    "embedding_spread",
    "entmax15",
    "frozen_but",
    "frozen_copy",
    "hide_genes",
    "label_head",
    "marginal_cross_entropy",
    "masked_mean",
    "masked_reconstruction_loss",
    "matches",
    "n_trained",
    "negative_binomial_noise",
    "normalize_counts",
    "select_entries",
    "over_parts",
    "sample",
    "single_precision",
    "thin_to_depths",
    "sleeping_threads",
    "sparsemax",
    "update_moving_average",
    "weighted_cross_entropy",
]
