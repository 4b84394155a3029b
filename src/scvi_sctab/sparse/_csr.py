"""Sparse rows as tensors, whose values may have a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scvi_sctab.sparse import _kernels as kernels
from scvi_sctab.sparse._parallel import over_parts
from scvi_sctab.sparse._scipy import (
    MIN_ROWS,
    assemble,
    dense_to_scipy,
    silence_torch,
    to_tensor,
)

if TYPE_CHECKING:
    from scipy import sparse


# Compared by identity, since the comparison of tensors is not a single boolean.
@dataclass(frozen=True, slots=True, eq=False)
class CSR:
    """Sparse rows.

    Attributes
    ----------
    indptr
        ``(n_rows + 1,)``, int64; row ``i`` has the values ``indptr[i]`` to ``indptr[i + 1]``.
    columns
        ``(n_values,)``, int32; increasing within a row.
    values
        ``(n_values,)``, floating.
    n_columns
        Number of columns.

    Examples
    --------
    >>> x = CSR.from_dense(torch.tensor([[0.0, 3.0], [5.0, 0.0]]))
    >>> len(x), x.shape, x.columns.tolist(), x.values.tolist()
    (2, (2, 2), [1, 0], [3.0, 5.0])
    """

    indptr: Tensor
    columns: Tensor
    values: Tensor
    n_columns: int

    @classmethod
    def from_torch(cls, matrix: Tensor) -> CSR:
        """Convert a CSR tensor of torch without a copy; half precision and integers to float32.

        Raises
        ------
        ValueError
            If the columns of a row do not increase, or are out of range.
        """
        values = matrix.values()
        values = values if values.dtype in (torch.float32, torch.float64) else values.float()
        parts = matrix.crow_indices(), matrix.col_indices(), values
        # torch.compile fails on views of a sparse tensor; arrays of numpy are not such views.
        indptr, columns, values = (torch.from_numpy(part.numpy()) for part in parts)
        n_rows, n_columns = matrix.shape
        arrays = indptr.numpy(), columns.numpy(), n_columns
        if any(over_parts(kernels.any_disorder, n_rows, *arrays, min_rows=MIN_ROWS)):
            raise ValueError(
                "The columns of a sparse row must increase and exist. Of a scipy matrix: "
                "`matrix.sum_duplicates()` sorts them and adds up duplicated ones."
            )
        return cls(indptr.long(), columns.int(), values, n_columns)

    @classmethod
    def from_scipy(cls, matrix: sparse.csr_matrix) -> CSR:
        """Convert a CSR matrix of scipy without a copy, see :meth:`from_torch`."""
        return cls.from_torch(to_tensor(matrix))

    @classmethod
    def from_dense(cls, matrix: Tensor) -> CSR:
        """Convert a dense matrix; zeros are not stored."""
        rows, columns = matrix.nonzero(as_tuple=True)
        counts = torch.bincount(rows, minlength=len(matrix))
        return cls(_indptr(counts), columns.int(), matrix[rows, columns], matrix.shape[1])

    @classmethod
    def from_parts(cls, parts: list[tuple[NDArray[Any], ...]], n_columns: int) -> CSR:
        """Join parts, each given by the sizes of its rows, their columns and their values."""
        counts, columns, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        indptr = np.concatenate([[0], np.cumsum(counts)])
        return cls(
            torch.from_numpy(indptr),
            torch.from_numpy(columns),
            torch.from_numpy(values),
            n_columns,
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return len(self), self.n_columns

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return self.values.device

    def rows(self) -> Tensor:
        """Return the row of each value, ``(n_values,)``."""
        return torch.arange(len(self), device=self.device).repeat_interleave(self.indptr.diff())

    def with_values(self, values: Tensor) -> CSR:
        """Replace the values by others, ``(n_values,)``, at the same positions."""
        return replace(self, values=values)

    def keep(self, kept: Tensor) -> CSR:
        """Keep the values for which a mask, ``(n_values,)``, boolean, is true."""
        positions = kept.nonzero()[:, 0]
        indptr = torch.searchsorted(positions, self.indptr)
        return CSR(indptr, self.columns[positions], self.values[positions], self.n_columns)

    def take_rows(self, rows: Tensor) -> CSR:
        """Select rows by their positions, in any order; a row may be taken more than once."""
        counts = self.indptr.diff()[rows]
        indptr = _indptr(counts)
        offsets = (self.indptr[rows] - indptr[:-1]).repeat_interleave(counts)
        positions = torch.arange(len(offsets), device=self.device) + offsets
        return CSR(indptr, self.columns[positions], self.values[positions], self.n_columns)

    def take_columns(self, columns: Tensor) -> CSR:
        """Select columns by their positions, in any order.

        Raises
        ------
        ValueError
            If a column is selected more than once.
        """
        if len(columns.unique()) < len(columns):
            raise ValueError("A column is selected more than once.")
        place = torch.full((self.n_columns,), -1, device=self.device)
        place[columns] = torch.arange(len(columns), device=self.device)
        moved = place[self.columns]
        selected = self.with_values(torch.arange(len(moved), device=self.device)).keep(moved >= 0)
        positions = selected.values
        # Within a row, values are sorted by the new positions of their columns.
        key = selected.rows() * len(columns) + moved[positions]
        positions = positions[key.argsort()]
        return CSR(selected.indptr, moved[positions].int(), self.values[positions], len(columns))

    def scale_rows(self, factors: Tensor) -> CSR:
        """Multiply each row by a factor, ``(n_rows,)``, without a gradient."""
        values = torch.empty_like(self.values, requires_grad=False)
        indptr, _, old = self.numpy()
        arrays = indptr, old, factors.detach().numpy(), values.numpy()
        over_parts(kernels.scale_rows, len(self), *arrays, min_rows=MIN_ROWS)
        return self.with_values(values)

    def to_dense(self) -> Tensor:
        """Return the rows with their zeros, ``(n_rows, n_columns)``."""
        dense = self.values.new_zeros(self.shape)
        return dense.index_put((self.rows(), self.columns), self.values)

    def to_torch(self) -> Tensor:
        """Return the rows as a CSR tensor of torch, which shares the memory of the values."""
        silence_torch()
        parts = self.indptr, self.columns.long(), self.values
        return torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)

    def to_scipy(self) -> sparse.csr_matrix:
        """Return the rows as a CSR matrix of scipy, which shares the memory of the values."""
        indptr, columns, values = self.numpy()
        return assemble(values, columns, indptr, self.n_columns)

    def numpy(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
        """Return the three arrays, without a copy and without a gradient."""
        return self.indptr.numpy(), self.columns.numpy(), self.values.detach().numpy()


def _indptr(counts: Tensor) -> Tensor:
    """Compute ``indptr`` from the number of values of each row."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def concatenate_rows(parts: Sequence[CSR]) -> CSR:
    """Concatenate sparse matrices along their rows."""
    if len(parts) == 1:
        return parts[0]
    indptr = _indptr(torch.cat([part.indptr.diff() for part in parts]))
    columns = torch.cat([part.columns for part in parts])
    return CSR(indptr, columns, torch.cat([part.values for part in parts]), parts[0].n_columns)


def to_scipy(x: Tensor | CSR) -> sparse.csr_matrix:
    """Convert dense or sparse rows to a CSR matrix of scipy.

    Parameters
    ----------
    x
        ``(n_rows, n_columns)``, on any device.

    Returns
    -------
    CSR matrix, which shares the memory of sparse rows.
    """
    if isinstance(x, CSR):
        return x.to_scipy()
    x = x.detach()
    if x.device.type == "cuda":
        # Zeros are not copied: 2,048 dense cells take 158 MB.
        rows = CSR.from_dense(x)
        return CSR(rows.indptr.cpu(), rows.columns.cpu(), rows.values.cpu(), x.shape[1]).to_scipy()
    return dense_to_scipy(x.cpu().numpy())
