"""Annotated copies of files, written without holding their matrix in memory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import h5py
import numpy as np
from anndata.io import sparse_dataset, write_elem

from scvi_sctab._constants import READ_BLOCK_CELLS
from scvi_sctab.data._reader import take_rows
from scvi_sctab.data.files._refusal import RefusedInputError

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.data.files._stored import StoredCells

# Rows of each column that are written to memory to find out whether it can be written.
_N_ROWS_TRIED = 1000


def check_writable(stored: StoredCells) -> None:
    """Refuse cells whose table cannot be written, before any work is done.

    Parameters
    ----------
    stored
        Cells of an open file.

    Raises
    ------
    RefusedInputError
        If a column of ``obs`` has values that no ``.h5ad`` file holds.
    """
    with h5py.File("obs.h5ad", "w", driver="core", backing_store=False) as file:
        for name in stored.obs:
            try:
                _write_table(file, "obs", stored.obs[[name]].iloc[:_N_ROWS_TRIED])
            except Exception as error:
                why = " ".join(str(error).split())
                raise RefusedInputError(
                    f"{stored.path}: the column {name!r} of obs cannot be written: {why}.",
                    "Drop it from the file, or leave out --h5ad.",
                ) from error


def write_annotated(
    stored: StoredCells,
    columns: pd.DataFrame,
    path: Path,
    counts: str = "X",
    uns: Mapping[str, Any] | None = None,
) -> None:
    """Write an ``.h5ad`` file of cells with further columns in ``obs``.

    An ``.h5ad`` file is copied with all that it holds; of other formats ``X`` and the tables of
    cells and genes are written, ``X`` a block at a time.

    Parameters
    ----------
    stored
        Cells of an open file, which is not changed.
    columns
        Columns to add, a row per cell; they replace those of the same name.
    path
        The file to write.
    counts
        Place of the matrix that becomes ``X`` if the file has none.
    uns
        Entries to add to ``uns``; they replace those of the same name.
    """
    obs = stored.obs.drop(columns=stored.obs.columns.intersection(columns.columns))
    obs = obs.join(columns)
    if stored.kind == "h5ad":
        shutil.copyfile(stored.path, path)
        with h5py.File(path, "r+") as file:
            _write_table(file, "obs", obs)
            _write_entries(file, uns)
        return
    matrix = stored.matrices["X" if "X" in stored.matrices else counts]
    n_cells = len(obs)
    block = take_rows(matrix.values, slice(0, min(READ_BLOCK_CELLS, n_cells))).copy()
    # Offsets of all cells may exceed 32 bits, where those of the first block do not.
    block.indptr = block.indptr.astype(np.int64)
    anndata.AnnData(shape=(n_cells, len(matrix.var))).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        write_elem(file, "X", block)
        _write_table(file, "var", matrix.var)
        rows = sparse_dataset(file["X"])
        for start in range(READ_BLOCK_CELLS, n_cells, READ_BLOCK_CELLS):
            rows.append(take_rows(matrix.values, slice(start, start + READ_BLOCK_CELLS)))
        _write_table(file, "obs", obs)
        _write_entries(file, uns)


def _write_entries(file: h5py.File, uns: Mapping[str, Any] | None) -> None:
    for name, value in (uns or {}).items():
        write_elem(file.require_group("uns"), name, value)


def _write_table(file: h5py.File, name: str, table: pd.DataFrame) -> None:
    # Strings with missing values are read from files, but not written without this setting.
    with anndata.settings.override(allow_write_nullable_strings=True):
        write_elem(file, name, table)
