"""Test of whether cells differ from those that a model was calibrated on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import kstwobign

# Level of the test, over all statistics.
_FALSE_ALARMS = 0.01
# Limit of importance weights: a rare label of the held-out cells must not outweigh all others.
_MAX_WEIGHT = 10.0


def shift_test(
    cells: pd.DataFrame, held_out: pd.DataFrame, tolerance: float = 0.15
) -> pd.DataFrame:
    """Compare cells with held-out ones, by the Kolmogorov-Smirnov distance of each statistic.

    Other frequencies of the labels are not a shift: held-out cells are weighted by the frequency
    of their predicted label among the cells. The test uses the effective number of held-out
    cells, which corresponds to the variance of a weighted mean.

    Parameters
    ----------
    cells, held_out
        ``label``, the code of the predicted label, and a column per statistic.
    tolerance
        Distance that is not called a shift, in [0, 1].

    Returns
    -------
    A row per statistic: ``distance``, ``limit`` (the larger of ``tolerance`` and the critical
    value that chance exceeds in 1 of 100 tests) and ``shifted``.

    Raises
    ------
    ValueError
        If there is no cell on one of the sides.
    """
    if cells.empty or held_out.empty:
        raise ValueError("There is no cell to compare.")
    codes, reference = cells["label"].to_numpy(int), held_out["label"].to_numpy(int)
    names = cells.columns.drop("label")
    n_labels = int(max(codes.max(), reference.max())) + 1
    share = np.bincount(codes, minlength=n_labels) / len(codes)
    expected = np.bincount(reference, minlength=n_labels) / len(reference)
    weights = np.minimum((share / np.maximum(expected, 1e-12))[reference], _MAX_WEIGHT)
    if not weights.any():  # no label in common
        weights = np.ones(len(reference))
    n_effective = weights.sum() ** 2 / (weights**2).sum()
    critical = kstwobign.isf(_FALSE_ALARMS / len(names))
    limit = max(tolerance, critical * np.sqrt(1 / n_effective + 1 / len(codes)))
    distance = [
        _distance(cells[name].to_numpy(), held_out[name].to_numpy(), weights) for name in names
    ]
    table = pd.DataFrame({"distance": distance, "limit": limit}, index=names)
    table.index.name = "statistic"
    return table.assign(shifted=table["distance"] > table["limit"])


def _distance(
    values: NDArray[np.floating], reference: NDArray[np.floating], weights: NDArray[np.floating]
) -> float:
    """Compute the largest difference of two cumulative distributions, the second one weighted."""
    order = np.argsort(np.concatenate([values, reference]), kind="stable")
    joint = np.concatenate([values, reference])[order]
    steps = np.concatenate([np.full(len(values), 1 / len(values)), -weights / weights.sum()])[
        order
    ]
    # Within ties the cumulative sums are not those of the distributions: use the last of each tie.
    last = np.append(joint[1:] != joint[:-1], True)
    return float(np.abs(np.cumsum(steps)[last]).max())
