"""Cells and numbers as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from scvi_sctab.base._host import seed
from scvi_sctab.nn import CSR

# Enough cells for the mean and the spread of each gene, or of each dimension.
_N_AVERAGED = 4096


def to_scipy(x: Tensor | CSR) -> sparse.csr_matrix:
    """Turn rows, stored densely or sparsely, into CSR in memory.

    Parameters
    ----------
    x
        ``(n_rows, n_columns)``, on any device.
    """
    if isinstance(x, CSR):
        indptr, columns, values = x.numpy()
        return sparse.csr_matrix((values, columns, indptr), shape=(x.n_rows, x.n_columns))
    return sparse.csr_matrix(x.detach().cpu().numpy())


def draw_cells(cells: NDArray[np.intp], size: int = _N_AVERAGED) -> NDArray[np.intp]:
    """Draw cells by the seed of scvi-tools, in their order; all if there are no more.

    Parameters
    ----------
    cells
        Positions.
    size
        How many to draw; enough for the mean of each gene if not given.
    """
    if len(cells) <= size:
        return cells
    rng = np.random.default_rng(seed())
    return np.sort(rng.choice(cells, size, replace=False))
