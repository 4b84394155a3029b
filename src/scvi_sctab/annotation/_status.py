"""Status of each cell: which labels to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from numpy.typing import NDArray

STATUS = ("confident", "ambiguous", "novel", "low_quality")
"""Values of the column ``status``, from use to refusal."""
FEWEST_MOLECULES = 50
"""Number of molecules of the model's genes below which a cell has no reliable label."""


def status_of(
    novel: NDArray[np.bool_], set_size: NDArray[np.int64], n_molecules: NDArray[np.floating]
) -> pd.Categorical:
    """Say of each cell whether its label can be used.

    ``low_quality`` below 50 molecules of the model's genes, else ``novel`` if it is, else
    ``ambiguous`` unless its prediction set has exactly one label, else ``confident``.

    Parameters
    ----------
    novel
        Whether the cell is novel, ``(n_cells,)``.
    set_size
        Number of labels in its prediction set, ``(n_cells,)``.
    n_molecules
        Number of molecules of the model's genes, ``(n_cells,)``.

    Examples
    --------
    >>> status_of(np.array([False, True, False]), np.array([1, 1, 2]), np.full(3, 1e3)).tolist()
    ['confident', 'novel', 'ambiguous']
    """
    rules = [n_molecules < FEWEST_MOLECULES, novel, set_size != 1]
    codes = np.select(rules, [STATUS.index(s) for s in ("low_quality", "novel", "ambiguous")], 0)
    return pd.Categorical.from_codes(codes, categories=list(STATUS), ordered=True)
