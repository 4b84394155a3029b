"""Order of genes in which neighbours are correlated, for convolutions over genes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A group of so few genes is sorted along its first component and not split again.
_LEAF = 8


def order_genes(*profiles: NDArray[np.floating], n_components: int = 20) -> NDArray[np.intp]:
    """Order genes so that genes with correlated expression are near each other.

    The genes are split at the median of their first principal component, and each half again, as in
    principal direction divisive partitioning :cite:p:`Boley98`. The halves of the tree are
    about the windows over which a U-Net pools. Ends of neighbouring groups are turned towards each other.

    Parameters
    ----------
    *profiles
        Expression of the same genes in bulk samples, in cells and so on, ``(n_samples, n_genes)``
        each, on a log scale. Each has the same weight, however many samples it has.
    n_components
        Number of principal components of each, which removes noise of single cells.

    Returns
    -------
    Positions of the genes in their order, ``(n_genes,)``.
    """
    features = np.concatenate([_components(x, n_components) for x in profiles], axis=1)
    # Unit vectors, so that distances depend on correlations and not on the expression level.
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.where(norm > 0, norm, 1)
    start = np.zeros(features.shape[1])
    return _divide(features, np.arange(len(features)), start)


def _components(profiles: NDArray[np.floating], n_components: int) -> Floats:
    """Compute the coordinates of genes on principal components of the samples.

    Parameters
    ----------
    profiles
        ``(n_samples, n_genes)``.
    n_components
        Largest number of components.

    Returns
    -------
    ``(n_genes, n)``, with a total variance of 1.
    """
    centred = np.asarray(profiles, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    # The number of samples is small; the eigenvectors of their products are those of the genes.
    values, vectors = np.linalg.eigh(centred @ centred.T)
    best = np.argsort(-values)[:n_components]
    best = best[values[best] > 1e-9 * max(values.max(), 1e-30)]
    scores = centred.T @ vectors[:, best]
    total = np.sqrt((scores**2).sum())
    return scores / (total if total > 0 else 1)


def _divide(features: Floats, genes: NDArray[np.intp], parent: Floats) -> NDArray[np.intp]:
    """Order some genes, ascending along a direction that points as that of their parent does."""
    of_these = features[genes]
    direction = _first_direction(of_these - of_these.mean(axis=0))
    if direction @ parent < 0:
        direction = -direction
    ranks = np.argsort(of_these @ direction, kind="stable")
    genes = genes[ranks]
    if len(genes) <= _LEAF:
        return genes
    middle = len(genes) // 2
    halves = [_divide(features, half, direction) for half in (genes[:middle], genes[middle:])]
    return np.concatenate(halves)


def _first_direction(centred: Floats) -> Floats:
    """Compute the first principal direction by its covariance, ``(n_features,)``."""
    covariance = centred.T @ centred
    if not covariance.any():
        return np.zeros(len(covariance))
    _, vectors = np.linalg.eigh(covariance)
    direction = vectors[:, -1]
    # The sign of an eigenvector is arbitrary.
    return direction * np.sign(direction[np.abs(direction).argmax()])
