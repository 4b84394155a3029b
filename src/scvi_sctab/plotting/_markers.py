"""Plot of marker genes of groups of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.transforms import ScaledTranslation

from scvi_sctab.plotting._axes import (
    MIN_SIZE,
    POINTS_PER_INCH,
    lay_out,
    name_rows,
    names_inches,
    new_axes,
)
from scvi_sctab.plotting._frames import require
from scvi_sctab.plotting._names import fit, widest

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MIN_DOT, _MAX_DOT = 7, 13  # points across
_ROW_INCHES = 0.3
# Limit of all rows together, and least height of a row with a name.
_ALL_ROWS_INCHES, _MIN_ROW_INCHES = 12.0, 0.15
_BAR_INCHES, _MIN_INCHES = 2.5, 2.4
_EXPLAINED = "genes, best first\narea: score, over the best of its row"


def plot_markers(markers: pd.DataFrame, n_genes: int = 8, ax: Axes | None = None) -> Axes:
    """Draw the best genes of each group, a row per group, best first.

    Parameters
    ----------
    markers
        A frame of :meth:`scvi_sctab.SCTAB.get_markers`: ``group``, ``gene``, ``score``,
        ``expression``.
    n_genes
        Genes per group.
    ax
        Axes to draw on; a new figure that fits the groups if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.

    Returns
    -------
    The axes. The area of a dot is the gene's score relative to the best of its group, its colour
    the mean expression.

    Raises
    ------
    ValueError
        If there are no markers, a column is missing, or ``n_genes`` is not positive.
    """
    require(markers, ("group", "gene", "score", "expression"), "SCTAB.get_markers")
    if n_genes < 1:
        raise ValueError(f"{n_genes=} draws nothing; pass at least 1, e.g. n_genes=8.")
    markers = markers.dropna(subset=["group", "gene", "score"])
    require(markers, (), "SCTAB.get_markers, with a group, a gene and a score in each row")
    best = markers.sort_values("score", ascending=False, kind="stable")
    best = best.groupby("group", observed=True).head(n_genes)
    groups = list(dict.fromkeys(markers["group"]))
    by_group = best.groupby("group", observed=True)["score"]
    top = by_group.transform("max").to_numpy()
    best = best.assign(
        row=best["group"].map({group: i for i, group in enumerate(groups)}).astype(int),
        column=by_group.cumcount(),
        share=np.clip(best["score"].to_numpy() / np.where(top > 0, top, 1), 0, 1),
        gene=best["gene"].astype(str),
    )
    if ax is None:
        ax = _fitting_axes(groups, best)
    highest = float(np.nan_to_num(best["expression"].max())) or 1
    # Genes without an expression are white.
    colors = Normalize(0, highest), colormaps["Blues"].with_extremes(bad="white")
    ax.set(xticks=[], ylim=(len(groups) - 0.4, -0.6))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    _, height = lay_out(ax)
    bar = ax.figure.colorbar(
        ScalarMappable(*colors), ax=ax, label="mean expression",
        shrink=min(0.6, _BAR_INCHES * POINTS_PER_INCH / height),
    )  # fmt: skip
    ax.set_xlabel(_EXPLAINED, fontsize=8)
    name_rows(ax, groups)
    _draw_genes(ax, best, lay_out(ax, bar.ax), colors)
    return ax


def _fitting_axes(groups: list[object], best: pd.DataFrame) -> Axes:
    column = widest(best["gene"], MIN_SIZE) / POINTS_PER_INCH + 0.4
    row = max(_MIN_ROW_INCHES, min(_ROW_INCHES, _ALL_ROWS_INCHES / len(groups)))
    width = names_inches(groups) + column * (best["column"].max() + 1) + 1.3
    return new_axes(width, max(_MIN_INCHES, 1.2 + row * len(groups)))


def _draw_genes(
    ax: Axes,
    best: pd.DataFrame,
    inside: tuple[float, float],
    colors: tuple[Normalize, Colormap],
) -> None:
    """Draw a dot per gene with its name to the right, as many in a row as fit."""
    width, height = inside
    bottom, top = ax.get_ylim()
    n_genes = best["column"].max() + 1
    shortest = widest(fit(best["gene"], MIN_SIZE, 0), MIN_SIZE) + 6
    # Dots are made smaller before genes are left out.
    dot = min(max(width / n_genes - shortest, _MIN_DOT), _MAX_DOT, 0.8 * height / (bottom - top))
    n_shown = max(1, min(n_genes, int(width / (shortest + dot))))
    best = best[best["column"] < n_shown]
    norm, cmap = colors
    ax.scatter(
        best["column"], best["row"], s=dot**2 * best["share"], c=best["expression"], cmap=cmap,
        norm=norm, edgecolors="0.4", linewidths=0.6, plotnonfinite=True,
    )  # fmt: skip
    ax.set_xlim(-dot / width * n_shown, n_shown - 0.1 - dot / width * n_shown)
    if n_shown < n_genes:
        ax.set_xlabel(_EXPLAINED.replace("first", f"first ({n_shown} of {n_genes} fit)"))
    texts = fit(best["gene"], MIN_SIZE, width / n_shown - dot - 6)
    named = [bool(text.get_text()) for text in ax.get_yticklabels()]
    transform = ax.transData + ScaledTranslation(
        (dot / 2 + 2) / POINTS_PER_INCH, 0, ax.figure.dpi_scale_trans
    )
    for column, row, text in zip(best["column"], best["row"], texts, strict=True):
        if named[row]:
            ax.text(column, row, text, va="center", fontsize=MIN_SIZE, transform=transform)
