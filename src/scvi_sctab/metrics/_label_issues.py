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
        One minus the probability of the given label divided by its threshold, at most 1; large for
        cells to look at first.
    is_issue
        Whether another label is suggested, ``(n_cells,)``.
    thresholds
        Probability from which a cell counts as one of a label, ``(n_labels,)``; infinite for labels
        without a cell.
    joint
        Confident joint: number of cells by given label and by the label that they count as,
        ``(n_labels, n_labels)``.
    """

    self_confidence: NDArray[np.float64]
    suggested: NDArray[np.int64]
    score: NDArray[np.float64]
    is_issue: NDArray[np.bool_]
    thresholds: NDArray[np.float64]
    joint: NDArray[np.int64]


def find_label_issues(labels: ArrayLike, probabilities: ArrayLike) -> LabelIssues:
    r"""Find cells whose label is likely wrong, by confident learning :cite:p:`Northcutt21`.

    Label :math:`k` has the threshold :math:`t_k`, the mean of its probability over the cells that
    are given it, so that less is asked of a label that is hard to predict. A cell counts as the
    most probable of the labels with :math:`p_k \ge t_k`; the others do not count. The share of the
    counted cells of a label that count as another one says how many of all its cells are issues:
    those with the lowest probability of the given label, whose most probable label, which is
    suggested, is another one ("prune by class").

    Cells of all labels are ranked by :math:`1 - p_y / t_y` with the given label :math:`y`. By
    :math:`-p_y` the cells of labels that are hard to predict would come first.
    NOTE[DIFF] A cell does not count as a label that is less probable than the given one: the
    thresholds of the rarest labels are reached by chance.

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
    joint = _confident_joint(given, p, thresholds)
    is_issue = _prune_by_class(given, p, joint)
    suggested = np.where(is_issue, p.argmax(axis=1), given) if n_labels else given
    score = 1 - own / np.maximum(thresholds[given], np.finfo(float).tiny)
    return LabelIssues(own, suggested.astype(np.int64), score, is_issue, thresholds, joint)


def _confident_joint(
    given: NDArray[np.int64], p: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Count cells by given label and by the most probable label that reaches its threshold."""
    cells, joint = np.arange(len(given)), np.zeros((len(thresholds),) * 2, dtype=np.int64)
    if not len(given):
        return joint
    reached = np.where(p >= thresholds, p, -1.0)
    # Of equal probabilities, that of the given label counts.
    reached[cells, given] += np.finfo(float).eps
    counted = reached.argmax(axis=1)
    is_counted = reached.max(axis=1) >= p[cells, given]
    np.add.at(joint, (given[is_counted], counted[is_counted]), 1)
    return joint


def _prune_by_class(
    given: NDArray[np.int64], p: NDArray[np.float64], joint: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Mark as many cells of each label as the joint says, the least probable ones."""
    is_issue = np.zeros(len(given), dtype=bool)
    counted, own = joint.sum(axis=1), joint.diagonal()
    share = np.where(counted > 0, 1 - own / np.maximum(counted, 1), 0.0)
    for label in np.flatnonzero(share > 0):
        cells = np.flatnonzero(given == label)
        n_issues = round(share[label] * len(cells))
        contradicted = cells[p[cells].argmax(axis=1) != label]
        first = np.argsort(p[contradicted, label], kind="stable")[:n_issues]
        is_issue[contradicted[first]] = True
    return is_issue


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
