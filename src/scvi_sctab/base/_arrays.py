"""Choice of some cells of many."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scvi_sctab.base._host import seed

# Enough cells for the mean and the variance of each gene, or of each dimension.
_N_AVERAGED = 4096


def draw_cells(cells: NDArray[np.intp], size: int = _N_AVERAGED) -> NDArray[np.intp]:
    """Draw cells with the seed of scvi-tools, and keep their order; all if there are no more.

    Parameters
    ----------
    cells
        Positions.
    size
        Number of cells to draw; enough for the mean of each gene if not given.
    """
    if len(cells) <= size:
        return cells
    rng = np.random.default_rng(seed())
    return np.sort(rng.choice(cells, size, replace=False))


def spread_cells(n_cells: int, n_runs: int = 64, run_length: int = 64) -> NDArray[np.intp]:
    """Choose runs of cells, evenly spread, which are read from disk fast; all if there are no more.

    Parameters
    ----------
    n_cells
        Number of cells.
    n_runs, run_length
        Number of runs, and of cells in each.

    Examples
    --------
    >>> spread_cells(10, n_runs=2, run_length=2).tolist()
    [0, 1, 8, 9]
    """
    if n_cells <= n_runs * run_length:
        return np.arange(n_cells)
    starts = np.linspace(0, n_cells - run_length, n_runs).astype(np.intp)
    # Runs of few more cells than are asked for may meet.
    return np.unique(starts[:, None] + np.arange(run_length))
