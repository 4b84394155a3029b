"""Marker scores of genes from the statistics of groups of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist


class MarkerScores(NamedTuple):
    """Scores of every gene in every group; higher is better."""

    score: NDArray[np.float64]  # (n_groups, n_genes)
    specificity: NDArray[np.float64]  # (n_groups, n_genes), from 0 to 1
    nearby: NDArray[np.float64]  # (n_groups, n_genes), mean expression in the nearest groups
    nearest: NDArray[np.intp]  # (n_groups, n_nearest), positions of these, nearest first


def score_markers(
    n_cells: NDArray[np.intp],
    contribution: NDArray[np.float64],
    expression: NDArray[np.float64],
    squares: NDArray[np.float64],
    n_nearest: int = 3,
) -> MarkerScores:
    r"""Score genes that a label owes its logit to and that the most similar groups express less.

    The score of a gene is its contribution times the square of its specificity,

    .. math:: s = \max\left(0, \frac{\bar x - \bar x_\text{nearby} - \epsilon}{\bar x}\right),

    where :math:`\bar x` is the mean expression in the group, :math:`\bar x_\text{nearby}` that in
    the cells of the nearest groups together, and :math:`\epsilon` the standard error of the
    difference. Contribution alone ranks house-keeping genes first, since all cells express them
    much. On a linear path contribution times specificity is the weight times what the group
    expresses beyond its neighbours. Taken once, specificity still leaves some of them ahead of
    markers with little expression; it was squared, and three groups were chosen, on one split of
    one data set (benchmarks/explanations.py measures others).

    Parameters
    ----------
    n_cells
        Cells per group, ``(n_groups,)``, at least one.
    contribution
        Mean over the cells of each group, ``(n_groups, n_genes)``.
    expression, squares
        Mean of the log-normalised expression and of its squares, ``(n_groups, n_genes)``.
    n_nearest
        Groups to compare with; all others if there are fewer.

    Returns
    -------
    Scores, specificity, and the nearest groups by the Euclidean distance of mean expression. A
    group of one cell has no spread of its own, so the standard error is that of the spread within
    all groups. With one group there is nothing to compare with: the score is the contribution,
    specificity and ``nearby`` are missing, and ``nearest`` has no columns.

    Examples
    --------
    FTL has the largest contribution to both labels, and both groups express it.

    >>> expression = np.array([[5.0, 2.0, 0.0], [4.9, 0.0, 2.0]])  # FTL, LYZ, CD3D
    >>> contribution = expression * [[0.5, 0.4, -0.4], [0.5, -0.4, 0.4]]
    >>> found = score_markers(np.array([50, 50]), contribution, expression, expression**2)
    >>> found.score.round(3).tolist()
    [[0.001, 0.8, -0.0], [0.0, -0.0, 0.8]]
    """
    n_groups = len(n_cells)
    nearest = _nearest_groups(expression, n_nearest)
    if not nearest.shape[1]:
        missing = np.full(expression.shape, np.nan)
        return MarkerScores(contribution.copy(), missing, missing.copy(), nearest)
    near = np.zeros((n_groups, n_groups))
    np.put_along_axis(near, nearest, n_cells[nearest], axis=1)
    n_nearby = near.sum(axis=1, keepdims=True)
    nearby = near @ expression / n_nearby
    own, within = _variances(n_cells, expression, squares)
    error = np.sqrt(np.maximum(own, within) / n_cells[:, None] + within / n_nearby)
    excess = np.maximum(expression - nearby - error, 0)
    specificity = np.divide(excess, expression, out=np.zeros_like(excess), where=expression > 0)
    return MarkerScores(contribution * specificity**2, specificity, nearby, nearest)


def _nearest_groups(expression: NDArray[np.float64], n_nearest: int) -> NDArray[np.intp]:
    """Positions of the nearest other groups, nearest first; ties by position."""
    distance = cdist(expression, expression)
    np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    return order[:, : max(min(n_nearest, len(expression) - 1), 0)]


def _variances(
    n_cells: NDArray[np.intp], expression: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variance of each gene in each group, unbiased, and over the cells within all groups."""
    n = n_cells[:, None]
    deviations = n * np.maximum(squares - expression**2, 0)
    within = deviations.sum(axis=0) / max(n_cells.sum() - len(n_cells), 1)
    return deviations / np.maximum(n - 1, 1), within
