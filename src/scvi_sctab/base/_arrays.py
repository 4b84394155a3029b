"""Random draw of cells."""

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
