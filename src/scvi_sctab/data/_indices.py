"""Which cells were meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_indices(indices: Sequence[int] | NDArray[Any], n_cells: int) -> NDArray[np.intp]:
    """Turn positions or a mask into positions.

    Parameters
    ----------
    indices
        Positions from 0 on, or a mask over all cells.
    n_cells
        Number of cells.

    Raises
    ------
    ValueError
        If ``indices`` are neither, or out of range.

    Examples
    --------
    >>> check_indices([True, False, True], 3)
    array([0, 2])
    """
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
