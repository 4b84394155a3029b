"""Stacked bars of the types of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.plotting._axes import name_rows, names_inches, new_axes
from scvi_sctab.plotting._colors import categories_of, panel_colors
from scvi_sctab.plotting._legend import legend_beside, legend_inches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Inches: width of the bars, height of a row, and limit of all rows together.
_WIDTH, _ROW, _ALL_ROWS = 4.5, 0.36, 12.0
_AROUND = 1.0


def plot_composition(
    labels: pd.Series,
    samples: pd.Series,
    ax: Axes | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draw the share of each label in each sample, a bar per sample.

    Parameters
    ----------
    labels
        Label of each cell, ``(n_cells,)``, such as ``model.annotate(query)["label"]``.
    samples
        Sample, donor or batch of each cell, ``(n_cells,)``, aligned by the names of cells.
    ax
        Axes to draw on; a new figure that fits names and legend if not given. A figure without a
        layout engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.
    colors
        Colour of each label, e.g. of :func:`label_colors`. If not given, as in other panels of the
        figure.

    Returns
    -------
    The axes. The number of cells is written beside the name of a sample.

    Raises
    ------
    ValueError
        If there is no cell with both, or a label has no colour.
    """
    both = pd.concat(
        [pd.Series(labels).rename("label"), pd.Series(samples).rename("sample")], axis=1
    ).dropna()
    if both.empty:
        raise ValueError(
            "No cell has a label and a sample, so that there is nothing to draw. Pass two columns of "
            "the same cells, e.g. plot_composition(obs['sctab_label'], obs['donor_id'])."
        )
    table = pd.crosstab(both["sample"], both["label"])
    names = [str(name) for name in categories_of(labels).categories]
    shown = list(table.columns[np.argsort(-table.to_numpy().sum(axis=0), kind="stable")])
    rows = [str(name) for name in table.index]
    sizes = table.sum(axis=1).to_numpy()
    notes = [f" (n = {n:,})" for n in sizes]
    if ax is None:
        height = _AROUND + min(_ALL_ROWS, _ROW * len(rows))
        width, needed = legend_inches([str(name) for name in shown], height - 0.6)
        left = names_inches(rows, notes)
        ax = new_axes(left + _WIDTH + width, max(height, needed + 0.6))
    present = [str(name) for name in shown]
    colors_of = panel_colors(ax, present if colors else names, colors)
    start, bars = np.zeros(len(rows)), []
    for name in shown:
        share = table[name].to_numpy() / sizes
        bars.append(
            ax.barh(range(len(rows)), share, left=start, height=0.8, color=colors_of[str(name)])
        )
        start += share
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="share of cells")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    name_rows(ax, rows, notes=notes)
    legend_beside(ax, bars, present)
    return ax
