"""Cells whose label contradicts predictions that were made without them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class LabelIssues(NamedTuple):
    """Cells ranked by how much their label contradicts the predictions.

    Attributes
    ----------
    self_confidence
        Probability of the given label of each cell, ``(n_cells,)``.
    suggested
        Code of the suggested label, ``(n_cells,)``; that of the given one unless it is an issue.
    score
        Margin of another label over the given one, each beside its threshold, in [-2, 2]; large for
        cells to look at first, and positive for issues.
    is_issue
        Whether another label is suggested, ``(n_cells,)``.
    thresholds
        Probability from which a cell counts as one of a label, ``(n_labels,)``; infinite for labels
        without a cell.
    """

    self_confidence: NDArray[np.float64]
    suggested: NDArray[np.int64]
    score: NDArray[np.float64]
    is_issue: NDArray[np.bool_]
    thresholds: NDArray[np.float64]


def find_label_issues(labels: ArrayLike, probabilities: ArrayLike) -> LabelIssues:
    r"""Find cells that confidently belong to another label :cite:p:`Northcutt21`.

    Label :math:`k` has the threshold :math:`t_k`, the mean of its probability over the cells that
    are given it, so that less is asked of a label that is hard to predict. A cell of label
    :math:`y` is an issue if :math:`p_y < t_y`, and another label has :math:`p_k \ge t_k` and
    :math:`p_k > p_y`; the most probable of these is suggested. Cells are ranked by
    :math:`\max_{k \ne y} (p_k - t_k) - (p_y - t_y)`: without thresholds, the cells of labels that
    cannot be predicted would all come first.
    NOTE[DIFF] The paper does not ask that the given label misses its threshold, nor that the other
    one is more probable; thresholds of the rarest labels are reached by chance.

    Parameters
    ----------
    labels
        Codes of the given labels, ``(n_cells,)``.
    probabilities
        Probabilities by models that were not trained on the cell, ``(n_cells, n_labels)``.

    Raises
    ------
    ValueError
        If the numbers of cells differ, a code is not one of a column, or a probability is not in
        [0, 1].

    Examples
    --------
    >>> probabilities = [[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.95, 0.05]]
    >>> issues = find_label_issues([0, 0, 1, 1], probabilities)
    >>> issues.is_issue.tolist(), issues.thresholds.round(3).tolist()
    ([False, False, False, True], [0.8, 0.425])
    """
    given, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(given, p)
    cells, n_labels = np.arange(len(given)), p.shape[1]
    own = p[cells, given]
    counts = np.bincount(given, minlength=n_labels)
    sums = np.bincount(given, weights=own, minlength=n_labels)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    # How far each label is above its threshold; a label without a cell is never suggested.
    above = p - thresholds
    misses = above[cells, given] < 0
    is_candidate = misses[:, None] & (above >= 0) & (p > own[:, None])
    best = np.where(is_candidate, p, -1.0).argmax(axis=1) if n_labels else given
    suggested = np.where(is_candidate.any(axis=1), best, given)
    others = np.maximum(above, -1.0)
    others[cells, given] = -1.0
    score = others.max(axis=1, initial=-1.0) - above[cells, given]
    return LabelIssues(own, suggested.astype(np.int64), score, suggested != given, thresholds)


def _check(given: NDArray[np.int64], p: NDArray[np.float64]) -> None:
    if p.ndim != 2 or given.shape != (len(p),):
        raise ValueError(
            f"There are {given.shape} labels and {p.shape} probabilities: pass a code per cell, and "
            "a row per cell with a column per label."
        )
    if not np.issubdtype(given.dtype, np.integer) and len(given):
        raise ValueError(
            f"Labels are of type {given.dtype}: pass codes of the columns, 0 to {p.shape[1] - 1}."
        )
    outside = np.flatnonzero((given < 0) | (given >= p.shape[1]))
    if len(outside):
        raise ValueError(
            f"The label of cell {outside[0]} has the code {given[outside[0]]}, but there are columns "
            f"0 to {p.shape[1] - 1}. Leave out cells without a label."
        )
    wrong = np.argwhere(~((p >= 0) & (p <= 1)))
    if len(wrong):
        cell, label = wrong[0]
        raise ValueError(
            f"A probability is not in [0, 1]: {p[cell, label]:g} of cell {cell} and label {label}."
        )
