"""Numbers of cells that the decoder reads: continuous covariates and size factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab._messages import list_names
from scvi_sctab.data._obs import find_column

if TYPE_CHECKING:
    from numpy.typing import NDArray


def numeric_columns(
    obs: pd.DataFrame, keys: Sequence[str], argument: str, *, positive: bool = False
) -> NDArray[np.float32]:
    """Read columns of finite numbers.

    Parameters
    ----------
    obs
        ``adata.obs``.
    keys
        Names of the columns.
    argument
        Argument that named them, for messages.
    positive
        Whether numbers must be greater than 0.

    Returns
    -------
    ``(n_cells, n_columns)``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If a value is missing, infinite or no number, or not positive where it must be.

    Examples
    --------
    >>> numeric_columns(pd.DataFrame({"age": [1, 2]}), ["age"], "keys").tolist()
    [[1.0], [2.0]]
    """
    columns = np.empty((len(obs), len(keys)), dtype=np.float32)
    for column, key in zip(columns.T, keys, strict=True):
        values = pd.to_numeric(find_column(obs, key, argument), errors="coerce").to_numpy(float)
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"{argument}: `adata.obs[{key!r}]` has {bad.sum():,} values that are missing, "
                f"infinite or no numbers, in cells {list_names(obs.index[bad])}. Fill them, e.g. "
                f"`adata.obs[{key!r}] = adata.obs[{key!r}].fillna(adata.obs[{key!r}].median())`."
            )
        if positive and (values <= 0).any():
            raise ValueError(
                f"{argument}: `adata.obs[{key!r}]` has values that are not positive, in cells "
                f"{list_names(obs.index[values <= 0])}; size factors multiply expression."
            )
        column[:] = values
    return columns
