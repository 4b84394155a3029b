"""Errors in groups of cells, beside those that their labels make expected."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

_LEVEL = 0.05
# A smaller difference is of no use to know, however many cells show it.
_MIN_DIFFERENCE = 0.05


def group_errors(groups: ArrayLike, labels: ArrayLike, wrong: ArrayLike) -> pd.DataFrame:
    """Compare the share of wrong predictions in groups of cells, such as donors.

    A group is compared with the cells of the same labels in all other groups, so that one with
    many cells of a label that is hard to predict does not stand out for that.

    Parameters
    ----------
    groups
        Group of each cell, ``(n_cells,)``; cells where it is missing are left out.
    labels
        Label of each cell, ``(n_cells,)``.
    wrong
        Whether its prediction is wrong, ``(n_cells,)``.

    Returns
    -------
    A row per ``group``, the largest difference first: ``n_cells``; ``error``, the share of its
    cells that is wrong; ``expected``, the same of cells of the same labels in the other groups;
    and ``stands_out``, whether the error is higher by five percentage points, and beyond chance at
    a level of 5 % over all groups. The limit of the difference is Newcombe's
    :cite:p:`Newcombe98`, of the exact interval of the error and the standard error of the
    expected one, which is large if few other cells have the labels. Cells are taken as
    independent.

    Examples
    --------
    >>> group_errors(list("aabb"), list("xyxy"), [True, False, False, False])["error"].to_dict()
    {'a': 0.5, 'b': 0.0}
    """
    known = ~pd.isna(np.asarray(groups, dtype=object))
    group, names = pd.factorize(np.asarray(groups, dtype=object)[known].astype(str), sort=True)
    label, types = pd.factorize(np.asarray(labels, dtype=object)[known])
    counts, errors = np.zeros((2, len(names), len(types)))
    np.add.at(counts, (group, label), 1)
    np.add.at(errors, (group, label), np.asarray(wrong, dtype=bool)[known])
    others, total = counts.sum(axis=0) - counts, counts.sum(axis=0)
    # A label that no other group has is compared with itself.
    share = np.where(
        others > 0,
        (errors.sum(axis=0) - errors) / np.maximum(others, 1),
        errors.sum(axis=0) / total,
    )
    # A share of few cells may be 0 or 1 by chance: one cell of each kind is added to its variance.
    smooth = (errors.sum(axis=0) - errors + 1) / (others + 2)
    variance = np.where(others > 0, smooth * (1 - smooth) / np.maximum(others, 1), 0.0)
    n_cells = counts.sum(axis=1)
    error, expected = errors.sum(axis=1) / n_cells, (counts * share).sum(axis=1) / n_cells
    table = pd.DataFrame(
        {
            "n_cells": n_cells.astype(int),
            "error": error,
            "expected": expected,
            "stands_out": _stand_out(
                error, expected, (counts**2 * variance).sum(axis=1) / n_cells**2, n_cells
            ),
        },
        index=pd.Index(names, name="group"),
    )
    order = np.argsort(-(error - expected), kind="stable")
    return table.iloc[order]


def _stand_out(
    error: NDArray[np.float64],
    expected: NDArray[np.float64],
    variance: NDArray[np.float64],
    n_cells: NDArray[np.float64],
) -> NDArray[np.bool_]:
    # One group has no others.
    if len(error) < 2:
        return np.zeros(len(error), bool)
    confidence = 1 - _LEVEL / len(error)
    # Exact, since far in the tail the Wilson interval of a small share is too short.
    n_wrong = np.round(error * n_cells)
    low = np.where(
        n_wrong > 0,
        beta.ppf((1 - confidence) / 2, np.maximum(n_wrong, 1), n_cells - n_wrong + 1),
        0,
    )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    margin = np.sqrt((error - low) ** 2 + z**2 * variance)
    return (error - expected >= _MIN_DIFFERENCE) & (error - expected > margin)
