"""Annotated copies of files, written without holding their matrix in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import h5py
from anndata.io import sparse_dataset, write_elem

from scvi_sctab._constants import READ_BLOCK_CELLS
from scvi_sctab.data._reader import take_rows

if TYPE_CHECKING:
    import pandas as pd

    from scvi_sctab.data.files._stored import StoredCells


def write_annotated(stored: StoredCells, columns: pd.DataFrame, path: Path) -> None:
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
    """
    obs = stored.obs.drop(columns=stored.obs.columns.intersection(columns.columns))
    obs = obs.join(columns)
    if stored.kind == "h5ad":
        shutil.copyfile(stored.path, path)
        with h5py.File(path, "r+") as file:
            write_elem(file, "obs", obs)
        return
    matrix = stored.matrices["X"]
    n_cells = len(obs)
    block = take_rows(matrix.values, slice(0, min(READ_BLOCK_CELLS, n_cells)))
    anndata.AnnData(block, obs.iloc[: block.shape[0]], matrix.var).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        rows = sparse_dataset(file["X"])
        for start in range(READ_BLOCK_CELLS, n_cells, READ_BLOCK_CELLS):
            rows.append(take_rows(matrix.values, slice(start, start + READ_BLOCK_CELLS)))
        write_elem(file, "obs", obs)
