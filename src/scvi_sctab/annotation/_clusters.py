"""Clusters of cells, by the Louvain algorithm on their nearest neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.neighbors import kneighbors_graph
from sknetwork.clustering import Louvain

_N_NEIGHBORS = 15
# Fine rather than coarse: a cluster of two types hides the one that is new.
_RESOLUTION = 1.5
_N_GENES, _N_COMPONENTS = 2000, 30


def cluster_cells(embedding: NDArray[np.floating]) -> NDArray[np.intp]:
    """Cluster cells :cite:p:`Blondel08`, always in the same way.

    Parameters
    ----------
    embedding
        Coordinates of the cells, ``(n_cells, n_dimensions)``.

    Returns
    -------
    Cluster of each cell, ``(n_cells,)``, the largest first; of the same size, that of the first
    cell.
    """
    n_cells = len(embedding)
    if n_cells <= 2:
        return np.zeros(n_cells, np.intp)
    points = np.asarray(embedding, np.float32)
    graph = kneighbors_graph(points, min(_N_NEIGHBORS, n_cells - 1))
    # Leiden of this library draws from a generator that cannot be seeded.
    codes = Louvain(_RESOLUTION, random_state=0).fit_predict(graph.maximum(graph.T))
    _, first, codes, sizes = np.unique(
        codes, return_index=True, return_inverse=True, return_counts=True
    )
    order = np.lexsort([first, -sizes])
    return np.argsort(order)[codes.ravel()]


def embed_cells(
    expression: sparse.csr_matrix, latent: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Join principal components of the expression with the latent space of a model.

    The model separates the types that it knows, principal components those that it does not; both
    have the same total variance.

    Parameters
    ----------
    expression
        Log-normalised expression, ``(n_cells, n_genes)``.
    latent
        ``(n_cells, n_latent)``.

    Returns
    -------
    ``(n_cells, n_components + n_latent)``.
    """
    if not expression.shape[0]:
        return np.asarray(latent, np.float64)
    mean = np.asarray(expression.mean(axis=0)).ravel()
    squares = np.asarray(expression.multiply(expression).mean(axis=0)).ravel()
    variance = np.maximum(squares - mean**2, 0)
    genes = np.argsort(-variance / (mean + 0.1), kind="stable")[:_N_GENES]
    genes = genes[variance[genes] > 0]
    parts = [latent - latent.mean(axis=0)]
    n_components = min(_N_COMPONENTS, len(genes) - 1, expression.shape[0] - 1)
    if n_components > 0:
        scaled = expression[:, genes] @ sparse.diags(1 / np.sqrt(variance[genes]))
        pca = PCA(n_components, svd_solver="arpack", random_state=0)
        parts.append(pca.fit_transform(scaled.tocsr()))
    total = [np.sqrt(part.var(axis=0).sum()) for part in parts]
    return np.column_stack([part / max(t, 1e-12) for part, t in zip(parts, total, strict=True)])
