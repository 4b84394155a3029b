"""Plot of the deletion test of gene rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scvi_sctab.plotting._axes import name_values
from scvi_sctab.plotting._colors import panel_colors
from scvi_sctab.plotting._frames import require
from scvi_sctab.plotting._legend import axes_with_legend, legend_beside

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_INCHES = 4.8, 3.6
_RANDOM = "random"


def plot_deletion(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw a table of :meth:`scvi_sctab.SCTAB.deletion_test`; the higher, the better the ranking.

    Parameters
    ----------
    table
        Columns ``ranking``, ``n_genes``, ``drop``.
    ax
        Axes to draw on; a new figure that fits the legend if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.

    Returns
    -------
    The axes. Random genes are the dashed line.

    Raises
    ------
    ValueError
        If a column is missing, or the table is empty.
    """
    require(table, ("ranking", "n_genes", "drop"), "SCTAB.deletion_test")
    curves = dict(tuple(table.groupby("ranking", sort=False, observed=True)))
    names = [str(ranking) for ranking in curves]
    if ax is None:
        ax = axes_with_legend(_INCHES, names)
    colors = panel_colors(ax, [name for name in names if name != _RANDOM])
    lines = []
    for name, rows in zip(names, curves.values(), strict=True):
        rows = rows.sort_values("n_genes")
        color, style = ("0.5", "--") if name == _RANDOM else (colors[name], None)
        lines += ax.plot(
            rows["n_genes"], rows["drop"], label=name, marker="o", markersize=4, linewidth=1.4,
            color=color, linestyle=style,
        )  # fmt: skip
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_ylim(bottom=min(0, ax.get_ylim()[0]))
    ax.set_xlabel("genes deleted from each cell")
    ax.set_ylabel("drop of the label's probability")
    ax.spines[["top", "right"]].set_visible(False)
    legend_beside(ax, lines, names)
    ticks = sorted(table["n_genes"].unique())
    name_values(ax, ticks, [str(tick) for tick in ticks])
    return ax
