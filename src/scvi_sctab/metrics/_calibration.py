"""Whether a probability means what it says."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from scvi_sctab.metrics._pairs import same_cells


def normalized_entropy(probabilities: Tensor) -> Tensor:
    """Entropy of each row over the entropy of not knowing at all.

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
    probability: Sequence[float], correct: Sequence[bool], n_bins: int = 10
) -> pd.DataFrame:
    """Compare stated with observed accuracy, in bins of equal width.

    Parameters
    ----------
    probability
        Probability of the predicted label, ``(n_cells,)``.
    correct
        Whether it is the true one, ``(n_cells,)``.
    n_bins
        Number of bins of [0, 1].

    Returns
    -------
    A row per bin that holds cells: mean ``probability``, ``accuracy``, ``n_cells``.

    Raises
    ------
    ValueError
        If a probability is not in [0, 1].
    """
    probability, correct = same_cells(probability, correct)
    stated = np.asarray(probability, dtype=float)
    if not ((stated >= 0) & (stated <= 1)).all():
        raise ValueError("A probability is not in [0, 1].")
    number = np.minimum((stated * n_bins).astype(int), n_bins - 1)
    frame = pd.DataFrame(
        {"bin": number, "probability": stated, "accuracy": np.asarray(correct, dtype=float)}
    )
    grouped = frame.groupby("bin")
    return grouped.mean().assign(n_cells=grouped.size())


def expected_calibration_error(
    probability: Sequence[float], correct: Sequence[bool], n_bins: int = 10
) -> float:
    """Mean gap between stated and observed accuracy, over cells.

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
