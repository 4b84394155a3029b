"""Read any matrix of an AnnData in blocks of CSR rows, without holding more than a block."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scvi_sctab._constants import READ_BLOCK_CELLS
from scvi_sctab.data._counts import NotCountsError, check_counts
from scvi_sctab.data._csr import as_float32, from_dense, in_order, slice_rows

if TYPE_CHECKING:
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
        If ``X`` is empty.
    """
    if layer is not None and layer not in adata.layers:
        raise KeyError(
            f"There is no layer {layer!r}; `adata.layers` has {_layer_names(adata)}. "
            f"If `adata.X` holds the counts: `adata.layers[{layer!r}] = adata.X`."
        )
    matrix = adata.X if layer is None else adata.layers[layer]
    if matrix is None:
        raise ValueError(
            f"`adata.X` is empty; name the layer that holds counts: {_layer_names(adata)}."
        )
    return matrix


def _layer_names(adata: AnnData) -> list[str]:
    # From anndata 0.13 on, `None` among the layers is `X`.
    return sorted(name for name in adata.layers if name is not None)


def take_rows(matrix: Any, rows: slice | NDArray[np.integer[Any]]) -> sparse.csr_matrix:
    """Read cells as they are stored.

    Parameters
    ----------
    matrix
        Of an AnnData, in memory or backed.
    rows
        Consecutive cells, or any in any order.

    Returns
    -------
    CSR, which may share memory with ``matrix``: do not write to it.
    """
    if isinstance(rows, slice) and isinstance(matrix, sparse.csr_matrix | sparse.csr_array):
        start, stop, _ = rows.indices(matrix.shape[0])
        return slice_rows(matrix, start, stop)
    if isinstance(matrix, h5py.Dataset) and not isinstance(rows, slice):
        # HDF5 wants increasing positions; put them back in the order asked for.
        unique, inverse = np.unique(rows, return_inverse=True)
        block = matrix[unique][inverse]
    else:
        block = matrix[rows]
    block = block.compute() if hasattr(block, "compute") else block
    # scipy has no sparse matrices of half precision or of Python objects, numba no long double and
    # no foreign byte order.
    known = block.dtype.kind in "biu" or block.dtype in (np.float32, np.float64)
    dtype = block.dtype.newbyteorder("=") if known else np.float64
    block = block if block.dtype == dtype else block.astype(dtype)
    return sparse.csr_matrix(block) if sparse.issparse(block) else from_dense(np.asarray(block))


def row_readable(matrix: Any, source: str) -> Any:
    """Turn a matrix stored by columns into one whose rows can be read.

    Parameters
    ----------
    matrix
        Of an AnnData, in memory or backed.
    source
        What the matrix is called in the warning.

    Warns
    -----
    UserWarning
        If the matrix lies on disk by columns.
    """
    if getattr(matrix, "format", None) != "csc":
        return matrix
    if not sparse.issparse(matrix):
        warnings.warn(
            f"`{source}` lies on disk by columns (CSC), so cells cannot be read one by one: the "
            "whole matrix is read into memory. Store it as CSR to keep memory small.",
            UserWarning,
            stacklevel=2,
        )
        matrix = matrix.to_memory()
    return matrix.tocsr()


def counts_source(layer: str | None) -> str:
    """Name of a matrix in messages."""
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
        In memory or backed; dense, CSR or CSC.
    layer
        Layer to read; ``None`` is ``X``.
    indices
        Cells to read, in this order; all if not given.
    alignment
        Maps columns to a model's genes; as they are if not given.
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
        try:
            check_counts(block, adata.obs_names[picked], adata.var_names, source)
        except NotCountsError:
            hint = where_counts_are(adata, layer)
            check_counts(block, adata.obs_names[picked], adata.var_names, source, hint)
        block = as_float32(block)
        yield in_order(block) if alignment is None else alignment.apply(block)


def where_counts_are(adata: AnnData, layer: str | None) -> str:
    """Say which other matrix of ``adata`` holds counts, if one does, and how to use it."""
    here = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    others: dict[str, tuple[Any, str]] = {
        f"adata.layers[{name!r}]": (adata.layers[name], f"set up with `layer={name!r}`")
        for name in _layer_names(adata)
        if name != layer
    }
    if layer is not None:
        others["adata.X"] = (adata.X, "set up without `layer`")
    if adata.raw is not None:
        others["adata.raw.X"] = (adata.raw.X, "pass `adata.raw.to_adata()`")
    for place, (matrix, cure) in others.items():
        if matrix is None:
            continue
        block = take_rows(matrix, slice(0, min(100, adata.n_obs)))
        try:
            check_counts(block, adata.obs_names, [""] * block.shape[1])
        except NotCountsError:
            continue
        query = "" if "raw" in place else f", or for a query `{here} = {place}`"
        return f"`{place}` holds counts; {cure}{query}"
    return ""
