"""Scatter plot of cells in two dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scvi_sctab.plotting._axes import new_axes
from scvi_sctab.plotting._colors import BOOLEANS, MISSING, categories_of, panel_colors
from scvi_sctab.plotting._legend import axes_with_legend, legend_beside

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from numpy.typing import NDArray

_INCHES = 5.4, 4.5
_MISSING_NAME = "missing"


def plot_embedding(
    coordinates: NDArray[np.float64],
    values: pd.Series,
    ax: Axes | None = None,
    colors: Mapping[str, str] | None = None,
) -> Axes:
    """Draw cells, coloured by categories or by numbers.

    Parameters
    ----------
    coordinates
        ``(n_cells, 2)``, e.g. a UMAP.
    values
        ``(n_cells,)``; its name is the title. Booleans are categories. Missing and infinite
        values are grey.
    ax
        Axes to draw on; a new figure that fits the legend if not given. A figure without a layout
        engine is laid out by :meth:`~matplotlib.figure.Figure.tight_layout`.
    colors
        Colour of each category, e.g. of :func:`label_colors`. If not given, categories of the
        same name have the same colour in all panels of a figure.

    Returns
    -------
    The axes. The legend names the categories that have cells.

    Raises
    ------
    ValueError
        If there are no cells, ``coordinates`` are not two per value, or a category has no colour.
    """
    coordinates, values = np.asarray(coordinates, dtype=float), pd.Series(values)
    if coordinates.shape != (len(values), 2):
        raise ValueError(
            f"{coordinates.shape=} does not give two for each of {len(values)=}. Pass two columns "
            "of the same cells, e.g. coordinates=adata.obsm['X_umap'][:, :2]."
        )
    if not len(values):
        raise ValueError(
            "There are no cells to draw: `values` is empty. Check how the cells were chosen, e.g. "
            "print(adata.n_obs)."
        )
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        ax = _bare(new_axes(*_INCHES) if ax is None else ax, values.name)
        _draw_numbers(ax, coordinates, values.to_numpy(dtype=float, na_value=np.nan))
    else:
        ax = _draw_categories(ax, coordinates, values, colors)
    return ax


def _bare(ax: Axes, title: object) -> Axes:
    """Remove everything but the title of axes, since the two dimensions have no units."""
    ax.set(xticks=[], yticks=[])
    ax.set_title("" if title is None else str(title), wrap=True, parse_math=False)
    ax.spines[:].set_visible(False)
    return ax


def _draw_numbers(ax: Axes, coordinates: NDArray[np.float64], values: NDArray[np.float64]) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        _scatter(ax, coordinates, np.full(len(values), MISSING), ~finite)
        ax.set_xlabel(f"grey: {(~finite).sum():,} of {len(values):,} cells without a number")
    if finite.any():
        points = _scatter(ax, coordinates, values, finite, cmap="viridis")
        ax.figure.colorbar(points, ax=ax, shrink=0.7)


def _draw_categories(
    ax: Axes | None,
    coordinates: NDArray[np.float64],
    values: pd.Series,
    colors: Mapping[str, str] | None,
) -> Axes:
    categories = categories_of(values)
    names, codes = [str(name) for name in categories.categories], categories.codes
    missing = codes < 0
    present = [names[code] for code in np.unique(codes[~missing])]
    shown = [*present, _MISSING_NAME] if missing.any() else present
    if ax is None:
        ax = axes_with_legend(_INCHES, shown)
    _bare(ax, values.name)
    if colors is None and {*names} <= {*BOOLEANS}:
        colors_of = BOOLEANS
    else:
        colors_of = panel_colors(ax, present if colors else names, colors)
    # Missing values have the code -1, hence the last colour; they are drawn below the others.
    palette = [*(colors_of.get(name, MISSING) for name in names), MISSING]
    for part in (missing, ~missing):
        if part.any():
            _scatter(ax, coordinates, np.array(palette)[codes], part)
    handles = [
        ax.scatter([], [], color=colors_of.get(name, MISSING), s=30, label=name) for name in shown
    ]
    legend_beside(ax, handles, shown)
    return ax


def _scatter(
    ax: Axes,
    coordinates: NDArray[np.float64],
    values: NDArray[np.float64] | NDArray[np.str_],
    shown: NDArray[np.bool_],
    cmap: str | None = None,
) -> PathCollection:
    """Draw some of the cells, in a random order, so that no category hides another."""
    order = np.random.default_rng(0).permutation(np.flatnonzero(shown))
    x, y = coordinates[order].T
    size = float(np.clip(30_000 / len(shown), 1, 20))
    return ax.scatter(x, y, c=values[order], s=size, linewidths=0, cmap=cmap)
