"""Compiled loops over the rows of a block; ``_scipy.py`` allocates their arrays.

Loops that only read run over a slice from 0, compare numbers of one type and have no early exit.
So the compiler vectorises them, which is four times as fast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.sparse._parallel import kernel

Values = NDArray[Any]
Integers = NDArray[np.integer[Any]]

_WORD_BITS = 64

# Position of the only bit of a word, by its product with a de Bruijn sequence: the upper six bits
# differ for all 64 positions.
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_UPPER_SIX = np.uint64(58)
_BIT_AT = np.zeros(_WORD_BITS, dtype=np.int64)
_BIT_AT[[((0x03F79D71B4CB0A89 << bit) % 2**64) >> 58 for bit in range(_WORD_BITS)]] = range(
    _WORD_BITS
)


@kernel
def count_moved(
    start: int,
    stop: int,
    indptr: Integers,
    columns: Integers,
    target: Integers,
    n_genes: int,
    counts: Integers,
) -> int:
    """Write the number of distinct target genes of each row; count columns out of range."""
    words = np.zeros(n_genes // _WORD_BITS + 1, np.uint64)
    one, n_invalid = np.uint64(1), 0
    for i in range(start, stop):
        for j in range(indptr[i], indptr[i + 1]):
            column = columns[j]
            if column < 0 or column >= len(target):
                n_invalid += 1
                continue
            gene = target[column]
            if gene >= 0:
                words[gene >> 6] |= one << np.uint64(gene & 63)
        n = 0
        for w in range(len(words)):
            word = words[w]
            words[w] = 0
            while word:
                word &= word - one
                n += 1
        counts[i] = n
    return n_invalid


@kernel
def move_columns(
    start: int,
    stop: int,
    indptr: Integers,
    columns: Integers,
    values: Values,
    target: Integers,
    n_genes: int,
    moved_indptr: Integers,
    moved_columns: Integers,
    moved_values: Values,
) -> None:
    """Write each row with its columns moved and in order; values of one target are summed.

    The values of a row are written to a dense row, and a bit marks each position; the bits are
    then read in order, without sorting.
    """
    words = np.zeros(n_genes // _WORD_BITS + 1, np.uint64)
    row = np.empty(n_genes, values.dtype)
    one = np.uint64(1)
    for i in range(start, stop):
        for j in range(indptr[i], indptr[i + 1]):
            gene = target[columns[j]]
            if gene < 0:
                continue
            word, bit = words[gene >> 6], one << np.uint64(gene & 63)
            if word & bit:
                row[gene] += values[j]
            else:
                words[gene >> 6] = word | bit
                row[gene] = values[j]
        position = moved_indptr[i]
        for w in range(len(words)):
            word = words[w]
            words[w] = 0
            while word:
                lowest = word & (~word + one)
                gene = w * _WORD_BITS + _BIT_AT[(lowest * _DE_BRUIJN) >> _UPPER_SIX]
                moved_columns[position] = gene
                moved_values[position] = row[gene]
                position += 1
                word ^= lowest


@kernel
def count_nonzero(start: int, stop: int, dense: Values, counts: Integers) -> None:
    """Write the number of nonzero values of each dense row."""
    zero = dense.dtype.type(0)
    for i in range(start, stop):
        row, n = dense[i], np.int32(0)
        for j in range(len(row)):
            n += np.int32(row[j] != zero)
        counts[i] = n


@kernel
def take_nonzero(
    start: int, stop: int, dense: Values, indptr: Integers, columns: Integers, values: Values
) -> None:
    """Write the nonzero values of dense rows, and their columns."""
    zero = dense.dtype.type(0)
    found = np.empty(dense.shape[1] + 1, np.int32)
    for i in range(start, stop):
        row, n = dense[i], 0
        for j in range(len(row)):
            # Always written, then overwritten if zero: without a branch there is no misprediction.
            found[n] = j
            n += row[j] != zero
        for k in range(n):
            columns[indptr[i] + k] = found[k]
            values[indptr[i] + k] = row[found[k]]
