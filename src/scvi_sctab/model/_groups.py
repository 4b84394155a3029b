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
    codes = np.column_stack([pd.factorize(group_values(cells, clusters, "clusters"))[0], batches])
    return np.unique(codes, axis=0, return_inverse=True)[1].ravel()


def group_values(
    cells: CellSelection, groups: str | Sequence[object], argument: str
) -> NDArray[Any]:
    """Return the group of each cell, ``(n_cells,)``.

    Parameters
    ----------
    cells
        The cells.
    groups
        Column of ``obs``, or a group for each cell of the AnnData; a series is aligned by name.
    argument
        Name of the argument with the groups, for messages.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If groups do not match the cells, or have missing values.
    """
    if isinstance(groups, str):
        values = column_of(cells, groups, argument)
    elif isinstance(groups, pd.Series) and not isinstance(groups.index, pd.RangeIndex):
        values = align_cells(groups, cells.names, argument).to_numpy()
    else:
        values, n_cells = np.asarray(groups), cells.adata.n_obs
        if values.shape != (n_cells,):
            raise ValueError(
                f"{argument} are {values.shape}, not one for each of the {n_cells:,} cells of "
                "`adata`, which `indices` choose from."
            )
        values = values[cells.positions]
    if pd.isna(values).any():
        raise ValueError(f"{argument} have missing values (NaN). Give them a group of their own.")
    return values


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


def write_columns(frame: pd.DataFrame, adata: AnnData, optional: Sequence[str] = ()) -> None:
    """Write columns to ``obs``; cells that are not in the data frame get missing values.

    Parameters
    ----------
    frame
        A row per cell, named by cell.
    adata
        AnnData, or MuData, to write to.
    optional
        Columns of an earlier call, which are removed unless they are written again.
    """
    for name in set(optional) & set(adata.obs):
        del adata.obs[name]
    frame = frame if frame.index.equals(adata.obs_names) else frame.reindex(adata.obs_names)
    for name in frame:
        adata.obs[name] = frame[name]
