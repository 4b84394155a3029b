"""Groups of cells by columns of ``obs``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scvi_sctab.data import align_cells, get_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from scvi_sctab.data import CellSelection


def batch_codes(cells: CellSelection, batch_key: str | None) -> NDArray[np.intp]:
    """Return codes of the batches of cells, ``(n_cells,)``; all 0 without a column.

    Parameters
    ----------
    cells
        The cells.
    batch_key
        Column of batches.

    Raises
    ------
    KeyError
        If there is no such column.
    """
    if batch_key is None:
        return np.zeros(len(cells), dtype=np.intp)
    return pd.factorize(column_of(cells, batch_key, "batch_key"))[0]


def cluster_codes(
    cells: CellSelection, clusters: str | Sequence[object], batches: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return codes of the clusters of cells within their batches, ``(n_cells,)``.

    Parameters
    ----------
    cells
        The cells.
    clusters
        Column of ``obs``, or a cluster for each cell of the AnnData; a series is aligned by name.
    batches
        Code of the batch of each cell, ``(n_cells,)``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If clusters do not match the cells, or have missing values.
    """
    values = _clusters_of(cells, clusters)
    if pd.isna(values).any():
        raise ValueError("clusters have missing values (NaN). Give them a cluster of their own.")
    codes = np.column_stack([pd.factorize(values)[0], batches])
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def _clusters_of(cells: CellSelection, clusters: str | Sequence[object]) -> NDArray[Any]:
    if isinstance(clusters, str):
        return column_of(cells, clusters, "clusters")
    if isinstance(clusters, pd.Series) and not isinstance(clusters.index, pd.RangeIndex):
        return align_cells(clusters, cells.names, "clusters").to_numpy()
    values, n_cells = np.asarray(clusters), cells.adata.n_obs
    if values.shape != (n_cells,):
        raise ValueError(
            f"clusters are {values.shape}, not one for each of the {n_cells:,} cells of "
            "`adata`, which `indices` choose from."
        )
    return values[cells.positions]


def column_of(cells: CellSelection, key: str, argument: str) -> NDArray[Any]:
    """Values of a column of ``obs``, ``(n_cells,)``.

    Parameters
    ----------
    cells
        The cells.
    key
        Name of the column.
    argument
        Name of the argument with this name, for messages.

    Raises
    ------
    KeyError
        If there is no such column.
    """
    return get_column(cells.adata.obs, key, argument).to_numpy()[cells.positions]


def write_columns(frame: pd.DataFrame, adata: AnnData) -> None:
    """Write columns to ``obs``; cells that are not in the data frame get missing values.

    Parameters
    ----------
    frame
        A row per cell, named by cell.
    adata
        AnnData, or MuData, to write to.
    """
    frame = frame if frame.index.equals(adata.obs_names) else frame.reindex(adata.obs_names)
    for name in frame:
        adata.obs[name] = frame[name]
