"""Which labels are taken for which."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Cells of the table below this share stay without a number.
_MIN_SHARE_WRITTEN = 0.005
_DARK_FROM = 0.55


def plot_confusion(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw a table of :func:`scvi_sctab.metrics.confusion`.

    Parameters
    ----------
    table
        True labels by predicted labels; rows sum to one.
    ax
        Where to draw; a figure that fits the table if not given.

    Returns
    -------
    The axes.
    """
    n_rows, n_columns = table.shape
    if ax is None:
        size = (2.8 + 0.5 * n_columns, 1.8 + 0.42 * n_rows)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    ax.imshow(table.to_numpy(), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(range(n_columns), table.columns, rotation=45, ha="right", rotation_mode="anchor")
    ax.set_yticks(range(n_rows), table.index)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    for i in range(n_rows):
        for j in range(n_columns):
            share = table.iloc[i, j]
            if share >= _MIN_SHARE_WRITTEN:
                color = "white" if share > _DARK_FROM else "black"
                ax.text(j, i, f"{share:.0%}", ha="center", va="center", color=color, fontsize=8)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax
