"""Votes of cells in clusters or in neighbourhoods."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from sklearn.neighbors import NearestNeighbors

from scvi_sctab.metrics import normalized_entropy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scvi_sctab.annotation._state import AnnotationState

# Lower bound of probabilities, to take finite logarithms.
_MIN_PROBABILITY = 1e-12
# Largest of the tested weights that does not lower macro F1 by 0.001 on the bundled donors or on
# either of two pairs of the Kang donors.
VOTE_WEIGHT = 0.2


class Neighborhood(NamedTuple):
    """Neighbourhood of each cell, itself included: mean probabilities and labels.

    Attributes
    ----------
    mean
        Mean probabilities, ``(n_cells, n_labels)``.
    frequency
        Share of cells by their most probable label, ``(n_cells, n_labels)``.
    size
        Number of cells, ``(n_cells, 1)``.
    """

    mean: NDArray[np.float64]
    frequency: NDArray[np.float64]
    size: NDArray[np.intp]


def neighborhoods_of_groups(
    probabilities: NDArray[np.floating], codes: NDArray[np.integer]
) -> Neighborhood:
    """Average probabilities over the group of each cell.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    codes
        Group of each cell, from 0 on, ``(n_cells,)``.

    Examples
    --------
    >>> around = neighborhoods_of_groups(np.array([[1.0, 0.0], [0.4, 0.6]]), np.array([0, 0]))
    >>> around.mean[0].tolist(), around.frequency[0].tolist()
    ([0.7, 0.3], [0.5, 0.5])
    """
    sizes = np.bincount(codes)[:, None]

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.zeros((len(sizes), values.shape[1]))
        np.add.at(sums, codes, values)
        return (sums / np.maximum(sizes, 1))[codes]

    return Neighborhood(mean(probabilities), mean(_own_labels(probabilities)), sizes[codes])


def neighborhoods_of_neighbors(
    probabilities: NDArray[np.floating], neighbors: NDArray[np.integer]
) -> Neighborhood:
    """Average probabilities over the neighbours of each cell.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    neighbors
        Positions of the neighbours of each cell, itself included, ``(n_cells, n_neighbors)``; -1
        if there are fewer.

    Examples
    --------
    >>> own = np.array([[1.0, 0.0], [0.4, 0.6]])
    >>> neighborhoods_of_neighbors(own, np.array([[0, 1], [1, -1]])).mean.tolist()
    [[0.7, 0.3], [0.4, 0.6]]
    """
    there = neighbors >= 0
    size = there.sum(axis=1)[:, None]

    def mean(values: NDArray[np.floating]) -> NDArray[np.float64]:
        sums = np.zeros(values.shape)
        for column, exists in zip(neighbors.T, there.T, strict=True):
            sums[exists] += values[column[exists]]
        return sums / size

    return Neighborhood(mean(probabilities), mean(_own_labels(probabilities)), size)


def nearest_neighbors(
    latent: NDArray[np.floating], batches: NDArray[np.integer], n_neighbors: int
) -> NDArray[np.intp]:
    """Find the nearest cells of the same batch.

    Parameters
    ----------
    latent
        ``(n_cells, n_latent)``.
    batches
        Batch of each cell, ``(n_cells,)``.
    n_neighbors
        Number of cells to find, the cell itself included.

    Returns
    -------
    Positions, the cell itself first, ``(n_cells, n_neighbors)``; -1 if a batch has fewer cells.

    Examples
    --------
    >>> nearest_neighbors(np.array([[0.0], [0.2], [0.1]]), np.array([0, 0, 1]), 2).tolist()
    [[0, 1], [1, 0], [2, -1]]
    """
    found = np.full((len(latent), n_neighbors), -1, dtype=np.intp)
    found[:, 0] = np.arange(len(latent))
    for batch in np.unique(batches):
        cells = np.flatnonzero(batches == batch)
        n_others = min(n_neighbors, len(cells)) - 1
        if n_others:
            search = NearestNeighbors(n_neighbors=n_others).fit(latent[cells])
            # Called without cells, it excludes the cell itself, even if another one is equal.
            found[cells, 1 : n_others + 1] = cells[search.kneighbors(return_distance=False)]
    return found


def vote(
    probabilities: NDArray[np.floating],
    around: Neighborhood,
    base: NDArray[np.floating],
    weight: float = VOTE_WEIGHT,
) -> NDArray[np.float64]:
    r"""Combine the probabilities of each cell with those of its neighbourhood.

    This is a product of experts. With :math:`p_i` the probabilities of the cell, :math:`b` those
    of all cells, and :math:`m_i` the mean of the neighbourhood with :math:`b` in place of
    :math:`p_i`,

    .. math:: p'_{ik} \propto p_{ik} \left(\frac{m_{ik}}{b_k}\right)^w.

    If the expression of the cell and its neighbourhood are independent given the type, this is
    Bayes' theorem with :math:`w=1`; as both depend on the same genes, :math:`w` is smaller. The
    division by :math:`b` keeps rare types: the neighbourhood favours types that are more frequent
    in it than among all cells, not types that are frequent everywhere. If the neighbourhood has
    the same mean as all cells, or has no other cells, probabilities do not change.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``.
    around
        Neighbourhood of each cell.
    base
        Mean probabilities of all cells, ``(n_labels,)``, or of the batch of each cell,
        ``(n_cells, n_labels)``.
    weight
        :math:`w`; with 0 probabilities do not change.

    Returns
    -------
    Probabilities, ``(n_cells, n_labels)``.

    Examples
    --------
    >>> own = np.array([[0.9, 0.1], [0.55, 0.45], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    >>> around = neighborhoods_of_groups(own, np.array([0, 0, 0, 0, 1, 1]))
    >>> vote(own, around, own.mean(axis=0), weight=0.5).argmax(axis=1).tolist()
    [0, 1, 1, 1, 0, 0]
    """
    others = around.mean + (base - probabilities) / around.size
    logs = _safe_log(probabilities) + weight * (_safe_log(others) - _safe_log(base))
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def refine_labels(
    state: AnnotationState,
    class_balanced: pd.DataFrame,
    around: Neighborhood,
    base: NDArray[np.floating],
    weight: float = VOTE_WEIGHT,
) -> pd.DataFrame:
    """Predict labels after a vote.

    Parameters
    ----------
    state
        State of the model.
    class_balanced
        Class-balanced probabilities, ``(n_cells, n_labels)``, named by cell and label.
    around
        Neighbourhood of each cell.
    base, weight
        As in :func:`vote`.

    Returns
    -------
    A row per cell, columns as of :meth:`scvi_sctab.SCTAB.refine`.
    """
    raw = class_balanced.to_numpy(dtype=np.float64)
    own = state.with_label_prior(raw)
    refined = state.with_label_prior(vote(raw, around, base, weight))
    before, after = own.argmax(axis=1), refined.argmax(axis=1)
    rows = np.arange(len(own))
    return pd.DataFrame(
        {
            "label": pd.Categorical.from_codes(after, categories=class_balanced.columns),
            "probability": refined[rows, after],
            "raw_label": pd.Categorical.from_codes(before, categories=class_balanced.columns),
            "changed": before != after,
            "cluster_frequency": around.frequency[rows, after],
            "cluster_entropy": normalized_entropy(torch.from_numpy(around.mean)).numpy(),
        },
        index=class_balanced.index,
    )


def _own_labels(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the one-hot code of the most probable label of each cell."""
    return np.eye(probabilities.shape[1])[probabilities.argmax(axis=1)]


def _safe_log(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float64), _MIN_PROBABILITY))
