"""Weights of factors in cells from which the factor model starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from sklearn.cluster import KMeans

if TYPE_CHECKING:
    from scvi_sctab.external.scdtl._factor import GenePrior

Floats = NDArray[np.float64]

_N_COMPONENTS = 10
_N_RUNS = 5
# Share of the weight of a cell that is spread over all factors.
_SPREAD = 0.2


def bulk_scores(counts: sparse.csr_matrix, prior: GenePrior) -> Floats:
    """Project cells on the contrasts of bulk.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    prior
        Level of each gene, and its contrasts in bulk.

    Returns
    -------
    Difference of the mean contrast over the molecules of a cell to that over all molecules,
    ``(n_cells, n_features)``; 0 for a cell without molecules.
    """
    library = np.asarray(counts.sum(axis=1), dtype=float)
    scores = counts @ prior.features - library * (prior.level @ prior.features)
    return scores / np.maximum(library, 1)


def expression_scores(counts: sparse.csr_matrix) -> Floats:
    """Compute principal components of log-normalised expression, ``(n_cells, <= 10)``.

    Parameters
    ----------
    counts
        ``(n_cells, n_genes)``.
    """
    library = np.asarray(counts.sum(axis=1), dtype=float)
    x = sparse.csr_matrix(counts.multiply(1e4 / np.maximum(library, 1)), dtype=np.float64)
    x.data = np.log1p(x.data)
    # The first component without centring is close to the mean; one more makes up for it. A
    # constant start makes the result independent of the order of cells and genes.
    n_components = min(_N_COMPONENTS + 1, min(x.shape) - 1)
    u, s, _ = svds(x, n_components, v0=np.ones(min(x.shape)))
    scores = u * s
    return scores - scores.mean(axis=0)


def cluster_weights(scores: Floats, n_factors: int, seed: int) -> Floats:
    """Cluster cells, and give most of the weight of a cell to the factor of its cluster.

    Parameters
    ----------
    scores
        ``(n_cells, n_dimensions)``.
    n_factors
        Number of factors; if there are fewer different cells, some factors are of none.
    seed
        Seed of k-means.

    Returns
    -------
    ``(n_cells, n_factors)``; rows sum to 1.
    """
    n_clusters = min(n_factors, len(np.unique(scores, axis=0)))
    clusters = KMeans(n_clusters, n_init=_N_RUNS, random_state=seed).fit_predict(scores)
    weights = np.full((len(scores), n_factors), _SPREAD / n_factors)
    weights[np.arange(len(scores)), clusters] += 1 - _SPREAD
    return weights
