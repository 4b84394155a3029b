"""Reliability diagram, expected calibration error and entropy of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from scvi_sctab.metrics._pairs import same_cells


def normalized_entropy(probabilities: Tensor) -> Tensor:
    """Compute the entropy of each row, divided by that of the uniform distribution.

    Parameters
    ----------
    probabilities
        ``(n_cells, n_labels)``, rows sum to one.

    Returns
    -------
    ``(n_cells,)`` in [0, 1].

    Examples
    --------
    >>> normalized_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    tensor([0., 1.])
    """
    entropy = torch.special.entr(probabilities).sum(dim=1)
    return (entropy / math.log(probabilities.shape[1])).clamp(0, 1)


def reliability(
    probability: Sequence[float],
    correct: Sequence[bool],
    n_bins: int = 10,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Compare stated with observed accuracy, in bins of equal width.

    Parameters
    ----------
    probability
        Probability of the predicted label, ``(n_cells,)``.
    correct
        Whether the predicted label is the true one, ``(n_cells,)``.
    n_bins
        Number of bins of [0, 1].
    confidence
        Confidence level of the intervals.

    Returns
    -------
    A row per bin that holds cells: mean ``probability``, ``accuracy``, ``n_cells``, and ``low``,
    ``high``, the Wilson interval of the accuracy if cells are independent.

    Raises
    ------
    ValueError
        If a probability is not in [0, 1], or ``correct`` is missing for a cell.
    """
    probability, correct = same_cells(probability, correct)
    stated, right = np.asarray(probability, dtype=float), np.asarray(correct)
    outside = np.flatnonzero(~((stated >= 0) & (stated <= 1)))
    if len(outside):
        raise ValueError(
            f"A probability is not in [0, 1]: {stated[outside[0]]:g} of cell {outside[0]}, as of "
            f"{len(outside):,} of {len(stated):,} cells."
        )
    if missing := int(pd.isna(right).sum()):
        raise ValueError(
            f"It is missing in `correct` for {missing:,} of {len(right):,} cells whether the label "
            "is right. Leave these out: keep = ~pandas.isna(correct)."
        )
    number = np.minimum((stated * n_bins).astype(int), n_bins - 1)
    frame = pd.DataFrame({"bin": number, "probability": stated, "accuracy": right.astype(float)})
    grouped = frame.groupby("bin")
    bins = grouped.mean().assign(n_cells=grouped.size())
    low, high = wilson_interval(
        bins["accuracy"].to_numpy(), bins["n_cells"].to_numpy(), confidence
    )
    return bins.assign(low=low, high=high)


def wilson_interval(
    share: NDArray[np.float64], n: NDArray[Any], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the interval of a share (Wilson 1927), which is valid for small ``n``, too.

    Parameters
    ----------
    share, n
        Shares, and the numbers of cells that they are of.
    confidence
        Confidence level.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre - half, centre + half


def expected_calibration_error(
    probability: Sequence[float], correct: Sequence[bool], n_bins: int = 10
) -> float:
    """Compute the mean difference between stated and observed accuracy, over cells in bins.

    Parameters
    ----------
    probability, correct, n_bins
        As in :func:`reliability`.

    Examples
    --------
    >>> round(expected_calibration_error([0.9, 0.9], [True, False]), 2)
    0.4
    """
    bins = reliability(probability, correct, n_bins)
    gap = (bins["probability"] - bins["accuracy"]).abs()
    return float(np.average(gap, weights=bins["n_cells"]))
