"""Stated against observed accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def plot_reliability(bins: pd.DataFrame, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw bins of :func:`scvi_sctab.metrics.reliability`; on the diagonal, 80% means 80%.

    Parameters
    ----------
    bins
        Columns ``probability``, ``accuracy``, ``n_cells``.
    ax
        Where to draw; a new figure if not given. Call again with the same axes to compare.
    label
        Name in the legend.

    Returns
    -------
    The axes. The area of a point shows how many cells it stands for.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4.2, 4.2), layout="constrained")
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, zorder=0)
    (line,) = ax.plot(bins["probability"], bins["accuracy"], linewidth=1.2, label=label)
    area = 12 + 240 * bins["n_cells"] / bins["n_cells"].sum()
    ax.scatter(bins["probability"], bins["accuracy"], s=area, color=line.get_color(), alpha=0.8)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    ax.set_xlabel("stated probability")
    ax.set_ylabel("share of cells that were right")
    ax.spines[["top", "right"]].set_visible(False)
    if label is not None:
        ax.legend(frameon=False, loc="upper left")
    return ax
