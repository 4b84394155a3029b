"""Which genes speak for which type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MAX_AREA = 260


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
        Where to draw; a figure that fits the groups if not given.

    Returns
    -------
    The axes. The area of a dot is the gene's score over the best one of its group, its colour the
    mean expression.

    Raises
    ------
    ValueError
        If there are no markers.
    """
    if not len(markers):
        raise ValueError("There are no markers to draw: the frame is empty.")
    best = markers.sort_values("score", ascending=False, kind="stable")
    best = best.groupby("group", observed=True).head(n_genes)
    groups = list(dict.fromkeys(markers["group"]))
    if ax is None:
        width = min(n_genes, int(best.groupby("group", observed=True).size().max()))
        size = (3.0 + 0.85 * width, 1.2 + 0.55 * len(groups))
        _, ax = plt.subplots(figsize=size, layout="constrained")
    x = best.groupby("group", observed=True).cumcount().to_numpy()
    y = best["group"].map(groups.index).to_numpy(dtype=int)
    top = best.groupby("group", observed=True)["score"].transform("max").to_numpy()
    share = np.clip(best["score"].to_numpy() / np.where(top > 0, top, 1), 0, 1)
    dots = ax.scatter(
        x, y, s=_MAX_AREA * share, c=best["expression"], cmap="Blues", vmin=0, edgecolors="0.4",
        linewidths=0.6,
    )  # fmt: skip
    for column, row, gene in zip(x, y, best["gene"], strict=True):
        ax.text(column, row + 0.33, gene, ha="center", va="center", fontsize=7)
    ax.set_yticks(range(len(groups)), groups)
    ax.set(xticks=[], xlim=(-0.6, x.max() + 0.6), ylim=(len(groups) - 0.4, -0.5))
    ax.set_xlabel("genes, best first; area: score, over the best of its row")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.figure.colorbar(dots, ax=ax, shrink=0.6, label="mean expression")
    return ax
