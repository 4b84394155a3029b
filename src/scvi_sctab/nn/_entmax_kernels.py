"""Compiled 1.5-entmax and sparsemax, without sorting and on few of the scores.

Scores are shifted to a maximum of 0 and divided by ``power`` (2 for 1.5-entmax, 1 for sparsemax).
The threshold of some scores is at most that of all scores. So one pass finds the largest score of
each block of a row, and the threshold of these is a lower bound for that of the row. Few scores
are above it; Newton's iteration in float64 finds the threshold from them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.sparse import kernel

Floats = NDArray[np.floating[Any]]
Columns = NDArray[np.int32]

_BLOCK = 32
_MAX_NEWTON_STEPS = 100
# A step this small no longer changes a threshold in [-1, 0].
_TOLERANCE = 2.0**-50


@kernel
def _block_maxima(row: Floats, maxima: Floats) -> float:
    """Write the largest score of each block; return the largest of all, or NaN if one is NaN."""
    n_whole = len(row) // _BLOCK
    invalid, largest_of_all = 0, row[0]
    for b in range(n_whole):
        start = b * _BLOCK
        largest = row[start]
        for j in range(_BLOCK):
            score = row[start + j]
            largest = score if score > largest else largest
            invalid |= score != score
        maxima[b] = largest
        largest_of_all = max(largest_of_all, largest)
    if n_whole < len(maxima):
        maxima[n_whole] = row[n_whole * _BLOCK]
    for j in range(n_whole * _BLOCK, len(row)):
        maxima[n_whole] = max(maxima[n_whole], row[j])
        largest_of_all = max(largest_of_all, row[j])
        invalid |= row[j] != row[j]
    return np.nan if invalid else np.float64(largest_of_all)


@kernel
def _climb(shifted: NDArray[np.float64], power: int, tau: float) -> float:
    """Find the threshold of scores by Newton's iteration from a lower bound ``tau``."""
    for _ in range(_MAX_NEWTON_STEPS):
        total, slope = 0.0, 0.0
        if power == 2:
            for j in range(len(shifted)):
                gap = shifted[j] - tau if shifted[j] > tau else 0.0
                total += gap * gap
                slope += 2 * gap
        else:
            for j in range(len(shifted)):
                total += shifted[j] - tau if shifted[j] > tau else 0.0
                slope += 1.0 if shifted[j] > tau else 0.0
        step = (total - 1) / slope if total > 1 else 0.0
        tau += step
        if step <= _TOLERANCE:
            break
    return tau


@kernel
def _support(
    row: Floats, maxima: Floats, power: int, shifted: NDArray[np.float64], columns: Columns
) -> int:
    """Write the positive probabilities of a row to ``shifted`` and ``columns``; count them.

    Return -1 if the row has no solution: with NaN, with infinity, or with minus infinity only.
    """
    largest = _block_maxima(row, maxima)
    if not np.isfinite(largest):
        return -1
    scale = 1 / power
    for b in range(len(maxima)):
        shifted[b] = (maxima[b] - largest) * scale
    bound = _climb(shifted[: len(maxima)], power, -1.0)
    # Rounded down to the type of the scores; an additional score does not change the result.
    least = np.nextafter(row.dtype.type(largest + bound * power), row.dtype.type(-np.inf))
    n_scores = 0
    for b in range(len(maxima)):
        if maxima[b] >= least:
            for j in range(b * _BLOCK, min((b + 1) * _BLOCK, len(row))):
                # Always written: without a branch there is no misprediction.
                columns[n_scores] = j
                n_scores += row[j] >= least
    for j in range(n_scores):
        shifted[j] = (row[columns[j]] - largest) * scale
    tau = _climb(shifted[:n_scores], power, bound)
    n_found = 0
    for j in range(n_scores):
        gap = shifted[j] - tau
        columns[n_found] = columns[j]
        shifted[n_found] = gap * gap if power == 2 else gap
        n_found += gap > 0
    return n_found


@kernel
def project_rows(start: int, stop: int, scores: Floats, power: int, output: Floats) -> None:
    """Write the probabilities of rows ``start`` to ``stop``; a row without a solution is NaN."""
    n_scores = scores.shape[1]
    maxima = np.empty((n_scores + _BLOCK - 1) // _BLOCK, scores.dtype)
    shifted, columns = np.empty(n_scores, np.float64), np.empty(n_scores, np.int32)
    for i in range(start, stop):
        n_found = _support(scores[i], maxima, power, shifted, columns)
        output[i] = 0 if n_found >= 0 else np.nan
        for j in range(n_found):
            output[i, columns[j]] = shifted[j]


@kernel
def support_rows(
    start: int, stop: int, scores: Floats, scale: Floats, shift: Floats, power: int
) -> tuple[NDArray[np.int64], Columns, Floats]:
    """Return the positive probabilities of ``scores * scale + shift``; the scores are overwritten.

    Returns
    -------
    Number of them in each row, and their columns and values, row after row. A row without a
    solution is NaN in every column.
    """
    n_scores = scores.shape[1]
    maxima = np.empty((n_scores + _BLOCK - 1) // _BLOCK, scores.dtype)
    shifted, columns = np.empty(n_scores, np.float64), np.empty(n_scores, np.int32)
    counts = np.zeros(stop - start, np.int64)
    all_columns = np.empty(64 * (stop - start) + n_scores, np.int32)
    all_values = np.empty(len(all_columns), scores.dtype)
    n_all = 0
    for i in range(start, stop):
        row = scores[i]
        for j in range(n_scores):
            row[j] = row[j] * scale[j] + shift[j]
        n_found = _support(row, maxima, power, shifted, columns)
        if n_found < 0:
            n_found = n_scores
            for j in range(n_scores):
                shifted[j], columns[j] = np.nan, j
        if n_all + n_found > len(all_columns):
            all_columns = np.append(all_columns, np.empty_like(all_columns))
            all_values = np.append(all_values, np.empty_like(all_values))
        before = n_all
        for j in range(n_found):
            all_columns[n_all], all_values[n_all] = columns[j], shifted[j]
            # A value that is 0 in the narrower type is not in the support.
            n_all += all_values[n_all] != 0
        counts[i - start] = n_all - before
    return counts, all_columns[:n_all].copy(), all_values[:n_all].copy()


@kernel
def backward_rows(
    start: int, stop: int, grads: Floats, output: Floats, power: int, result: Floats
) -> None:
    """Write the gradient with respect to the scores of rows ``start`` to ``stop``."""
    for i in range(start, stop):
        weighted, total = 0.0, 0.0
        for j in range(output.shape[1]):
            root = np.sqrt(output[i, j]) if power == 2 else np.float64(output[i, j] > 0)
            weighted += root * grads[i, j]
            total += root
        mean = weighted / total
        for j in range(output.shape[1]):
            root = np.sqrt(output[i, j]) if power == 2 else np.float64(output[i, j] > 0)
            result[i, j] = root * (grads[i, j] - mean)


@kernel
def support_backward_rows(
    start: int,
    stop: int,
    indptr: NDArray[np.int64],
    grads: Floats,
    values: Floats,
    power: int,
    result: Floats,
) -> None:
    """Write the gradient as :func:`backward_rows`, for probabilities stored row after row."""
    for i in range(start, stop):
        weighted, total = 0.0, 0.0
        for j in range(indptr[i], indptr[i + 1]):
            root = np.sqrt(values[j]) if power == 2 else 1.0
            weighted += root * grads[j]
            total += root
        for j in range(indptr[i], indptr[i + 1]):
            root = np.sqrt(values[j]) if power == 2 else 1.0
            result[j] = root * (grads[j] - weighted / total)
