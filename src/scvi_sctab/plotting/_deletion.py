"""How fast a label goes with its genes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_deletion(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw a table of :meth:`scvi_sctab.SCTAB.deletion_test`; the higher, the better the ranking.

    Parameters
    ----------
    table
        Columns ``ranking``, ``n_genes``, ``drop``.
    ax
        Where to draw; a new figure if not given.

    Returns
    -------
    The axes. Random genes are the dashed line.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
    for ranking, rows in table.groupby("ranking", sort=False):
        rows = rows.sort_values("n_genes")
        style = {"marker": "o", "markersize": 4, "linewidth": 1.4}
        if ranking == "random":
            style |= {"color": "0.5", "linestyle": "--"}
        ax.plot(rows["n_genes"], rows["drop"], label=ranking, **style)
    ticks = sorted(table["n_genes"].unique())
    ax.set_xscale("log")
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    ax.set_xlabel("genes deleted from each cell")
    ax.set_ylabel("drop of the label's probability")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax
