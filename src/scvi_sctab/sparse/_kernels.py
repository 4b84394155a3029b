"""Compiled products with sparse rows; tensors and gradients are in ``_products.py``.

Columns of a row are in increasing order. Products run over blocks of genes, whose weights stay in
the CPU cache for all cells, and over four nonzeros at a time, which halves the traffic between
cache and registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.sparse._parallel import kernel

Floats = NDArray[np.floating[Any]]
Pointers = NDArray[np.int64]
Columns = NDArray[np.int32]
Integers = NDArray[np.integer[Any]]

_NUMBERS_PER_BLOCK = 256 * 384


@kernel
def any_disorder(
    start: int, stop: int, indptr: Integers, columns: Integers, n_columns: int
) -> bool:
    """Return whether the columns of a row do not increase, or are out of range."""
    for i in range(start, stop):
        row = columns[indptr[i] : indptr[i + 1]]
        if len(row) == 0:
            continue
        found = (row[0] < 0) | (row[-1] >= n_columns)
        for j in range(len(row) - 1):
            found |= row[j + 1] <= row[j]
        if found:
            return True
    return False


@kernel
def matmul_rows(
    start: int,
    stop: int,
    indptr: Pointers,
    columns: Columns,
    values: Floats,
    scale: Floats,
    weight: Floats,
    offset: NDArray[np.float64],
    output: Floats,
) -> None:
    """Write rows ``start`` to ``stop`` of ``(sparse * scale) @ weight + offset``.

    ``scale`` is ``(n_genes,)``, ``weight`` is ``(n_genes, k)`` and ``offset`` is ``(k,)``.
    """
    n_genes, width = weight.shape
    output[start:stop] = 0
    block_size = max(_NUMBERS_PER_BLOCK // width, 1)
    position = indptr[start:stop].copy()
    for block_end in range(block_size, n_genes + block_size, block_size):
        for i in range(start, stop):
            j, end, row = position[i - start], indptr[i + 1], output[i]
            while j + 4 <= end and columns[j + 3] < block_end:
                c0, c1, c2, c3 = columns[j], columns[j + 1], columns[j + 2], columns[j + 3]
                v0, v1 = values[j] * scale[c0], values[j + 1] * scale[c1]
                v2, v3 = values[j + 2] * scale[c2], values[j + 3] * scale[c3]
                w0, w1, w2, w3 = weight[c0], weight[c1], weight[c2], weight[c3]
                for k in range(width):
                    row[k] += v0 * w0[k] + v1 * w1[k] + v2 * w2[k] + v3 * w3[k]
                j += 4
            while j < end and columns[j] < block_end:
                v0, w0 = values[j] * scale[columns[j]], weight[columns[j]]
                for k in range(width):
                    row[k] += v0 * w0[k]
                j += 1
            position[i - start] = j
    for i in range(start, stop):
        for k in range(width):
            output[i, k] += offset[k]


@kernel
def weighted_sum_rows(
    start: int, stop: int, weight: Floats, factors: Floats
) -> NDArray[np.float64]:
    """Sum rows ``start`` to ``stop``, each times its factor, in float64."""
    total = np.zeros(weight.shape[1])
    for i in range(start, stop):
        factor, row = np.float64(factors[i]), weight[i]
        for k in range(len(row)):
            total[k] += factor * row[k]
    return total


@kernel
def _first_at_least(columns: Columns, start: int, stop: int, gene: int) -> int:
    """Find the position of the first column that is at least ``gene``, by bisection."""
    while start < stop:
        middle = (start + stop) // 2
        if columns[middle] < gene:
            start = middle + 1
        else:
            stop = middle
    return start


@kernel
def transposed_matmul_rows(
    start: int,
    stop: int,
    indptr: Pointers,
    columns: Columns,
    values: Floats,
    dense: Floats,
    output: Floats,
) -> None:
    """Write rows (genes) ``start`` to ``stop`` of ``sparse.T @ dense``."""
    n_cells, width = dense.shape
    block_size = max(_NUMBERS_PER_BLOCK // width, 1)
    output[start:stop] = 0
    position = np.empty(n_cells, np.int64)
    for i in range(n_cells):
        position[i] = _first_at_least(columns, indptr[i], indptr[i + 1], start)
    for block_start in range(start, stop, block_size):
        block_end = min(block_start + block_size, stop)
        for i in range(n_cells):
            j, end, row = position[i], indptr[i + 1], dense[i]
            while j + 4 <= end and columns[j + 3] < block_end:
                v0, v1, v2, v3 = values[j], values[j + 1], values[j + 2], values[j + 3]
                o0, o1 = output[columns[j]], output[columns[j + 1]]
                o2, o3 = output[columns[j + 2]], output[columns[j + 3]]
                for k in range(width):
                    o0[k] += v0 * row[k]
                    o1[k] += v1 * row[k]
                    o2[k] += v2 * row[k]
                    o3[k] += v3 * row[k]
                j += 4
            while j < end and columns[j] < block_end:
                v0, o0 = values[j], output[columns[j]]
                for k in range(width):
                    o0[k] += v0 * row[k]
                j += 1
            position[i] = j


@kernel
def shifted_backward_rows(
    start: int,
    stop: int,
    indptr: Pointers,
    columns: Columns,
    values: Floats,
    grad: Floats,
    total: Floats,
    scale: Floats,
    shift: Floats,
    weight: Floats,
    grad_scale: Floats,
    grad_shift: Floats,
    grad_weight: Floats,
) -> None:
    """Write the gradients of ``(sparse * scale + shift) @ weight`` for genes ``start`` to ``stop``.

    ``grad`` is the gradient of the product, ``total`` its sum over cells.
    """
    transposed_matmul_rows(start, stop, indptr, columns, values, grad, grad_weight)
    for g in range(start, stop):
        row, weights = grad_weight[g], weight[g]
        by_scale, by_shift = row[0] * weights[0], total[0] * weights[0]
        row[0] = row[0] * scale[g] + total[0] * shift[g]
        for k in range(1, len(row)):
            by_scale += row[k] * weights[k]
            by_shift += total[k] * weights[k]
            row[k] = row[k] * scale[g] + total[k] * shift[g]
        grad_scale[g], grad_shift[g] = by_scale, by_shift


@kernel
def sampled_matmul_rows(
    start: int,
    stop: int,
    indptr: Pointers,
    columns: Columns,
    left: Floats,
    right: Floats,
    output: Floats,
) -> None:
    """Write ``left[i] @ right[j]`` for each nonzero ``(i, j)`` of rows ``start`` to ``stop``."""
    for i in range(start, stop):
        row = left[i]
        for j in range(indptr[i], indptr[i + 1]):
            other = right[columns[j]]
            total = row[0] * other[0]
            for k in range(1, len(row)):
                total += row[k] * other[k]
            output[j] = total


@kernel
def lookup_rows(
    start: int,
    stop: int,
    indptr: Pointers,
    columns: Columns,
    values: Floats,
    wanted_indptr: Pointers,
    wanted: Columns,
    output: Floats,
) -> None:
    """Write the values of rows ``start`` to ``stop`` at the columns ``wanted`` of each row."""
    for i in range(start, stop):
        j, end = indptr[i], indptr[i + 1]
        for k in range(wanted_indptr[i], wanted_indptr[i + 1]):
            while j < end and columns[j] < wanted[k]:
                j += 1
            output[k] = values[j] if j < end and columns[j] == wanted[k] else 0


@kernel
def moments(
    start: int, stop: int, indptr: Pointers, columns: Columns, values: Floats, n_columns: int
) -> NDArray[np.float64]:
    """Sum the values and their squares per column, over rows ``start`` to ``stop``."""
    sums = np.zeros((2, n_columns))
    for j in range(indptr[start], indptr[stop]):
        value = np.float64(values[j])
        sums[0, columns[j]] += value
        sums[1, columns[j]] += value * value
    return sums


@kernel
def row_sums(start: int, stop: int, indptr: Pointers, values: Floats, output: Floats) -> None:
    """Write the sums of rows ``start`` to ``stop``."""
    for i in range(start, stop):
        output[i] = values[indptr[i] : indptr[i + 1]].sum()


@kernel
def scale_rows(
    start: int, stop: int, indptr: Pointers, values: Floats, factors: Floats, output: Floats
) -> None:
    """Write the values of rows ``start`` to ``stop`` times the factor of their row."""
    for i in range(start, stop):
        for j in range(indptr[i], indptr[i + 1]):
            output[j] = values[j] * factors[i]


@kernel
def sum_rows_and_clip(
    start: int,
    stop: int,
    indptr: Pointers,
    columns: Columns,
    values: Floats,
    other_indptr: Pointers,
    other_columns: Columns,
    other_values: Floats,
    which: NDArray[np.int64],
    sign: Floats,
    largest: float,
) -> tuple[Pointers, Columns, Floats]:
    """Return the nonzeros of ``clip(row + sign * other row, 0, largest)``.

    ``which`` has the position of the other row that is added to each row. Return the number of
    nonzeros of each row, and their columns and values, row after row.
    """
    most = indptr[stop] - indptr[start]
    for i in range(start, stop):
        most += other_indptr[which[i] + 1] - other_indptr[which[i]]
    counts = np.zeros(stop - start, np.int64)
    out_columns, out_values = np.empty(most, np.int32), np.empty(most, values.dtype)
    n_found = 0
    for i in range(start, stop):
        before = n_found
        a, a_end = indptr[i], indptr[i + 1]
        b, b_end = other_indptr[which[i]], other_indptr[which[i] + 1]
        while a < a_end or b < b_end:
            column_a = columns[a] if a < a_end else np.int32(2**31 - 1)
            column_b = other_columns[b] if b < b_end else np.int32(2**31 - 1)
            column, value = min(column_a, column_b), 0.0
            if column_a == column:
                value += values[a]
                a += 1
            if column_b == column:
                value += sign[i] * other_values[b]
                b += 1
            if not value <= 0:  # NaN is kept
                out_columns[n_found] = column
                out_values[n_found] = largest if value > largest else value
                n_found += 1
        counts[i - start] = n_found - before
    return counts, out_columns[:n_found].copy(), out_values[:n_found].copy()
