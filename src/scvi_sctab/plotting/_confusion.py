"""Plot of a confusion matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from scvi_sctab.plotting._axes import (
    LINE,
    MIN_SIZE,
    lay_out,
    name_columns,
    name_rows,
    names_inches,
    new_axes,
    settle,
)
from scvi_sctab.plotting._names import text_width

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

# Smallest share that is written as a number.
_MIN_SHARE_WRITTEN = 0.005
_DARK_FROM = 0.55
# Inches: usual size of a row or column, limit of all together, and least size with a name.
_CELL, _ALL_CELLS, _MIN_CELL = 0.45, 10.0, 0.13
_TITLE_INCHES = 0.9


def plot_confusion(
    table: pd.DataFrame, ax: Axes | None = None, n_cells: Mapping[str, int] | None = None
) -> Axes:
    """Draw a table of :func:`scvi_sctab.metrics.confusion`.

    Parameters
    ----------
    table
        True labels by predicted labels: shares, or counts of cells (whole numbers), which are
        drawn as shares of their row.
    ax
        Axes to draw on; a new figure that fits the table if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.
    n_cells
        Cells of each true label, e.g. ``truth.value_counts()``. If not given, the sums of the
        rows of counts, or those that :func:`~scvi_sctab.metrics.confusion` keeps in
        ``table.attrs["n_cells"]``.

    Returns
    -------
    The axes. Numbers in the matrix are shares of the row; if they do not fit, there is a colour
    bar instead. Rows without cells are grey.

    Raises
    ------
    ValueError
        If the table is empty.
    """
    if table.empty:
        raise ValueError(
            "The table is empty: it has no true or no predicted labels. Draw "
            "plot_confusion(metrics.confusion(truth, predicted)) of at least one cell."
        )
    shares, counts = _shares_and_counts(table, n_cells)
    notes = ["" if n is None else f" (n = {n:,})" for n in counts]
    n_rows, n_columns = shares.shape
    if ax is None:
        across, down = (
            n * max(_MIN_CELL, min(_CELL, _ALL_CELLS / n)) for n in (n_columns, n_rows)
        )
        left = names_inches(table.index, notes)
        ax = new_axes(left + across + 0.4, names_inches(table.columns) + down + _TITLE_INCHES)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_facecolor("0.9")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    name_rows(ax, table.index, "true", notes)
    name_columns(ax, table.columns, "predicted")
    if not _write_shares(ax, shares):
        ax.figure.colorbar(image, ax=ax, label="share of the row", shrink=0.5, format="{x:.0%}")
        settle(ax)
    return ax


def _shares_and_counts(
    table: pd.DataFrame, n_cells: Mapping[str, int] | None
) -> tuple[NDArray[np.float64], list[int | None]]:
    """Compute the shares of the rows, and the number of cells of each row, if known."""
    values = table.to_numpy(dtype=float)
    totals = np.nansum(values, axis=1)
    known = dict(table.attrs.get("n_cells", {}) if n_cells is None else n_cells)
    if all(np.issubdtype(dtype, np.integer) for dtype in table.dtypes):
        values = np.divide(values, totals[:, None], where=totals[:, None] > 0,
                           out=np.full_like(values, np.nan))  # fmt: skip
        known = dict(zip(table.index, totals, strict=True)) | known
    counts = [known.get(name) for name in table.index]
    return values, [None if n is None else int(n) for n in counts]


def _write_shares(ax: Axes, shares: NDArray[np.float64]) -> bool:
    """Write the shares into the matrix if they fit, and return whether they do."""
    width, height = lay_out(ax)
    width, height = width / shares.shape[1], height / shares.shape[0]
    fitting = [
        (size, unit)
        for size, unit in ((8, "%"), (MIN_SIZE, "%"), (MIN_SIZE, ""))
        if text_width(f"100{unit}", size) <= 0.9 * width and LINE * size <= height
    ]
    if not fitting:
        return False
    size, unit = fitting[0]
    for i, j in np.argwhere(shares >= _MIN_SHARE_WRITTEN):
        color = "white" if shares[i, j] > _DARK_FROM else "black"
        text = f"{100 * shares[i, j]:.0f}{unit}"
        ax.text(j, i, text, ha="center", va="center", color=color, fontsize=size)
    if not unit:
        ax.set_xlabel(f"{ax.get_xlabel()} (numbers: % of the row)")
    return True
