"""Errors in groups of cells, beside those that their labels make expected."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scvi_sctab.metrics._calibration import wilson_interval

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
    and ``stands_out``, whether the error is higher by five percentage points and the Wilson
    interval of the error, at a level of 5 % over all groups, is above the expected one.

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
    n_cells = counts.sum(axis=1)
    error, expected = errors.sum(axis=1) / n_cells, (counts * share).sum(axis=1) / n_cells
    table = pd.DataFrame(
        {
            "n_cells": n_cells.astype(int),
            "error": error,
            "expected": expected,
            "stands_out": _stand_out(error, expected, n_cells),
        },
        index=pd.Index(names, name="group"),
    )
    order = np.argsort(-(error - expected), kind="stable")
    return table.iloc[order]


def _stand_out(
    error: NDArray[np.float64], expected: NDArray[np.float64], n_cells: NDArray[np.float64]
) -> NDArray[np.bool_]:
    # One group has no others.
    if len(error) < 2:
        return np.zeros(len(error), bool)
    low, _ = wilson_interval(error, n_cells, 1 - _LEVEL / len(error))
    return (error - expected >= _MIN_DIFFERENCE) & (low > expected)
