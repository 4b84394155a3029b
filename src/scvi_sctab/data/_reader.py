"""Reading of matrices of an AnnData in blocks of CSR rows, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab._constants import READ_BLOCK_CELLS
from scvi_sctab._messages import warn
from scvi_sctab.data._counts import Cures, Diagnosis, NotCountsError, diagnose
from scvi_sctab.sparse import (
    BrokenMatrixError,
    as_csr,
    as_float32,
    check_pointers,
    check_sparse,
    in_order,
    slice_rows,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from scvi_sctab.data._genes import GeneAlignment


def get_matrix(adata: AnnData, layer: str | None) -> Any:
    """Return ``X`` or a layer as it is stored.

    Parameters
    ----------
    adata
        Any AnnData, in memory or backed.
    layer
        Name of a layer; ``None`` is ``X``.

    Raises
    ------
    KeyError
        If there is no such layer.
    ValueError
        If ``X`` is empty, or the shape of the matrix differs from that of ``adata``.
    """
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"There is no layer {layer!r}; `adata.layers` has {_layer_names(adata)}. "
            "If `adata.X` holds the counts, pass `layer='X'`; in `setup_anndata`, leave `layer` out."
        )
    matrix = stored_matrix(adata, layer)
    if matrix is None:
        raise ValueError(
            f"`adata.X` is empty; name the layer that holds counts: {_layer_names(adata)}."
        )
    return matrix


def stored_matrix(adata: AnnData, layer: str | None) -> Any:
    """Return ``X``, which may be ``None``, or a layer, if its shape is that of ``adata``.

    Parameters
    ----------
    adata
        Any AnnData, in memory or backed.
    layer
        Name of a layer; ``None`` is ``X``.

    Raises
    ------
    ValueError
        If its shape differs, as in anndata's backed views with a negative step.
    """
    try:
        matrix = adata.X if layer is None else adata.layers[layer]
    except ValueError as error:
        if not (adata.is_view and adata.isbacked):
            raise
        raise ValueError(_cannot_be_read(adata, layer, str(error))) from error
    if matrix is not None and tuple(matrix.shape) != adata.shape:
        raise ValueError(_cannot_be_read(adata, layer, f"its shape is {tuple(matrix.shape)}"))
    return matrix


def refuse_view(adata: AnnData) -> None:
    """Refuse a view, whose matrices anndata copies in every call.

    Parameters
    ----------
    adata
        Any AnnData, in memory or backed.

    Raises
    ------
    ValueError
        If it is a view.
    """
    if adata.is_view:
        stored_matrix(adata, None)
        copy = "adata.to_memory()" if adata.isbacked else "adata.copy()"
        raise ValueError(f"`adata` is a view of another AnnData; pass a copy: `{copy}`.")


def _cannot_be_read(adata: AnnData, layer: str | None, why: str) -> str:
    text = (
        f"`{counts_source(layer)}` of `adata`, whose shape is {adata.shape}, is not read: {why}."
    )
    if not (adata.is_view and adata.isbacked):
        return text
    return text + (
        " anndata misreads backed views with a negative step (`backed[::-1]`). Take the view in "
        "memory: `adata = backed.to_memory()[adata.obs_names, adata.var_names].copy()`, where "
        "`backed` is what you took it of."
    )


def _layer_names(adata: AnnData) -> list[str]:
    # From anndata 0.13 on, `None` among the layers is `X`.
    return sorted(name for name in adata.layers if name is not None)


def take_rows(matrix: Any, rows: slice | NDArray[np.integer[Any]]) -> sparse.csr_matrix:
    """Read cells of a matrix as CSR, with the values as stored.

    Parameters
    ----------
    matrix
        Matrix of an AnnData, in memory or backed.
    rows
        Slice of consecutive cells, or positions in any order.

    Returns
    -------
    CSR, which may share memory with ``matrix``: do not write to it.

    Raises
    ------
    BrokenMatrixError
        If the values of a cell are not where its row pointers say.
    """
    if isinstance(matrix, sparse.csr_matrix | sparse.csr_array):
        pointers, n_values = matrix.indptr, min(len(matrix.indices), len(matrix.data))
        check_pointers(pointers[:-1][rows], pointers[1:][rows], n_values)
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(matrix.shape[0])
            return slice_rows(matrix, start, stop)
    if isinstance(matrix, h5py.Dataset) and not isinstance(rows, slice):
        # HDF5 needs increasing positions; the order asked for is restored.
        unique, inverse = np.unique(rows, return_inverse=True)
        block = matrix[unique][inverse]
    elif not isinstance(rows, slice) and isinstance(matrix, CSRDataset):
        # anndata reads listed rows one by one, and a slice at once.
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        blocks = [_take_run(matrix, slice(run[0], run[-1] + 1)) for run in runs if len(run)]
        block = sparse.vstack(blocks, format="csr") if blocks else matrix[:0]
    elif isinstance(matrix, CSRDataset):
        block = _take_run(matrix, rows)
    else:
        block = matrix[rows]
    block = block.compute() if hasattr(block, "compute") else block
    return as_csr(block)


def _take_run(matrix: Any, rows: Any) -> sparse.csr_matrix:
    """Read consecutive rows of a matrix on disk."""
    try:
        block = matrix[rows]
    except ValueError as error:
        if "pointer" not in str(error):
            raise
        raise BrokenMatrixError(str(error)) from error  # of scipy
    check_pointers(block.indptr[:-1], block.indptr[1:], len(block.data))
    return block


def _check_stored(matrix: Any) -> None:
    """Refuse a matrix on disk whose row pointers leave out values."""
    stored = matrix.group
    n_values = stored["data"].shape[0]
    first, last = int(stored["indptr"][0]), int(stored["indptr"][-1])
    if (first, last, n_values) != (0, n_values, stored["indices"].shape[0]):
        raise BrokenMatrixError(
            f"its pointers go from {first:,} to {last:,}, and it has {n_values:,} values and "
            f"{stored['indices'].shape[0]:,} indices"
        )


def row_readable(matrix: Any, source: str) -> Any:
    """Convert a CSC matrix to CSR; check other matrices, and return them unchanged.

    Parameters
    ----------
    matrix
        Matrix of an AnnData, in memory or backed.
    source
        Name of the matrix in the warning.

    Raises
    ------
    BrokenMatrixError
        If the arrays of a sparse matrix contradict each other.

    Warns
    -----
    UserWarning
        If the matrix is CSC on disk.
    """
    if isinstance(matrix, CSRDataset | CSCDataset):
        _check_stored(matrix)
    if getattr(matrix, "format", None) != "csc":
        return matrix
    if not sparse.issparse(matrix):
        warn(
            f"`{source}` lies on disk by columns (CSC), so cells cannot be read one by one: the "
            "whole matrix is read into memory. Store it as CSR to keep memory small."
        )
        matrix = matrix.to_memory()
    check_sparse(matrix)
    return matrix.tocsr()


def counts_source(layer: str | None) -> str:
    """Return the name of a matrix in messages."""
    return "X" if layer is None else f"layers[{layer!r}]"


def read_counts(
    adata: AnnData,
    layer: str | None = None,
    indices: NDArray[np.int64] | None = None,
    alignment: GeneAlignment | None = None,
    block_size: int = READ_BLOCK_CELLS,
) -> Iterator[sparse.csr_matrix]:
    """Yield checked raw counts block by block.

    Parameters
    ----------
    adata
        Cells in memory or backed; dense, CSR or CSC.
    layer
        Layer to read; ``None`` is ``X``.
    indices
        Cells to read, in this order; all if not given.
    alignment
        Alignment of columns with a model's genes; if not given, genes are those of ``adata``.
    block_size
        Cells per block.

    Yields
    ------
    CSR blocks ``(at most block_size, n_genes)``, float32, with increasing columns in every row.
    They may share memory with the matrix: do not write to them.

    Raises
    ------
    NotCountsError
        If a value is not a raw count.
    """
    source = counts_source(layer)
    matrix = row_readable(get_matrix(adata, layer), source)
    n_cells = adata.n_obs if indices is None else len(indices)
    for start in range(0, n_cells, block_size):
        rows = slice(start, min(start + block_size, n_cells))
        picked = rows if indices is None else indices[rows]
        block = take_rows(matrix, picked)
        if (found := diagnose(block)) is not None:
            raise _refusal(adata, layer, matrix, found, adata.obs_names[picked])
        block = as_float32(block)
        yield in_order(block) if alignment is None else alignment.apply(block)


def count_totals(
    adata: AnnData, layer: str | None = None, indices: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Sum the counts of each cell over all genes of the AnnData, ``(n_cells,)``.

    Parameters
    ----------
    adata, layer, indices
        As of :func:`read_counts`.

    Raises
    ------
    NotCountsError
        If a value is not a raw count.
    """
    parts = [np.asarray(part.sum(axis=1)).ravel() for part in read_counts(adata, layer, indices)]
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32)


def _refusal(
    adata: AnnData, layer: str | None, matrix: Any, found: Diagnosis, cells: pd.Index
) -> NotCountsError:
    """Make the error; it suggests rounding only if that makes counts of all cells."""
    for start in range(0, adata.n_obs, READ_BLOCK_CELLS):
        if not found.look.is_rounded:
            break
        rows = slice(start, start + READ_BLOCK_CELLS)
        other = diagnose(take_rows(matrix, rows))
        if other is not None and not other.look.is_rounded:
            found, cells = other, adata.obs_names[rows]
    source = counts_source(layer)
    on_disk = adata.isbacked and layer is None
    stored = adata.X if layer is None else adata.layers[layer]
    cures = Cures.of(stored, f"adata.{source}", on_disk)
    hint = where_counts_are(adata, layer)
    return NotCountsError(found.describe(cells, adata.var_names, source, cures, hint))


def where_counts_are(adata: AnnData, layer: str | None) -> str:
    """Find another matrix of ``adata`` that holds counts, and describe how to use it."""
    others: dict[str, tuple[Any, str]] = {
        f"adata.layers[{name!r}]": (adata.layers[name], f"pass `layer={name!r}`")
        for name in _layer_names(adata)
        if name != layer
    }
    if layer is not None and not (adata.is_view and adata.isbacked):
        free = next(name for name in ("counts", "raw", "from X") if name not in adata.layers)
        cure = f"`adata.layers[{free!r}] = adata.X`, then pass `layer={free!r}`"
        others["adata.X"] = (adata.X, f"set up without `layer`, or for a query: {cure}")
    if adata.raw is not None:
        others["adata.raw.X"] = (adata.raw.X, "pass `adata.raw.to_adata()`")
    for place, (matrix, cure) in others.items():
        if matrix is None:
            continue
        try:
            block = take_rows(row_readable(matrix, place), slice(0, min(100, adata.n_obs)))
        except BrokenMatrixError:
            continue
        if diagnose(block) is None:
            return f"`{place}` holds counts; {cure}"
    return ""
