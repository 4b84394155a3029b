"""Marker scores of genes from the statistics of groups of cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

_POWER = 3  # of specificity, relative to contribution


class MarkerScores(NamedTuple):
    """Scores of every gene in every group; higher is better."""

    score: NDArray[np.float64]  # (n_groups, n_genes)
    specificity: NDArray[np.float64]  # (n_groups, n_genes), from 0 to 1
    nearby: NDArray[np.float64]  # (n_groups, n_genes), mean expression of the nearest groups
    elsewhere: NDArray[np.float64]  # (n_groups, n_genes), mean expression of all other groups
    nearest: NDArray[np.intp]  # (n_groups, n_nearest), positions of groups, nearest first


def score_markers(
    n_cells: NDArray[np.intp],
    contribution: NDArray[np.float64],
    expression: NDArray[np.float64],
    squares: NDArray[np.float64],
    n_nearest: int = 3,
) -> MarkerScores:
    r"""Score genes by their contribution to a label and by how specific their expression is.

    The score of a gene is its contribution times the cube of its specificity,

    .. math:: s = \max\left(0, \frac{\bar x - \bar x_r - \epsilon_r}{\bar x}\right),

    where :math:`\bar x` is the mean expression in the group, :math:`\bar x_r` the mean over other
    groups, each with the same weight, and :math:`\epsilon_r` the standard error of the difference.
    The lower specificity of two comparisons is used: with the nearest groups, which are hardest to
    distinguish, and with all others. Contribution alone ranks house-keeping genes first, since
    all cells express them strongly. Their contribution can be many times that of a marker with few
    transcripts, hence the power. The power and the number of nearest groups were chosen by
    textbook markers on one split of each Kang data set; other data are in
    ``benchmarks/studies/explanations.md``.

    Parameters
    ----------
    n_cells
        Cells per group, ``(n_groups,)``, at least one.
    contribution
        Mean over the cells of each group, ``(n_groups, n_genes)``.
    expression, squares
        Mean of the log-normalised expression and of its squares, ``(n_groups, n_genes)``.
    n_nearest
        Number of nearest groups; all others if there are fewer.

    Returns
    -------
    Scores and their parts. Nearest are the groups with the smallest Euclidean distance of
    mean expression. The variance of a gene is that within the group, but at least the pooled one
    within all groups, which is the only one for a group of one cell. With a single group the score
    is the contribution, ``specificity``, ``nearby`` and ``elsewhere`` are missing, and ``nearest``
    has no columns.

    Examples
    --------
    FTL has the largest contribution to both labels, and both groups express it.

    >>> expression = np.array([[5.0, 2.0, 0.0], [4.9, 0.0, 2.0]])  # FTL, LYZ, CD3D
    >>> contribution = expression * [[0.5, 0.4, 0.1], [0.5, 0.1, 0.4]]
    >>> found = score_markers(np.array([50, 50]), contribution, expression, expression**2)
    >>> found.score.round(3).tolist()
    [[0.0, 0.8, 0.0], [0.0, 0.0, 0.8]]
    """
    n_groups = len(n_cells)
    nearest = _nearest_groups(expression, n_nearest)
    if not nearest.shape[1]:
        missing = np.full(expression.shape, np.nan)
        return MarkerScores(contribution.copy(), missing, missing, missing, nearest)
    near = np.zeros((n_groups, n_groups))
    np.put_along_axis(near, nearest, 1 / nearest.shape[1], axis=1)
    others = (1 - np.eye(n_groups)) / (n_groups - 1)
    own, within = _variances(n_cells, expression, squares)
    of_group = np.maximum(own, within) / n_cells[:, None]
    excess = np.full(expression.shape, np.inf)
    for weights in (near, others):
        error = np.sqrt(of_group + np.outer(weights**2 @ (1 / n_cells), within))
        excess = np.minimum(excess, expression - weights @ expression - error)
    share = np.divide(excess, expression, out=np.zeros_like(excess), where=expression > 0)
    specificity = np.maximum(share, 0)
    return MarkerScores(
        score=contribution * specificity**_POWER,
        specificity=specificity,
        nearby=near @ expression,
        elsewhere=others @ expression,
        nearest=nearest,
    )


def _nearest_groups(expression: NDArray[np.float64], n_nearest: int) -> NDArray[np.intp]:
    """Find the positions of the nearest other groups, nearest first; ties by position."""
    distance = cdist(expression, expression)
    np.fill_diagonal(distance, np.inf)
    order = np.argsort(distance, axis=1, kind="stable")
    return order[:, : max(min(n_nearest, len(expression) - 1), 0)]


def _variances(
    n_cells: NDArray[np.intp], expression: NDArray[np.float64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the unbiased variance of each gene in each group, and the pooled variance."""
    n = n_cells[:, None]
    deviations = n * np.maximum(squares - expression**2, 0)
    within = deviations.sum(axis=0) / max(n_cells.sum() - len(n_cells), 1)
    return deviations / np.maximum(n - 1, 1), within
