"""Compiled passes over counts; the modules of their callers give them their arrays.

Loops that only look run over a slice from 0, compare numbers of one type and take no shortcut:
then several values are compared at once, which is worth a factor of four.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.sparse import kernel

Values = NDArray[Any]
Integers = NDArray[np.integer[Any]]


@kernel
def any_not_count(start: int, stop: int, values: Values) -> bool:
    """Return whether a value is not whole, not finite or below 0."""
    part = values[start:stop]
    zero, infinity = values.dtype.type(0), values.dtype.type(np.inf)
    found = False
    for i in range(len(part)):
        v = part[i]
        # A comparison with NaN is false, so NaN is found, too.
        found |= not ((v >= zero) & (v < infinity) & (v == np.floor(v)))
    return found


@kernel
def hash_rows(
    start: int,
    stop: int,
    indptr: Integers,
    columns: Integers,
    bits: Integers,
    hashes: Integers,
    n_nonzero: Integers,
) -> None:
    """Write a hash of the nonzeros of each row, independent of their order, and their number."""
    for i in range(start, stop):
        total, n = np.uint64(0), 0
        for j in range(indptr[i], indptr[i + 1]):
            if bits[j] == 0:
                continue
            n += 1
            # The finaliser of SplitMix64: every bit of the input moves half of those of the output.
            x = (np.uint64(columns[j]) << np.uint64(32)) ^ np.uint64(bits[j])
            x += np.uint64(0x9E3779B97F4A7C15)
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            total += x ^ (x >> np.uint64(31))
        hashes[i], n_nonzero[i] = total, n
