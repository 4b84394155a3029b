"""Dot plot of genes by groups of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from scvi_sctab.plotting._axes import name_columns, name_rows, names_inches, new_axes, settle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Inches: width of a column, height of a row, and limits of all together.
_COLUMN, _ROW, _ALL, _LEAST = 0.27, 0.27, 14.0, 1.6
_DOT = 13.0
_SHARES = (0.25, 0.5, 1.0)


def plot_marker_dots(
    expression: pd.DataFrame,
    groups: pd.Series,
    markers: Mapping[str, Sequence[str]] | pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw genes by groups: the area of a dot is the share of cells that express the gene.

    Parameters
    ----------
    expression
        Log-normalised expression, ``(n_cells, n_genes)``, columns named by gene, such as
        ``adata[:, genes].to_df()``.
    groups
        Group of each cell, ``(n_cells,)``, such as ``model.annotate(query)["label"]``; a series is
        aligned by the names of cells.
    markers
        Genes to draw, by group, or a data frame of :meth:`scvi_sctab.SCTAB.get_markers`; a gene is
        drawn once, in this order. All columns if not given.
    ax
        Axes to draw on; a new figure that fits the names if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.

    Returns
    -------
    The axes. The colour is the mean expression of the group, relative to the group with the
    highest one.

    Raises
    ------
    ValueError
        If there is no cell or no gene, or none of the markers is a column.
    """
    genes = _genes_of(expression, markers)
    if isinstance(groups, pd.Series) and not groups.index.equals(expression.index):
        groups = groups.reindex(expression.index)
    names = pd.Categorical(np.asarray(groups, dtype=object)).remove_unused_categories()
    if not len(genes) or not len(names.categories):
        raise ValueError(
            "There is nothing to draw: no cell has a group, or no marker is a column of "
            f"`expression`, which has {[str(name) for name in expression.columns[:5]]}. Pass "
            "adata[:, genes].to_df() with the genes of get_markers."
        )
    grouped = expression[genes].groupby(names, observed=True)
    mean = grouped.mean().to_numpy(dtype=float)
    share = (expression[genes] > 0).groupby(names, observed=True).mean().to_numpy(dtype=float)
    rows = [str(name) for name in names.categories]
    if ax is None:
        ax = new_axes(
            names_inches(rows) + max(_LEAST, min(_ALL, _COLUMN * len(genes))) + 1.6,
            names_inches(genes) + max(_LEAST, min(_ALL, _ROW * len(rows))) + 0.6,
        )
    ax.set(xlim=(-0.7, len(genes) - 0.3), ylim=(len(rows) - 0.3, -0.7))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.grid(color="0.94")
    ax.set_axisbelow(True)
    name_rows(ax, rows)
    name_columns(ax, genes)
    _draw(ax, mean, share)
    settle(ax)
    return ax


def _genes_of(
    expression: pd.DataFrame, markers: Mapping[str, Sequence[str]] | pd.DataFrame | None
) -> list[str]:
    """Return the genes to draw that are columns, each once."""
    if markers is None:
        wanted = list(expression.columns)
    elif isinstance(markers, pd.DataFrame):
        wanted = list(markers["gene"])
    else:
        wanted = [gene for genes in markers.values() for gene in genes]
    return [gene for gene in dict.fromkeys(wanted) if gene in expression.columns]


def _draw(ax: Axes, mean: NDArray[np.float64], share: NDArray[np.float64]) -> None:
    """Draw the dots, a colour bar and a legend of sizes, in the space that names have left."""
    highest = mean.max(axis=0)
    relative = mean / np.where(highest > 0, highest, 1)
    columns, rows = np.meshgrid(np.arange(mean.shape[1]), np.arange(mean.shape[0]))
    width, height = ax.bbox.width * 72 / ax.figure.dpi, ax.bbox.height * 72 / ax.figure.dpi
    dot = max(2.0, min(_DOT, 0.9 * width / mean.shape[1], 0.9 * height / mean.shape[0]))
    points = ax.scatter(
        columns, rows, s=dot**2 * share, c=relative, cmap="Blues", vmin=0, vmax=1,
        edgecolors="0.45", linewidths=0.4,
    )  # fmt: skip
    ax.figure.colorbar(points, ax=ax, label="mean expression, relative", shrink=0.6, pad=0.02)
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=dot * value**0.5, color="0.6")
        for value in _SHARES
    ]
    ax.legend(
        handles, [f"{value:.0%} of cells" for value in _SHARES], loc="lower left", ncols=3,
        bbox_to_anchor=(0, 1.0), fontsize=8, frameon=False, borderpad=0, handletextpad=0.2,
    )  # fmt: skip
