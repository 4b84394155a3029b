"""Selection of cells by positions or masks, and alignment of tables by the names of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scvi_sctab._messages import list_names

Table = TypeVar("Table", pd.Series, pd.DataFrame)


def check_indices(
    indices: Sequence[int] | NDArray[Any] | pd.Series,
    n_cells: int,
    names: pd.Index | None = None,
) -> NDArray[np.intp]:
    """Turn positions or a mask into positions.

    Parameters
    ----------
    indices
        Positions from 0 on, or a mask over all cells. A mask that is a series is aligned by the
        names of cells, see :func:`align_cells`.
    n_cells
        Number of cells.
    names
        Names of the cells, to align a series by.

    Raises
    ------
    ValueError
        If ``indices`` are neither positions nor a mask, are out of range, or are a mask without
        some of the cells.

    Examples
    --------
    >>> check_indices([True, False, True], 3)
    array([0, 2])
    >>> mask = pd.Series({"c": True, "b": False, "a": False})
    >>> check_indices(mask, 3, pd.Index(["a", "b", "c"]))
    array([2])
    """
    if isinstance(indices, pd.Series) and names is not None and _is_mask(indices):
        if indices.isna().any():
            raise ValueError(
                "indices are a mask with missing values; say what they are: "
                "`indices=indices.fillna(False).astype(bool)`."
            )
        indices = align_cells(indices.astype(bool), names, "indices", _CURE_OF_MASK)
    positions = np.asarray(indices)
    if positions.size == 0 and positions.dtype != bool:
        return np.zeros(0, dtype=np.intp)
    if positions.dtype == object and all(
        isinstance(value, bool | np.bool_) for value in positions
    ):
        positions = positions.astype(bool)
    if positions.dtype == bool and positions.shape == (n_cells,):
        return np.flatnonzero(positions)
    if positions.ndim != 1 or not np.issubdtype(positions.dtype, np.integer):
        raise ValueError(
            f"indices must be positions or a mask of {n_cells:,} cells, not "
            f"{positions.dtype} of shape {positions.shape}. For names of cells: "
            "`adata.obs_names.get_indexer(names)`."
        )
    if positions.min() < 0 or positions.max() >= n_cells:
        raise ValueError(
            f"indices reach from {positions.min()} to {positions.max()}, but cells are numbered "
            f"0 to {n_cells - 1}."
        )
    return positions.astype(np.intp)


_CURE_OF_MASK = (
    "If those are not meant: `indices=indices.reindex(adata.obs_names, fill_value=False)`."
)


def _is_mask(values: pd.Series) -> bool:
    """Return whether a series holds booleans only, some of which may be missing."""
    return pd.api.types.infer_dtype(values, skipna=True) == "boolean"


def align_cells(table: Table, names: pd.Index, what: str, cure: str = "") -> Table:
    """Bring the rows of a table into the order of cells, by name.

    Parameters
    ----------
    table
        Table with a row per cell, named by cell, in any order; further rows are dropped. If rows
        are numbered from 0 on, as by default in pandas, they are in the order of the cells.
    names
        Names of the cells.
    what
        Name of the table, for messages.
    cure
        Line to type if cells are missing, for messages.

    Raises
    ------
    ValueError
        If cells are missing, or several rows have the same name.

    Examples
    --------
    >>> align_cells(pd.Series({"b": 2, "a": 1}), pd.Index(["a", "b"]), "clusters").tolist()
    [1, 2]
    """
    index = table.index
    if index.equals(names):
        return table
    if isinstance(index, pd.RangeIndex) and index.equals(pd.RangeIndex(len(names))):
        return table.set_axis(names, axis=0)
    missing = names[~names.isin(index)]
    if len(missing) == len(names):
        raise ValueError(
            f"{what} have {len(table):,} rows of other names, {list_names(index)}, than the "
            f"{len(names):,} cells, {list_names(names)}. Name the rows by cell, or give an array "
            "in the order of the cells."
        )
    if len(missing):
        raise ValueError(
            f"{what} are named by cell, but {len(missing):,} of {len(names):,} cells are not among "
            f"them: {list_names(missing)}." + (f" {cure}" if cure else "")
        )
    if not index.is_unique:
        twice = index[index.duplicated()].unique()
        raise ValueError(
            f"{what} name cells more than once, {list_names(twice)}, so that rows cannot be "
            "distinguished: give them in the order of the cells, as an array."
        )
    return table.loc[names]
