"""Cells in two dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_rgba

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def plot_embedding(
    coordinates: NDArray[np.float64], values: pd.Series, ax: Axes | None = None
) -> Axes:
    """Draw cells, coloured by categories or by numbers.

    Parameters
    ----------
    coordinates
        ``(n_cells, 2)``, e.g. a UMAP.
    values
        ``(n_cells,)``; its name is the title.
    ax
        Where to draw; a new figure if not given.

    Returns
    -------
    The axes.

    Raises
    ------
    ValueError
        If ``coordinates`` are not two per value.
    """
    if coordinates.shape != (len(values), 2):
        raise ValueError(f"{coordinates.shape=} does not give two for each of {len(values)=}.")
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
    size = float(np.clip(30_000 / max(len(values), 1), 1, 20))
    # A random order, so that no category hides another.
    order = np.random.default_rng(0).permutation(len(values))
    x, y = coordinates[order].T
    if pd.api.types.is_numeric_dtype(values):
        points = ax.scatter(x, y, c=values.to_numpy()[order], s=size, cmap="viridis", linewidths=0)
        ax.figure.colorbar(points, ax=ax, shrink=0.7)
    else:
        categories = pd.Categorical(values)
        palette = plt.get_cmap("tab20")(np.arange(len(categories.categories)) % 20)
        # Missing values have the code -1.
        colors = np.vstack([palette, to_rgba("0.8")])[categories.codes[order]]
        ax.scatter(x, y, c=colors, s=size, linewidths=0)
        for name, color in zip(categories.categories, palette, strict=True):
            ax.scatter([], [], color=color, s=30, label=name)
        ax.legend(frameon=False, bbox_to_anchor=(1.01, 0.5), loc="center left", fontsize=8)
    ax.set(xticks=[], yticks=[], title=values.name)
    ax.spines[:].set_visible(False)
    return ax
