"""Conformal prediction: prediction sets and p-values with a stated error rate."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def conformal_threshold(scores: ArrayLike, error_rate: float) -> float:
    """Compute the score that exchangeable cells exceed in at most ``error_rate`` of the cases.

    Parameters
    ----------
    scores
        Nonconformity scores of held-out cells with their true label, ``(n_cells,)``.
    error_rate
        In (0, 1).

    Returns
    -------
    The ``ceil((n + 1) (1 - error_rate))``-th smallest score; infinity if there are too few cells
    for this rate :cite:p:`Angelopoulos23`.

    Raises
    ------
    ValueError
        If ``error_rate`` is not in (0, 1).

    Examples
    --------
    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.2)
    0.4
    >>> conformal_threshold([0.1, 0.2, 0.3, 0.4], 0.1)
    inf
    """
    if not 0 < error_rate < 1:
        raise ValueError(f"{error_rate=} is not between 0 and 1.")
    values = np.sort(np.asarray(scores, dtype=float))
    # Rounded, so that 0.9 * 10 is 9 in spite of floating point.
    rank = int(np.ceil(round((len(values) + 1) * (1 - error_rate), 9)))
    return float(values[rank - 1]) if rank <= len(values) else np.inf


def prediction_sets(
    probabilities: NDArray[np.floating],
    held_out: NDArray[np.floating],
    labels: ArrayLike,
    error_rate: float,
    by_label: bool = False,
    groups: ArrayLike | None = None,
) -> NDArray[np.bool_]:
    """Choose labels per cell such that the true one is missed in ``error_rate`` of the cells.

    A label is in the set of a cell if its probability reaches a threshold, which the true labels
    of held-out cells reach in all but ``error_rate`` of the cases. On average this is the smallest
    set :cite:p:`Sadinle19`; it is empty for cells for which no label is probable enough.

    Parameters
    ----------
    probabilities
        Probabilities of the cells to annotate, ``(n_cells, n_labels)``.
    held_out
        Probability of the true label of held-out cells, ``(n_held_out,)``.
    labels
        Codes of these labels, ``(n_held_out,)``.
    error_rate
        Error rate, in (0, 1).
    by_label
        Whether to keep the rate within each label, which makes sets larger; labels with too few
        held-out cells are in every set.
    groups
        Codes of the study of each held-out cell, ``(n_held_out,)``. If given, the rate is kept
        within each study, since a new study may be like the worst of them; not with ``by_label``.

    Returns
    -------
    ``(n_cells, n_labels)``, true where the label is in the set.
    """
    scores, codes = -np.asarray(held_out, dtype=float), np.asarray(labels)
    if not by_label:
        parts = np.zeros(len(scores), int) if groups is None else np.asarray(groups)
        worst = max(
            (conformal_threshold(scores[parts == part], error_rate) for part in np.unique(parts)),
            default=np.inf,
        )
        return -probabilities <= worst
    thresholds = [
        conformal_threshold(scores[codes == code], error_rate)
        for code in range(probabilities.shape[1])
    ]
    return -probabilities <= np.array(thresholds)


def p_values(scores: ArrayLike, held_out: ArrayLike) -> NDArray[np.float64]:
    """Compute the share of held-out cells with at least the same score, the cell itself included.

    For exchangeable cells the p-value is at most ``a`` in at most a share ``a`` of the cases
    :cite:p:`Bates23`.

    Parameters
    ----------
    scores
        Scores of the cells to test, ``(n_cells,)``; a high score is unusual.
    held_out
        Scores of held-out cells, ``(n_held_out,)``.

    Examples
    --------
    >>> p_values([0.0, 2.5, 9.0], [1.0, 2.0, 3.0])
    array([1.  , 0.5 , 0.25])
    """
    reference = np.sort(np.asarray(held_out, dtype=float))
    at_least = len(reference) - np.searchsorted(reference, np.asarray(scores, dtype=float))
    return (1 + at_least) / (1 + len(reference))
