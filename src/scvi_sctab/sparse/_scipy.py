"""Operations on sparse matrices of scipy, with as few copies as possible."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab.sparse import _scipy_kernels as kernels
from scvi_sctab.sparse._kernels import any_disorder
from scvi_sctab.sparse._parallel import over_parts

# Below this number of rows a thread costs more than it saves.
MIN_ROWS = 16
_SPARSE_DEVICES = {"cpu", "cuda"}
_LARGEST_INT32 = np.iinfo(np.int32).max


class BrokenMatrixError(ValueError):
    """Sparse matrix whose arrays contradict each other, as those of a damaged file do.

    Neither scipy nor the kernels look for that: they would read memory that is not the matrix's.

    Parameters
    ----------
    why
        What is wrong, as the end of a sentence.
    """

    def __init__(self, why: str):
        super().__init__(why)

    def __str__(self) -> str:
        """Say what is wrong, and what to do; composed here, since pickles hold the argument."""
        return f"The matrix is broken: {self.args[0]}. Write it anew from its source."


def check_pointers(starts: NDArray[Any], ends: NDArray[Any], n_values: int) -> None:
    """Refuse rows that end before they start, or outside of the values.

    Parameters
    ----------
    starts, ends
        Position of the first value of each row, and the one after its last, ``(n_rows,)``.
    n_values
        Number of values of the matrix.

    Raises
    ------
    BrokenMatrixError
        If there is such a row.
    """
    wrong = (starts < 0) | (ends < starts) | (ends > n_values)
    if wrong.any():
        raise BrokenMatrixError(
            f"{int(wrong.sum()):,} of {len(starts):,} row pointers contradict each other or its "
            f"{n_values:,} values"
        )


def check_sparse(matrix: Any) -> None:
    """Refuse a matrix whose arrays contradict each other, before scipy converts it.

    Parameters
    ----------
    matrix
        CSR or CSC matrix of scipy.

    Raises
    ------
    BrokenMatrixError
        If a pointer or an index is out of range.
    """
    pointers, indices = matrix.indptr, matrix.indices
    check_pointers(pointers[:-1], pointers[1:], min(len(indices), len(matrix.data)))
    size = matrix.shape[matrix.format == "csr"]
    n_outside = int(((indices < 0) | (indices >= size)).sum())
    if n_outside:
        raise BrokenMatrixError(f"{n_outside:,} of its indices are outside of 0 to {size - 1:,}")


def assemble(
    values: NDArray[Any],
    columns: NDArray[np.integer[Any]],
    indptr: NDArray[np.integer[Any]],
    n_columns: int,
) -> sparse.csr_matrix:
    """Build a CSR matrix from its arrays, with 32-bit indices if they suffice.

    Parameters
    ----------
    values, columns
        ``(n_values,)``.
    indptr
        ``(n_rows + 1,)``.
    n_columns
        Number of columns.

    Notes
    -----
    The constructor of scipy copies a slice that is less than half of its array.
    """
    fits = max(len(values), n_columns) <= _LARGEST_INT32
    index_type = np.int32 if fits else np.int64
    block = sparse.csr_matrix((len(indptr) - 1, n_columns), dtype=values.dtype)
    block.data = values
    block.indices = columns.astype(index_type, copy=False)
    block.indptr = indptr.astype(index_type, copy=False)
    return block


def slice_rows(matrix: sparse.csr_matrix | sparse.csr_array, start: int, stop: int) -> Any:
    """Return consecutive rows of a matrix, which share its memory.

    Parameters
    ----------
    matrix
        ``(n_rows, n_columns)``, CSR.
    start, stop
        First row, and the row after the last.

    Returns
    -------
    CSR matrix of ``stop - start`` rows. Do not write to it.
    """
    indptr = matrix.indptr[start : stop + 1]
    values = slice(indptr[0], indptr[-1])
    return assemble(
        matrix.data[values], matrix.indices[values], indptr - indptr[0], matrix.shape[1]
    )


def as_float32(block: sparse.csr_matrix) -> sparse.csr_matrix:
    """Convert the values to float32; the other arrays are shared."""
    if block.dtype == np.float32:
        return block
    return assemble(block.data.astype(np.float32), block.indices, block.indptr, block.shape[1])


def as_csr(block: Any) -> sparse.csr_matrix:
    """Turn rows in memory into CSR, which shares their memory where it can.

    Parameters
    ----------
    block
        ``(n_rows, n_columns)``, dense or sparse, of any type of numbers. Those that scipy or
        numba does not know become float64.
    """
    # scipy has no sparse matrices of half precision or of Python objects, numba no long double and
    # no foreign byte order.
    known = block.dtype.kind in "biu" or block.dtype in (np.float32, np.float64)
    dtype = block.dtype.newbyteorder("=") if known else np.float64
    block = block if block.dtype == dtype else block.astype(dtype)
    return (
        sparse.csr_matrix(block) if sparse.issparse(block) else dense_to_scipy(np.asarray(block))
    )


def dense_to_scipy(dense: NDArray[Any]) -> sparse.csr_matrix:
    """Convert a dense matrix to CSR; zeros are not stored.

    Parameters
    ----------
    dense
        ``(n_rows, n_columns)``, of a type of numbers that numba supports.

    Examples
    --------
    >>> dense_to_scipy(np.array([[0, 3], [5, 0]])).indices
    array([1, 0], dtype=int32)
    """
    dense = np.ascontiguousarray(dense)
    counts = np.empty(len(dense), dtype=np.int64)
    over_parts(kernels.count_nonzero, len(dense), dense, counts, min_rows=MIN_ROWS)
    block = _allocate(counts, dense.dtype, dense.shape[1])
    arrays = block.indptr, block.indices, block.data
    over_parts(kernels.take_nonzero, len(dense), dense, *arrays, min_rows=MIN_ROWS)
    return block


def _allocate(counts: NDArray[np.int64], dtype: np.dtype[Any], n_columns: int) -> Any:
    """Allocate a CSR matrix with these numbers of values per row, to be filled."""
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    index_type = np.int32 if indptr[-1] <= _LARGEST_INT32 else np.int64
    columns = np.empty(indptr[-1], dtype=index_type)
    return assemble(np.empty(indptr[-1], dtype=dtype), columns, indptr, n_columns)


def move_columns(
    block: sparse.csr_matrix, target: NDArray[np.integer[Any]], n_columns: int
) -> sparse.csr_matrix:
    """Copy a matrix with its columns at other positions.

    Parameters
    ----------
    block
        ``(n_rows, len(target))``, CSR, columns in any order; values of duplicated ones are summed.
    target
        New position of each column; -1 drops it.
    n_columns
        Number of columns of the result.

    Returns
    -------
    ``(n_rows, n_columns)`` with increasing columns in every row.

    Raises
    ------
    BrokenMatrixError
        If a column index is out of range.
    """
    n_rows = block.shape[0]
    counts = np.empty(n_rows, dtype=np.int64)
    source = block.indptr, block.indices
    target = target.astype(np.int32)
    invalid = over_parts(
        kernels.count_moved, n_rows, *source, target, n_columns, counts, min_rows=MIN_ROWS
    )
    if sum(invalid):
        raise BrokenMatrixError(
            f"{sum(invalid):,} of its column indices are outside of its {len(target):,} columns"
        )
    moved = _allocate(counts, block.dtype, n_columns)
    over_parts(
        kernels.move_columns,
        n_rows,
        *source,
        block.data,
        target,
        n_columns,
        *(moved.indptr, moved.indices, moved.data),
        min_rows=MIN_ROWS,
    )
    return moved


def in_order(block: sparse.csr_matrix) -> sparse.csr_matrix:
    """Sort the columns of each row; return the block itself if they are sorted.

    Parameters
    ----------
    block
        ``(n_rows, n_columns)``, CSR, columns in any order; values of duplicated ones are summed.
    """
    n_rows, n_columns = block.shape
    columns = block.indptr, block.indices, n_columns
    if any(over_parts(any_disorder, n_rows, *columns, min_rows=MIN_ROWS)):
        return move_columns(block, np.arange(n_columns), n_columns)
    return block


def to_tensor(block: sparse.csr_matrix, device: torch.device | str = "cpu") -> torch.Tensor:
    """Convert to a tensor: CSR on the CPU and on CUDA, dense on other devices.

    On the CPU it shares the memory of the block; do not write to it.

    Parameters
    ----------
    block
        ``(n_cells, n_genes)``, increasing columns in every row.
    device
        Device of the tensor.
    """
    silence_torch()
    device = torch.device(device)
    if device.type not in _SPARSE_DEVICES:
        return torch.from_numpy(block.toarray()).to(device)
    # torch warns about read-only arrays; only those are copied.
    indptr, columns, values = (
        torch.from_numpy(np.require(array, requirements="W"))
        for array in (block.indptr, block.indices, block.data)
    )
    tensor = torch.sparse_csr_tensor(indptr, columns, values, block.shape, check_invariants=False)
    return tensor.to(device)


def storable(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Make a CSR tensor on the CPU dense if ``device`` does not support CSR."""
    if device.type in _SPARSE_DEVICES or tensor.layout is torch.strided:
        return tensor
    # By scipy, which takes a tenth of the time of torch.
    values, columns, indptr = tensor.values(), tensor.col_indices(), tensor.crow_indices()
    rows = assemble(values.numpy(), columns.numpy(), indptr.numpy(), tensor.shape[1])
    return torch.from_numpy(rows.toarray())


@cache
def silence_torch() -> None:
    """Suppress the warnings that torch gives once: CSR is in beta, and is not checked by default.

    The second one appears when worker processes send their minibatches.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nothing = torch.zeros(1, dtype=torch.int32)
        torch.sparse_csr_tensor(nothing, nothing[:0], torch.zeros(0), (0, 1))
